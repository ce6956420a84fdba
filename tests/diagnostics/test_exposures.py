"""Exposure of the model's curves, by subgroup, and the posterior predictive check of exposures."""

import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import popk
from tests.predictions import predictions_of
from tests.trials import trial

CL, V, KA, DOSE = 3.0, 20.0, 1.5, 100.0
K = CL / V
TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0])


def levels(rng, shape, cl=CL):
    """Return levels [*shape, time] after an oral dose, of people who differ, with residual error."""
    k = cl * rng.lognormal(0, 0.3, (*shape, 1)) / V
    ka = KA * rng.lognormal(0, 0.3, (*shape, 1))
    mean = DOSE * ka / V / (ka - k) * (np.exp(-k * TIMES) - np.exp(-ka * TIMES))
    return mean * rng.lognormal(0, 0.1, mean.shape)


def trial_with(observed, **columns):
    """Return a trial of one oral dose each, with levels [subject, time]."""
    rows = []
    for i, own in enumerate(observed, start=1):
        rows.append({"ID": i, "TIME": 0.0, "EVID": 1, "AMT": DOSE, "MDV": 1})
        for j, (t, c) in enumerate(zip(TIMES, own, strict=True)):
            more = {n: x[i - 1, j] for n, x in columns.items()}
            rows.append({"ID": i, "TIME": t, "EVID": 0, "AMT": 0.0, "MDV": 0, "DV": c, **more})
    frame = pd.DataFrame(rows)
    for name in columns:
        frame[name] = frame[name].fillna(0 if name == "BLQ" else np.nan)
    return popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"}, covariates=())


def checked(observed, drawn, **options):
    own = trial_with(observed)
    simulated = predictions_of(own, drawn.reshape(len(drawn), -1))
    return popk.exposure_check(simulated, own, route="extravascular", **options)


# The check


@pytest.fixture(scope="module")
def right():
    rng = np.random.default_rng(0)
    return checked(levels(rng, (60,)), levels(rng, (300, 60)))


def test_observed_statistics_are_those_of_a_noncompartmental_analysis():
    rng = np.random.default_rng(1)
    observed = levels(rng, (3,))
    check = checked(observed, levels(rng, (30, 3)))
    found = popk.nca(trial_with(observed), route="extravascular")
    for name in ("AUC_last", "AUC_inf", "Cmax", "tmax", "half_life"):
        np.testing.assert_allclose(check["observed"].sel(statistic=name), found[name])
    assert check["unit"].sel(statistic="AUC_inf").item() == "h*mg/L"
    assert "AUC_tau" not in check["statistic"].values  # there is one dose


def test_each_draw_is_analyzed_as_if_it_had_been_observed():
    rng = np.random.default_rng(2)
    observed, drawn = levels(rng, (2,)), levels(rng, (25, 2))
    check = checked(observed, drawn, interval=0.8)
    alone = [popk.nca(trial_with(one), route="extravascular") for one in drawn]
    for name in ("AUC_inf", "half_life"):
        each = np.array([x[name].values for x in alone])
        mine = check.sel(statistic=name)
        np.testing.assert_allclose(mine["median"], np.median(each, axis=0))
        np.testing.assert_allclose(mine["lower"], np.quantile(each, 0.1, axis=0))
        expected = (each > mine["observed"].values).mean(axis=0)
        np.testing.assert_allclose(mine["p_value"], expected)
        np.testing.assert_allclose(
            check["simulated_summary"].sel(statistic=name, summary="sd"), each.std(axis=1, ddof=1)
        )


def test_p_values_of_data_from_the_model_are_uniform(right):
    for name in ("AUC_inf", "Cmax", "half_life"):
        p = np.sort(right["p_value"].sel(statistic=name).values)
        distance = abs(p - (np.arange(len(p)) + 0.5) / len(p)).max()
        assert distance < 1.63 / np.sqrt(len(p))  # Kolmogorov's 99% limit
    assert ((right["p_value_summary"] > 0.005) & (right["p_value_summary"] < 0.995)).all()


