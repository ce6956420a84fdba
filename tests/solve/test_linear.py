"""What are the amounts at each record? The one event loop, for one subject."""

import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popk.records.events import PADDING, EventTable, event_table
from popk.records.nonmem import check_records
from popk.solve import solve
from popk.structural.compartments import ONE_COMPARTMENT_ORAL, TWO_COMPARTMENT_ORAL
from popk.trial import Design
from tests.trials import table

pytestmark = pytest.mark.usefixtures("strict_promotion")

N_RECORDS, N_EVENTS = (
    16,
    48,
)  # one shape for every history below, so that each program compiles once
EVERYTHING = Design(infusions=True, resets=True, concentrations=True, dosed=(), observed=())
ONE = {"CL": 2.0, "V": 20.0, "KA": 0.8}
TWO = {"CL": 2.0, "V1": 20.0, "Q": 3.0, "V2": 30.0, "KA": 0.8}
DEPOT, CENTRAL, PERIPHERAL = range(3)

traces = []  # one entry for each time that a program is traced to be compiled


@functools.cache
def program(structure, keys):
    """Return the compiled loop of a structure, with those of F and lag that are given."""

    def amounts(parameters, events, dosing):
        traces.append(structure.compartments)
        return solve(structure, parameters, events, N_RECORDS, EVERYTHING, **dosing)

    return jax.jit(amounts)


def events_of(frame: pd.DataFrame) -> EventTable:
    """Return the events of one subject's records, padded to one length."""
    flat = check_records(frame, "test").frame
    n = len(flat)
    assert n <= N_RECORDS
    found = event_table(flat, np.zeros(n, dtype=int), np.arange(n))
    missing = N_EVENTS - found.time.shape[1]
    assert missing >= 0
    blank = {"kind": PADDING, "position": np.inf, "time": found.time[0, -1]}
    return EventTable(**{
        name: jnp.asarray(np.append(values[0], np.full(missing, blank.get(name, 0), values.dtype)))
        for name, values in found._asdict().items()
    })  # fmt: skip


def run(records, parameters=TWO, **dosing):
    """Return the amounts [record, compartment] of one subject whose first subject ID is 1."""
    frame = table(records) if isinstance(records, str) else pd.DataFrame(records)
    frame = frame.assign(ID="1")
    structure = ONE_COMPARTMENT_ORAL if "V" in parameters else TWO_COMPARTMENT_ORAL
    lengths = {k: jnp.atleast_1d(jnp.asarray(v, dtype=float)) for k, v in parameters.items()}
    given = {
        what: {k: jnp.atleast_1d(jnp.asarray(v, dtype=float)) for k, v in values.items()}
        for what, values in dosing.items()
    }
    out = program(structure, tuple(sorted(given)))(lengths, events_of(frame), given)
    return np.asarray(out)[: len(frame)]


def per_record(*values):
    """Return values at each record, padded with the last."""
    return np.pad(np.asarray(values, dtype=float), (0, N_RECORDS - len(values)), mode="edge")


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


# --- invariants: histories of up to six records, one compiled program for all ---

amount = st.floats(1, 100)
interval = st.floats(0.5, 12)


@st.composite
def histories(draw, resets=True, further=True):
    """Return records with doses into any compartment, infusions, further doses, levels, resets."""
    time, rows = draw(st.floats(-5, 5)), []
    for _ in range(draw(st.integers(2, 6))):
        kind = draw(st.sampled_from(["bolus", "infusion", "level"] + ["reset", "again"] * resets))
        row = {
            "TIME": time,
            "EVID": 0,
            "AMT": 0.0,
            "RATE": 0.0,
            "CMT": 0,
            "ADDL": 0,
            "II": 0.0,
            "MDV": 1,
        }
        if kind in ("bolus", "infusion", "again"):
            row |= {
                "EVID": 4 if kind == "again" else 1,
                "AMT": draw(amount),
                "CMT": draw(st.integers(1, 3)),
            }
            if further and draw(st.booleans()):
                row |= {"ADDL": draw(st.integers(1, 3)), "II": draw(interval)}
        if kind == "infusion":
            row["RATE"] = row["AMT"] / draw(interval)
        if kind == "reset":
            row["EVID"] = 3
        rows.append(row)
        time += draw(st.just(0.0) | interval)
    # An observation at the end sees all that is left.
    rows.append({**dict.fromkeys(rows[0], 0), "TIME": time + 3.0, "MDV": 1})
    return [{**row, "DV": np.nan} for row in rows]


