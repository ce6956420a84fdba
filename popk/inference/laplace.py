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
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from popk.inference.density import Layout, Vector, layout
from popk.model.levels import Curvatures, curvatures_of, levels_of
from popk.model.sites import Model, ModelError, beside_levels
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


#: A log-density at a position, its slope, its curvature for steps, and H.
Look = tuple[Float[Array, ""], Vector, Float[Array, "k k"], Float[Array, "k k"]]


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
    trace, prior = traced(model, plan, arrays, population, vector)
    return Terms(prior, levels_of(trace).log_prob.sum(), curvatures_of(trace))


def traced(
    model: Model, plan: Layout, arrays: Trial, population: Mapping[str, Any], vector: Vector
) -> tuple[dict[str, Any], Float[Array, ""]]:
    """Return the trace of a model, and the log-density of its random effects; see `terms`."""
    substituted, jacobians = individualized(model, plan, population, vector)
    trace = handlers.trace(handlers.seed(substituted, jax.random.key(0))).get_trace(arrays)
    own = {latent.name for latent in plan.latents}
    prior = sum((_density(s) for s in trace.values() if _is_prior(s, own)), jnp.zeros(()))
    return trace, prior + sum(jacobians, jnp.zeros(()))


def joint(
    model: Model, plan: Layout, arrays: Trial, population: Mapping[str, Any], vector: Vector
) -> Float[Array, ""]:
    """Return the joint log-density of one subject's random effects and levels; see `terms`."""
    trace, prior = traced(model, plan, arrays, population, vector)
    return prior + levels_of(trace).log_prob.sum()


def _is_prior(site: Mapping[str, Any], own: set[str]) -> bool:
    """Return whether a site is a random effect, or a known covariate that is modeled."""
    if site["type"] != "sample":
        return False
    return site["name"] in own or beside_levels(site)


def refuse_factors(trace: Mapping[str, Any]) -> None:
    """Refuse a model's own factors that are not of one subject: none of the subjects has them alone.

    Raises
    ------
    ModelError
        There is one.
    """
    for name, site in trace.items():
        plates = [frame.name for frame in site.get("cond_indep_stack", ())]
        if site["type"] == "sample" and beside_levels(site) and "subject" not in plates:
            raise ModelError(
                f"the factor {name} is of no subject, and random effects are integrated out one subject "
                f"at a time; put it into the subject plate, or take popk.fit with method='nuts'"
            )


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


def prior_of(
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
) -> Look:
    """Return the joint log-density of `terms`, its slope, its curvature for steps, and H."""

    def both(u: Vector) -> Any:
        here = terms(model, plan, arrays, population, u)
        return (here.prior + here.likelihood, here.levels.prediction), here

    # One pass forward gives slope and Jacobian: random effects are few.
    (slope, jacobian), here = jax.jacfwd(both, has_aux=True)(vector)
    prior = -jax.hessian(partial(prior_of, model, plan, arrays, population))(vector)
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
    return search(look, start, tolerance=tolerance, max_steps=max_steps)


def search(
    look: Callable[[Vector], Look], start: Vector, *, tolerance: Any = 1e-12, max_steps: int = 100
) -> Mode:
    """Return where a log-density of some random effects is highest; see `find_mode`.

    Parameters
    ----------
    look : Callable
        Of a position: the log-density, its slope, a positive definite curvature for steps, and H.
    """

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
