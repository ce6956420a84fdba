"""What happens to one subject, when, and to which amounts: from the records' events to legs.

Where a lag, a bioavailability, or a rate or duration that the model gives moves events, they are sorted
again inside the compiled function, so that derivatives with respect to event times are right.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from popk.records.events import (
    BLANK,
    DOSE,
    EARLY,
    MODELED_DURATION,
    MODELED_RATE,
    RECORD,
    STOP,
    EventTable,
)
from popk.trial import Design

PerRecord = Float[Array, "_"]  # one value a record, or a single one for all

#: How many intervals of a steady-state dose a lag may be longer than, and how many
#: infusions with a modeled rate or duration may overlap in it. Beyond, amounts are NaN.
PENDING, OVERLAPPING = 2, 4

_NOTHING: Mapping[str, PerRecord] = {}


class Dosing(NamedTuple):
    """What a model says of doses, each a mapping of compartment to its value at each record.

    Attributes
    ----------
    F : mapping of str to Float[Array, "record"]
        Bioavailability [fraction]; 1 where not given.
    lag : the same
        Time from a dose to its arrival [time]; 0 where not given.
    R, D : the same
        Rate [amount/time] of doses with RATE -1, duration [time] of doses with RATE -2.
    initial : the same
        Amounts at the first record and after a reset [amount]; 0 where not given.
    spread : the same
        Duration [time] over which what the data give as boluses flows in.
    """

    F: Mapping[str, PerRecord] = _NOTHING
    lag: Mapping[str, PerRecord] = _NOTHING
    R: Mapping[str, PerRecord] = _NOTHING
    D: Mapping[str, PerRecord] = _NOTHING
    initial: Mapping[str, PerRecord] = _NOTHING
    spread: Mapping[str, PerRecord] = _NOTHING


NO_DOSING = Dosing()


class Doses(NamedTuple):
    """What the dose of an event is, dosing parameters applied; every field has shape [event].

    Attributes
    ----------
    into : Int[Array, "event"]
        The compartment, from 0.
    amount : Float[Array, "event"]
        F AMT [amount].
    rate, length : Float[Array, "event"]
        Of an infusion [amount/time], [time]; 0 where it is a bolus.
    lag : Float[Array, "event"]
        From the dose to its arrival [time].
    """

    into: Int[Array, "*e"]
    amount: Float[Array, "*e"]
    rate: Float[Array, "*e"]
    length: Float[Array, "*e"]
    lag: Float[Array, "*e"]


class Schedule(NamedTuple):
    """The events of one subject in the order in which they happen.

    Attributes
    ----------
    events : EventTable
        The events, with the times at which they happen.
    doses : Doses
        What each event doses.
    acts : Bool[Array, "event"]
        Whether amounts were not wiped between its record and the event.
    upcoming : Int[Array, "event"]
        The record whose parameters hold during the interval that ends at the event.
    refused, crowded : Int[Array, ""]
        The first record whose dose has a parameter without meaning, such as a negative lag, or
        more infusions or waiting doses at steady state than there is room for; -1 for none.
    """

    events: EventTable
    doses: Doses
    acts: Bool[Array, "*e"]
    upcoming: Int[Array, "*e"]
    refused: Int[Array, ""]
    crowded: Int[Array, ""]


def schedule(
    events: EventTable,
    n_records: int,
    compartments: tuple[str, ...],
    dosed: str,
    design: Design,
    dosing: Dosing,
) -> Schedule:
    """Return a subject's events in the order in which they happen.

    Parameters
    ----------
    events : EventTable of arrays [event]
        What the records make happen.
    n_records : int
        The length of the record axis.
    compartments : tuple of str
        Their names, in the order of NONMEM's numbers.
    dosed : str
        The compartment of doses with CMT 0.
    design : Design
        Facts of the trial that need no code where they are absent.
    dosing : Dosing
        What the model says of doses.
    """
    number = {name: i for i, name in enumerate(compartments)}
    doses, wrong = _doses(events, number, number[dosed], dosing)
    refused, crowded = _first(wrong, events.record), jnp.asarray(-1)
    if design.infusions and (_modeled(design) or dosing.F):
        stop = events.kind == STOP
        known = jnp.where(
            stop & (events.rate > 0), events.amount / _nonzero(events.rate, stop), 0.0
        )
        events = events._replace(time=events.time + jnp.where(stop, doses.length - known, 0.0))
    if dosing.spread:
        events, doses = _with_ends(events, doses, design)
    if dosing.lag:
        events, doses = _delayed(events, doses, design)
    if design.steady and (dosing.lag or design.infusions):
        events, doses, crowded = _with_tails(
            events, doses, design, bool(dosing.lag), bool(dosing.F)
        )
    if moved(design, dosing):
        order = jnp.lexsort((events.position, jax.lax.stop_gradient(events.time)))
        events, doses = jax.tree.map(lambda x: x[order], (events, doses))
    wiped = jnp.cumsum(events.wipes != 0) if design.resets else events.epoch
    upcoming = jnp.where(events.kind == RECORD, events.record, n_records - 1)
    at = jax.lax.cummin(upcoming, reverse=True)
    return Schedule(events, doses, events.epoch == wiped, at, refused, crowded)


def _modeled(design: Design) -> bool:
    return bool(design.modeled_rates or design.modeled_durations)


def moved(design: Design, dosing: Dosing) -> bool:
    """Return whether events may happen at other times, or more of them, than the records say."""
    infused = design.infusions and (_modeled(design) or dosing.F or design.steady)
    return bool(dosing.lag or dosing.spread or infused)


def _first(mask: Bool[Array, "*m"], record: Int[Array, "*m"]) -> Int[Array, ""]:
    """Return the first record where a mask holds; -1 where it never does."""
    never = jnp.iinfo(record.dtype).max
    first = jnp.where(mask, record, never).min()
    return jnp.where(first == never, -1, first)


def _nonzero(value: Array, where: Array) -> Array:
    """Return a divisor that is safe where it does not count."""
    return jnp.where(where & (value != 0), value, 1.0)


def _doses(
    events: EventTable, number: Mapping[str, int], default: int, dosing: Dosing
) -> tuple[Doses, Bool[Array, " e"]]:
    """Return each event's dose, and whether one of its dosing parameters has no meaning."""
    into = jnp.where(events.compartment == 0, default, events.compartment - 1)

    def of_dose(given: Mapping[str, PerRecord], blank: float) -> Float[Array, " e"]:
        value = jnp.full(into.shape, blank)
        for name, values in given.items():
            at = values[events.record] if values.shape[0] > 1 else values[0]
            value = jnp.where(into == number[name], at, value)
        return value

    F, lag = of_dose(dosing.F, 1.0), of_dose(dosing.lag, 0.0)
    amount, rate = F * events.amount, events.rate
    length = jnp.where(rate > 0, amount / _nonzero(rate, rate > 0), 0.0)
    wrong = (F < 0) | (lag < 0) | jnp.isnan(F + lag)
    if dosing.R:
        R, modeled = of_dose(dosing.R, 1.0), rate == MODELED_RATE
        length = jnp.where(modeled, amount / _nonzero(R, modeled), length)
        rate, wrong = jnp.where(modeled, R, rate), wrong | (modeled & ~(R > 0))
    if dosing.D:
        D, modeled = of_dose(dosing.D, 1.0), rate == MODELED_DURATION
        length = jnp.where(modeled, D, length)
        rate, wrong = (
            jnp.where(modeled, amount / _nonzero(D, modeled), rate),
            wrong | (modeled & ~(D >= 0)),
        )
    if dosing.spread:
        D, bolus = of_dose(dosing.spread, 0.0), (rate == 0) & (events.amount > 0)
        length, wrong = jnp.where(bolus, D, length), wrong | ~(D >= 0)
        rate = jnp.where(bolus & (D > 0), amount / _nonzero(D, bolus), rate)
    # An infusion shorter than the clock can tell would never end: it is a bolus.
    brief = (length <= 1e-12 * (1.0 + jnp.abs(events.time))) & (events.amount > 0)
    counts = events.gives | (events.kind == STOP)
    doses = Doses(into, amount, jnp.where(brief, 0.0, rate), jnp.where(brief, 0.0, length), lag)
    return doses, wrong & counts


