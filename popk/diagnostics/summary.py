"""What are the estimates, and how well are they known? One table of the population parameters.

References
----------
.. [1] Savic RM, Karlsson MO (2009). Importance of shrinkage in empirical Bayes estimates for
   diagnostics: problems and solutions. AAPS J 11:558-569. doi:10.1208/s12248-009-9133-0
.. [2] Vehtari A, Gelman A, Simpson D, Carpenter B, Burkner PC (2021). Rank-normalization, folding,
   and localization: an improved R-hat. Bayesian Anal 16:667-718. doi:10.1214/20-BA1221
"""

import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from popk.endpoints import PARAMETERS
from popk.inference.convergence import population_draws
from popk.variability import cv_percent

#: Parameters stand in this order; an effect is any other population parameter of a model.
KINDS = ("typical", "effect", "omega", "gamma", "tau", "corr", "sigma", "endpoint")


def summary(posterior: xr.DataTree, interval: float = 0.9) -> pd.DataFrame:
    r"""Return one row for each population parameter: its estimate, precision and diagnostics.

    Parameters
    ----------
    posterior : DataTree
        As `popk.fit` returns it.
    interval : float
        The probability of the equal-tailed credible interval, between 0 and 1.

    Returns
    -------
    DataFrame
        Indexed by parameter: typical values and other effects, then ``omega_*``, ``gamma_*``, ``tau_*``,
        ``corr[...]``, ``sigma_*`` and those of endpoints; what is fixed is left out. A number that
        has no meaning for a parameter is NaN.

        ``median``, ``lower``, ``upper`` : of the posterior, in the parameter's unit (``omega_*``,
        ``gamma_*`` and ``tau_*`` are standard deviations, on the log scale unless the model says otherwise).

        ``CV%`` : coefficient of variation; of a log-normal individual parameter for ``omega_*``,
        ``gamma_*`` and ``tau_*``,
        :math:`100\sqrt{e^{\omega^2} - 1}`, and of the residual error for ``sigma_proportional``,
        :math:`100\,\sigma`, and ``sigma_log``, :math:`100\sqrt{e^{\sigma^2} - 1}`.

        ``RSE%`` : relative standard error, :math:`100\,\mathrm{sd} / |\mathrm{mean}|` of the
        posterior; NaN for correlations, which may be near 0.

        ``shrinkage%`` : for ``omega_X``, SD shrinkage
        :math:`100\,(1 - \mathrm{sd}_i(\bar\eta_i) / \tilde\omega)`, with each subject's posterior
        mean of :math:`\eta_X` and the posterior median of omega [1]_.

        ``R-hat``, ``ESS bulk``, ``ESS tail`` : convergence [2]_; of draws that were weighted there is no
        R-hat, and the effective sample size is that of the weights.

    Raises
    ------
    ValueError
        The interval is no probability, or the posterior has no population parameters.

    Examples
    --------
    >>> popk.summary(posterior).loc["CL_pop", ["median", "lower", "upper"]]  # doctest: +SKIP
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    population = population_draws(posterior)
    if not population:
        raise ValueError("the posterior has no population parameters; was it made by popk.fit?")
    tails = [0.5 - interval / 2, 0.5, 0.5 + interval / 2]
    rows = {}
    # A constant chain has no R-hat, and a mean of 0 no RSE: NaN and infinity say so.
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in sorted(population, key=lambda n: _place(n, posterior)):
            draws = population[name]
            lower, median, upper = np.quantile(draws, tails)
            rows[name] = {
                "median": median,
                "lower": lower,
                "upper": upper,
                "CV%": _cv(name, float(median), posterior),
                "RSE%": _rse(name, draws),
                "shrinkage%": _shrinkage(name, float(median), posterior),
                **_convergence(draws, posterior.attrs.get("importance_ess")),
            }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")
    table.attrs["interval"] = interval
    return table


def _convergence(draws: np.ndarray, weighted: float | None) -> dict[str, float]:
    """Return R-hat and effective sample sizes; of weighted draws, which are many times the same, theirs."""
    import arviz as az

    if weighted is not None:
        return {"R-hat": np.nan, "ESS bulk": float(weighted), "ESS tail": float(weighted)}
    return {
        "R-hat": float(az.rhat(draws)),
        "ESS bulk": float(az.ess(draws, method="bulk")),
        "ESS tail": float(az.ess(draws, method="tail", prob=(0.05, 0.95))),
    }


def kind(name: str) -> str:
    """Return which of `KINDS` a population parameter is."""
    if name.endswith("_pop"):
        return "typical"
    if name.split("_")[0] in PARAMETERS:
        return "endpoint"
    return next((k for k in KINDS[2:] if name.startswith((f"{k}_", f"{k}["))), "effect")


def _place(name: str, posterior: xr.DataTree) -> tuple[int, int]:
    """Return where a parameter stands: by kind, then in the order of the model's parameters."""
    group = posterior["posterior"].dataset
    order = [str(p) for p in group["parameter"].values] if "parameter" in group.coords else []
    parameter = (
        name.removesuffix("_pop").removeprefix("omega_").removeprefix("gamma_").removeprefix("tau_")
    )
    return KINDS.index(kind(name)), order.index(parameter) if parameter in order else len(order)


def scale_of(name: str, posterior: xr.DataTree) -> str:
    """Return the scale of the random effect whose standard deviation a parameter is; "" for others."""
    if kind(name) not in ("omega", "gamma", "tau"):
        return ""
    scales = json.loads(posterior["posterior"].attrs.get("transforms", "{}"))
    of = name.split("_", 1)[1]
    return next((scale for p, scale in scales.items() if of == p or of.startswith(f"{p}_")), "log")


def _cv(name: str, median: float, posterior: xr.DataTree) -> float:
    """Return a CV% at the posterior median, which is the median of the CV%: it is monotone."""
    if scale_of(name, posterior) == "log" or name.startswith("sigma_log"):
        return float(cv_percent(jnp.asarray(median)))
    return 100 * median if name.startswith("sigma_proportional") else np.nan


def _rse(name: str, draws: np.ndarray) -> float:
    return np.nan if kind(name) == "corr" else float(100 * draws.std(ddof=1) / abs(draws.mean()))


def _shrinkage(name: str, median: float, posterior: xr.DataTree) -> float:
    group = posterior["posterior"].dataset
    parameter = name.removeprefix("omega_")
    if parameter == name or "eta" not in group or parameter not in group["parameter"].values:
        return np.nan
    if (
        "class" in group["eta"].dims
    ):  # those of the classes that a subject is not of are the prior's
        return np.nan
    means = group["eta"].sel(parameter=parameter).mean(("chain", "draw")).values
    return float(100 * (1 - means.std(ddof=1) / median)) if means.size > 1 else np.nan
