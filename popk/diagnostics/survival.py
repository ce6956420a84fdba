r"""Would the model bring forth events like these? Kaplan and Meier's curve against simulated ones.

References
----------
.. [1] Kaplan EL, Meier P (1958). Nonparametric estimation from incomplete observations. J Am Stat
   Assoc 53:457-481. doi:10.1080/01621459.1958.10501452
.. [2] Holford N (2013). A time to event tutorial for pharmacometricians. CPT Pharmacometrics Syst
   Pharmacol 2:e43. doi:10.1038/psp.2013.18
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from popk.diagnostics.kinds import endpoints_of, in_group
from popk.diagnostics.levels import MIN_REPLICATES
from popk.model.outcomes import of_kinds
from popk.model.sites import ModelError
from popk.trial import ASK, Trial

#: With fewer moments at which all who are followed up have a record there is no curve to compare.
MIN_TIMES = 5


class Curve(NamedTuple):
    """Kaplan and Meier's estimate at the times at which somebody has an event or leaves.

    Attributes
    ----------
    time, survival : Float[ndarray, "time"]
    variance : Float[ndarray, "time"]
        Greenwood's, of the logarithm of the survival.
    at_risk, events, censored : Int[ndarray, "time"]
    """

    time: np.ndarray
    survival: np.ndarray
    variance: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    censored: np.ndarray


class _Followed(NamedTuple):
    """What becomes of simulated subjects.

    Attributes
    ----------
    grid : Float[ndarray, "followed"]
        The times at which all who are followed up have a record, after 0.
    when : Float[ndarray, "sample subject"]
        The time of the event, or of the last record.
    had : Bool[ndarray, "sample subject"]
        Whether there was an event.
    """

    grid: np.ndarray
    when: np.ndarray
    had: np.ndarray


def follow_up(
    trial: Trial, times: Iterable[float], *, DVID: int | None = None, CMT: int | None = None
) -> Trial:
    """Return the trial with further records (MDV 1) at which simulated events are looked for.

    A simulated event is seen at the first record at or after it, and a trial has few: often one a
    subject. `kaplan_meier` needs the same times for all; it censors the simulated subjects itself.

    Parameters
    ----------
    trial : Trial
    times : iterable of float
        As ``np.linspace(1, 60, 60)``, up to the end of the study [unit of TIME].
    DVID, CMT : int, optional
        Which records are those of the events; all observations by default.

    Raises
    ------
    ValueError
        No times, or one that is not finite or not above 0; no record of this kind; or TIME that
        goes back within a subject.

    Examples
    --------
    >>> followed = popk.follow_up(trial, np.linspace(1, 60, 60), DVID=2)  # doctest: +SKIP
    >>> simulated = popk.predict(model, posterior, followed, new_subjects=True, seed=2)
    ... # doctest: +SKIP
    >>> popk.plots.kaplan_meier(popk.kaplan_meier(simulated, trial))  # doctest: +SKIP
    """
    wanted = np.unique(np.asarray(list(times), dtype=float))
    if not wanted.size or not np.isfinite(wanted).all() or wanted[0] <= 0:
        raise ValueError(f"times are {wanted.tolist()}; give finite times above 0")
    frame = trial.host.frame
    own = frame["EVID"].eq(0) & frame["MDV"].eq(0)
    own &= (DVID is None) | frame["DVID"].eq(DVID)
    own &= (CMT is None) | frame["CMT"].abs().eq(CMT)
    if not own.any():
        raise ValueError(
            f"the trial has no record of events with DVID {DVID} and CMT {CMT}; say DVID= or CMT= as in "
            f"the popk.observe() that has time_to_event()"
        )
    parts = [
        _followed(part, part[own[part.index]], wanted)
        for _, part in frame.groupby("ID", sort=False)
    ]
    dense = pd.concat(parts, ignore_index=True)
    return trial.replaced(dense.astype({name: frame[name].dtype for name in frame}))


def _followed(part: pd.DataFrame, own: pd.DataFrame, times: np.ndarray) -> pd.DataFrame:
    """Return one subject's records with those in between."""
    clock = part["TIME"].to_numpy()
    if (np.diff(clock) < 0).any():
        raise ValueError(
            f"TIME goes back in ID {part['ID'].iloc[0]}; events need one clock for each subject"
        )
    if own.empty:
        return part
    last = own.iloc[-1]
    after = np.searchsorted(clock, times, side="left")
    # Covariates hold backward: a record has those of the next one, or of the last.
    like = part.iloc[np.minimum(after, len(part) - 1)]
    rows = like.assign(**ASK, TIME=times, DVID=last["DVID"], CMT=abs(last["CMT"]))
    place = np.concatenate([np.arange(len(part)), after - 0.5])
    return pd.concat([part, rows]).iloc[np.argsort(place, kind="stable")]


