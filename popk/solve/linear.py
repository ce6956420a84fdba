"""What are the amounts at each record of a population, where the system is linear?

Between events amounts are a matrix times what they were: in closed form, or in the coordinates of the rate
matrix's eigenvectors, or by squaring where these are no basis.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.records.events import EventTable
from popk.solve.legs import Legs, at_records, each, planned
from popk.solve.schedule import NO_DOSING, Dosing, Schedule, moved
from popk.solve.steady import (
    SteadyDoses,
    steady_doses,
    steady_state,
    turned_on,
    with_steady_states,
)
from popk.structural.compartments import Structure
from popk.structural.linear import (
    Ladder,
    along,
    carry,
    exponential,
    grow,
    ladder,
    modes,
    propagator,
)
from popk.trial import Design, alike

Source = Callable[..., Float[Array, " n"]]


def solve(
    structure: Structure,
    parameters: Mapping[str, Float[Array, "s _"]],
    events: EventTable,
    n_records: int,
    design: Design,
    dosing: Dosing = NO_DOSING,
    *,
    source: Source | None = None,
    defective: bool = False,
) -> tuple[Float[Array, "s r n"], Schedule]:
    """Return the amounts in each compartment at each record of each subject, and their schedules.

    Where a dosing parameter has no meaning (a lag below 0), a subject's amounts are NaN.

    Parameters
    ----------
    structure : Structure
        How drug moves in one interval. Without a closed form its rate matrix is used.
    parameters : mapping of str to Float[Array, "subject record"] or [subject, 1]
        The structure's parameters.
    events : EventTable of arrays [subject, event]
        What happens, see `popk.records.events`; of one subject alone where it is the same for all.
    n_records : int
        The length of the result's record axis.
    design : Design
        Facts of the trial that need no code where they are absent.
    dosing : Dosing of arrays [subject, record] or [subject, 1]
        Bioavailability, lag, modeled rates and durations, initial amounts.
    source : Callable, optional
        ``source(**parameters)`` is what always flows in [amount/time].
    defective : bool
        Whether the eigenvectors of the rate matrix may be too few to be used.
    """
    names = structure.compartments
    plans, legs, start = planned(names, structure.dosed, events, n_records, design, dosing)
    p = _Parameters.of(parameters, plans)

    def system(p: _Parameters, plan: Schedule, legs: Legs) -> System:
        return _system(structure, p, plan, legs, source, defective)

    if design.steady:

        def settled(p: _Parameters, plan: Schedule, legs: Legs, dosing: Dosing) -> Legs:
            steady = steady_doses(plan, legs.jump.shape[1], design, dosing)
            amounts = _settled(system(p, plan, turned_on(legs, steady, plan)), steady)
            return with_steady_states(legs, steady, amounts)

        legs = each(settled, p, plans, legs, dosing)
    if structure.entries is None and not p.varying and legs.on is None:
        one = _in_steps if defective else _in_modes
        after = each(
            lambda p, plan, legs, start: one(system(p, plan, legs), legs, design, start),
            p, plans, legs, start,
        )  # fmt: skip
    else:
        few = (
            design.gaps and legs.duration.shape[0] == 1 and not (p.varying or moved(design, dosing))
        )
        moves = _propagators(system, structure, p, plans, legs, design, few=bool(few))
        after = _in_amounts(moves, legs, start, design)
    if not design.plain or moved(design, dosing):
        after = each(lambda x, plan: x[at_records(plan, n_records)], after, plans)
    wrong = (plans.refused >= 0) | (plans.crowded >= 0)
    return jnp.where(wrong[:, None, None], jnp.nan, after), plans


class _Parameters(NamedTuple):
    """Parameters of all subjects: those that hold throughout, and those of the leg up to each event."""

    constant: dict[str, Float[Array, " s"]]
    varying: dict[str, Float[Array, "s e"]]

    @staticmethod
    def of(parameters: Mapping[str, Float[Array, "s _"]], plans: Schedule) -> "_Parameters":
        changing = {k: v for k, v in parameters.items() if v.shape[1] > 1}
        return _Parameters(
            {k: v[:, 0] for k, v in parameters.items() if v.shape[1] == 1},
            {k: each(lambda v, plan: v[plan.upcoming], v, plans) for k, v in changing.items()},
        )

    def at(self, event: Any) -> dict[str, Any]:
        """Return one subject's parameters during the leg up to an event."""
        return self.constant | {k: v[event] for k, v in self.varying.items()}


