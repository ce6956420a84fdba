r"""What are the amounts at each record of a population, where they must be integrated in small steps?

A steady state is a fixed point of one interval's map :math:`\Phi`, found by Newton's method:
:math:`A \leftarrow A - (1 - \Phi'(A))^{-1} (A - \Phi(A))`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from popk.records.events import EventTable
from popk.solve.clocks import Solver, walk
from popk.solve.legs import Legs, at_records, each, planned
from popk.solve.schedule import Dosing, Schedule, moved
from popk.solve.steady import SteadyDoses, steady_doses, turned_on, with_steady_states
from popk.trial import Design

_NEWTON = 40  # steps; a few suffice near a steady state

#: What `Amounts.status` says.
DONE, STEPS, BROKEN, UNSETTLED = range(4)


class Amounts(NamedTuple):
    """The amounts of a population, and what could not be computed.

    Attributes
    ----------
    amounts : Float[Array, "subject record compartment"]
        NaN where they could not be computed [amount].
    plans : Schedule
        With a leading axis of subjects.
    status : Int[Array, "subject"]
        DONE, STEPS (the step limit was reached), BROKEN (steps became too small, or amounts no
        numbers) or UNSETTLED (no steady state was found).
    """

    amounts: Float[Array, "s r n"]
    plans: Schedule
    status: Int[Array, " s"]


def integrate(
    rhs: Callable[..., Float[Array, " n"]],
    compartments: tuple[str, ...],
    dosed: str,
    parameters: Mapping[str, Float[Array, "s _"]],
    events: EventTable,
    n_records: int,
    *,
    design: Design,
    dosing: Dosing,
    options: Solver,
    inputs: Mapping[str, Callable[..., Any]] | None = None,
) -> Amounts:
    """Return the amounts in each compartment at each record of each subject.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)`` gives dA/dt [compartment] of one subject, infusions left out.
    compartments : tuple of str
        Their names, in the order of NONMEM's numbers.
    dosed : str
        The compartment of doses with CMT 0.
    parameters : mapping of str to Float[Array, "subject record"] or [subject, 1]
    events : EventTable of arrays [subject, event]
    n_records : int
        The length of the record axis.
    design : Design
    dosing : Dosing
        Of arrays [subject, record] or [subject, 1].
    options : Solver
    inputs : mapping of compartment to Callable, optional
        ``input(t, p)`` is the rate per unit dose at which boluses into it arrive, a time t after
        each [1/time].
    """
    inputs = inputs or {}
    plans, legs, start = planned(compartments, dosed, events, n_records, design, dosing)
    lanes = max([start.shape[0], *(v.shape[0] for v in parameters.values())])
    plans, legs, start = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (lanes, *x.shape[1:])), (plans, legs, start)
    )
    arriving, legs = _arriving(plans, legs, compartments, inputs, design)
    changing = {k: v for k, v in parameters.items() if v.shape[1] > 1}
    at_legs = {k: jnp.take_along_axis(v, plans.upcoming, axis=1) for k, v in changing.items()}
    constant = ({k: v[:, 0] for k, v in parameters.items() if v.shape[1] == 1}, arriving)
    wipes = (plans.events.wipes != 0).astype(plans.events.epoch.dtype)
    varying = (at_legs, jnp.cumsum(wipes, axis=1) - wipes)

    def rate(t: Any, A: Any, constant: Any, varying: Any) -> Any:
        (fixed, arriving), (now, wiped) = constant, varying
        p = {**fixed, **now}
        flow = rhs(t, A, p)
        for i, name in enumerate(compartments):
            if name in arriving:
                time, amount, epoch = arriving[name]
                since = jnp.where(epoch == wiped, t - time, -1.0)
                flow = flow.at[i].add((amount * inputs[name](since, p)).sum())
        return flow

    n, settled = len(compartments), jnp.ones(start.shape[:1], dtype=bool)
    if design.steady:
        steady = each(lambda plan, dosing: steady_doses(plan, n, design, dosing), plans, dosing)
        on = jax.vmap(turned_on)(legs, steady, plans)
        amounts, settled = _steady_states(
            rate, steady, start, on, constant=constant, varying=varying, options=options
        )
        legs = jax.vmap(with_steady_states)(legs, steady, amounts)
    after, status = walk(rate, start, legs, constant, varying, options)
    status = jnp.where(settled, status, UNSETTLED)
    if not design.plain or moved(design, dosing):
        after = each(lambda x, plan: x[at_records(plan, n_records)], after, plans)
    wrong = (plans.refused >= 0) | (plans.crowded >= 0) | (status != DONE)
    return Amounts(jnp.where(wrong[:, None, None], jnp.nan, after), plans, status)


def _arriving(
    plans: Schedule, legs: Legs, compartments: tuple[str, ...], inputs: Any, design: Design
) -> tuple[dict[str, tuple[Array, Array, Array]], Legs]:
    """Return when and how much is given into compartments with an input, and the legs without it.

    And the epoch of each dose, so that one that was wiped arrives no more.
    """

    def one(plan: Schedule, compartment: int) -> tuple[Array, Array, Array]:
        own = plan.acts & plan.events.gives & (plan.doses.rate == 0)
        own = own & (plan.doses.into == compartment)
        (at,) = jnp.nonzero(own, size=design.given, fill_value=0)
        real = jnp.arange(design.given) < own.sum()
        given = jnp.where(real, plan.doses.amount[at], 0.0)
        return plan.events.time[at], given, plan.events.epoch[at]

    tables, jump = {}, legs.jump
    for name in inputs:
        i = compartments.index(name)
        tables[name] = jax.vmap(lambda plan, i=i: one(plan, i))(plans)
        at_once = (
            plans.acts & plans.events.gives & (plans.doses.rate == 0) & (plans.doses.into == i)
        )
        at_once = jnp.where(at_once, plans.doses.amount, 0.0)
        jump = jump.at[..., i].add(-at_once)
    return tables, legs._replace(jump=jump)


def _steady_states(
    rate: Any,
    steady: SteadyDoses,
    start: Array,
    legs: Legs,
    *,
    constant: Any,
    varying: Any,
    options: Solver,
) -> tuple[Array, Array]:
    """Return the amounts of each subject's steady states [subject, dose, compartment], and who has theirs."""
    many, doses, n = steady.unit.shape

    def each(x: Array) -> Array:  # one lane for each steady state
        return x.reshape(many * doses, *x.shape[2:])

    def repeated(x: Array) -> Array:
        return jnp.repeat(x, doses, axis=0)

    at = jnp.minimum(steady.at, legs.duration.shape[1] - 1)
    real = each(steady.at < legs.duration.shape[1])
    lanes = jax.tree.map(each, steady)
    then = {k: each(jnp.take_along_axis(v, at, axis=1)) for k, v in varying[0].items()}
    fixed = (jax.tree.map(repeated, constant[0]) | then, {})
    nothing = ({}, jnp.zeros((many * doses, 3), dtype=varying[1].dtype))
    masks = None if legs.on is None else each(jnp.take_along_axis(legs.on, at[..., None], axis=1))
    none = lanes.dose.amount == 0
    every = jnp.where(none, 1.0, lanes.every)

    def after(amounts: Array, until: Array, lanes: SteadyDoses, fixed: Any) -> Array:
        cycle = _cycle(lanes, every, until, masks)
        return walk(rate, amounts, cycle, fixed, nothing, options)[0][:, -1]

    def balance(
        amounts: Array, lanes: SteadyDoses, fixed: Any
    ) -> Array:  # zero at the steady state
        whole = after(amounts, every, lanes, fixed) - amounts
        on = 1.0 if masks is None else masks
        flow = on * jax.vmap(lambda A, p: rate(0.0, A, p, ({}, 0)))(on * amounts, fixed)
        return jnp.where(none[:, None], flow + lanes.unit * lanes.dose.rate[:, None], whole)

    found, collects, converged = _root(balance, repeated(start), (lanes, fixed), real, options)
    seen = found
    if lanes.since is not None:
        seen = jnp.where(none[:, None], found, after(found, lanes.since, lanes, fixed))
        seen = jnp.where(collects, 0.0, seen)
    good = (converged | ~real).reshape(many, doses).all(1)
    return seen.reshape(many, doses, n), good


