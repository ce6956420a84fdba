"""What is measured? The levels of a model, around its predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from popk.endpoints import FALL, Endpoint, Risk, distribution_of
from popk.model.mixtures import Classes
from popk.model.outcomes import Outcomes
from popk.model.sites import ModelError, by_subject, known_or_sampled
from popk.reasons import failing
from popk.residual import Mixed, Paired, Residual, ResidualError
from popk.trial import Array, Trial


class Observed(NamedTuple):
    """Levels of one kind, as `observe` made them.

    Attributes
    ----------
    levels : Distribution
    values : Float[Array, "observation"]
    """

    levels: Any
    values: Any


def observe(
    trial: Trial,
    prediction: Float[Array, "..."] | Classes,
    error: ResidualError | Endpoint,
    *,
    output: str | None = None,
    DVID: int | None = None,
    CMT: int | None = None,
    scale: Float[Array, "..."] | Any = None,
    correlated: Observed | None = None,
) -> Observed:
    """Observe the trial's levels around a prediction, with a residual error model or as an endpoint.

    Samples ``sigma_...`` and the levels ``DV`` on the flat `observation` axis; records the individual
    prediction ``IPRED`` at every record. A level with BLQ 1 contributes the probability of
    being below its LLOQ (M3, or M4 where the error says so). A model of several kinds of levels
    observes each with its own call, and so it does events, categories and counts: an endpoint stands
    in the place of the error, and its parameters in that of ``sigma_...``.

    Parameters
    ----------
    trial : Trial
    prediction : Float[Array, "subject record"]
        The individual prediction at every record [unit of DV], or those of the classes of a
        `popk.mixture`; of an endpoint the mean count, the logit [pure number], or the hazard [1/time].
    error : ResidualError or Endpoint
        `combined_error`, `additive_error`, `proportional_error`, `power_error` or `lognormal_error`,
        or one of these through `box_cox_error`, `yeo_johnson_error` or `autocorrelated_error`; or
        `poisson`, `negative_binomial`, `zero_inflated`, `binary`, `ordered_categories` or
        `time_to_event`.
    output : str, optional
        The name of this kind of levels: its sites are then ``DV_metabolite``, ``IPRED_metabolite``,
        ``sigma_additive_metabolite`` and so on.
    DVID, CMT : int, optional
        Which levels these are; all by default.
    scale : Float[Array, "subject 1"], optional
        What the standard deviation of each subject's errors is multiplied by: inter-individual
        variability of the residual error, of a random effect of its own.
    correlated : Observed, optional
        What `observe` returned of levels that were measured in the same samples (one subject, one TIME,
        rows beside each other): the errors of both are correlated, ``sigma_correlation_metabolite``,
        uniform between -1 and 1.

    Returns
    -------
    Observed
        The levels, for `correlated` of a later call.

    Raises
    ------
    ModelError
        The prediction or a cumulative hazard has another shape, an endpoint is given a scale, or
        levels of several kinds are observed as one. Levels that a trial does not have are nothing to a
        twin or a simulation; `popk.fit` refuses to learn from none.
    """
    mixture = prediction.mixture if isinstance(prediction, Classes) else None
    predictions: list[Any] = [prediction]
    if isinstance(prediction, Classes):
        predictions = list(prediction.predictions.values())
    for shape in map(jnp.shape, predictions):
        if shape != trial.time.shape:
            raise ModelError(
                f"observe() was given a prediction of shape {shape}; it needs one value "
                f"for each subject and record, {trial.time.shape}"
            )
    kinds, suffix = _kinds(trial, DVID, CMT), f"_{output}" if output else ""
    begins = "" if isinstance(error, Endpoint) else "sigma_"
    values = {
        n: known_or_sampled(f"{begins}{n}{suffix}", prior) for n, prior in error.priors.items()
    }
    o = trial.observations
    own = jnp.ones(o.value.shape, dtype=bool)
    if kinds != trial.design.observed:
        own = (DVID is None) | (o.kind == DVID)
        own = own & ((CMT is None) | (o.compartment == CMT))
    asked = " ".join(f"{n} {v}" for n, v in (("DVID", DVID), ("CMT", CMT)) if v is not None)
    infer: dict[str, Any] = {"kinds": kinds, "asked": asked}
    if isinstance(error, Endpoint):
        each = _outcomes(trial, predictions, error, values, own, scale=scale, present=bool(kinds))
        infer["endpoint"] = Outcomes(error.name, error.rules, error.signed, kinds)
    else:
        each = _residuals(trial, predictions, error, values, own, scale=scale, suffix=suffix)
    levels = each[0]
    if correlated is not None:
        levels = _paired(trial, levels, correlated, suffix, alone=mixture is None)
    if mixture is not None:
        levels = Mixed(each, mixture.log_weights, trial.time.shape)
        mixture.learn(levels, o.value)
        infer["classes"] = mixture.names
    mean = predictions[0] if mixture is None else mixture.mean(predictions)
    numpyro.deterministic(f"IPRED{suffix}", mean)
    with numpyro.plate("observation", o.value.shape[0]):
        given = o.value if trial.given else None
        values = numpyro.sample(f"DV{suffix}", levels, obs=given, infer=infer)
    return Observed(levels, values)


def _paired(trial: Trial, levels: Any, other: Observed, suffix: str, *, alone: bool) -> Paired:
    """Return the distribution of levels whose errors are correlated with others'."""
    if not (alone and isinstance(levels, Residual) and isinstance(other.levels, Residual)):
        raise ModelError(
            "correlated= ties the residual errors of two kinds of levels, neither of them of a mixture, "
            "an endpoint or tied already; leave it out"
        )
    rho: Any = numpyro.sample(f"sigma_correlation{suffix}", dist.Uniform(-1.0, 1.0))
    o = trial.observations
    return Paired(levels, other.levels, other.values, trial.time[o.subject, o.record], rho)