class System(NamedTuple):
    """One subject's linear system, as things stand during the leg that ends at an event.

    Attributes
    ----------
    move : Callable
        ``move(t, event)`` gives P and Q over a time t.
    rates : Callable
        ``rates(event)`` gives the rate matrix.
    source : Callable or None
        ``source(event)`` gives what always flows in; None: nothing.
    rungs : Ladder or None
        What any leg is put together from, where parameters hold and eigenvectors are too few.
    """

    move: Callable[[Any, Any], Any]
    rates: Callable[[Any], Any]
    source: Callable[[Any], Any] | None
    rungs: Ladder | None = None


def _system(
    structure: Structure,
    p: _Parameters,
    plan: Schedule,
    legs: Legs,
    source: Source | None,
    defective: bool,
) -> System:
    """Return the system of one subject."""

    def rates(event: Any) -> Float[Array, "n n"]:
        found = structure.rates(**p.at(event))
        return found if legs.on is None else legs.on[event][:, None] * found * legs.on[event][None]

    def inflow(event: Any) -> Float[Array, " n"]:
        found: Any = source(**p.at(event)) if source else 0.0
        return found if legs.on is None else found * legs.on[event]

    sourced = inflow if source else None
    if structure.entries is not None and legs.on is None:
        return System(lambda t, event: structure.propagator(t, **p.at(event)), rates, sourced)
    if p.varying or legs.on is not None:
        through = exponential if defective or legs.on is not None else _by_modes
        return System(lambda t, event: through(rates(event), t), rates, sourced)
    if defective:
        # 1 is what `steady_state` asks for where a dose has no interval.
        longest = jnp.maximum(jnp.maximum(legs.duration.max(), plan.events.interval.max()), 1.0)
        rungs = ladder(rates(0), jax.lax.stop_gradient(longest))
        return System(lambda t, event: along(rungs, t), rates, sourced, rungs)
    basis = modes(rates(0))
    return System(lambda t, event: propagator(basis, t), rates, sourced)


def _by_modes(matrix: Any, t: Any) -> Any:
    return propagator(modes(matrix), t)


def _settled(system: System, steady: SteadyDoses) -> Float[Array, "d n"]:
    """Return the amounts of one subject's steady states."""
    n = steady.unit.shape[1]

    def one(at: Any, unit: Any, dose: Any, every: Any, since: Any) -> Any:
        always = jnp.zeros(n) if system.source is None else system.source(at)
        return steady_state(
            lambda t: system.move(t, at), system.rates(at), unit, always,
            dose=dose, every=every, since=since,
        )  # fmt: skip

    axes = (0, 0, 0, 0, None if steady.since is None else 0)
    return jax.vmap(one, in_axes=axes)(
        steady.at, steady.unit, steady.dose, steady.every, steady.since
    )


class Moves(NamedTuple):
    """What moves amounts along each leg, every entry an array [event, subject] of its own.

    Attributes
    ----------
    P, Q : rows of entries
        Q is None without infusions.
    filled : entries or None
        What a source brings.
    of_leg : Int[Array, "event"] or None
        Where P and Q of each leg stand, if those of legs of one length stand there once.
    """

    P: Any
    Q: Any
    filled: Any = None
    of_leg: Any = None


def _propagators(
    system: Any,
    structure: Structure,
    p: _Parameters,
    plans: Schedule,
    legs: Legs,
    design: Design,
    *,
    few: bool,
) -> Moves:
    """Return what moves the amounts of all subjects along their legs."""
    if structure.entries is not None and legs.on is None:
        closed, of_leg = structure.entries, None

        def entries(t: Any, constant: Any, varying: Any) -> Any:
            P, Q = closed(t, **constant, **varying)
            return P, Q if design.infusions else None

        # Events first and subjects last from the start: transposing them costs more than moving them.
        lengths = jnp.swapaxes(legs.duration, 0, 1)
        if few:
            _, first, of_leg = jnp.unique(
                alike(lengths), size=design.gaps, return_index=True, return_inverse=True
            )
            lengths, of_leg = lengths[first], of_leg.ravel()
        varying = {k: v.T for k, v in p.varying.items()}

        def of_all(t: Any, varying: Any) -> Any:
            return each(entries, t, p.constant, varying)

        P, Q = jax.vmap(of_all)(lengths, varying)
        return Moves(P, Q, of_leg=of_leg)

    def of_one(p: _Parameters, plan: Schedule, legs: Legs) -> Any:
        one, events = system(p, plan, legs), jnp.arange(legs.duration.shape[0])
        P, Q = jax.vmap(one.move)(legs.duration, events)
        filled = None
        if one.source is not None:
            filled = (Q * jax.vmap(one.source)(events)[:, None]).sum(-1)
        return P, Q, filled

    P, Q, filled = each(of_one, p, plans, legs)
    turned = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (P, Q, filled))
    return Moves(
        _rows(turned[0]), _rows(turned[1]), None if filled is None else _columns(turned[2])
    )


def _columns(x: Any) -> Any:
    return tuple(x[..., i] for i in range(x.shape[-1]))


