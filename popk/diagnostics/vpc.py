r"""Would the model bring forth data like these? The visual predictive check, in numbers.

In each bin of TIME, or around each moment, the percentiles of the observed levels are set against the
distribution, over simulated trials, of the same percentiles of the simulated levels.

References
----------
.. [1] Holford N (2005). The visual predictive check: superiority to standard diagnostic (Rorschach)
   plots. PAGE 14, abstract 738.
.. [2] Bergstrand M, Hooker AC, Wallin JE, Karlsson MO (2011). Prediction-corrected visual
   predictive checks for diagnosing nonlinear mixed-effects models. AAPS J 13:143-151.
   doi:10.1208/s12248-011-9255-z
.. [3] Lavielle M, Bleakley K (2011). Automatic data binning for improved visual diagnosis of
   pharmacometric models. J Pharmacokinet Pharmacodyn 38:861-871. doi:10.1007/s10928-011-9223-3
.. [4] Jamsen KM, Patel K, Nieforth K, Kirkpatrick CMJ (2018). A regression approach to visual
   predictive checks for population pharmacometric models. CPT Pharmacometrics Syst Pharmacol
   7:678-686. doi:10.1002/psp4.12319
.. [5] Bergstrand M, Karlsson MO (2009). Handling data below the limit of quantification in mixed
   effect models. AAPS J 11:371-380. doi:10.1208/s12248-009-9112-5
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from popk.diagnostics.bins import Bins, edges_of
from popk.diagnostics.levels import Levels, compared
from popk.diagnostics.percentiles import Binned, Local, over
from popk.diagnostics.strata import strata_of
from popk.trial import Trial

_OF_BINS = ("left", "right", "center", "stratum", "percentile")


class _Asked(NamedTuple):
    """What a visual predictive check is to show; see `vpc`."""

    bins: Bins
    smooth: float | None
    percentiles: Sequence[float]
    interval: float
    prediction_corrected: bool
    blq: str
    unit: str


def vpc(
    simulated: xr.DataTree,
    trial: Trial,
    *,
    bins: Bins = None,
    smooth: float | None = None,
    percentiles: Sequence[float] = (5, 50, 95),
    interval: float = 0.9,
    prediction_corrected: bool = False,
    blq: Literal["omit", "censor"] = "omit",
    stratify: str | None = None,
) -> xr.Dataset:
    r"""Return observed percentiles of the levels in bins of TIME, and what the model says of them.

    Levels below the limit of quantification are left out, and so are simulated levels that fall
    below the limit of their record; and the same above an upper limit. Events, categories and
    counts are no levels (`vpc_categories`). With prediction correction each level is brought to the
    typical prediction of its bin [2]_,

    .. math:: y^{pc}_{ij} = y_{ij}\,\widetilde{PRED}_{bin} / PRED_{ij}

    which takes out what doses and covariates explain. With `smooth` there are no bins: percentiles are
    those of the levels near each moment, weighted by how near they are, of observed and simulated
    levels alike [4]_.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, new_subjects=True, seed=...)``.
    trial : Trial
        The trial that was simulated.
    bins : int or sequence of float, optional
        The number of bins with about as many levels each, or the edges [unit of TIME]; a level on
        an inner edge is in the later bin, levels outside the edges are left out. By default the
        sampling times: clusters of TIME, each normal with its own spread, that are most probable by
        the Bayesian information criterion [3]_. Where times form no clusters (the bins would cover
        half of the time), 3 to 12 bins of at least about 20 levels.
    smooth : float, optional
        The part of the levels that counts at each moment, such as 0.3; in the place of `bins`. It is
        meant for times that form no clusters: across a gap between two sampling times it bends from one
        to the other.
    percentiles : sequence of float
        Increasing, between 0 and 100.
    interval : float
        The probability of the equal-tailed interval of each percentile over simulated trials.
    prediction_corrected : bool
        Whether levels are brought to the typical prediction of their bin.
    blq : "omit" or "censor"
        What is done with levels beyond a limit, observed and simulated: they are left out, or stand at
        their limit, so that a percentile that falls among them is the limit [5]_.
    stratify : str, optional
        A covariate, or a column such as DVID or CMT, with at most 8 different values: each has a
        check of its own.

    Returns
    -------
    Dataset
        ``observed`` (percentile, bin), and the ``median``, ``lower`` and ``upper`` end over
        simulated trials of the same percentile; coordinates ``center`` (the median TIME of a bin's
        levels), ``left`` and ``right`` of each bin; ``levels`` (bin), how many it has; ``DV``
        (observation), the levels, with ``TIME``, ``ID`` and ``bin_of`` (-1 outside the edges). All
        levels are in the unit of DV. Where the trial has a limit of quantification,
        ``below_observed``, ``below_median``, ``below_lower`` and ``below_upper`` (bin): the part of all
        measured levels that are below it. With `smooth` a bin is a moment. With `stratify`, bins and
        observations of all strata follow one another, ``stratum`` (bin) and ``stratum_of``
        (observation).

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, has fewer than 20 draws, or no
        levels.
    ValueError
        The bins, percentiles, interval or options cannot be used, or not together; or there is no such
        column, or it has too many values.

    Examples
    --------
    >>> simulated = popk.predict(model, posterior, trial, new_subjects=True, seed=2)
    ... # doctest: +SKIP
    >>> popk.vpc(simulated, trial)["observed"].sel(percentile=50)  # doctest: +SKIP
    """
    unit = trial.units["TIME"]
    asked = _Asked(bins, smooth, percentiles, interval, prediction_corrected, blq, unit)
    check_percentiles(percentiles, interval)
    _check(asked)
    levels = compared(simulated, trial)
    typical = simulated["posterior_predictive"].dataset["PRED"].values[:, levels.chosen]
    if stratify is None:
        result = _checked(levels, typical, asked)
    else:
        each = []
        for name, own in strata_of(trial, stratify, levels.chosen).items():
            part = _checked(_part(levels, own), typical[:, own], asked)
            bins_of = ("bin", [name] * part.sizes["bin"])
            rows_of = ("observation", [name] * part.sizes["observation"])
            each.append(part.assign_coords(stratum=bins_of, stratum_of=rows_of))
        result = _joined(each)
    return _described(result, trial, levels, asked, stratify)


def check_percentiles(percentiles: Sequence[float], interval: float) -> None:
    """Raise ValueError unless percentiles increase and an interval has a probability."""
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    given = np.asarray(percentiles, dtype=float)
    if given.size == 0 or (np.diff(given) <= 0).any() or given[0] < 0 or given[-1] > 100:
        raise ValueError(f"percentiles are {percentiles}; give increasing numbers from 0 to 100")


def _check(asked: _Asked) -> None:
    if asked.blq not in ("omit", "censor"):
        raise ValueError(f"blq is {asked.blq!r}; write 'omit' or 'censor'")
    if asked.blq == "censor" and asked.prediction_corrected:
        raise ValueError(
            "blq='censor' was given with prediction_corrected=True, but a limit that is corrected is no "
            "limit any more; take one of the two"
        )
    if asked.smooth is None:
        return
    if asked.bins is not None:
        raise ValueError("bins= and smooth= were both given; take one of the two")
    if not 0 < asked.smooth <= 1:
        raise ValueError(f"smooth is {asked.smooth}; give a part of the levels, such as 0.3")


def _part(levels: Levels, own: np.ndarray) -> Levels:
    """Return some of the levels."""
    rest = {n: x[..., own] for n, x in levels._asdict().items() if n != "chosen"}
    return levels._replace(**rest)


def _checked(levels: Levels, typical: np.ndarray, asked: _Asked) -> xr.Dataset:
    """Return the check of some levels."""
    inside = (levels.simulated >= levels.low) & (levels.simulated <= levels.high)
    seen = ~np.isnan(levels.observed)
    observed, drawn = levels.observed, np.where(inside, levels.simulated, np.nan)
    counted = seen
    if asked.blq == "censor":
        observed = np.where(levels.below, levels.low, np.where(levels.above, levels.high, observed))
        drawn = np.clip(levels.simulated, levels.low, levels.high)
        counted = np.ones_like(seen)
    if asked.smooth is None:
        edges = edges_of(levels.time[counted], asked.bins, asked.unit)
        along: Binned | Local = Binned(levels.time, counted, edges)
    else:
        edges_of(levels.time[counted], 1, asked.unit)  # refuses no levels at all
        along = Local(levels.time, counted, asked.smooth)
    if asked.prediction_corrected:
        known = np.median(typical, axis=0)
        observed = observed * _correction(known, along.typical(known))
        drawn = drawn * _correction(typical, along.typical(typical))
    values = {"observed": along.percentiles(observed, asked.percentiles)}
    values |= _summed(along.percentiles(drawn, asked.percentiles), asked.interval)
    result = _dataset(levels, np.where(seen, observed, np.nan), along, values, asked.percentiles)
    if np.isfinite(levels.low).any():
        below = _summed(along.mean((levels.simulated < levels.low) * 1.0), asked.interval)
        below["observed"] = along.mean(levels.below * 1.0)
        result = result.assign({f"below_{n}": ("bin", x) for n, x in below.items()})
    return result


def _correction(typical: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Return median PRED over PRED, 1 where nothing is predicted (before the first dose)."""
    return np.where(typical > 0, middle / np.where(typical > 0, typical, 1.0), 1.0)


