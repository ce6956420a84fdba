"""In which bins of time are levels compared? Given edges, quantiles, or the sampling times.

References
----------
.. [1] Lavielle M, Bleakley K (2011). Automatic data binning for improved visual diagnosis of
   pharmacometric models. J Pharmacokinet Pharmacodyn 38:861-871. doi:10.1007/s10928-011-9223-3
"""

import itertools
from collections.abc import Sequence

import numpy as np

Bins = int | Sequence[float] | np.ndarray | None

#: Quantile bins hold about this many levels or more (the 5th percentile of fewer is their lowest
#: one), and there are at most so many: more cannot be told apart by eye.
LEVELS_A_BIN, MAX_BINS = 20, 12
#: So many sampling times can be told apart by eye; where there are more, bins are quantiles too.
MAX_CLUSTERS = 20
#: Times are told apart to this part of the time axis: exact ties must not look like no spread.
RESOLUTION = 1 / 5000
#: A sampling time has at least this many levels.
LEVELS_A_CLUSTER = 5


def edges_of(time: np.ndarray, bins: Bins, unit: str) -> np.ndarray:
    """Return the edges of bins, each of which holds levels.

    Parameters
    ----------
    time : Float[ndarray, "level"]
        When the levels were taken.
    bins : int, sequence of float or None
        A number of quantile bins, edges, or None for `sampling_times`.
    unit : str
        The unit of time, for errors.

    Raises
    ------
    ValueError
        There are no levels, the edges do not increase, there are too many bins, or one is empty.
    """
    if time.size == 0:
        raise ValueError("there is no level above its limit of quantification")
    if bins is None:
        return sampling_times(time)
    if isinstance(bins, int):
        return _quantile_edges(time, bins)
    edges = np.asarray(bins, dtype=float)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"bins={bins}: give at least two increasing edges, or a number of bins")
    found = places(time, edges)
    counts = np.bincount(found[found >= 0], minlength=edges.size - 1)
    for i in np.flatnonzero(counts == 0):
        raise ValueError(
            f"the bin from {edges[i]:g} to {edges[i + 1]:g} {unit} has no levels; widen it"
        )
    return edges


def places(time: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of each time, -1 outside the edges; the last bin has its right edge."""
    place = np.searchsorted(edges, time, side="right") - 1
    place = np.where(time == edges[-1], len(edges) - 2, place)
    return np.where((time < edges[0]) | (time > edges[-1]), -1, place)


def sampling_times(time: np.ndarray) -> np.ndarray:
    r"""Return the edges of bins around the times at which levels were meant to be taken.

    Sorted times are cut where a mixture of normals, one a bin, has the highest Bayesian information
    criterion, as [1]_ do with equal spreads; with n of N levels and standard deviation s, a bin
    counts :math:`n \log(n / N) - n \log s - \tfrac32 \log N`. The best cuts are found exactly, by
    dynamic programming; each is then moved to the widest gap between the medians of its bins.
    Spread is taken to be at least 1/5000 of the time axis, a bin to have at least 5 levels. Where
    that gives more than 20 bins, or bins that cover half of the time axis, there are no sampling
    times to be seen: the edges are quantiles.

    Parameters
    ----------
    time : Float[ndarray, "level"]
    """
    times, counts = np.unique(time, return_counts=True)
    span = float(times[-1] - times[0])
    if len(times) < 3:
        return _between(times, range(len(times) - 1))
    cuts = _at_gaps(_best_cuts(times, counts, RESOLUTION * span), times, counts)
    first, last = [0, *(i + 1 for i in cuts)], [*cuts, len(times) - 1]
    if len(cuts) < MAX_CLUSTERS and np.sum(times[last] - times[first]) < span / 2:
        return _between(times, cuts)
    count = min(max(3, time.size // LEVELS_A_BIN), MAX_BINS)
    return _quantile_edges(time, min(count, len(times)))


def _quantile_edges(time: np.ndarray, count: int) -> np.ndarray:
    """Return edges between bins of about as many levels each; ties stay together."""
    if count < 1:
        raise ValueError(f"bins={count}: give at least 1")
    times, counts = np.unique(time, return_counts=True)
    if count > len(times):
        raise ValueError(f"bins={count}: the levels stand at {len(times)} times; give at most that")
    before = np.cumsum(counts)[:-1]
    cuts = [int(np.abs(before - time.size * i / count).argmin()) for i in range(1, count)]
    return _between(times, np.unique(cuts))


def _between(times: np.ndarray, cuts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return edges halfway between the times at which bins end and the next ones."""
    inner = [(times[i] + times[i + 1]) / 2 for i in cuts]
    first, last = times[0], times[-1]
    return np.array([first, *inner, last if last > first else first + 1.0])


def _best_cuts(times: np.ndarray, counts: np.ndarray, resolution: float) -> list[int]:
    """Return the places after which sorted times are cut; see `sampling_times`."""
    x = times - times.mean()
    sums = [np.concatenate([[0.0], np.cumsum(counts * x**k)]) for k in (0, 1, 2)]
    total = sums[0][-1]
    smallest = min(LEVELS_A_CLUSTER, total)
    best = np.full(len(x) + 1, -np.inf)
    best[0] = 0.0
    came_from = np.zeros(len(x) + 1, dtype=int)
    for end in range(1, len(x) + 1):
        n, first, second = (s[end] - s[:end] for s in sums)
        variance = np.maximum(second / n - (first / n) ** 2, resolution**2)
        score = n * np.log(n / total) - n / 2 * np.log(variance) - 1.5 * np.log(total)
        score = best[:end] + np.where(n < smallest, -np.inf, score)
        came_from[end] = int(score.argmax())
        best[end] = score[came_from[end]]
    cuts, at = [], len(x)
    while came_from[at] > 0:
        at = int(came_from[at])
        cuts.append(at - 1)
    return cuts[::-1]


def _at_gaps(cuts: list[int], times: np.ndarray, counts: np.ndarray) -> list[int]:
    """Return the cuts, each moved to the widest gap between the middles of the bins beside it.

    A normal with a wide spread takes in the late times of the narrow one before it.
    """
    before = np.cumsum(counts)
    ends = [0, *(before[i] for i in cuts), before[-1]]
    middles = [int(np.searchsorted(before, (a + b) / 2)) for a, b in itertools.pairwise(ends)]
    gaps = np.diff(times)
    moved = [a + int(gaps[a:b].argmax()) for a, b in itertools.pairwise(middles)]
    sizes = np.diff([0, *(before[i] for i in moved), before[-1]])
    return moved if sizes.min() >= LEVELS_A_CLUSTER else cuts
