"""The log-density of a model on a trial, over one flat vector of unconstrained numbers."""

import math
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from popk.model.levels import class_probability_of, levels_of
from popk.model.sites import Model, ModelError
from popk.trial import Trial
from popk.variability import Centering, Coordinates

Vector = Float[Array, " d"]


class Latent(NamedTuple):
    """One latent site.

    Attributes
    ----------
    shape : tuple of int
        Its unconstrained shape, [subject, ...] if each subject has its own.
    size : int
        How many numbers it is; for each subject, if individual.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    individual: bool


class Layout(NamedTuple):
    """How the flat vector is laid out: population sites, then one block for each subject.

    Attributes
    ----------
    latents : tuple of Latent
    n_subjects : int
    """

    latents: tuple[Latent, ...]
    n_subjects: int

    @property
    def n_population(self) -> int:
        """Return the length of the population part."""
        return sum(latent.size for latent in self.latents if not latent.individual)

    @property
    def n_individual(self) -> int:
        """Return the length of one subject's block."""
        return sum(latent.size for latent in self.latents if latent.individual)

    @property
    def size(self) -> int:
        """Return the length of the vector."""
        return self.n_population + self.n_subjects * self.n_individual

    def blocks(self, vector: Vector) -> tuple[Float[Array, " p"], Float[Array, "s k"]]:
        """Return the population part, and the individual part as [subject, latent]."""
        n = self.n_population
        return vector[:n], vector[n:].reshape(self.n_subjects, self.n_individual)

    def unflatten(self, vector: Vector) -> dict[str, Any]:
        """Return the unconstrained value of each site."""
        population, individual = self.blocks(vector)
        values, at = {}, {True: 0, False: 0}
        for name, shape, size, own in self.latents:
            part = slice(at[own], at[own] + size)
            values[name] = (individual[:, part] if own else population[part]).reshape(shape)
            at[own] += size
        return values

    def flatten(self, values: dict[str, Any]) -> Vector:
        """Return the vector of the sites' unconstrained values."""
        common = [values[n].ravel() for n, _, _, own in self.latents if not own]
        each = [values[n].reshape(self.n_subjects, -1) for n, _, _, own in self.latents if own]
        if each:
            common.append(jnp.concatenate(each, axis=1).ravel())
        return jnp.concatenate(common)


def layout(model: Model, trial: Trial, *, coordinates: bool = False) -> Layout:
    """Return the layout of a model's latent sites; nothing is computed.

    Parameters
    ----------
    model : Callable
    trial : Trial
    coordinates : bool
        Whether random effects are sampled in coordinates, or as they stand in the model.

    Raises
    ------
    ModelError
        A site of the subject plate does not begin with the subject axis.
    """
    leaves, structure = jax.tree.flatten(trial.arrays())
    shapes = tuple((np.shape(x), np.result_type(x)) for x in leaves)
    return _laid_out(model, coordinates, structure, shapes)


def population_layout(whole: Layout) -> Layout:
    """Return the population's part of the layout of a model."""
    latents = tuple(x for x in whole.latents if not x.individual)
    return whole._replace(latents=latents, n_subjects=0)


@lru_cache(maxsize=256)
def _laid_out(model: Model, coordinates: bool, structure: Any, leaves: tuple[Any, ...]) -> Layout:
    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in leaves]
    trial = jax.tree.unflatten(structure, shapes)
    latents: list[Latent] = []

    def run(arrays: Trial) -> None:
        centering = Centering(jnp.asarray(0.5)[None], jnp.asarray(1.0)) if coordinates else None
        seeded = handlers.seed(_sampled(model, centering), jax.random.key(0))
        for name, site in handlers.trace(seeded).get_trace(arrays).items():
            if site["type"] != "sample" or site["is_observed"]:
                continue
            shape = biject_to(site["fn"].support).inverse_shape(jnp.shape(site["value"]))
            individual = any(frame.name == "subject" for frame in site["cond_indep_stack"])
            if individual and shape[:1] != (trial.n_subjects,):
                raise ModelError(
                    f"{name} is in the subject plate but has shape {shape}; its first "
                    f"axis must be the subject: numpyro.plate('subject', n, dim=-2)"
                )
            size = math.prod(shape[1:] if individual else shape)
            latents.append(Latent(name, tuple(shape), size, individual))

    jax.eval_shape(run, trial)
    latents.sort(key=lambda latent: latent.individual)
    return Layout(tuple(latents), trial.n_subjects)


