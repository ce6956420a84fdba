r"""How far is each level from what the population leads to expect? Conditional weighted residuals.

References
----------
.. [1] Hooker AC, Staatz CE, Karlsson MO (2007). Conditional weighted residuals (CWRES): a model
   diagnostic for the FOCE method. Pharm Res 24:2187-2197. doi:10.1007/s11095-007-9361-x
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.inference.laplace import individual_layout, subject_layout
from popk.inference.linearized import linearized, refuse_other_errors
from popk.model.failures import why_not
from popk.model.labels import labelled, observation_coords
from popk.model.sites import Model, ModelError, Sites, describe
from popk.simulation import posterior_values
from popk.trial import Trial


def cwres(model: Model, posterior: xr.DataTree, trial: Trial) -> xr.Dataset:
    r"""Return conditional weighted residuals, of which a right model has standard normal ones.

    The model is made linear in the random effects around each subject's mode, at the posterior means of
    the population values [1]_. With E and C mean and covariance of a subject's levels there,

    .. math:: \mathrm{CWRES}_i = C_i^{-1/2}\,(y_i - E_i)

    with the symmetric root, on the scale of the residual error (of logarithms where it is log-normal), and
    with residual standard deviations at the mode (interaction). ``CIWRES``, :math:`(y - f) / s`, is the
    individual weighted residual at the same mode, which is shrunk where levels are few. Levels beyond a
    limit tell where the mode is, but have no residual.

    Parameters
    ----------
    model : Callable
        With random effects for each subject, of any number of kinds of levels.
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial of the fit.

    Returns
    -------
    Dataset
        ``CWRES`` and ``CIWRES`` (observation), pure numbers, of each quantified level, with ID and TIME,
        and CMT and DVID where there are several; ``DV`` and ``PRED``, the prediction at random effects of
        0 [unit of DV]; and ``eta`` (subject, parameter): the modes.

    Raises
    ------
    ModelError
        The model has no random effects, classes of subjects, or errors that are not normal on their scale
        each for itself; or the residuals of a subject cannot be computed: then whose.

    Examples
    --------
    >>> popk.plots.cwres(popk.cwres(model, posterior, trial))  # doctest: +SKIP
    """
    keep_compiled()
    sites = _usable(model, trial)
    population = posterior_means(posterior, sites, trial)
    plan = subject_layout(model, trial)
    refuse_other_errors(model, plan, trial, population)
    found = linearized(model, plan, trial.by_subject(), population)
    residual, error, spread, covariance, vectors = (
        np.asarray(x) for x in (found.residual, found.error, found.spread, found.covariance,
                                found.vector)
    )  # fmt: skip
    _refuse_unknown(model, trial, population, sites, covariance)
    values, along = np.linalg.eigh(covariance)
    root = (along / np.sqrt(values)[:, None]) @ np.swapaxes(along, 1, 2)
    weighted = np.einsum("sij,sj->si", root, residual)
    o = trial.observations
    seen = np.asarray(o.exact)
    subject = np.asarray(o.subject)
    own = subject, _place(subject)
    dims, unit = "observation", {"units": trial.units["DV"]}
    result = xr.Dataset(
        {
            "CWRES": (dims, weighted[own][seen]),
            "CIWRES": (dims, (error / spread)[own][seen]),
            "DV": (dims, np.asarray(o.value)[seen], unit),
            "PRED": (dims, np.asarray(found.typical)[own][seen], unit),
        },
        coords=observation_coords(trial, seen),
    )
    result["TIME"].attrs = {"units": trial.units["TIME"]}
    effects = individual_layout(model, trial).unflatten(jnp.asarray(vectors.ravel()))
    if "eta" in effects:
        modes = labelled({"eta": effects["eta"]}, sites, trial, (), np.asarray(o.measured))
        result["eta"] = modes["eta"]
    return result.assign_attrs(trial=trial.host.name)


def _usable(model: Model, trial: Trial) -> Sites:
    """Return the model's sites, where random effects are all that is integrated out."""
    sites = describe(model, trial)
    if sites.classes:
        raise ModelError(
            "the model has classes of subjects, whose levels no one linearization describes; take "
            "popk.npde"
        )
    if sites.named("latent"):
        raise ModelError("CWRES needs known covariates, and the model samples some; take popk.npde")
    return sites


def posterior_means(posterior: xr.DataTree, sites: Sites, trial: Trial) -> dict[str, Any]:
    """Return the posterior mean of each population value."""
    values = posterior_values(posterior, sites, trial, new_subjects=True, draws=None)
    return {n: jnp.mean(x, axis=0) for n, x in values.items()}


def _place(subject: np.ndarray) -> np.ndarray:
    """Return where each observation stands among those of its subject."""
    found, counts = np.empty(len(subject), dtype=int), dict.fromkeys(subject.tolist(), 0)
    for i, s in enumerate(subject.tolist()):
        found[i], counts[s] = counts[s], counts[s] + 1
    return found


def _refuse_unknown(
    model: Model, trial: Trial, population: dict[str, Any], sites: Sites, covariance: np.ndarray
) -> None:
    bad = ~np.isfinite(covariance).all(axis=(1, 2))
    if not bad.any():
        return
    typical = {n: jnp.zeros(sites.all[n].shape) for n in sites.named("individual")}
    who = ", ".join(np.asarray(trial.ids)[bad][:5])
    why = why_not(model, trial, {**population, **typical})
    raise ModelError("\n".join([f"ID {who}: CWRES cannot be computed at the posterior mean", *why]))
