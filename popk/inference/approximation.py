r"""Where is the posterior, about? A normal approximation of it, from first derivatives alone.

Given population values :math:`\theta`, each subject's random effects are about
:math:`q_i = N(\hat\eta_i, H_i^{-1})`, see `laplace`. By Fisher's identity [1]_

.. math:: \nabla \log p(y_i | \theta) = E_{p(\eta_i | y_i, \theta)} \nabla \log p(y_i, \eta_i | \theta)
    \approx E_{q_i} \nabla \log p(y_i, \eta_i | \theta) = s_i

where the mean over :math:`q_i` is that over 2k points of a cubature [2]_. The search for the mode of
:math:`\theta` takes steps by how the scores vary between subjects [3]_, damped, until the posterior
density, its random effects integrated out over the same points, no longer rises. Chains begin from
what it finds, and measure by it.

References
----------
.. [1] Louis TA (1982). Finding the observed information matrix when using the EM algorithm. J R Stat
   Soc B 44:226-233. doi:10.1111/j.2517-6161.1982.tb01203.x
.. [2] Arasaratnam I, Haykin S (2009). Cubature Kalman filters. IEEE Trans Autom Control
   54:1254-1269. doi:10.1109/TAC.2009.2019800
.. [3] Berndt EK, Hall BH, Hall RE, Hausman JA (1974). Estimation and inference in nonlinear
   structural models. Ann Econ Soc Meas 3:653-665.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.inference.density import Layout, Vector, layout, population_layout, start
from popk.inference.laplace import find_mode, joint, middle, prior_density, subject_layout
from popk.model.sites import Model
from popk.trial import Trial

#: A search ends where a quadratic model of the log-density promises no larger rise than this.
ENOUGH = 0.02
#: Searches for modes: from the middle of the prior, and from draws of it; in trials of more levels than
#: this only one of these, since they take longer there and modes are further apart.
SEARCHES, FEW, LEVELS = 5, 2, 1000
#: The most steps of a search.
STEPS = 40


class Approximation(NamedTuple):
    """A normal approximation of the posterior around one mode.

    Attributes
    ----------
    population, individual : Layout
        How population values, and one subject's random effects as they stand in the model, are laid out.
    position : Float[ndarray, "d"]
        The population values, unconstrained, each subject's random effects integrated out.
    covariance : Float[ndarray, "d d"]
        Their covariance.
    centers : Float[ndarray, "subject k"]
        Each subject's random effects, unconstrained.
    curvatures : Float[ndarray, "subject k k"]
        The inverses of their covariances, population values given.
    log_mass : float
        The log of the posterior mass around the mode, up to a constant.
    """

    population: Layout
    individual: Layout
    position: np.ndarray
    covariance: np.ndarray
    centers: np.ndarray
    curvatures: np.ndarray
    log_mass: float


class _Look(NamedTuple):
    """What is seen at a position.

    Attributes
    ----------
    log_density : Float[Array, ""]
        Of the population values, up to a constant.
    scores : Float[Array, "subject d"]
    slope : Float[Array, "d"]
        Of the log-density: the sum of the scores and the slope of the log prior.
    centers : Float[Array, "subject k"]
    curvatures : Float[Array, "subject k k"]
    """

    log_density: Any
    scores: Any
    slope: Any
    centers: Any
    curvatures: Any


def approximations(model: Model, trial: Trial, key: Any) -> list[Approximation]:
    """Return normal approximations of the posterior around its modes, the one of most mass first.

    Parameters
    ----------
    model : Callable
    trial : Trial
    key : PRNGKey
        Of the prior draws from which searches begin, beside that from the middle of the prior.

    Returns
    -------
    list of Approximation
        Empty where no search ended at a mode.

    Raises
    ------
    ModelError
        The model has no random effects, or observes what has no such approximation: events, correlated
        errors.
    """
    whole, individual = layout(model, trial), subject_layout(model, trial)
    population = population_layout(whole)
    stacked = trial.by_subject()
    plans = (population, individual)
    look = partial(_look, model, plans, stacked)
    typical = np.asarray(
        _typical(model, (population, individual), stacked, np.zeros(population.size))
    )
    found: list[Approximation] = []
    for i in range(SEARCHES if trial.observations.measured.sum() <= LEVELS else FEW):
        own = jax.random.fold_in(key, i)
        vector = start(model, whole, trial.arrays(), own, jitter=1.0 if i else 0.0)
        ends = _searched(look, np.asarray(vector[: population.size]), typical, found)
        if ends is not None:
            found.append(Approximation(population, individual, *_measured(look, ends)))
    return sorted(found, key=lambda one: -one.log_mass)


class _End(NamedTuple):
    """Where a search ended."""

    position: np.ndarray
    seen: _Look


def _searched(
    look: Callable[..., _Look], begin: np.ndarray, centers: Any, known: Sequence[Approximation]
) -> _End | None:
    """Return where the log-density no longer rises.

    None where it is not finite at the beginning, where the search comes to a mode that is known, or
    where it does not end.
    """
    x, damping, radius = begin, 1e-2, 2.0  # steps of at most e^2 times as much of anything
    seen = _host(look(x, centers, 1e-4))
    if not _finite(seen):
        return None
    for _ in range(STEPS):
        if any(_near(x, mode) for mode in known):
            return None
        curvature = _outer(seen.scores)
        if seen.slope @ np.linalg.solve(curvature, seen.slope) < ENOUGH or radius < 1e-3:
            return _End(x, seen)
        damped = curvature + damping * np.diag(np.diag(curvature))
        step = np.linalg.solve(damped, seen.slope)
        step *= min(1.0, radius / abs(step).max())
        tried = _host(look(x + step, seen.centers, 1e-4))
        if _finite(tried) and tried.log_density > seen.log_density:
            x, seen, damping, radius = (
                x + step,
                tried,
                max(damping / 10, 1e-6),
                min(2 * radius, 2.0),
            )
        else:
            damping, radius = max(damping * 10, 1e-2), abs(step).max() / 4
    return None if known else _End(x, seen)


def _outer(scores: np.ndarray) -> np.ndarray:
    """Return about the curvature of the posterior: how the scores vary, and a prior's own, about."""
    away = scores - scores.mean(0)  # far from the mode scores are large, and much alike
    return away.T @ away + 0.5 * np.eye(scores.shape[1])


