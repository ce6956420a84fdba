"""The No-U-Turn sampler: all chains in one compiled program that takes the data as an argument.

Chains share a step size and a metric, learned from all of them during warm-up: dense for the
population parameters, and one dense block for each subject. The warm-up ends when a window of it says
nothing new: chains agree, and the metric fits what they saw.

References
----------
.. [1] Hoffman MD, Gelman A (2014). The No-U-Turn sampler. J Mach Learn Res 15:1593-1623.
.. [2] Betancourt M (2017). A conceptual introduction to Hamiltonian Monte Carlo. arXiv:1701.02434.
.. [3] Cabezas A et al. (2024). BlackJAX: composable Bayesian inference in JAX. arXiv:2402.10797.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.hmc import HMCState
from jaxtyping import Array, Float

from popk.inference.adaptation import (
    ADAPT,
    CHUNK,
    COLLECT,
    FINAL,
    STAN,
    UPDATE,
    Expected,
    Metric,
    Moments,
    StepSize,
    averaged,
    collected,
    no_moments,
    schedule,
    settled,
    step_size,
    updated,
)
from popk.inference.density import Layout, Vector, log_density
from popk.model.sites import Model
from popk.trial import Trial
from popk.variability import Centering

#: Acceptance rates to adapt the step size to: at first, and where one in `OFTEN` transitions diverged.
BOLD, CAREFUL = 0.9, 0.97
OFTEN = 100


class Target(NamedTuple):
    """The density that is sampled.

    Attributes
    ----------
    arrays : Trial
    centering : Centering, optional
        The coordinates of random effects, where the layout has them in coordinates.
    """

    arrays: Trial
    centering: Centering | None = None


class Settings(NamedTuple):
    """What a sampling run is asked for.

    `warmup` is the most that the warm-up may take. A `target_accept` of None is 0.9, and 0.97 after a
    window of the warm-up in whose second half more than one transition in 100 diverged.
    """

    chains: int
    warmup: int
    draws: int
    target_accept: float | None
    max_depth: int


class State(NamedTuple):
    """Where the chains are: position, log-density and its gradient."""

    position: Float[Array, "c d"]
    lp: Float[Array, " c"]
    gradient: Float[Array, "c d"]


class Carry(NamedTuple):
    """Everything that one step of all chains needs from the one before."""

    state: State
    metric: Metric
    moments: Moments
    step: StepSize
    expected: Expected
    accept: Float[Array, ""]


class Sampled(NamedTuple):
    """Draws of all chains, each field [draw, chain, ...]."""

    position: Any
    lp: Any
    diverging: Any
    energy: Any
    acceptance_rate: Any
    n_steps: Any
    tree_depth: Any
    step_size: Any


class Run(NamedTuple):
    """How far a run has come.

    Attributes
    ----------
    carry : Carry
    stages : Int[ndarray, "warmup"]
        What each step of the warm-up does beside sampling.
    done : int
        The steps taken.
    window : Sampled
        The draws of the current window of the warm-up.
    kept : tuple of Sampled
        Those after the warm-up.
    """

    carry: Carry
    stages: np.ndarray
    done: int
    window: Sampled
    kept: tuple[Sampled, ...]

    @property
    def divergences(self) -> int:
        """Return how many of the transitions kept diverged."""
        return sum(int(part.diverging.sum()) for part in self.kept)


def first(carry: Carry, settings: Settings) -> Run:
    """Return a run of which no step is taken.

    Parameters
    ----------
    carry : Carry
        Where the chains begin and by what they measure, see `begin`.
    settings : Settings
    """
    stages = schedule(settings.warmup, informed=float(carry.expected.population) > STAN)
    chains, size = carry.state.position.shape
    empty = Sampled(np.empty((0, chains, size)), *[np.empty((0, chains))] * 7)
    empty = empty._replace(diverging=np.empty((0, chains), dtype=bool))
    return Run(carry, np.asarray(stages, dtype=np.int32), 0, empty, ())


def sample(
    model: Model,
    plan: Layout,
    target: Target,
    run: Run,
    key: Any,
    settings: Settings,
    *,
    after: Callable[[Run, int], None],
) -> Sampled:
    """Return the draws of all chains, each field [draw, chain, ...], warm-up left out.

    What follows depends on the run alone, so that one which was interrupted ends as any other.

    Parameters
    ----------
    model, plan, target
        The density, see `log_density`.
    run : Run
        How far it has come, see `first`.
    key : PRNGKey
    settings : Settings
    after : Callable
        Called many times with the run, and of how many steps it will be.
    """
    while run.done < len(run.stages) + settings.draws:
        run = _further(model, plan, target, run, key, settings)
        after(run, len(run.stages) + settings.draws)
    return jax.tree.map(lambda x: x[: settings.draws], _joined(run.kept))


def _further(
    model: Model, plan: Layout, target: Target, run: Run, key: Any, settings: Settings
) -> Run:
    """Return a run after one more call of the compiled program."""
    carry, stages, done, window, kept = run
    ahead = np.zeros(CHUNK, dtype=np.int32)
    ahead[: len(stages[done : done + CHUNK])] = stages[done : done + CHUNK]
    before = carry.metric
    carry, drawn = _advance(model, plan, settings.max_depth, target, carry, (key, done, ahead))
    done += CHUNK
    drawn = jax.tree.map(np.asarray, drawn)
    window = _joined((window, _where(drawn, (ahead & COLLECT) > 0)))
    if (ahead & UPDATE).any():
        late = window.diverging[len(window.lp) // 2 :]  # the step size was still sought before
        if OFTEN * late.sum() > late.size and settings.target_accept is None:
            carry = carry._replace(accept=jnp.full_like(carry.accept, CAREFUL))
        elif done < len(stages) and settled(plan, before, window.position, window.lp):
            stages = np.append(
                stages[:done], np.full(min(FINAL, len(stages) - done), ADAPT, np.int32)
            )
        window = _where(window, np.zeros(len(window.lp), dtype=bool))
    if done > len(stages):
        kept = (*kept, _where(drawn, np.arange(done - CHUNK, done) >= len(stages)))
    return Run(carry, stages, done, window, kept)


def _where(drawn: Sampled, steps: np.ndarray) -> Sampled:
    return jax.tree.map(lambda x: x[steps], drawn)


def _joined(parts: Sequence[Sampled]) -> Sampled:
    return Sampled(*(np.concatenate(field) for field in zip(*parts, strict=True)))


@partial(jax.jit, static_argnames=("model", "plan"))
def state(model: Model, plan: Layout, target: Target, positions: Float[Array, "c d"]) -> State:
    """Return the state of chains at some positions."""
    density = partial(_density, model, plan, target)
    return State(positions, *jax.vmap(jax.value_and_grad(density))(positions))


def _density(model: Model, plan: Layout, target: Target, position: Vector) -> Float[Array, ""]:
    return log_density(model, plan, target.arrays, position, target.centering)


def begin(
    plan: Layout, start: State, metric: Metric | None = None, target_accept: float | None = None
) -> Carry:
    """Return what a run begins with.

    Parameters
    ----------
    plan : Layout
    start : State
        Where the chains are, see `state`.
    metric : Metric, optional
        As it is expected to be; it weighs as much as ten draws for each of its dimensions. None: nothing
        is known of it.
    target_accept : float, optional
        See `Settings`.
    """
    dtype = start.lp.dtype
    if metric is None:
        units = Metric(jnp.eye(plan.n_population), _each(plan, jnp.eye(plan.n_individual)))
        shrunk = Metric(*(1e-3**0.5 * part for part in units))
        metric, expected = units, Expected(shrunk, STAN, STAN)
        size = 0.1
    else:
        expected = Expected(metric, 10.0 * plan.n_population, 10.0 * plan.n_individual)
        size = 1.0 / plan.size**0.25  # of whitened space, see [2]_
    log = jnp.log(jnp.asarray(size, dtype=dtype))
    expected = jax.tree.map(jnp.asarray, expected)
    accept = jnp.asarray(BOLD if target_accept is None else target_accept, dtype=dtype)
    moments = no_moments(metric, start.position[0])
    return Carry(start, metric, moments, step_size(log), expected, accept)


def _each(plan: Layout, block: Float[Array, "k k"]) -> Float[Array, "s k k"]:
    return jnp.broadcast_to(block, (plan.n_subjects, *block.shape))


@partial(jax.jit, static_argnames=("model", "plan", "max_depth"))
def _advance(model, plan, max_depth, target, carry, steps):
    """Return the carry and the draws after some steps of all chains."""
    one_chain = partial(_stepped, (model, plan, target), max_depth)
    key, first, stages = steps

    def step(carry, x):
        at, stage = x
        state, metric, moments, size, expected, target_accept = carry
        adapting = (stage & ADAPT) > 0
        length = jnp.exp(jnp.where(adapting, size.log, size.log_average))
        state, info = jax.vmap(one_chain, (0, 0, None, None))(
            jax.random.split(jax.random.fold_in(key, at), len(state.lp)), state, metric, length
        )
        accepted = jnp.nan_to_num(info.acceptance_rate)
        size = _choose(adapting, averaged(size, target_accept - accepted.mean()), size)
        moments = _choose((stage & COLLECT) > 0, collected(plan, moments, state.position), moments)
        carry = jax.lax.cond(
            (stage & UPDATE) > 0,
            _renewed,
            lambda c: c,
            Carry(state, metric, moments, size, expected, target_accept),
        )
        drawn = Sampled(
            state.position,
            state.lp,
            info.is_divergent,
            info.energy,
            accepted,
            info.num_integration_steps,
            info.num_trajectory_expansions,
            jnp.broadcast_to(length, state.lp.shape),
        )
        return carry, drawn

    return jax.lax.scan(step, carry, (first + jnp.arange(len(stages)), stages))


def _stepped(target, max_depth, key, state, metric, step_size):
    """Return one chain's state after a NUTS step in whitened space, and what BlackJAX says of it."""
    model, plan, data = target

    def density(white):
        return _density(model, plan, data, metric.color(plan, white))

    white = HMCState(
        metric.whiten(plan, state.position),
        state.lp,
        metric.whiten_gradient(plan, state.gradient),
    )
    kernel = blackjax.nuts.build_kernel()
    white, info = kernel(key, white, density, step_size, jnp.ones(plan.size), max_depth)
    state = State(
        metric.color(plan, white.position),
        white.logdensity,
        metric.color_gradient(plan, white.logdensity_grad),
    )
    return state, info


def _choose(condition, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _renewed(carry: Carry) -> Carry:
    """Return the carry with the metric of the window that ends."""
    return carry._replace(
        metric=updated(carry.moments, carry.expected),
        moments=no_moments(carry.metric, carry.moments.mean),
        step=step_size(carry.step.log),
    )
