"""What do all lanes of a population have in common: its rates, its sizes, and how it is integrated?"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from popk.structural.elimination import Scalars
from popk.structural.stepping import Rate, explicit, implicit

#: Where the operands of a walk are: two of the lane as a whole or of its events, then those of each leg,
#: and from `Walk.lasting` on what lasts.
INITIAL, JUMP, KEEP, START, DURATION, INFLOW, ON = range(7)

_METHODS = {"explicit": explicit, "implicit": implicit}
_LANES = 64  # in a loop; with 2 to 4 compartments 32 and 128 take 1.0 to 1.4 times as long


class Solver(NamedTuple):
    """How a population is integrated.

    Attributes
    ----------
    method : "explicit" or "implicit"
        Tsitouras 5(4), or Rodas5P, of order 5(4) too, for stiff systems.
    rtol, atol : float
        Tolerances of a step's error: relative to the amounts, and absolute [amount].
    max_steps : int or None
        The most steps of a lane, rejected ones and legs of no duration included; None: 4,000 and 100 for
        each event.
    bucket : int or None
        How many lanes share a loop, so that a slow one delays few; None: 64.
    """

    method: Literal["explicit", "implicit"] = "explicit"
    rtol: float = 1e-7
    atol: float = 1e-9
    max_steps: int | None = None
    bucket: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """What is the same in all lanes.

    Attributes
    ----------
    rates : callable
        dA/dt of one lane, a scalar for each compartment: from the time, the amounts (scalars too), and
        the operands that vary from leg to leg and those that last.
    compartments, events : int
        How many.
    switches : bool
        Whether compartments are turned on and off.
    varying : int
        How many operands vary from leg to leg.
    solver : Solver
        How to integrate.
    """

    rates: Callable[[Any, Scalars, Sequence[Any]], Scalars]
    compartments: int
    events: int
    switches: bool
    varying: int
    solver: Solver

    @property
    def lasting(self) -> int:
        """Return where the operands begin that do not change from leg to leg."""
        return ON + self.switches + self.varying

    @property
    def limit(self) -> int:
        """Return the most turns of a lane."""
        return self.solver.max_steps or 4000 + 100 * self.events

    @property
    def bucket(self) -> int:
        """Return how many lanes share a loop."""
        return self.solver.bucket or _LANES

    def row(self, operands: Sequence[Array], leg: Int[Array, "*l"]) -> list[Array]:
        """Return the operands from START on, as they are in each lane's leg."""
        changing = [at_leg(x, leg) for x in operands[START : self.lasting]]
        return [*changing, *operands[self.lasting :]]

    def rate(self, row: Sequence[Any]) -> Rate:
        """Return dA/dt of one lane in a leg: what flows in included, compartments off left out."""
        rest = row[INFLOW - START :]
        inflow = columns(rest[0])
        if not self.switches:
            return lambda t, amounts: _added(self.rates(t, amounts, rest[1:]), inflow)
        on = columns(rest[1])

        def switched(t: Any, amounts: Scalars) -> Scalars:
            return masked(_added(self.rates(t, masked(amounts, on), rest[2:]), inflow), on)

        return switched

    def entered(self, amounts: Scalars, row: Sequence[Any]) -> Scalars:
        """Return amounts as a leg takes them over: 0 in compartments that are off."""
        return masked(amounts, columns(row[ON - START])) if self.switches else amounts

    def advance(self, amounts: Scalars, row: Sequence[Any], behind: Any, fraction: Any) -> Any:
        """Return one lane's amounts after a fraction of its leg, and an estimate of their error."""
        start, duration = row[:2]
        method = _METHODS[self.solver.method]
        t, h = start + behind * duration, fraction * duration
        return method(self.rate(row), t, h, self.entered(amounts, row))


def columns(x: Array) -> tuple[Array, ...]:
    """Return the last axis of an array as a tuple.

    Parameters
    ----------
    x : Float[Array, "... n"]
        Any array.
    """
    return tuple(x[..., i] for i in range(x.shape[-1]))


def loaded(operands: Sequence[Array]) -> Scalars:
    """Return the amounts that each lane begins with and its largest jumps: how fast it may change.

    Parameters
    ----------
    operands : sequence of Array
        Of a walk.
    """
    return columns(operands[INITIAL] + jnp.abs(operands[JUMP]).max(1))


def at_leg(x: Array, leg: Int[Array, "*l"]) -> Array:
    """Return what an operand is in each lane's leg.

    Parameters
    ----------
    x : Float[Array, "lane event ..."]
        The operand.
    leg : Int[Array, "lane"]
        Which leg.
    """
    return jax.vmap(lambda x, i: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False))(x, leg)


def chosen(where: Bool[Array, "*l"], yes: Scalars, no: Scalars) -> Scalars:
    """Return one of two tuples of amounts, lane by lane.

    Parameters
    ----------
    where : Bool[Array, "lane"]
        Which lanes take the first.
    yes, no : tuple of Float[Array, "lane"]
        The two.
    """
    return tuple(jnp.where(where, a, b) for a, b in zip(yes, no, strict=True))


def masked(amounts: Scalars, on: Scalars) -> Scalars:
    """Return amounts, 0 in compartments that are off or reset.

    Parameters
    ----------
    amounts, on : tuple of Float[Array, "..."]
        ``on`` is 1 or 0.
    """
    return tuple(a * o for a, o in zip(amounts, on, strict=True))


def _added(a: Scalars, b: Scalars) -> Scalars:
    return tuple(x + y for x, y in zip(a, b, strict=True))
