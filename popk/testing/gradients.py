"""Is a gradient right? Central differences of the log-density, along directions and site by site."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.inference.density import Layout
from popk.model.failures import why_not
from popk.model.sites import Model, ModelError, describe
from popk.testing.subject import Subject, at, latents, subject_of
from popk.trial import Trial

#: How far a derivative may be from a central difference, relative to the gradient's root mean square.
#: An ODE's amounts carry noise of 1e-7, which the smallest step below makes 1e-4 at worst.
SLOPE = 1e-4

#: The steps of central differences. A right gradient agrees at one of them at least: long steps suffer
#: from curvature, short ones from noise.
STEPS = (3e-2, 3e-3, 3e-4)

_ELEMENTS = 4  # of each site


def check_gradient(
    model: Model,
    trial: Trial,
    values: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    draws: int = 3,
) -> pd.DataFrame:
    r"""Return how far the gradient of the log-density is from central differences, site by site.

    Each unconstrained number x of a site is moved by h,

    .. math:: \frac{8 (f_1 - f_{-1}) - (f_2 - f_{-2})}{12 h}, \qquad f_k = f(x + k h)

    with h of 0.03, 0.003 and 0.0003, the nearest of which counts: long steps suffer from curvature, short
    ones from rounding. A sampler that follows a wrong gradient diverges, or crawls.

    Parameters
    ----------
    model : Callable
    trial : Trial
        A few subjects are enough. One without levels gets some that the model draws.
    values : mapping of site to value, optional
        Where to look: all population values; random effects that are not given are 0.
    seed : int
        Of the draws from the prior that are looked at where no values are given.
    draws : int
        How many, at most 32.

    Returns
    -------
    DataFrame
        Indexed by site, the worst of up to 4 of its numbers and of all draws: ``gradient``, the central
        ``difference``, ``error`` between them over the root mean square of the gradient (over 1, where
        that is less), and ``right``, whether it is at most 0.0001.

    Raises
    ------
    ModelError
        The model cannot be used with the trial, a value is missing, unknown or of a wrong shape; or the
        log-density is not finite there: then why.
    ValueError
        `draws` is not between 1 and 32.

    Examples
    --------
    >>> table = popk.check_gradient(theophylline, trial)  # doctest: +SKIP
    >>> table["right"].all()  # doctest: +SKIP
    True
    """
    subject = subject_of(model, trial, seed)
    if not 1 <= draws <= len(subject.draws):
        raise ValueError(f"draws is {draws}; give 1 to {len(subject.draws)}")
    places = subject.draws[:draws] if values is None else [_position(subject, values)]
    tables = [_compared(subject._replace(vector=place)) for place in places]
    every = pd.concat(tables)
    # Where several are as wrong the first counts; one that is no number is worse than any.
    worst = every.assign(rank=every["error"].fillna(np.inf)).sort_values("rank", ascending=False)
    worst = worst[~worst.index.duplicated()].drop(columns="rank").loc[tables[0].index]
    return worst.assign(right=worst["error"] <= SLOPE)


def _compared(subject: Subject) -> pd.DataFrame:
    """Return the worst of each site's derivatives at one place."""
    found, gradient = at(subject, subject.vector)
    if not np.isfinite(found.density):
        why = why_not(subject.model, subject.trial, latents(subject, subject.vector))
        says = f"the log-density is {found.density}, without gradient; see popk.testing.check_model"
        raise ModelError("\n".join([says, *why]))
    gradient, rows = np.asarray(gradient), {}
    for name, place in subject.plan.unflatten(jnp.arange(float(subject.plan.size))).items():
        every = np.ravel(place).astype(int)
        tried = every[np.linspace(0, len(every) - 1, min(len(every), _ELEMENTS)).astype(int)]
        pairs = [(gradient[i], nearest(subject, gradient, np.eye(len(gradient))[i])) for i in tried]
        off = [abs(slope - near) for slope, near in pairs]
        own, near = pairs[int(np.nanargmax(np.nan_to_num(off, nan=np.inf)))]
        rows[name] = {
            "gradient": own,
            "difference": near,
            "error": abs(own - near) / scale(gradient),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")


def scale(gradient: np.ndarray) -> float:
    """Return what a gradient's errors are measured by: its root mean square, or 1 where it is less."""
    return max(float(np.linalg.norm(gradient)) / math.sqrt(len(gradient)), 1.0)


def nearest(subject: Subject, gradient: np.ndarray, direction: np.ndarray) -> float:
    """Return the central difference along a direction that is nearest to the gradient's slope."""
    slope, best = float(gradient @ direction), math.nan
    for h in STEPS:
        found = _difference(subject, direction, h)
        if math.isnan(best) or abs(found - slope) < abs(best - slope):
            best = found
        if abs(best - slope) <= SLOPE * scale(gradient) / 100:
            break
    return best


def _difference(subject: Subject, direction: np.ndarray, h: float) -> float:
    """Return the central difference of the log-density along a direction."""
    f = {
        k: float(at(subject, subject.vector + k * h * direction)[0].density) for k in (-2, -1, 1, 2)
    }
    return (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)


def _position(subject: Subject, values: Mapping[str, Any]) -> Any:
    """Return values as an unconstrained vector."""
    sites = describe(subject.model, subject.trial)
    own = [latent.name for latent in subject.plan.latents]
    if strange := [n for n in values if n not in own]:
        raise ModelError(
            f"the model does not sample {', '.join(strange)}; it samples {', '.join(own)}"
        )
    given = {n: jnp.zeros(sites.all[n].shape) for n in own if sites.all[n].kind == "individual"}
    for name, value in values.items():
        array, shape = jnp.asarray(value, dtype=float), sites.all[name].shape
        if array.size != math.prod(shape):
            raise ModelError(f"{name} was given {array.size} numbers; its shape is {shape}")
        given[name] = array.reshape(shape)
    if missing := [n for n in own if n not in given]:
        raise ModelError(f"values lacks {', '.join(missing)}; give every population value")
    return _unconstrained(subject.model, subject.plan, subject.trial.arrays(), given)


@functools.partial(jax.jit, static_argnames=("model", "plan"))
def _unconstrained(model: Model, plan: Layout, arrays: Trial, values: dict[str, Any]) -> Any:
    seeded = handlers.seed(handlers.substitute(model, data=values), jax.random.key(0))
    trace = handlers.trace(seeded).get_trace(arrays)
    return plan.flatten({n: biject_to(trace[n]["fn"].support).inv(x) for n, x in values.items()})
