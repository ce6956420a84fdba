r"""Would the model bring forth exposures like these? Posterior predictive checks of AUC, Cmax and others.

The same noncompartmental analysis is made of the observed levels and of each simulated trial, at the same
times and with the same limits of quantification; a statistic T of the observed levels y is set against
that of simulated ones [1]_ [2]_,

.. math:: p = P(T(y^{rep}) > T(y) \mid y) + P(T(y^{rep}) = T(y) \mid y)/2

References
----------
.. [1] Gelman A, Meng XL, Stern H (1996). Posterior predictive assessment of model fitness via realized
   discrepancies. Stat Sin 6:733-807.
.. [2] Yano Y, Beal SL, Sheiner LB (2001). Evaluating pharmacokinetic/pharmacodynamic models using the
   posterior predictive check. J Pharmacokinet Pharmacodyn 28:171-192. doi:10.1023/A:1011555016423
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from popk.diagnostics.levels import MIN_REPLICATES, limits_of, same_records
from popk.model.sites import ModelError
from popk.noncompartmental.analysis import levels_of
from popk.noncompartmental.areas import METHODS
from popk.noncompartmental.curves import curve_of, rules_of
from popk.noncompartmental.parameters import analyzed, parameters
from popk.noncompartmental.profiles import Profile, Routes, profiles_of
from popk.noncompartmental.quantities import units_of
from popk.trial import Trial

#: What is compared, of what the levels say.
STATISTICS = ("AUC_last", "AUC_inf", "AUC_tau", "Cmax", "tmax", "Ctrough", "half_life")
SUMMARIES = ("median", "sd")


class _Levels(NamedTuple):
    """Levels that are compared.

    Attributes
    ----------
    observed, observed_limit : Float[ndarray, "observation"]
        NaN, and the limit, where a level is below it.
    simulated : Float[ndarray, "sample observation"]
    limit : Float[ndarray, "observation"]
        Below which a simulated level would not have been quantified.
    """

    observed: np.ndarray
    observed_limit: np.ndarray
    simulated: np.ndarray
    limit: np.ndarray


def exposure_check(
    simulated: xr.DataTree,
    trial: Trial,
    *,
    route: Routes = None,
    statistics: Sequence[str] = STATISTICS,
    interval: float = 0.9,
    method: str = "lin-up/log-down",
    blq: Mapping[str, str | float] | None = None,
    steady_state: bool = False,
    DVID: int | None = None,
    CMT: int | None = None,
) -> xr.Dataset:
    """Return observed exposures beside what the model says of them, with posterior predictive p-values.

    A simulated level below the limit of quantification, or below 0, is treated as an observed one would
    be. A p-value near 0 is of an observed statistic above nearly all simulated ones, near 1 of one
    below. Where the same subjects are simulated their levels were used for the fit, so that p-values
    of a right model lie closer to 0.5 than uniform ones do [1]_; those of new subjects are uniform but
    for what the population values took from the levels.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, seed=...)``, of the same subjects or of new ones.
    trial : Trial
        The trial that was predicted.
    route : "bolus", "extravascular" or mapping of int to these
        What doses with RATE 0 are, as in `popk.nca`.
    statistics : sequence of str
        Any parameters of `popk.nca`; those that no subject has are left out.
    interval : float
        The probability of the equal-tailed interval over simulated trials.
    method, blq, steady_state
        As in `popk.nca`.
    DVID, CMT : int, optional
        Which levels, where there are several kinds.

    Returns
    -------
    Dataset
        ``observed``, the ``median``, ``lower`` and ``upper`` end over simulated trials, ``p_value``,
        and ``defined``, the share of simulated trials that have the statistic: each (statistic,
        subject), with an axis ``interval`` where a subject has several dosing intervals with levels.
        ``observed_summary``, ``p_value_summary`` and so on (summary, statistic), and
        ``simulated_summary`` (sample, summary, statistic): the median and the standard deviation over
        subjects. The coordinate ``unit`` gives the unit of each statistic.

    Raises
    ------
    ModelError
        `simulated` is of another trial, has fewer than 20 draws, or a level that is no number.
    DataError
        The trial cannot be analyzed, see `popk.nca`.
    ValueError
        An option cannot be used, or no statistic is defined.

    References
    ----------
    .. [1] Meng XL (1994). Posterior predictive p-values. Ann Stat 22:1142-1160.
       doi:10.1214/aos/1176325622

    Examples
    --------
    >>> simulated = popk.predict(model, posterior, trial, seed=2)  # doctest: +SKIP
    >>> check = popk.exposure_check(simulated, trial, route="extravascular")  # doctest: +SKIP
    >>> check["p_value"].sel(statistic="Cmax")  # doctest: +SKIP
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    unit, rules = units_of(trial), rules_of(blq)
    if unknown := [name for name in statistics if name not in unit]:
        raise ValueError(f"statistics has {', '.join(unknown)}; use parameters of popk.nca")
    counted, observed, limit = levels_of(trial, DVID, CMT)
    levels = _levels(simulated, trial, counted, observed, limit)
    followed = profiles_of(trial, counted, route, steady_state)
    factor = float(trial.concentration_factor)
    shape = (len(statistics), trial.n_subjects, max(len(x) for x in followed.values()))
    known = np.full(shape, np.nan)
    drawn = np.full((len(levels.simulated), *shape), np.nan)
    for i, profiles in enumerate(followed.values()):
        for j, profile in enumerate(profiles):
            known[:, i, j], drawn[:, :, i, j] = _compared(
                profile, levels, statistics, lambda p, c: parameters(analyzed(p, c, method, factor)), rules
            )  # fmt: skip
    kept = np.isfinite(known).any(axis=(1, 2))
    if not kept.any():
        raise ValueError(f"no subject has any of {', '.join(statistics)}; popk.nca tells why")
    names = [name for name, one in zip(statistics, kept, strict=True) if one]
    result = _dataset(trial, names, known[kept], drawn[:, kept], interval)
    result = result.assign_coords(unit=("statistic", [unit[name] for name in names]))
    result.attrs = {
        "interval": interval, "replicates": len(drawn), "method": method, "trial": trial.host.name,
        "new_subjects": int(simulated.attrs.get("new_subjects", 0)),
    }  # fmt: skip
    return result


