"""The posterior by importance sampling around its mode, against one that is known exactly."""

import json

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

import popk
from popk.inference import population, reweighted
from popk.inference.importance import enough
from tests.inference.gaussian import BETWEEN, MEAN, NOISE, exact, gaussian, gaussian_trial
from tests.trials import trial

QUICK = {"method": "laplace", "progress": False}


@pytest.fixture(scope="module")
def posterior():
    return popk.fit(gaussian, gaussian_trial(), seed=1, **QUICK)


def test_draws_are_those_of_the_exact_posterior(posterior):
    mean, covariance = exact(gaussian_trial())
    group, ess = posterior["posterior"], posterior.attrs["importance_ess"]
    draws = np.stack([group["mu"].values[0], *group["own"].values[0].T])
    error = np.sqrt(np.diag(covariance) / ess)
    assert (abs(draws.mean(1) - mean) < 4 * error).all()
    # The relative standard error of a variance of n draws is sqrt(2 / n).
    ratio = np.cov(draws) / covariance
    np.testing.assert_allclose(np.diag(ratio), 1, atol=4 * np.sqrt(2 / ess))
    assert np.corrcoef(draws)[0, 2] == pytest.approx(
        covariance[0, 2] / np.sqrt(covariance[0, 0] * covariance[2, 2]), abs=4 / np.sqrt(ess)
    )


def test_what_the_levels_do_not_touch_keeps_its_prior(posterior):
    group, ess = posterior["posterior"], posterior.attrs["importance_ess"]
    tau = stats.gamma(3, scale=0.5)
    assert float(group["tau"].mean()) == pytest.approx(tau.mean(), abs=4 * tau.std() / np.sqrt(ess))
    rho = group["rho"].values[0, :, 0, 1]  # LKJ(1) of two: uniform between -1 and 1
    assert rho.mean() == pytest.approx(0, abs=4 * np.sqrt(1 / 3 / ess))
    assert rho.std() == pytest.approx(np.sqrt(1 / 3), abs=0.05)


def test_the_attributes_hold_the_mode_its_errors_and_the_objective(posterior):
    mean, covariance = exact(gaussian_trial())
    attrs = posterior.attrs
    mode, errors = json.loads(attrs["mode"]), json.loads(attrs["standard_errors"])
    assert mode["mu"] == pytest.approx(mean[0], abs=1e-6)
    assert errors["mu"] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-3)
    # In log tau the density of a Gamma(3, 2) is highest at 3 / 2, where it curves by 3.
    assert mode["tau"] == pytest.approx(1.5, abs=1e-6)
    assert errors["tau"] == pytest.approx(1.5 / np.sqrt(3), rel=5e-3)
    # Levels of one person are normal with a common variance; without N ln 2 pi.
    o, expected = gaussian_trial().observations, 0.0
    for i in range(3):
        y = o.value[o.subject == i]
        common = NOISE**2 * np.eye(y.size) + BETWEEN**2
        law = stats.multivariate_normal(np.full(y.size, mode["mu"]), common)
        expected += -2 * law.logpdf(y) - y.size * np.log(2 * np.pi)
    assert attrs["objective"] == pytest.approx(expected, abs=1e-8)
    assert (attrs["method"], attrs["inference_library"]) == ("laplace", "popk")
    assert json.loads(attrs["settings"]) == {
        "draws": 2000, "population_draws": 2000, "individual_draws": 8,
    }  # fmt: skip
    assert MEAN > 0


def test_the_verdict_is_that_of_the_weights(posterior):
    verdict = popk.convergence(posterior)
    assert verdict.converged
    assert verdict.pareto_k == posterior.attrs["pareto_k"] < 0.7
    assert verdict.ess_bulk == posterior.attrs["importance_ess"] > 500
    assert np.isnan(verdict.rhat)
    table = popk.summary(posterior)
    assert table["R-hat"].isna().all()
    assert (table["ESS bulk"] == verdict.ess_bulk).all()


def test_estimates_are_the_mode_with_relative_errors(posterior):
    table = popk.estimates(posterior)
    assert list(table.columns) == ["estimate", "SE", "RSE%", "shrinkage%"]
    row, attrs = table.loc["tau"], posterior.attrs
    assert row["estimate"] == json.loads(attrs["mode"])["tau"]
    assert row["RSE%"] == pytest.approx(100 / np.sqrt(3), rel=5e-3)
    assert table.attrs["OFV"] == attrs["objective"]


def test_draws_have_equal_weight_and_are_in_no_order(posterior):
    stats_of = posterior["sample_stats"]
    assert set(stats_of.data_vars) == {"lp", "weight"}
    assert dict(posterior["posterior"].sizes)["draw"] == 2000
    weights = stats_of["weight"].values[0]
    first, second = weights[:1000].mean(), weights[1000:].mean()
    assert first == pytest.approx(second, rel=0.2)


def test_the_same_seed_gives_the_same_draws_and_nothing_is_compiled_anew(posterior):
    before = population.posterior._cache_size(), reweighted._weighed._cache_size()
    again = popk.fit(gaussian, gaussian_trial(), seed=1, **QUICK)
    assert again["posterior"].dataset.identical(posterior["posterior"].dataset)
    other = popk.fit(gaussian, gaussian_trial(), seed=2, **QUICK)
    assert (other["posterior"]["mu"] != posterior["posterior"]["mu"]).any()
    assert (population.posterior._cache_size(), reweighted._weighed._cache_size()) == before


