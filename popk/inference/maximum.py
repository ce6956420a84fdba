r"""Which population values make the levels most likely? Maximum likelihood by the Laplace approximation.

.. math:: \mathrm{OFV}(\theta) = \sum_i \left[-2 \log p(y_i, \hat\eta_i | \theta) + \ln |H_i|\right]
    - (N + n k) \ln 2\pi

with N levels and n subjects of k random effects: the objective of NONMEM's FOCE INTERACTION where
errors are normal. Priors of population parameters play no part, so that differences of nested models
are likelihood ratios. The gradient is that of the approximation itself, in which the mode moves with
:math:`\theta` by the implicit function theorem [1]_.

References
----------
.. [1] Almquist J, Leander J, Jirstrand M (2015). Using sensitivity equations for computing gradients
   of the FOCE and FOCEI approximations to the population likelihood. J Pharmacokinet Pharmacodyn
   42:191-209. doi:10.1007/s10928-015-9409-1
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.inference.compilation import keep_compiled
from popk.inference.density import Layout, Vector, layout, population_layout
from popk.inference.laplace import curved, find_mode, subject_layout
from popk.model.sites import Model, ModelError
from popk.trial import Trial

#: The search ends where a quadratic model of the objective promises no larger fall than this.
LEAST_FALL = 1e-5

Supports = dict[str, Any]


class Maximum(NamedTuple):
    """The end of a search.

    Attributes
    ----------
    position : Float[ndarray, "d"]
        The unconstrained population values.
    objective : float
    promised : float
        How far the objective would still fall by a quadratic model of it.
    """

    position: np.ndarray
    objective: float
    promised: float


class Likelihood(NamedTuple):
    """A model's Laplace-approximated likelihood on a trial, compiled once for all its submodels.

    Attributes
    ----------
    places : dict of str to slice
        Where each population site stands in the position.
    begin : Float[ndarray, "d"]
        Where a search begins: the middle of the priors, where nothing else is said.
    objective : Callable
        Of a position and a mask [d]: the objective and its gradient, constrained values multiplied by
        the mask.
    values : Callable
        Of a position and a mask: the sites' values.
    """

    places: dict[str, slice]
    begin: np.ndarray
    objective: Callable[[Any, Any], tuple[float, np.ndarray]]
    values: Callable[[Any, Any], dict[str, Any]]


def likelihood(model: Model, trial: Trial, start: Mapping[str, Any]) -> Likelihood:
    """Return the likelihood of a model's population values on a trial.

    Parameters
    ----------
    model : Callable
    trial : Trial
    start : mapping of site to value
        Where a search begins, where it is not the middle of the prior.

    Raises
    ------
    ModelError
        The model has no random effects, or `start` names a site that it does not sample.
    """
    keep_compiled()
    individual, arrays = subject_layout(model, trial), trial.arrays()
    whole = layout(model, trial)
    plan = population_layout(whole)
    latents = plan.latents
    supports, begin = _supports(model, plan, arrays, start)
    ends = np.cumsum([0, *(x.size for x in latents)])
    places = {x.name: slice(*map(int, ends[i : i + 2])) for i, x in enumerate(latents)}
    measured = np.asarray(trial.observations.measured).sum()
    constant = float((measured + trial.n_subjects * individual.size) * np.log(2 * np.pi))
    stacked = trial.by_subject()

    def objective(position: Any, mask: Any) -> tuple[float, np.ndarray]:
        at, kept = jnp.asarray(position), jnp.asarray(mask)
        value, slope = _objective(model, (plan, individual), supports, stacked, at, kept)
        return float(value) - constant, np.where(mask > 0, np.asarray(slope), 0.0)

    def values(position: Any, mask: Any) -> dict[str, Any]:
        return _values(plan, supports, jnp.asarray(position), jnp.asarray(mask))

    return Likelihood(places, np.asarray(begin), objective, values)


def _values(plan: Layout, supports: Supports, position: Vector, mask: Vector) -> dict[str, Any]:
    """Return the population values at a position."""
    values, kept = plan.unflatten(position), plan.unflatten(mask)
    # An effect that is left out is exactly 0, whatever its position; all else has a mask of 1.
    return {
        n: jnp.where(kept[n].min() > 0, biject_to(supports[n])(u), 0.0) for n, u in values.items()
    }


@partial(jax.jit, static_argnames=("model", "plans"))
def _objective(model, plans, supports, stacked, position, mask):
    """Return the sum of all subjects' objectives, and its gradient."""
    plan, individual = plans

    def own(one):
        values = _values(plan, supports, position, mask)
        mode = find_mode(model, individual, one, values, jnp.zeros(individual.size)).position
        look = partial(curved, model, individual, one)
        return total(lambda at, u: look(_values(plan, supports, at, mask), u), position, mode)

    values, slopes = jax.vmap(own)(stacked)
    return values.sum(), slopes.sum(0)


