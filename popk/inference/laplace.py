r"""The Laplace approximation of one subject's random effects, population values being given.

The mode of the joint density of random effects and levels is found by Levenberg-Marquardt steps on
the Gauss-Newton curvature

.. math:: H = J^T I J + P, \qquad J = \partial f / \partial u

with I the expected information of each level on its prediction f and P the curvature of the prior. For
normal errors this is the H of NONMEM's FOCE with INTERACTION.

References
----------
.. [1] Wang Y (2007). Derivation of various NONMEM estimation methods. J Pharmacokinet Pharmacodyn
   34:575-593. doi:10.1007/s10928-007-9060-6
.. [2] Marquardt DW (1963). An algorithm for least-squares estimation of nonlinear parameters.
   J Soc Indust Appl Math 11:431-441. doi:10.1137/0111030
"""

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from popk.inference.density import Layout, Vector, layout
from popk.model.failures import why_not
from popk.model.levels import Curvatures, curvatures_of, levels_of
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, ModelError, beside_levels, describe
from popk.trial import Trial


class Mode(NamedTuple):
    """A posterior mode of one subject's unconstrained random effects.

    Attributes
    ----------
    position : Float[Array, "k"]
    joint : Float[Array, ""]
        The joint log-density of random effects and levels there.
    curvature : Float[Array, "k k"]
        H, the inverse of the approximate posterior covariance.
    gap : Float[Array, ""]
        The Newton decrement left: twice what the quadratic approximation could still gain.
    """

    position: Vector
    joint: Float[Array, ""]
    curvature: Float[Array, "k k"]
    gap: Float[Array, ""]


class Terms(NamedTuple):
    """The joint density of one subject, in parts."""

    prior: Float[Array, ""]
    likelihood: Float[Array, ""]
    levels: Curvatures


def individual_layout(model: Model, trial: Trial) -> Layout:
    """Return the layout of one subject's random effects as they stand in the model.

    Raises
    ------
    ModelError
        The model has no random effects.
    """
    plan = layout(model, trial)
    plan = plan._replace(latents=tuple(latent for latent in plan.latents if latent.individual))
    if not plan.latents:
        raise ModelError("the model has no random effects; give it popk.individual(trial, ...)")
    return plan


def subject_layout(model: Model, trial: Trial) -> Layout:
    """Return the layout of the random effects of any one subject of a trial.

    Raises
    ------
    ModelError
        The model has no random effects.
    """
    plan = individual_layout(model, trial)._replace(n_subjects=1)
    return plan._replace(latents=tuple(x._replace(shape=(1, *x.shape[1:])) for x in plan.latents))


def middle(model: Model, plan: Layout, arrays: Trial, population: Mapping[str, Any]) -> Vector:
    """Return where a search for the mode begins: random effects of 0, other values at their mean."""
    found: dict[str, Any] = {}
    own = {latent.name: latent for latent in plan.latents}

    def choose(site: dict[str, Any]) -> Any:
        name = site["name"]
        if site["type"] != "sample" or name not in own:
            return population.get(name)
        value = jnp.broadcast_to(0.0 if name == "eta" else site["fn"].mean, site["fn"].shape())
        found[name] = biject_to(site["fn"].support).inv(value)
        return value

    seeded = handlers.seed(handlers.substitute(model, substitute_fn=choose), jax.random.key(0))
    effects = _Effects(seeded, set(own))
    with contextlib.suppress(_Enough):
        effects(arrays)
    return plan.flatten(found)


def terms(
    model: Model, plan: Layout, arrays: Trial, population: Mapping[str, Any], vector: Vector
) -> Terms:
    """Return the joint density of one subject's random effects and levels, in parts.

    Parameters
    ----------
    model, plan, arrays
        The model, the layout of `individual_layout`, and a trial of one subject.
    population : mapping of site to value
    vector : Float[Array, "k"]
        Unconstrained random effects.
    """
    substituted, jacobians = individualized(model, plan, population, vector)
    trace = handlers.trace(handlers.seed(substituted, jax.random.key(0))).get_trace(arrays)
    own = {latent.name for latent in plan.latents}
    prior = sum((_density(s) for s in trace.values() if _is_prior(s, own)), jnp.zeros(()))
    prior = prior + sum(jacobians, jnp.zeros(()))
    return Terms(prior, levels_of(trace).log_prob.sum(), curvatures_of(trace))


def _is_prior(site: Mapping[str, Any], own: set[str]) -> bool:
    """Return whether a site is a random effect, or a known covariate that is modeled."""
    if site["type"] != "sample":
        return False
    return site["name"] in own or beside_levels(site)


def _density(site: Mapping[str, Any]) -> Float[Array, ""]:
    return jnp.sum(site["fn"].log_prob(site["value"]))


class _Enough(Exception):  # noqa: N818 - no error: all that is asked for has been seen
    """The random effects of a model are all sampled."""


