"""What do chains learn while they warm up? A step size, and a metric in blocks.

References
----------
.. [1] Hoffman MD, Gelman A (2014). The No-U-Turn sampler. J Mach Learn Res 15:1593-1623.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from popk.inference.density import Layout, Vector

CHUNK = 25  # steps of one call of the compiled program


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


class Expected(NamedTuple):
    """The metric that is expected before any draw is seen, and how many draws its word weighs."""

    metric: Metric
    population: float
    individual: float


# What a step does beside sampling, as bits.
ADAPT, COLLECT, UPDATE = 1, 2, 4
FINAL = 50  # steps for the step size alone, at the end of the warm-up
STAN = 5.0  # draws that Stan's shrinkage of a metric weighs


def schedule(warmup: int, *, informed: bool) -> list[int]:
    """Return the stage of each step: step size always, then doubling windows for the metric.

    About as in Stan: 15% to find the typical set, then windows, then the step size alone. Who begins
    near the typical set and knows the metric about has a long first window at once, and is asked more
    often whether it is done. Windows begin and end with a call of the compiled program.
    """
    first, size = (0, 3 * CHUNK) if informed else (math.ceil(0.15 * warmup), CHUNK)
    last = warmup - min(FINAL, math.ceil(0.1 * warmup))
    first, last = first // CHUNK * CHUNK, last // CHUNK * CHUNK
    stages = [ADAPT | (COLLECT if first <= i < last else 0) for i in range(warmup)]
    while first < last:
        close = first + size if first + (2 if informed else 3) * size <= last else last
        stages[close - 1] |= UPDATE
        first, size = close, 2 * size
    return stages


def settled(plan: Layout, metric: Metric, position: np.ndarray, lp: np.ndarray) -> bool:
    """Return whether a window says nothing new: chains agree, and its metric fits what they saw."""
    n, chains, _ = position.shape
    if n * chains < 200 or not np.isfinite(position).all():
        return False
    common = position[..., : plan.n_population]
    white = np.linalg.solve(np.asarray(metric.population), common.reshape(n * chains, -1).T).T
    spread = (
        np.linalg.eigvalsh(np.cov(white.T)) if white.shape[1] > 1 else np.var(white, keepdims=True)
    )
    seen = np.concatenate([white.reshape(n, chains, -1), lp[..., None]], -1)
    halves = np.concatenate([seen[: n // 2], seen[n // 2 : 2 * (n // 2)]], 1)
    within = halves.var(0, ddof=1).mean(0)
    between = halves.mean(0).var(0, ddof=1)
    return bool((between < 0.2 * within).all() and spread.min() > 0.2 and spread.max() < 5)


def no_moments(metric: Metric, position: Vector) -> Moments:
    zeros = jax.tree.map(jnp.zeros_like, metric)
    return Moments(jnp.zeros(()), jnp.zeros_like(position), zeros.population, zeros.individual)


def step_size(log: Float[Array, ""]) -> StepSize:
    zero = jnp.zeros_like(log)
    return StepSize(log, log, zero, zero, log + math.log(10))


def averaged(size: StepSize, error: Float[Array, ""]) -> StepSize:
    """Return the step size after one more acceptance rate (constants of Hoffman and Gelman)."""
    count = size.n + 1
    gap = size.gap + (error - size.gap) / (count + 10)
    log = size.center - jnp.sqrt(count) / 0.05 * gap
    weight = count**-0.75
    return StepSize(log, weight * log + (1 - weight) * size.log_average, gap, count, size.center)


def collected(plan: Layout, moments: Moments, position: Float[Array, "c d"]) -> Moments:
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


def merged(plan: Layout, parts: Sequence[Moments]) -> Moments:
    """Return the moments of all draws from those of some and of the others (Chan's update)."""
    count = sum((part.n for part in parts), jnp.zeros(()))
    mean = sum(part.n * part.mean for part in parts) / count
    spread = [jnp.sqrt(part.n) * (part.mean - mean) for part in parts]
    common, each = jax.vmap(plan.blocks)(jnp.stack(spread))
    return Moments(
        count,
        mean,
        sum(part.population for part in parts) + common.T @ common,
        sum(part.individual for part in parts) + jnp.einsum("csi,csj->sij", each, each),
    )


def updated(moments: Moments, expected: Expected) -> Metric:
    """Return the metric of a window's draws, and of what was expected."""

    def factor(squares, before, draws):
        known = draws * before @ jnp.swapaxes(before, -1, -2)
        count = moments.n + draws
        return jnp.linalg.cholesky(squares * moments.n / (moments.n - 1) / count + known / count)

    return Metric(
        factor(moments.population, expected.metric.population, expected.population),
        factor(moments.individual, expected.metric.individual, expected.individual),
    )
