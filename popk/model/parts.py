"""The parts of a model that are no structure: individual parameters and observed levels."""

from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from popk.model.sites import ModelError, by_subject, check_parameter
from popk.priors import Fixed, Prior, half_normal
from popk.residual import Residual, ResidualError
from popk.trial import Array, Trial
from popk.variability import random_effects

Typical = Float[Array, "..."] | float | Any  # NumPyro types what it samples as anything


def individual(
    trial: Trial,
    *,
    omega: Prior | Mapping[str, Prior] = 0.5,
    correlated: bool = True,
    lkj: float = 2.0,
    **typical: Typical,
) -> Any:
    r"""Return each subject's own parameters around their typical values.

    .. math:: P_{ij} = \mathrm{TV}_{ij}\, e^{\eta_{ij}}, \qquad \eta_i \sim N(0, \Omega)

    Samples ``omega_CL``, ... (standard deviations on the log scale), ``corr`` and ``eta`` (subject,
    parameter), and records the individual parameters under their own names.

    Parameters
    ----------
    trial : Trial
    omega : float, Distribution or Fixed, or a mapping of these by parameter
        Prior of the standard deviations: a number is the scale of a half-normal.
    correlated : bool
        Whether random effects are correlated, with an LKJ prior on the correlation matrix.
    lkj : float
        Its concentration; 1 is uniform over correlation matrices, more favors independence.
    **typical : Float[Array, "subject record"], [subject, 1] or scalar
        The covariate-adjusted typical value of each parameter, positive, under its name.

    Returns
    -------
    namedtuple
        ``p.CL`` and so on, of shape [subject, 1], or [subject, record] where the typical value
        changes within subjects.

    Raises
    ------
    ModelError
        No parameter is given, a name is reserved, or `omega` names another parameter.

    References
    ----------
    .. [1] Lewandowski D, Kurowicka D, Joe H (2009). Generating random correlation matrices based
       on vines and extended onion method. J Multivar Anal 100:1989-2001.
       doi:10.1016/j.jmva.2009.04.008
    """
    names = tuple(typical)
    if not names:
        raise ModelError("individual() was given no parameter; write individual(trial, CL=CL, V=V)")
    for name in names:
        check_parameter(name)
    priors = dict(omega) if isinstance(omega, Mapping) else dict.fromkeys(names, omega)
    strangers = [n for n in priors if n not in names]
    if strangers:
        raise ModelError(
            f"omega names {', '.join(strangers)}, but the parameters are {', '.join(names)}"
        )
    sds = [_sampled(f"omega_{n}", half_normal(priors.get(n, 0.5))) for n in names]
    corr: Any = None
    if correlated and len(names) > 1:
        corr = numpyro.sample("corr", dist.LKJ(len(names), lkj))
    mu = jnp.stack(
        jnp.broadcast_arrays(*[_log_typical(n, v, trial) for n, v in typical.items()]), -1
    )
    with numpyro.plate("subject", trial.n_subjects, dim=-2):
        eta = numpyro.sample(
            "eta",
            random_effects(jnp.stack(sds), corr),
            infer={"typical": mu[:, :1], "parameters": names},
        )
        values = jnp.exp(mu + eta)
        for i, name in enumerate(names):
            numpyro.deterministic(name, values[..., i])
    return namedtuple("Individual", names)(*(values[..., i] for i in range(len(names))))


def observe(
    trial: Trial,
    prediction: Float[Array, "..."],
    error: ResidualError,
    *,
    output: str | None = None,
    DVID: int | None = None,
    CMT: int | None = None,
) -> None:
    """Observe the trial's levels around a prediction, with a residual error model.

    Samples ``sigma_...`` and the levels ``DV`` on the flat `observation` axis; records the individual
    prediction ``IPRED`` at every record. A level with BLQ 1 contributes the probability of
    being below its LLOQ (M3). A model of several kinds of levels observes each with its own call.

    Parameters
    ----------
    trial : Trial
    prediction : Float[Array, "subject record"]
        The individual prediction at every record [unit of DV].
    error : ResidualError
        `combined_error`, `additive_error`, `proportional_error` or `lognormal_error`.
    output : str, optional
        The name of this kind of levels: its sites are then ``DV_metabolite``, ``IPRED_metabolite``,
        ``sigma_additive_metabolite`` and so on.
    DVID, CMT : int, optional
        Which levels these are; all by default.

    Raises
    ------
    ModelError
        The prediction has another shape, or levels of several kinds are observed as one. Levels that
        a trial does not have are nothing to a twin or a simulation; `popk.fit` refuses to learn from
        none.
    """
    if jnp.shape(prediction) != trial.time.shape:
        raise ModelError(
            f"observe() was given a prediction of shape {jnp.shape(prediction)}; it needs one value "
            f"for each subject and record, {trial.time.shape}"
        )
    kinds, suffix = _kinds(trial, DVID, CMT), f"_{output}" if output else ""
    sigmas = {n: _sampled(f"sigma_{n}{suffix}", prior) for n, prior in error.priors.items()}
    numpyro.deterministic(f"IPRED{suffix}", prediction)
    o = trial.observations
    own = jnp.ones(o.value.shape, dtype=bool)
    if kinds != trial.design.observed:
        own = (DVID is None) | (o.kind == DVID)
        own = own & ((CMT is None) | (o.compartment == CMT))
    levels = Residual(prediction[o.subject, o.record], sigmas, error, o, own, trial.design.below)
    with numpyro.plate("observation", o.value.shape[0]):
        given = o.value if trial.given else None
        asked = " ".join(f"{n} {v}" for n, v in (("DVID", DVID), ("CMT", CMT)) if v is not None)
        numpyro.sample(f"DV{suffix}", levels, obs=given, infer={"kinds": kinds, "asked": asked})


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


def _sampled(name: str, prior: dist.Distribution | Fixed) -> Any:
    if isinstance(prior, Fixed):
        return numpyro.deterministic(name, jnp.asarray(float(prior.value)))
    return numpyro.sample(name, prior)


def _log_typical(name: str, value: Typical, trial: Trial) -> Float[Array, "_ _"]:
    """Return a typical value's logarithm as [subject, 1] or [subject, record]."""
    what = f"the typical value of {name}"
    return jnp.log(by_subject(what, value, trial, "trial.covariate() gives"))
