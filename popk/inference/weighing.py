"""What weights make the draws of a guide those of the exact posterior? See `variational`."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from popk.inference.approximation import population_at
from popk.inference.beginning import Beginning
from popk.inference.density import Layout, log_density, population_layout
from popk.inference.draws import Problem
from popk.inference.guides import Placed, log_normal
from popk.inference.importance import StudentT, heavy_tailed, smoothed
from popk.variability import Coordinates

_FREEDOM = 8  # degrees of freedom of the population draws that are weighted
_AT_ONCE = 32


class Weighed(NamedTuple):
    """Weighted draws.

    Attributes
    ----------
    positions : Float[ndarray, "draw d"]
    log_weights : Float[ndarray, "draw"]
    lp : Float[ndarray, "draw"]
        The log posterior density, up to a constant: of the population values, estimated, where
        `of` says so.
    of : "population" or "joint"
        What has a weight: the population's values, or whole positions.
    elbo, guide_pareto_k : float
        The evidence lower bound, and Pareto k of whole positions of the guide as it is.
    """

    positions: np.ndarray
    log_weights: np.ndarray
    lp: np.ndarray
    of: str
    elbo: float
    guide_pareto_k: float


def weighed(
    problem: Problem, begin: Beginning, placed: Placed, key: Any, *, size: int, count: int
) -> Weighed:
    """Return weighted draws of a guide.

    Parameters
    ----------
    problem, begin, placed
        See `popk.inference.variational.learned`.
    key : PRNGKey
    size : int
        How many population draws.
    count : int
        How many draws of each subject's effects for each of them; even.
    """
    plan = begin.plan
    key_guide, key_population, key_each = jax.random.split(key, 3)
    z = jax.random.normal(key_guide, (size, plan.size))
    positions, lp, logs, apart = _whole(problem, begin, placed, z)
    elbo, guide_k = float(logs.mean()), smoothed(logs)[1]
    if not apart:
        return Weighed(positions, logs, lp, "joint", elbo, guide_k)
    law = StudentT(np.zeros(plan.n_population), np.eye(plan.n_population), _FREEDOM)
    rng = np.random.default_rng(int(jax.random.randint(key_population, (), 0, 2**31 - 1)))
    z = law.draw(rng, size)
    found = _collapsed(
        problem.model, (plan, count), begin.target, problem.trial.by_subject(), placed,
        (jnp.asarray(z), jax.random.split(key_each, size)),
    )  # fmt: skip
    positions, lp, slopes = (np.asarray(x) for x in found)
    logs = _no_nan(lp - (law.log_density(z) - slopes))
    return Weighed(positions, logs, lp, "population", elbo, guide_k)


def _whole(
    problem: Problem, begin: Beginning, placed: Placed, z: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return a guide's positions, their log-densities, log weights, and whether these fall apart.

    They do where each log-density is that of the population and a sum over trials of one subject each.
    """
    stacked = problem.trial.by_subject() if begin.plan.n_individual else None
    found = _looked(problem.model, begin.plan, begin.target, stacked, placed, z)
    positions, lp, parts, log_guide = (np.asarray(x) for x in found)
    finite = np.isfinite(lp)
    apart = finite.any() and np.allclose(lp[finite], parts[finite], rtol=1e-6, atol=1e-3)
    return positions, lp, _no_nan(lp - log_guide), bool(apart)


def _no_nan(logs: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(logs), -np.inf, logs)


@partial(jax.jit, static_argnames=("model", "plan"))
def _looked(model, plan, target, stacked, placed, drawn):
    """Return a guide's positions; their log-density, whole and as a sum; and that of the guide."""
    frame, guide = placed

    def one(z):
        white, slope = guide.forward(plan, z)
        position = frame.position(plan, white)
        whole = log_density(model, plan, target.arrays, position, target.centering)
        log_guide = log_normal(z) - slope - frame.log_volume()
        if stacked is None:
            return position, whole, jnp.full_like(whole, jnp.nan), log_guide
        common, each = plan.blocks(position)
        own, prior = _subjects(model, plan, target, stacked, common)
        return position, whole, prior + own(each).sum(), log_guide

    return jax.lax.map(one, drawn, batch_size=_AT_ONCE)


def _subjects(model, plan, target, stacked, common):
    """Return the log-density of each subject's effects and levels, as a function; and the prior's.

    The function is of all subjects' numbers [subject, k].
    """
    shapes = (x._replace(shape=(1, *x.shape[1:])) if x.individual else x for x in plan.latents)
    one, centering = Layout(tuple(shapes), 1), target.centering
    sampled = model if centering is None else Coordinates(model, centering=centering)
    prior = population_at(sampled, population_layout(plan), target.arrays, common)[1]
    # Each subject may have a centering of its own, [subject, 1, parameter].
    each = centering is not None and jnp.ndim(centering.fraction) > 1
    fraction: Any = None if centering is None else centering.fraction
    fraction = fraction[:, None] if each else fraction

    def alone(arrays, fraction, effects):
        known = None if centering is None else centering._replace(fraction=fraction)
        vector = jnp.concatenate([common, effects])
        return log_density(model, one, arrays, vector, known) - prior

    return (
        lambda effects: jax.vmap(alone, (0, 0 if each else None, 0))(stacked, fraction, effects),
        prior,
    )


@partial(jax.jit, static_argnames=("model", "plans"))
def _collapsed(model, plans, target, stacked, placed, drawn):
    """Return a position for each population draw, its estimated log posterior density, and slopes.

    A slope is the log of the guide's Jacobian determinant at a draw.
    """
    (plan, count), (frame, guide) = plans, placed
    s, k = plan.n_subjects, plan.n_individual

    def one(x):
        z, key = x
        key_effects, key_choose = jax.random.split(key)
        white, slope = guide.population.forward(z)
        begin, centers = plan.blocks(frame.center)
        common = begin + frame.metric.population @ white
        own, prior = _subjects(model, plan, target, stacked, common)
        deviates, proposal = jax.vmap(lambda key: heavy_tailed(key, count, k), out_axes=1)(
            jax.random.split(key_effects, s)
        )
        each, slopes = jax.vmap(lambda z: guide.individual.forward(z, white))(deviates)
        each = centers + (frame.metric.individual * each[:, :, None, :]).sum(-1)
        logs = jax.vmap(own)(each) - (proposal - slopes)
        logs = jnp.where(jnp.isnan(logs), -jnp.inf, logs)
        chosen = jax.random.categorical(key_choose, logs, axis=0)
        effects = each[chosen, jnp.arange(s)]
        position = jnp.concatenate([common, effects.ravel()])
        return position, prior + logsumexp(logs, axis=0).sum(), slope

    return jax.lax.map(one, drawn, batch_size=_AT_ONCE)
