"""Leave-one-subject-out is what fits without each subject say, and what closed forms say."""

import dataclasses
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from popk.diagnostics.subjects_left_out import _likelihoods, bridged, fingerprint
from popk.inference.fit import METHODS, Method
from popk.inference.importance import log_marginal, weighted
from popk.inference.laplace import individual_layout, subject_layout
from popk.model.sites import describe
from tests.diagnostics.people import (
    drawn_levels,
    left_out,
    marginal,
    of_mu,
    people,
    people_trial,
    two_kinds,
)  # fmt: skip

LEVELS = [*drawn_levels(9), np.array([13.4, 13.0, 13.7])]  # the last is unlike the others
TRIAL, DRAWS = people_trial(LEVELS), 4000


@pytest.fixture(scope="module", autouse=True)
def _exact():
    """Let fits take independent draws of the exact posterior."""
    options = {"chains": 4, "draws": 2000, "width": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "exact", Method("tests.diagnostics.people", "by hand", options))
        yield


@pytest.fixture(scope="module")
def posterior(_exact):
    return popk.fit(people, TRIAL, seed=1, method="exact", progress=False)


@pytest.fixture(scope="module")
def found(posterior):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.LeftOutWarning)
        return popk.loso(people, posterior, TRIAL, draws=DRAWS)


def test_the_marginal_likelihood_of_a_subject_is_that_of_the_closed_form(posterior):
    sites, mu = describe(people, TRIAL), posterior["posterior"]["mu"].values.reshape(-1)
    each = _likelihoods(people, TRIAL, sites, (DRAWS, 64, 1), posterior, TRIAL.ids)
    used = mu[np.linspace(0, mu.size - 1, DRAWS).round().astype(int)]
    exact = np.stack([marginal(y, used) for y in LEVELS], 1)
    # A mean of 64 weights has noise; over draws it averages out, in the mean of exp(log).
    assert (each - exact).std() < 0.05
    assert np.exp(each - exact).mean(0) == pytest.approx(np.ones(10), abs=0.005)


def test_each_subject_is_predicted_as_the_closed_form_says(found):
    trusted = found.pareto_k.values < 0.5
    assert trusted.sum() >= 8
    assert found.elpd_i.values[trusted] == pytest.approx(left_out(LEVELS)[trusted], abs=0.05)
    assert list(found.elpd_i["subject"].values) == list(TRIAL.ids)
    assert found.elpd == pytest.approx(found.elpd_i.values.sum())
    assert found.n_data_points == 10


def test_a_subject_unlike_the_others_is_fitted_without_and_then_exact(posterior, monkeypatch):
    from popk.diagnostics import subjects_left_out

    asked, real = [], subjects_left_out._weighed

    def weighed(likelihoods, trial):
        estimate = real(likelihoods, trial)
        estimate.pareto_k.loc[{"subject": "10"}] = 0.9
        asked.append(estimate.elpd_i.copy())
        return estimate

    monkeypatch.setattr(subjects_left_out, "_weighed", weighed)
    with pytest.warns(popk.LeftOutWarning, match="Pareto k of ID 10 is above 0.70: without them"):
        popk.loso(people, posterior, TRIAL, draws=DRAWS)
    found = popk.loso(people, posterior, TRIAL, draws=DRAWS, refit=True)
    exact = left_out(LEVELS)
    assert found.elpd_i.sel(subject="10") == pytest.approx(exact[-1], abs=0.05)
    assert found.pareto_k.sel(subject="10") == 0
    assert found.elpd == pytest.approx(exact.sum(), abs=0.2)
    assert found.elpd_i.attrs["refitted"] == ["10"]
    assert found.se == pytest.approx(np.sqrt(10 * found.elpd_i.values.var()))
    assert not found.warning


def test_the_bridge_between_both_posteriors_finds_what_a_mean_over_one_does_not():
    levels = [*drawn_levels(9), np.array([20.0, 21.0])]
    exact, off = left_out(levels)[-1], []
    for seed in range(6):
        draw = np.random.default_rng(seed)
        with_all, without = (
            marginal(levels[-1], draw.normal(mean, variance**0.5, 2000))
            for mean, variance in (of_mu(levels), of_mu(levels[:-1]))
        )
        mean = np.logaddexp.reduce(without) - np.log(2000)
        off.append((bridged(without, with_all) - exact, mean - exact))
    bridge, plain = np.abs(off).max(0)
    assert bridge < 0.2 < 0.5 < plain


def test_the_classes_of_a_mixture_are_summed_out():
    one, mu = people_trial([LEVELS[2]]), np.array([5.0, 7.0, 8.0, 9.5])
    arrays, keys = one.padded(), jax.random.split(jax.random.key(0), 4)
    plan = individual_layout(two_kinds, arrays)
    weights = weighted(two_kinds, plan, arrays, {"mu": jnp.asarray(mu)}, keys, 2, count=1000)[1]
    low, high = marginal(LEVELS[2], mu), marginal(LEVELS[2], mu + 3.0)
    exact = np.logaddexp(np.log(0.3) + low, np.log(0.7) + high)
    assert np.asarray(log_marginal(weights, plan.size)) == pytest.approx(exact, abs=0.03)


# --- comparison ---


