"""Where do chains begin, in which coordinates, and by what do they measure?"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import constrain_fn

from popk.inference import nuts
from popk.inference.approximation import Approximation, approximations
from popk.inference.density import Layout, constrained, layout, start
from popk.inference.draws import Problem
from popk.model.failures import why_not
from popk.model.sites import Model, ModelError, Sites, describe
from popk.trial import Trial
from popk.variability import Centering, Located

#: A mode of less than exp(-5) of the mass of the largest is no place for a chain.
LEAST_MASS = 5.0
#: Chains begin so much further apart than the approximation says that draws are.
APART = 1.5


class Beginning(NamedTuple):
    """What chains begin with.

    Attributes
    ----------
    plan : Layout
    target : Target
    carry : Carry
    modes : list of Approximation
        Those that chains begin at, one after the other; empty where there is no approximation.
    said : str
        Why there is none.
    """

    plan: Layout
    target: nuts.Target
    carry: nuts.Carry
    modes: list[Approximation]
    said: str

    @property
    def notes(self) -> dict[str, Any]:
        """Return what the DataTree says of it."""
        return {"modes": len(self.modes), "approximation": self.said or "normal"}


def beginning(
    problem: Problem,
    key: Any,
    settings: nuts.Settings,
    centering: float | Mapping[str, float] | None,
) -> Beginning:
    """Return where chains begin.

    Parameters
    ----------
    problem : Problem
    key : PRNGKey
    settings : Settings
    centering : float or mapping of parameter to float, optional
        How random effects are sampled; what it does not say follows from the approximation.

    Raises
    ------
    ModelError
        `centering` is no fraction or names a parameter without a random effect, or no starting point
        has a finite density.
    """
    model, trial, sites = problem
    known = _asked(centering, sites)
    plan = layout(model, trial, coordinates=bool(sites.parameters))
    modes, said = _modes(model, trial, key)
    target = nuts.Target(trial.arrays(), _centering(problem, plan, known, modes))
    if modes:
        states = _near(model, plan, target, modes, jax.random.split(key, settings.chains))
        if states is not None:
            metric = _metric(model, plan, target, modes[0])
            return Beginning(
                plan, target, nuts.begin(plan, states, metric, settings.target_accept), modes, ""
            )
        modes, said = [], "the density is not finite near the mode"
    states = _typical(problem, plan, target, jax.random.split(key, settings.chains))
    return Beginning(
        plan, target, nuts.begin(plan, states, None, settings.target_accept), modes, said
    )


def _modes(model: Model, trial: Trial, key: Any) -> tuple[list[Approximation], str]:
    """Return the modes that are worth a chain, or why there is none."""
    try:
        found = approximations(model, trial, key)
    except (ModelError, ValueError) as error:
        return [], str(error)
    if not found:
        return [], "no search ended at a mode"
    return [one for one in found if one.log_mass > found[0].log_mass - LEAST_MASS], ""


def _asked(centering: float | Mapping[str, float] | None, sites: Sites) -> list[float | None]:
    """Return the centering that is asked for each parameter with a random effect."""
    names = sites.parameters
    if isinstance(centering, Mapping):
        unknown = [name for name in centering if name not in names]
        if unknown:
            raise ModelError(
                f"centering names {', '.join(unknown)}, which have no random effect; "
                f"those that have one are {', '.join(names) or 'none'}"
            )
        values: list[float | None] = [centering.get(name) for name in names]
    else:
        values = [centering] * len(names)
    if not all(value is None or 0 <= value <= 1 for value in values):
        raise ModelError(
            f"centering is {centering}; it must lie between 0 (not centred) and 1 (centred)"
        )
    return values


def _centering(
    problem: Problem, plan: Layout, asked: list[float | None], modes: list[Approximation]
) -> Centering | None:
    r"""Return the coordinates of random effects: as asked, or as the approximation says is best.

    The location of a normal random effect, and its spread, are about independent of its coordinate where
    c is the part of its variance that its subject's levels explain, 1 less its shrinkage [1]_.

    References
    ----------
    .. [1] Papaspiliopoulos O, Roberts GO, Skold M (2003). Non-centered parameterisations for
       hierarchical models and data augmentation. Bayesian Statistics 7:307-326.
    """
    if not asked:
        return None
    if not modes:
        known = jnp.asarray([0.5 if value is None else value for value in asked], dtype=float)
        return Centering(known, jnp.ones_like(known))
    mode, (model, trial, sites) = modes[0], problem
    shape = sites.all["eta"].shape
    deviates = Centering(jnp.zeros(shape), jnp.ones(shape[-1]))
    target = nuts.Target(trial.arrays(), deviates)
    _, covariance, scale = _covariances(model, plan, target, mode)
    at = _place(plan, "eta_coordinate")
    left = np.diagonal(covariance, axis1=1, axis2=2)[:, at].reshape(shape)
    fraction = np.clip(1.0 - left, 0.0, 1.0)
    for j, value in enumerate(asked):
        if value is not None:
            fraction[..., j] = value
    return Centering(jnp.asarray(fraction), scale)


def _place(plan: Layout, name: str) -> slice:
    """Return where a site stands in a subject's block."""
    first = 0
    for latent in plan.latents:
        if latent.name == name:
            return slice(first, first + latent.size)
        first += latent.size if latent.individual else 0
    raise KeyError(name)