def _supports(
    model: Model, plan: Layout, arrays: Trial, start: Mapping[str, Any]
) -> tuple[Supports, Any]:
    """Return the support of each population site, and where a search begins, unconstrained."""
    supports: dict[str, Any] = {}
    known = [x.name for x in plan.latents]
    if strange := [n for n in start if n not in known]:
        raise ModelError(f"start names {', '.join(strange)}; the model samples {', '.join(known)}")

    def middle(name: str, fn: Any, shape: tuple[int, ...]) -> Any:
        if name in start:
            return biject_to(fn.support).inv(jnp.asarray(start[name], dtype=float))
        if fn.event_dim:  # a correlation matrix: none
            return jnp.zeros(shape)
        draws = fn.sample(jax.random.key(1), (501,))
        return jnp.median(jax.vmap(biject_to(fn.support).inv)(draws), axis=0)

    def begin(arrays: Trial) -> Any:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(arrays)
        supports.update({x.name: trace[x.name]["fn"].support for x in plan.latents})
        return plan.flatten(
            {x.name: middle(x.name, trace[x.name]["fn"], x.shape) for x in plan.latents}
        )

    found = jax.jit(begin)(arrays)  # compiled, so that the structure is never computed
    return supports, found


def total(
    look: Callable[..., Any], position: Vector, mode: Float[Array, " k"]
) -> tuple[Float[Array, ""], Vector]:
    """Return one subject's objective and its gradient, the mode following the position."""

    def both(at: Any, u: Any) -> tuple[Any, Any]:
        joint, slope, _, h = look(at, u)
        return -2 * joint + jnp.linalg.slogdet(h)[1], slope

    (value, slope), pull = jax.vjp(both, position, mode)
    direct, by_mode = pull((jnp.ones(()), jnp.zeros_like(slope)))
    cross, hessian = jax.vmap(lambda e: pull((jnp.zeros(()), e)))(jnp.eye(len(mode)))
    # The slope is 0 at the mode, wherever the position is: hessian . du + cross . dx + slope = 0.
    weights = jnp.linalg.solve(hessian, by_mode)
    return value - weights @ slope, direct - weights @ cross


def maximize(
    found: Likelihood, begin: np.ndarray, mask: np.ndarray, max_steps: int = 300
) -> Maximum:
    """Return the population values of the smallest objective.

    Broyden, Fletcher, Goldfarb and Shanno's steps [2]_, shortened until the objective falls; where it
    is not finite it does not.

    Parameters
    ----------
    found : Likelihood
    begin : Float[ndarray, "d"]
        Where the search begins, unconstrained.
    mask : Float[ndarray, "d"]
        1 where a value is sought, 0 where it is 0.

    Raises
    ------
    ModelError
        The objective or its gradient is not finite where the search begins, or the structure is one
        of `popk.ode`.

    References
    ----------
    .. [2] Nocedal J, Wright SJ (2006). Numerical Optimization, 2nd ed, algorithm 6.1. Springer.
       doi:10.1007/978-0-387-40065-5
    """
    x, inverse = np.where(mask > 0, begin, 0.0), None
    try:
        value, slope = found.objective(x, mask)
    except NotImplementedError as error:
        raise ModelError(
            "maximum likelihood needs second derivatives, which the solver of popk.ode does not have; "
            "write the structure in closed form or with popk.linear, or weigh effects by popk.horseshoe"
        ) from error
    if not (np.isfinite(value) and np.isfinite(slope).all()):
        raise ModelError(
            "the objective or its gradient is not finite where the search begins; say start= with "
            "values near those expected"
        )
    for _ in range(max_steps):
        # The first step is short: the objective's scale is not known yet.
        step = -slope / max(1.0, float(abs(slope).max())) if inverse is None else -inverse @ slope
        if not slope.any() or (inverse is not None and float(-slope @ step) / 2 < LEAST_FALL):
            break
        step *= min(1.0, 2.0 / abs(step).max())  # at most e^2 times as much of anything
        lower = _lower(lambda at: found.objective(at, mask), x, step, value, slope)
        if lower is None and inverse is None:
            break
        if lower is None:  # what was learned of the curvature misleads
            inverse = None
            continue
        inverse = _updated(inverse, lower[0] - x, lower[2] - slope)
        x, value, slope = lower
    promised = float(slope @ (np.eye(len(x)) if inverse is None else inverse) @ slope) / 2
    return Maximum(x, value, promised)


def _lower(
    objective: Callable[[Any], tuple[float, np.ndarray]],
    x: np.ndarray, step: np.ndarray, value: float, slope: np.ndarray,
) -> tuple[np.ndarray, float, np.ndarray] | None:  # fmt: skip
    """Return the first point along a step at which the objective is lower enough, None if none is."""
    for size in 3.0 ** -np.arange(13):
        after, new = objective(x + size * step)
        if after <= value + 1e-4 * size * float(slope @ step) and np.isfinite(new).all():
            return x + size * step, after, new
    return None


def _updated(inverse: np.ndarray | None, moved: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Return the inverse Hessian after a step; unchanged where the slope did not rise along it."""
    rise = float(moved @ turned)
    if inverse is None:
        inverse = np.eye(len(moved)) * (rise / float(turned @ turned) if rise > 0 else 1e-3)
    if not rise > 1e-12:
        return inverse
    left = np.eye(len(moved)) - np.outer(moved, turned) / rise
    return left @ inverse @ left.T + np.outer(moved, moved) / rise
