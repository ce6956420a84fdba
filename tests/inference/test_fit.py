"""What is the posterior? `fit`, from a model and a trial to an ArviZ DataTree."""

import hashlib
import inspect
import json
import warnings
from datetime import datetime
from importlib.metadata import version

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import popk
from popk.inference import nuts
from popk.model.sites import describe, values_of
from tests.conftest import ROOT
from tests.inference.gaussian import NOISE, TRIAL, exact, gaussian, gaussian_trial
from tests.trials import trial

POPULATION = ["CL_pop", "V_pop", "KA_pop", "omega_CL", "omega_V", "omega_KA", "corr", "sigma_additive",
              "sigma_proportional"]  # fmt: skip
SHORT = {"chains": 4, "warmup": 300, "draws": 1000, "progress": False}


@pytest.fixture(scope="module")
def posterior():
    """Return the fit of a model whose posterior is known."""
    return popk.fit(gaussian, gaussian_trial(), seed=1, **SHORT)


# --- the tree ---


def test_the_groups_are_those_of_arviz(theophylline_posterior):
    assert set(theophylline_posterior.children) == {
        "posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data",
    }  # fmt: skip


def test_the_posterior_holds_population_and_individual_parameters_with_their_axes(
    theophylline_posterior,
):
    group = theophylline_posterior["posterior"]
    dims = {str(name): values.dims[2:] for name, values in group.data_vars.items()}
    assert dims == {
        **dict.fromkeys(POPULATION, ()),
        "corr": ("parameter", "parameter2"),
        "eta": ("subject", "parameter"),
        **dict.fromkeys(("CL", "V", "KA"), ("subject",)),
    }
    assert all(values.dims[:2] == ("chain", "draw") for values in group.data_vars.values())
    assert dict(group.sizes) == {
        "chain": 2,
        "draw": 200,
        "subject": 12,
        "parameter": 3,
        "parameter2": 3,
    }
    assert list(group["subject"].values) == [str(i) for i in range(1, 13)]
    assert list(group["parameter"].values) == ["CL", "V", "KA"]
    assert list(group["chain"].values) == [0, 1]
    assert list(group["draw"].values) == list(range(200))


def test_every_number_of_the_posterior_is_finite(theophylline_posterior):
    for name, values in theophylline_posterior["posterior"].data_vars.items():
        assert np.isfinite(values).all(), name


def test_individual_parameters_are_those_of_their_population_and_eta(
    theophylline_posterior, theophylline
):
    group = theophylline_posterior["posterior"].dataset
    size = np.ravel(theophylline.covariate("WT")) / 70
    for name, power in (("CL", 0.75), ("V", 1.0), ("KA", 0.0)):
        typical = group[f"{name}_pop"].to_numpy()[..., None] * size**power
        effect = group["eta"].sel(parameter=name).to_numpy()
        np.testing.assert_allclose(group[name], typical * np.exp(effect), rtol=1e-10)


def test_a_correlation_matrix_is_symmetric_with_ones_on_its_diagonal(theophylline_posterior):
    corr = theophylline_posterior["posterior"]["corr"].to_numpy()
    np.testing.assert_allclose(corr, np.swapaxes(corr, -1, -2), atol=1e-12)
    np.testing.assert_allclose(np.diagonal(corr, axis1=-2, axis2=-1), 1, rtol=1e-12)


def test_the_log_likelihood_is_one_number_a_level_on_a_flat_axis(
    theophylline_posterior, theophylline
):
    levels = theophylline_posterior["log_likelihood"]["DV"]
    assert levels.dims == ("chain", "draw", "observation")
    assert levels.shape == (2, 200, 132)
    draw = theophylline_posterior["posterior"].dataset.isel(chain=1, draw=17)
    i = 40  # a level of subject 4
    who, t = str(levels["ID"].values[i]), float(levels["TIME"].values[i])
    dose = float(theophylline[who].to_dataframe()["AMT"].max())
    CL, V, KA = (float(draw[name].sel(subject=who)) for name in ("CL", "V", "KA"))
    f = dose / V * KA / (KA - CL / V) * (np.exp(-CL / V * t) - np.exp(-KA * t))
    spread = np.hypot(float(draw["sigma_additive"]), float(draw["sigma_proportional"]) * f)
    expected = stats.norm(f, spread).logpdf(float(theophylline.observations.value[i]))
    assert float(levels[1, 17, i]) == pytest.approx(expected, rel=1e-9)


