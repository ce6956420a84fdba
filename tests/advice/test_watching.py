"""Alarms: how probable a crossing is, when, what would prevent it, and how often alarms are false."""

import numpy as np
import pandas as pd
import pytest

import popk
from tests.patients.models import UNITS, bolus, population

ABOVE = popk.limit(above=18, probability=0.2, clears=0.1)


@pytest.fixture(scope="module")
def watched():
    """500 mg at once, levels at 2 and 10 h, then 600 mg every 12 h planned."""
    table = pd.DataFrame(
        {
            "ID": 1, "TIME": [0.0, 2.0, 10.0, 12.0], "EVID": [1, 0, 0, 1],
            "AMT": [500.0, 0, 0, 600.0], "DV": [np.nan, 8.5, 4.0, np.nan], "MDV": [1, 0, 0, 1],
            "II": [0, 0, 0, 12.0], "ADDL": [0, 0, 0, 3],
        }
    )  # fmt: skip
    units = {n: u for n, u in UNITS.items() if n != "OCC"}
    return popk.Twin(bolus, population(), popk.read_nonmem(table, units=units))


def peaks(twin):
    """Return what is above the concentration just after each planned dose (sample, dose)."""
    V, k = twin.parameters["V"].values, (twin.parameters["CL"] / twin.parameters["V"]).values
    t = np.array([12.0, 24.0, 36.0, 48.0])
    own = 500 / V[:, None] * np.exp(-k[:, None] * t)
    for i, at in enumerate(t):
        own[:, i] += (600 / V[:, None] * np.exp(-k[:, None] * (at - t[: i + 1]))).sum(1)
    return t, own


def test_the_probability_of_a_crossing_is_the_formula_s(watched):
    t, own = peaks(watched)
    found = popk.watch(watched, ABOVE, 40.0)  # to 50 h
    row = found.table.iloc[0]
    assert row["probability"] == np.mean(own.max(1) > 18)
    assert row["state"] == "raised"
    share = (np.maximum.accumulate(own, 1) > 18).mean(0)
    assert row["time"] == t[np.argmax(share >= 0.2)]
    assert 0 < row["change"] < 1
    assert row["probability_after"] < 0.1
    assert found.now == 10.0
    assert list(found.alarms.index) == ["above 18"]
    assert "a clinician decides" in repr(found)
    assert "doses multiplied by" in repr(found)


def test_what_would_prevent_it_is_the_smallest_change_of_the_steps(watched):
    found = popk.watch(watched, ABOVE, 40.0, steps=[0.0, 0.5, 0.99])
    assert found.table["change"].iloc[0] == 0.5
    none = popk.watch(watched, ABOVE, 40.0, steps=[0.99])
    assert np.isnan(none.table["change"].iloc[0])
    assert "none of the steps" in repr(none)


def test_a_limit_below_asks_for_more(watched):
    low = popk.limit(below=4.0, probability=0.5)
    found = popk.watch(watched, low, 40.0)
    assert found.table["state"].iloc[0] == "raised"
    regimen = popk.Regimen(dose=1200, interval=12, count=4, start=12)
    assert popk.watch(watched, low, 36.0, now=12.0, regimen=regimen).states == {"below 4": "quiet"}


@pytest.mark.parametrize(
    ("probability", "previous", "state"),
    [
        (0.25, "quiet", "raised"),
        (0.20, "quiet", "raised"),
        (0.15, "quiet", "quiet"),
        (0.15, "cleared", "quiet"),
        (0.25, "cleared", "raised"),
        (0.25, "raised", "held"),
        (0.15, "raised", "held"),
        (0.15, "held", "held"),
        (0.10, "held", "held"),
        (0.05, "held", "cleared"),
        (0.05, "raised", "cleared"),
        (0.05, "quiet", "quiet"),
    ],
)
def test_an_alarm_is_raised_at_one_probability_and_cleared_below_another(
    probability, previous, state
):
    rule = popk.limit(above=20, probability=0.2, clears=0.1)
    assert rule.state(probability, previous) == state


def test_the_last_watch_says_what_stood(watched):
    higher = popk.limit(above=18, probability=0.99, clears=0.05)
    assert popk.watch(watched, higher, 40.0).states == {"above 18": "quiet"}
    first = popk.watch(watched, ABOVE, 40.0)
    assert popk.watch(watched, higher, 40.0, previous=first).states == {"above 18": "held"}


@pytest.mark.slow
def test_false_alarms_are_counted_and_told(watched):
    rates = popk.false_alarm_rate(watched, ABOVE, 40.0, patients=30)
    row = rates.loc["above 18"]
    assert row["patients"] == 30
    assert 0 < row["cross"] < 30
    assert 0 <= row["false_alarm_low"] <= row["false_alarm"] <= row["false_alarm_high"] <= 1
    assert row["false_alarm"] < 0.6
    assert row["missed"] < 0.6
    found = popk.watch(watched, ABOVE, 40.0, false_alarms=rates)
    assert f"{row['missed']:.0%} of those who do are missed" in repr(found)


@pytest.mark.parametrize(
    ("rules", "horizon", "options", "says"),
    [
        (ABOVE, 0.0, {}, "horizon is 0"),
        ([ABOVE, ABOVE], 4.0, {}, "rules of different names"),
        (ABOVE, 4.0, {"steps": [-1.0]}, "none may be negative"),
        (ABOVE, 4.0, {"previous": {"above 18": "loud"}}, "the previous state is 'loud'"),
    ],
)
def test_what_cannot_be_watched_is_refused(watched, rules, horizon, options, says):
    with pytest.raises(ValueError, match=says):
        popk.watch(watched, rules, horizon, **options)


def test_too_few_patients_are_refused(watched):
    with pytest.raises(ValueError, match="patients 3"):
        popk.false_alarm_rate(watched, ABOVE, 40.0, patients=3)
