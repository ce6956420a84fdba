"""How else may errors be distributed? Transformed on both sides by a power."""

from functools import partial
from inspect import unwrap

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import popk
from popk.residual import box_cox_error, lognormal_error, yeo_johnson_error
from tests.residual.observed import levels

LIMIT = 0.9
POWER = popk.fixed(0.5)
T = popk.fixed(4.0)
FAR = {
    "t": (
        popk.combined_error(1, 1, degrees=T),
        {"additive": 0.01, "proportional": 0, "degrees": 4},
    ),
    "log t": (lognormal_error(1, degrees=T), {"log": 0.01, "degrees": 4}),
    "M4": (popk.additive_error(1, blq="M4"), {"additive": 0.01}),
    "Box-Cox": (box_cox_error(popk.additive_error(1), POWER), {"additive": 0.01, "lambda": 0.5}),
    "Yeo-Johnson": (
        yeo_johnson_error(popk.additive_error(1), POWER),
        {"additive": 0.01, "lambda": -0.5},
    ),
}


@pytest.mark.parametrize("name", FAR)
def test_the_gradient_lives_50_standard_deviations_from_the_limit(name):
    error, sigmas = FAR[name]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def value_and_slopes(f, sigmas):
        return levels(error, sigmas, f, below=True, limit=LIMIT).log_prob(jnp.ones(1)).sum()

    given = {n: jnp.asarray(float(v)) for n, v in sigmas.items()}
    for away in (-50, 50):
        value, slopes = value_and_slopes(jnp.asarray([LIMIT + away * 0.01]), given)
        assert np.isfinite(value)
        assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
        assert float(slopes[0][0]) < 0 or away < 0


@pytest.mark.parametrize("transform", [box_cox_error, yeo_johnson_error])
def test_a_power_of_1_leaves_levels_as_they_are(transform):
    error = transform(popk.additive_error(1), popk.fixed(1.0))
    found = levels(error, {"additive": 0.1, "lambda": 1.0}, [2.0]).log_prob(jnp.asarray([2.1]))
    assert float(found[0]) == pytest.approx(stats.norm(2, 0.1).logpdf(2.1), rel=1e-12)


def test_a_power_of_0_is_the_lognormal_error():
    f, y = [0.5, 2.0], jnp.asarray([0.4, 2.5])
    error = box_cox_error(popk.additive_error(1), popk.fixed(0.0))
    found = levels(error, {"additive": 0.3, "lambda": 0.0}, f).log_prob(y)
    expected = levels(lognormal_error(1), {"log": 0.3}, f).log_prob(y)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_power_may_be_estimated():
    prior = dist.Normal(0.0, 1.0)
    error = box_cox_error(popk.additive_error(0.5), prior)
    assert list(error.priors) == ["additive", "lambda"]
    assert error.priors["lambda"] is prior
    assert not error.log

    @jax.jit
    def total(shape):
        sigmas = {"additive": 0.3, "lambda": shape}
        return levels(error, sigmas, [0.5, 2.0]).log_prob(jnp.asarray([0.4, 2.5])).sum()

    slope = jax.jit(jax.grad(total))
    for shape in (-0.5, 0.0, 0.5):
        difference = (total(shape + 1e-5) - total(shape - 1e-5)) / 2e-5
        found = float(slope(shape))
        assert found == pytest.approx(float(difference), rel=1e-6, abs=1e-8)


def test_a_bare_number_is_no_power():
    with pytest.raises(ValueError, match=r"power is 0.5; .* popk.fixed\(0.5\)"):
        unwrap(box_cox_error)(popk.additive_error(1), 0.5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_power_is_finite(value):
    with pytest.raises(ValueError, match="it must be finite"):
        yeo_johnson_error(popk.additive_error(1), popk.fixed(value))


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (lognormal_error(0.3), "errors on the log scale"),
        (popk.additive_error(1, degrees=T), "t-distributed errors"),
        (box_cox_error(popk.additive_error(1), POWER), "a power transformation"),
    ],
)
def test_only_normal_errors_of_levels_are_transformed(error, what):
    with pytest.raises(
        ValueError, match=rf"box_cox_error\(\) was given an error model with {what}"
    ):
        box_cox_error(error, popk.fixed(0.5))


@pytest.mark.parametrize("shape", [-0.5, 0.0, 0.5])
def test_where_nothing_is_predicted_nothing_is_sampled_and_below_the_limit_is_certain(shape):
    error, sigmas = box_cox_error(popk.additive_error(1), POWER), {"additive": 0.3, "lambda": shape}
    found = levels(error, sigmas, [0.0, 2.0], below=True, limit=1.0)
    y = found.sample(jax.random.key(1), (100,))
    np.testing.assert_array_equal(y[:, 0], 0)
    assert (np.asarray(y[:, 1]) > 0).all()
    assert float(found.log_prob(jnp.ones(2))[0]) == 0
