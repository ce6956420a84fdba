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
from popk.variability import Centering

CHUNK = 25  # steps of one call of the compiled program
#: Acceptance rates to adapt the step size to: at first, and where a transition diverged.
BOLD, CAREFUL = 0.85, 0.95


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

    `warmup` is the most that the warm-up may take. A `target_accept` of None is 0.85, and 0.95 after a
    window of the warm-up in which a transition diverged.
    """

    chains: int
    warmup: int
    draws: int
    target_accept: float | None
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


class Expected(NamedTuple):
    """The metric that is expected before any draw is seen, and how many draws its word weighs."""

    metric: Metric
    population: float
    individual: float


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


def sample(
    model: Model,
    plan: Layout,
    target: Target,
    carry: Carry,
    key: Any,
    settings: Settings,
    *,
    report: Callable[[int, int, int], None],
) -> Sampled:
    """Return the draws of all chains, each field [draw, chain, ...], warm-up left out.

    Parameters
    ----------
    model, plan, target
        The density, see `log_density`.
    carry : Carry
        Where the chains begin and by what they measure, see `begin`.
    key : PRNGKey
    settings : Settings
    report : Callable
        Called with the number of steps done, of all there will be, and of divergences after warm-up,
        many times.
    """
    stages = _schedule(settings.warmup, informed=float(carry.expected.population) > _STAN)
    window: list[Sampled] = []
    kept: list[Sampled] = []
    done = divergences = 0
    total = len(stages) + settings.draws
    while done < total:
        ahead = np.asarray([*stages[done : done + CHUNK], *[0] * CHUNK][:CHUNK], dtype=np.int32)
        before = carry.metric
        carry, drawn = _advance(model, plan, settings.max_depth, target, carry, (key, done, ahead))
        done += CHUNK
        drawn = jax.tree.map(np.asarray, drawn)
        window.append(_where(drawn, (ahead & _COLLECT) > 0))
        if (ahead & _UPDATE).any():
            diverged = bool(_joined(window).diverging.any())
            if diverged and settings.target_accept is None:
                carry = carry._replace(accept=jnp.full_like(carry.accept, CAREFUL))
            elif done < len(stages) and _settled(plan, before, _joined(window)):
                stages = stages[:done] + [_ADAPT] * min(_FINAL, len(stages) - done)
                total = len(stages) + settings.draws
            window = []
        kept.append(_where(drawn, np.arange(done - CHUNK, done) >= len(stages)))
        divergences += int(kept[-1].diverging.sum())
        report(min(done, total), total, divergences)
    return jax.tree.map(lambda x: x[: settings.draws], _joined(kept))


def _where(drawn: Sampled, steps: np.ndarray) -> Sampled:
    return jax.tree.map(lambda x: x[steps], drawn)


def _joined(parts: list[Sampled]) -> Sampled:
    return Sampled(*(np.concatenate(field) for field in zip(*parts, strict=True)))


# What a step does beside sampling, as bits.
_ADAPT, _COLLECT, _UPDATE = 1, 2, 4
_FINAL = 50  # steps for the step size alone, at the end of the warm-up
_STAN = 5.0  # draws that Stan's shrinkage of a metric weighs


def _schedule(warmup: int, *, informed: bool) -> list[int]:
    """Return the stage of each step: step size always, then doubling windows for the metric.

    About as in Stan: 15% to find the typical set, then windows, then the step size alone. Who begins
    near the typical set and knows the metric about has a long first window at once.
    """
    first, size = (0, 3 * CHUNK) if informed else (math.ceil(0.15 * warmup), CHUNK)
    last = warmup - min(_FINAL, math.ceil(0.1 * warmup))
    stages = [_ADAPT | (_COLLECT if first <= i < last else 0) for i in range(warmup)]
    while first < last:
        close = first + size if first + 3 * size <= last else last
        stages[close - 1] |= _UPDATE
        first, size = close, 2 * size
    return stages


def _settled(plan: Layout, metric: Metric, window: Sampled) -> bool:
    """Return whether a window says nothing new: chains agree, and its metric fits what they saw."""
    n, chains, _ = window.position.shape
    if n * chains < 200 or not np.isfinite(window.position).all():
        return False
    common = window.position[..., : plan.n_population]
    white = np.linalg.solve(np.asarray(metric.population), common.reshape(n * chains, -1).T).T
    spread = (
        np.linalg.eigvalsh(np.cov(white.T)) if white.shape[1] > 1 else np.var(white, keepdims=True)
    )
    seen = np.concatenate([white.reshape(n, chains, -1), window.lp[..., None]], -1)
    halves = np.concatenate([seen[: n // 2], seen[n // 2 : 2 * (n // 2)]], 1)
    within = halves.var(0, ddof=1).mean(0)
    between = halves.mean(0).var(0, ddof=1)
    return bool((between < 0.2 * within).all() and spread.min() > 0.2 and spread.max() < 5)


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
        metric, expected = units, Expected(shrunk, _STAN, _STAN)
        size = 0.1
    else:
        expected = Expected(metric, 10.0 * plan.n_population, 10.0 * plan.n_individual)
        size = 1.0 / plan.size**0.25  # of whitened space, see [2]_
    log = jnp.log(jnp.asarray(size, dtype=dtype))
    expected = jax.tree.map(jnp.asarray, expected)
    accept = jnp.asarray(BOLD if target_accept is None else target_accept, dtype=dtype)
    moments = _no_moments(metric, start.position[0])
    return Carry(start, metric, moments, _step_size(log), expected, accept)


def _each(plan: Layout, block: Float[Array, "k k"]) -> Float[Array, "s k k"]:
    return jnp.broadcast_to(block, (plan.n_subjects, *block.shape))


def _no_moments(metric: Metric, position: Vector) -> Moments:
    zeros = jax.tree.map(jnp.zeros_like, metric)
    return Moments(jnp.zeros(()), jnp.zeros_like(position), zeros.population, zeros.individual)


def _step_size(log: Float[Array, ""]) -> StepSize:
    zero = jnp.zeros_like(log)
    return StepSize(log, log, zero, zero, log + math.log(10))


@partial(jax.jit, static_argnames=("model", "plan", "max_depth"))
def _advance(model, plan, max_depth, target, carry, steps):
    """Return the carry and the draws after some steps of all chains."""
    one_chain = partial(_stepped, (model, plan, target), max_depth)
    key, first, stages = steps

    def step(carry, x):
        at, stage = x
        state, metric, moments, size, expected, target_accept = carry
        adapting = (stage & _ADAPT) > 0
        step_size = jnp.exp(jnp.where(adapting, size.log, size.log_average))
        state, info = jax.vmap(one_chain, (0, 0, None, None))(
            jax.random.split(jax.random.fold_in(key, at), len(state.lp)), state, metric, step_size
        )
        accepted = jnp.nan_to_num(info.acceptance_rate)
        size = _choose(adapting, _averaged(size, target_accept - accepted.mean()), size)
        moments = _choose(
            (stage & _COLLECT) > 0, _collected(plan, moments, state.position), moments
        )
        carry = jax.lax.cond(
            (stage & _UPDATE) > 0,
            _updated,
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
            jnp.broadcast_to(step_size, state.lp.shape),
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
    """Return the carry with the metric of the window that ends, and of what was expected."""
    moments, expected = carry.moments, carry.expected

    def factor(squares, before, draws):
        known = draws * before @ jnp.swapaxes(before, -1, -2)
        count = moments.n + draws
        return jnp.linalg.cholesky(squares * moments.n / (moments.n - 1) / count + known / count)

    metric = Metric(
        factor(moments.population, expected.metric.population, expected.population),
        factor(moments.individual, expected.metric.individual, expected.individual),
    )
    empty = _no_moments(metric, moments.mean)
    return carry._replace(metric=metric, moments=empty, step=_step_size(carry.step.log))
