"""How do the amounts after each event follow a walk's operands? Derivatives of the steps that were taken.

The steps of a record are taken again: forward, with a tangent that goes along; in reverse round by round
from the last, each walked again from where it began and then back: the discrete adjoint. Both are exact
for the numbers computed. Which steps were taken is not differentiated.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt16

from popk.solve.rounds import ROUND, Record, arrivals, collected, put, rings, taken
from popk.solve.turns import DONE, Place, Step, begin, moved, step_of
from popk.solve.walks import (
    DURATION,
    INITIAL,
    JUMP,
    KEEP,
    START,
    Walk,
    at_leg,
    chosen,
    columns,
    masked,
)
from popk.structural.elimination import Scalars

Which = tuple[int, ...]


def push(
    walk: Walk, which: Which, operands: Sequence[Array], status: Int[Array, "*l"], record: Record,
    tangents: Sequence[Array],
) -> Float[Array, "l e n"]:  # fmt: skip
    """Return the tangent of the amounts after each event.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    which : tuple of int
        The operands that move.
    operands : sequence of Array
        All of them.
    status : Int[Array, "lane"]
        The tangent is NaN where it is not DONE.
    record : Record
        The steps.
    tangents : sequence of Array
        How those of ``which`` move.
    """
    moving = dict(zip(which, tangents, strict=True))
    place = begin(operands[INITIAL])[0]
    dot = columns(moving.get(INITIAL, jnp.zeros_like(operands[INITIAL])))
    after = tuple(jnp.zeros((len(place.leg), walk.events), d.dtype) for d in dot)
    most = record.turns.max()

    def one_turn(codes: Array, carry: Any) -> Any:
        j, place, dot, ring = carry
        then, moved_dot = _pushed(walk, operands, moving, place, dot, taken(codes, j))
        return j + 1, then, moved_dot, put(ring, j, (place.leg, dot))

    def one_round(carry: Any) -> Any:
        i, place, dot, after, ring = carry
        turns = jnp.minimum(ROUND, most - i * ROUND)
        _, place, dot, ring = jax.lax.while_loop(
            lambda c: c[0] < turns, functools.partial(one_turn, _codes(record, i)),
            (jnp.int32(0), place, dot, ring),
        )  # fmt: skip
        ring = put(ring, turns, (place.leg, dot))
        rows = arrivals(ring[0], turns, walk.events, 1)
        after = tuple(collected(a, r, rows) for a, r in zip(after, ring[1], strict=True))
        return i + 1, place, dot, after, ring

    carry = jnp.int32(0), place, dot, after, rings((place.leg, dot), ROUND + 1)
    after = jax.lax.while_loop(lambda c: c[0] * ROUND < most, one_round, carry)[3]
    return jnp.where((status == DONE)[:, None, None], jnp.stack(after, -1), jnp.nan)


def _codes(record: Record, i: Int[Array, ""]) -> UInt16[Array, "t l"]:
    """Return the codes of a round's turns; none where a lane failed."""
    codes = jax.lax.dynamic_slice_in_dim(record.codes, i * ROUND, ROUND, 1)
    return jnp.where(record.turns[:, None] > 0, codes, jnp.uint16(0)).T


def _pushed(
    walk: Walk, operands: Sequence[Array], moving: dict[int, Array], place: Place, dot: Scalars,
    code: UInt16[Array, "*l"],
) -> tuple[Place, Scalars]:  # fmt: skip
    """Return where lanes are after a step is taken again, and the tangent of their amounts."""
    step, good = step_of(walk, operands, place, code)
    rows = [i for i in moving if i >= START]
    dots = [at_leg(moving[i], step.leg) if i < walk.lasting else moving[i] for i in rows]
    given = [step.row[i - START] for i in rows]
    led = functools.partial(_led, walk, step, rows, place.behind)
    new, new_dot = jax.jvp(led, (place.amounts, given), (dot, dots))
    still = walk.entered(dot, step.row)
    if DURATION in moving:
        longer = step.fraction * dots[rows.index(DURATION)]
        speed = _speed(walk, step, place.amounts)
        still = tuple(s + longer * v for s, v in zip(still, speed, strict=True))
    new_dot = chosen(_moves(step), new_dot, still)
    landed = masked(new_dot, columns(at_leg(operands[KEEP], step.leg)))
    if JUMP in moving:
        jump = columns(at_leg(moving[JUMP], step.leg))
        landed = tuple(d + j for d, j in zip(landed, jump, strict=True))
    dot = chosen(good & step.lands, landed, chosen(good, new_dot, dot))
    return moved(operands, place, step, good, new), dot


