"""What the records make happen: one sorted list of events a subject, further doses written out."""

import numpy as np
import pandas as pd
import pytest

from popk.records.events import (
    DOSE,
    NONE,
    PADDING,
    RECORD,
    REPLACED,
    RESET,
    STOP,
    clock,
    event_table,
    padded_events,
)
from popk.records.nonmem import check_records
from tests.trials import table

NAMES = {RECORD: "record", DOSE: "dose", STOP: "stop", PADDING: "padding"}
WIPES = {NONE: "", RESET: " resets", REPLACED: " replaces"}


def frame_of(text: str) -> pd.DataFrame:
    return check_records(table(text), "test").frame


def events_of(text: str):
    frame = frame_of(text)
    subject = pd.factorize(frame["ID"])[0]
    record = frame.groupby("ID", sort=False).cumcount().to_numpy()
    return event_table(frame, subject, record)


def story(text: str, subject: int = 0) -> list[str]:
    """Return a subject's events as "kind@time/record" and what a record does, padding left out."""
    e = of_subject(events_of(text), subject)
    return [
        f"{NAMES[kind]}@{time:g}/{record}{WIPES[wipes]}"
        + (f" SS {steady}" if steady else "")
        + (" gives" if gives and kind == RECORD else "")
        + (f" turns {turns}" if turns else "")
        for kind, time, record, wipes, steady, gives, turns in zip(
            e.kind, e.time, e.record, e.wipes, e.steady, e.gives, e.turns, strict=True
        )
        if kind != PADDING
    ]


def of_subject(events, subject):
    return type(events)(*(values[subject] for values in events))


def test_each_record_is_one_event():
    assert story("ID TIME EVID AMT DV\n1 0 1 100 .\n1 2 0 0 5\n1 3 2 0 .") == [
        "record@0/0 gives", "record@2/1", "record@3/2",
    ]  # fmt: skip


def test_an_infusion_ends_after_its_amount_over_its_rate():
    assert story("ID TIME EVID AMT RATE DV\n1 1 1 100 40 .\n1 6 0 0 0 5") == [
        "record@1/0 gives", "stop@3.5/0", "record@6/1",
    ]  # fmt: skip


def test_an_infusion_may_end_after_the_last_record():
    assert story("ID TIME EVID AMT RATE DV\n1 0 1 100 10 .\n1 6 0 0 0 5")[-1] == "stop@10/0"


@pytest.mark.parametrize("rate", [-1, -2])
def test_an_infusion_whose_length_the_model_gives_has_an_end_without_a_length(rate):
    text = f"ID TIME EVID AMT RATE ADDL II DV\n1 0 1 100 {rate} 1 4 .\n1 6 0 0 0 0 0 5"
    assert sorted(story(text)) == [
        "dose@4/0", "record@0/0 gives", "record@6/1", "stop@0/0", "stop@4/0",
    ]  # fmt: skip


def test_further_doses_are_written_out():
    text = "ID TIME EVID AMT ADDL II DV\n1 1 1 100 2 12 .\n1 40 0 0 0 0 5"
    assert story(text) == ["record@1/0 gives", "dose@13/0", "dose@25/0", "record@40/1"]


def test_further_infusions_each_have_their_end():
    text = "ID TIME EVID AMT RATE ADDL II DV\n1 0 1 100 50 1 12 .\n1 40 0 0 0 0 0 5"
    assert story(text) == [
        "record@0/0 gives", "stop@2/0", "dose@12/0", "stop@14/0", "record@40/1",
    ]  # fmt: skip


def test_further_doses_after_the_last_record_are_left_out():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 99 12 .\n1 24 0 0 0 0 5"
    assert story(text) == ["record@0/0 gives", "dose@12/0", "dose@24/0", "record@24/1"]


def test_a_further_dose_comes_before_every_record_of_its_time():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 1 12 .\n1 12 0 0 0 0 5\n1 12 1 50 0 0 ."
    assert story(text)[1:] == ["dose@12/0", "record@12/1", "record@12/2 gives"]


def test_the_end_of_an_infusion_comes_before_every_record_of_its_time():
    text = "ID TIME EVID AMT RATE DV\n1 0 1 100 50 .\n1 2 0 0 0 5\n1 2 1 100 50 ."
    assert story(text)[1:] == ["stop@2/0", "record@2/1", "record@2/2 gives", "stop@4/2"]