def _cycle(lanes: SteadyDoses, every: Array, until: Array, masks: Array | None) -> Legs:
    """Return the legs of one interval between doses, or of its beginning: three a lane."""
    whole = jnp.floor(lanes.dose.length / every)
    rest = jnp.minimum(lanes.dose.length - whole * every, until)
    zero = jnp.zeros_like(every)
    bolus = jnp.where(lanes.dose.rate > 0, 0.0, lanes.dose.amount)
    duration = jnp.stack([zero, rest, until - rest], 1)
    flows = jnp.stack([(whole + 1) * lanes.dose.rate, -lanes.dose.rate, zero], 1)
    given = jnp.stack([bolus, zero, zero], 1)
    unit = lanes.unit[:, None]
    return Legs(
        start=jnp.cumsum(duration, 1) - duration,
        duration=duration,
        keep=jnp.ones((*duration.shape, unit.shape[-1])),
        jump=unit * given[..., None],
        hold=jnp.ones_like(duration),
        switch=unit * flows[..., None],
        on=None if masks is None else jnp.repeat(masks[:, None], 3, axis=1),
    )


def _root(
    balance: Callable[..., Array], start: Array, given: Any, real: Array, options: Solver
) -> tuple[Array, Array, Array]:
    """Return where a balance [lane, n] is zero by Newton's method.

    And which compartments only collect, and which lanes have come there. Derivatives are those of
    the root: of one more Newton step, its matrix held fixed.
    """
    n = start.shape[1]
    start, held = jax.lax.stop_gradient((start, given))

    def newton(amounts: Array) -> tuple[Array, Array]:
        basis = jnp.eye(n, dtype=amounts.dtype)
        slopes = jax.vmap(
            lambda unit: jax.jvp(
                lambda A: balance(A, *held), (amounts,), (jnp.broadcast_to(unit, amounts.shape),)
            )[1]
        )(basis)
        matrix = jnp.moveaxis(slopes, 0, -1)  # [lane, of, by]
        # What nothing leaves (urine) has no steady state, and is nothing to anything else.
        collects = (jnp.abs(matrix) < 1e-12).all(1)
        apart = collects[:, :, None] | collects[:, None, :]
        return jnp.where(apart, basis, matrix), collects

    def moved(amounts: Array, matrix: Array, collects: Array, given: Any) -> Array:
        off = jnp.where(collects, amounts, balance(amounts, *given))
        return amounts - jnp.linalg.solve(matrix, off[..., None])[..., 0]

    def step(state: Any) -> Any:
        amounts, _, count = state
        new = moved(amounts, *newton(amounts), held)
        # Half way to zero at the most: amounts stay positive.
        new = jnp.where(new < 0, jnp.minimum(amounts, 0.5 * amounts), new)
        limit = 10 * options.rtol * jnp.abs(new).max(1) + options.atol
        return new, jnp.abs(new - amounts).max(1) <= limit, count + 1

    def going(state: Any) -> Array:
        _, converged, count = state
        return (count < _NEWTON) & (real & ~converged).any()

    found, converged, _ = jax.lax.while_loop(
        going, step, (start, jnp.zeros_like(real), jnp.asarray(0))
    )
    matrix, collects = newton(found)
    return moved(found, matrix, collects, given), collects, converged
