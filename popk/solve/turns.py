"""What happens in one turn of the loop that lanes share, each at its own leg, time and step?

A turn tries one step in each lane. Where its error is small enough the amounts move, and where it ends
its leg the event happens. The step is a fraction of its leg, and derivatives hold that fraction: a leg
that gets longer takes its steps along. Which steps were taken is written down, because what decided on
them may be rounded otherwise when it is computed again.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt16

from popk.solve.walks import (
    DURATION,
    INFLOW,
    JUMP,
    KEEP,
    START,
    Walk,
    at_leg,
    chosen,
    columns,
    loaded,
    masked,
)
from popk.structural.elimination import Scalars

#: What a lane's status says: all is well, the step limit was reached, or steps became too small.
DONE, LIMITED, BROKEN = range(3)

_SAFETY, _SHRINK, _GROWTH = 0.95, 0.2, 6.0  # of the next step
_STABLE = (
    3.0  # rate constant times step up to which the explicit method lets what it steps over decay
)
_ORDER = 5  # both methods' error estimates shrink as the step's fifth power
_LANDING = 0x4000  # the code of a step that ends its leg: that of a fraction of 2


class Place(NamedTuple):
    """Where each lane is.

    Attributes
    ----------
    amounts : tuple of Float[Array, "lane"]
        For each compartment [amount].
    behind : Float[Array, "lane"]
        The fraction of the leg that is done.
    leg : Int[Array, "lane"]
        Which leg.
    """

    amounts: tuple[Float[Array, "*l"], ...]
    behind: Float[Array, "*l"]
    leg: Int[Array, "*l"]


class Pace(NamedTuple):
    """How each lane goes on.

    Attributes
    ----------
    step : Float[Array, "lane"]
        How far to try next [time].
    restart : Float[Array, "lane"]
        The first step that succeeded after amounts or inflow last jumped: a guess for the next time.
    fresh : Bool[Array, "lane"]
        Whether none has yet.
    status : Int[Array, "lane"]
        DONE, LIMITED or BROKEN.
    """

    step: Float[Array, "*l"]
    restart: Float[Array, "*l"]
    fresh: Bool[Array, "*l"]
    status: Int[Array, "*l"]


class Step(NamedTuple):
    """A step of each lane.

    Attributes
    ----------
    leg : Int[Array, "lane"]
        Of which leg; the last one where a lane is done.
    row : list of Array
        The operands from START on, as they are in that leg.
    fraction : Float[Array, "lane"]
        Of the leg; 0 where nothing is to move.
    lands : Bool[Array, "lane"]
        Whether it ends the leg.
    """

    leg: Int[Array, "*l"]
    row: list[Array]
    fraction: Float[Array, "*l"]
    lands: Bool[Array, "*l"]


def begin(initial: Float[Array, "*l n"]) -> tuple[Place, Pace]:
    """Return where lanes are before their first leg, and how they begin.

    Parameters
    ----------
    initial : Float[Array, "lane n"]
        Amounts then [amount].
    """
    zero = jnp.zeros_like(initial[:, 0])
    none = jnp.zeros(zero.shape, jnp.int32)
    return Place(columns(initial), zero, none), Pace(
        zero + jnp.inf, zero + jnp.inf, zero == 0, none
    )


def walking(walk: Walk, place: Place, pace: Pace) -> Bool[Array, "*l"]:
    """Return which lanes have not finished.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    place, pace : Place and Pace
        Where they stand.
    """
    return (place.leg < walk.events) & (pace.status == DONE)


def jumps(operands: Sequence[Array]) -> Bool[Array, "l e"]:
    """Return which events make amounts or inflow jump, so that the step before is no guide.

    Parameters
    ----------
    operands : sequence of Array
        Of a walk.
    """
    inflow = operands[INFLOW]
    after = jnp.concatenate([inflow[:, 1:], inflow[:, -1:]], 1)
    return ((operands[JUMP] != 0) | (operands[KEEP] != 1) | (after != inflow)).any(-1)


def longest(walk: Walk, operands: Sequence[Array]) -> tuple[Float[Array, "*l"], ...]:
    """Return how long a step may be while a compartment is empty, for each compartment [time].

    An empty compartment makes no error however long the step is. But beyond what is stable a step
    multiplies any derivative in its amount, and after many the derivatives of all parameters are no
    numbers.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    operands : sequence of Array
        What they are given.
    """
    if walk.solver.method == "implicit":
        return ()

    def slopes(amounts: Scalars, row: list[Array]) -> Scalars:
        rate = walk.rate(row)
        found = []
        for i, amount in enumerate(amounts):
            own = partial(_with, amounts, i)
            along = jax.jvp(
                lambda x, own=own: rate(row[0], own(x)), (0 * amount,), (amount * 0 + 1,)
            )
            found.append(jnp.abs(along[1][i]))
        return tuple(found)

    def of_lane(amounts: Scalars, changing: list[Array], lasting: list[Array]) -> Scalars:
        return jax.vmap(lambda legs: slopes(amounts, [*legs, *lasting]))(changing)

    changing, lasting = list(operands[START : walk.lasting]), list(operands[walk.lasting :])
    found = jax.vmap(of_lane)(loaded(operands), changing, lasting)
    fastest = (jnp.where(jnp.isfinite(x), x, 0).max(1) for x in found)
    return tuple(jnp.where(x > 0, _STABLE / jnp.where(x > 0, x, 1), jnp.inf) for x in fastest)


def _with(amounts: Scalars, i: int, amount: Any) -> Scalars:
    return (*amounts[:i], amount, *amounts[i + 1 :])


def turn(
    walk: Walk,
    operands: Sequence[Array],
    jump: Bool[Array, "l e"],
    most: Sequence[Float[Array, "*l"]],
    place: Place,
    pace: Pace,
) -> tuple[Place, Pace, UInt16[Array, "*l"]]:
    """Return where lanes are after one step is tried in each, how they go on, and the code of the step.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    operands : sequence of Array
        What they are given.
    jump : Bool[Array, "lane event"]
        See `jumps`.
    most : sequence of Float[Array, "lane"]
        See `longest`.
    place, pace : Place and Pace
        Where they stand.
    """
    for amount, length in zip(place.amounts, most, strict=False):
        pace = pace._replace(step=jnp.where(amount == 0, jnp.minimum(pace.step, length), pace.step))
    step, length = _attempt(walk, operands, place, pace)
    new, error = jax.vmap(walk.advance)(place.amounts, step.row, place.behind, step.fraction)
    going = walking(walk, place, pace)
    good, factor = _judged(walk, place.amounts, new, error)
    good = good & going
    moves, arrives = good & (length > 0), good & step.lands
    jumped = arrives & at_leg(jump, step.leg)
    restart = jnp.where(moves & pace.fresh, length, pace.restart)
    # A step cut short by its leg's end says nothing against longer ones.
    least = jnp.where(good & (length < pace.step), pace.step, 0)
    further = jnp.maximum(factor * length, least)
    further = jnp.where(jumped, jnp.minimum(further, restart), further)
    start, duration = step.row[:2]
    scale = jnp.maximum(jnp.abs(start), duration)
    stuck = going & ~good & ~(length > 16 * jnp.finfo(scale.dtype).eps * scale)
    then = Pace(
        jnp.where(going, further, pace.step),
        restart,
        jumped | (pace.fresh & ~moves),
        jnp.where(stuck, BROKEN, pace.status).astype(jnp.int32),
    )
    return moved(operands, place, step, good, new), then, _code(step, good)


def _attempt(
    walk: Walk, operands: Sequence[Array], place: Place, pace: Pace
) -> tuple[Step, Float[Array, "*l"]]:
    """Return the step to try and its length: to the leg's end, half way where two get there, or all of it."""
    leg = jnp.minimum(place.leg, walk.events - 1)
    row = walk.row(operands, leg)
    duration = row[DURATION - START]
    left = (1 - place.behind) * duration
    lands = pace.step >= left * (1 - 1e-9)
    share = jnp.minimum(pace.step, left / 2) / jnp.where(duration > 0, duration, 1)
    # Eight binary digits: what the code has room for.
    share = jax.lax.reduce_precision(share, exponent_bits=8, mantissa_bits=7)
    fraction = jnp.where(lands, 1 - place.behind, share)
    return Step(leg, row, fraction, lands), jnp.where(lands, left, share * duration)


