"""Which levels belong to which dose? A trial's records as profiles, one for each dose that is followed.

A level at the time of a dose stands before it where its record does. Where the dose is no bolus the level
does not jump, so that one sample ends the interval before and begins the next.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popk.records.events import clock
from popk.records.table import DataError, Problem
from popk.trial import Trial

ROUTES = ("bolus", "extravascular")
#: What doses with RATE 0 are, one of `ROUTES`: all of them, or those into each compartment (CMT).
Routes = str | Mapping[int, str] | None

#: A level this part of an interval before its end stands for the end: a trough drawn minutes early.
EARLY = 0.05
#: With fewer levels an interval between doses is not followed.
FOLLOWED = 3


class Dose(NamedTuple):
    """One dose, further ones (ADDL) included.

    Attributes
    ----------
    time : float
        On a clock that never goes back [time].
    place : float
        Its row among the subject's; a further dose has none (-1), and stands before every record.
    amount, duration, interval : float
        AMT, of an infusion how long it runs, and II [time].
    route : str
        "bolus", "infusion" or "extravascular".
    steady : bool
    epoch : int
        How many resets came before.
    row : int or str
        Of the table, for errors.
    """

    time: float
    place: float
    amount: float
    duration: float
    interval: float
    route: str
    steady: bool
    epoch: int
    row: Any


class Profile(NamedTuple):
    """The levels that follow one dose.

    Attributes
    ----------
    id : str
    number : int
        Which of the subject's doses, from 1.
    start : float
        When it was given, as TIME has it [time].
    clock : float
        The same on a clock that never goes back [time].
    dose : Dose
    tau : float
        The interval between doses [time]; NaN where there is none.
    carried : bool
        Whether an earlier dose may still be there.
    ends : float
        When the next dose is given, as TIME has it; infinite where there is none [time].
    time : Float[ndarray, "point"]
        Since the dose [time]; 0 of a level before it.
    before : Bool[ndarray, "point"]
        Whether the level is the one before the dose: at most the first point.
    observation : Int[ndarray, "point"]
        Its place among the trial's observations.
    """

    id: str
    number: int
    start: float
    clock: float
    dose: Dose
    tau: float
    carried: bool
    ends: float
    time: np.ndarray
    before: np.ndarray
    observation: np.ndarray

    @property
    def intravenous(self) -> bool:
        """Return whether the whole dose reaches the blood."""
        return self.dose.route != "extravascular"

    @property
    def jumps(self) -> bool:
        """Return whether levels jump when the dose is given."""
        return self.dose.route == "bolus"

    @property
    def steady(self) -> bool:
        """Return whether each interval is like the one before."""
        return self.dose.steady


def profiles_of(
    trial: Trial,
    counted: np.ndarray,
    route: Routes,
    steady_state: bool = False,
    *,
    modeled: bool = False,
) -> dict[str, list[Profile]]:
    """Return each subject's profiles, in the order of doses.

    An interval between doses is a profile where it has three levels or more; where none has, the one
    with the most levels is.

    Parameters
    ----------
    trial : Trial
    counted : Bool[ndarray, "observation"]
        Which observations count.
    route : Routes
        What doses with RATE 0 are.
    steady_state : bool
        Whether a subject's last dose is at steady state, beside those with SS.
    modeled : bool
        Whether doses whose duration a model gives (RATE -1, -2) may be there.

    Raises
    ------
    DataError
        A subject has no dose, or one that cannot be used; or two levels at one time.
    ValueError
        A route is none.
    """
    frame = trial.host.frame.assign(CLOCK=clock(trial.host.frame))
    _refuse_route(trial, frame, route)
    observation = np.full(len(frame), -1)
    observation[frame["EVID"].eq(0).to_numpy()] = np.arange(len(counted))
    frame["OBSERVATION"] = observation
    found: list[Problem] = []
    made = {}
    for one, part in frame.groupby("ID", sort=False):
        own = placed(part)
        doses = doses_of(own, route, found, modeled=modeled)
        if not doses and not any(p.id == str(one) for p in found):
            says = "it has no dose, which a noncompartmental analysis needs; leave the subject out"
            found.append(Problem("EVID", says, id=str(one)))
        if doses and steady_state:
            doses[-1] = doses[-1]._replace(steady=True)
        levels = own[own["OBSERVATION"].ge(0)]
        levels = levels[counted[levels["OBSERVATION"]]]
        made[str(one)] = _followed(str(one), doses, levels, own, found)
    if found:
        raise DataError(trial.host.name, found)
    return made


def _refuse_route(trial: Trial, frame: pd.DataFrame, route: Routes) -> None:
    """Refuse a route that is none, or none where it is needed."""
    kinds = list(route.values()) if isinstance(route, Mapping) else [] if route is None else [route]
    if strange := [kind for kind in kinds if kind not in ROUTES]:
        raise ValueError(
            f"route is {strange[0]!r}; use 'bolus', 'extravascular', or one of them for each CMT, such as "
            f"{{1: 'extravascular', 2: 'bolus'}} (doses with a RATE are infusions)"
        )
    rows: Any = frame[frame["EVID"].isin([1, 4]) & frame["RATE"].eq(0)]
    if route is None and len(rows):
        says = f"RATE is 0 on {len(rows)} doses: boluses or extravascular ones, which no column tells; "
        says += "say route='bolus', route='extravascular', or one of them for each CMT"
        first = rows.iloc[0]
        problem = Problem("RATE", says, first["ROW"], first["ID"], f"{first['TIME']:.10g}")
        raise DataError(trial.host.name, [problem])


def placed(part: pd.DataFrame) -> pd.DataFrame:
    """Return a subject's records with their places and how many resets came before."""
    return part.assign(PLACE=np.arange(len(part)), EPOCH=part["EVID"].isin([3, 4]).cumsum())