def test_p_values_of_a_wrong_model_are_extreme():
    rng = np.random.default_rng(3)
    check = checked(levels(rng, (40,)), levels(rng, (200, 40), cl=2 * CL))
    summary = check["p_value_summary"].sel(summary="median")
    assert float(summary.sel(statistic="AUC_inf")) < 0.01  # the model's clearance is too high
    assert float(summary.sel(statistic="half_life")) < 0.01
    assert float((check["p_value"].sel(statistic="AUC_inf") < 0.1).mean()) > 0.5


def test_ties_count_half():
    rng = np.random.default_rng(4)
    observed = levels(rng, (2,))
    check = checked(observed, np.repeat(observed[None], 20, axis=0))
    np.testing.assert_allclose(check["p_value"], 0.5)


def test_simulated_levels_below_the_limit_or_0_are_treated_like_observed_ones():
    rng = np.random.default_rng(5)
    limit, observed, drawn = 0.5, levels(rng, (3,)), levels(rng, (30, 3))
    drawn[0, 0, -1] = -1.0  # an additive error can do this
    below = (observed < limit).astype(int)
    assert below.any()
    own = trial_with(observed, BLQ=below, LLOQ=np.full(observed.shape, limit))
    check = popk.exposure_check(
        predictions_of(own, drawn.reshape(30, -1)), own, route="extravascular"
    )
    censored = np.where(drawn < limit, 0.0, drawn)
    alone = [
        popk.nca(trial_with(one), route="extravascular")["AUC_last"].values for one in censored
    ]
    np.testing.assert_allclose(check["median"].sel(statistic="AUC_last"), np.median(alone, axis=0))


def test_a_slope_that_some_draws_do_not_have_is_counted():
    rng = np.random.default_rng(6)
    observed, drawn = levels(rng, (2,)), levels(rng, (40, 2))
    drawn[:10, 0, 3:] = 9.0 + np.arange(4)  # rises to the end
    check = checked(observed, drawn)
    assert check["defined"].sel(statistic="half_life").values.tolist() == [0.75, 1.0]
    assert check["defined"].sel(statistic="Cmax").values.tolist() == [1.0, 1.0]


def test_320_draws_of_12_subjects_take_well_under_a_second():
    rng = np.random.default_rng(7)
    own, drawn = trial_with(levels(rng, (12,))), levels(rng, (320, 12)).reshape(320, -1)
    simulated = predictions_of(own, drawn)
    began = time.perf_counter()
    popk.exposure_check(simulated, own, route="extravascular")
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"interval": 1.5}, "interval is 1.5"),
        ({"statistics": ("AUC",)}, "statistics has AUC"),
        ({"statistics": ("AUC_tau",)}, "no subject has any of AUC_tau"),
        ({"method": "spline"}, "method is 'spline'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, match):
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match=match):
        checked(levels(rng, (2,)), levels(rng, (30, 2)), **options)


def test_predictions_that_cannot_be_compared_are_refused():
    rng = np.random.default_rng(9)
    with pytest.raises(popk.ModelError, match="at least draws=20"):
        checked(levels(rng, (2,)), levels(rng, (5, 2)))
    drawn = levels(rng, (30, 2))
    drawn[3, 1, 2] = np.nan
    with pytest.raises(popk.ModelError, match="no finite prediction"):
        checked(levels(rng, (2,)), drawn)
    own, other = trial_with(levels(rng, (2,))), trial_with(levels(rng, (3,)))
    with pytest.raises(popk.ModelError, match="predict this trial"):
        popk.exposure_check(predictions_of(own, np.ones((30, 14))), other, route="bolus")


# Exposure of the model's curves


def curves(grid, clearance, *, tau=None):
    """Return predictions of a bolus into one compartment, at steady state if tau is given."""
    o = grid.observations
    t = np.asarray(grid.time)[np.asarray(o.subject), np.asarray(o.record)]
    k = np.asarray(clearance)[:, np.asarray(o.subject)] / V
    level = DOSE / V * np.exp(-k * t)
    level = level if tau is None else level / (1 - np.exp(-k * tau))
    return predictions_of(grid, level, ipred=level, new_subjects=False)  # fmt: skip