def _judged(walk: Walk, old: Scalars, new: Scalars, error: Scalars) -> tuple[Array, Array]:
    """Return whether a step is good, and by how much to multiply the next."""
    rtol, atol = walk.solver.rtol, walk.solver.atol
    scaled = [
        e / (atol + rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)))
        for e, a, b in zip(error, old, new, strict=True)
    ]
    norm = jnp.sqrt(sum(s * s for s in scaled) / len(scaled))
    # Without a barrier XLA computes the whole step anew for each thing that depends on its error.
    norm, new = jax.lax.optimization_barrier((norm, new))
    # Its fifth root in single precision: that of doubles is not vectorized.
    single = jnp.clip(norm, 1e-10, 1e10).astype(jnp.float32)
    root = jnp.exp(jnp.log(single) * jnp.float32(-1 / _ORDER)).astype(norm.dtype)
    factor = jnp.where(jnp.isfinite(norm), jnp.clip(_SAFETY * root, _SHRINK, _GROWTH), 0.1)
    good = norm <= 1
    for amount in new:
        good = good & jnp.isfinite(amount)
    return good, factor


def moved(
    operands: Sequence[Array], place: Place, step: Step, good: Bool[Array, "*l"], new: Scalars
) -> Place:
    """Return where lanes are after a step, and after the event where it ends a leg.

    Parameters
    ----------
    operands : sequence of Array
        What the lanes are given.
    place : Place
        Where they were.
    step : Step
        Which step.
    good : Bool[Array, "lane"]
        Whether it is taken.
    new : tuple of Float[Array, "lane"]
        The amounts that it leads to.
    """
    arrives = good & step.lands
    keep, jump = (columns(at_leg(operands[i], step.leg)) for i in (KEEP, JUMP))
    landed = tuple(a + j for a, j in zip(masked(new, keep), jump, strict=True))
    return Place(
        chosen(arrives, landed, chosen(good, new, place.amounts)),
        jnp.where(arrives, 0, jnp.where(good, place.behind + step.fraction, place.behind)),
        place.leg + arrives.astype(jnp.int32),
    )