def _residuals(
    trial: Trial, predictions: Sequence[Any], error: ResidualError, sigmas: Mapping[str, Any],
    own: Any, *, scale: Any, suffix: str,
) -> list[Any]:  # fmt: skip
    """Return the distribution of levels around each prediction."""
    o = trial.observations
    if scale is not None:
        scale = by_subject("the scale of the error", scale, trial, "popk.individual() gives")
        with numpyro.plate("subject", trial.n_subjects, dim=-2):
            numpyro.deterministic(f"error_scale{suffix}", scale)
    time = trial.time if error.autocorrelated else None
    limits = {"censored": trial.design.below, "above": trial.design.above}
    return [
        Residual(f[o.subject, o.record], sigmas, error, o, own, scale=scale, time=time, **limits)
        for f in predictions
    ]


def _outcomes(
    trial: Trial, predictions: Sequence[Any], endpoint: Endpoint, values: Mapping[str, Any],
    own: Any, *, scale: Any, present: bool,
) -> list[Any]:  # fmt: skip
    """Return the distribution of an endpoint's outcomes by each prediction."""
    if len(predictions) > 1 and isinstance(endpoint.law, Risk):
        raise ModelError(
            "a hazard of each class was given with one cumulative hazard; events of a mixture are not "
            "supported: let the hazard depend on what the classes have in common"
        )
    for prediction in predictions:
        _check_endpoint(trial, prediction, endpoint, scale)
    o = trial.observations
    return [distribution_of(endpoint, f, values, o, own, present=present) for f in predictions]


def _check_endpoint(trial: Trial, prediction: Any, endpoint: Endpoint, scale: Any) -> None:
    """Refuse what an endpoint cannot be given, and say where a hazard cannot be."""
    if scale is not None:
        raise ModelError(
            f"observe() was given a scale with an endpoint ({endpoint.name}), which has no residual "
            f"error; put what differs between subjects into the prediction"
        )
    if not isinstance(endpoint.law, Risk):
        return
    total = jnp.asarray(endpoint.law.cumulative_hazard)
    if total.shape != trial.time.shape:
        raise ModelError(
            f"time_to_event() was given a cumulative hazard of shape {total.shape}; it needs one value "
            f"for each subject and record, {trial.time.shape}"
        )
    before = jnp.concatenate([jnp.zeros_like(total[:, :1]), total[:, :-1]], axis=1)
    fell = trial.recorded & (total - before < -FALL * (1 + jnp.abs(before)))
    wrong = {
        "the cumulative hazard falls here; it may only grow, so nothing may reset its compartment "
        "(EVID 3 or 4, SS 1) and no hazard be negative": fell,
        "the hazard is negative here; guard the formula, or narrow the priors": (
            trial.recorded & (prediction < 0)
        ),
    }
    for says, where in wrong.items():
        failing(says, jnp.where(where.any(1), where.argmax(1), -1))


def _kinds(trial: Trial, DVID: int | None, CMT: int | None) -> tuple[tuple[int, int], ...]:
    """Return the kinds of levels (CMT, DVID) that are observed as one."""
    design = trial.design.observed
    kinds = tuple(k for k in design if CMT in (None, k[0]) and DVID in (None, k[1]))
    says = ", ".join(f"CMT {cmt} DVID {dvid}" for cmt, dvid in design)
    if DVID is None and len({k[1] for k in kinds}) > 1:
        raise ModelError(
            f"observe() takes all levels as one kind, but they are {says}; call it for each, "
            f"as in popk.observe(..., output='metabolite', DVID=2)"
        )
    if DVID is None and CMT is None and len({k[0] for k in kinds} - {0}) > 1:
        raise ModelError(
            f"observe() takes all levels as one kind, but they are {says}; call it for each, "
            f"as in popk.observe(..., output='metabolite', CMT=3)"
        )
    return kinds