class _Effects(Messenger):
    """Add up the log-densities of random effects, and stop the model where the last is sampled."""

    def __init__(self, fn: Any, names: set[str]):
        self.left, self.total = names, jnp.zeros(())
        super().__init__(fn)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["name"] not in self.left:
            return
        self.left.discard(msg["name"])
        self.total = self.total + jnp.sum(msg["fn"].log_prob(msg["value"]))
        if not self.left:
            raise _Enough


def _prior(
    model: Model, plan: Layout, arrays: Trial, population: Mapping[str, Any], vector: Vector
) -> Float[Array, ""]:
    """Return `terms`' prior without running the structure, whose second derivatives may not exist."""
    substituted, jacobians = individualized(model, plan, population, vector)
    seeded = handlers.seed(substituted, jax.random.key(0))
    effects = prior_density(seeded, {latent.name for latent in plan.latents}, arrays)
    return effects + sum(jacobians, jnp.zeros(()))


def prior_density(seeded: Any, names: set[str], arrays: Trial) -> Float[Array, ""]:
    """Return the log-density of some sites of a model whose values are given, and run it no further."""
    sites = _Effects(seeded, names)
    with contextlib.suppress(_Enough):
        sites(arrays)
    return sites.total


def individualized(
    model: Model, plan: Layout, population: Mapping[str, Any], vector: Vector
) -> tuple[Model, list[Any]]:
    """Return the model with its latent sites given, and a list that its run fills with Jacobians.

    Parameters
    ----------
    population : mapping of site to value
    vector : Float[Array, "k"]
        One subject's unconstrained random effects, laid out as `plan` says.
    """
    own, jacobians = plan.unflatten(vector), []

    def choose(site: dict[str, Any]) -> Any:
        if site["type"] != "sample" or site["name"] not in own:
            return population.get(site["name"])
        bijection, u = biject_to(site["fn"].support), own[site["name"]]
        value = bijection(u)
        jacobians.append(jnp.sum(bijection.log_abs_det_jacobian(u, value)))
        return value

    return handlers.substitute(model, substitute_fn=choose), jacobians


def curved(
    model: Model, plan: Layout, arrays: Trial, population: Mapping[str, Any], vector: Vector
) -> tuple[Float[Array, ""], Vector, Float[Array, "k k"], Float[Array, "k k"]]:
    """Return the joint log-density of `terms`, its slope, its curvature for steps, and H."""

    def joint(u: Vector) -> Any:
        here = terms(model, plan, arrays, population, u)
        return (here.prior + here.likelihood, here.levels.prediction), here

    # One pass forward gives slope and Jacobian: random effects are few.
    (slope, jacobian), here = jax.jacfwd(joint, has_aux=True)(vector)
    prior = -jax.hessian(partial(_prior, model, plan, arrays, population))(vector)
    # A level far from its prediction curves more than expected: steps must know, H must not.
    information, curvature = here.levels.information, here.levels.curvature
    expected, observed = (
        (jacobian.T * w) @ jacobian + prior
        for w in (information, jnp.maximum(information, curvature))
    )
    return here.prior + here.likelihood, slope, observed, expected


def find_mode(
    model: Model,
    plan: Layout,
    arrays: Trial,
    population: Mapping[str, Any],
    start: Vector,
    *,
    tolerance: float | Float[Array, ""] = 1e-12,
    max_steps: int = 100,
) -> Mode:
    """Return the mode of one subject's random effects; for use under jit and vmap.

    Parameters
    ----------
    model, plan, arrays, population
        See `terms`.
    start : Float[Array, "k"]
        Where the search begins.
    tolerance : float
        The Newton decrement at which it ends, in units of the log-density.
    """
    look = partial(curved, model, plan, arrays, population)

    def step(state):
        kept, tried, damping, _, n = state
        new = look(tried)
        better = new[0] > kept[1]  # False where the trial point is not finite
        kept = jax.tree.map(partial(jnp.where, better), (tried, *new), kept)
        damping = jnp.where(better, damping * 0.1, damping * 10 + 1e-3)
        u, _, slope, curvature, _ = kept
        gap = slope @ jnp.linalg.solve(curvature, slope)
        damped = curvature + damping * jnp.diag(jnp.diagonal(curvature))
        return kept, u + jnp.linalg.solve(damped, slope), damping, gap, n + 1

    def unfinished(state):
        _, _, damping, gap, n = state
        # Past a damping of 1e8 no step can help: the slope is rounding error.
        return (gap > tolerance) & (n <= max_steps) & (damping < 1e8)

    none = jnp.full((len(start), len(start)), jnp.nan)
    begin = (start, -jnp.inf, jnp.zeros_like(start), none, none)  # the first look is always better
    searched: Any = jax.lax.while_loop(unfinished, step, (begin, start, 0.0, jnp.inf, 0))
    (u, value, _, _, expected), _, _, gap, _ = searched
    return Mode(u, jnp.where(value > -jnp.inf, value, jnp.nan), expected, gap)


