"""Random dosing histories, and the amounts that follow from them one dose at a time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.linalg
from hypothesis import strategies as st

from popk.records.events import EventTable, event_table, padded_events
from popk.records.nonmem import check_records
from popk.solve import Dosing, solve
from popk.solve.clocks import Solver
from popk.solve.nonlinear import integrate
from popk.structural.compartments import ONE_COMPARTMENT_ORAL, TWO_COMPARTMENT_ORAL
from popk.trial import Design
from tests.trials import table

#: One shape for every history, so that each program compiles once.
N_RECORDS, N_EVENTS = 16, 48

#: Facts of a trial in which doses are given outright.
GIVEN = Design(infusions=True, resets=True, doses=8)

#: Facts of a trial in which anything may happen but a compartment that is turned off.
ANYTHING = GIVEN._replace(modeled_rates=(1, 2, 3), modeled_durations=(1, 2, 3), steady=8, overlap=2)

#: The same, and compartments are turned off.
TURNED_OFF = ANYTHING._replace(turned_off=(1, 2, 3))

ONE = {"CL": 2.0, "V": 20.0, "KA": 0.8}
TWO = {"CL": 2.0, "V1": 20.0, "Q": 3.0, "V2": 30.0, "KA": 0.8}
DEPOT, CENTRAL, PERIPHERAL = range(3)
NEUTRAL = {"F": {"depot": 1.0, "central": 1.0}, "lag": {"depot": 0.0, "central": 0.0}}
NAMES = ("depot", "central", "peripheral1")

ROW = {
    "ID": "1", "TIME": 0.0, "EVID": 0, "AMT": 0.0, "RATE": 0.0, "CMT": 0, "ADDL": 0, "II": 0.0,
    "SS": 0, "MDV": 1, "DV": np.nan,
}  # fmt: skip


def events_of(records: Any) -> EventTable:
    """Return the events of one subject's records, padded to one length."""
    flat = check_records(pd.DataFrame(records).assign(ID="1"), "test").frame
    n = len(flat)
    assert n <= N_RECORDS
    found = event_table(flat, np.zeros(n, dtype=int), np.arange(n))
    assert found.time.shape[1] <= N_EVENTS
    padded = padded_events(found, N_EVENTS)
    return EventTable(*(jnp.asarray(values[0]) for values in padded))


def per_record(*values: float) -> np.ndarray:
    """Return values at each record, padded with the last."""
    return np.pad(np.asarray(values, dtype=float), (0, N_RECORDS - len(values)), mode="edge")


# --- what popk answers ---

TIERS = ("closed form", "eigenvectors", "squaring", "ODE")

traces = []  # one entry for each time that a program is traced to be compiled


def amounts_of(tier, structure, parameters, events, design, dosing):
    """Return the amounts [record, compartment] of one subject in one tier."""
    one = jax.tree.map(lambda x: x[None], (parameters, events, Dosing(**dosing)))
    if tier != "ODE":
        if tier != "closed form":
            structure = structure._replace(entries=None)
        squared = tier == "squaring"
        return solve(structure, *one[:2], N_RECORDS, design, one[2], defective=squared)[0][0]

    def rhs(t, A, p):
        return (structure.rates(**p) @ A) * (1.0 + 0.0 * A[0] ** 2)

    found = integrate(
        rhs, structure.compartments, structure.dosed, *one[:2], N_RECORDS,
        design=design, dosing=one[2], options=Solver("explicit", 1e-10, 1e-11),
    )  # fmt: skip
    return found.amounts[0]


@functools.cache
def _program(tier, structure, design, _):
    def amounts(parameters, events, dosing):
        traces.append(structure.compartments)
        return amounts_of(tier, structure, parameters, events, design, dosing)

    return jax.jit(amounts)


def arrays(values):
    """Return numbers, and sequences of one number a record, as arrays."""
    return jax.tree.map(lambda x: jnp.atleast_1d(jnp.asarray(x, dtype=float)), values)


def run(records, parameters=TWO, *, tier="closed form", design=GIVEN, **dosing):
    """Return the amounts [record, compartment] of one subject."""
    frame = table(records) if isinstance(records, str) else pd.DataFrame(records)
    structure = ONE_COMPARTMENT_ORAL if "V" in parameters else TWO_COMPARTMENT_ORAL
    if dosing:  # one program, whichever of them are given
        dosing = {what: values | dosing.get(what, {}) for what, values in NEUTRAL.items()} | {
            what: values for what, values in dosing.items() if what not in NEUTRAL
        }
    keys = tuple(sorted((what, *sorted(values)) for what, values in dosing.items()))
    amounts = _program(tier, structure, design, keys)
    return np.asarray(amounts(arrays(parameters), events_of(frame), arrays(dosing)))[: len(frame)]


