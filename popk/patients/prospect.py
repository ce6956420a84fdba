"""What could a further level be, and how probable would it be under each draw? Before it is measured."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.model.levels import levels_of, log_prob_at
from popk.model.sites import ModelError
from popk.patients.belief import arrays_of
from popk.patients.forecasts import kinds_of
from popk.patients.regimen import asking, joined
from popk.patients.twin import Twin
from popk.trial import Trial


class Prospect(NamedTuple):
    """Levels that may be measured at some times.

    Attributes
    ----------
    level : Float[ndarray, "outer time"]
        One for each of some draws, with residual error [unit of DV].
    log_density : Float[ndarray, "sample outer time"]
        Of each such level under every draw.
    """

    level: np.ndarray
    log_density: np.ndarray


def prospect(
    twin: Twin, patient: Trial, times: np.ndarray, *, outer: int, output: str | None, seed: int
) -> Prospect:
    """Return levels that may be measured, and their densities under every draw of a twin.

    Parameters
    ----------
    twin : Twin
    patient : Trial
        The patient's records, with the doses to come.
    times : Float[ndarray, "time"]
        [unit of TIME]
    outer : int
        How many levels are simulated at each time, each of another draw.
    output : str or None
        Which kind of levels.
    seed : int

    Raises
    ------
    ModelError
        The model has no such kind of levels, or errors are autocorrelated.
    """
    if twin._manner.chained:
        raise ModelError(
            "errors are autocorrelated: the density of a further level depends on those before it, which "
            "is not supported; take the model without popk.autocorrelated_error"
        )
    kinds, suffix = kinds_of(twin._manner.asked, patient), f"_{output}" if output else ""
    if suffix not in kinds:
        known = ", ".join(name.removeprefix("_") for name in kinds)
        raise ModelError(f"the model has no such output; give output= one of {known}")
    rows = [{**row, "MDV": 0, "DV": 1.0} for row in asking(times, [kinds[suffix]])]
    frame = joined(patient.host.frame, rows, patient, [False] * len(rows))
    future = patient.replaced(frame)
    names = frame["ROW"].astype(str)
    place: Any = pd.Series(frame["EVID"].eq(0).cumsum().to_numpy() - 1, index=names)
    at = np.array([int(place[f"forecast {i} 0"]) for i in range(len(times))])
    belief, arrays = twin._belief, arrays_of(future)
    rng = np.random.default_rng(seed)
    size = len(belief.vector)
    own = np.sort(rng.permutation(size)[: min(outer, size)])
    keys = jax.random.split(jax.random.key(seed), size)
    given = (belief.draws, belief.vector, keys)
    some = jax.tree.map(lambda x: jnp.asarray(x)[own], given)
    levels = np.asarray(_levels(twin.model, belief.plan, arrays, some))
    found = _log_densities(
        twin.model, belief.plan, arrays, given, jnp.asarray(levels), jnp.asarray(at)
    )
    return Prospect(levels[:, at], np.asarray(found))


def _traced(model, plan, arrays, x):
    """Return the trace of a model at one draw."""
    population, vector, key = x
    own = plan.unflatten(vector)

    def choose(site):
        if site["type"] != "sample" or site["name"] not in own:
            return population.get(site["name"])
        value = biject_to(site["fn"].support)(own[site["name"]])
        shape = site["fn"].shape()
        if value.shape == shape:
            return value
        known = min(value.shape[1], shape[1])  # occasions to come are drawn
        drawn = site["fn"].sample(jax.random.fold_in(key, 1))
        return jnp.concatenate([value[:, :known], drawn[:, known:]], 1)

    chosen = handlers.substitute(model, substitute_fn=choose)
    return handlers.trace(handlers.seed(chosen, key)).get_trace(arrays)


@partial(jax.jit, static_argnames=("model", "plan"))
def _levels(model, plan, arrays, given):
    """Return a level at each observation for each draw."""
    return jax.lax.map(
        lambda x: levels_of(_traced(model, plan, arrays.unobserved(), x)).value,
        given, batch_size=250,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("model", "plan"))
def _log_densities(model, plan, arrays, given, levels, at):
    """Return the log-density of each level at some observations, under each draw."""

    def one(x):
        trace = _traced(model, plan, arrays, x)
        return jax.vmap(lambda y: log_prob_at(trace, y)[at])(levels)

    return jax.lax.map(one, given, batch_size=100)
