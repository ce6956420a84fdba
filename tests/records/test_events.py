"""What the records make happen: one sorted list of events a subject."""

import numpy as np
import pandas as pd
import pytest

from popk.records.events import DOSE, OUTPUT, PADDING, RESET, STOP, clock, event_table
from popk.records.nonmem import check_records
from tests.trials import table

NAMES = {OUTPUT: "output", DOSE: "dose", STOP: "stop", RESET: "reset", PADDING: "padding"}


def frame_of(text: str) -> pd.DataFrame:
    return check_records(table(text), "test").frame


def events_of(text: str):
    frame = frame_of(text)
    subject = pd.factorize(frame["ID"])[0]
    record = frame.groupby("ID", sort=False).cumcount().to_numpy()
    return event_table(frame, subject, record)


def story(text: str, subject: int = 0) -> list[str]:
    """Return a subject's events as "kind@time/record", in order, padding left out."""
    e = events_of(text)
    return [
        f"{NAMES[kind]}@{time:g}/{record}"
        for kind, time, record in zip(
            e.kind[subject], e.time[subject], e.record[subject], strict=True
        )
        if kind != PADDING
    ]


def test_each_record_is_one_output_after_what_it_does():
    assert story("ID TIME EVID AMT DV\n1 0 1 100 .\n1 2 0 0 5\n1 3 2 0 .") == [
        "dose@0/0", "output@0/0", "output@2/1", "output@3/2",
    ]  # fmt: skip


def test_an_infusion_ends_after_its_amount_over_its_rate():
    assert story("ID TIME EVID AMT RATE DV\n1 1 1 100 40 .\n1 6 0 0 0 5") == [
        "dose@1/0", "output@1/0", "stop@3.5/0", "output@6/1",
    ]  # fmt: skip


def test_an_infusion_may_end_after_the_last_record():
    assert story("ID TIME EVID AMT RATE DV\n1 0 1 100 10 .\n1 6 0 0 0 5")[-1] == "stop@10/0"


def test_further_doses_are_written_out():
    text = "ID TIME EVID AMT ADDL II DV\n1 1 1 100 2 12 .\n1 40 0 0 0 0 5"
    assert story(text) == ["dose@1/0", "output@1/0", "dose@13/0", "dose@25/0", "output@40/1"]


def test_further_infusions_each_have_their_end():
    text = "ID TIME EVID AMT RATE ADDL II DV\n1 0 1 100 50 1 12 .\n1 40 0 0 0 0 0 5"
    assert story(text) == [
        "dose@0/0", "output@0/0", "stop@2/0", "dose@12/0", "stop@14/0", "output@40/1",
    ]  # fmt: skip


def test_further_doses_after_the_last_record_are_left_out():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 99 12 .\n1 24 0 0 0 0 5"
    assert story(text) == ["dose@0/0", "output@0/0", "dose@12/0", "dose@24/0", "output@24/1"]


def test_a_further_dose_comes_before_every_record_of_its_time():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 1 12 .\n1 12 0 0 0 0 5\n1 12 1 50 0 0 ."
    assert story(text)[2:] == ["dose@12/0", "output@12/1", "dose@12/2", "output@12/2"]


def test_the_end_of_an_infusion_comes_before_every_record_of_its_time():
    text = "ID TIME EVID AMT RATE DV\n1 0 1 100 50 .\n1 2 0 0 0 5\n1 2 1 100 50 ."
    assert story(text)[2:] == ["stop@2/0", "output@2/1", "dose@2/2", "output@2/2", "stop@4/2"]


def test_file_order_settles_records_of_one_time():
    before = story("ID TIME EVID AMT DV\n1 0 0 0 5\n1 0 1 100 .")
    after = story("ID TIME EVID AMT DV\n1 0 1 100 .\n1 0 0 0 5")
    assert before == ["output@0/0", "dose@0/1", "output@0/1"]
    assert after == ["dose@0/0", "output@0/0", "output@0/1"]


def test_evid_4_resets_before_it_doses():
    assert story("ID TIME EVID AMT DV\n1 0 1 100 .\n1 9 4 50 .")[2:] == [
        "reset@9/1", "dose@9/1", "output@9/1",
    ]  # fmt: skip


def test_a_reset_cancels_the_further_doses_that_are_left():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 9 12 .\n1 20 3 0 0 0 .\n1 40 0 0 0 0 5"
    assert story(text) == [
        "dose@0/0", "output@0/0", "dose@12/0", "reset@20/1", "output@20/1", "output@40/2",
    ]  # fmt: skip


def test_a_further_dose_at_the_time_of_a_reset_is_seen_by_a_record_before_the_reset():
    text = "ID TIME EVID AMT ADDL II DV\n1 0 1 100 9 12 .\n1 12 0 0 0 0 5\n1 12 3 0 0 0 .\n1 20 0 0 0 0 5"
    assert story(text) == [
        "dose@0/0", "output@0/0", "dose@12/0", "output@12/1", "reset@12/2", "output@12/2",
        "output@20/3",
    ]  # fmt: skip


def test_an_epoch_counts_the_resets_up_to_a_record():
    text = "ID TIME EVID AMT RATE DV\n1 0 1 100 5 .\n1 2 3 0 0 .\n1 3 1 100 50 .\n1 4 4 50 0 ."
    e = events_of(text)
    epochs = {
        (NAMES[k], r): int(p) for k, r, p in zip(e.kind[0], e.record[0], e.epoch[0], strict=True)
    }
    assert epochs[("dose", 0)] == 0
    assert epochs[("stop", 0)] == 0, "the end of an infusion that a reset cut short keeps its epoch"
    assert epochs[("reset", 1)] == 1
    assert epochs[("dose", 2)] == 1
    assert epochs[("dose", 3)] == 2


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
        "dose@0/0", "output@0/0", "dose@8/0", "output@12/1", "reset@12/2", "dose@12/2",
        "output@12/2", "output@17/3",
    ]  # fmt: skip


def test_doses_and_ends_carry_their_amount_rate_and_compartment():
    e = events_of("ID TIME EVID AMT RATE CMT DV\n1 0 1 100 40 2 .\n1 6 0 0 0 1 5")
    of = {NAMES[k]: i for i, k in enumerate(e.kind[0])}
    for kind in ("dose", "stop"):
        i = of[kind]
        assert (e.amount[0, i], e.rate[0, i], e.compartment[0, i]) == (100, 40, 2)
    i = of["output"]
    assert (e.amount[0, i], e.rate[0, i], e.compartment[0, i]) == (0, 0, 0)


def test_subjects_of_unequal_length_are_padded_with_events_that_stand_still():
    e = events_of("ID TIME EVID AMT DV\n1 0 1 9 .\n1 5 0 0 5\n1 7 0 0 5\n2 3 1 9 .")
    assert e.kind.shape == (2, 4)
    assert [NAMES[k] for k in e.kind[1]] == ["dose", "output", "padding", "padding"]
    assert e.time[1].tolist() == [3, 3, 3, 3]
    assert e.amount[1].tolist() == [9, 0, 0, 0]
    assert np.isinf(e.position[1, 2:]).all()


@pytest.mark.parametrize("subject", [0, 1])
def test_subjects_do_not_mix(subject):
    alone = "ID TIME EVID AMT ADDL II DV\n{0} 0 1 9 2 4 .\n{0} 9 3 0 0 0 .\n{0} 11 0 0 0 0 5"
    both = alone.format(1) + "\n" + "\n".join(alone.format(2).splitlines()[1:])
    assert story(both, subject) == story(alone.format(1))
