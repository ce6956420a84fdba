"""Is what a model computes finite, and its gradient right?"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from popk.model.failures import why_not
from popk.model.sites import Model, ModelError, describe
from popk.simulation import predict_at
from popk.testing.gradients import SLOPE, nearest, scale
from popk.testing.problems import Problem
from popk.testing.subject import Evaluation, Subject, at, latents, row_of
from popk.trial import Trial

#: How far below 0 a level may be, relative to the greatest: what an ODE solver leaves of an empty amount.
NEGLIGIBLE = 1e-6

_CHECKED, _DIRECTIONS = 16, 4  # draws from the prior, and directions of derivatives


def check_prior(subject: Subject) -> list[Problem]:
    """Return where draws from the prior have no finite prediction, density or gradient.

    Parameters
    ----------
    subject : Subject
    """
    for number, vector in enumerate(subject.draws[:_CHECKED]):
        found, gradient = at(subject, vector)
        says = [*_not_finite(subject, found, vector)]
        if not says and not np.isfinite(gradient).all():
            says = [_no_gradient(subject, gradient)]
        if says:
            where = f"at draw {number + 1} of the prior (seed {subject.seed}) "
            return [Problem("prior", where + text) for text in says]
    return []


def _not_finite(subject: Subject, found: Evaluation, vector: Any) -> Iterator[str]:
    """Yield why an evaluation is not finite."""
    recorded = np.asarray(subject.trial.recorded)
    for name, prediction in found.predictions.items():
        wrong = recorded & ~np.isfinite(prediction)
        if wrong.any():
            why = why_not(subject.model, subject.trial, latents(subject, vector))
            place = row_of(subject.trial, *np.argwhere(wrong)[0])
            value = np.asarray(prediction)[wrong][0]
            yield (
                f"{name} is {value}: {'; '.join(line.strip() for line in why)}"
                if why
                else (f"{name} is {value} at {place}; narrow the priors, or guard the formula")
            )
            return
    if not np.isfinite(found.density):
        o = subject.trial.observations
        wrong = np.flatnonzero(~np.isfinite(np.asarray(found.log_prob)[: len(o.value)]))
        if len(wrong):
            place = row_of(subject.trial, o.subject[wrong[0]], o.record[wrong[0]])
            yield (
                f"the log-density is {found.density} because of the level at {place}; where nothing "
                f"is predicted the error needs an additive part, or the record MDV 1"
            )
        else:
            yield f"the log-density is {found.density}; look for a prior whose support excludes its draw"


def _no_gradient(subject: Subject, gradient: Any) -> str:
    parts = subject.plan.unflatten(jnp.asarray(gradient))
    names = [name for name, part in parts.items() if not np.isfinite(part).all()]
    return (
        f"the gradient with respect to {', '.join(names)} is not finite, though the density is; guard "
        f"the argument of a root, logarithm or power with jnp.where before it is taken"
    )


def check_derivatives(subject: Subject) -> list[Problem]:
    r"""Return where the gradient of the log-density disagrees with central differences.

    Along random unit directions d, :math:`g \cdot d` is compared with the nearest of the central
    differences that `popk.check_gradient` takes; it must be within `SLOPE` of
    :math:`\lVert g \rVert / \sqrt n`, what :math:`g \cdot d` amounts to on average.

    Parameters
    ----------
    subject : Subject
    """
    gradient = np.asarray(at(subject, subject.vector)[1])
    if not np.isfinite(gradient).all():
        return [Problem("gradient", _no_gradient(subject, gradient))]
    # Half of the directions turn population values alone, which individual ones would outnumber.
    for way in range(_DIRECTIONS):
        direction = _direction(subject, way)
        slope, near = float(gradient @ direction), nearest(subject, gradient, direction)
        if not abs(slope - near) <= SLOPE * scale(gradient):
            return [Problem("gradient", _says_slope(subject, gradient, slope, near))]
    return []


def _direction(subject: Subject, way: int) -> np.ndarray:
    direction = np.random.default_rng([subject.seed, way]).standard_normal(subject.plan.size)
    if way % 2:
        direction[subject.plan.n_population :] = 0.0
    return direction / np.linalg.norm(direction)


def _says_slope(subject: Subject, gradient: np.ndarray, slope: float, near: float) -> str:
    """Return a sentence that names the sites whose derivatives are wrong."""
    plan, wrong = subject.plan, []
    places = plan.unflatten(jnp.arange(float(plan.size)))
    for name, place in places.items():
        i = int(np.ravel(place)[0])
        off = abs(gradient[i] - nearest(subject, gradient, np.eye(plan.size)[i]))
        if not off <= SLOPE * scale(gradient):
            wrong.append(name)
    return (
        f"the gradient disagrees with central differences: {slope:.6g} where {near:.6g} is right"
        + (f", in {', '.join(wrong)}" if wrong else "")
        + "; a value that leaves JAX (float(), NumPy, stop_gradient) or jumps has no derivative"
    )


def check_values(model: Model, trial: Trial, values: Mapping[str, Any]) -> list[Problem]:
    """Return where given population values have no finite prediction, or a negative one that is no logit.

    Parameters
    ----------
    model : Callable
    trial : Trial
    values : mapping of site to value
        Random effects are 0.
    """
    sites = describe(model, trial)
    names = [n for n in sites.all if n == "IPRED" or n.startswith("IPRED_")]
    recorded = np.asarray(trial.recorded)
    for name in names:
        try:
            found = predict_at(model, trial, values, output=name[len("IPRED_") :] or None)
        except ModelError as error:
            return [Problem("values", str(error))]
        endpoint = sites.endpoints.get(name.replace("IPRED", "DV", 1))
        least = -np.inf if endpoint and endpoint.signed else -NEGLIGIBLE * np.nanmax(found.values)
        wrong = recorded & ~(np.isfinite(found.values) & (found.values >= least))
        if wrong.any():
            place = row_of(trial, *np.argwhere(wrong)[0])
            says = f"{name} is {found.values[wrong][0]:.6g} at {place}; look at units and signs"
            return [Problem("values", says)]
    return []
