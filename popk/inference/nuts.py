"""The No-U-Turn sampler: all chains in one compiled program that takes the data as an argument.

Chains share a step size and a metric, learned from all of them during warm-up: dense for the
population parameters, and one dense block for each subject.

References
----------
.. [1] Hoffman MD, Gelman A (2014). The No-U-Turn sampler. J Mach Learn Res 15:1593-1623.
.. [2] Betancourt M (2017). A conceptual introduction to Hamiltonian Monte Carlo. arXiv:1701.02434.
.. [3] Cabezas A et al. (2024). BlackJAX: composable Bayesian inference in JAX. arXiv:2402.10797.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.hmc import HMCState
from jaxtyping import Array, Float

from popk.inference.density import Layout, Vector, log_density
from popk.model.sites import Model
from popk.trial import Trial


class Settings(NamedTuple):
    """What a sampling run is asked for."""

    chains: int
    warmup: int
    draws: int
    target_accept: float
    max_depth: int


class Metric(NamedTuple):
    """The scale of the posterior, block by block: position = scale @ whitened position.

    Attributes
    ----------
    population : Float[Array, "p p"]
        Lower triangular.
    individual : Float[Array, "subject k k"]
        Lower triangular, one block for each subject.
    """

    population: Float[Array, "p p"]
    individual: Float[Array, "s k k"]

    def color(self, plan: Layout, white: Vector) -> Vector:
        """Return the position of a whitened one."""
        common, each = plan.blocks(white)
        each = (self.individual * each[:, None, :]).sum(-1)
        return jnp.concatenate([self.population @ common, each.ravel()])

    def whiten(self, plan: Layout, position: Vector) -> Vector:
        """Return the whitened position of one."""
        return self._solve(plan, position, transposed=False)

    def color_gradient(self, plan: Layout, white: Vector) -> Vector:
        """Return the gradient with respect to the position, from that to the whitened one."""
        return self._solve(plan, white, transposed=True)

    def whiten_gradient(self, plan: Layout, gradient: Vector) -> Vector:
        """Return the gradient with respect to the whitened position."""
        common, each = plan.blocks(gradient)
        each = (self.individual * each[:, :, None]).sum(-2)
        return jnp.concatenate([self.population.T @ common, each.ravel()])

    def _solve(self, plan: Layout, vector: Vector, *, transposed: bool) -> Vector:
        common, each = plan.blocks(vector)
        solve = partial(jax.scipy.linalg.solve_triangular, lower=True, trans=int(transposed))
        return jnp.concatenate(
            [solve(self.population, common), jax.vmap(solve)(self.individual, each).ravel()]
        )


class Moments(NamedTuple):
    """Running mean and sums of squares of the draws of a warm-up window, block by block."""

    n: Float[Array, ""]
    mean: Vector
    population: Float[Array, "p p"]
    individual: Float[Array, "s k k"]


class StepSize(NamedTuple):
    """Dual averaging of the log step size (Hoffman and Gelman 2014, algorithm 5)."""

    log: Float[Array, ""]
    log_average: Float[Array, ""]
    gap: Float[Array, ""]
    n: Float[Array, ""]
    center: Float[Array, ""]


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


def sample(
    model: Model,
    plan: Layout,
    arrays: Trial,
    start: State,
    key: Any,
    settings: Settings,
    *,
    report: Callable[[int, int], None],
) -> Sampled:
    """Return the draws of all chains, each field [draw, chain, ...], warm-up left out.

    Parameters
    ----------
    model, plan, arrays
        The density, see `log_density`.
    start : State
        Where the chains begin, see `state`.
    key : PRNGKey
    settings : Settings
    report : Callable
        Called with the number of steps done and of divergences after warm-up, many times.
    """
    total = settings.warmup + settings.draws
    stages = _schedule(settings.warmup, settings.draws)
    keys = jax.random.split(key, total)
    chunk = max(n for n in range(1, 51) if settings.warmup % n == 0 and settings.draws % n == 0)
    carry = _begin(plan, start)
    parts: list[Sampled] = []
    divergences = 0
    for first in range(0, total, chunk):
        window = slice(first, first + chunk)
        carry, drawn = _advance(
            model, plan, settings, arrays, carry, (keys[window], stages[window])
        )
        if first >= settings.warmup:
            parts.append(jax.tree.map(np.asarray, drawn))
            divergences += int(parts[-1].diverging.sum())
        report(first + chunk, divergences)
    return Sampled(*(np.concatenate(field) for field in zip(*parts, strict=True)))


# What a step does beside sampling, as bits.
_ADAPT, _COLLECT, _UPDATE = 1, 2, 4


def _schedule(warmup: int, draws: int) -> np.ndarray:
    """Return the stage of each step: step size always, then doubling windows for the metric.

    The proportions are Stan's: 15% to find the typical set, 75% in windows, 10% for the step size.
    """
    stage = np.zeros(warmup + draws, dtype=np.int32)
    stage[:warmup] |= _ADAPT
    begin, end = math.ceil(0.15 * warmup), math.floor(0.9 * warmup)
    stage[begin:end] |= _COLLECT
    size = 25
    while begin < end:
        close = begin + size if begin + 3 * size <= end else end
        stage[close - 1] |= _UPDATE
        begin, size = close, 2 * size
    return stage


@partial(jax.jit, static_argnames=("model", "plan"))
def state(model: Model, plan: Layout, arrays: Trial, positions: Float[Array, "c d"]) -> State:
    """Return the state of chains at some positions."""
    density = partial(log_density, model, plan, arrays)
    return State(positions, *jax.vmap(jax.value_and_grad(density))(positions))


def _begin(plan: Layout, start: State) -> Carry:
    each = jnp.broadcast_to(
        jnp.eye(plan.n_individual), (plan.n_subjects,) + (plan.n_individual,) * 2
    )
    metric = Metric(jnp.eye(plan.n_population), each)
    return Carry(
        start,
        metric,
        _no_moments(metric, start.position[0]),
        _step_size(jnp.log(jnp.asarray(0.1, dtype=start.lp.dtype))),
    )


def _no_moments(metric: Metric, position: Vector) -> Moments:
    zeros = jax.tree.map(jnp.zeros_like, metric)
    return Moments(jnp.zeros(()), jnp.zeros_like(position), zeros.population, zeros.individual)


def _step_size(log: Float[Array, ""]) -> StepSize:
    zero = jnp.zeros_like(log)
    return StepSize(log, log, zero, zero, log + math.log(10))


@partial(jax.jit, static_argnames=("model", "plan", "settings"))
def _advance(model, plan, settings, arrays, carry, steps):
    """Return the carry and the draws after some steps of all chains."""
    one_chain = partial(_stepped, (model, plan, arrays), settings)

    def step(carry, x):
        key, stage = x
        state, metric, moments, size = carry
        adapting = (stage & _ADAPT) > 0
        step_size = jnp.exp(jnp.where(adapting, size.log, size.log_average))
        state, info = jax.vmap(one_chain, (0, 0, None, None))(
            jax.random.split(key, settings.chains), state, metric, step_size
        )
        accepted = jnp.nan_to_num(info.acceptance_rate)
        size = _choose(adapting, _averaged(size, settings.target_accept - accepted.mean()), size)
        moments = _choose(
            (stage & _COLLECT) > 0, _collected(plan, moments, state.position), moments
        )
        carry = jax.lax.cond(
            (stage & _UPDATE) > 0, _updated, lambda c: c, Carry(state, metric, moments, size)
        )
        drawn = Sampled(
            state.position,
            state.lp,
            info.is_divergent,
            info.energy,
            accepted,
            info.num_integration_steps,
            info.num_trajectory_expansions,
            jnp.broadcast_to(step_size, state.lp.shape),
        )
        return carry, drawn

    return jax.lax.scan(step, carry, steps)


def _stepped(target, settings, key, state, metric, step_size):
    """Return one chain's state after a NUTS step in whitened space, and what BlackJAX says of it."""
    model, plan, arrays = target

    def density(white):
        return log_density(model, plan, arrays, metric.color(plan, white))

    white = HMCState(
        metric.whiten(plan, state.position),
        state.lp,
        metric.whiten_gradient(plan, state.gradient),
    )
    kernel = blackjax.nuts.build_kernel()
    white, info = kernel(key, white, density, step_size, jnp.ones(plan.size), settings.max_depth)
    state = State(
        metric.color(plan, white.position),
        white.logdensity,
        metric.color_gradient(plan, white.logdensity_grad),
    )
    return state, info