def _rows(x: Any) -> Any:
    """Return a matrix as rows of entries, each an array of its own."""
    return tuple(_columns(x[..., i, :]) for i in range(x.shape[-2]))


def _in_amounts(
    moves: Moves, legs: Legs, start: Float[Array, "_ n"], design: Design
) -> Float[Array, "s e n"]:
    """Return the amounts after each event, all subjects abreast: XLA vectorizes over what is minor."""
    turned = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), legs)

    def times(matrix: Any, vector: Any) -> Any:
        return tuple(_dot(row, vector) for row in matrix)

    def step(carry: Any, event: Any) -> Any:
        amounts, inflow = carry
        move, on, hold, jump, switch = event
        if move.of_leg is not None:
            move = jax.tree.map(lambda x: x[move.of_leg], Moves(moves.P, moves.Q))
        if on is not None:
            amounts = _product(amounts, on)
        there = times(move.P, amounts)
        if design.infusions:  # one into a compartment that is off runs on, and reaches nothing
            there = _sum(there, times(move.Q, inflow if on is None else _product(inflow, on)))
        if move.filled is not None:
            there = _sum(there, move.filled)
        if design.resets:
            there, inflow = (tuple(x * hold for x in xs) for xs in (there, inflow))
        there = _sum(there, jump)
        if design.infusions:
            inflow = _sum(inflow, switch)
        return (there, inflow), there

    lanes = (start, *jax.tree.leaves(legs.hold), moves.P[0][0].T)
    count = max(x.shape[0] for x in lanes)
    first = tuple(jnp.broadcast_to(x, (count,)) for x in _columns(start))
    carry = (first, tuple(jnp.zeros_like(x) for x in first))
    on = None if legs.on is None else _columns(turned.on)
    apart = moves if moves.of_leg is None else Moves(None, None, of_leg=moves.of_leg)
    events = (apart, on, turned.hold, _columns(turned.jump), _columns(turned.switch))
    after = jax.lax.scan(step, carry, events)[1]
    return jnp.stack([x.T for x in after], -1)


def _dot(row: Any, vector: Any) -> Any:
    terms = [m * v for m, v in zip(row, vector, strict=True) if m is not None]
    return sum(terms[1:], start=terms[0])


def _sum(a: Any, b: Any) -> Any:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _product(a: Any, b: Any) -> Any:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _in_steps(
    system: System, legs: Legs, design: Design, start: Float[Array, " n"]
) -> Float[Array, "e n"]:
    """Return one subject's amounts after each event by powers of its rate matrix."""
    rungs = system.rungs
    assert rungs is not None
    always = None if system.source is None else system.source(0)

    def step(carried: Any, leg: Legs) -> Any:
        amounts, inflow = carried
        flows = inflow if always is None else inflow + always
        none = always is None and not design.infusions
        there = carry(rungs, leg.duration, amounts, None if none else flows)
        there = there * leg.keep + leg.jump
        return (there, inflow * leg.hold + leg.switch), there

    return jax.lax.scan(step, (start, jnp.zeros_like(start)), legs)[1]


def _in_modes(
    system: System, legs: Legs, design: Design, start: Float[Array, " n"]
) -> Float[Array, "e n"]:
    """Return one subject's amounts after each event by way of modes, which move independently."""
    basis = modes(system.rates(0))

    def in_modes(amounts: Float[Array, "*e n"]) -> Any:
        inverse = jnp.broadcast_to(basis.inverse, (*amounts.shape[:-1], *basis.inverse.shape))
        return (inverse * amounts[..., None, :].astype(inverse.dtype)).sum(-1)

    grown, filled = jax.vmap(lambda t: grow(basis.values, t))(legs.duration)
    leaps, turns = in_modes(legs.jump), in_modes(legs.switch)
    always = 0.0 if system.source is None else in_modes(system.source(0))

    def step(carry: Any, event: Any) -> Any:
        z, inflow = carry
        grown, filled, leap, turn, hold = event
        z = grown * z
        if design.infusions or system.source is not None:
            z = z + filled * (inflow + always)
        if design.resets:
            z, inflow = z * hold, inflow * hold
        z, inflow = z + leap, inflow + turn
        return (z, inflow), z

    first = (in_modes(start), jnp.zeros_like(in_modes(start)))
    hold = legs.hold.astype(leaps.dtype)
    after = jax.lax.scan(step, first, (grown, filled, leaps, turns, hold))[1]
    terms = basis.vectors[None] * after[:, None, :]
    amounts = terms.sum(-1).real
    # What cancels is nothing: an empty compartment holds 0, not rounding errors.
    return jnp.where(jnp.abs(amounts) <= 1e-14 * jnp.abs(terms).sum(-1), 0.0, amounts)
