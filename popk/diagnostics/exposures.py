"""What exposure does the model say that people have? AUC, Cmax and others of its own curves.

AUC of a dosing interval, or to infinity after a single dose, is the area under each draw's IPRED on a
fine grid, by linear trapezoids where levels rise and logarithmic ones where they fall.

References
----------
.. [1] Purves RD (1992). Optimum numerical integration methods for estimation of area-under-the-curve
   (AUC) and area-under-the-moment-curve (AUMC). J Pharmacokinet Biopharm 20:211-226.
   doi:10.1007/BF01062525
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk.diagnostics.levels import same_records
from popk.model.sites import ModelError
from popk.noncompartmental.curves import BLQ, curve_of
from popk.noncompartmental.parameters import analyzed, area_until, highest, parameters, trough
from popk.noncompartmental.profiles import Dose, Profile, doses_of, placed, profiles_of
from popk.noncompartmental.quantities import units_of
from popk.records.events import clock
from popk.records.table import DataError, Problem
from popk.trial import ASK, Trial

#: With fewer records after a dose its curve is too coarse for an area.
MIN_POINTS = 20
#: The last record of an interval stands this part of it before the next dose, which may be a bolus.
BEFORE = 1e-9
#: Records from which the half-life at the end of the grid is taken.
TAIL = 3


def exposure_grid(
    trial: Trial,
    *,
    dose: int = -1,
    points: int = 120,
    until: float | None = None,
    DVID: int | None = None,
    CMT: int | None = None,
) -> Trial:
    """Return the trial with records on a fine grid after one dose, in the place of its levels.

    Parameters
    ----------
    trial : Trial
    dose : int
        Which of each subject's doses, further ones (ADDL) included: 1 the first, -1 the last.
    points : int
        How many records; they stand closer together soon after the dose, and one at the end of an
        infusion.
    until : float, optional
        The last record, since the dose [time]; by default the end of the dosing interval, or without one
        the last level of the subject.
    DVID, CMT : int, optional
        Which kind of levels is predicted, where there are several.

    Returns
    -------
    Trial
        For `popk.predict`, whose result goes into `popk.exposure` with this trial.

    Raises
    ------
    DataError
        A subject has no such dose, or neither a dosing interval nor a later record to end at.
    ValueError
        Fewer than 20 points, or `until` is not above 0.

    Examples
    --------
    >>> grid = popk.exposure_grid(trial)  # doctest: +SKIP
    >>> simulated = popk.predict(model, posterior, grid, seed=2)  # doctest: +SKIP
    >>> popk.exposure(simulated, grid)["AUC"]  # doctest: +SKIP
    """
    if points < MIN_POINTS:
        raise ValueError(f"points is {points}; give at least {MIN_POINTS}")
    if until is not None and not 0 < until < np.inf:
        raise ValueError(f"until is {until}; give a time after the dose above 0")
    frame = trial.host.frame.assign(CLOCK=clock(trial.host.frame))
    found: list[Problem] = []
    parts = []
    kind = {"DVID": 0 if DVID is None else DVID, "CMT": 0 if CMT is None else CMT}
    for one, part in frame.groupby("ID", sort=False):
        own = placed(part)
        doses = doses_of(own, "extravascular", found, modeled=True)
        place = dose - 1 if dose > 0 else len(doses) + dose
        if not 0 <= place < len(doses):
            says = f"it has {len(doses)} doses, no dose {dose}; give another dose="
            found.append(Problem("EVID", says, id=str(one)))
            continue
        end = until or _end(own, doses, place)
        if end is None:
            says = "nothing tells how far its curve is to go: one dose without II, and no later record; give "
            found.append(Problem("TIME", f"{says}until=", id=str(one)))
            continue
        times = _times(doses, place, end, points)
        parts.append(_with_records(own, times, kind))
    if found:
        raise DataError(trial.host.name, found)
    columns = trial.host.frame.columns
    dense: Any = pd.concat(parts, ignore_index=True)[columns]
    return trial.replaced(dense.astype({n: trial.host.frame[n].dtype for n in columns}))


def _end(own: pd.DataFrame, doses: list[Dose], place: int) -> float | None:
    """Return how long after a dose its interval ends, or the subject's last record stands."""
    dose = doses[place]
    if place + 1 < len(doses) and doses[place + 1].epoch == dose.epoch:
        return doses[place + 1].time - dose.time
    if dose.interval > 0:
        return dose.interval
    if place and doses[place - 1].epoch == dose.epoch:
        return dose.time - doses[place - 1].time
    last = float(own.loc[own["EPOCH"].eq(dose.epoch), "CLOCK"].max()) - dose.time
    return last if last > 0 else None


def _times(doses: list[Dose], place: int, end: float, points: int) -> np.ndarray:
    """Return the times of the records on the subject's clock."""
    dose = doses[place]
    since = end * np.linspace(0, 1, points) ** 2
    if place + 1 < len(doses) and doses[place + 1].time <= dose.time + end:
        next_dose = doses[place + 1].time - dose.time
        since = np.append(since[since < next_dose * (1 - BEFORE)], next_dose * (1 - BEFORE))
    if 0 < dose.duration < since[-1]:
        since = np.union1d(since, [dose.duration])
    return dose.time + since


