r"""Importance sampling of the random effects of many subjects, in one compiled program.

Each subject's mode is sought under one population draw first; under any other draw the search
begins where the subject's own parameters would be the same, a step or two from its end.

References
----------
.. [1] Zhang J, Stephens MA (2009). A new and efficient estimation method for the generalized Pareto
   distribution. Technometrics 51:316-325. doi:10.1198/tech.2009.08017
.. [2] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from popk.inference.importance import heavy_tailed, log_marginal
from popk.inference.laplace import find_mode, middle, terms
from popk.inference.tempering import drawn


class Weighted(NamedTuple):
    """Draws of equal weight of many subjects, and what was said of their weights.

    Attributes
    ----------
    draw : Int[Array, "s n"]
        Which population draw.
    vector : Float[Array, "s n k"]
    pareto_k, ess, log_evidence : Float[Array, "s"]
    """

    draw: Int[Array, "s n"]
    vector: Float[Array, "s n k"]
    pareto_k: Float[Array, " s"]
    ess: Float[Array, " s"]
    log_evidence: Float[Array, " s"]


@partial(jax.jit, static_argnames=("model", "plan", "each", "kept"))
def weighted_together(model, plan, stacked, population, key, *, each, kept):
    """Return draws of each subject's random effects, resampled by their smoothed weights.

    Parameters
    ----------
    model, plan
        See `find_mode`.
    stacked : Trial
        Of one subject each, on a first axis.
    population : mapping of site to array
        Population values, each [population draw, ...].
    key : PRNGKey
        The same random numbers serve all subjects.
    each : int
        Draws for each population draw; even.
    kept : int
        Draws of equal weight for each subject.
    """
    size = len(next(iter(population.values())))
    key_draw, key_keep = jax.random.split(key)
    z, log_proposal = jax.vmap(lambda k: heavy_tailed(k, each, plan.size))(
        jax.random.split(key_draw, size)
    )
    offset = jax.random.uniform(key_keep)
    nearest = jax.tree.map(lambda x: x[size // 2], population)

    def subject(arrays):
        begin = middle(model, plan, arrays, nearest)
        mode = find_mode(model, plan, arrays, nearest, begin, tolerance=1e-3, max_steps=30).position
        center = drawn(model, plan, arrays, nearest, key)[1]

        def joint(values, vector):
            parts = terms(model, plan, arrays, values, vector)
            return parts.prior + parts.likelihood

        def one(x):
            values, z, log_proposal = x
            start = mode + center - drawn(model, plan, arrays, values, key)[1]
            found = find_mode(model, plan, arrays, values, start, tolerance=1e-2, max_steps=8)
            lower = jnp.linalg.cholesky(found.curvature)
            steps = jax.scipy.linalg.solve_triangular(lower.T, z.T, lower=False).T
            vectors = found.position + steps
            base = log_proposal + jnp.log(jnp.diagonal(lower)).sum()
            logs = jax.vmap(partial(joint, values))(vectors) - base
            return vectors, jnp.where(jnp.isnan(logs), -jnp.inf, logs)

        vectors, logs = jax.vmap(one)((population, z, log_proposal))
        evidence = log_marginal(logs[:, None], plan.size)
        total = jax.scipy.special.logsumexp(evidence) - jnp.log(size)
        weights, pareto_k = pareto_smoothed(logs.ravel())
        steps = (jnp.arange(kept) + offset) / kept
        which = jnp.clip(jnp.searchsorted(jnp.cumsum(weights), steps), 0, size * each - 1)
        chosen = vectors.reshape(size * each, -1)[which]
        return Weighted(which // each, chosen, pareto_k, 1 / jnp.sum(weights**2), total)

    return jax.lax.map(subject, stacked)


def pareto_smoothed(log_weights: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    r"""Return Pareto-smoothed weights that sum to 1, and Pareto k [2]_; for use under jit and vmap.

    The largest :math:`\min(n / 5, 3 \sqrt n)` weights are replaced by the quantiles of a generalized
    Pareto distribution fitted to them [1]_, whose shape is k. Of equal weights k is -inf.

    Parameters
    ----------
    log_weights : Float[Array, "n"]
    """
    n = log_weights.shape[0]
    tail = min(n // 5, math.ceil(3 * n**0.5))
    logs = log_weights - log_weights.max()
    largest, places = jax.lax.top_k(logs, tail + 1)
    cutoff = jnp.exp(largest[-1])
    excess = jnp.exp(largest[:-1][::-1]) - cutoff  # ascending
    k, sigma = _generalized_pareto(jnp.maximum(excess, 1e-300))
    p = (jnp.arange(tail) + 0.5) / tail
    safe = jnp.where(jnp.abs(k) < 1e-8, 1e-8, k)
    quantile = jnp.minimum(sigma * jnp.expm1(-safe * jnp.log1p(-p)) / safe + cutoff, 1.0)
    varies = excess[-1] > 1e-12
    smooth = jnp.where(varies, jnp.log(quantile), largest[:-1][::-1])
    weights = jnp.exp(logs.at[places[:-1][::-1]].set(smooth))
    return weights / weights.sum(), jnp.where(varies, k, -jnp.inf)


def _generalized_pareto(x: Float[Array, " m"]) -> tuple[Any, Any]:
    """Return the shape and scale of excesses in ascending order, by Zhang and Stephens' estimate [1]_."""
    n = x.shape[0]
    m = 30 + int(n**0.5)
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 - jnp.sqrt(m / (jnp.arange(1, m + 1) - 0.5))
    b = b / (3 * quartile) + 1 / x[-1]
    k = jnp.log1p(-b[:, None] * x).mean(1)
    profile = n * (jnp.log(-b / k) - k - 1)
    weights = jax.nn.softmax(profile)
    mean = (weights * b).sum()
    shape = jnp.log1p(-mean * x).mean()
    # A weak prior draws the shape of few weights towards 0.5.
    return (n * shape + 5) / (n + 10), -shape / mean