rate = st.floats(0.1, 10)
parameters = st.fixed_dictionaries({"CL": rate, "V1": rate, "Q": rate, "V2": rate, "KA": rate})
available = st.fixed_dictionaries({"depot": st.floats(0.1, 2), "central": st.floats(0.1, 2)})
delays = st.fixed_dictionaries({"depot": st.floats(0, 5), "central": st.floats(0, 5)})
plain = pytest.mark.parametrize("delayed", [False, True], ids=["plain", "with F and lag"])
DELAY = {"F": {"depot": 0.7, "central": 1.3}, "lag": {"depot": 0.6, "central": 2.1}}


def same(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9)


@plain
@given(history=histories(), p=parameters)
def test_further_doses_equal_the_doses_written_out(delayed, history, p):
    dosing = DELAY if delayed else {}
    written = []
    for i, row in enumerate(history):
        written.append((row["TIME"], i, {**row, "ADDL": 0, "II": 0.0}))
        ends = [r["TIME"] for r in history[i + 1 :] if r["EVID"] in (3, 4)]
        for n in range(1, row["ADDL"] + 1):
            time = row["TIME"] + n * row["II"]
            if time <= min([*ends, history[-1]["TIME"]]):
                copy = {**row, "TIME": time, "EVID": 1, "ADDL": 0, "II": 0.0}
                written.append((time, -1, copy))  # before every record of its time
    hypothesis.assume(len(written) <= N_RECORDS)
    written.sort(key=lambda item: item[:2])
    of_records = [at for at, (_, i, _) in enumerate(written) if i >= 0]
    out = run([row for _, _, row in written], p, **dosing)
    same(out[of_records], run(history, p, **dosing))


@plain
@given(history=histories(), p=parameters)
def test_a_reset_and_dose_is_a_reset_then_a_dose(delayed, history, p):
    dosing = DELAY if delayed else {}
    split, kept = [], []
    for row in history:
        if row["EVID"] == 4:
            split.append(
                {**row, "EVID": 3, "AMT": 0.0, "CMT": 0, "ADDL": 0, "II": 0.0, "RATE": 0.0}
            )
            row = {**row, "EVID": 1}
        kept.append(len(split))
        split.append(row)
    same(run(split, p, **dosing)[kept], run(history, p, **dosing))


@plain
@given(history=histories(), p=parameters, at=st.integers(0, 5), fraction=st.floats(0.05, 0.95))
def test_a_record_split_by_an_other_event_changes_nothing(delayed, history, p, at, fraction):
    dosing = DELAY if delayed else {}
    i = min(at, len(history) - 2)
    begin, end = history[i]["TIME"], history[i + 1]["TIME"]
    other = {**dict.fromkeys(history[0], 0), "TIME": begin + fraction * (end - begin), "EVID": 2,
             "MDV": 1, "DV": np.nan}  # fmt: skip
    split = [*history[: i + 1], other, *history[i + 1 :]]
    out = np.delete(run(split, p, **dosing), i + 1, axis=0)
    same(out, run(history, p, **dosing))


@plain
@given(history=histories(), p=parameters, shift=st.floats(-100, 1000))
def test_shifting_all_times_shifts_nothing(delayed, history, p, shift):
    dosing = DELAY if delayed else {}
    # Times that would merge or part in rounding are no shift of the same history.
    times = np.array([row["TIME"] for row in history])
    hypothesis.assume(np.array_equal(np.diff(times) == 0, np.diff(times + shift) == 0))
    shifted = [{**row, "TIME": row["TIME"] + shift} for row in history]
    same(run(shifted, p, **dosing), run(history, p, **dosing), rtol=1e-7)


@plain
@given(history=histories(), p=parameters, factor=st.floats(0.01, 100))
def test_scaling_all_amounts_scales_what_is_there(delayed, history, p, factor):
    dosing = DELAY if delayed else {}
    scaled = [{**row, "AMT": row["AMT"] * factor, "RATE": row["RATE"] * factor} for row in history]
    same(run(scaled, p, **dosing), factor * run(history, p, **dosing))