def one_mean(trial):
    """Levels around a mean of each person that is known to be near 8."""
    mu = numpyro.sample("mu", dist.Normal(8.0, 0.2))
    p = popk.individual(
        trial, omega=popk.fixed(1.0), correlated=False, transform="normal", OWN=mu
    )  # fmt: skip
    popk.observe(trial, p.OWN + 0 * trial.time, popk.additive_error(popk.fixed(0.7)))


def changed(found, **attrs):
    """Return the same estimate that says something else of itself."""
    elpd_i = found.elpd_i.copy()
    elpd_i.attrs = {**found.elpd_i.attrs, **attrs}
    return dataclasses.replace(found, elpd_i=elpd_i)


def test_models_are_compared_subject_by_subject(found):
    other = changed(found)
    other.elpd_i = found.elpd_i - np.linspace(0.0, 2.0, 10)
    other.elpd_i.attrs = found.elpd_i.attrs
    other.elpd = float(other.elpd_i.sum())
    table = popk.compare({"worse": other, "better": found})
    assert list(table.index) == ["better", "worse"]
    assert table["elpd_diff"].tolist() == pytest.approx([0.0, -10.0])
    assert table["dse"]["worse"] == pytest.approx(np.sqrt(10 * np.linspace(0, 2, 10).var()))
    assert table["weight"].sum() == pytest.approx(1.0)
    assert table["converged"].all()
    assert az.compare({"a": found, "b": other})["rank"].tolist() == [0, 1]


def test_models_of_other_levels_are_not_compared(found):
    other = changed(found, observations_sha256="x", trial="another")
    with pytest.raises(popk.ModelError, match=r"one is of DataFrame .* and two of another"):
        popk.compare({"one": found, "two": other})


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (lambda f: {"one": f}, "there are 1 models"),
        (lambda f: {"one": f, "two": 3}, "two is given as int"),
        (lambda f: {"one": f, "two": dataclasses.replace(f, elpd_i=f.elpd_i * 1)}, "popk.loso"),
    ],
)
def test_what_is_no_model_is_not_compared(found, models, says):
    given = models(found)
    if "two" in given and given["two"] != 3:
        given["two"].elpd_i.attrs = {}
    with pytest.raises(ValueError, match=says):
        popk.compare(given)


def test_levels_have_the_same_hash_whatever_else_their_trial_holds():
    again = people_trial(LEVELS)
    assert fingerprint(again) == fingerprint(TRIAL)
    frame = again.to_dataframe().assign(WT=70.0)
    frame.attrs = {}
    weighed = popk.read_nonmem(frame, units={**again.units, "WT": "kg"}, covariates=["WT"])
    assert fingerprint(weighed) == fingerprint(TRIAL)
    frame.loc[0, "DV"] += 0.001
    other = popk.read_nonmem(frame, units={**again.units, "WT": "kg"}, covariates=["WT"])
    assert fingerprint(other) != fingerprint(TRIAL)


# --- refusals ---


def test_another_trial_than_that_of_the_fit_is_refused(posterior):
    other = people_trial([y + 1.0 for y in LEVELS])
    with pytest.raises(popk.ModelError, match="was fitted to other levels"):
        popk.loso(people, posterior, other)


def test_a_model_without_random_effects_is_refused(posterior):
    def pooled(trial):
        mu = numpyro.sample("mu", dist.Normal(8.0, 5.0))
        popk.observe(trial, mu + 0 * trial.time, popk.additive_error(popk.fixed(1.0)))

    with pytest.raises(popk.ModelError, match="no random effects"):
        popk.loso(pooled, posterior, TRIAL)


def test_too_few_draws_are_refused(posterior):
    with pytest.raises(ValueError, match="individual_draws 7; they must"):
        popk.loso(people, posterior, TRIAL, individual_draws=7)


# --- a real trial ---

#: Of fits without each subject (4 chains of 1,000 draws).
SHORT = {"chains": 4, "warmup": 500, "draws": 1000}


@pytest.mark.slow
def test_theophylline_is_predicted_as_fits_without_each_subject_do(
    theophylline, theophylline_model
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        posterior = popk.fit(theophylline_model, theophylline, seed=1, progress=False)
        found = popk.loso(theophylline_model, posterior, theophylline, refit=True, options=SHORT)
        agree = []
        for i in theophylline.ids:
            alone = popk.fit(
                theophylline_model, theophylline.without(i), seed=9, progress=False, **SHORT
            )
            person = theophylline[i]
            plan = subject_layout(theophylline_model, person)
            group = alone["posterior"].dataset
            names = ["CL_pop", "V_pop", "KA_pop", "omega_CL", "omega_V", "omega_KA", "corr",
                     "sigma_additive", "sigma_proportional"]  # fmt: skip
            values = {
                n: jnp.asarray(group[n].values.reshape(-1, *group[n].shape[2:])) for n in names
            }
            keys = jax.random.split(jax.random.key(3), 4000)
            weights = weighted(theophylline_model, plan, person.arrays(), values, keys, count=64)[1]
            each = np.asarray(log_marginal(weights, plan.size))
            # A mean over draws of the posterior without: noisy where the subject is unlike the others.
            exact = np.logaddexp.reduce(each) - np.log(len(each))
            ess = np.exp(2 * np.logaddexp.reduce(each) - np.logaddexp.reduce(2 * each))
            print(i, float(found.elpd_i.sel(subject=i)), exact, ess)
            if ess > 50:
                agree.append(i)
                assert float(found.elpd_i.sel(subject=i)) == pytest.approx(exact, abs=0.35)
    assert len(agree) >= 10
