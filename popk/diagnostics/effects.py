r"""How do the people differ? Random effects as the posterior has them, not as their modes do.

Modes and posterior means are drawn towards 0 where levels say little, and correlations and trends with
covariates among them are distorted [1]_. Posterior draws are not: where a model is right, the draws of all
subjects together are of the distribution that it states [2]_.

References
----------
.. [1] Savic RM, Karlsson MO (2009). Importance of shrinkage in empirical Bayes estimates for
   diagnostics: problems and solutions. AAPS J 11:558-569. doi:10.1208/s12248-009-9133-0
.. [2] Lavielle M, Ribba B (2016). Enhanced method for diagnosing pharmacometric models: random sampling
   from conditional distributions. Pharm Res 33:2979-2988. doi:10.1007/s11095-016-2020-3
"""

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from popk.model.sites import ModelError
from popk.trial import Trial


def random_effects(posterior: xr.DataTree, trial: Trial, *, interval: float = 0.9) -> xr.Dataset:
    r"""Return draws of each subject's random effects, their shrinkage and correlations.

    Parameters
    ----------
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial of the fit.
    interval : float
        The probability of equal-tailed intervals.

    Returns
    -------
    Dataset
        ``eta`` (sample, subject, parameter), draws; ``mean``, ``lower`` and ``upper`` (subject,
        parameter). ``omega`` (parameter), the posterior median of the standard deviation, NaN where the
        model has none of that name.

        ``shrinkage`` (kind, parameter) of "sd" and "variance", in percent of posterior means:
        :math:`100\,(1 - \mathrm{sd}_i(\bar\eta_i) / \tilde\omega)` and
        :math:`100\,(1 - \mathrm{var}_i(\bar\eta_i) / \tilde\omega^2)` [1]_; and ``uncertainty``, the part
        of a subject's own posterior variance in the variance of all draws,
        :math:`100\,\overline{\mathrm{var}(\eta_i)} / (\overline{\mathrm{var}(\eta_i)} +
        \mathrm{var}_i(\bar\eta_i))`, which needs no omega.

        ``correlation``, ``correlation_lower`` and ``correlation_upper`` (parameter, parameter2): median
        and interval over draws of the correlation of the subjects' effects in each draw [2]_.

        ``covariate_value`` (covariate, subject), at each subject's first record, and
        ``covariate_correlation``, with ``_lower`` and ``_upper`` (covariate, parameter): the same with
        covariates, of two values or more; rank correlation (Spearman's), which no unit or outlier changes.

    Raises
    ------
    ModelError
        The model has no random effects ``eta``, has classes of subjects, or the posterior is of other
        subjects.
    ValueError
        The interval is no probability.

    Examples
    --------
    >>> popk.random_effects(posterior, trial)["shrinkage"].to_pandas()  # doctest: +SKIP
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    group = posterior["posterior"].dataset
    _refuse(group, trial)
    eta = group["eta"].sel(subject=list(trial.ids)).stack(sample=("chain", "draw"))
    eta = eta.transpose("sample", "subject", "parameter").reset_index("sample", drop=True)
    eta = eta.drop_vars(("chain", "draw"), errors="ignore")
    draws, names = eta.values, [str(p) for p in eta["parameter"].values]
    tails = [0.5 - interval / 2, 0.5, 0.5 + interval / 2]
    lower, _, upper = np.quantile(draws, tails, axis=0)
    omega = np.array([_omega(group, name) for name in names])
    result = xr.Dataset({"eta": eta, "mean": eta.mean("sample")}).assign(
        lower=(("subject", "parameter"), lower), upper=(("subject", "parameter"), upper),
        omega=("parameter", omega), **_shrunk(draws, omega),
        **_banded("correlation", ("parameter", "parameter2"), _correlations(draws), tails),
    )  # fmt: skip
    result = result.assign_coords(parameter2=names, kind=["sd", "variance"])
    result.attrs = {"interval": interval, "trial": trial.host.name}
    return _with_covariates(result, trial, tails)


def _refuse(group: xr.Dataset, trial: Trial) -> None:
    if "eta" not in group:
        raise ModelError(
            "the posterior has no random effects eta; give the model popk.individual(...)"
        )
    if "class" in group["eta"].dims:
        raise ModelError(
            "the model has classes of subjects, and random effects of the classes that a subject is not of "
            "are those of the prior; look at posterior['posterior']['eta'] class by class"
        )
    if strangers := [i for i in trial.ids if i not in group["subject"].values]:
        raise ModelError(
            f"ID {', '.join(strangers[:5])} is not in the posterior; give its own trial"
        )


def _omega(group: xr.Dataset, name: str) -> float:
    own = f"omega_{name}"
    return float(group[own].median()) if own in group else np.nan


def _shrunk(draws: np.ndarray, omega: np.ndarray) -> dict[str, tuple]:
    """Return shrinkage and uncertainty of draws [sample, subject, parameter], in percent."""
    one = draws.shape[1] < 2
    between = np.full(len(omega), np.nan) if one else draws.mean(axis=0).var(axis=0, ddof=1)
    within = draws.var(axis=0, ddof=1).mean(axis=0)
    shrinkage = 100 * np.stack([1 - np.sqrt(between) / omega, 1 - between / omega**2])
    return {
        "shrinkage": (("kind", "parameter"), shrinkage),
        "uncertainty": ("parameter", 100 * within / (within + between)),
    }


def _correlations(draws: np.ndarray) -> np.ndarray:
    """Return the correlation of subjects' effects in each draw [sample, parameter, parameter]."""
    z = _standardized(draws)
    return np.einsum("ksp,ksq->kpq", z, z)


def _standardized(values: np.ndarray) -> np.ndarray:
    """Return values [..., subject, parameter] less their mean, of length 1 over subjects."""
    off = values - values.mean(axis=-2, keepdims=True)
    length = np.sqrt((off**2).sum(axis=-2, keepdims=True))
    return off / np.where(length > 0, length, np.nan)


def _banded(name: str, axes: tuple[str, ...], draws: np.ndarray, tails: list[float]) -> dict:
    """Return median and interval over the first axis."""
    lower, median, upper = np.quantile(draws, tails, axis=0)
    values = {name: median, f"{name}_lower": lower, f"{name}_upper": upper}
    return {n: (axes, x) for n, x in values.items()}


def _with_covariates(result: xr.Dataset, trial: Trial, tails: list[float]) -> xr.Dataset:
    """Return the effects beside each subject's covariates, those that differ between subjects."""
    first = trial.host.frame.groupby("ID", sort=False).first()
    first.index = first.index.astype(str)
    names = [n for n in trial.host.covariates if first[n].nunique() > 1]
    values = first.loc[list(trial.ids), names].to_numpy(dtype=float).T
    ranks = rankdata(result["eta"].values, axis=1)
    shape = (result.sizes["sample"], len(names), result.sizes["parameter"])
    found = np.full(shape, np.nan)
    for i, own in enumerate(values):
        known = ~np.isnan(own)
        if known.sum() < 3:
            continue
        ranked = ranks if known.all() else rankdata(result["eta"].values[:, known], axis=1)
        covariate = _standardized(rankdata(own[known])[:, None])
        found[:, i] = np.einsum("ksp,s->kp", _standardized(ranked), covariate[:, 0])
    axes = ("covariate", "parameter")
    result = result.assign(_banded("covariate_correlation", axes, found, tails))
    result = result.assign(covariate_value=(("covariate", "subject"), values))
    units = [trial.units.get(n, "1") for n in names]
    return result.assign_coords(covariate=names, unit=("covariate", units))