def test_weights_that_fail_are_said_loudly_with_the_next_step(monkeypatch):
    monkeypatch.setattr(
        reweighted, "smoothed", lambda logs: (np.full(logs.size, 1 / logs.size), 0.9)
    )
    with pytest.warns(popk.ConvergenceWarning) as caught:
        popk.fit(gaussian, gaussian_trial(), seed=1, **QUICK)
    assert str(caught[0].message) == (
        "the weights cannot be trusted:\n  Pareto k of the weights is 0.90 (at most 0.7): the posterior "
        "is unlike its Laplace approximation, and a few draws carry most of the weight; take method='nuts'"
    )


def test_more_subjects_have_more_draws_of_each():
    assert [enough(n) for n in (1, 12, 32, 33, 59, 128, 1000)] == [8, 8, 8, 16, 16, 32, 64]


# --- what is refused ---


def refused(model, records, **options):
    with pytest.raises(ValueError, match=r"laplace|must|even|factor") as caught:
        popk.fit(model, records, seed=1, **QUICK, **options)
    return str(caught.value)


def test_options_of_another_method_and_odd_counts_are_refused():
    known = gaussian_trial()
    assert "chains means nothing to method='laplace'" in refused(gaussian, known, chains=2)
    assert refused(gaussian, known, individual_draws=3) == (
        "individual_draws is 3; draws come in pairs: give an even number"
    )
    assert "population_draws=0: each must be at least 1" in refused(
        gaussian, known, population_draws=0
    )


LEVELS = "ID TIME EVID AMT DV\n1 0 1 100 .\n1 2 0 . 8\n2 0 1 100 .\n2 2 0 . 7\n"


def one_effect(trial, **options):
    CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
    return popk.individual(trial, CL=CL, **options)


def test_models_with_several_modes_by_design_are_refused():
    def classes(trial):
        mix = popk.mixture(trial, {"fast": 0.5, "slow": 0.5})
        of = one_effect(trial, classes=mix)
        fast, slow = (popk.one_compartment(trial, CL=p.CL, V=10.0) for p in (of.fast, of.slow))
        popk.observe(trial, mix(fast=fast, slow=slow), popk.proportional_error(0.2))

    def groups(trial):
        p = one_effect(trial, groups={"STUDY": ["CL"]}, levels={"STUDY": (1, 2)})
        popk.observe(
            trial, popk.one_compartment(trial, CL=p.CL, V=10.0), popk.proportional_error(0.2)
        )

    assert "where subjects are of classes" in refused(classes, trial(LEVELS))
    studies = trial(LEVELS.replace("DV\n", "DV STUDY\n").replace(".\n", ". 1\n").replace("8\n", "8 1\n")
                    .replace("7\n", "7 1\n"), STUDY="1")  # fmt: skip
    assert "not between groups of them (STUDY)" in refused(groups, studies)


def test_events_are_refused_and_so_is_a_solver_without_second_derivatives():
    def events(trial):
        h = jnp.broadcast_to(one_effect(trial).CL, trial.time.shape)
        popk.observe(trial, h, popk.time_to_event(h * trial.time))

    def solved(trial):
        p = {"CL": one_effect(trial).CL}

        def rhs(A, p):
            return {"central": -p.CL * A.central / (10.0 + A.central)}

        amounts = popk.ode(trial, rhs, p, compartments=("central",))
        popk.observe(
            trial, popk.concentration(trial, amounts.central, 10.0), popk.proportional_error(0.2)
        )

    text = "ID TIME EVID DV\n1 0 0 0\n1 2.5 0 1\n2 0 0 0\n2 4 0 0\n"
    assert "times to events" in refused(events, trial(text))
    assert "which the solver of popk.ode does not have" in refused(solved, trial(LEVELS))


def test_a_factor_of_no_subject_is_refused():
    def penalized(trial):
        gaussian(trial)
        numpyro.factor("penalty", -1.0)

    said = "the factor penalty is of no subject"
    assert refused(penalized, gaussian_trial()).startswith(said)
    with pytest.raises(popk.ModelError, match=said):
        popk.objective(penalized, gaussian_trial(), {"mu": 0.0, "tau": 1.0, "rho": np.eye(2)})


def test_a_posterior_without_a_mode_is_refused_after_several_searches(monkeypatch):
    monkeypatch.setattr(population, "_surroundings", lambda surface, end: None)
    assert refused(gaussian, gaussian_trial()) == (
        "method='laplace' found no mode of the posterior in 5 searches (the density falls away from no "
        "point that was found); tighten vague priors, or take method='nuts'"
    )


# --- against NUTS (slow) ---


@pytest.mark.slow
def test_theophylline_is_as_nuts_finds_it(theophylline_model, theophylline):
    import arviz as az

    from popk.inference.convergence import population_draws

    mine = popk.fit(theophylline_model, theophylline, seed=1, **QUICK)
    nuts = popk.fit(theophylline_model, theophylline, seed=1, progress=False)
    ess = mine.attrs["importance_ess"]
    theirs = population_draws(nuts)
    for name, draws in population_draws(mine).items():
        other = theirs[name]
        error = np.hypot(draws.std() / ess**0.5, other.std() / float(az.ess(other)) ** 0.5)
        assert draws.mean() == pytest.approx(other.mean(), abs=4 * error), name
        assert draws.std() == pytest.approx(other.std(), rel=0.15), name
