"""How do the amounts after each event follow a walk's operands? Derivatives of the steps that were taken.

Forward, a tangent goes along with the amounts. In reverse, each round is walked again from where it
began, and its steps taken back from the last: the discrete adjoint, exact for the numbers computed.
Which steps were taken is not differentiated.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from popk.solve.rounds import ROUND, arrivals, collected, onward, put, rings, taken
from popk.solve.turns import (
    DONE, DURATION, INITIAL, JUMP, KEEP, ON, START, Attempt, Lanes, State, Walk, at_leg,
    chosen, columns, masked,
)  # fmt: skip
from popk.structural.elimination import Scalars

Which = tuple[int, ...]


def push(
    walk: Walk, which: Which, operands: Sequence[Array], status: Array, tangents: Sequence[Array]
) -> Float[Array, "l e n"]:
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
        NaN where it is not DONE.
    tangents : sequence of Array
        How those of ``which`` move.
    """
    lanes = walk.lanes(operands)
    moving = dict(zip(which, tangents, strict=True))

    def turn(pair: tuple[State, Scalars]) -> tuple[State, Scalars]:
        state, dot = pair
        tried = walk.attempt(state, lanes)
        new, error, new_dot = _pushed(walk, state, tried, dot, moving)
        result = walk.settle(state, tried, new, error, lanes)
        dot = chosen(result.moved > 0, new_dot, dot)
        keep = columns(at_leg(operands[KEEP], tried.leg))
        landed = masked(dot, keep)
        if JUMP in moving:
            jump = columns(at_leg(moving[JUMP], tried.leg))
            landed = tuple(d + j for d, j in zip(landed, jump, strict=True))
        return result.state, chosen(result.arrives, landed, dot)

    first = moving.get(INITIAL, jnp.zeros_like(operands[INITIAL]))
    begin = walk.begin(operands[INITIAL]), columns(first)
    after = onward(walk, begin, turn, lambda pair: pair[1])[1]
    return jnp.where((status == DONE)[:, None, None], jnp.stack(after, -1), jnp.nan)


def _pushed(
    walk: Walk, state: State, tried: Attempt, dot: Scalars, moving: dict[int, Array]
) -> tuple[Scalars, Scalars, Scalars]:
    """Return where a step leads, its error, and its tangent."""
    rows = [i for i in moving if i >= START]
    dots = [at_leg(moving[i], tried.leg) if i < walk.lasting else moving[i] for i in rows]
    step = functools.partial(_step, walk, tried.row, rows, state.behind, tried.fraction)
    known = state.amounts, [tried.row[i - START] for i in rows]
    (new, error), (new_dot, _) = jax.jvp(step, known, (dot, dots))
    still = _at_rest(walk, dot, tried.row)
    if DURATION in moving:
        drift = jax.vmap(_drift, (None, 0, 0))(walk, tried.row, state.amounts)
        longer = tried.fraction * dots[rows.index(DURATION)]
        still = tuple(s + longer * f for s, f in zip(still, drift, strict=True))
    return new, error, chosen(tried.length > 0, new_dot, still)


def _step(
    walk: Walk, row: Sequence[Array], rows: Sequence[int], behind: Array, fraction: Array,
    amounts: Scalars, given: Sequence[Array],
) -> tuple[Scalars, Scalars]:  # fmt: skip
    """Return where a step leads and its error, with some of its operands given apart."""
    full = list(row)
    for i, x in zip(rows, given, strict=True):
        full[i - START] = x
    return jax.vmap(walk.advance)(amounts, full, behind, fraction)


def _at_rest(walk: Walk, amounts: Scalars, row: Sequence[Array]) -> Scalars:
    """Return what a leg of no duration makes of amounts, or of their tangents: its masks only.

    The derivative of a rate may be infinite where a compartment is still empty.
    """
    return masked(amounts, columns(row[ON - START])) if walk.switches else amounts


def _drift(walk: Walk, row: Sequence[Any], amounts: Scalars) -> Scalars:
    """Return one lane's dA/dt at the start of a leg."""
    return walk.rate(row)(row[0], _at_rest(walk, amounts, row))