def _metric(model: Model, plan: Layout, target: nuts.Target, mode: Approximation) -> nuts.Metric:
    """Return the metric of coordinates that an approximation says."""
    common, each, _ = _covariances(model, plan, target, mode)
    return nuts.Metric(jnp.linalg.cholesky(common), jnp.linalg.cholesky(each))


def _covariances(model: Model, plan: Layout, target: nuts.Target, mode: Approximation) -> Any:
    """Return the covariances of coordinates, population and each subject, and the effects' scale."""
    vector = np.concatenate([mode.position, mode.centers.ravel()])
    turned = _geometry(model, plan, _as_it_stands(mode), target, vector)
    each = np.linalg.inv(mode.curvatures)
    each = np.einsum("sij,sjk,slk->sil", turned.individual, each, turned.individual)
    common = turned.population @ mode.covariance @ turned.population.T
    return common, each, turned.scale


class _Geometry(NamedTuple):
    """How coordinates follow from random effects and population values as they stand in the model.

    Attributes
    ----------
    individual : Float[Array, "subject k k"]
        Slopes of a subject's coordinates with its random effects.
    population : Float[Array, "p p"]
    scale : Float[Array, "parameter"]
        How far each effect varies, given those before it.
    """

    individual: Any
    population: Any
    scale: Any


@partial(jax.jit, static_argnames=("model", "plan", "whole"))
def _geometry(model, plan, whole, target, vector):
    n, k = plan.n_population, plan.n_individual
    move = partial(_moved, model, plan, whole, target)
    tangents = jnp.tile(jnp.eye(k), plan.n_subjects)
    tangents = jnp.concatenate([jnp.zeros((k, n)), tangents], axis=1)
    (_, scale), columns = jax.vmap(
        lambda t: jax.jvp(move, (vector,), (t,)), out_axes=((None, None), 0)
    )(tangents)
    each = jax.vmap(lambda column: plan.blocks(column)[1])(columns[0])
    common = jax.jacfwd(lambda x: move(jnp.concatenate([x, vector[n:]]))[0][:n])(vector[:n])
    return _Geometry(jnp.moveaxis(each, 0, -1), common, scale)


def _moved(model, plan, whole, target, vector):
    """Return a position in coordinates, from one as it stands; and how far each effect varies."""
    found: dict[str, Any] = {}
    values = constrain_fn(model, (target.arrays,), {}, whole.unflatten(vector))
    given = handlers.seed(handlers.substitute(model, values), jax.random.key(0))
    Located(given, centering=target.centering, found=found)(target.arrays)
    scale = found.pop("eta_scale", jnp.ones(0))
    return plan.flatten(found), scale


