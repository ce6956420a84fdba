"""What are each subject's most likely random effects, population values being given?"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from numpyro import handlers

from popk.inference.laplace import find_mode, subject_layout
from popk.model.failures import why_not
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, ModelError, describe
from popk.trial import Trial


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
