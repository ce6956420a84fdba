"""What is checked: a model on a trial, with levels, and what it gives at some values."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.inference.density import Layout, constrained, layout, log_density
from popk.model.levels import levels_of
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, describe, values_of
from popk.trial import Trial

_DRAWS = 32


class Subject(NamedTuple):
    """What is checked.

    Attributes
    ----------
    model : Callable
    trial : Trial
        With levels, of the model's own where the trial has none.
    plan : Layout
    draws : Float[Array, "draw d"]
        Draws from the prior, unconstrained.
    vector : Float[Array, "d"]
        Their mean: the middle of the prior, where invariances and the gradient are checked.
    seed : int
    """

    model: Model
    trial: Trial
    plan: Layout
    draws: Any
    vector: Any
    seed: int


def subject_of(model: Model, trial: Trial, seed: int = 0) -> Subject:
    """Return a model on a trial, with levels and with values in the middle of its prior.

    Parameters
    ----------
    model : Callable
    trial : Trial
    seed : int

    Raises
    ------
    ModelError
        The model cannot be used with the trial.
    """
    plan, keys = layout(model, trial), jax.random.split(jax.random.key(seed), _DRAWS)
    draws = drawn(model, plan, trial.arrays(), keys)
    subject = Subject(model, trial, plan, draws, draws.mean(axis=0), seed)
    if np.asarray(trial.observations.measured).any():
        return subject
    return subject._replace(trial=_with_levels(subject))


@functools.partial(jax.jit, static_argnames=("model", "plan"))
def drawn(model: Model, plan: Layout, arrays: Trial, keys: Any) -> Any:
    """Return draws from the prior as vectors [draw, d]."""

    def one(key: Any) -> Any:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(arrays)
        sites = {latent.name: trace[latent.name] for latent in plan.latents}
        free = {n: biject_to(s["fn"].support).inv(s["value"]) for n, s in sites.items()}
        return plan.flatten(free)

    return jax.vmap(one)(keys)


def _with_levels(subject: Subject) -> Trial:
    """Return the trial with levels near what the model predicts in the middle of its prior.

    Outcomes of endpoints are drawn, and nothing follows a subject's event.
    """
    trial, sites = subject.trial, describe(subject.model, subject.trial)
    frame = trial.host.frame.copy()
    level = frame["EVID"].eq(0).to_numpy()
    ipred = np.asarray(at(subject, subject.vector)[0].ipred)[: level.sum()]
    noise = np.random.default_rng(subject.seed).normal(0.0, 0.1, ipred.shape)
    values, counts = ipred * np.exp(noise), ipred > 0
    drawn = _outcomes(subject)[: level.sum()] if sites.endpoints else values
    for endpoint in sites.endpoints.values():
        own = of_kinds(trial, endpoint.kinds)
        values, counts = np.where(own, drawn, values), counts | own
        if endpoint.name == "events":
            counts &= ~(own & _past(trial, own & (drawn == 1)))
    frame.loc[level, "DV"] = values
    frame.loc[level, "MDV"] = np.where(counts, 0, 1)
    return trial.replaced(frame)


def _outcomes(subject: Subject) -> Any:
    """Return drawn levels and outcomes [observation] in the middle of the prior."""
    given, key = latents(subject, subject.vector), jax.random.key(subject.seed)
    return np.asarray(values_of(subject.model, subject.trial.arrays(), given, key)["DV"])


def _past(trial: Trial, event: Any) -> Any:
    """Return which observations come after an event of their subject."""
    subject = np.asarray(trial.observations.subject)
    before = np.cumsum(event) - event
    first = np.searchsorted(subject, subject)  # a subject's observations stand together
    return before > before[first]


class Evaluation(NamedTuple):
    """What a model gives at some values.

    Attributes
    ----------
    density : Float[Array, ""]
    ipred, log_prob : Float[Array, "observation"]
        Each level's prediction and log-likelihood.
    predictions : dict of str to Float[Array, "subject record"]
        IPRED of each kind of levels.
    """

    density: Any
    ipred: Any
    log_prob: Any
    predictions: dict[str, Any]


def evaluated(model: Model, plan: Layout, arrays: Trial, vector: Any) -> Evaluation:
    """Return what a model gives at some values, all of it from one pass."""
    seen: dict[str, Any] = {}

    def watched(given: Trial) -> None:
        trace = handlers.trace(model).get_trace(given)
        ipred = {n: s["value"] for n, s in trace.items() if n == "IPRED" or n.startswith("IPRED_")}
        levels = levels_of(trace)
        seen.update(predictions=ipred, ipred=levels.ipred, log_prob=levels.log_prob)

    return Evaluation(log_density(watched, plan, arrays, vector), **seen)


forward = jax.jit(evaluated, static_argnames=("model", "plan"))


@functools.partial(jax.jit, static_argnames=("model", "plan"))
def with_gradient(model: Model, plan: Layout, arrays: Trial, vector: Any) -> tuple[Evaluation, Any]:
    """Return what a model gives at some values, and the gradient of the log-density."""

    def density(x: Any) -> tuple[Any, Evaluation]:
        found = evaluated(model, plan, arrays, x)
        return found.density, found

    gradient, found = jax.grad(density, has_aux=True)(vector)
    return found, gradient


def at(subject: Subject, vector: Any, trial: Trial | None = None) -> tuple[Evaluation, Any]:
    """Return a model's evaluation and gradient, for its own trial or one of the same shapes."""
    arrays = (subject.trial if trial is None else trial).arrays()
    return with_gradient(subject.model, subject.plan, arrays, vector)


def latents(subject: Subject, vector: Any) -> dict[str, Any]:
    """Return the values of the sites that a model samples."""
    every = constrained(subject.model, subject.plan, subject.trial.arrays(), vector)
    return {latent.name: every[latent.name] for latent in subject.plan.latents}


def row_of(trial: Trial, i: Any, j: Any) -> str:
    """Return a record, as errors name it."""
    frame = trial.host.frame
    row = frame[frame["ID"].eq(trial.ids[int(i)])].iloc[int(j)]
    return f"row {row['ROW']}  ID {row['ID']}  TIME {row['TIME']:g}"