def _led(
    walk: Walk,
    step: Step,
    rows: Sequence[int],
    behind: Array,
    amounts: Scalars,
    given: Sequence[Array],
) -> Scalars:
    """Return where a step leads, with some of its operands given apart."""
    full = list(step.row)
    for i, x in zip(rows, given, strict=True):
        full[i - START] = x
    return jax.vmap(walk.advance)(amounts, full, behind, step.fraction)[0]


def _moves(step: Step) -> Bool[Array, "*l"]:
    """Return whether time goes by in a step.

    Where none does it only masks, whatever its derivative says: that of a rate may be infinite where a
    compartment is still empty.
    """
    return step.fraction * step.row[DURATION - START] > 0


def _speed(walk: Walk, step: Step, amounts: Scalars) -> Scalars:
    """Return dA/dt at the start of the step's leg."""

    def one(amounts: Scalars, row: Sequence[Any]) -> Scalars:
        return walk.rate(row)(row[0], walk.entered(amounts, row))

    return jax.vmap(one)(amounts, step.row)


def pull(
    walk: Walk, which: Which, operands: Sequence[Array], status: Int[Array, "*l"], record: Record,
    cotangent: Float[Array, "l e n"],
) -> list[Array]:  # fmt: skip
    """Return the cotangents of some operands, from that of the amounts after each event.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    which : tuple of int
        The operands that are asked for.
    operands : sequence of Array
        All of them.
    status : Int[Array, "lane"]
        Cotangents are NaN where it is not DONE and something depends on the amounts.
    record : Record
        The steps.
    cotangent : Float[Array, "lane event n"]
        Of the amounts.
    """
    found = _Back(walk, which, operands, cotangent, record).all_rounds()
    bad = jnp.where((status != DONE) & (cotangent != 0).any((1, 2)), jnp.nan, 0)
    return [found[i] + _spread(bad, found[i]) for i in which]


def _spread(x: Array, like: Array) -> Array:
    """Return a value of each lane with as many axes as another array."""
    return x.reshape(-1, *(1,) * (like.ndim - 1))


