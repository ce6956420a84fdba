"""The No-U-Turn sampler: chains in a compiled program that takes the data as an argument.

Chains share a step size and a metric, learned from all of them during warm-up: dense for the
population parameters, and one dense block for each subject. The warm-up ends when a window of it says
nothing new: chains agree, and the metric fits what they saw.

In a small trial all chains advance together, vectorized: the longest trajectory of a step makes the
others wait, which costs less than what is won. In a larger one each chain has a thread of its own, and
they wait for one another after `CHUNK` steps. Which of the two it is depends on the trial alone, so
that draws are the same on any number of cores.

References
----------
.. [1] Hoffman MD, Gelman A (2014). The No-U-Turn sampler. J Mach Learn Res 15:1593-1623.
.. [2] Betancourt M (2017). A conceptual introduction to Hamiltonian Monte Carlo. arXiv:1701.02434.
.. [3] Cabezas A et al. (2024). BlackJAX: composable Bayesian inference in JAX. arXiv:2402.10797.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    merged,
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
#: Chains of a trial with fewer records than this, those that only fill up included, are vectorized.
FEW = 512


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
    window of the warm-up in whose second half more than one transition in 100 diverged. `threads` are
    those that the chains are dealt out to, as many to each.
    """

    chains: int
    warmup: int
    draws: int
    target_accept: float | None
    max_depth: int
    threads: int = 1


class State(NamedTuple):
    """Where the chains are: position, log-density and its gradient."""

    position: Float[Array, "c d"]
    lp: Float[Array, " c"]
    gradient: Float[Array, "c d"]


class Carry(NamedTuple):
    """Everything that one step of the chains of a thread needs from the one before."""

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
    carries : tuple of Carry
        One for each thread.
    stages : Int[ndarray, "warmup"]
        What each step of the warm-up does beside sampling.
    done : int
        The steps taken.
    window : Sampled
        The draws of the current window of the warm-up.
    kept : tuple of Sampled
        Those after the warm-up.
    """

    carries: tuple[Carry, ...]
    stages: np.ndarray
    done: int
    window: Sampled
    kept: tuple[Sampled, ...]

    @property
    def divergences(self) -> int:
        """Return how many of the transitions kept diverged."""
        return sum(int(part.diverging.sum()) for part in self.kept)


def threads_for(trial: Trial, chains: int) -> int:
    """Return how many threads the chains are dealt out to: one, unless the trial is large."""
    if jax.default_backend() != "cpu" or trial.n_subjects * trial.n_records < FEW:
        return 1
    return max(n for n in range(1, 9) if chains % n == 0)


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
    parts = [
        State(*x) for x in zip(*(jnp.split(x, settings.threads) for x in carry.state), strict=True)
    ]
    carries = tuple(carry._replace(state=part) for part in parts)
    empty = Sampled(np.empty((0, chains, size)), *[np.empty((0, chains))] * 7)
    empty = empty._replace(diverging=np.empty((0, chains), dtype=bool))
    return Run(carries, np.asarray(stages, dtype=np.int32), 0, empty, ())


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
    advance = partial(_advance, model, plan, settings.max_depth)
    if len(run.carries) > 1:  # compiled ahead of time: a thread traces nothing
        steps = (key, run.done, np.zeros(CHUNK, dtype=np.int32))
        advance = _advance.lower(
            model, plan, settings.max_depth, target, run.carries[0], steps
        ).compile()
    with ThreadPoolExecutor(len(run.carries)) as pool:
        while run.done < len(run.stages) + settings.draws:
            run = _further(
                partial(_abreast, pool, partial(advance, target), key), plan, run, settings
            )
            after(run, len(run.stages) + settings.draws)
    return jax.tree.map(lambda x: x[: settings.draws], _joined(run.kept))


def _abreast(
    pool: ThreadPoolExecutor, advance: Callable, key: Any, run: Run, stages: np.ndarray
) -> tuple[list[Carry], Sampled]:
    """Return the carries and the draws of all chains after some steps of all threads."""
    if len(run.carries) == 1:
        carry, drawn = advance(run.carries[0], (key, run.done, stages))
        return [carry], jax.tree.map(np.asarray, drawn)
    keys = [jax.random.fold_in(key, thread) for thread in range(len(run.carries))]
    calls = [
        pool.submit(advance, carry, (key, run.done, stages))
        for carry, key in zip(run.carries, keys, strict=True)
    ]
    carries, drawn = zip(*(call.result() for call in calls), strict=True)
    return list(carries), jax.tree.map(lambda *x: np.concatenate(x, axis=1), *drawn)


def _further(advance: Callable, plan: Layout, run: Run, settings: Settings) -> Run:
    """Return a run after one more call of the compiled program."""
    _, stages, done, window, kept = run
    ahead = np.zeros(CHUNK, dtype=np.int32)
    ahead[: len(stages[done : done + CHUNK])] = stages[done : done + CHUNK]
    carries, drawn = advance(run, ahead)
    done += CHUNK
    window = _joined((window, _where(drawn, (ahead & COLLECT) > 0)))
    if len(carries) > 1 and (ahead & ADAPT).any():
        step = jax.tree.map(lambda *x: sum(x) / len(x), *(c.step for c in carries))
        carries = [carry._replace(step=step) for carry in carries]
    if ahead[-1] & UPDATE:
        late = window.diverging[len(window.lp) // 2 :]  # the step size was still sought before
        before = run.carries[0].metric
        carries = _renewed(plan, carries)
        if OFTEN * late.sum() > late.size and settings.target_accept is None:
            carries = [c._replace(accept=jnp.full_like(c.accept, CAREFUL)) for c in carries]
        elif done < len(stages) and settled(plan, before, window.position, window.lp):
            stages = np.append(
                stages[:done], np.full(min(FINAL, len(stages) - done), ADAPT, np.int32)
            )
        window = _where(window, np.zeros(len(window.lp), dtype=bool))
    if done > len(stages):
        kept = (*kept, _where(drawn, np.arange(done - CHUNK, done) >= len(stages)))
    return Run(tuple(carries), stages, done, window, kept)


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
    """Return the carry and the draws after some steps of the chains of a thread."""
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
        carry = Carry(state, metric, moments, size, expected, target_accept)
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


@partial(jax.jit, static_argnames="plan")
def _renewed(plan: Layout, carries: Sequence[Carry]) -> list[Carry]:
    """Return the carries with the metric of the window that ends."""
    first = carries[0]
    metric = updated(merged(plan, [carry.moments for carry in carries]), first.expected)
    moments = no_moments(first.metric, first.moments.mean)
    size = step_size(first.step.log)
    return [carry._replace(metric=metric, moments=moments, step=size) for carry in carries]
