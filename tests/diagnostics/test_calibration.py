"""Simulation-based calibration passes what is right, catches what is wrong, and compiles once."""

import warnings

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import popk
from popk.diagnostics.replicates import _drawn, address_of
from popk.diagnostics.uniformity import adjusted, band, p_value, share
from popk.inference import nuts
from popk.inference.fit import METHODS, Method
from tests.diagnostics.people import WIDTH, drawn_levels, people, people_trial, shifted

ENGINE = "tests.diagnostics.people"
DESIGN = people_trial(drawn_levels(5))
NUTS = {"chains": 2, "warmup": 60, "draws": 60}


@pytest.fixture
def exact(monkeypatch):
    for name, width in WIDTH.items():
        options = {"chains": 2, "draws": 100, "width": width}
        monkeypatch.setitem(METHODS, name, Method(ENGINE, "by hand", options))


def calibrated(**given):
    options = {"seed": 1, "replicates": 40, "ranks": 49, "progress": False, **given}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        return popk.calibrate(people, DESIGN, **options)


# --- uniformity ---


def test_the_share_of_ranks_at_or_below_each_by_hand():
    assert share(np.array([0, 2, 2, 3]), 3).tolist() == [0.25, 0.25, 0.75]


def test_uniform_ranks_leave_the_band_as_often_as_it_says():
    draw = np.random.default_rng(3)
    ranks = draw.integers(0, 100, (1000, 60))
    expected = band(60, 99, 0.95)
    found = np.array([share(x, 99) for x in ranks])
    inside = ((found >= expected.lower) & (found <= expected.upper)).all(1).mean()
    assert (
        0.94 <= inside <= 0.98
    )  # counts are whole: at least what was asked, and 2 standard errors


def test_a_p_value_below_5_percent_is_as_rare_as_it_says_where_ranks_are_uniform():
    ranks = np.random.default_rng(4).integers(0, 100, (1000, 60))
    rare = np.mean([p_value(x, 99) < 0.05 for x in ranks])
    assert 0.025 < rare < 0.07


def test_ranks_that_pile_up_at_an_end_or_in_the_middle_have_small_p_values():
    draw = np.random.default_rng(5)
    assert p_value(draw.integers(0, 60, 60), 99) < 1e-3
    assert p_value(draw.integers(30, 70, 60), 99) < 0.02
    assert p_value(np.repeat([0, 99], 30), 99) < 1e-3


def test_holm_adjusts_p_values_by_hand():
    assert adjusted(np.array([0.01, 0.04, 0.03])).tolist() == [0.03, 0.06, 0.06]


# --- replicates ---


def test_draws_of_the_exact_posterior_have_uniform_ranks_and_narrow_ones_do_not(exact):
    right, wrong = (calibrated(method=name, replicates=60) for name in ("exact", "narrow"))
    assert list(right["parameter"].values) == ["mu", "log_likelihood"]
    assert right["p_value"].values.min() > 0.05
    assert wrong["p_value"].sel(parameter="mu") < 0.05
    assert wrong["p_value"].sel(parameter="log_likelihood") < 0.001


def test_a_model_that_is_wrong_in_a_way_one_has_in_mind_is_caught(exact):
    found = calibrated(method="exact", simulate=shifted)
    assert found["p_adjusted"].sel(parameter="mu") < 0.001
    assert (found["rank"].sel(parameter="mu") == 0).mean() > 0.9  # what is fitted lies 3 above
    assert found.attrs["simulate"] == "shifted"


def test_the_same_seed_gives_the_same_ranks_whatever_their_number(exact):
    few, more = (calibrated(method="exact", replicates=n) for n in (3, 5))
    assert (few["rank"].values == more["rank"].values[:3]).all()
    assert (few["truth"].values == more["truth"].values[:3]).all()


def test_truths_are_drawn_from_the_prior(exact):
    truth = calibrated(method="exact", replicates=60)["truth"].sel(parameter="mu").values
    assert truth.mean() == pytest.approx(10.0, abs=3 * 5.0 / 60**0.5)
    assert truth.std() == pytest.approx(5.0, rel=0.3)


