"""What are the amounts at each record? The one event loop, for one subject."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.solve import Dosing, solve
from popk.structural.compartments import ONE_COMPARTMENT_ORAL
from tests.histories import (
    CENTRAL,
    DEPOT,
    GIVEN,
    N_RECORDS,
    NEUTRAL,
    ONE,
    PERIPHERAL,
    ROW,
    TURNED_OFF,
    TWO,
    amounts_of,
    arrays,
    events_of,
    per_record,
    run,
    traces,
)
from tests.trials import table

pytestmark = pytest.mark.usefixtures("strict_promotion")


# --- what a record means, by the textbook ---


def test_nothing_is_there_before_the_first_dose():
    out = run("TIME EVID AMT DV\n0 0 0 1\n1 0 0 1\n2 1 100 .")
    np.testing.assert_array_equal(out[:2], 0)
    np.testing.assert_array_equal(out[2], [100, 0, 0])


def test_a_bolus_into_the_central_compartment_decays():
    out = run("TIME EVID AMT CMT DV\n1 1 100 2 .\n1 0 0 2 1\n6 0 0 2 1", ONE)
    np.testing.assert_allclose(out[:, CENTRAL], [100, 100, 100 * np.exp(-0.1 * 5)], rtol=1e-14)
    np.testing.assert_array_equal(out[:, DEPOT], 0)


def test_an_oral_dose_is_bateman_s_function():
    out = run("TIME EVID AMT DV\n0 1 100 .\n3 0 0 1", ONE)
    k, KA, t = 0.1, 0.8, 3.0
    expected = 100 * KA / (KA - k) * (np.exp(-k * t) - np.exp(-KA * t))
    np.testing.assert_allclose(out[1], [100 * np.exp(-KA * t), expected], rtol=1e-14)


def test_an_infusion_rises_to_its_end_and_decays_after_it():
    out = run("TIME EVID AMT RATE CMT DV\n0 1 100 25 2 .\n3 0 0 0 2 1\n10 0 0 0 2 1", ONE)
    k, rate = 0.1, 25
    rising = rate / k * (1 - np.exp(-k * 3))
    falling = rate / k * (1 - np.exp(-k * 4)) * np.exp(-k * 6)
    np.testing.assert_allclose(out[:, CENTRAL], [0, rising, falling], rtol=1e-13)


def test_cmt_0_is_the_structure_s_own_compartment_and_others_are_numbered_from_1():
    for cmt, compartment in ((0, DEPOT), (1, DEPOT), (2, CENTRAL), (3, PERIPHERAL)):
        out = run(f"TIME EVID AMT CMT DV\n0 1 100 {cmt} .")
        np.testing.assert_array_equal(out[0], 100 * np.eye(3)[compartment])


def test_a_record_before_a_dose_at_its_time_sees_the_trough_and_one_after_it_the_peak():
    out = run("TIME EVID AMT CMT DV\n0 1 100 2 .\n5 0 0 2 1\n5 1 100 2 .\n5 0 0 2 1", ONE)
    trough = 100 * np.exp(-0.5)
    np.testing.assert_allclose(out[1:, CENTRAL], [trough, trough + 100, trough + 100], rtol=1e-14)


def test_a_further_dose_acts_before_a_record_of_its_time():
    out = run("TIME EVID AMT CMT ADDL II DV\n0 1 100 2 1 5 .\n5 0 0 2 0 0 1", ONE)
    np.testing.assert_allclose(out[1, CENTRAL], 100 * np.exp(-0.5) + 100, rtol=1e-14)


def test_a_reset_empties_all_compartments_and_stops_infusions_and_further_doses():
    text = (
        "TIME EVID AMT RATE CMT ADDL II DV\n0 1 100 5 2 9 4 .\n0 1 100 0 1 9 4 .\n"
        "9 3 0 0 0 0 0 .\n30 0 0 0 0 0 0 1"
    )
    out = run(text)
    np.testing.assert_array_equal(out[2:], 0)
    np.testing.assert_array_equal(run(text, lag={"central": 0.5})[2:], 0)


def test_a_reset_cancels_a_lagged_dose_that_is_pending():
    text = "TIME EVID AMT CMT DV\n0 1 100 2 .\n{0} 3 0 0 .\n8 0 0 0 1"
    np.testing.assert_array_equal(run(text.format(4), lag={"central": 5.0})[2], 0)
    np.testing.assert_array_equal(run(text.format(6), lag={"central": 5.0})[2], 0)


def test_a_dose_given_at_a_reset_with_a_lag_comes_after_it():
    out = run("TIME EVID AMT CMT DV\n0 1 100 2 .\n4 4 50 2 .\n8 0 0 0 1", ONE, lag={"central": 3.0})
    np.testing.assert_allclose(out[:, CENTRAL], [0, 0, 50 * np.exp(-0.1)], rtol=1e-14)


def test_a_lag_shifts_a_dose_and_all_its_further_doses():
    text = (
        "TIME EVID AMT CMT ADDL II DV\n0 1 100 2 1 6 .\n1.9 0 0 0 0 0 1\n3 0 0 0 0 0 1\n"
        "7.9 0 0 0 0 0 1\n9 0 0 0 0 0 1"
    )
    out = run(text, ONE, lag={"central": 2.0})[:, CENTRAL]
    left = 100 * np.exp(-0.1 * np.array([1.0, 5.9, 7.0]))
    np.testing.assert_allclose(out, [0, 0, left[0], left[1], left[2] + left[0]], rtol=1e-13)


def test_a_lagged_dose_acts_before_a_record_at_the_time_of_its_arrival():
    out = run("TIME EVID AMT CMT DV\n0 1 100 2 .\n2 0 0 0 1", ONE, lag={"central": 2.0})
    np.testing.assert_allclose(out[1, CENTRAL], 100, rtol=1e-15)


def test_a_lag_of_another_compartment_does_not_delay():
    out = run("TIME EVID AMT CMT DV\n0 1 100 2 .", ONE, lag={"depot": 2.0})
    np.testing.assert_array_equal(out[0], [0, 100])


def test_bioavailability_scales_a_bolus_and_lengthens_an_infusion():
    bolus = run("TIME EVID AMT CMT DV\n0 1 100 2 .", ONE, F={"central": 0.4})
    np.testing.assert_allclose(bolus[0, CENTRAL], 40, rtol=1e-15)
    infusion = "TIME EVID AMT RATE CMT DV\n0 1 100 25 2 .\n1.5 0 0 0 0 1\n2 0 0 0 0 1\n5 0 0 0 0 1"
    out = run(infusion, ONE, F={"central": 0.5})[:, CENTRAL]  # 2 h instead of 4
    k = 0.1
    peak = 250 * (1 - np.exp(-2 * k))
    np.testing.assert_allclose(
        out, [0, 250 * (1 - np.exp(-1.5 * k)), peak, peak * np.exp(-3 * k)], rtol=1e-13
    )


def test_a_dose_that_is_not_available_gives_nothing_even_where_a_reset_stands():
    text = "TIME EVID AMT RATE CMT DV\n2 {0} 100 25 2 .\n3 0 0 0 0 1\n9 0 0 0 0 1"
    for evid in (1, 4):
        np.testing.assert_array_equal(run(text.format(evid), ONE, F={"central": 0.0}), 0)


def test_a_dose_takes_the_lag_and_bioavailability_of_the_record_that_brought_it():
    text = "TIME EVID AMT CMT ADDL II DV\n0 1 100 2 1 6 .\n3 2 0 0 0 0 .\n6.5 0 0 0 0 0 1\n8 0 0 0 0 0 1"
    out = run(text, ONE, F={"central": per_record(1.0, 0.1)}, lag={"central": per_record(1.0, 0.2)})
    left = 100 * np.exp(-0.1 * np.array([2.0, 5.5, 7.0, 1.0]))
    np.testing.assert_allclose(out[1:, CENTRAL], [left[0], left[1], left[2] + left[3]], rtol=1e-13)


def test_parameters_hold_over_the_interval_that_ends_at_their_record():
    text = "TIME EVID AMT CMT DV\n0 1 100 2 .\n2 0 0 0 1\n5 0 0 0 1"
    out = run(text, {**ONE, "CL": per_record(99, 2, 4)})
    after = np.exp(-0.1 * 2)
    np.testing.assert_allclose(
        out[1:, CENTRAL], [100 * after, 100 * after * np.exp(-0.2 * 3)], rtol=1e-13
    )


def test_a_lagged_dose_arrives_in_the_interval_of_the_next_record():
    text = "TIME EVID AMT CMT DV\n0 1 100 2 .\n2 0 0 0 1\n5 0 0 0 1"
    out = run(text, {**ONE, "CL": per_record(99, 2, 4)}, lag={"central": 3.0})
    np.testing.assert_allclose(out[2, CENTRAL], 100 * np.exp(-0.2 * 2), rtol=1e-13)


# --- compartments that are turned off ---


def test_an_infusion_into_a_compartment_that_is_off_runs_on_and_reaches_nothing():
    text = (
        "TIME EVID AMT RATE CMT DV\n0 1 100 10 2 .\n3 2 0 0 -2 .\n5 0 0 0 0 1\n6 2 0 0 2 .\n"
        "9 0 0 0 0 1\n14 0 0 0 0 1"
    )
    k, start = 0.1, 100 * (1 - np.exp(-0.3))
    back = 100 * (1 - np.exp(-k * 3))  # on again from 6 on, and the infusion ends at 10
    last = 100 * (1 - np.exp(-k * 4)) * np.exp(-k * 4)
    out = run(text, ONE, tier="squaring", design=TURNED_OFF, **NEUTRAL)[:, CENTRAL]
    np.testing.assert_allclose(out, [0, start, 0, 0, back, last], rtol=1e-12)


def test_a_compartment_that_is_off_takes_in_nothing_and_loses_what_flows_to_it():
    text = "TIME EVID AMT CMT DV\n0 1 100 1 .\n1 2 0 -2 .\n3 0 0 0 1\n3 2 0 2 .\n5 0 0 0 1"
    left, KA, k = 100 * np.exp(-0.8 * np.array([1, 3, 5])), 0.8, 0.1
    again = left[1] * KA / (KA - k) * (np.exp(-k * 2) - np.exp(-KA * 2))
    out = run(text, ONE, tier="squaring", design=TURNED_OFF, **NEUTRAL)
    np.testing.assert_allclose(out[:, DEPOT], [100, left[0], left[1], left[1], left[2]], rtol=1e-9)
    assert out[1, CENTRAL] > 0, "the record that turns it off sees what was there"
    np.testing.assert_allclose(out[2:, CENTRAL], [0, 0, again], rtol=1e-9, atol=1e-12)


def test_a_dose_and_a_reset_turn_a_compartment_on():
    text = "TIME EVID AMT CMT DV\n0 2 0 -2 .\n1 {0} {1} 2 .\n1 1 50 2 .\n2 0 0 0 1"
    for evid, amount in ((1, 50), (4, 50), (3, 0)):
        out = run(text.format(evid, amount), ONE, tier="squaring", design=TURNED_OFF, **NEUTRAL)
        assert out[-1, CENTRAL] == pytest.approx((50 + amount) * np.exp(-0.1), rel=1e-12)


def test_a_steady_state_in_a_compartment_that_is_off_is_that_of_one_that_is_on():
    text = "TIME EVID AMT CMT SS II DV\n0 2 0 -2 0 0 .\n1 1 50 2 1 6 .\n3 0 0 0 0 0 1"
    peak = 50 / (1 - np.exp(-0.6))
    out = run(text, ONE, tier="squaring", design=TURNED_OFF, **NEUTRAL)[:, CENTRAL]
    np.testing.assert_allclose(out, [0, peak, peak * np.exp(-0.2)], rtol=1e-12)


def test_a_reset_turns_all_compartments_on_before_the_steady_state_of_its_own_record():
    text = "TIME EVID AMT CMT SS II DV\n{0}1 4 50 1 1 6 .\n3 0 0 0 0 0 1"
    off, on = (
        run(text.format(first), ONE, tier="squaring", design=TURNED_OFF, **NEUTRAL)[-2:]
        for first in ("0 2 0 -2 0 0 .\n", "")
    )
    assert on[0, CENTRAL] > 10
    np.testing.assert_allclose(off, on, rtol=1e-13)


# --- other clocks, and areas ---


def test_a_clock_that_restarts_is_one_that_goes_on():
    text = "TIME EVID AMT CMT ADDL II DV\n0 1 100 2 5 4 .\n9 0 0 0 0 0 1\n{0} 4 50 1 1 3 .\n{1} 0 0 0 0 0 1"
    for dosing in ({}, {"lag": {"depot": 0.6, "central": 2.1}}):
        found, expected = (run(text.format(*t), **dosing) for t in ((0, 5), (9, 14)))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cmt", [1, 2])
@pytest.mark.parametrize("infused", [0, 25])
@pytest.mark.parametrize("F", [1.0, 0.6])
def test_the_area_under_the_curve_is_the_available_dose_over_clearance(cmt, infused, F):
    # Piecewise Gauss-Legendre quadrature, exact here: the curve is smooth between its events.
    CL, V1 = TWO["CL"], TWO["V1"]
    end = F * 100 / infused if infused else 0.0
    edges = np.unique([0.0, end, *(end + np.array([1, 3, 8, 20, 50, 120, 300, 700]))])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    area = 0.0
    for a, b in itertools.pairwise(edges):
        times = (a + b) / 2 + (b - a) / 2 * nodes
        rows = [{**ROW, "EVID": 1, "AMT": 100.0, "RATE": infused, "CMT": cmt}]
        rows += [{**ROW, "TIME": t} for t in times]
        central = run(rows, TWO, F={"depot": F, "central": F})[1:, CENTRAL]
        area += (b - a) / 2 * (weights * central / V1).sum()
    assert area == pytest.approx(F * 100 / CL, rel=1e-6)


# --- gradients: see also test_gradients ---


def test_the_derivative_of_a_lagged_bolus_in_its_lag_is_that_of_the_curve_in_time():
    events = events_of(table("TIME EVID AMT CMT DV\n0 1 100 2 .\n6 0 0 0 1"))

    def level(lag):
        p = arrays(ONE)
        dosing = {"lag": {"central": lag[None]}}
        out = amounts_of("closed form", ONE_COMPARTMENT_ORAL, p, events, GIVEN, dosing)
        return out[1, CENTRAL]

    slope = jax.jit(jax.grad(level))(jnp.asarray(2.0))
    assert float(slope) == pytest.approx(0.1 * 100 * np.exp(-0.1 * 4), rel=1e-12)


# --- many subjects, and compilation ---


def test_subjects_solved_together_are_each_as_they_are_alone():
    texts = ["0 1 100 2 .\n1 0 0 0 1\n6 0 0 0 1", "0 1 50 1 .\n2 4 30 2 .\n9 0 0 0 1"]
    each = [events_of(table(f"TIME EVID AMT CMT DV\n{text}")) for text in texts]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
    p = {name: jnp.asarray([[value], [1.5 * value]]) for name, value in ONE.items()}
    together, plans = jax.jit(
        lambda p, events: solve(ONE_COMPARTMENT_ORAL, p, events, N_RECORDS, GIVEN, Dosing())
    )(p, stacked)
    assert plans.refused.tolist() == [-1, -1]
    for i, text in enumerate(texts):
        own = {name: float(value[i, 0]) for name, value in p.items()}
        alone = run(f"TIME EVID AMT CMT DV\n{text}", own)
        np.testing.assert_allclose(together[i, : len(alone)], alone, rtol=1e-14)


def test_events_of_one_subject_alone_are_those_of_all():
    events = jax.tree.map(
        lambda x: x[None], events_of(table("TIME EVID AMT CMT DV\n0 1 9 2 .\n5 0 0 0 1"))
    )
    p = arrays(ONE) | {"CL": jnp.asarray([1.0, 2.0, 4.0])}
    p = {name: jnp.broadcast_to(value, (3,))[:, None] for name, value in p.items()}
    found = jax.jit(lambda p: solve(ONE_COMPARTMENT_ORAL, p, events, N_RECORDS, GIVEN)[0])(p)
    np.testing.assert_allclose(found[:, 1, CENTRAL], 9 * np.exp([-0.25, -0.5, -1.0]), rtol=1e-13)


def test_a_second_call_of_the_same_shapes_compiles_nothing_anew():
    texts = [
        "TIME EVID AMT RATE CMT DV\n0 1 100 0 2 .\n0 0 0 0 0 1\n1 0 0 0 0 1",
        "TIME EVID AMT RATE CMT DV\n0 1 100 25 2 .\n9 0 0 0 0 1",
        "TIME EVID AMT RATE CMT DV\n0 1 100 25 1 .\n3 3 0 0 0 .\n4 1 80 0 1 .\n9 0 0 0 0 1",
    ]
    run(texts[0], TWO, F={"depot": 0.5})
    before = len(traces)
    run(texts[1], {**TWO, "CL": 5}, F={"depot": 0.2})
    run(texts[2], {**TWO, "KA": 0.3}, F={"depot": 1})
    assert len(traces) == before
