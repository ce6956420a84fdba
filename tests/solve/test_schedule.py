"""What happens to one subject, when, and to which amounts: from the records' events to legs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.records.events import DOSE, PADDING, RECORD, STOP
from popk.solve.legs import at_records, legs_of
from popk.solve.schedule import OVERLAPPING, PENDING, Dosing, phase, schedule, tails
from popk.trial import Design
from tests.histories import ANYTHING, GIVEN, N_RECORDS, NAMES, TURNED_OFF, arrays, events_of
from tests.trials import table

pytestmark = pytest.mark.usefixtures("strict_promotion")

KINDS = {RECORD: "record", DOSE: "dose", STOP: "stop", PADDING: "padding"}
DEFAULTS = {"F": 1.0, "lag": 0.0, "R": 10.0, "D": 2.0, "initial": 0.0}


@jax.jit
def planned(events, dosing):
    plan = schedule(events, N_RECORDS, NAMES, "depot", TURNED_OFF, dosing)
    return plan, legs_of(plan, NAMES, TURNED_OFF, dosing), at_records(plan, N_RECORDS)


def plan_of(text, **given):
    """Return the schedule and legs of a history; F and so on are the central compartment's."""
    dosing = {
        what: {"depot": blank, "central": given.get(what, blank)}
        for what, blank in DEFAULTS.items()
    }
    return planned(events_of(table(text)), Dosing(**arrays(dosing)))


def story(text, **given):
    """Return what happens, as "kind@time/record", padding left out."""
    plan = plan_of(text, **given)[0]
    e = plan.events
    return [
        f"{KINDS[int(kind)]}@{time:.10g}/{record}"
        + (" gives" if gives and kind == RECORD else "")
        + ("" if acts or not (gives or kind == STOP) else " in vain")
        for kind, time, record, gives, acts in zip(
            e.kind, e.time, e.record, e.gives, plan.acts, strict=True
        )
        if kind != PADDING
    ]


BOLUS = "TIME EVID AMT CMT DV\n0 1 100 2 .\n2 0 0 0 1\n6 0 0 0 1"
INFUSION = "TIME EVID AMT RATE CMT DV\n0 1 100 {0} 2 .\n2 0 0 0 0 1\n6 0 0 0 0 1"


# --- when ---


def test_what_is_not_moved_happens_as_the_records_say():
    assert story(BOLUS) == ["record@0/0 gives", "record@2/1", "record@6/2"]


def test_a_lagged_dose_leaves_its_record():
    assert story(BOLUS, lag=3.0) == ["record@0/0", "record@2/1", "dose@3/0", "record@6/2"]


def test_a_lagged_dose_arrives_before_a_record_of_its_time():
    assert story(BOLUS, lag=2.0) == ["record@0/0", "dose@2/0", "record@2/1", "record@6/2"]


def test_a_dose_whose_lag_is_0_stays_with_its_record():
    assert story(BOLUS, lag=0.0) == story(BOLUS)


def test_a_lag_moves_the_end_of_an_infusion_and_further_doses_too():
    text = "TIME EVID AMT RATE CMT ADDL II DV\n0 1 100 50 2 1 4 .\n9 0 0 0 0 0 0 1"
    assert story(text, lag=0.5) == [
        "record@0/0", "dose@0.5/0", "stop@2.5/0", "dose@4.5/0", "stop@6.5/0", "record@9/1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "given", "end"),
    [
        (25, {}, 4), (25, {"F": 0.5}, 2), (-1, {"R": 20.0}, 5), (-1, {"R": 20.0, "F": 0.5}, 2.5),
        (-2, {"D": 3.0}, 3), (-2, {"D": 3.0, "F": 0.5}, 3),
    ],
)  # fmt: skip
def test_an_infusion_lasts_as_long_as_its_rate_or_duration_says(rate, given, end):
    plan, legs, _ = plan_of(INFUSION.format(rate), **given)
    (stop,) = np.flatnonzero(plan.events.kind == STOP)
    assert float(plan.events.time[stop]) == end
    amount = 100 * given.get("F", 1.0)
    np.testing.assert_allclose(legs.switch[0], [0, amount / end, 0], rtol=1e-15)
    np.testing.assert_allclose(legs.switch[stop], [0, -amount / end, 0], rtol=1e-15)


@pytest.mark.parametrize(("rate", "given"), [(-2, {"D": 0.0}), (-1, {"R": 1e30}), (25, {"F": 0.0})])
def test_an_infusion_too_short_for_the_clock_is_a_bolus(rate, given):
    legs = plan_of(INFUSION.format(rate), **given)[1]
    np.testing.assert_array_equal(legs.jump.sum(0), [0, 100 * given.get("F", 1.0), 0])
    assert not legs.switch.any()


def test_a_dose_that_would_arrive_after_a_wipe_comes_in_vain():
    text = "TIME EVID AMT CMT DV\n0 1 100 2 .\n2 {0} {1} 2 .\n6 0 0 0 1"
    reset = story(text.format(3, 0), lag=3.0)
    assert reset == ["record@0/0", "record@2/1", "dose@3/0 in vain", "record@6/2"]
    again = story(text.format(4, 50), lag=3.0)
    assert again == ["record@0/0", "record@2/1", "dose@3/0 in vain", "dose@5/1", "record@6/2"]


def test_the_parameters_of_the_next_record_hold_until_then_and_the_last_ones_after_all():
    plan = plan_of(BOLUS, lag=3.0)[0]
    own = [
        int(i) for i, kind in zip(plan.upcoming, plan.events.kind, strict=True) if kind != PADDING
    ]
    assert own == [0, 1, 2, 2]
    late = plan_of(BOLUS, lag=30.0)[0]
    assert [int(i) for i in late.upcoming[:4]] == [0, 1, 2, N_RECORDS - 1]


