r"""Where is a population's posterior highest, and how does it fall away from there?

The density is that of the unconstrained population values :math:`\theta` (with the Jacobian of the
transforms: what importance sampling draws from), random effects integrated out by Laplace's
approximation,

.. math:: -2 \log \tilde p(\theta | y) = \mathrm{OFV}(\theta) + N \ln 2\pi - 2 \log p(\theta)

with the objective of NONMEM's FOCE INTERACTION and the priors of the model.

References
----------
.. [1] Kass RE, Steffey D (1989). Approximate Bayesian inference in conditionally independent
   hierarchical models (parametric empirical Bayes models). J Am Stat Assoc 84:717-726.
   doi:10.1080/01621459.1989.10478825
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.inference.density import Layout, Vector, layout, population_layout, start
from popk.inference.draws import Problem
from popk.inference.laplace import curved, find_mode, middle, refuse_factors, subject_layout
from popk.inference.maximum import Likelihood, Maximum, maximize, total
from popk.inference.objective import has_information, levels_of_subjects
from popk.model.sites import Model, ModelError
from popk.trial import Trial


def population_at(
    model: Model, whole: Layout, arrays: Trial, position: Vector
) -> tuple[dict[str, Any], Float[Array, ""]]:
    """Return population values, and the log-density of their priors with that of the transforms.

    Parameters
    ----------
    model, whole, arrays
        The model, its layout on the trial, and the trial's arrays.
    position : Float[Array, "d"]
        The unconstrained population values.

    Raises
    ------
    ModelError
        The model has a factor of its own that is of no subject.
    """
    at = population_layout(whole).unflatten(position)
    own = {x.name for x in whole.latents if x.individual}
    values, logs = {}, []

    def choose(site: dict[str, Any]) -> Any:
        name = site["name"]
        if site["type"] != "sample" or name not in at.keys() | own:
            return None
        fn = site["fn"]
        if name in own:  # whatever it is: priors of the population do not depend on it
            return jnp.broadcast_to(fn.mean, fn.shape())
        bijection = biject_to(fn.support)
        values[name] = bijection(at[name])
        jacobian = bijection.log_abs_det_jacobian(at[name], values[name])
        logs.extend([jnp.sum(fn.log_prob(values[name])), jnp.sum(jacobian)])
        return values[name]

    # All of the model runs, since errors are sampled last; of the structure nothing is computed.
    seeded = handlers.seed(handlers.substitute(model, substitute_fn=choose), jax.random.key(0))
    refuse_factors(handlers.trace(seeded).get_trace(arrays))
    return values, sum(logs, jnp.zeros(()))


@partial(jax.jit, static_argnames=("model", "whole", "plan"))
def posterior(model, whole, plan, arrays, stacked, position):
    """Return -2 log posterior density and its gradient, its likelihood's part, and the modes.

    Parameters
    ----------
    model, whole, arrays
        See `population_at`.
    plan, stacked
        The layout of `subject_layout`, and one trial a subject.
    position : Float[Array, "d"]
    """
    (values, prior), pull = jax.vjp(partial(population_at, model, whole, arrays), position)
    flat, named = ravel_pytree(values)

    def own(one):
        begin = middle(model, plan, one, values)
        mode = find_mode(model, plan, one, values, begin).position
        look = partial(curved, model, plan, one)
        return *total(lambda at, u: look(named(at), u), flat, mode), mode

    found, slopes, modes = jax.vmap(own)(stacked)
    (gradient,) = pull((named(slopes.sum(0)), jnp.asarray(-2.0)))
    return found.sum() - 2 * prior, gradient, found.sum(), modes


class Surface(NamedTuple):
    """A model's approximate posterior on a trial, over population positions.

    Attributes
    ----------
    whole, plan : Layout
        Of everything, and of one subject's random effects.
    arrays, stacked : Trial
        The trial's arrays, together and one trial a subject.
    constant : float
        N ln 2 pi, with N levels.
    """

    model: Model
    whole: Layout
    plan: Layout
    arrays: Trial
    stacked: Trial
    constant: float

    @classmethod
    def of(cls, problem: Problem) -> "Surface":
        """Return that of a problem.

        Raises
        ------
        ModelError
            The model has no Laplace approximation.
        """
        model, trial, sites = problem
        _refuse(problem)
        plan, whole = subject_layout(model, trial), layout(model, trial)
        surface = cls(
            model, whole, plan, trial.arrays(), trial.by_subject(),
            float(levels_of_subjects(trial, sites).sum() * np.log(2 * np.pi)),
        )  # fmt: skip
        leaves, structure = jax.tree.flatten((surface.arrays, surface.stacked))
        shapes = tuple((np.shape(x), np.result_type(x)) for x in leaves)
        if not _informed(model, whole, plan, structure, shapes):
            raise ModelError(
                "method='laplace' needs the information of each level on its own prediction, which times "
                "to events and correlated errors do not have; take method='nuts'"
            )
        return surface

    def look(self, position: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Return `posterior` at a position."""
        at = jnp.asarray(position)
        return posterior(self.model, self.whole, self.plan, self.arrays, self.stacked, at)


@lru_cache(maxsize=256)
def _informed(
    model: Model, whole: Layout, plan: Layout, structure: Any, leaves: tuple[Any, ...]
) -> bool:
    """Return whether levels have information on their predictions; nothing is computed."""
    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in leaves]
    known: list[bool] = []

    def run(leaves: Any, position: Vector) -> Any:
        arrays, stacked = jax.tree.unflatten(structure, leaves)
        first = jax.tree.map(lambda x: x[0], stacked)
        values, prior = population_at(model, whole, arrays, position)
        known.append(has_information(model, plan, first, values))
        return prior

    jax.eval_shape(run, shapes, jax.ShapeDtypeStruct((whole.n_population,), jnp.result_type(float)))
    return known[0]


