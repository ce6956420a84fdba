"""How is one patient's posterior found? By weighted Laplace proposals, else SMC, else NUTS."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from scipy.special import logsumexp

from popk.inference.density import Layout
from popk.inference.importance import (
    PER_POPULATION_DRAW,
    log_marginal,
    resampled,
    smoothed,
    weighted,
)
from popk.inference.laplace import traced
from popk.inference.person import nuts
from popk.inference.tempering import Tempered, tempered
from popk.model.levels import class_probability_of
from popk.model.sites import Model, values_of
from popk.trial import Trial

#: Above this Pareto k the weights cannot be trusted (Vehtari et al. 2024).
MAX_PARETO_K = 0.7
#: Two independent runs of SMC must agree so well: a mean of so many standard deviations apart is too far.
MAX_APART = 0.3
#: With fewer of the population's draws left the patient is unlike all of them.
LEAST_DRAWS = 40
MAX_RHAT = 1.05

KEPT = 2000  # draws of equal weight
METHODS = ("laplace", "smc", "nuts")


class Problem(NamedTuple):
    """What a patient's posterior is asked of.

    Attributes
    ----------
    model : Callable
    plan : Layout
        Of the patient's random effects.
    arrays : Trial
    population : dict of str to Array
        Values of the population's sites, each [population draw, ...].
    """

    model: Model
    plan: Layout
    arrays: Trial
    population: dict[str, Any]


class Belief(NamedTuple):
    """One patient's posterior as draws of equal weight.

    Attributes
    ----------
    method : str
        "laplace", "smc" or "nuts".
    plan : Layout
    draws : dict of str to Array
        Population values, each [draw, ...], and the class where the model has a mixture.
    vector : Float[Array, "draw k"]
        Unconstrained random effects.
    pareto_k, ess : float
        Of the importance weights; Pareto k is NaN of other methods, and `ess` the number of their
        draws that differ, or the effective sample size of chains.
    log_evidence : float
        The log-probability of the patient's levels; NaN of NUTS.
    doubt : str
        Why the draws cannot be trusted; empty where they can.
    """

    method: str
    plan: Layout
    draws: dict[str, Any]
    vector: Any
    pareto_k: float
    ess: float
    log_evidence: float
    doubt: str


class UnexplainedError(ValueError):
    """No population draw and no random effects can explain the patient's levels."""


def inferred(problem: Problem, *, classes: int, apart: bool, seed: int, method: str) -> Belief:
    """Return a patient's posterior.

    Parameters
    ----------
    problem : Problem
    classes : int
        Of the model's mixture.
    apart : bool
        Whether each level has information on its own prediction, as the Laplace approximation needs.
    seed : int
    method : "auto", "laplace", "smc" or "nuts"

    Raises
    ------
    UnexplainedError
        The levels are impossible under every draw.
    """
    if method == "laplace" or (method == "auto" and apart):
        try:
            belief = _laplace(problem, classes, seed)
        except UnexplainedError:  # around typical random effects; others may explain the levels
            if method == "laplace":
                raise
        else:
            if method == "laplace" or not belief.doubt:
                return belief
    found = _tempered(problem, seed)
    if method != "nuts":
        belief = _by_smc(problem, found, classes, seed)
        if method == "smc" or not belief.doubt:
            return belief
    return _by_nuts(problem, found, classes, seed)