def _chosen(mask: Bool[Array, " e"], size: int) -> tuple[Int[Array, " m"], Bool[Array, " m"]]:
    """Return where a mask holds, filled up to `size`, and which of these are no filling."""
    (at,) = jnp.nonzero(mask, size=size, fill_value=0)
    return at, jnp.arange(size) < mask.sum()


def _appended(
    events: EventTable, doses: Doses, more: EventTable, their: Doses, real: Bool[Array, "..."]
) -> tuple[EventTable, Doses]:
    """Return events with others behind them; those that are not real do nothing, at the last time."""
    last = jax.lax.stop_gradient(events.time.max())
    fields = []
    for name, ours, added, blank in zip(EventTable._fields, events, more, BLANK, strict=True):
        filling = last if name == "time" else jnp.asarray(blank, dtype=ours.dtype)
        fields.append(jnp.concatenate([ours, jnp.where(real, added, filling).ravel()]))
    their = jax.tree.map(lambda x: jnp.broadcast_to(x, real.shape).ravel(), their)
    return EventTable(*fields), jax.tree.map(lambda a, b: jnp.concatenate([a, b]), doses, their)


def _with_ends(events: EventTable, doses: Doses, design: Design) -> tuple[EventTable, Doses]:
    """Return the events with the ends of boluses in the data that flow in over some time."""
    at, real = _chosen(events.gives & (events.rate == 0) & (doses.rate > 0), design.given)
    own, dose = jax.tree.map(lambda x: x[at], (events, doses))
    ends = own._replace(
        kind=jnp.full_like(own.kind, STOP), time=own.time + dose.length, gives=own.gives & False,
        position=jnp.full_like(own.position, EARLY), wipes=own.wipes * 0, steady=own.steady * 0,
        turns=own.turns * 0,
    )  # fmt: skip
    return _appended(events, doses, ends, dose, real)