def _with_records(own: pd.DataFrame, times: np.ndarray, kind: dict[str, int]) -> pd.DataFrame:
    """Return a subject's doses and covariates with records at some times; its levels ask for nothing."""
    levels = own["EVID"].eq(0) & own["CMT"].ge(0)
    kept = own.copy()
    rest = {**ASK, "EVID": 2, "CMT": 0}
    for name, value in rest.items():
        kept[name] = kept[name].where(~levels, value)
    ticks = kept["CLOCK"].to_numpy()
    after = np.searchsorted(ticks, times, side="right")
    # Covariates hold backward: a record has those of the next one, or of the last.
    like = kept.iloc[np.minimum(after, len(kept) - 1)]
    shift = kept["CLOCK"].to_numpy() - kept["TIME"].to_numpy()
    shown = times - shift[np.maximum(after - 1, 0)]
    rows = like.assign(**ASK, TIME=shown, **kind)
    place = np.concatenate([np.arange(len(kept)), after - 0.5])
    return pd.concat([kept, rows]).iloc[np.argsort(place, kind="stable")]


def exposure(simulated: xr.DataTree, grid: Trial, *, steady_state: bool = False) -> xr.Dataset:
    """Return each draw's exposure of each subject, from the model's own curves.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, grid, seed=...)``.
    grid : Trial
        As `popk.exposure_grid` returns it.
    steady_state : bool
        Whether the last dose is at steady state; doses with SS are in any case. It changes nothing but
        what is said of it.

    Returns
    -------
    Dataset
        (sample, subject): ``AUC`` of the dosing interval, or to infinity where there is none; ``Cmax``,
        ``tmax``, ``half_life`` at the end of the grid; and where there is an interval ``Ctrough``, at
        its end, and ``Cavg``. ``area`` (subject) says which AUC it is. Intervals are quantiles over
        ``sample``; `popk.exposure_by` is a table of them.

    Raises
    ------
    ModelError
        `simulated` is of another trial, or has fewer than 20 records after a dose.

    Examples
    --------
    >>> found = popk.exposure(simulated, grid)  # doctest: +SKIP
    >>> found["AUC"].quantile([0.05, 0.5, 0.95], "sample")  # doctest: +SKIP
    """
    if "posterior_predictive" not in simulated.children:
        raise ModelError("nothing is predicted; give what popk.predict(model, ..., grid) returns")
    same_records(simulated, grid)
    ipred = simulated["posterior_predictive"].dataset["IPRED"]
    ipred = ipred.transpose("sample", "observation").values
    everything = np.ones(ipred.shape[1], dtype=bool)
    followed = profiles_of(grid, everything, "extravascular", steady_state, modeled=True)
    rows, kinds = [], []
    for one, profiles in followed.items():
        profile = profiles[-1]
        if len(profiles) != 1 or len(profile.time) < MIN_POINTS:
            raise ModelError(
                f"ID {one} has records after {len(profiles)} doses, {len(profile.time)} after the last of "
                f"these; predict the trial that popk.exposure_grid(trial) returns"
            )
        values = _exposed(profile, ipred[:, profile.observation])
        rows.append(values)
        kinds.append("AUC_tau" if np.isfinite(profile.tau) else "AUC_inf")
    unit = units_of(grid)
    names = {"AUC": "AUC_last", "Cmax": "Cmax", "tmax": "tmax", "Ctrough": "Ctrough", "Cavg": "Cavg",
             "half_life": "half_life"}  # fmt: skip
    data: dict[str, Any] = {}
    for name, like in names.items():
        values = np.stack([row[name] for row in rows], axis=1)
        if np.isfinite(values).any():
            data[name] = (("sample", "subject"), values, {"units": unit[like]})
    made = xr.Dataset(data, coords={"subject": list(grid.ids), "area": ("subject", kinds)})
    made.attrs = {
        "trial": grid.host.name, "new_subjects": int(simulated.attrs.get("new_subjects", 0))
    }  # fmt: skip
    return made


def _exposed(profile: Profile, level: np.ndarray) -> dict[str, np.ndarray]:
    """Return what one subject's curves say [sample]."""
    if not np.isfinite(level).all():
        raise ModelError(f"the model has no finite prediction of ID {profile.id} in some draw")
    curve = curve_of(profile, level, np.zeros(level.shape[1]), BLQ)
    tail = tuple(float(t) for t in profile.time[-TAIL:])
    a = analyzed(profile, curve, "lin-up/log-down", 1.0, tail)
    none = np.full(len(level), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            **highest(a),
            "half_life": np.log(2) / a.slope.lambda_z,
            "Ctrough": none,
            "Cavg": none,
        }
        if not np.isfinite(profile.tau):
            return {**found, "AUC": parameters(a)["AUC_inf"]}
        auc = area_until(a, profile.tau)[0]
        return {**found, "AUC": auc, "Ctrough": trough(a), "Cavg": auc / profile.tau}
