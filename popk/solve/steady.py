r"""What are the amounts at steady state? Exactly, for a linear system.

With :math:`P(t)` the propagator and :math:`I(t)` what the inputs of one interval :math:`\tau` leave at a
time t into it, the amounts just before a dose are :math:`A_0 = (1 - P(\tau))^{-1} I(\tau)`, and
:math:`P(t) A_0 + I(t)` at t. An infusion longer than :math:`\tau` is a constant one, as many times as it is
whole intervals long, and the rest.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from popk.records.events import RESET
from popk.solve.legs import Legs
from popk.solve.schedule import Doses, Dosing, Schedule, phase, tails
from popk.trial import Design

Scalar = Float[Array, ""]
Square = Float[Array, "n n"]
Move = Callable[[Scalar], tuple[Square, Square]]


def steady_state(
    move: Move,
    rates: Square,
    unit: Float[Array, " n"],
    source: Float[Array, " n"],
    *,
    dose: Doses,
    every: Scalar,
    since: Scalar | None,
) -> Float[Array, " n"]:
    """Return the amounts at steady state; 0 in compartments that nothing leaves, such as urine.

    Parameters
    ----------
    move : Callable
        ``move(t)`` gives P and Q over an interval of length t.
    rates : Float[Array, "compartment compartment"]
        The rate matrix [1/time].
    unit : Float[Array, "compartment"]
        1 for the compartment dosed.
    source : Float[Array, "compartment"]
        What always flows in [amount/time].
    dose : Doses of arrays []
        Amount 0 is a constant infusion.
    every : Float[Array, ""]
        The interval between doses [time].
    since : Float[Array, ""] or None
        The time since the last dose [time], from 0 to `every`; None: the whole interval.
    """
    constant = dose.amount == 0
    every = jnp.where(constant, 1.0, every)
    whole = jnp.floor(dose.length / every)
    rest = dose.length - whole * every
    inflow, collects = unit * dose.rate, (rates == 0).all(0)

    def inputs(t: Scalar) -> Float[Array, " n"]:
        P, Q = move(t)
        during = jnp.minimum(t, rest)
        began = move(t - during)[0] @ (move(during)[1] @ inflow)
        given = jnp.where(dose.rate > 0, whole * (Q @ inflow) + began, P @ (unit * dose.amount))
        return given + Q @ source

    identity = jnp.eye(len(unit), dtype=rates.dtype)
    left = jnp.where(constant, -rates, identity - move(every)[0])
    left = jnp.where(collects[:, None] | collects[None, :], identity, left)
    b = jnp.where(constant, inflow + source, inputs(every))
    before = jnp.linalg.solve(left, jnp.where(collects, 0.0, b))
    if since is None:
        return before
    seen = jnp.where(collects, 0.0, move(since)[0] @ before + inputs(since))
    return jnp.where(constant, before, seen)


class SteadyDoses(NamedTuple):
    """The doses of one subject that are given at steady state; every field has a leading axis of them.

    Attributes
    ----------
    at : Int[Array, "dose"]
        The event; beyond the last one where there is none.
    unit : Float[Array, "dose compartment"]
        1 for the compartment dosed.
    dose : Doses
        Of each; amount 0 is a constant infusion.
    every : Float[Array, "dose"]
        The interval [time].
    since : Float[Array, "dose"] or None
        The time since the last dose that has arrived [time]; None: the whole interval.
    running : Float[Array, "dose"] or None
        How many infusions run, the dose's own left out; None: none.
    """

    at: Int[Array, "*d"]
    unit: Float[Array, "*d n"]
    dose: Doses
    every: Float[Array, "*d"]
    since: Float[Array, "*d"] | None
    running: Float[Array, "*d"] | None


def steady_doses(plan: Schedule, n: int, design: Design, dosing: Dosing) -> SteadyDoses:
    """Return the doses of a schedule that are given at steady state.

    Parameters
    ----------
    plan : Schedule
    n : int
        The number of compartments.
    design : Design
    dosing : Dosing
    """
    none = plan.acts.shape[0]
    (at,) = jnp.nonzero(plan.events.steady > 0, size=design.steady, fill_value=none)
    dose, events = jax.tree.map(lambda x: x.at[at].get(mode="clip"), (plan.doses, plan.events))
    # What fills up to a fixed number must make no NaN gradient either.
    every = jnp.where(at < none, events.interval, 1.0)
    length = jnp.where(at < none, dose.length, 0.0)
    dose = dose._replace(amount=jnp.where(events.amount > 0, dose.amount, 0.0), length=length)
    lagged, ends = bool(dosing.lag), tails(design, bool(dosing.lag), bool(dosing.F))
    since, count = phase(dose.lag, every)[0], None
    if ends:
        ages = since[:, None] + every[:, None] * jnp.arange(ends, dtype=every.dtype)[None]
        overlapping = (length[:, None] > ages).sum(-1).astype(length.dtype)
        count = jnp.where(dose.amount > 0, overlapping, jnp.where(dose.lag > 0, 1.0, 0.0))
    unit = jax.nn.one_hot(dose.into, n, dtype=length.dtype)
    return SteadyDoses(at, unit, dose, every, since if lagged else None, count)


def turned_on(legs: Legs, steady: SteadyDoses, plan: Schedule) -> Legs:
    """Return the legs with those compartments on that are so in each steady state.

    The first of its doses turned its own compartment on, and a reset before it all of them.
    """
    if legs.on is None:
        return legs
    on = jnp.where((plan.events.wipes == RESET)[:, None], 1.0, legs.on)
    return legs._replace(on=on.at[steady.at].max(steady.unit, mode="drop"))


def with_steady_states(legs: Legs, steady: SteadyDoses, amounts: Float[Array, "d n"]) -> Legs:
    """Return the legs with steady states put where SS 1 and 2 put them, and infusions that still run.

    Parameters
    ----------
    legs : Legs
    steady : SteadyDoses
    amounts : Float[Array, "dose compartment"]
        The amounts of each steady state.
    """
    legs = legs._replace(jump=legs.jump.at[steady.at].add(amounts, mode="drop"))
    if steady.running is None:
        return legs
    inflow = steady.unit * (steady.running * steady.dose.rate)[:, None]
    return legs._replace(switch=legs.switch.at[steady.at].add(inflow, mode="drop"))