def map_estimate(
    model: Model,
    trial: Trial,
    values: Mapping[str, Any],
    *,
    start: Any = None,
    starts: int = 1,
    seed: int = 0,
) -> xr.Dataset:
    r"""Return each subject's posterior mode of eta, its covariance, and the objective.

    With f the predictions and v the residual variances at the mode, N levels,

    .. math::
        OBJ = \sum_j \left[\frac{(y_j - f_j)^2}{v_j} + \ln v_j\right] + \eta^T\Omega^{-1}\eta
        + \ln|\Omega| + \ln|H|

    which is NONMEM's FOCE INTERACTION objective (without N ln 2 pi), and its posterior covariance
    (ETC) is the inverse of H. A count or a category contributes -2 ln P. Times to events are refused:
    their likelihood depends on two predictions.

    Parameters
    ----------
    model : Callable
    trial : Trial
    values : mapping of site to value
        Every population value: ``CL_pop``, ``omega_CL``, ``corr``, ``sigma_additive``, ...
    start : Float[Array, "subject parameter"], optional
        Where the search for eta begins; 0 by default, as in NONMEM.
    starts : int
        How many searches there are for each subject; further ones begin at random effects drawn from
        their distribution, and the highest mode is kept. A lag, or a duration, makes several modes.
    seed : int
        Of these draws.

    Returns
    -------
    Dataset
        eta (subject, parameter), covariance (subject, parameter, parameter2), objective (subject).

    Raises
    ------
    ModelError
        A population value is missing, the model has no random effects, or a subject cannot be predicted.
    ValueError
        `start` has another shape, `starts` is below 1, or the model observes events.
    """
    sites = describe(model, trial)
    missing = [n for n in sites.named("population") if n not in values]
    if missing:
        raise ModelError(f"values lacks {', '.join(missing)}; give every population value")
    if sites.named("individual", "latent") != ["eta"]:
        raise ModelError(
            "map_estimate needs popk.individual's random effects and no others; the model "
            f"has {', '.join(sites.named('individual', 'latent')) or 'none'}"
        )
    plan = subject_layout(model, trial)
    population = {n: jnp.asarray(values[n], dtype=float) for n in sites.named("population")}
    begin = _beginnings(
        model, trial, population, (trial.n_subjects, plan.size),
        start=start, starts=starts, seed=seed,
    )  # fmt: skip
    modes = _modes(model, plan, trial.by_subject(), population, begin)
    typical = {**population, "eta": jnp.zeros(sites.all["eta"].shape)}
    if np.isnan(modes.joint).any() and (why := why_not(model, trial, typical)):
        raise ModelError("\n".join(["there is no mode: amounts cannot be computed", *why]))
    size, logdet = plan.size, np.linalg.slogdet(modes.curvature)[1]
    levels = np.zeros(trial.n_subjects)
    np.add.at(
        levels,
        np.asarray(trial.observations.subject),
        np.asarray(trial.observations.measured & ~of_kinds(trial, sites.outcomes), dtype=float),
    )
    objective = -2 * np.asarray(modes.joint) - (levels + size) * np.log(2 * np.pi) + logdet
    return xr.Dataset(
        {
            "eta": (("subject", "parameter"), np.asarray(modes.position)),
            "covariance": (("subject", "parameter", "parameter2"), np.linalg.inv(modes.curvature)),
            "objective": ("subject", objective),
        },
        coords={
            "subject": list(trial.ids),
            "parameter": list(sites.parameters),
            "parameter2": list(sites.parameters),
        },
    )


@partial(jax.jit, static_argnames=("model", "plan"))
def _modes(model, plan, stacked, population, starts):
    def best(arrays, starts):
        found = jax.vmap(lambda u: find_mode(model, plan, arrays, population, u))(starts)
        highest = jnp.argmax(jnp.where(jnp.isnan(found.joint), -jnp.inf, found.joint))
        return jax.tree.map(lambda x: x[highest], found)

    return jax.vmap(best)(stacked, starts)


def _beginnings(
    model: Model, trial: Trial, population: Mapping[str, Any], shape: tuple[int, int],
    *, start: Any, starts: int, seed: int,
) -> Float[Array, "s m k"]:  # fmt: skip
    """Return where the searches of each subject begin."""
    first = jnp.zeros(shape) if start is None else jnp.asarray(start, dtype=float)
    if first.shape != shape or starts < 1:
        raise ValueError(
            f"start has shape {first.shape} and starts is {starts}; they must be {shape} "
            f"(subject, parameter) and at least 1"
        )
    drawn = [_effects(model, trial.arrays(), population, seed + i) for i in range(1, starts)]
    return jnp.stack([first, *drawn], 1)


def _effects(
    model: Model, arrays: Trial, population: Mapping[str, Any], seed: int
) -> Float[Array, "s k"]:
    """Return random effects of each subject, drawn from their distribution."""
    given = handlers.substitute(handlers.seed(model, seed), data=dict(population))
    eta = handlers.trace(given).get_trace(arrays)["eta"]["value"]
    return eta.reshape(len(eta), -1)
