r"""What are the percentiles of levels along time? In bins, or at places by what lies near.

References
----------
.. [1] Yu K, Jones MC (1998). Local linear quantile regression. J Am Stat Assoc 93:228-237.
   doi:10.1080/01621459.1998.10474104
.. [2] Cleveland WS (1979). Robust locally weighted regression and smoothing scatterplots. J Am Stat
   Assoc 74:829-836. doi:10.1080/01621459.1979.10481038
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from popk.diagnostics.bins import places

_GRID = 60  # places of a smooth line


class Binned:
    """Percentiles in bins of time.

    Parameters
    ----------
    time : Float[ndarray, "level"]
    seen : Bool[ndarray, "level"]
        The levels that say where a bin's middle is, and how many it has.
    edges : Float[ndarray, "edge"]

    Attributes
    ----------
    left, right, center : Float[ndarray, "bin"]
    levels : Float[ndarray, "bin"]
        How many levels count.
    place : Int[ndarray, "level"]
        The bin of each level, -1 outside the edges.
    """

    def __init__(self, time: np.ndarray, seen: np.ndarray, edges: np.ndarray):
        self.place = places(time, edges)
        self.left, self.right = edges[:-1], edges[1:]
        each = [self.place == i for i in range(len(self.left))]
        self.center = np.array([np.median(time[own & seen]) for own in each])
        self.levels = np.array([(own & seen).sum() for own in each])
        self._each = each

    def percentiles(self, values: np.ndarray, asked: Sequence[float]) -> np.ndarray:
        """Return percentiles [percentile, bin, *sample] of values [*sample, level], NaN left out."""
        return np.stack([over(values[..., own], asked, axis=-1) for own in self._each], axis=1)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return means [bin, *sample] of values [*sample, level]."""
        return np.stack([values[..., own].mean(axis=-1) for own in self._each])

    def typical(self, values: np.ndarray) -> np.ndarray:
        """Return the median of the values [*sample, level] of each level's bin."""
        found = values.copy()
        for own in self._each:
            found[..., own] = np.median(values[..., own], axis=-1, keepdims=True)
        return found


class Local:
    r"""Percentiles at places by what lies near: local constant quantile regression [1]_.

    At a place t a level at :math:`t_j` has the weight :math:`(1 - |t_j - t|^3 / h^3)^3`, with h the
    distance to the nearest `span` of all levels [2]_, and the percentile is that of the weighted
    levels. Weights do not depend on levels: the bias that a steep course has within h is the same for
    observed and simulated ones.

    Parameters
    ----------
    time : Float[ndarray, "level"]
    seen : Bool[ndarray, "level"]
        The levels that say what the nearest are.
    span : float

    Attributes
    ----------
    left, right, center : Float[ndarray, "bin"]
        The places, of no width.
    levels : Float[ndarray, "bin"]
        The effective number of levels at each, :math:`(\sum w)^2 / \sum w^2`.
    place : Int[ndarray, "level"]
        The nearest place of each level.
    """

    def __init__(self, time: np.ndarray, seen: np.ndarray, span: float):
        own = time[seen]
        self.center = _grid(own)
        self.left = self.right = self.center
        distance = np.abs(own - self.center[:, None])
        count = min(math.ceil(span * own.size), own.size)
        reach = np.sort(distance, axis=1)[:, count - 1]
        # Ties may hold more than the span: the reach is never 0.
        self._reach = np.maximum(reach, 1e-3 * max(np.ptp(own), 1e-12))
        self.weight = self._weigh(time)
        kept = self.weight * seen
        self.levels = kept.sum(1) ** 2 / (kept**2).sum(1)
        self.place = np.abs(time - self.center[:, None]).argmin(axis=0)
        self._time = time

    def _weigh(self, time: np.ndarray) -> np.ndarray:
        far = np.abs(time - self.center[:, None]) / (1.0001 * self._reach[:, None])
        return np.clip(1 - far**3, 0, None) ** 3

    def percentiles(self, values: np.ndarray, asked: Sequence[float]) -> np.ndarray:
        """Return percentiles [percentile, bin, *sample] of values [*sample, level], NaN left out."""
        rows = np.atleast_2d(values)
        order = np.argsort(rows, axis=1)
        ordered = np.take_along_axis(rows, order, axis=1)
        known = ~np.isnan(ordered)
        found = np.empty((len(asked), len(self.center), len(rows)))
        for i, weight in enumerate(self.weight):
            found[:, i] = _weighted(ordered, np.where(known, weight[order], 0.0), asked)
        return found if values.ndim > 1 else found[..., 0]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return means [bin, *sample] of values [*sample, level]."""
        return np.moveaxis(values @ (self.weight / self.weight.sum(1, keepdims=True)).T, -1, 0)

    def typical(self, values: np.ndarray) -> np.ndarray:
        """Return the local median of values [*sample, level] at each level's time."""
        middle = np.moveaxis(self.percentiles(values, [50])[0], 0, -1)
        after = np.clip(np.searchsorted(self.center, self._time), 1, max(len(self.center) - 1, 1))
        if len(self.center) == 1:
            return np.broadcast_to(middle, values.shape)
        start, end = self.center[after - 1], self.center[after]
        part = np.clip((self._time - start) / (end - start), 0, 1)
        return (1 - part) * middle[..., after - 1] + part * middle[..., after]


def _grid(time: np.ndarray) -> np.ndarray:
    """Return places along time: half of them even, half where levels are."""
    even = np.linspace(time.min(), time.max(), _GRID // 2)
    dense = np.quantile(time, np.linspace(0, 1, _GRID // 2))
    return np.unique(np.concatenate([even, dense]))


def _weighted(ordered: np.ndarray, weight: np.ndarray, asked: Sequence[float]) -> np.ndarray:
    """Return percentiles [percentile, sample] of ordered, weighted values [sample, level].

    The middle of a value's weight is where it stands, and between two values the line: with equal
    weights Hazen's definition.
    """
    total = weight.cumsum(axis=1)
    whole = total[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (total - weight / 2) / whole
    found = np.empty((len(asked), len(ordered)))
    counts = weight > 0
    for k, (at, y, own) in enumerate(zip(middle, ordered, counts, strict=True)):
        found[:, k] = np.interp(np.asarray(asked) / 100, at[own], y[own]) if own.any() else np.nan
    return found


def over(values: np.ndarray, asked: Sequence[float], *, axis: int) -> np.ndarray:
    """Return percentiles of what is not NaN; NaN where nothing is left."""
    if not np.isnan(values).any():  # by far the faster function
        return np.percentile(values, asked, axis=axis)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanpercentile(values, asked, axis=axis)
