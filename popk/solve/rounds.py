"""How do lanes go through many turns, and what is kept of them?

Turns are taken in rounds. Within a round each turn is written to the next row of a small ring, the same
row for all lanes, because XLA compiles such a loop to one fast function and a scatter would break it
up; between rounds what the events need is picked out, and what a derivative needs is put aside.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt16

from popk.solve.turns import DONE, LIMITED, Place, begin, jumps, longest, turn, walking
from popk.solve.walks import INITIAL, Walk

#: The most turns of a round: its ring stays in the processor's cache.
ROUND = 128


class Record(NamedTuple):
    """What was done, to do it again.

    Attributes
    ----------
    turns : Int[Array, "lane"]
        How many each lane took; 0 where it failed.
    codes : UInt16[Array, "lane turn"]
        Its steps.
    marks : Place of arrays [lane, round]
        Where it was when each round began.
    """

    turns: Int[Array, "*l"]
    codes: UInt16[Array, "l t"]
    marks: Place


def onward(walk: Walk, operands: Sequence[Array], recorded: bool) -> tuple[Array, Array, Any]:
    """Return the amounts after each event, the status of each lane, and what was done if asked for.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    operands : sequence of Array
        What they are given.
    recorded : bool
        Whether to return a `Record`; else None.
    """
    jump, most_empty, limit = jumps(operands), longest(walk, operands), walk.limit
    place, pace = begin(operands[INITIAL])
    lanes, rounds = len(place.leg), -(-limit // ROUND)
    after = tuple(jnp.zeros((lanes, walk.events), a.dtype) for a in place.amounts)
    none = jnp.zeros((lanes,), jnp.uint16)
    record = Record(jnp.zeros_like(place.leg), jnp.zeros((lanes, rounds * ROUND), jnp.uint16),
                    rings(place, rounds)) if recorded else None  # fmt: skip

    def one_turn(carry: Any) -> Any:
        i, place, pace, ring, codes = carry
        then, pace, code = turn(walk, operands, jump, most_empty, place, pace)
        ring = put(ring, i, (place.leg, place.amounts))
        return i + 1, then, pace, ring, put(codes, i, code) if recorded else codes

    def one_round(carry: Any) -> Any:
        i, place, pace, after, ring, codes, record = carry
        most = jnp.minimum(ROUND, limit - i * ROUND)
        turns, then, pace, ring, codes = jax.lax.while_loop(
            lambda c: (c[0] < most) & walking(walk, *c[1:3]).any(),
            one_turn, (jnp.int32(0), place, pace, ring, codes),
        )  # fmt: skip
        ring = put(ring, turns, (then.leg, then.amounts))
        rows = arrivals(ring[0], turns, walk.events, 1)
        after = tuple(collected(a, r, rows) for a, r in zip(after, ring[1], strict=True))
        if recorded:
            record = _noted(
                record, i, place, jnp.where(rows[:, -1] > 0, rows[:, -1], 0), codes, turns
            )
        return i + 1, then, pace, after, ring, codes, record

    ring = rings((place.leg, place.amounts), ROUND + 1)
    carry = jnp.int32(0), place, pace, after, ring, rings(none), record
    _, place, pace, after, _, _, record = jax.lax.while_loop(
        lambda c: (c[0] * ROUND < limit) & walking(walk, *c[1:3]).any(), one_round, carry
    )
    status = jnp.where(walking(walk, place, pace), LIMITED, pace.status).astype(jnp.int32)
    amounts = jnp.where((status == DONE)[:, None, None], jnp.stack(after, -1), jnp.nan)
    if recorded:
        record = record._replace(marks=jax.tree.map(jnp.transpose, record.marks))
    return amounts, status, record


def _noted(
    record: Record, i: Array, place: Place, last: Array, codes: Array, turns: Array
) -> Record:
    """Return a record with a round added: where it began, and its steps."""
    real = jnp.arange(ROUND, dtype=jnp.int32)[:, None] < turns
    steps = jnp.where(real, codes, jnp.uint16(0)).T
    return Record(
        jnp.where(last > 0, i * ROUND + last, record.turns),
        jax.lax.dynamic_update_slice_in_dim(record.codes, steps, i * ROUND, 1),
        put(record.marks, i, place),
    )


def rings(like: Any, rows: int = ROUND) -> Any:
    """Return room for as many rows as a round has turns.

    Parameters
    ----------
    like : pytree of Array
        One row.
    rows : int
        How many.
    """
    return jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), like)


def put(ring: Any, i: Any, row: Any) -> Any:
    """Return rings with one row written.

    Parameters
    ----------
    ring, row : pytrees of Array
        Of one structure.
    i : Int[Array, ""]
        Which row.
    """
    return jax.tree.map(lambda r, x: jax.lax.dynamic_update_index_in_dim(r, x, i, 0), ring, row)


def taken(ring: Any, i: Any) -> Any:
    """Return one row of rings.

    Parameters
    ----------
    ring : pytree of Array
        Where from.
    i : Int[Array, ""]
        Which row.
    """
    return jax.tree.map(lambda r: jax.lax.dynamic_index_in_dim(r, i, 0, keepdims=False), ring)


def arrivals(
    legs: Int[Array, "r l"], turns: Int[Array, ""], events: int, later: int
) -> Int[Array, "l e"]:
    """Return the row of a round's ring at which each lane arrived at each event, -1 where it did not.

    Parameters
    ----------
    legs : Int[Array, "row lane"]
        The lanes' legs before each turn, and after the last.
    turns : Int[Array, ""]
        How many there were; later rows mean nothing.
    events : int
        How many.
    later : int
        1 for the row after the turn of the arrival, 0 for that of the turn itself.
    """
    before, lanes = legs[:-1], legs.shape[1]
    turn = jnp.broadcast_to(jnp.arange(len(before), dtype=jnp.int32)[:, None], before.shape)
    arrived = (legs[1:] > before) & (turn < turns)
    place = jnp.arange(lanes, dtype=jnp.int32)[None] * events + before
    place = jnp.where(arrived, place, lanes * events)
    none = jnp.full((lanes * events,), -1, jnp.int32)
    return none.at[place.ravel()].set((turn + later).ravel(), mode="drop").reshape(lanes, events)


def collected(so_far: Array, ring: Array, rows: Int[Array, "l e"]) -> Array:
    """Return what each lane and event has of a ring, where this round has it.

    Parameters
    ----------
    so_far : Float[Array, "lane event ..."]
        What earlier rounds had.
    ring : Float[Array, "row lane ..."]
        A value at each turn.
    rows : Int[Array, "lane event"]
        Which row is an event's; -1 where none is.
    """
    lanes = ring.shape[1]
    place = jnp.maximum(rows, 0) * lanes + jnp.arange(lanes, dtype=jnp.int32)[:, None]
    found = ring.reshape(-1, *ring.shape[2:]).at[place].get(mode="promise_in_bounds")
    return jnp.where((rows >= 0).reshape(*rows.shape, *(1,) * (found.ndim - 2)), found, so_far)


def in_buckets(
    loop: Callable[[list[Array]], list[Array]], order: Array, arrays: Sequence[Array], size: int
) -> list[Array]:
    """Return the results of a loop that is run for some lanes after the others.

    Parameters
    ----------
    loop : callable
        From arrays of lanes to results of the same lanes.
    order : Int[Array, "lane"]
        The lanes, those together that take about as long.
    arrays : sequence of Array
        What the loop is given.
    size : int
        The most lanes at a time.
    """
    lanes = arrays[0].shape[0]
    if lanes <= size:
        return loop(list(arrays))
    buckets = -(-lanes // size)
    # Of one size, which vectors fill; the last bucket takes some of the one before again.
    size = min(lanes, -(-lanes // buckets // 8) * 8)
    small = [jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for x in arrays]
    results = [jnp.zeros((lanes, *s.shape[1:]), s.dtype) for s in jax.eval_shape(loop, small)]

    def one_bucket(i: Any, results: list[Array]) -> list[Array]:
        first = jnp.minimum(i * size, lanes - size)
        chosen = jax.lax.dynamic_slice_in_dim(order, first, size)
        found = loop([x[chosen] for x in arrays])
        return [
            jax.lax.dynamic_update_slice_in_dim(r, f, first, 0)
            for r, f in zip(results, found, strict=True)
        ]

    results = jax.lax.fori_loop(0, buckets, one_bucket, results)
    back = jnp.argsort(order)
    return [r[back] for r in results]
