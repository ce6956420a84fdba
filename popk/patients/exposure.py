r"""How much drug over some time? AUC, Cmax, Cmin and Ctrough of draws of a concentration.

.. math:: AUC = \int_{t_0}^{t_1} C(t)\,dt

by Gauss-Legendre quadrature [1]_ between doses, in four pieces that lengthen fourfold, since
concentrations change fastest after a dose. For sums of exponentials its relative error is below 1e-6
where the fastest rate constant times the time between doses is below 60.

References
----------
.. [1] Davis PJ, Rabinowitz P (1984). Methods of Numerical Integration, 2nd ed. Academic Press.
   doi:10.1016/C2013-0-10566-1
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from popk.patients.regimen import asking, joined, written_out
from popk.trial import Trial

_NODES = 8
_PIECES = np.array([0.0, 1 / 64, 1 / 16, 1 / 4, 1.0])
_MOST = 4000  # records that one exposure asks for


class Grid(NamedTuple):
    """Where a concentration is asked for.

    Attributes
    ----------
    time, weight : Float[ndarray, "point"]
        Quadrature weights, 0 at the ends of segments.
    after : Bool[ndarray, "point"]
        Whether the point stands after the doses of its time.
    """

    time: np.ndarray
    weight: np.ndarray
    after: np.ndarray


def exposure(
    patient: Trial, interval: tuple[float, float], predicted: Callable[[Trial], np.ndarray]
) -> xr.Dataset:
    """Return the exposure to a concentration over an interval, for each draw.

    Parameters
    ----------
    patient : Trial
        Doses that are known or planned.
    interval : tuple of float
        Begin and end [unit of TIME].
    predicted : Callable
        Of a trial: the concentration at its records [sample, record].

    Raises
    ------
    ValueError
        The interval is none, or holds too many doses.
    """
    grid, whole, points = asked(patient, interval)
    begin, end = map(float, interval)
    found = predicted(whole)[:, points]
    level, time = patient.units["DV"], patient.units["TIME"]
    peak = found.argmax(1)
    data = {
        "AUC": ("sample", found @ grid.weight, {"units": f"{level} * {time}"}),
        "Cmax": ("sample", found.max(1), {"units": level}),
        "Tmax": ("sample", grid.time[peak], {"units": time}),
        "Cmin": ("sample", found.min(1), {"units": level}),
        "Ctrough": ("sample", found[:, -1], {"units": level}),
        "Cavg": ("sample", found @ grid.weight / (end - begin), {"units": level}),
    }
    return xr.Dataset(data, attrs={"ID": patient.ids[0], "begin": begin, "end": end})


def asked(patient: Trial, interval: tuple[float, float]) -> tuple[Grid, Trial, np.ndarray]:
    """Return where a concentration is asked for, the patient's records with that, and which they are.

    Raises
    ------
    ValueError
        The interval is none, or holds too many doses.
    """
    begin, end = map(float, interval)
    if not (np.isfinite([begin, end]).all() and end > begin):
        raise ValueError(f"interval is {interval}; give its begin and a later end, two times")
    frame = written_out(patient.host.frame)
    grid = _grid(_cuts(frame, begin, end))
    if len(grid.time) > _MOST:
        raise ValueError(f"the interval {interval} holds too many doses; give a shorter one")
    order = np.lexsort((grid.after, grid.time))
    grid = Grid(*(x[order] for x in grid))
    whole = joined(frame, asking(grid.time), patient, after=grid.after.tolist())
    points = whole["ROW"].astype(str).str.startswith("forecast ").to_numpy()
    return grid, patient.replaced(whole), np.flatnonzero(points)


def _cuts(frame: Any, begin: float, end: float) -> np.ndarray:
    """Return the ends of the segments between doses and ends of infusions."""
    rows = frame[frame["EVID"].ne(0)]
    infused = rows[rows["RATE"].gt(0)]
    stops = infused["TIME"] + infused["AMT"] / infused["RATE"]
    cuts = np.concatenate([rows["TIME"], stops])
    inside = cuts[(cuts > begin) & (cuts < end)]
    return np.unique(np.concatenate([[begin], inside, [end]]))


def _grid(cuts: np.ndarray) -> Grid:
    """Return the points and weights of a composite rule, with both ends of each segment."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    x = (_PIECES[:-1, None] + np.diff(_PIECES)[:, None] * (nodes + 1) / 2).ravel()
    w = (np.diff(_PIECES)[:, None] * weights / 2).ravel()
    times, all_weights, after = [], [], []
    for low, high in pairwise(cuts):
        times += [low, *(low + (high - low) * x), high]
        all_weights += [0.0, *((high - low) * w), 0.0]
        after += [True, *([False] * len(x)), False]
    return Grid(np.array(times), np.array(all_weights), np.array(after))