def test_arviz_computes_loo_on_it(theophylline_posterior):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pareto k of a short fit
        loo = az.loo(theophylline_posterior, pointwise=True)
    assert loo.n_data_points == 132
    assert loo.elpd_i.dims == ("observation",)
    assert -300 < float(loo.elpd) < -150


def test_what_was_observed_stands_beside_it_with_its_rows(theophylline_posterior, theophylline):
    observed = theophylline_posterior["observed_data"]["DV"]
    np.testing.assert_array_equal(observed, theophylline.observations.value)
    assert observed.attrs["units"] == "mg/L"
    lines = (ROOT / "data" / "theophylline.csv").read_text().splitlines()
    fields = lines[int(observed["row"].values[40]) - 1].split(",")
    assert fields[0] == str(observed["ID"].values[40]) == "4"
    assert float(fields[1]) == observed["TIME"][40]
    assert float(fields[5]) == observed[40]


def test_covariates_stand_beside_it_with_their_units(theophylline_posterior, theophylline):
    constant = theophylline_posterior["constant_data"]["WT"]
    assert constant.dims == ("subject",)
    np.testing.assert_array_equal(constant, np.ravel(theophylline.covariate("WT")))
    assert constant.attrs == {"units": "kg", "lowest": 54.6, "highest": 86.4}


def test_sample_stats_are_those_that_arviz_knows(theophylline_posterior):
    group = theophylline_posterior["sample_stats"]
    assert set(group.data_vars) == {
        "lp", "diverging", "energy", "acceptance_rate", "n_steps", "tree_depth", "step_size",
    }  # fmt: skip
    assert group["diverging"].dtype == bool
    assert all(values.dims == ("chain", "draw") for values in group.data_vars.values())


# --- provenance ---


def test_the_attributes_say_what_a_posterior_was_made_from(
    theophylline_posterior, theophylline_model
):
    attrs = theophylline_posterior.attrs
    source = inspect.getsource(theophylline_model)
    assert attrs["model"] == "theophylline"
    assert attrs["model_source"] == source
    assert attrs["model_sha256"] == hashlib.sha256(source.encode()).hexdigest()
    data = (ROOT / "data" / "theophylline.csv").read_bytes()
    assert attrs["trial_sha256"] == hashlib.sha256(data).hexdigest()
    assert attrs["trial"].endswith("theophylline.csv")
    assert (attrs["subjects"], attrs["seed"], attrs["precision"]) == (12, 1, "float64")
    versions = json.loads(attrs["versions"])
    for name in ("popk", "jax", "numpyro", "blackjax", "arviz"):
        assert versions[name] == version(name)
    settings = json.loads(attrs["settings"])
    assert (settings["chains"], settings["warmup"], settings["draws"]) == (2, 200, 200)
    assert len(settings["centering"]) == 3
    assert datetime.fromisoformat(attrs["created_at"]).tzinfo is not None
    assert attrs["wall_time_s"] > 0


# --- the sampler, through the door ---


def test_a_fit_recovers_a_known_posterior(posterior):
    mean, covariance = exact(gaussian_trial())
    group = posterior["posterior"]
    mu = group["mu"].to_numpy()
    error = np.sqrt(covariance[0, 0] / float(az.ess(mu, method="mean")))
    assert mu.mean() == pytest.approx(mean[0], abs=4 * error)
    for i, who in enumerate("123", start=1):
        own = group["own"].sel(subject=who).to_numpy()
        error = np.sqrt(covariance[i, i] / float(az.ess(own, method="mean")))
        assert own.mean() == pytest.approx(mean[i], abs=4 * error)


def test_a_fixed_sigma_is_kept_as_a_constant_and_not_judged(posterior):
    group = posterior["posterior"]
    assert (group["sigma_additive"] == NOISE).all()
    assert group.attrs["fixed"] == ["sigma_additive"]
    assert popk.convergence(posterior).converged


def test_the_same_seed_gives_the_same_posterior_bit_for_bit(posterior):
    again = popk.fit(gaussian, gaussian_trial(), seed=1, **SHORT)
    for name in ("posterior", "sample_stats", "log_likelihood"):
        assert again[name].dataset.identical(posterior[name].dataset)


