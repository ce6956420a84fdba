"""Which doses, and when? `Regimen`, a patient's records with it in the place of the doses to come."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from popk.trial import ASK, Trial

_RECORD = {"EVID": 1, "MDV": 1, "DV": np.nan, "BLQ": 0, "LLOQ": np.nan, "ALQ": 0, "ULOQ": np.nan}
_DOSE = {"ADDL": 0, "SS": 0, "II": 0.0, "RATE": 0.0, "DVID": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regimen:
    """Doses of one size at even intervals.

    Parameters
    ----------
    dose : float
        AMT of each [unit of AMT].
    interval : float, optional
        Between doses [unit of TIME]; needed where there are several, or at steady state.
    count : int
        How many doses.
    start : float
        When the first is given, on the clock of the patient's TIME.
    duration, rate : float, optional
        Of infusions: the one [unit of TIME] or the other [AMT/TIME]; a bolus, or a dose by mouth,
        has neither.
    compartment : int
        CMT; 0 is the model's own.
    steady_state : bool
        Whether the first dose finds the patient at the steady state of this regimen (SS 1).

    Raises
    ------
    ValueError
        A number is negative or missing, or both a duration and a rate are given.

    Examples
    --------
    >>> Regimen(dose=500, interval=12, count=4).times
    array([ 0., 12., 24., 36.])
    """

    dose: float
    interval: float | None = None
    count: int = 1
    start: float = 0.0
    duration: float | None = None
    rate: float | None = None
    compartment: int = 0
    steady_state: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no regimen."""
        if not (self.dose > 0 and np.isfinite(self.dose)):
            raise ValueError(f"dose is {self.dose}; it must be positive")
        if not (self.count >= 1 and int(self.count) == self.count):
            raise ValueError(f"count is {self.count}; it must be a whole number of at least 1")
        if not np.isfinite(self.start):
            raise ValueError(f"start is {self.start}; it must be a time")
        if (self.count > 1 or self.steady_state) and self.interval is None:
            raise ValueError("interval is missing; several doses, and a steady state, need one")
        for name in ("interval", "duration", "rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and np.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.duration is not None and self.rate is not None:
            raise ValueError("duration and rate are both given; one follows from the other")

    @property
    def times(self) -> np.ndarray:
        """Return when doses are given [unit of TIME]."""
        return self.start + np.arange(self.count) * (self.interval or 0.0)

    @property
    def infusion_rate(self) -> float:
        """Return RATE: 0 of a bolus [AMT/TIME]."""
        return self.rate or (self.dose / self.duration if self.duration else 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Return the records of its doses, each of its own."""
        every = {
            **_RECORD,
            **_DOSE,
            "AMT": self.dose,
            "RATE": self.infusion_rate,
            "CMT": self.compartment,
        }
        rows = [
            {**every, "TIME": float(t), "ROW": f"regimen {i + 1}"} for i, t in enumerate(self.times)
        ]
        if self.steady_state:
            rows[0] |= {"SS": 1, "II": self.interval}
        return rows


def replaced(patient: Trial, regimen: Regimen | Sequence[Regimen]) -> Trial:
    """Return a patient's records with other doses from the first start of some regimens on.

    Doses known from then on are left out, further ones of earlier records too; an infusion that is
    running then goes on.

    Raises
    ------
    ValueError
        There is no regimen, or one begins before the patient's last occasion.
    """
    regimens = [regimen] if isinstance(regimen, Regimen) else list(regimen)
    if not regimens:
        raise ValueError("there is no regimen; give a popk.Regimen, or several")
    start = min(r.start for r in regimens)
    frame = written_out(patient.host.frame)
    last = _last_occasion(frame)
    kept = ~(frame["EVID"].isin([1, 4]) & frame["TIME"].ge(start))
    kept.iloc[:last] = True
    resets = ~kept & frame["EVID"].eq(4)
    frame.loc[resets, ["EVID", "AMT", "RATE", "II", "SS"]] = [3, 0.0, 0.0, 0.0, 0]
    frame = frame[kept | resets].reset_index(drop=True)
    rows = sorted((row for r in regimens for row in r.rows()), key=lambda row: row["TIME"])
    # Levels and other records of a dose's time stand before it: they are troughs.
    return patient.replaced(joined(frame, rows, patient, after=[True] * len(rows)))


def written_out(frame: Any) -> Any:
    """Return records with a row for each further dose (ADDL), which are then no more.

    A further dose that a reset or a steady state cancels is left out.
    """
    rows = frame.index[frame["ADDL"].gt(0) & frame["EVID"].isin([1, 4])]
    if not len(rows):
        return frame.copy()
    clock, time = _unwound(frame), frame["TIME"].to_numpy()
    wipes = frame["EVID"].isin([3, 4]).to_numpy() | frame["SS"].eq(1).to_numpy()
    parts, places = [frame.assign(ADDL=0)], [np.arange(len(frame), dtype=float)]
    for row in rows:
        at = clock[row] + frame["II"][row] * np.arange(1, int(frame["ADDL"][row]) + 1)
        later = np.flatnonzero(wipes & (np.arange(len(frame)) > row))
        at = at[at <= clock[later[0]]] if len(later) else at
        # They stand before every record of their time.
        after = np.maximum(np.searchsorted(clock, at - 1e-12 * (1 + abs(at)), side="left"), row + 1)
        more = frame.iloc[np.minimum(after, len(frame) - 1)].copy()
        given = ["AMT", "RATE", "CMT", "DVID"]
        more = more.assign(**{name: frame.at[row, name] for name in given})
        more = more.assign(
            **{**_RECORD, "ADDL": 0, "SS": 0, "II": 0.0}, TIME=at - clock[row] + time[row]
        )
        parts.append(more.assign(ROW=frame["ROW"][row]))
        places.append(after - 0.5)
    whole = pd.concat(parts).iloc[np.argsort(np.concatenate(places), kind="stable")]
    plain = whole["SS"].eq(0) & whole["ADDL"].eq(0)
    return whole.assign(II=whole["II"].where(~plain, 0.0)).reset_index(drop=True)


def joined(
    frame: Any, rows: Sequence[dict[str, Any]], patient: Trial, after: Sequence[bool]
) -> Any:
    """Return records with further ones, which have the covariates of the next record, or of the last.

    Parameters
    ----------
    frame : DataFrame
        Checked records.
    rows : sequence of dict
        Sorted by TIME.
    patient : Trial
    after : sequence of bool
        Whether each stands after the records of its time, or before the first of them.

    Raises
    ------
    ValueError
        One lies before the patient's last occasion.
    """
    start = _last_occasion(frame)
    clock = frame["TIME"].to_numpy()[start:]
    times = np.array([row["TIME"] for row in rows])
    if start and times.min() < clock[0]:
        raise ValueError(
            f"time {times.min():g} lies before the last occasion of ID {patient.ids[0]}, "
            f"which begins at {clock[0]:g}"
        )
    first, past = (np.searchsorted(clock, times, side=side) for side in ("left", "right"))
    at = start + np.where(np.asarray(after), past, first)
    more = frame.iloc[np.minimum(at, len(frame) - 1)].astype({"ROW": object}).reset_index(drop=True)
    told = pd.DataFrame(list(rows))
    more[list(told)] = told
    whole = pd.concat([frame.astype({"ROW": object}), more])
    place = np.concatenate([np.arange(len(frame)), at - 0.5])
    whole = whole.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)
    return whole.astype({n: t for n, t in frame.dtypes.items() if n != "ROW"})


def asking(times: Any, kinds: Sequence[tuple[int, int]] = ((0, 0),)) -> list[dict[str, Any]]:
    """Return records that only ask for predictions, by TIME; their ROW says which they are.

    Parameters
    ----------
    times : Float[ndarray, "time"]
    kinds : sequence of (int, int)
        CMT and DVID of what is asked for.
    """
    order = np.argsort(times, kind="stable")
    return [
        {**ASK, "CMT": cmt, "DVID": dvid, "TIME": float(times[i]), "ROW": f"forecast {i} {k}"}
        for i in order
        for k, (cmt, dvid) in enumerate(kinds)
    ]


def up_to_now(trial: Trial) -> Trial:
    """Return a trial with a last record of each subject, where what holds from its last one on is known.

    It is no level (EVID 2), which would be of some kind. A value of a covariate that is carried forward
    (``"locf"``) first holds after its record.
    """
    frame = trial.host.frame
    last = frame.drop_duplicates("ID", keep="last").astype({"ROW": object})
    place = np.append(np.arange(len(frame)), last.index.map(frame.index.get_loc))
    whole = pd.concat([frame, last.assign(**ASK | {"EVID": 2}, ROW="now")])
    return trial.replaced(whole.iloc[np.argsort(place, kind="stable")].reset_index(drop=True))


def _last_occasion(frame: Any) -> int:
    """Return where the last clock begins."""
    restarts = np.flatnonzero(np.diff(frame["TIME"]) < 0)
    return int(restarts[-1]) + 1 if restarts.size else 0


def _unwound(frame: Any) -> np.ndarray:
    """Return times that never go back."""
    time = frame["TIME"].to_numpy()
    back = np.diff(time, prepend=time[:1])
    return time - np.where(back < 0, back, 0.0).cumsum()
