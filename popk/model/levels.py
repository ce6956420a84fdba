"""What do the levels of a model's trace say? Their likelihood, curvature, and the classes of subjects."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Levels(NamedTuple):
    """Levels of every kind on the observation axis, each by the error model of its own kind.

    Attributes
    ----------
    value : Float[Array, "observation"]
    ipred : Float[Array, "observation"]
        The individual prediction.
    log_prob : Float[Array, "observation"]
        Each level's log-likelihood; 0 where it does not count.
    """

    value: Any
    ipred: Any
    log_prob: Any


def levels_of(trace: Mapping[str, Any]) -> Levels:
    """Return the levels of a trace of a model, as `numpyro.handlers.trace` gives it."""
    sites = _levels(trace)
    each = [Levels(s["value"], s["fn"].ipred, s["fn"].log_prob(s["value"])) for s in sites]
    together = each[0]
    for site, levels in zip(sites[1:], each[1:], strict=True):
        together = jax.tree.map(partial(jnp.where, site["fn"].own), levels, together)
    return together


def log_prob_at(trace: Mapping[str, Any], value: Any) -> Any:
    """Return the log-likelihood of other levels in the place of a trace's own [observation].

    Parameters
    ----------
    trace : mapping of site to message
    value : Float[Array, "observation"]
    """
    first, *others = _levels(trace)
    together = first["fn"].log_prob(value)
    for site in others:
        together = jnp.where(site["fn"].own, site["fn"].log_prob(value), together)
    return together


def foreseen_of(trace: Mapping[str, Any], key: Any) -> Any:
    """Return levels as they would be measured, each given the measured ones before it [observation].

    Raises
    ------
    ValueError
        A kind of levels depends on more than those of its own kind.
    """
    first, *others = [site["fn"] for site in _levels(trace)]
    for levels in (first, *others):
        if not hasattr(levels, "sample_next"):
            raise ValueError(
                f"{type(levels).__name__} levels cannot be foreseen one by one; use Twin.update"
            )
    keys = jax.random.split(key, 1 + len(others))
    together = first.sample_next(keys[0])
    for levels, own in zip(others, keys[1:], strict=True):
        together = jnp.where(levels.own, levels.sample_next(own), together)
    return together


def class_probability_of(trace: Mapping[str, Any]) -> Any:
    """Return the probability of each class of a mixture after all levels [subject, 1, class]."""
    last = [site for site in _levels(trace) if "classes" in site["infer"]][-1]
    return jnp.exp(last["fn"].log_posterior(last["value"]))[:, None]


class Curvatures(NamedTuple):
    """What a Gauss-Newton curvature is made of, over all kinds of levels and classes of a mixture.

    Attributes
    ----------
    prediction : Float[Array, "p"]
    information, curvature : Float[Array, "p"]
        Expected information on the prediction, and observed curvature, see `Residual`; 0 where there
        is no level of that kind.
    """

    prediction: Any
    information: Any
    curvature: Any


def curvatures_of(trace: Mapping[str, Any]) -> Curvatures:
    """Return the predictions of a trace of a model, and what its levels say of each."""
    each = [_gauss_newton(site) for site in _levels(trace)]
    return Curvatures(
        *(jnp.concatenate([jnp.ravel(x) for x in part]) for part in zip(*each, strict=True))
    )


def _gauss_newton(site: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    levels = site["fn"]
    if hasattr(levels, "gauss_newton"):
        predicted, *known = levels.gauss_newton()
        if predicted.shape != levels.own.shape:  # what does not count is 0 already
            return predicted, *known
    else:
        predicted = levels.predictions if "classes" in site["infer"] else levels.ipred
        known = levels.information(), levels.curvature()
    return jnp.where(levels.own, predicted, 0.0), *known


def _levels(trace: Mapping[str, Any]) -> list[Any]:
    """Return the sites of levels."""
    return [site for site in trace.values() if "kinds" in site.get("infer", {})]