def _host(seen: _Look) -> _Look:
    return jax.tree.map(np.asarray, seen)


def _finite(seen: _Look) -> bool:
    return all(bool(np.isfinite(part).all()) for part in seen)


def _measured(
    look: Callable[..., _Look], end: _End
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the position, its covariance, what was seen there, and the log of the mass around it."""
    x, seen = end
    outer = _outer(seen.scores)
    sd = np.sqrt(np.diag(np.linalg.inv(outer)))
    base = _host(look(x, seen.centers, 1e-8))
    rows = [
        (base.slope - _host(look(x + step, base.centers, 1e-8)).slope) / step.sum()
        for step in np.diag(0.05 * sd)
    ]
    curvature = np.array(rows)
    curvature = (curvature + curvature.T) / 2
    scaled = curvature * np.outer(sd, sd)
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 0.02:
        # no mode, or a long ridge: what subjects say one by one, and the prior, bound it
        scaled = outer * np.outer(sd, sd)
    covariance = np.linalg.inv(scaled) * np.outer(sd, sd)
    last = covariance @ base.slope  # one step of Newton's, if it is a short one
    if last @ base.slope < len(x) and _finite(after := _host(look(x + last, base.centers, 1e-8))):
        x, base = x + last, after
    mass = float(base.log_density) + float(np.linalg.slogdet(covariance)[1]) / 2
    return x, covariance, base.centers, base.curvatures, mass


def _near(position: np.ndarray, other: Approximation) -> bool:
    """Return whether a position belongs to the mode of an approximation."""
    away = position - other.position
    return bool(away @ np.linalg.solve(other.covariance, away) < 9 * len(away))


@partial(jax.jit, static_argnames=("model", "plans"))
def _look(model, plans, stacked, position, centers, tolerance):
    population, individual = plans
    first = jax.tree.map(lambda x: x[0], stacked)

    def own(one, begin):
        values, _ = population_at(model, population, first, position)
        found = find_mode(model, individual, one, values, begin, tolerance=tolerance, max_steps=40)
        lower, k = jnp.linalg.cholesky(found.curvature), individual.size
        spread = np.sqrt(k) * jax.scipy.linalg.solve_triangular(lower.T, jnp.eye(k)).T
        spread = jnp.concatenate([spread, -spread])

        def mean_joint(at, u):
            values, _ = population_at(model, population, first, at)

            return jax.vmap(partial(joint, model, individual, one, values))(u + spread).mean()

        def centered(u, _):
            # Where the mean slope is 0: the mean of the distribution rather than its mode.
            value, (score, slope) = jax.value_and_grad(mean_joint, (0, 1))(position, u)
            step = jax.scipy.linalg.cho_solve((lower, True), slope)
            return u + step / jnp.maximum(1.0, jnp.sqrt(slope @ step)), (value, score, u)

        _, steps = jax.lax.scan(centered, found.position, None, length=3)
        value, score, center = jax.tree.map(lambda x: x[-1], steps)
        return value - jnp.log(jnp.diagonal(lower)).sum(), score, center, found.curvature

    values, scores, found, curvatures = jax.vmap(own)(stacked, centers)
    prior, slope = jax.value_and_grad(lambda at: population_at(model, population, first, at)[1])(
        position
    )
    return _Look(prior + values.sum(), scores, slope + scores.sum(0), found, curvatures)


@partial(jax.jit, static_argnames=("model", "plans"))
def _typical(model, plans, stacked, position):
    """Return the random effects from which the first search of each subject begins."""

    def own(one):
        values, _ = population_at(model, plans[0], one, position)
        return middle(model, plans[1], one, values)

    return jax.vmap(own)(stacked)


def population_at(
    model: Model, plan: Layout, arrays: Trial, position: Vector
) -> tuple[dict[str, Any], Any]:
    """Return the population values at an unconstrained position, and their log prior density there.

    The density is that of the unconstrained position; the structure is not computed.
    """
    free, values, jacobians = plan.unflatten(position), {}, []

    def choose(site: dict[str, Any]) -> Any:
        if site["type"] != "sample" or site["name"] not in free:
            return None
        bijection, u = biject_to(site["fn"].support), free[site["name"]]
        values[site["name"]] = value = bijection(u)
        jacobians.append(jnp.sum(bijection.log_abs_det_jacobian(u, value)))
        return value

    seeded = handlers.seed(handlers.substitute(model, substitute_fn=choose), jax.random.key(0))
    return values, prior_density(seeded, set(free), arrays) + sum(jacobians, jnp.zeros(()))