def _choose(condition, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _averaged(size: StepSize, error: Float[Array, ""]) -> StepSize:
    """Return the step size after one more acceptance rate (constants of Hoffman and Gelman)."""
    count = size.n + 1
    gap = size.gap + (error - size.gap) / (count + 10)
    log = size.center - jnp.sqrt(count) / 0.05 * gap
    weight = count**-0.75
    return StepSize(log, weight * log + (1 - weight) * size.log_average, gap, count, size.center)


def _collected(plan: Layout, moments: Moments, position: Float[Array, "c d"]) -> Moments:
    """Return the moments after one draw of every chain (Chan's pairwise update)."""
    added = position.shape[0]
    count = moments.n + added
    mean = position.mean(0)
    shift = mean - moments.mean
    # Between the old mean and the new ones as one more deviation, weighted.
    spread = jnp.vstack([position - mean, jnp.sqrt(moments.n * added / count) * shift])
    common, each = jax.vmap(plan.blocks)(spread)
    return Moments(
        count,
        moments.mean + shift * added / count,
        moments.population + common.T @ common,
        moments.individual + jnp.einsum("csi,csj->sij", each, each),
    )


def _updated(carry: Carry) -> Carry:
    """Return the carry with the metric of the window that ends, shrunk as Stan does."""
    moments = carry.moments
    weight = moments.n / (moments.n + 5)

    def factor(squares):
        shrunk = 1e-3 * 5 / (moments.n + 5) * jnp.eye(squares.shape[-1])
        return jnp.linalg.cholesky(weight * squares / (moments.n - 1) + shrunk)

    metric = Metric(factor(moments.population), factor(moments.individual))
    empty = _no_moments(metric, moments.mean)
    return Carry(carry.state, metric, empty, _step_size(carry.step.log))