def test_another_seed_gives_other_draws_of_the_same_posterior(posterior):
    other = popk.fit(gaussian, gaussian_trial(), seed=2, **SHORT)["posterior"]["mu"]
    mine = posterior["posterior"]["mu"]
    assert (other != mine).all()
    assert float(other.mean()) == pytest.approx(float(mine.mean()), abs=0.1)


def test_a_second_fit_of_the_same_shapes_compiles_nothing_anew(posterior):
    before = nuts._advance._cache_size(), nuts.state._cache_size()
    popk.fit(gaussian, gaussian_trial(TRIAL.replace("4.1", "8.0")), seed=3, **SHORT)
    assert (nuts._advance._cache_size(), nuts.state._cache_size()) == before


def test_chains_that_did_not_converge_are_said_loudly_with_the_next_step(
    theophylline_model, theophylline
):
    with pytest.warns(popk.ConvergenceWarning) as caught:
        popk.fit(
            theophylline_model,
            theophylline,
            seed=1,
            chains=2,
            warmup=200,
            draws=100,
            progress=False,
        )
    message = str(caught[0].message)
    assert message.startswith("the chains did not converge:\n  ")
    assert "raise draws= or chains=" in message


@pytest.fixture(scope="module")
def censored():
    """Return a fit of a level, one that was not measured, and one below the limit of 2.5."""
    text = "ID TIME EVID DV MDV BLQ LLOQ\n1 0 0 4.1 0 0 .\n1 1 0 3.0 1 0 .\n1 2 0 . 0 1 2.5"
    with pytest.warns(popk.ConvergenceWarning):
        return popk.fit(
            gaussian, trial(text), seed=1, chains=2, warmup=10, draws=10, progress=False
        )


def test_levels_that_do_not_count_are_not_in_the_tree_and_those_below_the_limit_are(censored):
    levels = censored["log_likelihood"]["DV"]
    assert list(levels["TIME"].values) == [0, 2]
    own = censored["posterior"]["own"].sel(subject="1")
    np.testing.assert_allclose(levels[..., 0], stats.norm(own, NOISE).logpdf(4.1), rtol=1e-9)
    np.testing.assert_allclose(levels[..., 1], stats.norm(own, NOISE).logcdf(2.5), rtol=1e-9)


def test_a_level_below_the_limit_is_not_observed_as_a_number(censored):
    np.testing.assert_array_equal(censored["observed_data"]["DV"], [4.1, np.nan])


# --- what is refused ---


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"warmup": 0}, {"draws": -1}])
def test_a_count_below_1_is_refused(wrong, theophylline_model, theophylline):
    counts = {"chains": 4, "warmup": 500, "draws": 1000, **wrong}
    with pytest.raises(ValueError, match="each must be at least 1") as caught:
        popk.fit(theophylline_model, theophylline, seed=1, **counts)
    assert str(caught.value).startswith(
        f"chains={counts['chains']}, warmup={counts['warmup']}, draws={counts['draws']}:"
    )


@pytest.mark.parametrize("centering", [1.5, -0.1, {"CL": 2.0}, float("nan")])
def test_a_centering_that_is_no_fraction_is_refused(centering, theophylline_model, theophylline):
    with pytest.raises(popk.ModelError, match="it must lie between 0"):
        popk.fit(theophylline_model, theophylline, seed=1, centering=centering)


def test_the_centering_of_a_parameter_without_random_effect_is_refused(
    theophylline_model, theophylline
):
    with pytest.raises(popk.ModelError) as caught:
        popk.fit(theophylline_model, theophylline, seed=1, centering={"Q": 0.5})
    assert str(caught.value) == (
        "centering names Q, which have no random effect; those that have one are CL, V, KA"
    )


def impossible(text, error, **options):
    def model(trial):
        CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
        popk.observe(trial, popk.one_compartment(trial, CL=CL, V=10.0), error)

    with pytest.raises(popk.ModelError) as caught:
        popk.fit(model, trial(text), seed=1, chains=2, warmup=10, draws=10, progress=False)
    return str(caught.value)


