"""What is the amount in the observed compartment, where all doses are boluses into one?

Most trials are so simple, and most of the time of a fit is spent here. Where a dose is put does not
change from record to record then, nor do parameters: the structure is a chain (`popk.structural.chains`),
walked once, with its derivatives in the few rates of each subject alongside. A reverse pass only sums.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from popk.records.events import EventTable
from popk.solve.legs import at_records, each, planned
from popk.solve.linear import solve
from popk.solve.schedule import NO_DOSING, Dosing, Schedule, moved
from popk.structural.chains import CHAINS, links
from popk.structural.compartments import Structure
from popk.trial import Design

Held = list[Any]  # a number for each compartment of a chain
Moving = list[list[Any]]  # its derivative in each rate up to its own


def observed(
    structure: Structure,
    parameters: Mapping[str, Float[Array, "s _"]],
    events: EventTable,
    n_records: int,
    design: Design,
    dosing: Dosing = NO_DOSING,
) -> tuple[Float[Array, "s r"], Schedule]:
    """Return the amount in the observed compartment at each record, and the subjects' schedules.

    Parameters
    ----------
    structure, parameters, events, n_records, design, dosing
        As `solve` takes them, whose result this is a part of.
    """
    if not _superposes(structure, parameters, events, design, dosing):
        amounts, plans = solve(structure, parameters, events, n_records, design, dosing)
        return amounts[..., structure.compartments.index(structure.observed)], plans
    into = structure.compartments.index(structure.dosed)
    plans, legs, _ = planned(
        structure.compartments, structure.dosed, events, n_records, design, dosing
    )
    chain = each(lambda p: CHAINS[structure](**p), {k: v[:, 0] for k, v in parameters.items()})
    hold = legs.hold.T if design.resets else None
    after = _walk(legs.duration.T, hold, legs.jump[..., into].T, *chain).T
    if not design.plain:
        after = each(lambda x, plan: x[at_records(plan, n_records)], after, plans)
    return jnp.where((plans.refused >= 0)[:, None], jnp.nan, after), plans


def _superposes(
    structure: Structure, parameters: Mapping[str, Any], events: EventTable, design: Design,
    dosing: Dosing,
) -> bool:  # fmt: skip
    """Return whether all doses are boluses into one compartment, and parameters hold."""
    into = structure.compartments.index(structure.dosed) + 1
    return (
        structure in CHAINS
        and set(design.dosed) <= {0, into}
        and not (design.infusions or design.steady or design.turned_off)
        and not (dosing.initial or moved(design, dosing))
        and all(v.shape[1] == 1 for v in parameters.values())
        # Where all subjects share few intervals, `solve` finds what moves amounts once for each.
        and not (design.gaps and events.time.shape[0] == 1)
    )


@jax.custom_jvp
def _walk(lengths: Any, hold: Any, doses: Any, rates: Any, weights: Any) -> Float[Array, "e s"]:
    """Return the amount after each event [event, subject]."""
    return _walked(lengths, hold, doses, rates, weights, slopes=False)[0]


def _walked(
    lengths: Float[Array, "e _"], hold: Float[Array, "e _"] | None, doses: Float[Array, "e _"],
    rates: tuple[Float[Array, " s"], ...], weights: tuple[Float[Array, " s"] | None, ...],
    *, slopes: bool,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Return the amount after each event, its derivatives in the rates, and the chain."""
    n = len(rates)
    seen = [(i, weight) for i, weight in enumerate(weights) if weight is not None]

    def step(carry: tuple[Held, Moving], event: tuple[Any, Any, Any]) -> Any:
        length, hold, dose = event
        (held, moving), by = carry, each(links, length, rates)
        if slopes:
            moving = [[_moved(by[i], held, moving, k) for k in range(i + 1)] for i in range(n)]
        held = [sum(by[i][j][0] * held[j] for j in range(i + 1)) for i in range(n)]
        if hold is not None:
            held, moving = jax.tree.map(lambda x: x * hold, (held, moving))
        held = [held[0] + dose, *held[1:]]
        amount = sum(weight * held[i] for i, weight in seen)
        given = [sum(w * moving[i][k] for i, w in seen if i >= k) for k in range(n) if slopes]
        return (held, moving), (amount, given, [held[i] for i, _ in seen])

    zero = jnp.zeros(max(rates[0].shape, lengths.shape[1:], doses.shape[1:]))
    first = [zero] * n, [[zero] * (i + 1) for i in range(n) if slopes]
    return jax.lax.scan(step, first, (lengths, hold, doses))[1]


def _moved(row: Sequence[Any], held: Held, moving: Moving, k: int) -> Any:
    """Return the derivative in the rate k of what a compartment holds after an interval."""
    through = sum(row[j][1][k - j] * held[j] for j in range(k + 1))
    return through + sum(row[j][0] * moving[j][k] for j in range(k, len(row)))


def _rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    amount, slopes, held = _walked(*primals, slopes=True)
    moves = jax.tree.leaves(tangents[3:], is_leaf=_still)
    both = zip([*slopes, *held], moves, strict=True)
    rows, moves = zip(*((row, move) for row, move in both if not _still(move)), strict=True)

    def told(_: None, row: tuple[Any, ...]) -> tuple[None, Any]:
        return None, sum(x * move for x, move in zip(row, moves, strict=True))

    # As a scan, so that its transpose, the reverse pass, goes through all rows once.
    tangent = jax.lax.scan(told, None, rows)[1]
    lengths, hold, doses, *chain = primals
    times, given = tangents[0], tangents[2]
    if _still(times) and _still(given):
        return amount, tangent

    def again(lengths: Any, doses: Any) -> Any:
        return _walked(lengths, hold, doses, *chain, slopes=False)[0]

    times, given = (
        jnp.zeros_like(x) if _still(move) else move
        for x, move in ((lengths, times), (doses, given))
    )
    return amount, tangent + jax.jvp(again, (lengths, doses), (times, given))[1]


def _still(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


_walk.defjvp(_rule, symbolic_zeros=True)