@plain
@given(
    history=histories(resets=False),
    p=parameters,
    which=st.lists(st.booleans(), min_size=7, max_size=7),
)
def test_doses_superpose(delayed, history, p, which):
    dosing = DELAY if delayed else {}

    def only(chosen):
        return [row if row["EVID"] == 0 or mine == chosen else
                {**row, "EVID": 2, "AMT": 0.0, "RATE": 0.0, "CMT": 0, "ADDL": 0, "II": 0.0}
                for row, mine in zip(history, which, strict=False)]  # fmt: skip

    apart = run(only(True), p, **dosing) + run(only(False), p, **dosing)
    same(run(history, p, **dosing), apart)


@plain
@given(p=parameters, length=interval, fraction=st.floats(0.1, 0.9), cmt=st.integers(1, 2))
def test_two_infusions_back_to_back_equal_one(delayed, p, length, fraction, cmt):
    # A bioavailability shortens each of the two, so that they no longer touch: lag alone here.
    dosing = {"F": dict.fromkeys(DELAY["lag"], 1.0), "lag": DELAY["lag"]} if delayed else {}
    level = {"EVID": 0, "AMT": 0.0, "RATE": 0.0, "CMT": 0, "MDV": 1, "DV": np.nan}
    dose = {**level, "EVID": 1, "CMT": cmt}
    levels = [{**level, "TIME": length + after} for after in (3.0, 9.0)]
    one = {**dose, "TIME": 0.0, "AMT": 60.0, "RATE": 60 / length}
    two = [
        {**one, "AMT": 60.0 * fraction},
        {**one, "AMT": 60 * (1 - fraction), "TIME": fraction * length},
    ]
    same(run([*two, *levels], p, **dosing)[2:], run([one, *levels], p, **dosing)[1:])


@given(p=parameters, cmt=st.integers(1, 3))
def test_a_short_infusion_nears_a_bolus(p, cmt):
    text = f"TIME EVID AMT RATE CMT DV\n0 1 100 {{0}} {cmt} .\n2 0 0 0 0 1\n20 0 0 0 0 1"
    bolus = run(text.format(0), p)[1:]
    gaps = [np.abs(run(text.format(100 / length), p)[1:] - bolus).max() for length in (1e-3, 1e-5)]
    fastest = max(p["KA"], (p["CL"] + p["Q"]) / p["V1"], p["Q"] / p["V2"])
    assert gaps[0] <= 100 * fastest * 1e-3
    assert gaps[1] <= 100 * fastest * 1e-5


@given(history=histories(), p=parameters, F=available, lag=delays)
def test_amounts_are_never_negative_and_never_more_than_was_given(history, p, F, lag):
    out = run(history, p, F=F, lag=lag)
    given_in_all = sum(2 * row["AMT"] * (row["ADDL"] + 1) for row in history)
    assert (out >= -1e-9).all()
    assert (out.sum(axis=1) <= given_in_all + 1e-9).all()


@given(history=histories(), p=parameters)
def test_a_lag_of_0_and_a_bioavailability_of_1_change_nothing(history, p):
    neutral = {"F": {"depot": 1.0, "central": 1.0}, "lag": {"depot": 0.0, "central": 0.0}}
    same(run(history, p, **neutral), run(history, p), rtol=1e-13)


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
        rows = [
            {
                "TIME": 0.0,
                "EVID": 1,
                "AMT": 100.0,
                "RATE": infused,
                "CMT": cmt,
                "DV": np.nan,
                "MDV": 1,
            }
        ]
        rows += [
            {**rows[0], "TIME": t, "EVID": 0, "AMT": 0.0, "RATE": 0.0, "CMT": 0} for t in times
        ]
        dosing = {"F": {"depot": F, "central": F}, "lag": {"depot": 0.0, "central": 0.0}}
        central = run(rows, TWO, **dosing)[1:, CENTRAL]
        area += (b - a) / 2 * (weights * central / V1).sum()
    assert area == pytest.approx(F * 100 / CL, rel=1e-6)


# --- gradients ---