def _delayed(events: EventTable, doses: Doses, design: Design) -> tuple[EventTable, Doses]:
    """Return the events with doses given at their arrival, as events of their own."""
    # A dose whose lag is 0 stays with its record.
    own = events.gives & (events.kind == RECORD) & (events.amount > 0) & (doses.lag > 0)
    at, real = _chosen(own, design.doses)
    moving = (events.kind == DOSE) | (events.kind == STOP)
    arriving = jax.tree.map(lambda x: x[at], events)
    arriving = arriving._replace(
        kind=jnp.full_like(arriving.kind, DOSE),
        time=arriving.time + doses.lag[at],
        position=jnp.full_like(arriving.position, EARLY),
        wipes=jnp.zeros_like(arriving.wipes),
        steady=jnp.zeros_like(arriving.steady),
        turns=jnp.zeros_like(arriving.turns),
    )
    staying = events._replace(
        time=events.time + jnp.where(moving, doses.lag, 0.0), gives=events.gives & ~own
    )
    return _appended(staying, doses, arriving, jax.tree.map(lambda x: x[at], doses), real)


def _with_tails(
    events: EventTable, doses: Doses, design: Design, lagged: bool, scaled: bool
) -> tuple[EventTable, Doses, Int[Array, ""]]:
    """Return the events with what remains, after a steady-state record, of the doses before it.

    These are the ends of infusions that still run and, where a lag is longer than the interval, doses
    on their way. Also the first record of which there are more than room.
    """
    at, real = _chosen(events.steady > 0, design.steady)
    dose, own = (
        jax.tree.map(lambda x: x[at, None], doses),
        jax.tree.map(lambda x: x[at, None], events),
    )
    own = own._replace(
        gives=jnp.zeros_like(own.gives), wipes=jnp.zeros_like(own.wipes),
        steady=jnp.zeros_like(own.steady), turns=jnp.zeros_like(own.turns),
        position=jnp.full_like(own.position, EARLY),
    )  # fmt: skip
    every, real = own.interval, real[:, None]
    since, waiting = phase(dose.lag, every)
    missing = real & False
    ends = tails(design, lagged, scaled)
    if ends:  # rows: steady-state records; columns: what remains of each
        age = since + every * jnp.arange(ends, dtype=every.dtype)[None]
        constant = own.amount == 0
        left = jnp.where(constant, dose.lag, dose.length - age)
        first = jnp.arange(ends)[None] == 0
        runs = real & (dose.rate > 0) & (left > 0) & (~constant | first)
        stop = own._replace(kind=jnp.full_like(own.kind, STOP), time=own.time + left)
        events, doses = _appended(events, doses, _like(stop, runs), dose, runs)
        missing = real & ~constant & (dose.length > since + every * ends)
    if lagged:
        nth = jnp.arange(1, PENDING + 1, dtype=every.dtype)[None]
        comes = real & (nth <= waiting) & (own.amount > 0)
        late = own.time + dose.lag - nth * every
        bolus = own._replace(
            kind=jnp.full_like(own.kind, DOSE), time=late, gives=jnp.ones_like(own.gives)
        )
        events, doses = _appended(events, doses, _like(bolus, comes), dose, comes)
        if design.infusions:
            stop = own._replace(kind=jnp.full_like(own.kind, STOP), time=late + dose.length)
            comes = comes & (dose.rate > 0)
            events, doses = _appended(events, doses, _like(stop, comes), dose, comes)
        missing = missing | (real & (own.amount > 0) & (waiting > PENDING))
    return events, doses, _first(missing, own.record)


def _like(events: EventTable, mask: Bool[Array, "m k"]) -> EventTable:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, mask.shape), events)


def tails(design: Design, lagged: bool, scaled: bool) -> int:
    """Return how many infusions of one steady-state dose may still run when its record comes."""
    if not (design.steady and design.infusions):
        return 0
    if _modeled(design):
        return max(OVERLAPPING, 2 * design.overlap)
    return max(design.overlap * (2 if scaled else 1) - (not lagged), 0)


def phase(
    lag: Float[Array, "*e"], every: Float[Array, "*e"]
) -> tuple[Float[Array, "*e"], Float[Array, "*e"]]:
    """Return the time since the last dose that has arrived in a lagged steady state, and how many wait.

    Without a lag it is the whole interval: the steady state is seen just before the dose.
    """
    cycles = jnp.maximum(jnp.ceil(jax.lax.stop_gradient(lag) / _nonzero(every, every > 0)), 1.0)
    return cycles * every - lag, cycles - 1.0
