"""Over which time is a regimen judged, and may it be given at all?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from popk.patients.courses import next_dose_of
from popk.patients.regimen import Regimen, replaced
from popk.patients.twin import Twin
from popk.trial import Trial

#: Over which time: a word of these, or a begin and an end [unit of TIME].
At = str | tuple[float, float]
Candidate = Regimen | Sequence[Regimen]
STEADY, LAST, FIRST = "steady state", "last interval", "first interval"

#: What every advice says.
DECIDES = "These are probabilities under a model, not an order: a clinician decides."


class Judged(NamedTuple):
    """A patient's records with a regimen, and the window over which it is judged [unit of TIME]."""

    patient: Trial
    window: tuple[float, float]


def judged(twin: Twin, candidate: Candidate, at: At) -> Judged:
    """Return a patient's records with a regimen, and the window over which it is judged.

    Parameters
    ----------
    twin : Twin
    candidate : Regimen, or sequence of Regimen
    at : "steady state", "last interval", "first interval" or tuple of float
        At steady state the regimen that starts last is given for ever, and judged over one interval
        with the covariates of the patient's last record.

    Raises
    ------
    ValueError
        `at` is none of those, or the regimen has no interval to be judged over.
    """
    regimens = parts_of(candidate)
    if not isinstance(at, str):
        return Judged(replaced(twin.patient, regimens), (float(at[0]), float(at[1])))
    if at not in (STEADY, LAST, FIRST):
        raise ValueError(
            f"at is {at!r}; it must be '{STEADY}', '{LAST}', '{FIRST}', or a begin and an end"
        )
    last = max(regimens, key=lambda regimen: regimen.start)
    first = min(regimens, key=lambda regimen: regimen.start)
    one = first if at == FIRST else last
    if one.interval is None:
        raise ValueError(
            f"the regimen {named(candidate, {})} has no interval to be judged over; give it one, or "
            f"at=(begin, end)"
        )
    if at == STEADY:
        start = max(last.start, next_dose_of(twin, None))
        last = dataclasses.replace(last, start=start, count=1, steady_state=True)
        return Judged(replaced(twin.patient, last), (start, start + one.interval))
    begin = float(one.times[-1] if at == LAST else one.start)
    return Judged(replaced(twin.patient, regimens), (begin, begin + one.interval))


def parts_of(candidate: Candidate) -> tuple[Regimen, ...]:
    """Return a candidate's regimens.

    Raises
    ------
    ValueError
        There is none.
    """
    regimens = (candidate,) if isinstance(candidate, Regimen) else tuple(candidate)
    if not regimens:
        raise ValueError("a candidate has no regimen; give a popk.Regimen, or several")
    return regimens


def named(candidate: Candidate, units: Mapping[str, str]) -> str:
    """Return a regimen in words, such as ``500 mg every 12 h``."""
    return ", then ".join(_words(regimen, units) for regimen in parts_of(candidate))


def _words(regimen: Regimen, units: Mapping[str, str]) -> str:
    amount, time = (f" {units[n]}" if n in units else "" for n in ("AMT", "TIME"))
    text = f"{regimen.dose:g}{amount}"
    if regimen.interval is not None:
        text += f" every {regimen.interval:g}{time}"
    if rate := regimen.infusion_rate:
        text += f" over {regimen.dose / rate:g}{time}"
    return text


class Limits(NamedTuple):
    """What may be given.

    Attributes
    ----------
    max_dose : float or None
        The largest single dose [unit of AMT].
    max_rate : float or None
        The fastest infusion [AMT/TIME].
    """

    max_dose: float | None = None
    max_rate: float | None = None

    def check(self) -> None:
        """Refuse limits that are none.

        Raises
        ------
        ValueError
            One is not positive.
        """
        for name, value in self._asdict().items():
            if value is not None and not (value > 0 and np.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be positive")

    def refuse(self, candidate: Candidate, units: Mapping[str, str]) -> None:
        """Refuse a regimen beyond a limit; nothing is clipped.

        Raises
        ------
        ValueError
            A dose is larger, or an infusion faster, or is a bolus where infusions have a limit.
        """
        for regimen in parts_of(candidate):
            text = named(regimen, units)
            if self.max_dose is not None and regimen.dose > self.max_dose:
                raise ValueError(
                    f"the regimen {text} is beyond max_dose, {self.max_dose:g} {units['AMT']}; "
                    f"leave it out, or give a smaller dose"
                )
            if self.max_rate is None:
                continue
            rate, unit = regimen.infusion_rate, f"{units['AMT']}/{units['TIME']}"
            if rate == 0 or rate > self.max_rate:
                how = f"runs at {rate:g} {unit}" if rate else "is given at once"
                raise ValueError(
                    f"the regimen {text} {how}, faster than max_rate, {self.max_rate:g} {unit}; "
                    f"give it over a longer duration"
                )