HISTORIES = {
    "bolus": "TIME EVID AMT RATE CMT DV\n0 1 100 0 2 .\n0 0 0 0 0 1\n1 0 0 0 0 1\n9 0 0 0 0 1",
    "oral": "TIME EVID AMT RATE CMT DV\n0 1 100 0 1 .\n0 0 0 0 0 1\n1.5 0 0 0 0 1\n9 0 0 0 0 1",
    "infusion": "TIME EVID AMT RATE CMT DV\n0 1 100 25 2 .\n0 0 0 0 0 1\n2 0 0 0 0 1\n9 0 0 0 0 1",
    "slow release": "TIME EVID AMT RATE CMT DV\n0 1 100 25 1 .\n3 0 0 0 0 1\n7 0 0 0 0 1\n9 0 0 0 0 1",
    "further doses": (
        "TIME EVID AMT RATE CMT ADDL II DV\n0 1 100 0 1 2 6 .\n0 1 50 40 2 2 6 .\n"
        "8 0 0 0 0 0 0 1\n15 0 0 0 0 0 0 1"
    ),
    "reset": "TIME EVID AMT RATE CMT DV\n0 1 100 25 1 .\n3 3 0 0 0 .\n4 1 80 0 1 .\n9 0 0 0 0 1",
    "reset and dose": "TIME EVID AMT RATE CMT DV\n0 1 100 25 2 .\n3 4 80 50 2 .\n4 0 0 0 0 1\n9 0 0 0 0 1",
}  # fmt: skip

KA_TIES = {"ordinary": 0.8, "flip-flop": "alpha", "slow": 0.01}
NAMES = ("CL", "V1", "Q", "V2", "KA", "F depot", "F central", "lag depot", "lag central")


def reading(x, events, weights):
    """Return a weighted sum of all amounts at all records, for parameters in the order of NAMES."""
    p = {name: x[i : i + 1] for i, name in enumerate(NAMES[:5])}
    F = {"depot": x[5:6], "central": x[6:7]}
    lag = {"depot": x[7:8], "central": x[8:9]}
    out = solve(TWO_COMPARTMENT_ORAL, p, events, N_RECORDS, EVERYTHING, F=F, lag=lag)
    return (out * weights).sum()


value_of, gradient_of = jax.jit(reading), jax.jit(jax.grad(reading))


@pytest.mark.parametrize("KA", KA_TIES)
@pytest.mark.parametrize("lag", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("history", HISTORIES)
def test_gradients_are_central_differences(history, lag, KA):
    CL, V1, Q, V2 = 2.0, 10.0, 3.0, 30.0
    total = CL / V1 + Q / V1 + Q / V2
    alpha = (total + np.sqrt(total**2 - 4 * CL * Q / V1 / V2)) / 2
    KA = alpha if KA_TIES[KA] == "alpha" else KA_TIES[KA]
    events = events_of(table(HISTORIES[history]).assign(ID="1"))
    n = len(table(HISTORIES[history]))
    weights = np.zeros((N_RECORDS, 3))
    weights[:n] = np.random.default_rng(3).normal(size=(n, 3))
    weights = jnp.asarray(weights)
    x = np.array([CL, V1, Q, V2, KA, 0.9, 0.8, lag, 1.3 * lag])
    gradient = np.asarray(gradient_of(jnp.asarray(x), events, weights))
    assert np.isfinite(gradient).all()
    # At a lag of 0 a record stands at the moment of a dose: the reading itself jumps there.
    for i, name in enumerate(NAMES if lag else NAMES[:7]):
        h = 1e-4 * x[i]
        steps = [
            value_of(jnp.asarray(x + s * h * np.eye(9)[i]), events, weights) for s in (1, -1, 2, -2)
        ]
        difference = (8 * (steps[0] - steps[1]) - (steps[2] - steps[3])) / (12 * h)
        assert gradient[i] == pytest.approx(float(difference), rel=1e-5, abs=1e-6), name


def test_the_derivative_of_a_lagged_bolus_in_its_lag_is_that_of_the_curve_in_time():
    events = events_of(table("TIME EVID AMT CMT DV\n0 1 100 2 .\n6 0 0 0 1").assign(ID="1"))

    def level(lag):
        p = {k: jnp.asarray([v]) for k, v in ONE.items()}
        out = solve(ONE_COMPARTMENT_ORAL, p, events, N_RECORDS, EVERYTHING, lag={"central": lag})
        return out[1, CENTRAL]

    slope = jax.jit(jax.grad(lambda lag: level(lag[None])))(jnp.asarray(2.0))
    assert float(slope) == pytest.approx(0.1 * 100 * np.exp(-0.1 * 4), rel=1e-12)


# --- compilation ---


def test_a_second_call_of_the_same_shapes_compiles_nothing_anew():
    run(HISTORIES["bolus"], TWO, F={"depot": 0.5})
    before = len(traces)
    run(HISTORIES["infusion"], {**TWO, "CL": 5}, F={"depot": 0.2})
    run(HISTORIES["reset"], {**TWO, "KA": 0.3}, F={"depot": 1})
    assert len(traces) == before
