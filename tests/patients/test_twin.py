"""One patient's posterior: what it knows, what it forecasts, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

import popk
from popk.inference.importance import resampled, smoothed
from tests.patients.records import part


@pytest.fixture(scope="module")
def patient(theophylline):
    return theophylline["3"]


@pytest.fixture(scope="module")
def newcomer(theophylline_model, theophylline_others_posterior, patient):
    """The twin of subject 3 before any level: only the dose."""
    return popk.Twin(theophylline_model, theophylline_others_posterior, part(patient, [1]))


@pytest.fixture(scope="module")
def twin(newcomer, patient):
    """The twin of subject 3 after its first three levels."""
    return newcomer.update(part(patient, [0, 2, 3]))


def test_levels_narrow_the_parameters(newcomer, twin):
    before, after = newcomer.parameters, twin.parameters
    assert list(after.data_vars) == ["CL", "V", "KA"]
    # Three levels during absorption say much of KA, something of V, and next to nothing of CL.
    spread = {n: float(np.log(after[n]).std() / np.log(before[n]).std()) for n in after.data_vars}
    assert spread["KA"] < 0.6
    assert spread["V"] < 0.9
    assert 0.85 < spread["CL"] < 1.15
    assert twin.pareto_k < 0.7
    assert newcomer.pareto_k < 0.7


def test_an_update_leaves_the_old_twin_as_it_was(newcomer, twin):
    assert int(newcomer.patient.observations.measured.sum()) == 0
    assert int(twin.patient.observations.measured.sum()) == 3


def test_levels_at_once_or_one_by_one_give_the_same_twin(newcomer, twin, patient):
    stepwise = newcomer.update(part(patient, [0])).update(part(patient, [2]))
    stepwise = stepwise.update(part(patient, [3]))
    for name in ("CL", "V", "KA"):
        np.testing.assert_array_equal(stepwise.parameters[name], twin.parameters[name])


def test_the_forecast_covers_the_levels_to_come(twin, patient):
    later = patient.to_dataframe().iloc[4:]
    forecast = twin.forecast(later["TIME"])
    low, high = forecast["DV"].quantile([0.05, 0.95], "sample").values
    inside = (low <= later["DV"].to_numpy()) & (later["DV"].to_numpy() <= high)
    assert inside.sum() >= 7  # of 8


def test_the_forecast_is_the_model_at_the_twins_parameters(twin):
    times = [1.0, 6.0, 24.0]
    forecast, p = twin.forecast(times), twin.parameters
    dose = float(twin.patient.to_dataframe()["AMT"].max())
    CL, V, KA = (p[n].values[:, None] for n in ("CL", "V", "KA"))
    k, t = CL / V, np.asarray(times)
    expected = dose * KA / (V * (KA - k)) * (np.exp(-k * t) - np.exp(-KA * t))
    np.testing.assert_allclose(forecast["IPRED"].values, expected, rtol=1e-9)


def test_forecast_times_keep_their_order_and_may_repeat(twin):
    forecast = twin.forecast([24.0, 1.0, 24.0])
    np.testing.assert_array_equal(forecast["time"], [24.0, 1.0, 24.0])
    np.testing.assert_array_equal(forecast["IPRED"][:, 0], forecast["IPRED"][:, 2])
    assert float(forecast["IPRED"][:, 1].mean()) > float(forecast["IPRED"][:, 0].mean())
    assert forecast["IPRED"].attrs["units"] == "mg/L"


def test_a_forecast_at_the_time_of_a_dose_is_the_trough(
    theophylline_model, theophylline_others_posterior, twin
):
    second = pd.DataFrame({"ID": ["3"], "TIME": [24.0], "EVID": [1], "AMT": [320.0], "DV": [np.nan],
                           "WT": [70.5]})  # fmt: skip
    dosed = twin.update(second)
    trough, peak = dosed.forecast([24.0, 26.0])["IPRED"].median("sample").values
    assert trough == pytest.approx(float(twin.forecast([24.0])["IPRED"].median()), rel=1e-9)
    assert peak > 3 * trough


def test_residual_error_widens_a_level_beyond_the_concentration(twin):
    spread = twin.forecast([6.0]).std("sample")
    assert float(spread["DV"][0]) > float(spread["IPRED"][0])


def test_the_same_seed_gives_the_same_twin(theophylline_model, theophylline_others_posterior, twin):
    again = popk.Twin(theophylline_model, theophylline_others_posterior, twin.patient)
    np.testing.assert_array_equal(again.parameters["CL"], twin.parameters["CL"])


def test_weights_of_a_known_problem_are_exact():
    rng = np.random.default_rng(1)
    x = rng.standard_t(5, 20_000)
    # Target N(0.5, 0.8^2) from a t(5) proposal.
    log_target = -0.5 * ((x - 0.5) / 0.8) ** 2
    log_proposal = -3.0 * np.log1p(x**2 / 5)
    weights, k = smoothed(log_target - log_proposal)
    assert k < 0.5
    assert np.sum(weights * x) == pytest.approx(0.5, abs=0.03)
    assert np.sqrt(np.sum(weights * (x - 0.5) ** 2)) == pytest.approx(0.8, abs=0.03)


def test_resampling_repeats_each_draw_in_proportion_to_its_weight():
    import jax

    weights = np.array([0.5, 0.0, 0.3, 0.2])
    counts = np.bincount(resampled(weights, 1000, jax.random.key(0)), minlength=4)
    np.testing.assert_allclose(counts, [500, 0, 300, 200], atol=1)


def test_a_heavy_tail_of_weights_is_reported():
    rng = np.random.default_rng(2)
    assert smoothed(3 * rng.standard_normal(8000))[1] > 0.7


def test_an_update_does_not_compile_again(twin, patient):
    from popk.inference.importance import weighted

    before = weighted._cache_size()
    twin.update(part(patient, [4]))
    assert weighted._cache_size() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ID": "7"}, "the twin is of ID 3, but the records are of ID 7"),
        ({"DV": -1.0, "EVID": 7}, "EVID is 7"),
        ({"TIME": np.inf}, "not finite"),
    ],
)
def test_records_that_cannot_be_the_patients_are_refused(twin, change, says):
    level = {"ID": "3", "TIME": 5.0, "EVID": 0, "DV": 6.0, "AMT": 0.0, "WT": 70.5}
    with pytest.raises(popk.DataError, match=says):
        twin.update(pd.DataFrame([{**level, **change}]))


def test_a_record_that_is_known_already_is_ignored_and_named(twin, patient):
    again = twin.update(part(patient, [2]))
    assert again.log[-1].kind == "duplicate"
    np.testing.assert_array_equal(again.parameters["CL"], twin.parameters["CL"])


def test_levels_in_another_unit_are_converted(twin, patient):
    table = part(patient, [4]).to_dataframe()
    table["DV"] = table["DV"] * 1000
    other = popk.read_nonmem(table, units={"DV": "ng/mL"})
    np.testing.assert_allclose(
        twin.update(other).parameters["CL"], twin.update(part(patient, [4])).parameters["CL"]
    )


def test_a_twin_is_of_one_patient(theophylline_model, theophylline_others_posterior, theophylline):
    with pytest.raises(popk.ModelError, match="a twin is of one patient; the trial has 12"):
        popk.Twin(theophylline_model, theophylline_others_posterior, theophylline)


@pytest.mark.parametrize("times", [[], [np.nan]])
def test_times_that_are_none_are_refused(twin, times):
    with pytest.raises(ValueError, match="give at least one finite time"):
        twin.forecast(times)


@pytest.mark.slow
def test_a_twin_is_what_nuts_says_of_the_patient(theophylline, theophylline_model):
    """The twin from a fit without subject 3 agrees with a joint fit that has its three levels."""
    others = theophylline.without("3")
    start = part(theophylline["3"], [0, 1, 2, 3])
    both = pd.concat([others.to_dataframe(), start.to_dataframe()], ignore_index=True)
    both.attrs = theophylline.to_dataframe().attrs
    joint = popk.fit(theophylline_model, popk.read_nonmem(both), seed=1, progress=False)
    alone = popk.fit(theophylline_model, others, seed=2, progress=False)
    found = popk.Twin(theophylline_model, alone, start).parameters
    for name in ("CL", "V", "KA"):
        expected = np.log(joint["posterior"][name].sel(subject="3").values.ravel())
        actual = np.log(found[name].values)
        assert abs(actual.mean() - expected.mean()) < 0.1 * expected.std()
        assert actual.std() == pytest.approx(expected.std(), rel=0.1)