@pytest.mark.slow
def test_levels_below_the_limit_are_records_below_it_and_nothing_is_compiled_anew():
    short = {"replicates": 2, "ranks": 20, "options": NUTS}
    first = calibrated(seed=2, limit=10.0, **short)
    programs = nuts._advance._cache_size(), nuts.state._cache_size(), _drawn._cache_size()
    more = calibrated(seed=3, limit=10.0, **{**short, "replicates": 4})
    assert programs == (
        nuts._advance._cache_size(), nuts.state._cache_size(), _drawn._cache_size()
    )  # fmt: skip
    beyond = np.concatenate([first["beyond"].values, more["beyond"].values])
    truth = np.concatenate([x["truth"].sel(parameter="mu").values for x in (first, more)])
    assert beyond.min() < 0.5 < beyond.max()
    assert np.corrcoef(truth, beyond)[0, 1] < -0.8
    assert first.attrs["ranks"] == 20


def test_replicates_that_did_not_converge_are_reported_and_counted(exact):
    with pytest.warns(popk.ConvergenceWarning, match="4 of 4 replicates did not converge"):
        found = popk.calibrate(
            people, DESIGN, seed=1, replicates=4, method="exact", ranks=199, progress=False,
            options={"draws": 50},
        )  # fmt: skip
    assert not found["converged"].values.any()
    assert np.isfinite(found["rank"].values).all()


def nan_below(trial):
    """Levels that are no numbers where mu is below 10."""
    mu = numpyro.sample("mu", dist.Normal(10.0, 5.0))
    p = popk.individual(
        trial, omega=popk.fixed(1.0), correlated=False, transform="normal", OWN=mu + 0 * (mu - 10) ** 0.5
    )  # fmt: skip
    popk.observe(trial, p.OWN + 0 * trial.time, popk.additive_error(popk.fixed(0.7)))


def test_replicates_that_cannot_be_simulated_are_reported(exact):
    with pytest.warns(
        popk.ConvergenceWarning, match="could not be fitted, the first because a simul"
    ):
        found = popk.calibrate(
            people, DESIGN, seed=1, replicates=8, method="exact", simulate=nan_below, progress=False
        )
    failed = found["failure"].values != ""
    assert 0 < failed.sum() < 8
    assert np.isnan(found["rank"].values[failed]).all()
    assert not found["converged"].values[failed].any()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"replicates": 1}, "give at least 2 replicates"),
        ({"method": "guess"}, "method is 'guess'"),
        ({"options": {"speed": 3}}, "options has speed"),
        ({"limit": -1.0}, "limit is -1.0"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        calibrated(**given)


def test_a_model_of_other_parameters_has_nothing_to_rank():
    def other(trial):
        nu = numpyro.sample("nu", dist.Normal(10.0, 5.0))
        popk.observe(trial, nu + 0 * trial.time, popk.additive_error(popk.fixed(0.7)))

    with pytest.raises(popk.ModelError, match="no population parameter in common: one samples mu"):
        calibrated(simulate=other)


def test_another_process_finds_a_model_by_its_module_or_file(tmp_path):
    assert address_of(people) == ("tests.diagnostics.people", "people", "")
    file = tmp_path / "one.py"
    file.write_text("def one(trial):\n    return trial\n")
    loaded = popk.runs.load_model(file)
    assert address_of(loaded) == ("", "one", str(file))
    with pytest.raises(popk.ModelError, match="another process cannot find the model"):
        address_of(lambda trial: None)


@pytest.mark.slow
def test_two_processes_find_the_ranks_of_one():
    given = {"seed": 2, "limit": 10.0, "replicates": 3, "ranks": 20, "options": NUTS}
    one, two = calibrated(**given), calibrated(processes=2, **given)
    assert (one["rank"].values == two["rank"].values).all()


# --- a model as in practice ---


def spread(median):
    return popk.lognormal(median, cv=0.4)


def two_compartment(trial):
    """Two compartments after a bolus: clearance by size and renal function, all vary."""
    size, renal = trial.covariate("WT") / 70, trial.covariate("CRCL") / 100
    CL = numpyro.sample("CL_pop", popk.lognormal(5, cv=0.4))  # L/h
    V1 = numpyro.sample("V1_pop", popk.lognormal(20, cv=0.4))  # L
    Q = numpyro.sample("Q_pop", popk.lognormal(6, cv=0.4))  # L/h
    V2 = numpyro.sample("V2_pop", popk.lognormal(40, cv=0.4))  # L
    slope = numpyro.sample("CL_CRCL", dist.Normal(0.5, 0.3))
    p = popk.individual(
        trial, omega={"CL": spread(0.3), "V1": spread(0.2), "Q": spread(0.2), "V2": spread(0.2)},
        correlated=False, CL=CL * size**0.75 * renal**slope, V1=V1 * size, Q=Q * size**0.75, V2=V2 * size,
    )  # fmt: skip
    C = popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2)
    popk.observe(trial, C, popk.combined_error(additive=spread(0.05), proportional=spread(0.15)))