def _laplace(problem: Problem, classes: int, seed: int) -> Belief:
    """Return draws of a Laplace proposal for each population draw, weighted and resampled."""
    model, plan, arrays, population = problem
    key_draw, key_keep = jax.random.split(jax.random.key(seed))
    size = len(next(iter(population.values())))
    keys = jax.random.split(key_draw, size)
    positions, logs = weighted(model, plan, arrays, population, keys, classes)
    log_weights = np.asarray(logs)
    if not np.isfinite(log_weights).any():
        raise UnexplainedError
    evidence = np.asarray(log_marginal(logs, plan.size))
    weights, pareto_k = smoothed(log_weights.ravel())
    which = resampled(weights, KEPT, key_keep)
    each = log_weights[0].size
    draws = {n: v[which // each] for n, v in population.items()}
    if classes:  # each draw is of one class
        own = which % each // PER_POPULATION_DRAW
        draws["class_probability"] = np.eye(classes)[own][:, None, None]
    doubt = "" if pareto_k <= MAX_PARETO_K else f"Pareto k is {pareto_k:.2f} (above {MAX_PARETO_K})"
    vector = np.asarray(positions).reshape(len(weights), -1)[which]
    ess = float(1 / np.sum(weights**2))
    evidence = float(logsumexp(evidence) - np.log(size))
    return Belief("laplace", plan, draws, vector, pareto_k, ess, evidence, doubt)


def _tempered(problem: Problem, seed: int) -> Tempered:
    found = tempered(*problem, count=KEPT, seed=seed)
    if not np.isfinite(found.log_evidence):
        raise UnexplainedError
    return found


def _by_smc(problem: Problem, found: Tempered, classes: int, seed: int) -> Belief:
    """Return the particles of sequential Monte Carlo."""
    pairs = found.pairs
    draws = {n: v[pairs.draw] for n, v in problem.population.items()}
    if classes:
        draws["class_probability"] = _classes(problem, draws, pairs.vector, classes, seed)
    size = len(next(iter(problem.population.values())))
    doubt = ""
    if found.apart > MAX_APART:
        doubt = f"two runs differ by {found.apart:.2f} standard deviations (above {MAX_APART})"
    elif found.distinct < min(LEAST_DRAWS, size / 10):
        doubt = f"{found.distinct} of {size} population draws can explain the levels"
    ess = float(len(np.unique(np.asarray(pairs.vector), axis=0)))
    return Belief(
        "smc", problem.plan, draws, np.asarray(pairs.vector), np.nan, ess, found.log_evidence, doubt
    )


def _by_nuts(problem: Problem, found: Tempered, classes: int, seed: int) -> Belief:
    """Return the draws of chains that begin at the particles of sequential Monte Carlo."""
    sampled = nuts(*problem, found.pairs, seed=seed)
    draws = dict(sampled.population)
    if classes:
        draws["class_probability"] = _classes(problem, draws, sampled.vector, classes, seed)
    doubt = "" if sampled.rhat <= MAX_RHAT else f"R-hat is {sampled.rhat:.2f} (above {MAX_RHAT})"
    vector = np.asarray(sampled.vector)
    return Belief("nuts", problem.plan, draws, vector, np.nan, sampled.ess, np.nan, doubt)


def _classes(
    problem: Problem, draws: dict[str, Any], vector: Any, classes: int, seed: int
) -> np.ndarray:
    """Return the class of each draw, 1 and 0, drawn by how probable each is."""
    probable = np.asarray(_probable(problem.model, problem.plan, problem.arrays, draws, vector))
    rng = np.random.default_rng(seed)
    own = (probable.reshape(-1, classes).cumsum(1) > rng.random((len(vector), 1))).argmax(1)
    return np.eye(classes)[own][:, None, None]


@partial(jax.jit, static_argnames=("model", "plan"))
def _probable(model, plan, arrays, draws, vector):
    def one(x):
        trace, _ = traced(model, plan, arrays, *x)
        return class_probability_of(trace)

    return jax.lax.map(one, (draws, vector), batch_size=250)


def values_at(
    model: Model, trial: Trial, belief: Belief, seed: int, *, below: bool = True
) -> dict[str, np.ndarray]:
    """Return the values of all sites on a trial of the patient, for each draw of a belief.

    Occasions that the patient has not had yet have random effects drawn anew.
    """
    arrays = arrays_of(trial, below)
    keys = jax.random.split(jax.random.key(seed), len(belief.vector))
    found = _evaluated(model, belief.plan, arrays, belief.draws, belief.vector, keys)
    return {name: np.asarray(value) for name, value in found.items()}


def arrays_of(trial: Trial, below: bool = True) -> Trial:
    """Return a trial's padded arrays, which a further record leaves as they are.

    Parameters
    ----------
    trial : Trial
    below : bool
        Whether to be ready for a level below the limit, which autocorrelated errors cannot be.
    """
    padded = trial.padded()
    return dataclasses.replace(padded, design=padded.design._replace(below=below))


@partial(jax.jit, static_argnames=("model", "plan"))
def _evaluated(model, plan, arrays, draws, vectors, keys):
    """Return the values of all sites for each draw."""

    def one(x):
        population, vector, key = x
        own, fresh = plan.unflatten(vector), jax.random.fold_in(key, 1)

        def choose(site):
            if site["type"] != "sample" or site["name"] not in own:
                return population.get(site["name"])
            value = biject_to(site["fn"].support)(own[site["name"]])
            return _extended(value, site["fn"], fresh)

        return values_of(handlers.substitute(model, substitute_fn=choose), arrays, {}, key)

    return jax.lax.map(one, (draws, vectors, keys), batch_size=250)


def _extended(value: Any, fn: Any, key: Any) -> Any:
    """Return random effects with those of further occasions [subject, occasion, ...] drawn anew."""
    shape = fn.shape()
    if value.shape == shape:
        return value
    known = min(value.shape[1], shape[1])
    drawn = fn.sample(key)
    return jnp.concatenate([value[:, :known], drawn[:, known:]], 1)