def kaplan_meier(
    simulated: xr.DataTree,
    trial: Trial,
    *,
    output: str | None = None,
    event: int = 1,
    percentiles: Sequence[float] = (5, 50, 95),
    interval: float = 0.95,
    seed: int = 1,
) -> xr.Dataset:
    r"""Return the share of subjects without an event, as observed and as the model simulates it.

    .. math:: \hat S(t) = \prod_{t_i \le t} \left(1 - \frac{d_i}{n_i}\right), \qquad
        \hat V = \sum_{t_i \le t} \frac{d_i}{n_i (n_i - d_i)}

    with d of n subjects at risk having the event at each time [1]_. Confidence limits are
    :math:`\hat S^{\exp(\pm z \sqrt{\hat V} / \log \hat S)}`, from Greenwood's variance of
    :math:`\log \hat S` on the scale of :math:`\log(-\log \hat S)` [2]_. The same curve is made of
    each simulated trial, whose subjects are censored as the observed ones were: one who was censored
    is so at the same time, one who had the event at a time drawn from the curve of censoring
    beyond it. Were they followed up to the end instead, who had an event, and so is likely to have
    one again, would be at risk for longer than others.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, popk.follow_up(trial, times), new_subjects=True, seed=...)``.
    trial : Trial
        The trial with the observed events; ``trial[ids]`` of one arm compares that arm.
    output : str, optional
        Which of a model's events, where it observes several kinds.
    event : int
        Whose time is counted where events come again: 1 for the first.
    percentiles : sequence of float
        Over simulated trials, between 0 and 100.
    interval : float
        The probability of the observed curve's confidence limits.
    seed : int
        Of the times at which simulated subjects are censored.

    Returns
    -------
    Dataset
        ``observed`` (time) with ``lower`` and ``upper``, ``at_risk``, ``events`` and ``censored``;
        ``predicted`` (percentile, followed) at the times at which all simulated subjects who are
        followed up have a record. Shares are fractions. An event that is only known to lie
        between two records stands at the later one.

    Raises
    ------
    ModelError
        `simulated` has no such events, is not of new subjects, of fewer than 20 draws or of other
        IDs, or follows subjects up at fewer than 5 times.
    ValueError
        The interval, the percentiles or the number of the event cannot be used.

    References
    ----------
    .. [1] Kaplan EL, Meier P (1958). Nonparametric estimation from incomplete observations. J Am Stat
       Assoc 53:457-481. doi:10.1080/01621459.1958.10501452
    .. [2] Greenwood M (1926). The natural duration of cancer. Reports on Public Health and Medical
       Subjects 33:1-26.
    """
    given = np.asarray(percentiles, dtype=float)
    if not 0 < interval < 1 or event < 1 or not given.size or given.min() < 0 or given.max() > 100:
        raise ValueError(
            f"interval is {interval}, event {event}, percentiles {percentiles}; give a probability, a "
            f"number from 1, and numbers from 0 to 100"
        )
    kinds = _kinds(simulated, output)
    seen = np.flatnonzero(of_kinds(trial, kinds) & np.asarray(trial.observations.measured))
    if not seen.size:
        raise ModelError("the trial has no record of these events with MDV 0")
    o = trial.observations
    ids = np.asarray(trial.ids)[np.asarray(o.subject)[seen]]
    time = np.asarray(trial.time)[np.asarray(o.subject), np.asarray(o.record)][seen]
    who = list(dict.fromkeys(ids))
    when, had = (x[0] for x in _times(ids, time, np.asarray(o.value)[seen][None], who, event))
    curve, followed = _curve(when, had), _simulated(simulated, kinds, who, event)
    left = _censored(when, had, len(followed.when), np.random.default_rng(seed))
    cut = np.minimum(followed.when, left), followed.had & (followed.when <= left)
    predicted = np.stack([_at(_curve(*one), followed.grid) for one in zip(*cut, strict=True)])
    shares = np.percentile(predicted, given, axis=0)
    return _dataset(curve, followed.grid, shares, given, trial).assign_attrs(
        interval=interval, event=event, replicates=len(predicted), subjects=len(who)
    ).assign(_limits(curve, interval))  # fmt: skip


def _kinds(simulated: xr.DataTree, output: str | None) -> list[tuple[int, int]]:
    """Return the kinds of the records of an output's events."""
    if "posterior_predictive" not in simulated.children:
        raise ModelError(
            "nothing is simulated; give what popk.predict(..., new_subjects=True) returns"
        )
    have = {n: e["kinds"] for n, e in endpoints_of(simulated).items() if e["name"] == "events"}
    name = next(iter(have)) if output is None and len(have) == 1 else output or ""
    if name not in have:
        named = ", ".join(repr(n) for n in have) or "none"
        raise ModelError(f"output is {output!r}; the model's outputs of events are: {named}")
    if not int(simulated.attrs.get("new_subjects", 1)):
        raise ModelError(
            "the same subjects were simulated, not new ones, whose random effects know when their "
            "events were; call popk.predict with new_subjects=True"
        )
    replicates = simulated["posterior_predictive"].sizes["sample"]
    if replicates < MIN_REPLICATES:
        raise ModelError(
            f"there are {replicates} simulated trials; predict at least draws={MIN_REPLICATES}"
        )
    return [(cmt, dvid) for cmt, dvid in have[name]]