@pytest.fixture(scope="module")
def people():
    rows = ["ID TIME EVID AMT RATE DV SEX AGE"]
    for i, (sex, age) in enumerate([(0, 30), (0, 50), (1, 70), (1, 80), (1, 20)], start=1):
        rows += [f"{i} 0 1 100 0 . {sex} {age}", f"{i} 24 0 . . 1 {sex} {age}"]
    return trial("\n".join(rows), SEX="1", AGE="year")


CLEARANCES = np.array([[2.0, 3.0, 4.0, 5.0, 6.0], [2.2, 3.3, 4.4, 5.5, 6.6]])


@pytest.fixture(scope="module")
def exposed(people):
    grid = popk.exposure_grid(people, points=60)
    return popk.exposure(curves(grid, CLEARANCES), grid)


def test_exposure_of_a_bolus_is_that_of_its_closed_form(exposed):
    np.testing.assert_allclose(exposed["AUC"], DOSE / CLEARANCES, rtol=1e-9)
    np.testing.assert_allclose(exposed["Cmax"], DOSE / V)
    np.testing.assert_allclose(exposed["half_life"], np.log(2) * V / CLEARANCES)
    assert exposed["area"].values.tolist() == ["AUC_inf"] * 5
    assert "Ctrough" not in exposed
    assert exposed["AUC"].attrs["units"] == "h*mg/L"


def test_exposure_at_steady_state_is_that_of_an_interval():
    rows = "ID TIME EVID AMT RATE II SS DV\n1 0 1 100 0 12 1 .\n1 3 0 . . . . 2"
    grid = popk.exposure_grid(trial(rows), points=60)
    found = popk.exposure(curves(grid, [[CL]], tau=12.0), grid)
    peak = DOSE / V / (1 - np.exp(-K * 12))
    assert found["area"].item() == "AUC_tau"
    assert found["AUC"].item() == pytest.approx(DOSE / CL)
    assert found["Cavg"].item() == pytest.approx(DOSE / CL / 12)
    assert found["Cmax"].item() == pytest.approx(peak)
    assert found["Ctrough"].item() == pytest.approx(peak * np.exp(-K * 12), rel=1e-6)


def test_a_grid_ends_just_before_the_next_dose_and_keeps_doses_and_covariates():
    rows = "ID TIME EVID AMT RATE II ADDL DV WT\n1 0 1 100 0 12 3 . 70\n1 40 0 . . . . 2 80"
    first = popk.exposure_grid(trial(rows, WT="kg"), dose=1, points=30).host.frame
    asked = first[first["EVID"].eq(0)]
    assert len(asked) == 30
    assert asked["TIME"].iloc[0] == 0
    assert 12 - 1e-6 < asked["TIME"].iloc[-1] < 12
    assert asked["MDV"].eq(1).all()
    assert asked["WT"].eq(80).all()  # a covariate holds backward from its record
    last = popk.exposure_grid(trial(rows, WT="kg"), points=30).host.frame
    times = last.loc[last["EVID"].eq(0), "TIME"]
    assert (times.min(), times.max()) == (36, 48)
    assert last["EVID"].isin([1]).sum() == 1


def test_a_grid_has_the_end_of_an_infusion():
    grid = popk.exposure_grid(trial("ID TIME EVID AMT RATE DV\n1 0 1 100 30 .\n1 24 0 . . 1"))
    assert np.isclose(grid.host.frame["TIME"], 100 / 30).any()


