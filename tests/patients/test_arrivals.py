"""Records that arrive late, twice, corrected or retracted; and those that cannot be the patient's."""

import itertools

import numpy as np
import pandas as pd
import pytest

import popk
from tests.patients.records import level, part

FIRST, SECOND, THIRD = level(1.0, 8.2), level(5.0, 7.1), level(9.0, 5.6)


@pytest.fixture(scope="module")
def dosed(theophylline_model, theophylline_others_posterior, theophylline):
    """Subject 3 after the dose, with few population draws: what becomes of records is the question."""
    dose = part(theophylline["3"], [1])
    return popk.Twin(theophylline_model, theophylline_others_posterior, dose, population_draws=50)


def kinds(twin):
    return [arrival.kind for arrival in twin.log]


def levels(twin):
    kept = twin.records[twin.records["EVID"] == 0]
    return dict(zip(kept["TIME"], kept["DV"], strict=True))


def assert_same(one, other):
    for name in ("CL", "V", "KA"):
        np.testing.assert_array_equal(one.parameters[name], other.parameters[name])


@pytest.mark.parametrize("order", list(itertools.permutations([FIRST, SECOND, THIRD]))[1::2])
def test_any_order_of_arrival_gives_the_same_twin(dosed, order):
    together = dosed.update([FIRST, SECOND, THIRD])
    one_by_one = dosed
    for record in order:
        one_by_one = one_by_one.update([record])
    assert_same(one_by_one, together)


def test_a_late_record_is_named(dosed):
    twin = dosed.update([SECOND]).update([FIRST])
    assert kinds(twin) == ["new", "late"]
    assert twin.log[-1].time == 1.0
    assert "records up to TIME 5 were known" in twin.log[-1].says


def test_a_duplicate_is_ignored_and_named(dosed):
    twin = dosed.update([FIRST])
    assert kinds(twin.update([FIRST])) == ["new", "duplicate"]
    assert_same(twin.update([FIRST]), twin)


def test_two_equal_levels_of_one_table_are_two_records(dosed):
    twin = dosed.update([FIRST, FIRST])
    assert int(twin.patient.observations.measured.sum()) == 2


def test_a_second_record_of_one_id_corrects_the_first(dosed):
    twin = dosed.update([level(1.0, 9.2, RECORD="lab 7")])
    corrected = twin.update([level(1.0, 8.2, RECORD="lab 7")])
    assert levels(corrected) == {1.0: 8.2}
    assert corrected.log[-1].kind == "corrected"
    assert "DV 9.2 to 8.2" in corrected.log[-1].says
    assert levels(twin) == {1.0: 9.2}
    assert_same(corrected, dosed.update([FIRST]))


def test_what_was_recorded_later_stands_whatever_arrives_last(dosed):
    old = level(1.0, 9.2, RECORD="lab 7", RECORDED_AT="2026-03-01T08:00:00Z")
    new = level(1.0, 8.2, RECORD="lab 7", RECORDED_AT="2026-03-01T10:30:00+01:00")
    for order in ([old, new], [new, old]):
        twin = dosed.update(order[:1]).update(order[1:])
        assert levels(twin) == {1.0: 8.2}
    assert kinds(twin) == ["new", "outdated"]


@pytest.mark.parametrize("how", ["by a record", "by name"])
def test_a_retracted_record_is_taken_out(dosed, how):
    twin = dosed.update([level(1.0, 8.2, RECORD="lab 7"), SECOND])
    if how == "by a record":
        without = twin.update([{"RECORD": "lab 7", "RETRACTED": 1}])
    else:
        without = twin.update(retract=["lab 7"])
    assert without.log[-1].kind == "retracted"
    assert_same(without, dosed.update([SECOND]))
    assert kinds(without.update([level(1.0, 8.2, RECORD="lab 7")]))[-1] == "outdated"


def test_a_retraction_that_comes_before_its_record_keeps_it_out(dosed):
    twin = dosed.update([{"RECORD": "lab 7", "RETRACTED": 1}])
    assert levels(twin.update([level(1.0, 8.2, RECORD="lab 7")])) == {}


def test_an_unknown_id_to_retract_is_refused(dosed):
    with pytest.raises(popk.DataError, match="retract= names lab 8; the records known are"):
        dosed.update(retract=["lab 8"])


