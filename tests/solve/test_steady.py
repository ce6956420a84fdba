"""What are the amounts at steady state? Exactly, for a linear system."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popk.solve.schedule import Doses
from popk.solve.steady import steady_state
from popk.structural.compartments import ONE_COMPARTMENT_ORAL
from popk.structural.linear import exponential
from popk.trial import Design
from tests.histories import (
    ANYTHING,
    CENTRAL,
    NAMES,
    ROW,
    TWO,
    amounts_of,
    arrays,
    events_of,
    one_at_a_time,
    per_record,
    rates_of,
    run,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

k, V = 0.1, 20.0


@jax.jit
def settled(M, unit, source, dose, every, since):
    return steady_state(
        lambda t: exponential(M, t), M, unit, source, dose=dose, every=every, since=since
    )


def steady(M, amount=100.0, rate=0.0, every=6.0, since=None, source=None, into=0):
    """Return the amounts at steady state of a dose, `since` a time after the last one."""
    M = np.atleast_2d(np.asarray(M, dtype=float))
    length = amount / rate if rate else 0.0
    numbers = [jnp.asarray(float(x)) for x in (amount, rate, length, 0.0)]
    return np.asarray(settled(
        jnp.asarray(M), jnp.eye(len(M))[into], jnp.zeros(len(M)) if source is None else source,
        Doses(jnp.asarray(into), *numbers), jnp.asarray(float(every)),
        None if since is None else jnp.asarray(float(since)),
    ))  # fmt: skip


# --- by the textbook ---


def test_the_trough_of_boluses_is_a_geometric_series():
    left = np.exp(-k * 6)
    np.testing.assert_allclose(steady(-k), [100 * left / (1 - left)], rtol=1e-13)


@pytest.mark.parametrize("since", [0.0, 2.0, 6.0])
def test_boluses_at_steady_state_decay_after_the_last_one(since):
    peak = 100 / (1 - np.exp(-k * 6))
    np.testing.assert_allclose(steady(-k, since=since), [peak * np.exp(-k * since)], rtol=1e-13)


def infused(t, length, every, rate=25.0):
    """Return what infusions leave a time t after the last began: each by itself, many of them."""
    began = t + every * np.arange(3000)
    ran = np.minimum(began, length)
    return (rate / k * (1 - np.exp(-k * ran)) * np.exp(-k * (began - ran))).sum()


@pytest.mark.parametrize("every", [2.5, 4.0, 6.0])
@pytest.mark.parametrize("since", [0.0, 1.0, 2.0, 2.5])
def test_infusions_at_steady_state_are_the_sum_of_each_overlapping_or_not(every, since):
    np.testing.assert_allclose(
        steady(-k, rate=25.0, every=every, since=since), [infused(since, 4.0, every)], rtol=1e-12
    )


@pytest.mark.parametrize("every", [1.25, 2.0, 3.9, 4.0, 4.1, 9.0])
def test_the_trough_of_infusions_is_seen_just_before_the_next_one(every):
    # At a time `every` after the last: the infusion that begins now has left nothing yet.
    np.testing.assert_allclose(
        steady(-k, rate=25.0, every=every), [infused(every, 4.0, every)], rtol=1e-12
    )


def test_infusions_back_to_back_are_a_constant_one():
    np.testing.assert_allclose(steady(-k, rate=25.0, every=4.0), [250.0], rtol=1e-13)
    np.testing.assert_allclose(steady(-k, amount=0.0, rate=25.0, every=0.0), [250.0], rtol=1e-14)


def test_what_always_flows_in_is_there_too():
    source = jnp.asarray([3.0])
    np.testing.assert_allclose(steady(-k, source=source), steady(-k) + 30.0, rtol=1e-13)
    both = steady(-k, rate=25.0, since=1.0, source=source)
    np.testing.assert_allclose(both, steady(-k, rate=25.0, since=1.0) + 30.0, rtol=1e-13)
    constant = steady(-k, amount=0.0, rate=25.0, every=0.0, source=source)
    np.testing.assert_allclose(constant, [280.0], rtol=1e-14)


@pytest.mark.parametrize("since", [None, 2.0])
@pytest.mark.parametrize("dose", [{}, {"rate": 25.0}, {"amount": 0.0, "rate": 25.0, "every": 0.0}])
def test_compartments_that_only_collect_are_empty_and_change_nothing(dose, since):
    alone = steady([[-0.8, 0], [0.8, -k]], **dose, since=since)
    urine = steady([[-0.8, 0, 0], [0.8, -k, 0], [0, 0.06, 0]], **dose, since=since)
    np.testing.assert_allclose(urine, [*alone, 0], rtol=1e-13)


def test_the_derivative_in_a_parameter_is_that_of_the_series():
    def trough(k):
        M, one = -k[None, None], jnp.asarray
        dose = Doses(one(0), one(100.0), one(0.0), one(0.0), one(0.0))
        return steady_state(
            lambda t: exponential(M, t),
            M,
            jnp.ones(1),
            jnp.zeros(1),
            dose=dose,
            every=one(6.0),
            since=None,
        )[0]

    left = np.exp(-k * 6)
    slope = jax.jit(jax.grad(trough))(jnp.asarray(k))
    assert float(slope) == pytest.approx(-6 * 100 * left / (1 - left) ** 2, rel=1e-12)


# --- in a history: as many doses before ---

DOSING = {
    what: {name: per_record(values[i]) for i, name in enumerate(NAMES)}
    for what, values in {
        "F": (0.7, 1.3, 1.0), "lag": (0.0, 0.0, 0.0), "R": (12.0, 30.0, 20.0), "D": (1.5, 0.4, 3.0),
        "initial": (3.0, 5.0, 7.0),
    }.items()
}  # fmt: skip
VARYING = {name: per_record(value) for name, value in TWO.items()}  # the program of test_identities
DOSE = {**ROW, "EVID": 1, "AMT": 100.0, "CMT": 2, "SS": 1, "II": 6.0}
LEVELS = [{**ROW, "TIME": t} for t in (0.5, 2.0, 5.0, 6.0, 13.0, 30.0)]


def answer(records, **dosing):
    return run(records, VARYING, design=ANYTHING, **DOSING | dosing)


def expected(records, **dosing):
    told = {what: dict(enumerate(v.values())) for what, v in (DOSING | dosing).items()}
    return one_at_a_time(records, lambda record: rates_of(TWO), told, cycles=400)


def same(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-10)


def lags(*values):
    return {"lag": {name: per_record(value) for name, value in zip(NAMES, values, strict=True)}}


@pytest.mark.parametrize("rate", [0.0, 40.0, 10.0, -1.0, -2.0])
@pytest.mark.parametrize("lag", [0.0, 2.0, 6.0, 8.5, 12.0, 15.0])
def test_ss_1_equals_many_doses_before_even_with_a_lag_or_an_infusion_longer_than_ii(rate, lag):
    # An infusion of 130 at a rate of 10 lasts for 13: it overlaps with the two before it.
    records = [{**DOSE, "RATE": rate, "ADDL": 2}, *LEVELS]
    dosing = lags(0.0, lag, 0.0) | {"D": {name: per_record(9.0) for name in NAMES}}
    same(answer(records, **dosing), expected(records, **dosing))


@given(lag=st.just(0.0) | st.floats(1e-3, 17.9), length=st.floats(0, 23.9), ss=st.integers(1, 2))
def test_any_lag_and_any_length_there_is_room_for_equal_many_doses_before(lag, length, ss):
    records = [{**DOSE, "RATE": -2.0, "SS": ss}, *LEVELS]
    dosing = lags(0.0, lag, 0.0) | {"D": {name: per_record(length) for name in NAMES}}
    same(answer(records, **dosing), expected(records, **dosing), 1e-8)


def test_the_steady_state_that_a_record_sees_is_the_peak_and_one_before_it_sees_the_old_state():
    out = answer([{**ROW}, {**DOSE}, {**ROW}])[:, CENTRAL]
    assert out[0] == 5.0, "the initial amount"
    assert out[1] == out[2] > 130
    np.testing.assert_allclose(out[1], expected([DOSE])[0, CENTRAL], rtol=1e-9)


def test_a_dose_at_the_same_time_before_ss_1_is_wiped_and_one_after_it_superposes():
    other = {**DOSE, "SS": 0, "II": 0.0}
    alone, before, after = (
        answer([*rows, {**ROW, "TIME": 2.0}])[-1] for rows in ([DOSE], [other, DOSE], [DOSE, other])
    )
    np.testing.assert_array_equal(before, alone)
    added = answer([other, {**ROW, "TIME": 2.0}], initial={n: per_record(0.0) for n in NAMES})[-1]
    np.testing.assert_allclose(after, alone + added, rtol=1e-12)


def test_ss_1_forgets_infusions_pending_lags_and_further_doses_and_initial_amounts():
    text = [
        {**DOSE, "SS": 0, "ADDL": 9, "TIME": -3.0},
        {**DOSE, "SS": 0, "II": 0.0, "RATE": 1.0, "TIME": -2.0, "CMT": 1},
        {**DOSE},
    ]
    dosing = lags(0.0, 4.0, 0.0)
    out = answer([*text, *LEVELS], **dosing)[3:]
    np.testing.assert_allclose(out, answer([DOSE, *LEVELS], **dosing)[1:], rtol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 10.0])
def test_ss_2_is_added_to_what_is_there(rate):
    before = {**DOSE, "SS": 0, "II": 0.0, "TIME": -3.0, "CMT": 1}
    added = {**DOSE, "SS": 2, "RATE": rate}
    together = answer([before, added, *LEVELS])[2:]
    alone = answer([{**added, "SS": 1}, *LEVELS])[1:]
    apart = answer([before, {**ROW}, *LEVELS])[2:] + alone
    np.testing.assert_allclose(together, apart, rtol=1e-12)


def test_evid_4_at_steady_state_leads_to_the_steady_state_not_to_initial_amounts():
    reset = [{**ROW, "EVID": 3}, DOSE, *LEVELS]
    both = [{**DOSE, "EVID": 4}, *LEVELS]
    np.testing.assert_array_equal(answer(both), answer(reset)[1:])
    same(answer(both), expected(both))


def test_evid_4_with_ss_2_adds_the_steady_state_to_initial_amounts():
    both = [{**DOSE, "EVID": 4, "SS": 2}, *LEVELS]
    same(answer(both), expected(both))


@pytest.mark.parametrize("rate", [25.0, -1.0])
@pytest.mark.parametrize("lag", [0.0, 3.0, 20.0])
def test_a_constant_infusion_at_steady_state_then_stops(rate, lag):
    records = [{**DOSE, "AMT": 0.0, "II": 0.0, "RATE": rate}, *LEVELS]
    dosing = lags(0.0, lag, 0.0)
    found = answer(records, **dosing)
    same(found, expected(records, **dosing))
    flow = 25.0 if rate > 0 else 30.0
    assert found[0, CENTRAL] == pytest.approx(flow / (TWO["CL"] / TWO["V1"]), rel=1e-12)


def test_a_steady_state_takes_the_parameters_of_its_own_record():
    p = {**VARYING, "CL": per_record(99.0, 2.0, 4.0)}
    records = [{**ROW, "TIME": -1.0}, DOSE, *LEVELS]
    out = run(records, p, design=ANYTHING, **DOSING)
    np.testing.assert_allclose(out[1], answer([DOSE])[0], rtol=1e-13)


def test_a_subject_without_steady_states_in_a_trial_with_them_has_no_nan():
    assert np.isfinite(answer([{**DOSE, "SS": 0, "II": 0.0}, {**ROW, "TIME": 0.3}])).all()


@jax.jit
@jax.value_and_grad
def total_by_squaring(p, events):
    design = Design(infusions=True, resets=True, steady=1)
    return amounts_of("squaring", ONE_COMPARTMENT_ORAL, p, events, design, {})[:2].sum()


@pytest.mark.parametrize("dose", [{"AMT": 0.0, "RATE": 25.0}, {"SS": 0}])
def test_gradients_are_finite_where_the_whole_trial_is_shorter_than_one_unit_of_time(dose):
    # Where nothing is given every so often, any interval will do: it must be one the ladder reaches.
    events = events_of([{**DOSE, "II": 0.0, **dose}, {**ROW, "TIME": 0.01}])
    value, slope = total_by_squaring(arrays({"CL": 2.0, "V": 20.0, "KA": 40.0}), events)
    assert np.isfinite(float(value))
    assert all(np.isfinite(x).all() for x in slope.values())
