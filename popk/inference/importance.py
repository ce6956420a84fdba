"""Importance sampling of one subject's random effects, around their Laplace approximation.

References
----------
.. [1] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from popk.inference.laplace import find_mode, middle, terms

PER_POPULATION_DRAW = 8  # individual draws for each population draw
_FREEDOM = 5
#: With so many subjects to one draw the weights' variance from random effects is below a half.
_SUBJECTS_PER_DRAW = 4


@partial(jax.jit, static_argnames=("model", "plan", "classes", "count"))
def weighted(model, plan, arrays, population, keys, classes=0, *, count=PER_POPULATION_DRAW):
    """Return draws of one subject's random effects for each population draw, and their log weights.

    Parameters
    ----------
    model, plan, arrays
        See `find_mode`.
    population : mapping of site to array
        Population values, each [population draw, ...].
    keys : PRNGKey
        One for each population draw.
    classes : int
        How many classes the subject may be of by the model's mixture; each has proposals of its own,
        since what is likely in one need not be in another.
    count : int
        How many draws there are for each population draw and class; even.

    Returns
    -------
    vectors : Float[Array, "p c d k"]
        d draws for each population draw and class.
    log_weights : Float[Array, "p c d"]
        Up to the constant of the proposal, which `log_marginal` knows.
    """

    def joint(values, vector):
        parts = terms(model, plan, arrays, values, vector)
        return parts.prior + parts.likelihood

    def one(values, key):
        begin = middle(model, plan, arrays, values)
        mode = find_mode(model, plan, arrays, values, begin, tolerance=1e-3, max_steps=30)
        lower = jnp.linalg.cholesky(mode.curvature)
        z, proposal = heavy_tailed(key, count, plan.size)
        vectors = mode.position + jax.scipy.linalg.solve_triangular(lower.T, z.T, lower=False).T
        proposal = proposal + jnp.log(jnp.diagonal(lower)).sum()
        weights = jax.vmap(partial(joint, values))(vectors) - proposal
        return vectors, jnp.where(jnp.isnan(weights), -jnp.inf, weights)

    def each_class(x):
        values, key = x
        if not classes:
            return jax.tree.map(lambda found: found[None], one(values, key))
        considered = jnp.eye(classes)[:, None]
        return jax.vmap(lambda c: one({**values, "class_considered": c}, key))(considered)

    return jax.vmap(each_class)((population, keys))


def heavy_tailed(key, count, size):
    """Return draws of a multivariate t with 5 degrees of freedom, in pairs z and -z, and log-densities.

    Tails heavier than the posterior's keep the weights bounded where a normal proposal's are not.
    """
    key_normal, key_scale = jax.random.split(key)
    normal = jax.random.normal(key_normal, (count // 2, size))
    scale = jnp.sqrt(jax.random.chisquare(key_scale, _FREEDOM, (count // 2, 1)) / _FREEDOM)
    z = jnp.concatenate([normal / scale, -normal / scale])
    return z, -(_FREEDOM + size) / 2 * jnp.log1p((z**2).sum(-1) / _FREEDOM)


def log_marginal(log_weights, size):
    r"""Return one subject's log marginal likelihood at each population draw, of `weighted`'s weights.

    .. math:: p(y \mid \theta) = \sum_c \int p(y, u, c \mid \theta)\,du
        \approx \sum_c \frac1d \sum_j \frac{p(y, u_j, c \mid \theta)}{q(u_j)}

    with q the density of the t distribution that the d draws :math:`u_j` are of, by class c.

    Parameters
    ----------
    log_weights : Float[Array, "*p c d"]
    size : int
        How many random effects a subject has.
    """
    constant = math.lgamma((_FREEDOM + size) / 2) - math.lgamma(_FREEDOM / 2)
    constant -= size / 2 * math.log(_FREEDOM * math.pi)
    total = jax.scipy.special.logsumexp(log_weights, axis=(-2, -1))
    return total - math.log(log_weights.shape[-1]) - constant


def smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Return Pareto-smoothed weights that sum to 1, and Pareto k [1]_."""
    from arviz_stats.base.array import array_stats

    # ArviZ takes log-likelihoods, whose negatives are the log weights of leave-one-out.
    logs, pareto_k = array_stats.psislw(-log_weights)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum(), float(pareto_k)


def resampled(weights: np.ndarray, count: int, key: Any) -> np.ndarray:
    """Return the indices of draws of equal weight (systematic resampling)."""
    offset = float(jax.random.uniform(key))
    return np.searchsorted(np.cumsum(weights), (np.arange(count) + offset) / count * weights.sum())


def enough(subjects: int) -> int:
    """Return how many draws of each subject's random effects suffice for each population draw."""
    return int(np.clip(2 ** np.ceil(np.log2(max(subjects / _SUBJECTS_PER_DRAW, 1))), 8, 64))


class StudentT(NamedTuple):
    """A t distribution of population positions.

    Attributes
    ----------
    center : Float[ndarray, "d"]
    lower : Float[ndarray, "d d"]
        The Cholesky factor of its scale.
    freedom : float
        Degrees of freedom.
    """

    center: np.ndarray
    lower: np.ndarray
    freedom: float

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return draws [draw, d]."""
        size = len(self.center)
        normal, squares = rng.normal(size=(count, size)), rng.chisquare(self.freedom, (count, 1))
        return self.center + normal / np.sqrt(squares / self.freedom) @ self.lower.T

    def log_density(self, positions: np.ndarray) -> np.ndarray:
        """Return the log-density, up to a constant that those of one size and freedom share."""
        z = np.linalg.solve(self.lower, (positions - self.center).T)
        tails = -(self.freedom + len(z)) / 2 * np.log1p((z**2).sum(0) / self.freedom)
        return tails - np.log(np.diagonal(self.lower)).sum()