def _code(step: Step, good: Bool[Array, "*l"]) -> UInt16[Array, "*l"]:
    """Return a step in 16 bits, so that those of a long walk can be written down; 0 is none."""
    bits = jax.lax.bitcast_convert_type(step.fraction.astype(jnp.float32), jnp.uint32)
    high = jnp.right_shift(bits, jnp.uint32(16)).astype(jnp.uint16)
    return jnp.where(good, jnp.where(step.lands, jnp.uint16(_LANDING), high), jnp.uint16(0))


def step_of(
    walk: Walk, operands: Sequence[Array], place: Place, code: UInt16[Array, "*l"]
) -> tuple[Step, Bool[Array, "*l"]]:
    """Return the step that a code stands for, and whether it is one.

    Parameters
    ----------
    walk : Walk
        What the lanes have in common.
    operands : sequence of Array
        What they are given.
    place : Place
        Where they were.
    code : UInt16[Array, "lane"]
        As `turn` gave it.
    """
    bits = jnp.left_shift(code.astype(jnp.uint32), jnp.uint32(16))
    fraction = jax.lax.bitcast_convert_type(bits, jnp.float32).astype(place.behind.dtype)
    lands = code == _LANDING
    leg = jnp.minimum(place.leg, walk.events - 1)
    fraction = jnp.where(lands, 1 - place.behind, fraction)
    return Step(leg, walk.row(operands, leg), fraction, lands), code > 0