# --- one dose at a time ---


class Dose(NamedTuple):
    """A dose that has been given: an amount at once, or a rate for a while."""

    time: float
    into: int
    amount: float
    rate: float
    length: float


class Body:
    """The amounts of one subject, moved from one moment to the next by a matrix exponential."""

    def __init__(self, n: int):
        self.n, self.time = n, -np.inf
        self.amounts, self.on = np.zeros(n), np.ones(n)
        self.awaited: list[Dose] = []
        self.running: list[Dose] = []

    def until(self, time: float, M: np.ndarray, source: np.ndarray) -> None:
        """Move on to a time; what arrives or ends by then does so in its order."""
        while True:
            starts = [d.time for d in self.awaited]
            ends = [d.time + d.length for d in self.running]
            upcoming = min([*starts, *ends, np.inf])
            if upcoming > time:
                break
            self._move(upcoming, M, source)
            self.running = [d for d in self.running if d.time + d.length > upcoming]
            due = [d for d in self.awaited if d.time <= upcoming]
            self.awaited = [d for d in self.awaited if d.time > upcoming]
            for dose in due:
                self.give(dose)
        self._move(time, M, source)

    def give(self, dose: Dose) -> None:
        self.on[dose.into] = 1.0
        if dose.rate and dose.length > 1e-11:
            self.running.append(dose)
        else:
            self.amounts[dose.into] += dose.amount

    def forget(self) -> None:
        self.awaited, self.running = [], []

    def _move(self, time: float, M: np.ndarray, source: np.ndarray) -> None:
        if time > self.time > -np.inf:
            inflow = source.copy()
            for dose in self.running:
                inflow[dose.into] += dose.rate
            self.amounts = advanced(self.amounts, time - self.time, M, inflow, self.on)
        self.time = max(time, self.time)


def advanced(amounts, t, M, inflow, on):
    """Return amounts a time later: the exponential of the rate matrix bordered by the inflow."""
    n = len(amounts)
    bordered = np.zeros((n + 1, n + 1))
    bordered[:n, :n] = on[:, None] * M * on
    bordered[:n, n] = on * inflow
    moved = _exponential(bordered.tobytes(), n + 1, round(t, 12))
    return (moved @ np.append(on * amounts, 1.0))[:n]


@functools.cache  # a steady state takes many intervals of the same length
def _exponential(matrix: bytes, n: int, t: float) -> np.ndarray:
    return scipy.linalg.expm(np.frombuffer(matrix).reshape(n, n) * t)


def rates_of(parameters: Mapping[str, Any], record: int = 0) -> np.ndarray:
    """Return the rate matrix of the two-compartment model with a depot, at a record."""
    at = {k: np.broadcast_to(v, (N_RECORDS,))[record] for k, v in parameters.items()}
    k10, k12, k21 = at["CL"] / at["V1"], at["Q"] / at["V1"], at["Q"] / at["V2"]
    return np.array([[-at["KA"], 0, 0], [at["KA"], -k10 - k12, k21], [0, k12, -k21]])


