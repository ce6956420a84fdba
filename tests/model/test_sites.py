"""What does a model sample? Its sites by kind, their axes, and their values under given ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from popk.model.sites import (
    AXES,
    Site,
    conditioned,
    describe,
    labelled,
    observation_coords,
    values_of,
)
from tests.trials import trial

VALUES = jax.tree.map(jnp.asarray, {
    "CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5, "omega_CL": 0.2, "omega_V": 0.1, "omega_KA": 0.6,
    "corr": np.eye(3), "sigma_additive": 0.5, "sigma_proportional": 0.1,
})  # fmt: skip


@pytest.fixture(scope="module")
def sites(theophylline_model, theophylline):
    return describe(theophylline_model, theophylline)


def end(trial, CL=1.0):
    """End a model as every model ends."""
    popk.observe(trial, popk.one_compartment(trial, CL=CL, V=10.0), popk.additive_error(0.5))


# --- describe ---


def test_the_sites_of_theophylline_are_those_of_the_design(sites):
    assert sites.named("population") == [
        "CL_pop", "V_pop", "KA_pop", "omega_CL", "omega_V", "omega_KA", "corr", "sigma_additive",
        "sigma_proportional",
    ]  # fmt: skip
    assert sites.named("individual") == ["eta"]
    assert sites.named("level") == ["DV"]
    assert sites.named("deterministic") == ["CL", "V", "KA", "IPRED"]
    assert sites.parameters == ("CL", "V", "KA")


def test_each_site_has_its_axes_and_its_shape_inside_the_model(sites):
    assert sites.all["CL_pop"] == Site("population", (), ())
    assert sites.all["corr"] == Site("population", ("parameter", "parameter2"), (3, 3))
    assert sites.all["eta"] == Site("individual", ("subject", "parameter"), (12, 1, 3))
    assert sites.all["CL"] == Site("deterministic", ("subject",), (12, 1))
    assert sites.all["IPRED"] == Site("deterministic", ("observation",), (12, 12))
    assert sites.all["DV"] == Site("level", ("observation",), (132,))


def test_a_parameter_that_changes_has_an_axis_of_records():
    changing = trial("ID TIME EVID AMT DV WT\n1 0 1 9 . 60\n1 1 0 0 5 70\n1 2 0 0 5 80", WT="kg")

    def model(trial):
        p = popk.individual(trial, CL=trial.covariate("WT") / 70)
        end(trial, p.CL)

    assert describe(model, changing).all["CL"] == Site(
        "deterministic", ("subject", "record"), (1, 3)
    )


def test_a_site_of_the_user_s_own_has_axes_of_its_own(theophylline):
    def model(trial):
        numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("slopes", dist.Normal(0, 1).expand([2]))
        with numpyro.plate("subject", trial.n_subjects, dim=-2):
            numpyro.sample("frailty", dist.Gamma(2.0, 2.0))
        end(trial)

    found = describe(model, theophylline)
    assert found.all["weights"] == Site("population", ("weights_dim_0",), (3,))
    assert found.all["slopes"] == Site("population", ("slopes_dim_0",), (2,))
    assert found.all["frailty"] == Site("individual", ("subject",), (12, 1))


def refusal(model, trial):
    with pytest.raises(popk.ModelError) as caught:
        describe(model, trial)
    return str(caught.value)


@pytest.mark.parametrize("name", AXES)
def test_a_site_named_like_an_axis_is_refused(name, theophylline):
    def model(trial):
        numpyro.sample(name, dist.Normal(0, 1))
        end(trial)

    if name in ("subject", "observation"):
        return  # NumPyro itself refuses a site named like a plate of the model
    assert refusal(model, theophylline) == (
        f"a site is named {name!r}, which is an axis of the results; rename it (axes: "
        f"{', '.join(AXES)})"
    )


@pytest.mark.parametrize("name", ["eta", "kappa", "eta_coordinate", "log_likelihood"])
def test_a_site_of_a_reserved_name_is_refused(name, theophylline):
    def model(trial):
        numpyro.sample(name, dist.Normal(0, 1))
        end(trial)

    assert refusal(model, theophylline) == (
        f"the name {name!r} is kept for a site of popk's own; choose another one"
    )


def test_a_model_that_observes_nothing_is_refused(theophylline):
    assert refusal(lambda trial: numpyro.sample("CL_pop", dist.Normal(0, 1)), theophylline) == (
        "the model observes no levels; end it with popk.observe(trial, ...)"
    )


def test_a_model_that_raises_is_refused_with_the_line_that_raised(theophylline):
    def broken(trial):
        return 1 / 0

    line = broken.__code__.co_firstlineno + 1
    assert refusal(broken, theophylline) == (
        f"the model broken raised ZeroDivisionError at {__file__} line {line}: division by zero"
    )


def test_two_sites_of_one_name_are_refused_with_the_name(theophylline):
    def model(trial):
        popk.individual(trial, CL=1.0)
        popk.individual(trial, V=1.0)
        end(trial)

    assert "`eta` duplicated" in refusal(model, theophylline)


def test_an_error_of_popk_s_own_comes_through_as_it_is(theophylline):
    with pytest.raises(popk.DataError, match="AGE is no covariate"):
        describe(lambda trial: trial.covariate("AGE"), theophylline)


def test_describing_computes_nothing(theophylline):
    def model(trial):
        value = numpyro.sample("CL_pop", popk.lognormal(1, cv=1))
        assert isinstance(value, jax.core.Tracer)
        end(trial, value)

    describe(model, theophylline)


# --- values ---


def test_values_of_given_sites_are_given_and_the_rest_is_sampled(theophylline_model, theophylline):
    out = values_of(theophylline_model, theophylline.arrays(), VALUES, jax.random.key(1))
    assert float(out["CL_pop"]) == 2.8
    assert out["eta"].shape == (12, 1, 3)
    assert np.ptp(out["eta"]) > 0
    size = theophylline.covariate("WT") / 70
    np.testing.assert_allclose(out["CL"], 2.8 * size**0.75 * np.exp(out["eta"][..., 0]), rtol=1e-12)


def test_conditioning_makes_the_levels_the_trial_s_own(theophylline_model, theophylline):
    model = conditioned(theophylline_model)
    out = values_of(model, theophylline.arrays(), VALUES, jax.random.key(1))
    np.testing.assert_array_equal(out["DV"], theophylline.observations.value)


# --- labels ---


def test_labelled_values_bear_named_axes_and_coordinates(theophylline_model, theophylline, sites):
    out = values_of(theophylline_model, theophylline.arrays(), VALUES, jax.random.key(1))
    wanted = ("CL_pop", "corr", "eta", "CL", "IPRED", "DV")
    values = {name: np.broadcast_to(out[name], (4, 5, *out[name].shape)) for name in wanted}
    every = np.ones(132, dtype=bool)
    data = labelled(values, sites, theophylline, ("chain", "draw"), every)
    assert {name: values.dims[2:] for name, values in data.data_vars.items()} == {
        "CL_pop": (), "corr": ("parameter", "parameter2"), "eta": ("subject", "parameter"),
        "CL": ("subject",), "IPRED": ("observation",), "DV": ("observation",),
    }  # fmt: skip
    assert list(data["parameter"].values) == list(data["parameter2"].values) == ["CL", "V", "KA"]
    assert list(data["subject"].values) == list(theophylline.ids)
    np.testing.assert_allclose(
        data["eta"].sel(subject="3", parameter="V")[0, 0], out["eta"][2, 0, 1]
    )
    o = theophylline.observations
    np.testing.assert_allclose(data["IPRED"][0, 0], out["IPRED"][o.subject, o.record])


def test_levels_that_do_not_count_can_be_left_out(theophylline, sites):
    chosen = np.arange(132) % 2 == 0
    data = labelled({"DV": theophylline.observations.value}, sites, theophylline, (), chosen)
    np.testing.assert_array_equal(data["DV"], theophylline.observations.value[chosen])
    assert data["ID"].values[6] == "2"


def test_an_observation_is_called_by_its_id_time_and_row_of_the_file(theophylline):
    chosen = np.zeros(132, dtype=bool)
    chosen[[1, 12]] = True
    coords = observation_coords(theophylline, chosen)
    assert list(coords["ID"][1]) == ["1", "2"]
    assert list(coords["TIME"][1]) == [0.25, 0.27]
    assert list(coords["row"][1]) == ["4", "16"]