@dataclasses.dataclass(frozen=True)
class _Back:
    """The reverse pass over the lanes of one loop.

    The cotangents of what varies from leg to leg are added up from the leg's end to its beginning, and
    those of what lasts from the walk's.
    """

    walk: Walk
    which: Which
    operands: Sequence[Array]
    cotangent: Array
    record: Record

    @property
    def _by_leg(self) -> list[int]:
        return [i for i in self.which if START <= i < self.walk.lasting]

    @property
    def _lasting(self) -> list[int]:
        return [i for i in self.which if i >= self.walk.lasting]

    def all_rounds(self) -> dict[int, Array]:
        """Return the cotangent of each operand that is asked for."""
        place = begin(self.operands[INITIAL])[0]
        amounts = tuple(jnp.zeros_like(a) for a in place.amounts)
        by_leg = [jnp.zeros_like(self.operands[i][:, 0]) for i in self._by_leg]
        lasting = [jnp.zeros_like(self.operands[i]) for i in self._lasting]
        noted = (amounts if JUMP in self.which else (), by_leg)
        totals = jax.tree.map(
            lambda x: jnp.zeros((len(x), self.walk.events, *x.shape[1:]), x.dtype), noted
        )
        carry = (
            (self.record.turns.max() + ROUND - 1) // ROUND - 1, (amounts, by_leg, lasting), totals,
            rings(place, ROUND + 1), rings(noted),
        )  # fmt: skip
        _, (amounts, first, lasting), (jumps, later), _, _ = jax.lax.while_loop(
            lambda c: c[0] >= 0, self._one_round, carry
        )
        found = {INITIAL: jnp.stack(amounts, -1)}
        if jumps:
            found[JUMP] = jnp.stack(jumps, -1)
        for i, a, b in zip(self._by_leg, first, later, strict=True):
            found[i] = jnp.concatenate([a[:, None], b[:, :-1]], 1)
        return found | dict(zip(self._lasting, lasting, strict=True))

    def _one_round(self, carry: Any) -> Any:
        """Return the cotangents before a round, from those after it."""
        i, sums, totals, ring, back = carry
        turns = jnp.minimum(ROUND, self.record.turns.max() - i * ROUND)
        codes = _codes(self.record, i)
        place = taken(jax.tree.map(jnp.transpose, self.record.marks), i)

        def again(inner: Any) -> Any:
            j, place, ring = inner
            return j + 1, self._again(place, taken(codes, j)), put(ring, j, place)

        def one_turn(inner: Any) -> Any:
            j, sums, back = inner
            sums, noted = self._one_turn(sums, taken(ring, j), taken(codes, j))
            return j - 1, sums, put(back, j, noted)

        _, place, ring = jax.lax.while_loop(
            lambda c: c[0] < turns, again, (jnp.int32(0), place, ring)
        )
        ring = put(ring, turns, place)
        _, sums, back = jax.lax.while_loop(lambda c: c[0] >= 0, one_turn, (turns - 1, sums, back))
        if jax.tree.leaves(totals):
            rows = arrivals(ring.leg, turns, self.walk.events, 0)
            totals = jax.tree.map(lambda t, b: collected(t, b, rows), totals, back)
        return i - 1, sums, totals, ring, back

    def _again(self, place: Place, code: UInt16[Array, "*l"]) -> Place:
        """Return where lanes are after a step is taken again."""
        step, good = step_of(self.walk, self.operands, place, code)
        new = _led(self.walk, step, (), place.behind, place.amounts, ())
        return moved(self.operands, place, step, good, new)

    def _one_turn(self, sums: Any, place: Place, code: UInt16[Array, "*l"]) -> Any:
        """Return the cotangents before a turn, and what to note of those after it."""
        after, by_leg, lasting = sums
        step, good = step_of(self.walk, self.operands, place, code)
        arrives = good & step.lands
        given = columns(at_leg(self.cotangent, step.leg))
        keep = columns(at_leg(self.operands[KEEP], step.leg))
        landed = tuple(a + g for a, g in zip(after, given, strict=True))
        noted = (chosen(arrives, landed, after) if JUMP in self.which else (), by_leg)
        end = chosen(arrives, masked(landed, keep), after)
        before, gains = self._stepped(end, place, step)
        by_leg = [
            jnp.where(_spread(arrives, x), 0, x) + gains[i]
            for i, x in zip(self._by_leg, by_leg, strict=True)
        ]
        lasting = [x + gains[i] for i, x in zip(self._lasting, lasting, strict=True)]
        return (chosen(good, before, after), by_leg, lasting), noted

    def _stepped(self, end: Scalars, place: Place, step: Step) -> tuple[Scalars, dict[int, Array]]:
        """Return the cotangents before a step: of the amounts, and of the operands."""
        rows = [*self._by_leg, *self._lasting]
        given = [step.row[i - START] for i in rows]
        led = functools.partial(_led, self.walk, step, rows, place.behind)
        before, found = jax.vjp(led, place.amounts, given)[1](end)
        moves = _moves(step)
        gains = {i: jnp.where(_spread(moves, x), x, 0) for i, x in zip(rows, found, strict=True)}
        if DURATION in gains:
            speed = _speed(self.walk, step, place.amounts)
            still = step.fraction * sum(e * v for e, v in zip(end, speed, strict=True))
            gains[DURATION] = jnp.where(moves, gains[DURATION], still)
        return chosen(moves, before, self.walk.entered(end, step.row)), gains