def test_nothing_is_learnt_about_a_kind_of_levels_that_the_trial_does_not_have():
    def model(trial):
        parent = popk.one_compartment(trial, CL=1.0, V=10.0)
        popk.observe(trial, parent, popk.additive_error(0.2), DVID=1)
        popk.observe(trial, parent, popk.additive_error(0.2), output="metabolite", DVID=2)

    text = "ID TIME EVID AMT DVID DV\n1 0 1 100 0 .\n1 2 0 . 1 8\n"
    with pytest.raises(popk.ModelError) as caught:
        popk.fit(model, trial(text), seed=1, progress=False)
    assert str(caught.value) == (
        "DV_metabolite stands for levels with DVID 2, and the trial has none to fit"
    )
    both = trial(text + "1 3 0 . 2 7\n")
    assert not describe(model, both).unseen
    assert jnp.isfinite(values_of(model, trial(text).arrays(), {}, jax.random.key(0))["DV"]).all()


@pytest.mark.parametrize("error", [popk.proportional_error(0.2), popk.lognormal_error(0.2)])
def test_levels_that_the_error_cannot_explain_are_named(error):
    text = "ID TIME EVID AMT DV\n1 0 0 . 0.7\n1 0 1 100 .\n1 2 0 . 8\n2 0 0 . 0.2\n2 0 1 100 .\n2 3 0 . 7"
    assert impossible(text, error) == (
        "2 levels have zero likelihood at every starting point: row 0 (ID 1, TIME 0, DV 0.7); row 3 "
        "(ID 2, TIME 0, DV 0.2). A proportional or log-normal error cannot explain a level where the "
        "prediction is 0 (before the first dose): set MDV 1 there, or add an additive error"
    )


def test_a_density_that_is_nowhere_finite_is_refused_though_every_level_is_possible(theophylline):
    def model(trial):
        numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("penalty", -np.inf)
        popk.observe(trial, jnp.zeros(trial.time.shape), popk.additive_error(popk.fixed(5.0)))

    with pytest.raises(
        popk.ModelError, match="not finite at any of 10 starting points although every level"
    ):
        popk.fit(model, theophylline, seed=1, chains=2, warmup=10, draws=10, progress=False)


def test_a_level_before_the_dose_that_is_below_the_limit_is_no_obstacle():
    text = "ID TIME EVID AMT DV BLQ LLOQ\n1 0 0 . . 1 0.1\n1 0 1 100 . 0 .\n1 2 0 . 8 0 .\n1 9 0 . 4 0 ."

    def model(trial):
        CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
        popk.observe(trial, popk.one_compartment(trial, CL=CL, V=10.0), popk.lognormal_error(0.2))

    with pytest.warns(popk.ConvergenceWarning):
        tree = popk.fit(model, trial(text), seed=1, chains=2, warmup=10, draws=10, progress=False)
    np.testing.assert_array_equal(tree["log_likelihood"]["DV"][..., 0], 0)


# --- the published answers (slow) ---


@pytest.mark.slow
def test_theophylline_reaches_the_published_medians_and_converges(theophylline_model, theophylline):
    tree = popk.fit(
        theophylline_model, theophylline, seed=1, progress=False
    )  # a warning is an error
    verdict = popk.convergence(tree)
    assert verdict.converged
    assert verdict.rhat < 1.01
    assert verdict.ess_bulk > 400
    assert verdict.divergences == 0
    medians = {
        name: float(tree["posterior"][name].median()) for name in ("CL_pop", "V_pop", "KA_pop")
    }
    assert 2.4 < medians["CL_pop"] < 3.2
    assert 29 < medians["V_pop"] < 35
    assert 1.1 < medians["KA_pop"] < 2.1


@pytest.mark.slow
def test_phenobarbital_reaches_nonmem_s_estimates(phenobarbital_model, phenobarbital):
    tree = popk.fit(phenobarbital_model, phenobarbital, seed=1, progress=False)
    assert popk.convergence(tree).converged
    group = tree["posterior"]
    assert float(group["CL_pop"].median()) == pytest.approx(0.0047, rel=0.05)
    assert float(group["V_pop"].median()) == pytest.approx(0.98, rel=0.05)
    low = group["V_low_apgar"]
    assert float(low.median()) == pytest.approx(0.16, abs=float(low.std()))