def doses_of(
    own: pd.DataFrame, route: Routes, found: list[Problem], *, modeled: bool = False
) -> list[Dose]:
    """Return a subject's doses in order, those of one moment added up; problems go to `found`.

    Parameters
    ----------
    own : DataFrame
        A subject's records with CLOCK, PLACE and EPOCH.
    route : Routes
    found : list of Problem
    modeled : bool
        Whether doses whose duration a model gives may be there.
    """
    doses: list[Dose] = []
    rows: Any = own[own["EVID"].isin([1, 4])]
    resets = own.loc[own["EVID"].isin([3, 4]), "CLOCK"].to_numpy()
    for row in rows.itertuples():
        one = _dose(row, route, found, modeled)
        if one is None:
            continue
        later = resets[resets > row.CLOCK]
        ends = later[0] if later.size else np.inf
        times = row.CLOCK + row.II * np.arange(int(row.ADDL) + 1)
        doses += [
            one._replace(time=float(t), place=one.place if t == row.CLOCK else -1.0)
            for t in times
            if t < ends
        ]
    doses.sort(key=lambda dose: (dose.time, dose.place))
    together: list[Dose] = []
    for dose in doses:
        last = together[-1] if together else None
        if last is None or last.time != dose.time or last.epoch != dose.epoch:
            together.append(dose)
        elif (last.route, last.duration) != (dose.route, dose.duration):
            says = "two doses of different routes or durations are given at once; what is measured cannot be "
            says += "told apart: analyze them by a model"
            found.append(_problem("AMT", says, own, dose.row))
        else:
            together[-1] = last._replace(amount=last.amount + dose.amount)
    return together


def _dose(row: Any, route: Routes, found: list[Problem], modeled: bool) -> Dose | None:
    """Return the dose of a record; None with a problem where it cannot be used."""

    def refuse(column: str, says: str) -> None:
        found.append(Problem(column, says, row.ROW, str(row.ID), f"{row.TIME:.10g}"))

    if row.AMT <= 0:
        return refuse(
            "AMT",
            "it is a constant infusion without an amount; its levels have no AUC: leave it out",
        )
    if row.RATE < 0 and not modeled:
        return refuse(
            "RATE", f"RATE is {row.RATE:g}, which leaves the duration to a model; give it"
        )
    kind = route if isinstance(route, str) or route is None else route.get(int(row.CMT))
    if row.RATE > 0:
        kind = "infusion"
    elif kind is None:
        return refuse(
            "CMT", f"the dose goes into CMT {row.CMT}, which route= does not name; add it"
        )
    return Dose(
        time=float(row.CLOCK), place=float(row.PLACE), amount=float(row.AMT),
        duration=float(row.AMT / row.RATE) if row.RATE > 0 else 0.0, interval=float(row.II),
        route=str(kind), steady=bool(row.SS > 0), epoch=int(row.EPOCH), row=row.ROW,
    )  # fmt: skip


