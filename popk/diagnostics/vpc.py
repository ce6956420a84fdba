r"""Would the model bring forth data like these? The visual predictive check, in numbers.

In each bin of TIME the percentiles of the observed levels are set against the distribution, over
simulated trials, of the same percentiles of the simulated levels.

References
----------
.. [1] Holford N (2005). The visual predictive check: superiority to standard diagnostic (Rorschach)
   plots. PAGE 14, abstract 738.
.. [2] Bergstrand M, Hooker AC, Wallin JE, Karlsson MO (2011). Prediction-corrected visual
   predictive checks for diagnosing nonlinear mixed-effects models. AAPS J 13:143-151.
   doi:10.1208/s12248-011-9255-z
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from popk.diagnostics.bins import Bins, edges_of, places
from popk.diagnostics.kinds import are_levels
from popk.model.sites import ModelError
from popk.trial import Trial

#: With fewer simulated trials an interval of their percentiles means nothing.
MIN_REPLICATES = 20


class _Levels(NamedTuple):
    """What is compared: measured levels, and simulated ones at the same records.

    Attributes
    ----------
    time : Float[ndarray, "observation"]
    observed : Float[ndarray, "observation"]
        NaN where the level is below or above a limit of quantification.
    simulated : Float[ndarray, "sample observation"]
        NaN where a simulated level would not have been quantified.
    ids : ndarray of str
    """

    time: np.ndarray
    observed: np.ndarray
    simulated: np.ndarray
    ids: np.ndarray


def vpc(
    simulated: xr.DataTree,
    trial: Trial,
    *,
    bins: Bins = None,
    percentiles: Sequence[float] = (5, 50, 95),
    interval: float = 0.9,
    prediction_corrected: bool = False,
) -> xr.Dataset:
    r"""Return observed percentiles of the levels in bins of TIME, and what the model says of them.

    Levels below the limit of quantification are left out, and so are simulated levels that fall
    below the limit of their record; and the same above an upper limit. Events, categories and
    counts are no levels. With prediction correction each level is brought to the typical prediction
    of its bin [2]_,

    .. math:: y^{pc}_{ij} = y_{ij}\,\widetilde{PRED}_{bin} / PRED_{ij}

    which takes out what doses and covariates explain.

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
    percentiles : sequence of float
        Increasing, between 0 and 100.
    interval : float
        The probability of the equal-tailed interval of each percentile over simulated trials.
    prediction_corrected : bool
        Whether levels are brought to the typical prediction of their bin.

    Returns
    -------
    Dataset
        ``observed`` (percentile, bin), and the ``median``, ``lower`` and ``upper`` end over
        simulated trials of the same percentile; coordinates ``center`` (the median TIME of a bin's
        levels), ``left`` and ``right`` of each bin; ``levels`` (bin), how many it has; ``DV``
        (observation), the levels, with ``TIME``, ``ID`` and ``bin_of`` (-1 outside the edges). All
        levels are in the unit of DV.

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, has fewer than 20 draws, or no
        levels.
    ValueError
        The bins, percentiles or interval cannot be used.

    Examples
    --------
    >>> simulated = popk.predict(model, posterior, trial, new_subjects=True, seed=2)
    ... # doctest: +SKIP
    >>> popk.vpc(simulated, trial)["observed"].sel(percentile=50)  # doctest: +SKIP
    """
    _check(simulated, trial, percentiles, interval)
    measured = np.asarray(trial.observations.measured) & are_levels(simulated, trial)
    levels = _levels(simulated, trial, measured)
    seen = ~np.isnan(levels.observed)
    edges = edges_of(levels.time[seen], bins, trial.units["TIME"])
    place = places(levels.time, edges)
    if prediction_corrected:
        typical = simulated["posterior_predictive"].dataset["PRED"].values[:, measured]
        levels = _corrected(levels, typical, place, len(edges) - 1)
    found = _percentiles(levels, place, len(edges) - 1, percentiles)
    tails = [50 - 50 * interval, 50, 50 + 50 * interval]
    lower, median, upper = _over(found[1], tails, axis=0)
    values = {"observed": found[0], "median": median, "lower": lower, "upper": upper}
    result = _dataset(levels, place, edges, values, percentiles)
    unit = {"units": trial.units["DV"]}
    if trial.design.concentrations:
        unit["long_name"] = "Concentration"
    for name in (*values, "DV"):
        result[name].attrs = unit
    for name in ("center", "left", "right", "TIME"):
        result[name].attrs = {"units": trial.units["TIME"]}
    result.attrs = {
        "interval": interval,
        "replicates": levels.simulated.shape[0],
        "prediction_corrected": int(prediction_corrected),
        "levels_left_out": int((~seen | (place < 0)).sum()),
        "trial": trial.host.name,
    }
    return result


def _check(
    simulated: xr.DataTree, trial: Trial, percentiles: Sequence[float], interval: float
) -> None:
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    given = np.asarray(percentiles, dtype=float)
    if given.size == 0 or (np.diff(given) <= 0).any() or given[0] < 0 or given[-1] > 100:
        raise ValueError(f"percentiles are {percentiles}; give increasing numbers from 0 to 100")
    if "posterior_predictive" not in simulated.children:
        raise ModelError(
            "nothing is simulated; give what popk.predict(..., new_subjects=True) returns"
        )
    if not int(simulated.attrs.get("new_subjects", 1)):
        raise ModelError(
            "the same subjects were simulated, not new ones, which hides how much people differ; "
            "call popk.predict with new_subjects=True"
        )
    same_records(simulated, trial)
    replicates = simulated["posterior_predictive"].sizes["sample"]
    if replicates < MIN_REPLICATES:
        raise ModelError(
            f"there are {replicates} simulated trials; predict at least draws={MIN_REPLICATES}"
        )


def same_records(simulated: xr.DataTree, trial: Trial) -> None:
    """Raise ModelError unless predictions are of a trial's own records."""
    group = simulated["posterior_predictive"].dataset
    o = trial.observations
    subject, record = np.asarray(o.subject), np.asarray(o.record)
    same = group.sizes["observation"] == len(subject) and (
        np.array_equal(group["ID"].values.astype(str), np.asarray(trial.ids)[subject])
        and np.allclose(group["TIME"].values, np.asarray(trial.time)[subject, record])
    )
    if not same:
        raise ModelError(
            f"the predictions are of {group.sizes['observation']} records of "
            f"{simulated.attrs.get('trial', 'a trial')}, the trial {trial.host.name} has "
            f"{len(subject)} at other times or of other subjects; predict this trial"
        )