def one_at_a_time(
    records: list[dict[str, Any]],
    rates: Callable[[int], np.ndarray],
    dosing: Mapping[str, Mapping[int, Any]] | None = None,
    *,
    dosed: int = 0,
    source: Callable[[int], np.ndarray] | None = None,
    cycles: int = 200,
) -> np.ndarray:
    """Return the amounts [record, compartment], every dose written out and given in its turn.

    A steady state is what so many `cycles` of doses leave. ``dosing`` maps F, lag, R, D and
    initial to values at each record by compartment (from 0), and ``rates`` a record to its matrix.
    """
    n, told = len(rates(0)), dosing or {}

    def of(what: str, compartment: int, record: int, blank: float) -> float:
        values = told.get(what, {}).get(compartment)
        return blank if values is None else float(np.broadcast_to(values, (N_RECORDS,))[record])

    def dose_of(row: dict[str, Any], record: int, time: float) -> Dose:
        into = row["CMT"] - 1 if row["CMT"] else dosed
        amount = of("F", into, record, 1.0) * row["AMT"]
        rate, length = row["RATE"], 0.0
        if rate == -1:
            rate = of("R", into, record, np.nan)
        if rate == -2:
            length = of("D", into, record, np.nan)
            rate = amount / length if length else 0.0
        elif rate:
            length = amount / rate
        return Dose(time, into, amount, rate, length)

    def start(record: int) -> np.ndarray:
        return np.array([of("initial", j, record, 0.0) for j in range(n)])

    body = Body(n)
    body.amounts = start(0)
    out, shift, last = [], 0.0, -np.inf
    for i, row in enumerate(records):
        shift += max(last - row["TIME"], 0.0) if np.isfinite(last) else 0.0
        last, now = row["TIME"], row["TIME"] + shift
        M, inflow = rates(i), np.zeros(n) if source is None else source(i)
        body.until(now, M, inflow)
        if row["EVID"] in (3, 4):
            body.forget()
            body.amounts, body.on = start(i), np.ones(n)
        if row["EVID"] in (1, 4):
            dose = dose_of(row, i, now)
            lag = of("lag", dose.into, i, 0.0)
            if row["SS"] == 1:
                body.forget()
                body.amounts = np.zeros(n)
            if row["SS"]:
                body.on[dose.into] = 1.0
                before = _settled(dose, lag, row["II"], M, inflow, body.on, cycles)
                body.amounts = body.amounts + before.amounts
                body.running += before.running
                body.awaited += before.awaited
            if row["AMT"]:
                doses = [
                    dose._replace(time=now + k * row["II"] + lag) for k in range(row["ADDL"] + 1)
                ]
                if lag == 0:
                    body.give(doses.pop(0))
                body.awaited += doses
        out.append(body.amounts.copy())
        if row["EVID"] in (0, 2) and row["CMT"] < 0:
            body.on[-row["CMT"] - 1] = 0.0
            body.amounts = body.amounts * body.on
        if row["EVID"] == 2 and row["CMT"] > 0:
            body.on[row["CMT"] - 1] = 1.0
    return np.array(out)


def _settled(dose, lag, every, M, source, on, cycles) -> Body:
    """Return an empty body to which a dose has been given again and again, up to its own time."""
    body, now = Body(len(M)), dose.time
    body.on = on.copy()
    if not dose.amount and not every:  # an infusion that never stopped, and now does
        begin = now - 4000.0
        body.time = begin
        body.awaited = [dose._replace(time=begin, length=now + lag - begin)]
    else:
        body.time = now - (cycles + 1) * every
        body.awaited = [dose._replace(time=now + lag - k * every) for k in range(cycles, 0, -1)]
    body.until(now, M, source)
    return body


# --- random histories ---

amount = st.floats(1, 100)
interval = st.floats(0.5, 12)
KINDS = ("bolus", "infusion", "level", "other", "reset", "again")
MORE = ("rate", "duration", "steady", "added", "infused", "constant")


@st.composite
def histories(draw, kinds=KINDS, further=True, most=6, compartments=3):
    """Return records of some kinds, of one subject, with a level at the end that sees all that is left."""
    time, rows = draw(st.floats(-5, 5)), []
    for _ in range(draw(st.integers(2, most))):
        kind = draw(st.sampled_from(kinds))
        row = {**ROW, "TIME": time, "EVID": 2 if kind in ("other", "off", "on") else 0}
        if kind in ("off", "on"):
            row["CMT"] = draw(st.integers(1, compartments)) * (-1 if kind == "off" else 1)
        elif kind == "reset":
            row["EVID"] = 3
        elif kind not in ("level", "other"):
            row |= _dose(draw, kind, further, compartments)
        rows.append(row)
        time += draw(st.just(0.0) | interval)
    return [*rows, {**ROW, "TIME": time + 3.0}]


def _dose(draw, kind, further, compartments):
    """Return what a row of a dose says."""
    again = kind == "again" or (kind == "steady" and draw(st.booleans()))
    row = {"EVID": 4 if again else 1, "CMT": draw(st.integers(1, compartments))}
    if kind == "constant":
        return row | {"SS": draw(st.integers(1, 2)), "RATE": draw(st.floats(1, 50))}
    row["AMT"] = draw(amount)
    steady = {"steady": 1, "added": 2, "infused": 1}.get(kind, 0)
    if steady or (further and draw(st.booleans())):
        least = 2.0 if steady else 0.5  # lags are never longer than three intervals
        row |= {
            "II": draw(st.floats(least, 12)),
            "ADDL": draw(st.integers(not steady, 2)),
            "SS": steady,
        }
        if not further:
            row["ADDL"] = 0
    if kind == "infusion" or kind == "infused" or (steady == 2 and draw(st.booleans())):
        length = draw(st.floats(0.1, 1.9)) * row["II"] if steady else draw(interval)
        row["RATE"] = row["AMT"] / length
    if kind in ("rate", "duration"):
        row["RATE"] = {"rate": -1.0, "duration": -2.0}[kind]
    return row
