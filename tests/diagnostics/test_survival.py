"""Kaplan and Meier's curve, observed and simulated."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import popk
from popk.diagnostics.survival import _censored
from tests.predictions import predictions_of

#: Weeks in remission under 6-mercaptopurine, and whether it ended: Freireich EJ et al. (1963), Blood
#: 21:699-716. Shares and Greenwood's standard errors: Klein JP, Moeschberger ML (2003), Survival
#: Analysis, 2nd edition, table 4.1A. doi:10.1007/b97377
WEEKS = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
ENDED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
PUBLISHED = {
    6: (0.857, 0.076), 7: (0.807, 0.087), 10: (0.753, 0.096), 13: (0.690, 0.107),
    16: (0.627, 0.114), 22: (0.538, 0.128), 23: (0.448, 0.135),
}  # fmt: skip
UNITS = {"TIME": "week", "AMT": "mg", "DV": "1"}
GRID = np.arange(1.0, 36.0)


def trial_of(weeks, ended, ids=None, **columns):
    ids = np.arange(len(weeks)) if ids is None else ids
    frame = pd.DataFrame({"ID": ids, "TIME": weeks, "DV": ended, **columns})
    return popk.read_nonmem(frame, units=UNITS)


@pytest.fixture(scope="module")
def leukemia():
    return trial_of(WEEKS, ENDED)


def simulated(trial, drawn, *, kinds=((0, 0),), output="", **options):
    """Return predictions of events drawn by hand [sample, observation]."""
    tree = predictions_of(trial, np.asarray(drawn, dtype=float), **options)
    known = {output: {"name": "events", "kinds": kinds}}
    tree.attrs["endpoints"] = json.dumps(known)
    return tree


def nothing(trial, samples=20):
    return np.zeros((samples, len(trial.observations.value)))


@pytest.fixture(scope="module")
def check(leukemia):
    followed = popk.follow_up(leukemia, GRID)
    return popk.kaplan_meier(simulated(followed, nothing(followed)), leukemia)


def test_the_observed_curve_is_the_published_one(check):
    at = check.sel(time=list(PUBLISHED))
    shares, errors = np.transpose(list(PUBLISHED.values()))
    np.testing.assert_allclose(at["observed"], shares, atol=6e-4)
    # Greenwood's standard error of S, from the limits on the scale of log(-log S)
    ends = np.log(-np.log(at[["lower", "upper"]].to_array().values))
    se = (ends[0] - ends[1]) / 2 / 1.959964 * at["observed"] * -np.log(at["observed"])
    np.testing.assert_allclose(se, errors, atol=6e-4)


def test_confidence_limits_are_those_of_scipy(check):
    ended = np.array(ENDED, dtype=bool)
    weeks = np.array(WEEKS, dtype=float)
    known = stats.ecdf(stats.CensoredData(uncensored=weeks[ended], right=weeks[~ended])).sf
    ends = known.confidence_interval(0.95, method="log-log")
    for name, end in (("observed", known), ("lower", ends.low), ("upper", ends.high)):
        np.testing.assert_allclose(check[name][1:], end.evaluate(check["time"][1:]), rtol=1e-10)


def test_numbers_at_risk_begin_with_all_subjects(check):
    assert check["at_risk"].sel(time=[0, 6, 7, 10, 35]).values.tolist() == [21, 21, 17, 15, 1]
    assert int(check["events"].sum()) == 9
    assert int(check["censored"].sum()) == 12
    assert check.attrs["subjects"] == 21


def test_every_subject_is_followed_up_at_all_times(leukemia):
    frame = popk.follow_up(leukemia, GRID).to_dataframe()
    added = frame[frame["MDV"].eq(1)]
    assert added["EVID"].eq(0).all()
    np.testing.assert_array_equal(added["TIME"], np.tile(GRID, 21))
    assert len(frame) - len(added) == 21
    assert all(own.is_monotonic_increasing for _, own in frame.groupby("ID", sort=False)["TIME"])


def test_simulated_subjects_are_censored_when_they_were_or_later_than_their_event():
    when, had = np.array([2.0, 4.0, 6.0, 8.0]), np.array([True, False, True, False])
    left = _censored(when, had, 20_000, np.random.default_rng(0))
    np.testing.assert_array_equal(left[:, [1, 3]], np.tile([4.0, 8.0], (20_000, 1)))
    # Of three at risk of being censored at 4 one is, and the one left at 8 is.
    assert (left[:, 0] == 4.0).mean() == pytest.approx(1 / 3, abs=4 * np.sqrt(0.25 / 20_000))
    assert set(np.unique(left[:, 0])) == {4.0, 8.0}
    assert set(np.unique(left[:, 2])) == {8.0}


def test_censoring_does_not_move_the_predicted_curve():
    # Half of the subjects have twice the hazard of the others, and leave at random.
    draw, n = np.random.default_rng(1), 400
    rate = np.where(np.arange(n) % 2, 0.16, 0.04)
    event, left = draw.exponential(1 / rate), np.minimum(draw.uniform(5, 40, n), 30.0)
    trial = trial_of(np.minimum(event, left), (event <= left).astype(float))
    followed = popk.follow_up(trial, np.arange(1.0, 31.0))
    o = followed.observations
    subject, time = np.asarray(o.subject), np.asarray(followed.time)[o.subject, o.record]
    again = draw.exponential(1 / rate, (40, n))[:, subject]
    first = np.r_[True, subject[1:] != subject[:-1]]
    before = np.where(first, 0.0, np.roll(time, 1))
    tree = simulated(followed, (before < again) & (again <= time))
    found = popk.kaplan_meier(tree, trial, percentiles=(50,))["predicted"][0]
    expected = np.exp(-np.outer(found["followed"], rate)).mean(1)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_followed_records_are_of_the_kind_of_the_events_and_have_the_next_covariates():
    rows = pd.DataFrame({
        "ID": 1, "TIME": [0, 2, 6], "EVID": [1, 0, 0], "AMT": [10, 0, 0], "DVID": [0, 1, 2],
        "DV": [np.nan, 3.0, 0.0], "MDV": [1, 0, 0], "WT": [70, 71, 72],
    })  # fmt: skip
    trial = popk.read_nonmem(rows, covariates=["WT"], units={**UNITS, "WT": "kg"})
    frame = popk.follow_up(trial, [1, 4, 8], DVID=2).to_dataframe()
    assert frame["TIME"].tolist() == [0, 1, 2, 4, 6, 8]
    assert frame["DVID"].tolist() == [0, 2, 1, 2, 2, 2]
    assert frame["WT"].tolist() == [70, 71, 71, 72, 72, 72]


def test_the_predicted_curves_are_those_of_the_simulated_trials():
    weeks = [10.0, 10.0, 10.0, 10.0]
    trial = trial_of(weeks, [0, 0, 0, 0])
    followed = popk.follow_up(trial, np.arange(1.0, 11.0))
    drawn = nothing(followed)
    o = followed.observations
    time = np.asarray(followed.time)[np.asarray(o.subject), np.asarray(o.record)]
    first = np.flatnonzero((np.asarray(o.subject) == 0) & (time == 3.0))[0]
    drawn[10:, first] = 1.0  # in half of the trials the first of four has an event by week 3
    found = popk.kaplan_meier(simulated(followed, drawn), trial, percentiles=(0, 100))["predicted"]
    np.testing.assert_array_equal(found.sel(percentile=100), 1.0)
    expected = np.where(found["followed"] >= 3.0, 0.75, 1.0)
    np.testing.assert_array_equal(found.sel(percentile=0), expected)


def test_of_repeated_events_the_time_of_any_one_can_be_compared():
    trial = trial_of([2.0, 5.0, 9.0, 4.0, 9.0], [1, 1, 0, 1, 0], ids=[1, 1, 1, 2, 2])
    followed = popk.follow_up(trial, np.arange(1.0, 10.0))
    tree = simulated(followed, nothing(followed))
    first, second = (popk.kaplan_meier(tree, trial, event=n)["observed"] for n in (1, 2))
    assert first.sel(time=[0, 2, 4]).values.tolist() == [1.0, 0.5, 0.0]
    assert second.sel(time=[0, 5, 9]).values.tolist() == [1.0, 0.5, 0.5]


def test_one_arm_can_be_compared_alone(leukemia):
    followed = popk.follow_up(leukemia, GRID)
    tree = simulated(followed, nothing(followed))
    assert popk.kaplan_meier(tree, leukemia[["1", "2", "3"]]).attrs["subjects"] == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"output": "death"}, "output is 'death'; the model's outputs of events are: 'event'"),
        ({"new_subjects": False}, "call popk.predict with new_subjects=True"),
        ({"samples": 19}, "there are 19 simulated trials; predict at least draws=20"),
        ({"follow": False}, "at 1 common times, too few for a curve; predict popk.follow_up"),
        ({"kinds": ((0, 7),)}, "no record of these events with MDV 0"),
        ({"nan": True}, "some simulated event is no number"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(options, says, leukemia):
    followed = popk.follow_up(leukemia, GRID) if options.get("follow", True) else leukemia
    drawn = nothing(followed, options.get("samples", 20))
    drawn[0, 0] = np.nan if options.get("nan") else 0.0
    tree = simulated(
        followed, drawn, output="event", kinds=options.get("kinds", ((0, 0),)),
        new_subjects=options.get("new_subjects", True),
    )  # fmt: skip
    with pytest.raises(popk.ModelError, match=says):
        popk.kaplan_meier(tree, leukemia, output=options.get("output"))


def test_events_of_another_trial_are_refused(leukemia):
    followed = popk.follow_up(leukemia["1"], GRID)
    with pytest.raises(popk.ModelError, match=r"no events of ID 0, 2, 3, 4, 5 were simulated"):
        popk.kaplan_meier(simulated(followed, nothing(followed)), leukemia)


@pytest.mark.parametrize(
    ("times", "kind", "says"),
    [
        ([], {}, "give finite times above 0"),
        ([0, 1], {}, "give finite times above 0"),
        ([1], {"DVID": 3}, "no record of events with DVID 3"),
    ],
)
def test_what_is_no_follow_up_is_refused(times, kind, says, leukemia):
    with pytest.raises(ValueError, match=says):
        popk.follow_up(leukemia, times, **kind)