def _levels(simulated: xr.DataTree, trial: Trial, measured: np.ndarray) -> _Levels:
    """Return the levels that count, those that are not known exactly NaN."""
    o, group = trial.observations, simulated["posterior_predictive"].dataset
    _refuse_intervals(trial)
    observed = np.where(o.below | o.above, np.nan, o.value)[measured]
    drawn = group["DV"].transpose("sample", "observation").values[:, measured]
    if not np.isfinite(drawn).all():
        failed = 100 * (1 - np.isfinite(drawn).all(axis=0).mean())
        raise ModelError(
            f"the model has no finite prediction of {failed:.3g}% of the levels in some "
            f"draw; look at these with popk.predict, and tighten vague priors"
        )
    low, high = (
        limits_of(trial, "LLOQ", -np.inf)[measured],
        limits_of(trial, "ULOQ", np.inf)[measured],
    )
    return _Levels(
        time=group["TIME"].values[measured],
        observed=observed,
        simulated=np.where((drawn < low) | (drawn > high), np.nan, drawn),
        ids=group["ID"].values[measured],
    )


def _refuse_intervals(trial: Trial) -> None:
    """Refuse levels known to lie in an interval that does not begin at 0: they have no percentile."""
    o = trial.observations
    inside = np.flatnonzero(o.measured & o.below & o.above & (o.upper > 0))
    if inside.size:
        rows = trial.host.frame[trial.host.frame["EVID"].eq(0)].iloc[inside]
        raise ModelError(
            f"{len(rows)} levels are known to lie in an interval only, the first on row "
            f"{rows['ROW'].iloc[0]}; percentiles of them do not exist: set MDV 1 there for a VPC"
        )


