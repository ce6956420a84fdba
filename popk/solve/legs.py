"""What happens to a subject, leg by leg: an interval of free movement, and the event at its end."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.records.events import RECORD, RESET, STOP, EventTable
from popk.solve.schedule import Dosing, PerRecord, Schedule, schedule
from popk.trial import Design


class Legs(NamedTuple):
    """The events of one subject as every tier walks them, in order.

    During a leg amounts move freely under a constant inflow. At its end
    ``amounts = keep * amounts + jump`` and then ``inflow = hold * inflow + switch``.

    Attributes
    ----------
    start : Float[Array, "event"]
        When the leg begins [time].
    duration : Float[Array, "event"]
        How long it is; 0 or more [time].
    keep : Float[Array, "event compartment"]
        1, or 0 where amounts are reset.
    jump : Float[Array, "event compartment"]
        Boluses, initial amounts and steady states [amount].
    hold : Float[Array, "event"]
        1, or 0 where running infusions are cancelled.
    switch : Float[Array, "event compartment"]
        Infusions that begin, less those that end [amount/time].
    on : Float[Array, "event compartment"] or None
        0 where a compartment is turned off during the leg: it holds nothing and nothing reaches it.
        None where no compartment ever is.
    """

    start: Float[Array, "*e"]
    duration: Float[Array, "*e"]
    keep: Float[Array, "*e n"]
    jump: Float[Array, "*e n"]
    hold: Float[Array, "*e"]
    switch: Float[Array, "*e n"]
    on: Float[Array, "*e n"] | None


def legs_of(plan: Schedule, compartments: tuple[str, ...], design: Design, dosing: Dosing) -> Legs:
    """Return the legs of a schedule, steady states left out.

    Parameters
    ----------
    plan : Schedule
    compartments : tuple of str
    design : Design
    dosing : Dosing
        For the amounts to which a reset leads.
    """
    events, doses = plan.events, plan.doses
    n, wiped = len(compartments), events.wipes != 0
    unit = jax.nn.one_hot(doses.into, n, dtype=doses.amount.dtype)
    starts = events.gives & (events.amount > 0) & plan.acts
    bolus = jnp.where(starts & (doses.rate == 0), doses.amount, 0.0)
    ends = (events.kind == STOP) & plan.acts
    switch = jnp.where(starts, doses.rate, 0.0) - jnp.where(ends, doses.rate, 0.0)
    jump = unit * bolus[:, None]
    if dosing.initial and design.resets:
        to = initial_amounts(dosing.initial, compartments, events.record)
        begins = (events.wipes == RESET) & (events.steady != 1)
        jump = jump + jnp.where(begins[:, None], to, 0.0)
    held = jnp.where(wiped, 0.0, 1.0)
    return Legs(
        start=jnp.concatenate([events.time[:1], events.time[:-1]]),
        duration=jnp.diff(events.time, prepend=events.time[:1]),
        keep=jnp.broadcast_to(held[:, None], jump.shape),
        jump=jump,
        hold=held,
        switch=unit * switch[:, None],
        on=_on(plan, unit, starts) if design.turned_off else None,
    )


def initial_amounts(
    initial: Mapping[str, PerRecord], compartments: tuple[str, ...], record: Array
) -> Float[Array, "*e n"]:
    """Return the amounts that a subject has at the first record and after a reset at `record`."""
    nothing = jnp.zeros(record.shape)
    columns = []
    for name in compartments:
        values = initial.get(name)
        at = nothing if values is None else values[record if values.shape[0] > 1 else record * 0]
        columns.append(at + nothing)
    return jnp.stack(columns, -1)


def _on(plan: Schedule, unit: Float[Array, "e n"], starts: Array) -> Float[Array, "e n"]:
    """Return which compartments are on during each leg: a dose into one turns it on."""
    events, numbers = plan.events, 1 + jnp.arange(unit.shape[1])[None]
    off = events.turns[:, None] == -numbers
    doses = starts | (events.steady > 0)
    on = (events.turns[:, None] == numbers) | (doses[:, None] & (unit > 0))
    on = on | (events.wipes == RESET)[:, None]

    def step(status: Array, event: tuple[Array, Array]) -> tuple[Array, Array]:
        turned_on, turned_off = event
        return jnp.where(turned_off, 0.0, jnp.where(turned_on, 1.0, status)), status

    return jax.lax.scan(step, jnp.ones(unit.shape[1]), (on, off))[1]


def at_records(plan: Schedule, n_records: int) -> Array:
    """Return the event at which each record is predicted."""
    record = jnp.where(plan.events.kind == RECORD, plan.events.record, n_records)
    at = jnp.arange(record.shape[0])
    return jnp.zeros(n_records, dtype=at.dtype).at[record].set(at, mode="drop")


def each(f: Callable[..., Any], *given: Any) -> Any:
    """Return f of each subject; what is given with one subject alone is the same for all."""
    sizes = [{x.shape[0] for x in jax.tree.leaves(tree)} for tree in given]
    lanes = max((size for found in sizes for size in found), default=1)
    axes = [None if found <= {1} and lanes > 1 else 0 for found in sizes]
    alone = [
        jax.tree.map(lambda x: x[0], tree) if axis is None else tree
        for tree, axis in zip(given, axes, strict=True)
    ]
    return jax.vmap(f, in_axes=axes)(*alone)


def planned(
    compartments: tuple[str, ...],
    dosed: str,
    events: EventTable,
    n_records: int,
    design: Design,
    dosing: Dosing,
) -> tuple[Schedule, Legs, Float[Array, "s n"]]:
    """Return the schedule, the legs and the first amounts of each subject.

    Parameters
    ----------
    compartments : tuple of str
        Their names, in the order of NONMEM's numbers.
    dosed : str
        The compartment of doses with CMT 0.
    events : EventTable of arrays [subject, event]
    n_records : int
        The length of the record axis.
    design : Design
    dosing : Dosing of arrays [subject, record] or [subject, 1]
    """

    def one(events: EventTable, dosing: Dosing) -> tuple[Schedule, Legs, Any]:
        plan = schedule(events, n_records, compartments, dosed, design, dosing)
        first = initial_amounts(dosing.initial, compartments, jnp.asarray(0))
        return plan, legs_of(plan, compartments, design, dosing), first

    return each(one, events, dosing)
