"""Covariates that some subjects lack: sampled where a model says what it believes of them."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import stats

import popk
from popk.model.sites import describe
from tests.model.sites import refusal, sampled, trace_of
from tests.trials import UNITS, table

RECORDS = """
    ID TIME EVID AMT DV MDV WT KG
    1  0    1    100 .  1   70 1
    1  1    0    0   3  0   70 2
    2  0    1    100 .  1   .  1
    2  1    0    0   2  0   .  1
    3  0    1    100 .  1   50 1
    3  1    0    0   4  0   50 1
"""


def read(text, missing=("WT",)):
    units = {**UNITS, "WT": "kg", "KG": "kg"}
    return popk.read_nonmem(table(text), covariates=["WT", "KG"], units=units, missing=missing)


@pytest.fixture(scope="module")
def incomplete():
    return read(RECORDS)


def weighed(trial):
    """Return nothing: volume by weight, whose mean is learned."""
    mean = numpyro.sample("WT_mean", dist.Normal(60, 20))
    WT = popk.covariate_model(trial, "WT", dist.Normal(mean, 10.0))
    p = popk.individual(trial, V=30 * WT / 70)
    level = popk.one_compartment(trial, CL=1.0, V=p.V)
    popk.observe(trial, level, popk.additive_error(popk.fixed(0.5)))


def test_known_values_are_observed_and_missing_ones_sampled(incomplete):
    trace, WT = trace_of(
        lambda: popk.covariate_model(incomplete, "WT", dist.Normal(60.0, 10.0)),
        WT_missing=jnp.asarray([[1.0], [65.0], [2.0]]),
    )
    np.testing.assert_array_equal(WT[:, 0], [70, 65, 50])
    assert sampled(trace) == ["WT_missing", "WT_known"]
    known = float(jnp.sum(trace["WT_known"]["fn"].log_prob(trace["WT_known"]["value"])))
    assert known == pytest.approx(stats.norm(60, 10).logpdf([70, 50]).sum(), rel=1e-12)


def test_the_density_counts_known_values_levels_and_random_effects_once(incomplete):
    missing = np.array([[61.0], [65.0], [59.0]])
    eta = np.array([0.1, -0.2, 0.3])
    given = {"WT_mean": 58.0, "WT_missing": jnp.asarray(missing), "omega_V": 0.3,
             "eta": jnp.asarray(eta)[:, None, None]}  # fmt: skip
    found = float(log_density(weighed, (incomplete.arrays(),), {}, given)[0])
    V = 30 * np.array([70, 65, 50]) / 70 * np.exp(eta)
    expected = (
        stats.norm(60, 20).logpdf(58) + stats.norm(58, 10).logpdf(missing).sum()
        + stats.norm(58, 10).logpdf([70, 50]).sum() + stats.norm(0, 0.3).logpdf(eta).sum()
        + stats.halfnorm(scale=0.5).logpdf(0.3)
        + stats.norm(100 / V * np.exp(-1 / V), 0.5).logpdf([3, 2, 4]).sum()
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::popk.ConvergenceWarning")  # few draws
def test_the_posterior_has_the_missing_values_with_their_uncertainty(incomplete):
    posterior = popk.fit(
        weighed, incomplete, seed=1, chains=2, warmup=200, draws=300, progress=False
    )
    WT = posterior["posterior"]["WT"]
    assert WT.dims == ("chain", "draw", "subject")
    assert float(WT.sel(subject="1").std()) == 0.0
    assert float(WT.sel(subject="3").mean()) == 50.0
    assert 5 < float(WT.sel(subject="2").std()) < 15
    # a lower level than those of 50 and 70 kg: rather heavier than the mean
    assert float(WT.sel(subject="2").mean()) > float(posterior["posterior"]["WT_mean"].mean()) - 2
    new = popk.predict(weighed, posterior, incomplete, new_subjects=True, seed=1, draws=32)
    assert np.isfinite(new["posterior_predictive"]["DV"]).all()
    twin = popk.Twin(weighed, posterior, incomplete["2"], population_draws=100)
    assert np.isfinite(twin.forecast([2.0])["DV"]).all()


def test_sites_of_a_modeled_covariate_are_those_that_are_sampled(incomplete):
    sites = describe(weighed, incomplete)
    assert sites.named("individual", "latent") == ["WT_missing", "eta"]
    assert sites.named("latent") == ["WT_missing"]
    assert "WT_known" not in sites.all


def test_a_typical_subject_has_a_missing_weight_that_is_drawn_and_not_0(incomplete):
    prior = popk.prior_draws(weighed, incomplete, seed=1, draws=32)
    found = popk.predict(weighed, prior, incomplete, new_subjects=True, seed=1)
    # 100 mg in 26 L, of a weight about the mean, after an hour at 1 L/h: 3.7 mg/L
    assert 3 < float(found["posterior_predictive"]["PRED"][:, 1].median()) < 4.5
    with pytest.raises(popk.ModelError, match=r"^values lacks WT_missing, which the prediction"):
        popk.predict_at(weighed, incomplete, {"WT_mean": 60.0})


def test_a_complete_covariate_is_itself():
    complete = read(
        RECORDS.replace(" .  1\n    2  1", " 61 1\n    2  1").replace("0   .  1", "0   61 1")
    )
    assert trace_of(lambda: popk.covariate_model(complete, "WT", dist.Normal(60.0, 10.0)))[1][
        :, 0
    ].tolist() == [70, 61, 50]


def test_a_missing_value_is_never_filled_in_silently(incomplete):
    with pytest.raises(popk.DataError, match=r"WT is missing; give a value on every row of the ID"):
        read(RECORDS, missing=())
    with pytest.raises(popk.DataError, match=r"WT may be missing; take popk.covariate_model"):
        incomplete.covariate("WT")
    np.testing.assert_array_equal(incomplete.covariate("WT", missing=60.0)[:, 0], [70, 60, 50])
    again = popk.read_nonmem(incomplete.to_dataframe())
    assert again.design.missing == ("WT",)
    assert incomplete["2"].design.missing == ("WT",)


def test_a_value_that_is_missing_on_some_rows_of_a_subject_is_refused():
    with pytest.raises(popk.DataError) as caught:
        read(RECORDS.replace("0   .  1", "0   60 1"))
    assert "ID 2  TIME 0  WT is missing here and known on another row of ID 2" in str(caught.value)


def test_missing_names_a_covariate():
    with pytest.raises(popk.DataError, match="missing= names AGE, which is no covariate"):
        read(RECORDS, missing=["AGE"])


def test_a_model_of_a_covariate_that_cannot_be_is_refused(incomplete):
    def says(name, distribution):
        return refusal(lambda: popk.covariate_model(incomplete, name, distribution))

    assert says("WT", dist.Bernoulli(0.3)).startswith("WT was given a discrete distribution")
    assert says("KG", dist.Normal(0.0, 1.0)).startswith("KG changes within subjects")
    assert says("WT", dist.Normal(jnp.zeros((2, 1)), 1.0)).startswith(
        "the distribution of WT has the shape (2, 1); it must be of one number"
    )