def _simulated(
    simulated: xr.DataTree, kinds: list[tuple[int, int]], who: list[str], event: int
) -> _Followed:
    """Return when simulated subjects have the event."""
    group = simulated["posterior_predictive"].dataset
    ids = group["ID"].values.astype(str)
    chosen = np.flatnonzero(in_group(group, kinds) & np.isin(ids, who))
    ids, time = ids[chosen], group["TIME"].values[chosen]
    lacking = [one for one in who if one not in set(ids)]
    if lacking:
        raise ModelError(
            f"no events of ID {', '.join(lacking[:5])} were simulated; predict this trial"
        )
    drawn = group["DV"].transpose("sample", "observation").values[:, chosen]
    if not np.isfinite(drawn).all():
        raise ModelError(
            "some simulated event is no number: a cumulative hazard falls or is none; look at IPRED "
            "of popk.predict, and tighten vague priors"
        )
    grid = _common(ids, time, who)
    return _Followed(np.insert(grid, 0, 0.0), *_times(ids, time, drawn, who, event))


def _censored(when: np.ndarray, had: np.ndarray, samples: int, draw: Any) -> np.ndarray:
    """Return when simulated subjects are censored [sample, subject]."""
    # The curve of those not yet censored, which events cut short.
    curve = _curve(when, ~had)
    uniform = draw.uniform(size=(samples, len(when))) * _at(curve, when)
    place = np.searchsorted(-curve.survival, -uniform)
    return np.where(had, np.append(curve.time, np.inf)[place], when)


def _common(ids: np.ndarray, time: np.ndarray, who: list[str]) -> np.ndarray:
    """Return the times at which all who are still followed up have a record."""
    grid = np.unique(time[time > 0])
    for one in who:
        own = time[ids == one]
        grid = grid[np.isin(grid, own) | (grid > own.max())]
    if grid.size < MIN_TIMES:
        raise ModelError(
            f"the predictions follow all subjects up at {grid.size} common times, too few for a curve; "
            f"predict popk.follow_up(trial, times), with its DVID= or CMT="
        )
    return grid


def _times(
    ids: np.ndarray, time: np.ndarray, drawn: np.ndarray, who: list[str], event: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return when each subject had its n-th event or was last seen, and which [sample, subject]."""
    when, had = [], []
    for one in who:
        own = ids == one
        reached = np.cumsum(drawn[:, own], axis=1) >= event
        seen = reached.any(axis=1)
        when.append(np.where(seen, time[own][reached.argmax(axis=1)], time[own][-1]))
        had.append(seen)
    return np.stack(when, axis=1), np.stack(had, axis=1)


def _curve(time: np.ndarray, had: np.ndarray) -> Curve:
    """Return Kaplan and Meier's estimate; who is censored at an event's time was at risk of it."""
    times, place = np.unique(time, return_inverse=True)
    events = np.bincount(place, had, len(times)).astype(int)
    leaving = np.bincount(place, minlength=len(times))
    at_risk = len(time) - np.cumsum(leaving) + leaving
    left = at_risk - events
    with np.errstate(divide="ignore"):
        variance = np.cumsum(np.where(events > 0, events / (at_risk * left.astype(float)), 0.0))
    return Curve(times, np.cumprod(left / at_risk), variance, at_risk, events, leaving - events)


def _at(curve: Curve, times: np.ndarray) -> np.ndarray:
    """Return the share without an event just after some times."""
    place = np.searchsorted(curve.time, times, side="right")
    return np.insert(curve.survival, 0, 1.0)[place]


def _limits(curve: Curve, interval: float) -> dict[str, Any]:
    """Return confidence limits at time 0 and at each time; NaN where nobody is left."""
    share = curve.survival
    inside = (share > 0) & (share < 1)
    log = np.log(np.where(inside, share, 0.5))
    width = norm.ppf(0.5 + interval / 2) * np.sqrt(np.where(inside, curve.variance, 0.0)) / log
    ends = {"lower": share ** np.exp(-width), "upper": share ** np.exp(width)}
    return {
        name: ("time", np.insert(np.where(share > 0, end, np.nan), 0, 1.0), {"units": "1"})
        for name, end in ends.items()
    }


def _dataset(
    curve: Curve, followed: np.ndarray, shares: np.ndarray, percentiles: np.ndarray, trial: Trial
) -> xr.Dataset:
    unit, first = {"units": trial.units["TIME"]}, curve.at_risk[:1]
    return xr.Dataset(
        {
            "observed": ("time", np.insert(curve.survival, 0, 1.0), {"units": "1"}),
            "at_risk": ("time", np.concatenate([first, curve.at_risk])),
            "events": ("time", np.insert(curve.events, 0, 0)),
            "censored": ("time", np.insert(curve.censored, 0, 0)),
            "predicted": (("percentile", "followed"), shares, {"units": "1"}),
        },
        coords={
            "time": ("time", np.insert(curve.time, 0, 0.0), unit),
            "followed": ("followed", followed, unit),
            "percentile": percentiles,
        },
        attrs={"trial": trial.host.name},
    )
