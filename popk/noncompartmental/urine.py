"""How much of a dose is in the urine? Amounts of collections, and renal clearance."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popk import units as unit_rules
from popk.noncompartmental.parameters import Analysis, area_until
from popk.noncompartmental.profiles import Profile
from popk.records.table import DataError, Problem
from popk.trial import Trial

#: Two ends this close, relative to the collection, are one.
TOUCH = 1e-9


class Collections(NamedTuple):
    """One subject's collections in order.

    Attributes
    ----------
    start, end : Float[ndarray, "collection"]
        As TIME has them [time].
    amount : Float[ndarray, "collection"]
        In the unit of AMT.
    """

    start: np.ndarray
    end: np.ndarray
    amount: np.ndarray


def collections_of(
    urine: pd.DataFrame, units: Mapping[str, str] | None, trial: Trial
) -> dict[str, Collections]:
    """Return each subject's collections, checked, with amounts in the unit of AMT.

    Parameters
    ----------
    urine : DataFrame
        Columns ID, START and END, and AMOUNT or VOLUME and CONC.
    units : mapping, optional
        Of AMOUNT, or of VOLUME and CONC; by default those of ``urine.attrs["units"]``.
    trial : Trial

    Raises
    ------
    DataError
        A column or unit is missing; TIME goes back in the trial; a collection is of nobody, not a
        number, ends before it begins, or overlaps the one before.
    """
    known = {**urine.attrs.get("units", {}), **(units or {})}
    measured = ["AMOUNT"] if "AMOUNT" in urine else ["VOLUME", "CONC"]
    found = [
        Problem(
            n, f"column {n} is missing; urine needs ID, START, END, and AMOUNT or VOLUME and CONC"
        )
        for n in ("ID", "START", "END", *measured)
        if n not in urine
    ]
    if (trial.host.frame.groupby("ID", sort=False)["TIME"].diff() < 0).any():
        says = "TIME goes back in the trial, so that START and END have no place; give one clock"
        found.append(Problem("START", says))
    found += [
        Problem(n, f"{n} has no unit; give urine_units={{'{n}': ...}}")
        for n in measured
        if n not in known
    ]
    if found:
        raise DataError("urine", found)
    frame = urine.assign(ID=urine["ID"].astype(str)).sort_values(["ID", "START"], kind="stable")
    found = [p for part in frame.groupby("ID") for p in _problems(part[1], measured, trial)]
    if found:
        raise DataError("urine", found)
    product = " * ".join(f"({known[n]})" for n in measured)
    factor = unit_rules.factor(product, trial.units["AMT"])
    amount: Any = frame[measured].astype(float).prod(axis=1) * factor
    return {
        str(one): Collections(
            part["START"].to_numpy(float),
            part["END"].to_numpy(float),
            amount[part.index].to_numpy(),
        )
        for one, part in frame.groupby("ID")
    }


def _problems(own: Any, measured: list[str], trial: Trial) -> list[Problem]:
    """Return what is wrong with one subject's collections."""
    found = []
    ends = own["END"].shift()
    for (row, one), before in zip(own.iterrows(), ends, strict=True):
        says = ""
        numbers = one[["START", "END", *measured]].astype(float)
        if one["ID"] not in trial.ids:
            says = "the trial has no such ID"
        elif not np.isfinite(numbers).all() or (numbers[measured] < 0).any():
            says = f"{', '.join(measured)}, START or END is missing or negative; leave the collection out"
        elif one["END"] <= one["START"]:
            says = f"END {one['END']:g} is not after START {one['START']:g}"
        elif before > one["START"] + TOUCH * abs(before):
            says = f"it begins at {one['START']:g}, before the last one ended at {before:g}"
        if says:
            found.append(Problem("START", says, row, str(one["ID"]), f"{one['START']:g}"))
    return found


def excreted(a: Analysis, own: Collections | None) -> dict[str, np.ndarray]:
    """Return Ae, fe and CLr of one profile; nothing where no collection lies in it.

    Parameters
    ----------
    a : Analysis
    own : Collections, optional
    """
    within = _within(a.profile, own)
    if own is None or not within.any():
        return {}
    amount = np.array([own.amount[within].sum()])
    auc, _, _ = area_until(a, own.end[within].max() - a.profile.start)
    return {
        "Ae": amount,
        "fe": 100 * amount / a.profile.dose.amount,
        "CLr": amount * a.factor / auc,
    }


def _within(profile: Profile, own: Collections | None) -> np.ndarray:
    if own is None:
        return np.zeros(0, dtype=bool)
    return (own.start >= profile.start - TOUCH) & (own.end <= profile.ends + TOUCH)


def interrupted(profile: Profile, own: Collections | None) -> bool:
    """Return whether urine is missing from the dose to the end of the last collection."""
    within = _within(profile, own)
    if own is None or not within.any():
        return False
    start, end = own.start[within], own.end[within]
    gaps = start - np.concatenate([[profile.start], end[:-1]])
    return bool((gaps > TOUCH * np.maximum(abs(end), 1.0)).any())