def test_each_record_is_predicted_at_its_own_event():
    plan, _, at = plan_of(BOLUS, lag=3.0)
    assert plan.events.record[at[:3]].tolist() == [0, 1, 2]
    assert (plan.events.kind[at[:3]] == RECORD).all()
    assert at[:3].tolist() == [0, 1, 3]


def test_legs_add_up_to_the_whole_time_and_none_goes_back():
    text = "TIME EVID AMT RATE CMT SS II ADDL DV\n1 1 100 50 2 1 3 2 .\n2 1 9 -2 1 0 0 0 .\n9 0 0 0 0 0 0 0 1"
    plan, legs, _ = plan_of(text, lag=4.2, F=0.8)
    assert (legs.duration >= 0).all()
    np.testing.assert_allclose(legs.duration.sum(), plan.events.time[-1] - 1.0, rtol=1e-14)
    np.testing.assert_allclose(legs.start + legs.duration, plan.events.time, rtol=1e-14)


# --- steady states ---

STEADY = "TIME EVID AMT RATE CMT SS II DV\n0 1 100 {0} 2 1 6 .\n20 0 0 0 0 0 0 1"


def test_infusions_of_a_steady_state_that_still_run_have_their_ends():
    assert story(STEADY.format(25)) == ["record@0/0 gives", "stop@4/0", "record@20/1"]
    assert story(STEADY.format(10)) == ["record@0/0 gives", "stop@4/0", "stop@10/0", "record@20/1"]


def test_an_infusion_as_long_as_the_interval_ends_where_the_next_one_begins():
    text = STEADY.format(100 / 6)
    assert story(text) == ["record@0/0 gives", "stop@6/0", "record@20/1"]


def test_a_lagged_steady_state_still_has_the_dose_before():
    lagged = story(STEADY.format(25), lag=5.0)  # the one before began at -1
    assert lagged == ["record@0/0", "stop@3/0", "dose@5/0", "stop@9/0", "record@20/1"]


def test_doses_on_their_way_arrive_where_a_lag_is_longer_than_the_interval():
    assert story(STEADY.format(0), lag=13.0) == [
        "record@0/0", "dose@1/0", "dose@7/0", "dose@13/0", "record@20/1",
    ]  # fmt: skip


def test_a_lag_as_long_as_the_interval_has_nothing_on_its_way():
    assert story(STEADY.format(0), lag=6.0) == ["record@0/0", "dose@6/0", "record@20/1"]


@pytest.mark.parametrize(
    ("lag", "every", "since", "waiting"),
    [(0, 6, 6, 0), (2, 6, 4, 0), (6, 6, 0, 0), (7, 6, 5, 1), (12, 6, 0, 1), (13, 6, 5, 2)],
)
def test_the_phase_of_a_lagged_steady_state(lag, every, since, waiting):
    found = phase(jnp.asarray([float(lag)]), jnp.asarray([float(every)]))
    assert [float(x[0]) for x in found] == [since, waiting]


def test_a_trial_without_infusions_or_steady_states_has_no_tails():
    assert tails(GIVEN, lagged=True, scaled=True) == 0
    assert tails(Design(steady=4), lagged=True, scaled=True) == 0
    assert tails(Design(steady=4, infusions=True, overlap=1), lagged=False, scaled=False) == 0
    assert tails(Design(steady=4, infusions=True), lagged=False, scaled=False) == 0
    assert tails(ANYTHING, lagged=False, scaled=False) == OVERLAPPING


# --- what has no meaning ---


def where(text, **given):
    plan = plan_of(text, **given)[0]
    return int(plan.refused), int(plan.crowded)


@pytest.mark.parametrize(
    ("rate", "given"),
    [
        (0, {"lag": -1e-9}), (0, {"lag": np.nan}), (0, {"F": -0.1}), (0, {"F": np.nan}),
        (-1, {"R": 0.0}), (-1, {"R": -5.0}), (-1, {"R": np.nan}), (-2, {"D": -1.0}), (-2, {"D": np.nan}),
    ],
)  # fmt: skip
def test_the_first_record_whose_dosing_parameter_has_no_meaning_is_named(rate, given):
    text = (
        f"TIME EVID AMT RATE CMT DV\n0 1 9 0 1 .\n1 1 9 {rate} 2 .\n2 1 9 {rate} 2 .\n6 0 0 0 2 1"
    )
    assert where(text, **given) == (1, -1)


def test_a_dosing_parameter_that_no_dose_uses_may_have_any_value():
    assert where(BOLUS, R=-1.0, D=np.nan) == (-1, -1)
    assert where("TIME EVID AMT CMT DV\n0 1 9 1 .\n6 0 0 2 1", lag=-1.0, F=-1.0) == (-1, -1)


def test_the_record_of_a_steady_state_with_more_on_its_way_than_there_is_room_for_is_named():
    assert where(STEADY.format(0), lag=6.0 * (PENDING + 1)) == (-1, -1)
    assert where(STEADY.format(0), lag=6.0 * (PENDING + 1) + 0.1) == (-1, 0)
    assert where(STEADY.format(-2), D=6.0 * OVERLAPPING) == (-1, -1)
    assert where(STEADY.format(-2), D=6.0 * (OVERLAPPING + 1) + 0.1) == (-1, 0)


def test_a_constant_infusion_at_steady_state_may_have_any_lag():
    text = "TIME EVID AMT RATE CMT SS II DV\n0 1 0 10 2 1 0 .\n20 0 0 0 0 0 0 1"
    assert where(text, lag=11.0) == (-1, -1)
    assert story(text, lag=11.0) == ["record@0/0 gives", "stop@11/0", "record@20/1"]