def pull(
    walk: Walk, which: Which, operands: Sequence[Array], records: Sequence[Array], cotangent: Array
) -> list[Array]:
    """Return the cotangents of some operands, from that of the amounts after each event.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    which : tuple of int
        The operands that are asked for.
    operands : sequence of Array
        All of them.
    records : sequence of Array
        The status and the turns of each lane, and where each round began [lane, round].
    cotangent : Float[Array, "lane event n"]
        Of the amounts.
    """
    status, turns, *marks = records
    back = _Back(walk, which, walk.lanes(operands), status == DONE, cotangent)
    shape = jax.tree.structure(walk.begin(operands[INITIAL]))
    found = back.all_rounds(turns.max(), jax.tree.unflatten(shape, [m.T for m in marks]))
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
    lanes: Lanes
    well: Array
    cotangent: Array

    @property
    def _by_leg(self) -> list[int]:
        return [i for i in self.which if START <= i < self.walk.lasting]

    @property
    def _lasting(self) -> list[int]:
        return [i for i in self.which if i >= self.walk.lasting]

    def all_rounds(self, turns: Int[Array, ""], marks: State) -> dict[int, Array]:
        """Return the cotangent of each operand that is asked for."""
        operands, events = self.lanes.operands, self.walk.events
        amounts = tuple(jnp.zeros_like(a[0]) for a in marks.amounts)
        by_leg = [jnp.zeros_like(operands[i][:, 0]) for i in self._by_leg]
        lasting = [jnp.zeros_like(operands[i]) for i in self._lasting]
        noted = (amounts if JUMP in self.which else (), by_leg)
        totals = jax.tree.map(
            lambda x: jnp.zeros((x.shape[0], events, *x.shape[1:]), x.dtype), noted
        )
        ring = rings((taken(marks, 0), amounts[0]), ROUND + 1)
        carry = (turns + ROUND - 1) // ROUND - 1, (amounts, by_leg, lasting), totals, ring, rings(noted)
        _, (amounts, first, lasting), (jumps, later), _, _ = jax.lax.while_loop(
            lambda c: c[0] >= 0, functools.partial(self._one_round, marks), carry
        )
        found = {INITIAL: jnp.stack(amounts, -1)}
        if jumps:
            found[JUMP] = jnp.stack(jumps, -1)
        for i, a, b in zip(self._by_leg, first, later, strict=True):
            found[i] = jnp.concatenate([a[:, None], b[:, :-1]], 1)
        return found | dict(zip(self._lasting, lasting, strict=True))

    def _one_round(self, marks: State, carry: Any) -> Any:
        """Return the cotangents before a round, from those after it."""
        i, sums, totals, ring, back = carry
        turns, ring = self._again(taken(marks, i), ring)

        def one_turn(inner: Any) -> Any:
            j, sums, back = inner
            sums, noted = self._one_turn(sums, *taken(ring, j))
            return j - 1, sums, put(back, j, noted)

        _, sums, back = jax.lax.while_loop(lambda c: c[0] >= 0, one_turn, (turns - 1, sums, back))
        if jax.tree.leaves(totals):
            rows = arrivals(ring[0].leg, turns, self.walk.events)
            totals = jax.tree.map(lambda t, b: collected(t, b, rows), totals, back)
        return i - 1, sums, totals, ring, back

    def _again(self, state: State, ring: Any) -> tuple[Array, Any]:
        """Return how many turns a round has, and the lanes' state and what they moved at each."""
        walk = self.walk
        state = state._replace(leg=jnp.where(self.well, state.leg, walk.events))

        def one_turn(carry: Any) -> Any:
            j, state, ring = carry
            result = walk.turn(state, self.lanes)
            signed = jnp.where(result.arrives, -result.moved, result.moved)
            return j + 1, result.state, put(ring, j, (state, signed))

        turns, state, ring = jax.lax.while_loop(
            lambda c: (c[0] < ROUND) & walk.walking(c[1]).any(), one_turn, (jnp.int32(0), state, ring)
        )
        return turns, put(ring, turns, (state, jnp.zeros_like(state.behind)))

    def _one_turn(self, sums: Any, state: State, signed: Array) -> Any:
        """Return the cotangents before a turn, and what to note of those after it."""
        after, by_leg, lasting = sums
        leg = jnp.minimum(state.leg, self.walk.events - 1)
        arrives, fraction = signed < 0, jnp.abs(signed)
        given = columns(at_leg(self.cotangent, leg))
        keep = columns(at_leg(self.lanes.operands[KEEP], leg))
        landed = tuple(a + g for a, g in zip(after, given, strict=True))
        noted = (chosen(arrives, landed, after) if JUMP in self.which else (), by_leg)
        before, gains = self._step(chosen(arrives, masked(landed, keep), after), state, leg, fraction)
        by_leg = [
            jnp.where(_spread(arrives, x), 0, x) + gains[i]
            for i, x in zip(self._by_leg, by_leg, strict=True)
        ]
        lasting = [x + gains[i] for i, x in zip(self._lasting, lasting, strict=True)]
        return (before, by_leg, lasting), noted

    def _step(
        self, end: Scalars, state: State, leg: Array, fraction: Array
    ) -> tuple[Scalars, dict[int, Array]]:
        """Return the cotangents before a step: of the amounts, and of the operands."""
        walk = self.walk
        row = walk.row(self.lanes.operands, leg)
        rows = [*self._by_leg, *self._lasting]

        def step(amounts: Scalars, given: list[Array]) -> Scalars:
            return _step(walk, row, rows, state.behind, fraction, amounts, given)[0]

        _, back = jax.vjp(step, state.amounts, [row[i - START] for i in rows])
        before, found = back(end)
        moves = fraction * row[DURATION - START] > 0
        gains = {
            i: jnp.where(_spread(moves, x), x, 0) for i, x in zip(rows, found, strict=True)
        }
        if DURATION in gains:
            drift = jax.vmap(_drift, (None, 0, 0))(walk, row, state.amounts)
            still = fraction * sum(e * f for e, f in zip(end, drift, strict=True))
            gains[DURATION] = jnp.where(moves, found[rows.index(DURATION)], still)
        rest = chosen(fraction > 0, _at_rest(walk, end, row), end)
        return chosen(moves, before, rest), gains