def _summed(found: np.ndarray, interval: float) -> dict[str, np.ndarray]:
    """Return median and interval over the last axis, simulated trials."""
    tails = [50 - 50 * interval, 50, 50 + 50 * interval]
    return dict(zip(("lower", "median", "upper"), over(found, tails, axis=-1), strict=True))


def _dataset(
    levels: Levels, observed: np.ndarray, along: Binned | Local, values: dict[str, np.ndarray],
    percentiles: Sequence[float],
) -> xr.Dataset:  # fmt: skip
    shown = ~np.isnan(observed)
    return xr.Dataset(
        {
            **{name: (("percentile", "bin"), array) for name, array in values.items()},
            "levels": ("bin", along.levels),
            "DV": ("observation", observed[shown]),
        },
        coords={
            "percentile": np.asarray(percentiles, dtype=float),
            "bin": np.arange(len(along.left)),
            "left": ("bin", along.left),
            "right": ("bin", along.right),
            "center": ("bin", along.center),
            "ID": ("observation", levels.ids[shown]),
            "TIME": ("observation", levels.time[shown]),
            "bin_of": ("observation", along.place[shown]),
        },
    )


def _joined(each: list[xr.Dataset]) -> xr.Dataset:
    """Return checks of strata one after another; `bin_of` counts on."""
    begin, shifted = 0, []
    for one in each:
        place = one["bin_of"].values
        one = one.assign_coords(bin_of=("observation", np.where(place < 0, -1, place + begin)))
        shifted.append(one.drop_vars("bin"))
        begin += one.sizes["bin"]
    rows = xr.concat(
        [one[["DV"]].drop_vars(_OF_BINS, errors="ignore") for one in shifted], "observation"
    )
    rest = [one.drop_dims("observation") for one in shifted]
    joined = xr.concat(rest, "bin", data_vars="minimal").merge(rows)
    return joined.assign_coords(bin=np.arange(begin))


def _described(
    result: xr.Dataset, trial: Trial, levels: Levels, asked: _Asked, stratify: str | None
) -> xr.Dataset:
    """Return a check with units and how it was made."""
    unit = {"units": trial.units["DV"]}
    if trial.design.concentrations:
        unit["long_name"] = "Concentration"
    for name in ("observed", "median", "lower", "upper", "DV"):
        result[name].attrs = unit
    for name in ("center", "left", "right", "TIME"):
        result[name].attrs = {"units": trial.units["TIME"]}
    result.attrs = {
        "interval": asked.interval,
        "replicates": levels.simulated.shape[0],
        "prediction_corrected": int(asked.prediction_corrected),
        "levels_left_out": len(levels.time) - int((result["bin_of"] >= 0).sum()),
        "trial": trial.host.name,
        "blq": asked.blq,
        "smooth": asked.smooth or 0.0,
        "stratify": stratify or "",
    }
    return result