def limits_of(trial: Trial, column: str, none: float) -> np.ndarray:
    """Return each observation's limit of quantification; `none` where there is no limit.

    A record without a limit of its own has the trial's most common one: where only levels below the
    limit carry it, the others were measured with the same assay.
    """
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0)]
    limit = rows[column].to_numpy()
    if column == "ULOQ":  # of an interval from 0 it is no upper limit
        limit = np.where(rows["BLQ"].eq(1), np.nan, limit)
    own, counts = np.unique(limit[~np.isnan(limit)], return_counts=True)
    common = own[counts.argmax()] if own.size else none
    return np.where(np.isnan(limit), common, limit)


def _corrected(levels: _Levels, typical: np.ndarray, place: np.ndarray, count: int) -> _Levels:
    """Return prediction-corrected levels: the observed ones by the median PRED over draws."""
    observed, simulated = levels.observed.copy(), levels.simulated.copy()
    known = np.median(typical, axis=0)
    for i in range(count):
        inside = place == i
        observed[inside] *= _correction(known[inside][None])[0]
        simulated[:, inside] *= _correction(typical[:, inside])
    return levels._replace(observed=observed, simulated=simulated)


def _correction(typical: np.ndarray) -> np.ndarray:
    """Return median PRED over PRED, 1 where nothing is predicted (before the first dose)."""
    middle = np.median(typical, axis=-1, keepdims=True)
    return np.where(typical > 0, middle / np.where(typical > 0, typical, 1.0), 1.0)


def _percentiles(
    levels: _Levels, place: np.ndarray, count: int, percentiles: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return percentiles, observed [percentile, bin] and simulated [sample, percentile, bin]."""
    observed, simulated = [], []
    for i in range(count):
        inside = place == i
        own, drawn = levels.observed[inside], levels.simulated[:, inside]
        observed.append(_over(own, percentiles, axis=0))
        simulated.append(_over(drawn, percentiles, axis=1).T)
    return np.stack(observed, axis=-1), np.stack(simulated, axis=-1)


def _over(values: np.ndarray, percentiles: Sequence[float], *, axis: int) -> np.ndarray:
    """Return percentiles of what is not NaN; NaN where nothing is left."""
    if not np.isnan(values).any():  # by far the faster function
        return np.percentile(values, percentiles, axis=axis)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanpercentile(values, percentiles, axis=axis)


def _dataset(
    levels: _Levels,
    place: np.ndarray,
    edges: np.ndarray,
    values: dict[str, np.ndarray],
    percentiles: Sequence[float],
) -> xr.Dataset:
    shown = ~np.isnan(levels.observed)
    inside = [place[shown] == i for i in range(len(edges) - 1)]
    time = levels.time[shown]
    return xr.Dataset(
        {
            **{name: (("percentile", "bin"), array) for name, array in values.items()},
            "levels": ("bin", np.array([own.sum() for own in inside])),
            "DV": ("observation", levels.observed[shown]),
        },
        coords={
            "percentile": np.asarray(percentiles, dtype=float),
            "bin": np.arange(len(edges) - 1),
            "left": ("bin", edges[:-1]),
            "right": ("bin", edges[1:]),
            "center": ("bin", np.array([np.median(time[own]) for own in inside])),
            "ID": ("observation", levels.ids[shown]),
            "TIME": ("observation", time),
            "bin_of": ("observation", place[shown]),
        },
    )