def _problem(column: str, says: str, own: pd.DataFrame, row: Any) -> Problem:
    at = own[own["ROW"].eq(row)].iloc[0]
    return Problem(column, says, row, str(at["ID"]), f"{at['TIME']:.10g}")


def _followed(
    one: str, doses: Sequence[Dose], levels: Any, own: pd.DataFrame, found: list[Problem]
) -> list[Profile]:
    """Return a subject's profiles; those with too few levels only where there is no other."""
    every = [_profile(one, doses, i, levels, own) for i in range(len(doses))]
    kept = [profile for profile in every if len(profile.time) >= FOLLOWED]
    if not kept and every:
        kept = [max(every, key=lambda profile: len(profile.time))]
    for profile in kept:
        twice = (np.diff(profile.time) == 0) & (np.diff(profile.before.astype(int)) == 0)
        if twice.any():
            at = profile.observation[1:][twice][0]
            row = own.loc[own["OBSERVATION"].eq(at), "ROW"].iloc[0]
            says = (
                "two levels stand at one time; set MDV 1 on one, or say DVID= or CMT= for one kind"
            )
            found.append(_problem("DV", says, own, row))
    return kept


def _profile(one: str, doses: Sequence[Dose], i: int, levels: Any, own: pd.DataFrame) -> Profile:
    """Return what follows one of a subject's doses."""
    dose = doses[i]
    following = next((d for d in doses[i + 1 :] if d.epoch == dose.epoch), None)
    earlier = doses[i - 1] if i and doses[i - 1].epoch == dose.epoch else None
    when, place = levels["CLOCK"].to_numpy(), levels["PLACE"].to_numpy()
    of_epoch = levels["EPOCH"].to_numpy() == dose.epoch
    jumps = dose.route == "bolus"
    inside = of_epoch & (when > dose.time)
    at_dose = of_epoch & (when == dose.time)
    if jumps:
        inside |= at_dose & (place > dose.place)
        at_dose &= place < dose.place
    if following is not None:
        inside &= _ends_before(following, when, place)
    tau = np.nan
    if dose.steady and dose.interval > 0:
        tau = dose.interval
    elif following is not None:
        tau = following.time - dose.time
    elif dose.interval > 0:
        tau = dose.interval
    elif earlier is not None:
        tau = dose.time - earlier.time
    first = _level_before(dose, earlier, when, at_dose, levels)
    rows = np.concatenate([first, np.flatnonzero(inside)]).astype(int)
    before = (when[rows] < dose.time) | ((when[rows] == dose.time) & (place[rows] < dose.place))
    epoch: Any = own[own["EPOCH"].eq(dose.epoch)].iloc[0]
    start = dose.time - float(epoch["CLOCK"] - epoch["TIME"])
    return Profile(
        id=one, number=i + 1, clock=dose.time, start=start,
        ends=np.inf if following is None else start + following.time - dose.time,
        dose=dose, tau=float(tau), carried=earlier is not None,
        time=np.where(before, 0.0, when[rows] - dose.time), before=before,
        observation=levels["OBSERVATION"].to_numpy()[rows],
    )  # fmt: skip


def _ends_before(following: Dose, when: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return which levels stand before the next dose, or at it where they do not jump."""
    at = when == following.time
    if following.route == "bolus":
        at &= place < following.place
    return (when < following.time) | at


def _level_before(
    dose: Dose, earlier: Dose | None, when: np.ndarray, at_dose: np.ndarray, levels: Any
) -> np.ndarray:
    """Return the place of the level before a dose, or nothing.

    It is the one at the time of the dose; else before the first dose the last one, before a later dose
    the last one of the last twentieth of the interval.
    """
    exact = np.flatnonzero(at_dose)
    if exact.size:
        return exact
    since = -np.inf if earlier is None else dose.time - EARLY * (dose.time - earlier.time)
    near = (levels["EPOCH"].to_numpy() == dose.epoch) & (when < dose.time) & (when >= since)
    return np.flatnonzero(near)[-1:]