def _levels(
    simulated: xr.DataTree,
    trial: Trial,
    counted: np.ndarray,
    observed: np.ndarray,
    limit: np.ndarray,
) -> _Levels:
    """Return observed and simulated levels, checked."""
    if "posterior_predictive" not in simulated.children:
        raise ModelError("nothing is simulated; give what popk.predict(...) returns")
    same_records(simulated, trial)
    group = simulated["posterior_predictive"].dataset
    drawn = group["DV"].transpose("sample", "observation").values
    if len(drawn) < MIN_REPLICATES:
        raise ModelError(
            f"there are {len(drawn)} simulated trials; predict at least draws={MIN_REPLICATES}"
        )
    if not np.isfinite(drawn[:, counted]).all():
        raise ModelError(
            "the model has no finite prediction of some levels in some draw; look at these with "
            "popk.predict, and tighten vague priors"
        )
    return _Levels(observed, limit, drawn, np.maximum(limits_of(trial, "LLOQ", 0.0), 0.0))


def _compared(
    profile: Profile, levels: _Levels, statistics: Sequence[str], analysis: Any, rules: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return one profile's statistics, observed [statistic] and simulated [sample, statistic]."""
    at = profile.observation
    found = []
    for level, limit in (
        (levels.observed[None, at], levels.observed_limit[at]),
        (levels.simulated[:, at], levels.limit[at]),
    ):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = analysis(profile, curve_of(profile, level, limit, rules))
        none = np.full(len(level), np.nan)
        found.append(np.stack([values.get(name, none) for name in statistics], axis=-1))
    return found[0][0], np.where(np.isfinite(found[1]), found[1], np.nan)


def _dataset(
    trial: Trial, names: list[str], known: np.ndarray, drawn: np.ndarray, interval: float
) -> xr.Dataset:
    """Return the comparison of statistics [statistic, subject, interval] and their summaries."""
    asked = np.isfinite(known)
    with_them = np.where(asked, drawn, np.nan)
    summary = np.stack([f(known, 1) for f in (_median, _sd)])
    replicated = np.stack([f(with_them, 2) for f in (_median, _sd)], axis=1)
    each, over = ("statistic", "subject", "interval"), ("summary", "statistic", "interval")
    data = {
        **{n: (each, x) for n, x in _against(known, with_them, interval).items()},
        **{f"{n}_summary": (over, x) for n, x in _against(summary, replicated, interval).items()},
        "simulated_summary": (("sample", *over), replicated),
    }
    coords = {
        "statistic": names,
        "subject": list(trial.ids),
        "interval": np.arange(1, known.shape[2] + 1),
        "summary": list(SUMMARIES),
    }
    made = xr.Dataset(data, coords=coords)
    return made.isel(interval=0, drop=True) if known.shape[2] == 1 else made


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    return _quantiles(np.moveaxis(values, axis, 0), [0.5])[0]


def _sd(values: np.ndarray, axis: int) -> np.ndarray:
    """Return standard deviations of what is not NaN; NaN of fewer than two."""
    count = np.isfinite(values).sum(axis)
    mean = np.nansum(values, axis) / np.maximum(count, 1)
    squares = np.nansum((values - np.expand_dims(mean, axis)) ** 2, axis)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def _quantiles(values: np.ndarray, q: Sequence[float]) -> np.ndarray:
    """Return quantiles [q, ...] over the first axis of what is not NaN; NaN where nothing is."""
    if not np.isnan(values).any():
        return np.quantile(values, q, axis=0)
    ordered = np.sort(values, axis=0)  # NaN go to the end: np.nanquantile is slow
    count = np.isfinite(values).sum(axis=0)
    place = np.asarray(q).reshape(-1, *[1] * count.ndim) * np.maximum(count - 1, 0)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    first, second = (np.take_along_axis(ordered, x, axis=0) for x in (low, high))
    return first + (place - low) * (second - first)


def _against(known: np.ndarray, drawn: np.ndarray, interval: float) -> dict[str, np.ndarray]:
    """Return observed statistics, their place among simulated ones [sample, ...], and these."""
    lower, median, upper = _quantiles(drawn, [(1 - interval) / 2, 0.5, (1 + interval) / 2])
    defined = np.isfinite(drawn)
    count = np.maximum(defined.sum(axis=0), 1)
    above = ((drawn > known) & defined).sum(axis=0) + ((drawn == known) & defined).sum(axis=0) / 2
    p = np.where(np.isfinite(known) & defined.any(axis=0), above / count, np.nan)
    return {
        "observed": known, "median": median, "lower": lower, "upper": upper, "p_value": p,
        "defined": np.where(np.isfinite(known), defined.mean(axis=0), np.nan),
    }  # fmt: skip