def _sampled(model: Model, centering: Centering | None) -> Any:
    """Return the model that is sampled: random effects as they stand, or in their coordinates."""
    return model if centering is None else Coordinates(model, centering=centering)


def log_density(
    model: Model, plan: Layout, arrays: Trial, vector: Vector, centering: Centering | None = None
) -> Float[Array, ""]:
    """Return the log posterior density, up to a constant, with the Jacobian of the transforms.

    Parameters
    ----------
    model, plan, arrays
        The model, the layout of its sites on a trial, and the trial's arrays.
    vector : Float[Array, "d"]
        Unconstrained values of all sites.
    centering : Centering, optional
        The coordinates of random effects, where the layout has them in coordinates.
    """
    sampled = _sampled(model, centering)
    return -jnp.asarray(potential_energy(sampled, (arrays,), {}, plan.unflatten(vector)))


def constrained(
    model: Model, plan: Layout, arrays: Trial, vector: Vector, centering: Centering | None = None
) -> dict[str, Any]:
    """Return all sites' values, each level's ``log_likelihood``, and a mixture's ``class_probability``."""
    sampled = _sampled(model, centering)
    values = constrain_fn(sampled, (arrays,), {}, plan.unflatten(vector), return_deterministic=True)
    values.pop("eta_coordinate", None)
    trace = handlers.trace(handlers.substitute(model, data=values)).get_trace(arrays)
    values |= {"log_likelihood": levels_of(trace).log_prob}
    if any("classes" in site.get("infer", {}) for site in trace.values()):
        values["class_probability"] = class_probability_of(trace)
    return values


@partial(jax.jit, static_argnames=("model", "plan"))
def start(
    model: Model, plan: Layout, arrays: Trial, key: Any, centering: Centering | None = None,
    jitter: Any = 0.3,
) -> Vector:  # fmt: skip
    """Return a starting vector: near the prior's middle, individuals near their typical values.

    Parameters
    ----------
    jitter : float
        How far from there, in standard deviations of the prior (at most 1, unconstrained).
    """
    latents = {latent.name: latent for latent in plan.latents}
    chosen: dict[str, Any] = {}

    def choose(site: dict[str, Any]) -> Any:
        name = site["name"]
        if site["type"] != "sample" or name not in latents:
            return None
        fn, bijection = site["fn"], biject_to(site["fn"].support)
        key_draws, key_jitter = jax.random.split(jax.random.fold_in(key, list(latents).index(name)))
        if name == "eta_coordinate":  # individuals at their typical values
            middle, spread = fn.mean, jnp.sqrt(fn.variance)
        elif fn.event_dim:  # a correlation matrix, a simplex: the middle of the space
            middle, spread = jnp.zeros(latents[name].shape), 1.0
        else:
            draws = jax.vmap(bijection.inv)(fn.sample(key_draws, (16,)))
            middle, spread = jnp.median(draws, axis=0), jnp.minimum(draws.std(0), 1.0)
        chosen[name] = middle + jitter * spread * jax.random.normal(key_jitter, middle.shape)
        return bijection(chosen[name])

    sampled = handlers.substitute(_sampled(model, centering), substitute_fn=choose)
    handlers.trace(handlers.seed(sampled, key)).get_trace(arrays)
    return plan.flatten(chosen)
