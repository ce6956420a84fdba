"""Errors of two kinds of levels that were measured in the same samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats

import popk
from popk.model.sites import values_of
from tests.trials import trial

# Parent and metabolite in one sample at 1 h; at 2 h the parent alone, at 3 h the metabolite alone.
SAMPLES = """
    ID TIME EVID AMT DV  DVID BLQ LLOQ
    1  0    1    1   .   1    0   .
    1  1    0    .   5   1    0   .
    1  1    0    .   3   2    0   .
    1  2    0    .   4   1    0   .
    1  3    0    .   2   2    0   .
    2  1    0    .   6   1    0   .
    2  1    0    .   .   2    1   0.5
    2  3    0    .   5   1    0   .
    2  3    0    .   4   2    0   .
"""
PARENT, METABOLITE = 4.5, 2.5


@pytest.fixture(scope="module")
def samples():
    return trial(SAMPLES)


def tied(trial, first=None, second=None):
    """Return nothing: parent at 4.5, metabolite at 2.5, with correlated errors."""
    flat = jnp.ones(trial.time.shape)
    parent = popk.observe(
        trial, PARENT * flat, first or popk.additive_error(popk.fixed(0.8)), DVID=1
    )
    popk.observe(
        trial, METABOLITE * flat, second or popk.lognormal_error(popk.fixed(0.4)),
        output="metabolite", DVID=2, correlated=parent,
    )  # fmt: skip


def test_levels_of_one_sample_have_a_joint_normal_density(samples):
    given = {"sigma_correlation_metabolite": 0.6}
    found = float(log_density(tied, (samples.arrays(),), {}, given)[0])
    normal, log = stats.norm(PARENT, 0.8), stats.norm(np.log(METABOLITE), 0.4)
    both = stats.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]])
    pairs = [((y - PARENT) / 0.8, np.log(m / METABOLITE) / 0.4) for y, m in ((5, 3), (5, 4))]
    expected = (
        both.logpdf(pairs).sum() - 2 * np.log(0.8 * 0.4) - np.log([3, 4]).sum()
        + normal.logpdf([4, 6]).sum() + log.logpdf(np.log(2)) - np.log(2)
        + log.logcdf(np.log(0.5))  # below its limit: what it says alone
        + np.log(0.5)  # the prior of the correlation
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-10)


def test_simulated_errors_of_one_sample_are_correlated(samples):
    def errors(key):
        found = values_of(tied, samples.arrays(), {"sigma_correlation_metabolite": 0.6}, key)
        return (found["DV"] - PARENT) / 0.8, jnp.log(found["DV_metabolite"] / METABOLITE) / 0.4

    parent, metabolite = jax.vmap(errors)(jax.random.split(jax.random.key(0), 20_000))
    together = np.corrcoef(np.asarray(parent[:, 0]), np.asarray(metabolite[:, 1]))[0, 1]
    assert together == pytest.approx(0.6, abs=4 * (1 - 0.36) / np.sqrt(20_000))
    apart = np.corrcoef(np.asarray(parent[:, 2]), np.asarray(metabolite[:, 3]))[0, 1]
    assert abs(apart) < 4 / np.sqrt(20_000)
    assert float(metabolite[:, 1].std()) == pytest.approx(1.0, abs=4 / np.sqrt(40_000))


def test_the_gradient_of_the_correlation_agrees_with_finite_differences(samples):
    def density(rho):
        return log_density(tied, (samples.arrays(),), {}, {"sigma_correlation_metabolite": rho})[0]

    slope = float(jax.grad(density)(0.6))
    difference = float(density(0.6 + 1e-5) - density(0.6 - 1e-5)) / 2e-5
    assert slope == pytest.approx(difference, rel=1e-7)


def test_errors_that_are_not_normal_cannot_be_tied(samples):
    t = popk.additive_error(popk.fixed(0.8), degrees=popk.fixed(4))
    with pytest.raises(
        ValueError, match=r"^correlated errors of two kinds of levels must be normal"
    ):
        handlers.trace(handlers.seed(lambda trial: tied(trial, t), 0)).get_trace(samples.arrays())


def test_levels_of_a_mixture_cannot_be_tied(samples):
    def model(trial):
        flat, error = jnp.ones(trial.time.shape), popk.additive_error(1)
        parent = popk.observe(trial, flat, error, DVID=1)
        mix = popk.mixture(trial, {"a": 0.5, "b": 0.5})
        both = mix(a=flat, b=2 * flat)
        popk.observe(trial, both, error, output="metabolite", DVID=2, correlated=parent)

    with pytest.raises(
        popk.ModelError, match=r"^correlated= ties the residual errors of two kinds"
    ):
        handlers.trace(handlers.seed(model, 0)).get_trace(samples.arrays())


@pytest.mark.slow
def test_a_correlation_is_learned(samples):
    rng = np.random.default_rng(1)
    z = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=(30, 4))
    lines = ["ID TIME EVID DV DVID"]
    for i, one in enumerate(z, start=1):
        for t, (a, b) in enumerate(one, start=1):
            lines += [f"{i} {t} 0 {10 + a:.6f} 1", f"{i} {t} 0 {5 + 0.5 * b:.6f} 2"]

    def model(trial):
        flat = jnp.ones(trial.time.shape)
        first = popk.observe(trial, 10 * flat, popk.additive_error(1), DVID=1)
        popk.observe(trial, 5 * flat, popk.additive_error(1), output="b", DVID=2, correlated=first)

    found = popk.fit(
        model, trial("\n".join(lines)), seed=1, chains=2, warmup=200, draws=500, progress=False
    )["posterior"]["sigma_correlation_b"]
    # (1 - 0.49) / sqrt(120) = 0.047
    assert float(found.mean()) == pytest.approx(0.7, abs=3 * 0.047)
    assert float(found.std()) == pytest.approx(0.047, rel=0.4)