def test_the_exposure_of_a_model_is_dose_over_clearance(theophylline_model, theophylline):
    grid = popk.exposure_grid(theophylline, until=120.0, points=150)
    values = {"CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5}
    ipred = popk.predict_at(theophylline_model, grid, values).values
    o = grid.observations
    level = ipred[np.asarray(o.subject), np.asarray(o.record)][None]
    found = popk.exposure(predictions_of(grid, level, ipred=level, new_subjects=False), grid)
    dose = popk.nca(theophylline, route="extravascular")["dose"].values
    size = np.asarray(theophylline.covariate("WT"))[:, 0] / 70
    np.testing.assert_allclose(found["AUC"][0], dose / (2.8 * size**0.75), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"points": 5}, "at least 20"), ({"until": -1.0}, "until is -1"), ({"dose": 2}, "no dose 2")],
)
def test_a_grid_that_cannot_be_made_is_refused(people, options, match):
    with pytest.raises(ValueError, match=match):
        popk.exposure_grid(people, **options)


def test_a_trial_that_is_no_grid_is_refused(people):
    simulated = predictions_of(people, np.ones((20, 5)), new_subjects=False)
    with pytest.raises(popk.ModelError, match=r"popk\.exposure_grid"):
        popk.exposure(simulated, people)


# Subgroups


def test_groups_are_summarized_by_geometric_means_in_each_draw(exposed, people):
    table = popk.exposure_by(exposed, people, "SEX", interval=0.5)
    assert table.attrs["reference"] == "1"
    men = DOSE / CLEARANCES[:, :2]
    women = DOSE / CLEARANCES[:, 2:]
    one, other = (np.exp(np.log(x).mean(axis=1)) for x in (men, women))
    row = table.loc[("AUC", "0")]
    assert row["subjects"] == 2
    assert row["unit"] == "h*mg/L"
    assert row["estimate"] == pytest.approx(np.median(one))
    assert row["lower"] == pytest.approx(np.quantile(one, 0.25))
    assert row["ratio"] == pytest.approx(np.median(one / other))
    assert row["CV%"] == pytest.approx(100 * np.sqrt(np.expm1(np.log(men).var(axis=1, ddof=1)[0])))
    assert table.loc[("AUC", "1"), "ratio"] == 1
    assert table.loc[("tmax", "0"), "statistic"] == "median"


def test_a_continuous_covariate_is_cut_into_bands(exposed, people):
    table = popk.exposure_by(exposed, people, "AGE", edges=[30, 65], reference="30 to below 65")
    auc = table.loc["AUC"]
    assert auc.index.tolist() == ["below 30", "30 to below 65", "65 and above"]
    assert auc["subjects"].tolist() == [1, 2, 2]
    assert np.isnan(auc["CV%"].iloc[0])


def test_without_a_covariate_there_is_one_group_and_ids_are_groups_of_one(exposed, people):
    assert popk.exposure_by(exposed, people).loc["AUC"].index.tolist() == ["all"]
    each = popk.exposure_by(exposed, people, "ID").loc["AUC"]
    assert each["estimate"].iloc[0] == pytest.approx(np.median(DOSE / CLEARANCES[:, 0]))


def test_codes_of_categories_are_read_out():
    own = popk.read_nonmem("data/quinidine.csv")
    found = xr.Dataset(
        {"AUC": (("sample", "subject"), np.ones((2, own.n_subjects)), {"units": "h*mg/L"})},
        coords={"subject": list(own.ids)},
    )
    table = popk.exposure_by(found, own, "HF")
    assert table.loc["AUC"].index.tolist() == ["no or mild", "moderate", "severe"]


@pytest.mark.parametrize(
    ("by", "options", "match"),
    [
        ("SEX", {"reference": "2"}, "reference is '2'; the groups are 0, 1"),
        ("AGE", {"edges": [60, 30]}, "finite rising numbers"),
        ("SEX", {"interval": 0.0}, "interval is 0"),
        ("RACE", {}, "RACE is no covariate"),
    ],
)
def test_groups_that_cannot_be_made_are_refused(exposed, people, by, options, match):
    with pytest.raises(ValueError, match=match):
        popk.exposure_by(exposed, people, by, **options)


def test_exposure_of_other_subjects_is_refused(exposed, people):
    with pytest.raises(popk.ModelError, match="give the trial whose exposure it is"):
        popk.exposure_by(exposed, people.without("2"), "SEX")
