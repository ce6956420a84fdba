"""What does a model sample? Its sites by kind, their axes, and their values under given ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats

import popk
from popk.model.labels import labelled, observation_coords
from popk.model.levels import curvatures_of, levels_of
from popk.model.sites import AXES, Site, describe, values_of
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


# --- several kinds of levels ---

KINDS = """
ID TIME EVID AMT CMT DVID DV
1  0    1    100 1   0    .
1  1    0    0   2   1    5
1  1    0    0   3   2    3
1  4    0    0   2   1    4
"""


@pytest.fixture(scope="module")
def kinds():
    return trial(KINDS)


def parent_and_metabolite(trial):
    shape = trial.time.shape
    popk.observe(trial, jnp.full(shape, 6.0), popk.additive_error(popk.fixed(0.5)), DVID=1)
    popk.observe(
        trial,
        jnp.full(shape, 2.0),
        popk.lognormal_error(popk.fixed(0.3)),
        output="metabolite",
        DVID=2,
    )


def test_each_kind_of_levels_has_sites_of_its_own(kinds):
    found = describe(parent_and_metabolite, kinds)
    assert found.named("level") == ["DV", "DV_metabolite"]
    assert found.all["IPRED_metabolite"].dims == ("observation",)
    assert found.named("deterministic") == [
        "sigma_additive", "IPRED", "sigma_log_metabolite", "IPRED_metabolite",
    ]  # fmt: skip


def test_each_level_has_the_likelihood_of_its_own_kind(kinds):
    found = levels_of(handlers.trace(parent_and_metabolite).get_trace(kinds.arrays()))
    np.testing.assert_array_equal(found.value, [5, 3, 4])
    np.testing.assert_array_equal(found.ipred, [6, 2, 6])
    expected = [
        stats.norm(6, 0.5).logpdf(5), stats.lognorm(s=0.3, scale=2).logpdf(3), stats.norm(6, 0.5).logpdf(4),
    ]  # fmt: skip
    np.testing.assert_allclose(found.log_prob, expected, rtol=1e-12)
    curves = curvatures_of(handlers.trace(parent_and_metabolite).get_trace(kinds.arrays()))
    metabolite = 1 / (0.3 * 2) ** 2
    np.testing.assert_array_equal(curves.prediction, [6, 0, 6, 0, 2, 0])  # each kind in turn
    np.testing.assert_allclose(curves.information, [4, 0, 4, 0, metabolite, 0], rtol=1e-12)
    np.testing.assert_allclose(
        curves.curvature[jnp.array([0, 1, 2, 3, 5])], [4, 0, 4, 0, 0], rtol=1e-12
    )


def test_the_density_of_all_kinds_counts_each_level_once(kinds):
    total, _ = log_density(parent_and_metabolite, (kinds.arrays(),), {}, {})
    found = levels_of(handlers.trace(parent_and_metabolite).get_trace(kinds.arrays()))
    assert float(total) == pytest.approx(float(found.log_prob.sum()), rel=1e-12)


def test_levels_of_every_kind_are_sampled_by_their_own_model(kinds):
    out = values_of(parent_and_metabolite, kinds.arrays(), {}, jax.random.key(1))
    np.testing.assert_array_equal(out["prediction"], [6, 2, 6])
    np.testing.assert_array_equal(out["DV"][1], out["DV_metabolite"][1])
    assert float(out["DV"][1]) > 0


def test_levels_that_no_call_observes_are_refused_with_their_first_row(kinds):
    def model(trial):
        popk.observe(trial, trial.time, popk.additive_error(0.5), DVID=1)

    assert refusal(model, kinds) == (
        "DataFrame row 2  ID 1  TIME 1: levels with CMT 3 and DVID 2 are observed 0 times; each must be "
        "observed by one popk.observe(): add one, or say CMT= or DVID= in those that overlap"
    )


def test_levels_that_two_calls_observe_are_refused(kinds):
    def model(trial):
        popk.observe(trial, trial.time, popk.additive_error(0.5), CMT=2)
        popk.observe(trial, trial.time, popk.additive_error(0.5), output="b", CMT=3)
        popk.observe(trial, trial.time, popk.additive_error(0.5), output="c", DVID=2)

    assert "levels with CMT 3 and DVID 2 are observed 2 times" in refusal(model, kinds)


def test_rows_of_levels_of_several_kinds_bear_them_as_coordinates(kinds, theophylline):
    coords = observation_coords(kinds, np.ones(3, dtype=bool))
    assert list(coords["CMT"][1]) == [2, 3, 2]
    assert list(coords["DVID"][1]) == [1, 2, 1]
    assert not {"CMT", "DVID"} & {*observation_coords(theophylline, np.ones(132, dtype=bool))}


# --- values ---


@pytest.fixture(scope="module")
def out(theophylline_model, theophylline):
    """Return values of all sites of theophylline, those of VALUES given."""
    run = jax.jit(lambda arrays, key: values_of(theophylline_model, arrays, VALUES, key))
    return run(theophylline.arrays(), jax.random.key(1))


def test_values_of_given_sites_are_given_and_the_rest_is_sampled(out, theophylline):
    assert float(out["CL_pop"]) == 2.8
    assert out["eta"].shape == (12, 1, 3)
    assert np.ptp(out["eta"]) > 0
    size = theophylline.covariate("WT") / 70
    np.testing.assert_allclose(out["CL"], 2.8 * size**0.75 * np.exp(out["eta"][..., 0]), rtol=1e-12)


def test_levels_are_sampled_around_their_prediction(out, theophylline):
    o = theophylline.observations
    np.testing.assert_array_equal(out["prediction"], out["IPRED"][o.subject, o.record])
    assert out["DV"].shape == o.value.shape
    scaled = (out["DV"] - out["prediction"]) / np.sqrt(0.5**2 + (0.1 * out["prediction"]) ** 2)
    assert 0.8 < np.std(scaled) < 1.2
    assert not np.isin(out["DV"], o.value).any()


def test_a_model_run_as_it_is_is_conditioned_on_the_levels(kinds):
    seeded = handlers.seed(parent_and_metabolite, 1)
    given = handlers.trace(seeded).get_trace(kinds.arrays())
    hidden = handlers.trace(seeded).get_trace(kinds.arrays().unobserved())
    for name in ("DV", "DV_metabolite"):
        assert given[name]["is_observed"]
        np.testing.assert_array_equal(given[name]["value"], [5, 3, 4])
        assert not hidden[name]["is_observed"]


# --- labels ---


def test_labelled_values_bear_named_axes_and_coordinates(out, theophylline, sites):
    wanted = {name: out[name] for name in ("CL_pop", "corr", "eta", "CL", "DV")}
    wanted["IPRED"] = out["prediction"]  # on the observation axis, whatever their kind
    values = {name: np.broadcast_to(value, (4, 5, *value.shape)) for name, value in wanted.items()}
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