def test_a_level_at_the_time_of_a_dose_is_the_trough_whichever_arrives_first(dosed):
    dose = {"TIME": 24.0, "EVID": 1, "AMT": 320.0, "WT": 70.5}
    trough = level(24.0, 1.2)
    assert_same(dosed.update([dose]).update([trough]), dosed.update([trough]).update([dose]))
    assert list(dosed.update([dose]).update([trough]).records["EVID"]) == [1, 0, 1]


def test_rows_of_one_time_keep_the_order_of_their_table(dosed):
    dose = {"TIME": 24.0, "EVID": 1, "AMT": 320.0, "WT": 70.5}
    assert list(dosed.update([dose, level(24.0, 1.2)]).records["EVID"]) == [1, 1, 0]


def test_levels_of_another_unit_are_converted(dosed):
    found = dosed.update([level(1.0, 8200.0)], units={"DV": "ng/mL"})
    assert levels(found) == {1.0: pytest.approx(8.2)}


def test_codes_of_modeled_rates_are_not_converted(dosed):
    table = pd.DataFrame(
        [{"ID": 3, "TIME": 30.0, "AMT": 1.0, "RATE": 2.0, "DV": np.nan, "WT": 70.5}]
    )
    trial = popk.read_nonmem(
        table, covariates=["WT"], units={"TIME": "h", "AMT": "g", "DV": "mg/L", "WT": "kg"}
    )
    row = dosed.update(trial).records.iloc[-1]
    assert (row["AMT"], row["RATE"]) == (1000.0, 2000.0)


@pytest.mark.parametrize(
    ("record", "options", "says"),
    [
        (level(30.0, 2.0), {"now": 24.0}, "a level lies in the future: it is TIME 24 now"),
        (level(3.0, -2.0), {}, "a concentration is below 0"),
        (level(3.0, 2.0), {"units": {"DV": "blobs"}}, "blobs cannot be converted to mg/L"),
        (level(3.0, 2.0), {"units": {"DV": "h"}}, "h cannot be converted to mg/L"),
        (level(3.0, 2.0, ID=7), {}, "the twin is of ID 3, but the records are of ID 7"),
        ({"TIME": 3.0, "DV": 2.0}, {}, "covariate WT is no column"),
        (level(3.0, 2.0, RECORDED_AT="yesterday"), {}, "RECORDED_AT is no time"),
    ],
)
def test_records_that_cannot_be_right_are_refused(dosed, record, options, says):
    with pytest.raises(popk.DataError, match=says):
        dosed.update([record], **options)


def test_a_planned_dose_may_lie_in_the_future(dosed):
    dose = {"TIME": 36.0, "EVID": 1, "AMT": 320.0, "WT": 70.5}
    assert dosed.update([dose], now=24.0).patient.n_records == 2


def test_an_update_with_nothing_new_is_the_same_belief(dosed):
    assert_same(dosed.update([]), dosed)


@pytest.fixture(scope="module")
def heavy(dosed):
    """The same dose in somebody of 140 kg."""
    frame = dosed.patient.to_dataframe()
    attrs = frame.attrs
    frame = frame.assign(WT=140.0)
    frame.attrs = attrs
    with pytest.warns(
        popk.TwinWarning, match="WT of ID 3 is 140, and was 54.6 to 86.4 in the trial"
    ):
        return popk.Twin(dosed.model, dosed.posterior, popk.read_nonmem(frame), population_draws=50)


def test_a_covariate_outside_the_fitted_range_is_named(dosed, heavy):
    assert dosed.applicability.loc["WT", "within"]
    assert not heavy.applicability.loc["WT", "within"]


def test_levels_that_the_population_was_fitted_to_are_named(
    theophylline_model, theophylline_others_posterior, theophylline
):
    with pytest.warns(popk.TwinWarning, match="10 levels of ID 5 are those of ID 5 in the trial"):
        popk.Twin(
            theophylline_model, theophylline_others_posterior, part(theophylline["5"], range(11)),
            population_draws=50,
        )  # fmt: skip


def test_a_level_before_every_dose_is_named(dosed):
    with pytest.warns(popk.TwinWarning, match="stands before every dose, and the model predicts 0"):
        dosed.update([level(-2.0, 3.0)])


def test_a_warning_is_given_once_in_the_course_of_updates(heavy):
    heavy.update([{**FIRST, "WT": 140.0}])  # warnings are errors here
