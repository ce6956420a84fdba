"""What is measured? The levels of a model, around its predictions."""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Float

from popk.model.mixtures import Classes
from popk.model.sites import ModelError, by_subject, known_or_sampled
from popk.residual import Mixed, Residual, ResidualError
from popk.trial import Array, Trial


def observe(
    trial: Trial,
    prediction: Float[Array, "..."] | Classes,
    error: ResidualError,
    *,
    output: str | None = None,
    DVID: int | None = None,
    CMT: int | None = None,
    scale: Float[Array, "..."] | Any = None,
) -> None:
    """Observe the trial's levels around a prediction, with a residual error model.

    Samples ``sigma_...`` and the levels ``DV`` on the flat `observation` axis; records the individual
    prediction ``IPRED`` at every record. A level with BLQ 1 contributes the probability of
    being below its LLOQ (M3, or M4 where the error says so). A model of several kinds of levels
    observes each with its own call.

    Parameters
    ----------
    trial : Trial
    prediction : Float[Array, "subject record"]
        The individual prediction at every record [unit of DV]; or those of the classes of a
        `popk.mixture`.
    error : ResidualError
        `combined_error`, `additive_error`, `proportional_error`, `power_error` or `lognormal_error`,
        or one of these through `box_cox_error`, `yeo_johnson_error` or `autocorrelated_error`.
    output : str, optional
        The name of this kind of levels: its sites are then ``DV_metabolite``, ``IPRED_metabolite``,
        ``sigma_additive_metabolite`` and so on.
    DVID, CMT : int, optional
        Which levels these are; all by default.
    scale : Float[Array, "subject 1"], optional
        What the standard deviation of each subject's errors is multiplied by: inter-individual
        variability of the residual error, of a random effect of its own.

    Raises
    ------
    ModelError
        The prediction has another shape, or levels of several kinds are observed as one. Levels that
        a trial does not have are nothing to a twin or a simulation; `popk.fit` refuses to learn from
        none.
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
    sigmas = {n: known_or_sampled(f"sigma_{n}{suffix}", prior) for n, prior in error.priors.items()}
    o = trial.observations
    own = jnp.ones(o.value.shape, dtype=bool)
    if kinds != trial.design.observed:
        own = (DVID is None) | (o.kind == DVID)
        own = own & ((CMT is None) | (o.compartment == CMT))
    if scale is not None:
        scale = by_subject("the scale of the error", scale, trial, "popk.individual() gives")
        with numpyro.plate("subject", trial.n_subjects, dim=-2):
            numpyro.deterministic(f"error_scale{suffix}", scale)
    time = trial.time if error.autocorrelated else None
    each = [
        Residual(f[o.subject, o.record], sigmas, error, o, own, trial.design.below,
                 scale=scale, time=time, above=trial.design.above) for f in predictions
    ]  # fmt: skip
    asked = " ".join(f"{n} {v}" for n, v in (("DVID", DVID), ("CMT", CMT)) if v is not None)
    infer: dict[str, Any] = {"kinds": kinds, "asked": asked}
    if mixture is None:
        levels = each[0]
        numpyro.deterministic(f"IPRED{suffix}", predictions[0])
    else:
        levels = Mixed(each, mixture.log_weights, trial.time.shape)
        mixture.learn(levels, o.value)
        numpyro.deterministic(f"IPRED{suffix}", mixture.mean(predictions))
        infer["classes"] = mixture.names
    with numpyro.plate("observation", o.value.shape[0]):
        given = o.value if trial.given else None
        numpyro.sample(f"DV{suffix}", levels, obs=given, infer=infer)


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
