"""How far are the levels from their predictions? Predictions and residuals, level by level."""

import math

import numpy as np
import xarray as xr

from popk.diagnostics.kinds import are_levels
from popk.diagnostics.levels import same_records
from popk.model.sites import ModelError
from popk.priors import fixed
from popk.residual import (
    ResidualError,
    additive_error,
    combined_error,
    lognormal_error,
    power_error,
    proportional_error,
)
from popk.trial import Trial


def predictions(simulated: xr.DataTree, trial: Trial, *, interval: float = 0.9) -> xr.Dataset:
    """Return each quantified level beside its population and individual prediction.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, seed=...)``, of the same subjects.
    trial : Trial
        The trial that was predicted.
    interval : float
        The probability of the equal-tailed intervals of both predictions.

    Returns
    -------
    Dataset
        ``DV``, and the posterior medians ``PRED`` (random effects of 0) and ``IPRED`` with
        ``PRED_lower``, ``PRED_upper``, ``IPRED_lower`` and ``IPRED_upper``, all (observation) in the
        unit of DV, with ID and TIME. Levels that were not measured or are below the limit of
        quantification are left out, and so are events, categories and counts.

    Raises
    ------
    ModelError
        `simulated` is of new subjects or of another trial, or has no levels.
    ValueError
        The interval is no probability.
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    if int(simulated.attrs.get("new_subjects", 0)):
        raise ModelError(
            "new subjects were simulated, who have no levels of their own; "
            "call popk.predict with new_subjects=False"
        )
    same_records(simulated, trial)
    group, o = simulated["posterior_predictive"].dataset, trial.observations
    seen = np.flatnonzero(_seen(simulated, trial))
    chosen = group[["PRED", "IPRED"]].isel(observation=seen)
    result = chosen.median("sample").assign(DV=("observation", np.asarray(o.value)[seen]))
    ends = {"lower": 0.5 - interval / 2, "upper": 0.5 + interval / 2}
    for name in ("PRED", "IPRED"):
        for end, tail in ends.items():
            result[f"{name}_{end}"] = chosen[name].quantile(tail, "sample").drop_vars("quantile")
    for values in result.data_vars.values():
        values.attrs["units"] = trial.units["DV"]
    result["TIME"].attrs["units"] = trial.units["TIME"]
    return result.assign_attrs(interval=interval)


def _seen(simulated: xr.DataTree, trial: Trial) -> np.ndarray:
    """Return which observations are levels that were quantified."""
    o = trial.observations
    return np.asarray(o.exact) & are_levels(simulated, trial)


def residuals(
    simulated: xr.DataTree, posterior: xr.DataTree, trial: Trial, *, interval: float = 0.9
) -> xr.Dataset:
    r"""Return each quantified level's individual weighted residual, beside its predictions.

    .. math:: \mathrm{IWRES} = (y - f) / s(f)

    at the posterior medians of the individual prediction f, of the residual error's standard
    deviations in s, and of what multiplies them in each subject; on the log scale for a log-normal
    error.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, seed=...)``, of the same subjects.
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial that was predicted.
    interval : float
        The probability of the equal-tailed intervals of both predictions.

    Returns
    -------
    Dataset
        ``IWRES`` (observation), a pure number; ``DV``, and the posterior medians ``PRED`` (random
        effects of 0) and ``IPRED`` with ``PRED_lower``, ``PRED_upper``, ``IPRED_lower`` and
        ``IPRED_upper``, in the unit of DV; with ID and TIME. Residuals that expect the random effects
        rather than being given them are `popk.cwres` and `popk.npde`.

    Raises
    ------
    ModelError
        `simulated` does not fit, or the residual error is none of popk's.
    ValueError
        The interval is no probability.

    Examples
    --------
    >>> popk.residuals(simulated, posterior, trial)["IWRES"].std()  # doctest: +SKIP
    """
    result = predictions(simulated, trial, interval=interval)
    group = posterior["posterior"].dataset
    sigmas = {
        str(name).removeprefix("sigma_"): np.median(values)
        for name, values in group.data_vars.items()
        if str(name).startswith("sigma_")
    }
    error = _error(tuple(sorted(sigmas)))
    level, ipred = result["DV"].values, result["IPRED"].values
    spread = np.asarray(error.spread(ipred, **sigmas)) * _scale(
        group, trial, _seen(simulated, trial)
    )
    # A prediction of 0 has no proportional and no log-normal error: its residual is not a number.
    known = (spread > 0) & ((ipred > 0) | (not error.log))
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.log(level) - np.log(ipred) if error.log else level - ipred
        result["IWRES"] = ("observation", np.where(known, distance / spread, np.nan))
    result["IWRES"].attrs["units"] = "1"
    return result


def _scale(group: xr.Dataset, trial: Trial, seen: np.ndarray) -> np.ndarray | float:
    """Return what multiplies the standard deviation of each level that `predictions` keeps."""
    if "error_scale" not in group:
        return 1.0
    o, scale = trial.observations, group["error_scale"].median(["chain", "draw"])
    if "record" in scale.dims:
        raise ModelError("IWRES needs a scale of the error that is constant in each subject")
    return scale.values[np.asarray(o.subject)[seen]]


def _error(names: tuple[str, ...]) -> ResidualError:
    """Return the residual error model whose standard deviations bear these names."""
    known = {
        ("additive",): additive_error(1.0),
        ("proportional",): proportional_error(1.0),
        ("additive", "proportional"): combined_error(1.0, 1.0),
        ("intercept", "slope"): combined_error(1.0, 1.0, convention="sd"),
        ("coefficient", "exponent"): power_error(1.0, fixed(1.0)),
        ("log",): lognormal_error(1.0),
    }
    if names not in known:
        found = ", ".join(f"sigma_{name}" for name in names) or "no sigma_"
        raise ModelError(
            f"the posterior has {found}; IWRES needs popk.additive_error, proportional_error, "
            f"combined_error, power_error or lognormal_error, and no error model around it"
        )
    return known[names]


def trend(x: np.ndarray, y: np.ndarray, span: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """Return a local linear trend of y along x, at 60 points (LOESS without robust weights).

    Parameters
    ----------
    x, y : Float[ndarray, "point"]
    span : float
        The part of the points that counts at each place, weighted down with distance.

    Returns
    -------
    tuple of Float[ndarray, "60"]
        Where, and the trend there; both empty with fewer than 5 points.

    References
    ----------
    .. [1] Cleveland WS (1979). Robust locally weighted regression and smoothing scatterplots.
       J Am Stat Assoc 74:829-836. doi:10.1080/01621459.1979.10481038
    """
    if x.size < 5 or np.ptp(x) == 0:
        return np.empty(0), np.empty(0)
    at = np.linspace(x.min(), x.max(), 60)
    distance = np.abs(x - at[:, None])
    reach = np.sort(distance, axis=1)[:, min(math.ceil(span * x.size), x.size) - 1, None]
    # Ties may hold more than the span: the reach is never 0.
    weight = np.clip(1 - (distance / np.maximum(reach, 1e-3 * np.ptp(x))) ** 3, 0, None) ** 3
    total = weight.sum(1)
    mean_x, mean_y = (weight @ x) / total, (weight @ y) / total
    off = x - mean_x[:, None]
    spread = (weight * off**2).sum(1)
    slope = (weight * off) @ y / np.where(spread > 0, spread, 1.0)
    return at, mean_y + slope * (at - mean_x)