def _refuse(problem: Problem) -> None:
    """Refuse models whose posterior has no mode, or several by design."""
    sites = problem.sites
    if sites.classes:
        raise ModelError(
            "method='laplace' cannot look around one mode where subjects are of classes: their random "
            "effects have several; take method='nuts'"
        )
    if sites.levels:
        raise ModelError(
            f"method='laplace' integrates out what differs between subjects, not between groups of them "
            f"({', '.join(sites.levels)}), whose effects and standard deviation have no common mode; take "
            f"method='nuts'"
        )


class Summit(NamedTuple):
    """The highest point of an approximate posterior.

    Attributes
    ----------
    position : Float[ndarray, "d"]
        The unconstrained population values there.
    covariance : Float[ndarray, "d d"]
        Of these, the inverse of half the second derivatives of -2 log density.
    modes : Float[ndarray, "subject k"]
        The random effects' modes.
    turns : Float[ndarray, "subject k d"]
        How they move with the position.
    objective : float
        NONMEM's FOCE INTERACTION objective, without N ln 2 pi and without priors.
    values, errors : dict of str to list or float
        Population values and their standard errors (delta method).
    """

    position: np.ndarray
    covariance: np.ndarray
    modes: np.ndarray
    turns: np.ndarray
    objective: float
    values: dict[str, Any]
    errors: dict[str, Any]


#: Searches that begin elsewhere, where the first one fails.
_STARTS = 5
_LEFT = 0.01  # a search that could still fall by more than this has failed
_STEP = 0.02  # of the differences of the gradient, in standard deviations
_NOT_TWICE = (
    "method='laplace' needs second derivatives, which the solver of popk.ode does not have; write the "
    "structure in closed form or with popk.linear, or take method='nuts'"
)


def summit(surface: Surface, seed: int) -> Summit:
    """Return where a posterior is highest; searched again from elsewhere where a search fails.

    Raises
    ------
    ModelError
        No search ends at a mode.
    """
    said = "the density falls away from no point that was found"
    for attempt in range(_STARTS):
        try:
            end = _climbed(surface, jax.random.fold_in(jax.random.key(seed), attempt))
        except ModelError as error:
            if isinstance(error.__cause__, NotImplementedError):
                raise ModelError(_NOT_TWICE) from error
            said = str(error)
            continue
        found = _surroundings(surface, end)
        if end.promised <= _LEFT and found is not None:
            return found
    raise ModelError(
        f"method='laplace' found no mode of the posterior in {_STARTS} searches ({said}); tighten vague "
        f"priors, or take method='nuts'"
    )


def _climbed(surface: Surface, key: Any) -> Maximum:
    """Return where a search ends that begins near the middle of the priors."""
    begin = start(surface.model, surface.whole, surface.arrays, key)[: surface.whole.n_population]

    def objective(position: Any, _: Any) -> tuple[float, np.ndarray]:
        value, slope, *_ = surface.look(position)
        return float(value), np.asarray(slope)

    found = Likelihood({}, np.asarray(begin), objective, lambda *_: {})
    return maximize(found, found.begin, np.ones_like(found.begin))


def _surroundings(surface: Surface, end: Maximum) -> Summit | None:
    """Return what a posterior looks like around the end of a search; None where it is no mode."""
    steps = 1e-5 * np.maximum(1.0, np.abs(end.position))
    for fraction in (_STEP, None):  # first to see how wide it is
        sides = [
            [surface.look(end.position + sign * step) for sign in (1, -1)]
            for step in np.diag(steps)
        ]
        curvature = np.stack([np.asarray(a[1] - b[1]) for a, b in sides]) / (4 * steps[:, None])
        widths = np.diagonal(curvature)
        if not (np.isfinite(curvature).all() and (widths > 0).all()):
            return None
        steps = steps if fraction is None else _STEP / np.sqrt(widths)
    curvature = (curvature + curvature.T) / 2
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        return None
    covariance = np.linalg.inv(curvature)
    turns = np.stack([np.asarray(a[3] - b[3]) for a, b in sides], -1) / (2 * steps)
    # The search ends where little can be gained: Newton's step from there gains it.
    position = end.position - covariance @ np.asarray(surface.look(end.position)[1]) / 2
    position = position if surface.look(position)[0] <= end.objective else end.position
    _, _, objective, modes = surface.look(position)
    values, errors = _with_errors(surface, position, covariance)
    objective = float(objective) - surface.constant - modes.size * np.log(2 * np.pi)
    return Summit(position, covariance, np.asarray(modes), turns, objective, values, errors)


def _with_errors(
    surface: Surface, position: np.ndarray, covariance: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return population values as plain numbers, and their standard errors."""
    at = jnp.asarray(position)
    values, slopes = _moving(surface.model, surface.whole, surface.arrays, at)
    errors = {
        n: np.sqrt(np.einsum("...i,ij,...j->...", np.asarray(j), covariance, np.asarray(j)))
        for n, j in slopes.items()
    }
    plain = [{n: np.asarray(x).tolist() for n, x in y.items()} for y in (values, errors)]
    return plain[0], plain[1]


@partial(jax.jit, static_argnames=("model", "whole"))
def _moving(model, whole, arrays, position):
    """Return population values, and their derivatives by the position."""

    def at(position):
        return population_at(model, whole, arrays, position)[0]

    return at(position), jax.jacfwd(at)(position)
