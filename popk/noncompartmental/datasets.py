"""How does an analysis of profiles become a Dataset? One row a profile, its levels beside it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from popk.noncompartmental.flags import FLAGS
from popk.noncompartmental.parameters import Analysis
from popk.noncompartmental.quantities import QUANTITIES, units_of
from popk.trial import Trial

URINE_FLAG, CHOSEN_FLAG = "urine_gap", "chosen_slope"
NAMES = (*(flag.name for flag in FLAGS), CHOSEN_FLAG, URINE_FLAG)


class Row(NamedTuple):
    """One profile taken apart, its parameters, and the reasons of its flags."""

    a: Analysis
    values: dict[str, float]
    reasons: dict[str, str]


def window(start: float, end: float) -> str:
    """Return the name of a further area."""
    return f"AUC_{start:g}_{end:g}"


class _Grid(NamedTuple):
    """Where each profile stands [subject, interval]."""

    rows: list[Row]
    places: list[tuple[int, int]]
    shape: tuple[int, int]

    def of(self, each: Any, blank: Any, dtype: Any = float) -> tuple[tuple[str, str], np.ndarray]:
        """Return one value of each profile, as xarray takes it."""
        filled = np.full(self.shape, blank, dtype=dtype)
        for place, row in zip(self.places, self.rows, strict=True):
            filled[place] = each(row)
        return ("subject", "interval"), filled


def dataset_of(
    trial: Trial,
    rows: list[Row],
    partial: Sequence[tuple[float, float]],
    known: tuple[np.ndarray, np.ndarray],
) -> xr.Dataset:
    """Return the rows as arrays [subject, interval], and the levels that they were made of.

    Parameters
    ----------
    trial : Trial
    rows : list of Row
    partial : sequence of (float, float)
        The further areas.
    known : (Float[ndarray, "observation"], Float[ndarray, "observation"])
        Levels, NaN where one is below the limit, and limits.
    """
    own: dict[str, int] = {}
    places = []
    for row in rows:
        one = row.a.profile.id
        places.append((trial.ids.index(one), own.get(one, 0)))
        own[one] = own.get(one, 0) + 1
    grid = _Grid(rows, places, (trial.n_subjects, max(own.values(), default=1)))
    data = {**_parameters(trial, grid, partial), **_points(rows, *known)}
    data["reason"] = grid.of(lambda row: "; ".join(row.reasons.values()), "", object)
    each = [grid.of(lambda row, n=n: n in row.reasons, False, bool)[1] for n in NAMES]
    data["flags"] = (("subject", "interval", "flag"), np.stack(each, axis=-1))
    unit = trial.units
    coords = {
        "subject": list(trial.ids),
        "interval": np.arange(1, grid.shape[1] + 1),
        "flag": list(NAMES),
        "dose_number": grid.of(lambda row: row.a.profile.number, 0, int),
        "dose_time": (*grid.of(lambda row: row.a.profile.start, np.nan), {"units": unit["TIME"]}),
        "dose": (*grid.of(lambda row: row.a.profile.dose.amount, np.nan), {"units": unit["AMT"]}),
        "route": grid.of(lambda row: row.a.profile.dose.route, "", object),
    }
    made = xr.Dataset(data, coords=coords)
    made["TIME"].attrs = {"units": unit["TIME"]}
    made["DV"].attrs = {"units": unit["DV"], "long_name": "Concentration"}
    return made.isel(interval=0, drop=True) if grid.shape[1] == 1 else made


def _parameters(
    trial: Trial, grid: _Grid, partial: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    unit, names = units_of(trial), {q.name: q.long_name for q in QUANTITIES}
    for start, end in partial:
        names[window(start, end)] = f"AUC from {start:g} to {end:g} {trial.units['TIME']}"
        unit[window(start, end)] = unit["AUC_last"]
    return {
        name: (
            *grid.of(lambda row, n=name: row.values.get(n, np.nan), np.nan),
            {"units": unit[name], "long_name": long},
        )
        for name, long in names.items()
    }


def _points(rows: list[Row], level: np.ndarray, limit: np.ndarray) -> dict[str, Any]:
    """Return the levels of all profiles on one axis, those below the limit at the limit."""
    table = []
    for row in rows:
        profile, a = row.a.profile, row.a
        extra = len(a.curve.time) - len(profile.time)
        for i, (time, at) in enumerate(zip(profile.time, profile.observation, strict=True)):
            below = not level[at] > 0
            shown = limit[at] if below else level[at]
            used = bool(a.slope.used[0, i + extra])
            table.append((profile.id, profile.number, time, shown, below, used))
    columns = zip(*table, strict=True) if table else [()] * 6
    kinds = (
        ("ID", str),
        ("dose_of", int),
        ("TIME", float),
        ("DV", float),
        ("BLQ", bool),
        ("in_slope", bool),
    )
    return {
        name: ("point", np.array(values, dtype=object if kind is str else kind))
        for (name, kind), values in zip(kinds, columns, strict=True)
    }