def larger(trial):
    """The same in people whose volume is a third larger than they think."""
    size, renal = trial.covariate("WT") / 70, trial.covariate("CRCL") / 100
    CL = numpyro.sample("CL_pop", popk.lognormal(5, cv=0.4))
    V1 = numpyro.sample("V1_pop", popk.lognormal(20, cv=0.4))
    Q = numpyro.sample("Q_pop", popk.lognormal(6, cv=0.4))
    V2 = numpyro.sample("V2_pop", popk.lognormal(40, cv=0.4))
    slope = numpyro.sample("CL_CRCL", dist.Normal(0.5, 0.3))
    p = popk.individual(
        trial, omega={"CL": spread(0.3), "V1": spread(0.2), "Q": spread(0.2), "V2": spread(0.2)},
        correlated=False, CL=CL * size**0.75 * renal**slope, V1=1.33 * V1 * size, Q=Q * size**0.75,
        V2=V2 * size,
    )  # fmt: skip
    C = popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2)
    popk.observe(trial, C, popk.combined_error(additive=spread(0.05), proportional=spread(0.15)))


def design(subjects):
    """Return some people of various weights and renal functions, seven levels each."""
    draw, rows = np.random.default_rng(0), []
    for i in range(1, subjects + 1):
        own = {"ID": i, "WT": draw.uniform(50, 100), "CRCL": draw.uniform(30, 130)}
        rows += [{**own, "TIME": 0.0, "EVID": 1, "AMT": 100.0, "DV": np.nan, "MDV": 1}]
        rows += [
            {**own, "TIME": t, "EVID": 0, "AMT": 0.0, "DV": 1.0, "MDV": 0}
            for t in (0.5, 1, 2, 4, 8, 12, 24)
        ]
    units = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg", "CRCL": "mL/min"}
    return popk.read_nonmem(pd.DataFrame(rows), units=units, covariates=["WT", "CRCL"])


LONGER = {"chains": 2, "warmup": 400, "draws": 800}


@pytest.mark.slow
def test_nuts_is_calibrated_on_two_compartments_with_covariates_and_levels_below_the_limit():
    found = popk.calibrate(
        two_compartment, design(16), seed=5, replicates=200, limit=0.1, options=LONGER
    )
    print(found[["p_value", "p_adjusted"]].to_dataframe())
    assert found["converged"].mean() > 0.95
    assert found["beyond"].mean() > 0.02
    assert found["p_adjusted"].values.min() > 0.01


@pytest.mark.slow
def test_reweighted_laplace_is_calibrated_where_its_weights_can_be_trusted():
    found = popk.calibrate(
        two_compartment, design(16), seed=5, replicates=200, limit=0.1, method="laplace"
    )
    print(found[["p_value", "p_adjusted"]].to_dataframe())
    assert found["converged"].mean() > 0.9
    assert found["p_adjusted"].values.min() > 0.01


@pytest.mark.slow
def test_a_volume_a_third_too_large_is_caught_on_two_compartments():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        found = popk.calibrate(
            two_compartment, design(16), seed=3, replicates=40, limit=0.1, options=LONGER,
            simulate=larger,
        )  # fmt: skip
    assert found["p_adjusted"].sel(parameter="V1_pop") < 0.01
