r"""Are ranks uniform? The empirical distribution of ranks against a simultaneous band.

References
----------
.. [1] Säilynoja T, Bürkner PC, Vehtari A (2022). Graphical test for discrete uniformity and its
   applications in goodness-of-fit evaluation and multiple sample comparison. Stat Comput 32:32.
   doi:10.1007/s11222-022-10090-6
.. [2] Holm S (1979). A simple sequentially rejective multiple test procedure. Scand J Stat 6:65-70.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

_SIMULATED = (
    10_000  # sets of uniform ranks, by which the band is widened until it holds all at once
)


class Band(NamedTuple):
    """Where the empirical distribution of uniform ranks lies, at all places at once.

    Attributes
    ----------
    place : Float[ndarray, "place"]
        (r + 1) / (largest + 1) for each rank r but the largest.
    lower, upper : Float[ndarray, "place"]
        The share of ranks at or below it.
    """

    place: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def band(count: int, largest: int, probability: float) -> Band:
    r"""Return the band that holds the distribution of so many uniform ranks everywhere at once [1]_.

    At each place z the number of ranks at or below it is binomial(count, z). The central interval of
    probability :math:`1 - \gamma` is taken everywhere, with :math:`\gamma` such that all hold at once
    with the probability wanted.

    Parameters
    ----------
    count : int
        How many ranks there are.
    largest : int
        The largest rank that there may be.
    probability : float
    """
    place = np.arange(1, largest + 1) / (largest + 1)
    gamma = np.quantile(_extremes(count, largest), 1 - probability)
    low, high = (binom.ppf(q, count, place) / count for q in (gamma / 2, 1 - gamma / 2))
    return Band(place, low, high)


def share(ranks: np.ndarray, largest: int) -> np.ndarray:
    """Return the share of ranks at or below each of 0 to largest - 1."""
    counts = np.bincount(ranks.astype(int), minlength=largest + 1)[:largest]
    return np.cumsum(counts) / len(ranks)


def p_value(ranks: np.ndarray, largest: int) -> float:
    """Return the probability that uniform ranks would leave the middle as far at some place [1]_.

    Parameters
    ----------
    ranks : Int[ndarray, "rank"]
    largest : int
        The largest rank that there may be.
    """
    counts = np.rint(share(ranks, largest) * len(ranks)).astype(int)
    own = _tails(len(ranks), largest)[np.arange(largest), counts].min()
    simulated = _extremes(len(ranks), largest)
    # What is equal but for rounding counts as at least as far.
    return float((1 + (simulated <= own * (1 + 1e-9)).sum()) / (1 + len(simulated)))


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """Return p-values as if each test were the only one of them (Holm's [2]_)."""
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return found


@lru_cache(maxsize=8)
def _tails(count: int, largest: int) -> np.ndarray:
    """Return twice the smaller tail of each number of ranks at each place [place, number]."""
    place = (np.arange(1, largest + 1) / (largest + 1))[:, None]
    number = np.arange(count + 1)[None]
    below, above = binom.cdf(number, count, place), binom.sf(number - 1, count, place)
    return 2 * np.minimum(below, above)


@lru_cache(maxsize=8)
def _extremes(count: int, largest: int) -> np.ndarray:
    """Return the smallest tail over all places of each of many sets of uniform ranks."""
    draw, tails = np.random.default_rng(0), _tails(count, largest)
    found = []
    for _ in range(10):  # in parts, so that memory stays small
        equal = np.full(largest + 1, 1 / (largest + 1))
        counts = draw.multinomial(count, equal, size=_SIMULATED // 10).cumsum(1)[:, :largest]
        found.append(tails[np.arange(largest), counts].min(1))
    return np.concatenate(found)