@partial(jax.jit, static_argnames=("model", "plan", "whole"))
def _drawn(model, plan, whole, target, moments, keys):
    """Return a position in coordinates for each key, from the approximation of its chain."""

    def one(moments, key):
        position, lower, centers, spread = moments
        common, each = (
            jax.random.normal(k, x.shape)
            for k, x in zip(jax.random.split(key), (position, centers), strict=True)
        )
        theta = position + APART * lower @ common
        effects = centers + jnp.einsum("sij,sj->si", spread, each)
        return _moved(model, plan, whole, target, jnp.concatenate([theta, effects.ravel()]))[0]

    return jax.vmap(one)(moments, keys)


def _near(
    model: Model, plan: Layout, target: nuts.Target, modes: list[Approximation], keys: Any
) -> nuts.State | None:
    """Return the states of chains near modes in turn; None where none is found of finite density."""
    own = [modes[i % len(modes)] for i in range(len(keys))]
    moments = [
        jnp.stack([jnp.asarray(part) for part in parts])
        for parts in zip(*((m.position, np.linalg.cholesky(m.covariance), m.centers,
                            np.linalg.cholesky(np.linalg.inv(m.curvatures))) for m in own), strict=True)
    ]  # fmt: skip
    whole = _as_it_stands(modes[0])
    for attempt in range(10):
        tried = jax.vmap(lambda key, n=attempt: jax.random.fold_in(key, n))(keys)
        positions = _drawn(model, plan, whole, target, moments, tried)
        states = nuts.state(model, plan, target, positions)
        if bool(jnp.isfinite(states.lp).all() and jnp.isfinite(states.gradient).all()):
            return states
    return None


def _as_it_stands(mode: Approximation) -> Layout:
    """Return the layout of a whole position without coordinates."""
    n = len(mode.centers)
    own = tuple(x._replace(shape=(n, *x.shape[1:])) for x in mode.individual.latents)
    return Layout((*mode.population.latents, *own), n)


def _typical(problem: Problem, plan: Layout, target: nuts.Target, keys: Any) -> nuts.State:
    """Return the states of chains near the middle of the prior, each of a finite density."""
    model, trial, _ = problem
    begin = partial(start, model, plan, target.arrays, centering=target.centering)
    for attempt in range(10):
        tried = jax.vmap(lambda key, n=attempt: jax.random.fold_in(key, n))(keys)
        states = nuts.state(model, plan, target, jax.vmap(begin)(tried))
        if bool(jnp.isfinite(states.lp).all() and jnp.isfinite(states.gradient).all()):
            return states
    raise ModelError(_why_impossible(model, plan, trial, target, begin(keys[0])))


def _why_impossible(
    model: Model, plan: Layout, trial: Trial, target: nuts.Target, vector: Any
) -> str:
    """Return a sentence on why no starting point has a finite density."""
    # Compiled: what is refused there has a reason with a row, and the structure is never interpreted.
    compiled = jax.jit(constrained, static_argnums=(0, 1))
    values = compiled(model, plan, target.arrays, vector, target.centering)
    bad = ~np.isfinite(np.asarray(values["log_likelihood"]))
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0)][bad]
    if why := why_not(model, trial, values):
        return "\n".join(["amounts cannot be computed at any of 10 starting points", *why])
    if rows.empty:
        return (
            "the log-density or its gradient is not finite at any of 10 starting points although "
            "every level has a finite likelihood; look for a prior or a parameter that can be "
            "negative or infinite"
        )
    shown = "; ".join(
        f"row {r.ROW} (ID {r.ID}, TIME {r.TIME:g}, DV {r.DV:g})" for r in rows.head(5).itertuples()
    )
    outcomes = (
        "; nor can a count or an event be explained where its mean or hazard is 0"
        if describe(model, trial).endpoints
        else ""
    )
    return (
        f"{len(rows)} levels have zero likelihood at every starting point: {shown}. A proportional "
        f"or log-normal error cannot explain a level where the prediction is 0 (before the first "
        f"dose): set MDV 1 there, or add an additive error{outcomes}"
    )


def asked(settings: nuts.Settings, problem: Problem, centering: Centering | None) -> dict[str, Any]:
    """Return what was asked for, and the mean centering of each random effect."""
    said = settings._asdict()
    if centering is not None:
        mean = np.asarray(centering.fraction).reshape(-1, len(problem.sites.parameters)).mean(0)
        said["centering"] = [round(float(x), 3) for x in mean]
    return said