def test_file_order_settles_records_of_one_time():
    before = story("ID TIME EVID AMT DV\n1 0 0 0 5\n1 0 1 100 .")
    after = story("ID TIME EVID AMT DV\n1 0 1 100 .\n1 0 0 0 5")
    assert before == ["record@0/0", "record@0/1 gives"]
    assert after == ["record@0/0 gives", "record@0/1"]


def test_evid_4_resets_and_gives_in_one_event():
    assert story("ID TIME EVID AMT DV\n1 0 1 100 .\n1 9 4 50 .")[1:] == ["record@9/1 resets gives"]


def test_a_reset_cancels_the_further_doses_that_are_left():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 9 12 .\n1 20 3 0 0 0 .\n1 40 0 0 0 0 5"
    assert story(text) == ["record@0/0 gives", "dose@12/0", "record@20/1 resets", "record@40/2"]


def test_a_further_dose_at_the_time_of_a_reset_is_seen_by_a_record_before_the_reset():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 9 12 .\n1 12 0 0 0 0 5\n1 12 3 0 0 0 .\n1 20 0 0 0 0 5"
    assert story(text) == [
        "record@0/0 gives", "dose@12/0", "record@12/1", "record@12/2 resets", "record@20/3",
    ]  # fmt: skip


def test_ss_1_replaces_the_amounts_and_cancels_the_further_doses_that_are_left():
    text = "ID TIME EVID AMT ADDL II SS DV\n1 0 1 100 9 12 0 .\n1 20 1 50 1 8 1 .\n1 40 0 0 0 0 0 5"
    assert story(text) == [
        "record@0/0 gives", "dose@12/0", "record@20/1 replaces SS 1 gives", "dose@28/1", "record@40/2",
    ]  # fmt: skip


def test_ss_2_wipes_nothing_and_cancels_no_further_dose():
    text = "ID TIME EVID AMT ADDL II SS DV\n1 0 1 100 9 12 0 .\n1 20 1 50 1 8 2 .\n1 30 0 0 0 0 0 5"
    assert story(text) == [
        "record@0/0 gives", "dose@12/0", "record@20/1 SS 2 gives", "dose@24/0", "dose@28/1",
        "record@30/2",
    ]  # fmt: skip


def test_a_reset_and_a_steady_state_in_one_record_are_a_reset():
    text = "ID TIME EVID AMT II SS DV\n1 0 4 100 12 1 .\n1 20 0 0 0 0 5"
    assert story(text)[0] == "record@0/0 resets SS 1 gives"


def test_a_constant_infusion_at_steady_state_has_no_end_of_its_own():
    text = "ID TIME EVID AMT RATE SS DV\n1 0 1 0 10 1 .\n1 20 0 0 0 0 5"
    assert story(text) == ["record@0/0 replaces SS 1 gives", "record@20/1"]


@pytest.mark.parametrize("evid", [0, 2])
def test_a_negative_compartment_turns_it_off(evid):
    text = f"ID TIME EVID AMT CMT DV MDV\n1 0 1 100 1 . 1\n1 2 {evid} 0 -2 5 1"
    assert story(text)[1] == "record@2/1 turns -2"


def test_a_compartment_is_turned_on_by_an_other_event_not_by_an_observation():
    text = "ID TIME EVID AMT CMT DV\n1 0 1 100 1 .\n1 2 2 0 2 .\n1 3 0 0 2 5"
    assert story(text)[1:] == ["record@2/1 turns 2", "record@3/2"]


def test_an_epoch_counts_the_wipes_up_to_a_record():
    text = (
        "ID TIME EVID AMT RATE II SS DV\n1 0 1 100 5 0 0 .\n1 2 3 0 0 0 0 .\n1 3 1 100 50 0 0 .\n"
        "1 4 4 50 0 0 0 .\n1 5 1 50 0 8 1 .\n1 6 1 50 0 8 2 ."
    )
    e = events_of(text)
    epochs = {
        (NAMES[k], r): int(p) for k, r, p in zip(e.kind[0], e.record[0], e.epoch[0], strict=True)
    }
    assert [epochs["record", i] for i in range(6)] == [0, 1, 1, 2, 3, 3]
    assert epochs["stop", 0] == 0, "the end of an infusion that a reset cut short keeps its epoch"


def test_an_occasion_that_restarts_its_clock_follows_the_last_one():
    frame = frame_of(
        "ID TIME EVID AMT DV\n1 0 1 9 .\n1 12 0 0 5\n1 0 4 9 .\n1 5 0 0 5\n1 2 4 9 .\n1 8 0 0 5"
    )
    assert clock(frame).tolist() == [0, 12, 12, 17, 17, 23]


def test_the_clock_of_one_subject_does_not_shift_another():
    frame = frame_of("ID TIME EVID AMT DV\n1 7 1 9 .\n1 0 4 9 .\n2 3 1 9 .\n2 5 0 0 5")
    assert clock(frame).tolist() == [7, 7, 3, 5]


def test_stacked_occasions_happen_one_after_the_other():
    text = (
        "ID TIME EVID AMT ADDL II DV\n1 0 1 9 3 8 .\n1 12 0 0 0 0 5\n1 0 4 9 0 0 .\n1 5 0 0 0 0 5"
    )
    assert story(text) == [
        "record@0/0 gives", "dose@8/0", "record@12/1", "record@12/2 resets gives", "record@17/3",
    ]  # fmt: skip


def test_doses_and_ends_carry_their_amount_rate_interval_and_compartment():
    e = events_of("ID TIME EVID AMT RATE CMT ADDL II DV\n1 0 1 100 40 2 1 3 .\n1 6 0 0 0 1 0 0 5")
    by_kind = {NAMES[k]: i for i, k in reversed(list(enumerate(e.kind[0])))}
    for kind in ("record", "dose", "stop"):
        i = by_kind[kind]
        assert (e.amount[0, i], e.rate[0, i], e.interval[0, i], e.compartment[0, i]) == (
            100,
            40,
            3,
            2,
        )
    assert [bool(e.gives[0, by_kind[k]]) for k in ("record", "dose", "stop")] == [True, True, False]
    last = np.flatnonzero(e.record[0] == 1)[0]
    assert (e.amount[0, last], e.rate[0, last], e.compartment[0, last]) == (0, 0, 0)
    assert not e.gives[0, last]


def test_only_the_record_itself_is_at_steady_state_and_wipes():
    text = "ID TIME EVID AMT RATE ADDL II SS DV\n1 0 1 100 50 1 8 1 .\n1 16 0 0 0 0 0 0 5"
    e = events_of(text)
    own = e.kind[0] == RECORD
    assert e.steady[0][own].tolist() == [1, 0]
    assert not e.steady[0][~own].any()
    assert not e.wipes[0][~own].any()


def test_subjects_of_unequal_length_are_padded_with_events_that_stand_still():
    e = events_of(
        "ID TIME EVID AMT DV\n1 0 1 9 .\n1 5 0 0 5\n1 7 0 0 5\n1 8 2 0 .\n2 3 1 9 .\n2 4 0 0 1"
    )
    assert e.kind.shape == (2, 4)
    assert [NAMES[k] for k in e.kind[1]] == ["record", "record", "padding", "padding"]
    assert e.time[1].tolist() == [3, 4, 4, 4]
    assert e.amount[1].tolist() == [9, 0, 0, 0]
    assert np.isinf(e.position[1, 2:]).all()
    assert not e.gives[1, 1:].any()


def test_more_padding_stands_still_at_each_subject_s_last_event():
    e = events_of("ID TIME EVID AMT DV\n1 0 1 9 .\n1 5 0 0 5\n2 3 1 9 .\n2 4 0 0 1")
    wide = padded_events(e, 5)
    assert wide.kind.shape == (2, 5)
    assert (wide.kind[:, 2:] == PADDING).all()
    assert wide.time.tolist() == [[0, 5, 5, 5, 5], [3, 4, 4, 4, 4]]
    for name, before, after in zip(e._fields, e, wide, strict=True):
        np.testing.assert_array_equal(after[:, :2], before, err_msg=name)
        assert after.dtype == before.dtype, name


@pytest.mark.parametrize("subject", [0, 1])
def test_subjects_do_not_mix(subject):
    alone = "ID TIME EVID AMT ADDL II DV\n{0} 0 1 9 2 4 .\n{0} 9 3 0 0 0 .\n{0} 11 0 0 0 0 5"
    both = alone.format(1) + "\n" + "\n".join(alone.format(2).splitlines()[1:])
    assert story(both, subject) == story(alone.format(1))
