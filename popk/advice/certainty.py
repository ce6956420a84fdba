r"""How certain is a probability that draws give? Monte Carlo intervals of shares and means.

Draws of one population draw are not independent: the variance of a mean is that of the clusters [1]_,

.. math:: \widehat{V}(\bar x) = \frac{C}{C - 1} \frac{1}{n^2}
    \sum_{c=1}^{C} \Big(\sum_{i \in c} (x_i - \bar x)\Big)^2,

and a share has Wilson's interval [2]_ for the number of independent draws that this amounts to.

References
----------
.. [1] Cochran WG (1977). Sampling Techniques, 3rd ed, chapter 9. Wiley.
.. [2] Wilson EB (1927). Probable inference, the law of succession, and statistical inference. J Am
   Stat Assoc 22:209-212. doi:10.1080/01621459.1927.10502953
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from popk.patients.courses import clusters_of
from popk.patients.twin import Twin

LEVEL = 0.95  # of intervals for Monte Carlo error
_Z = float(norm.ppf(0.5 + LEVEL / 2))


class Estimate(NamedTuple):
    """A number and its 95% Monte Carlo interval, which more draws would narrow.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float


class Certainty(NamedTuple):
    """How far the draws of a twin can be counted on.

    Attributes
    ----------
    clusters : Int[ndarray, "sample"]
        Which draws are not independent.
    independent : float
        How many draws are, at most: their effective sample size.
    """

    clusters: np.ndarray
    independent: float

    def share(self, hits: Any) -> Estimate:
        """Return the share of draws that are true."""
        x = np.asarray(hits, dtype=float)
        p, variance = float(x.mean()), self._variance(x)
        # Where all draws agree their variance says nothing.
        agreed = min(self.independent, float(self.clusters.max() + 1))
        size = p * (1 - p) / variance if variance > 0 and 0 < p < 1 else agreed
        return Estimate(p, *wilson(p, size))

    def mean(self, values: Any) -> Estimate:
        """Return the mean of draws."""
        x = np.asarray(values, dtype=float)
        half, mean = _Z * self._variance(x) ** 0.5, float(x.mean())
        return Estimate(mean, max(mean - half, float(x.min())), min(mean + half, float(x.max())))

    def _variance(self, x: np.ndarray) -> float:
        sums = np.bincount(self.clusters, weights=x - x.mean())
        many = max(len(sums), 2)
        return float(max(sums @ sums / len(x) ** 2 * many / (many - 1),
                         x.var() / self.independent))  # fmt: skip


def certainty_of(twin: Twin) -> Certainty:
    """Return how far the draws of a twin can be counted on."""
    clusters = clusters_of(twin)
    return Certainty(clusters, max(1.0, min(float(len(clusters)), twin.ess)))


def wilson(p: float, size: float) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share among so many.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(0.0, 100)]
    [0.0, 0.037]
    """
    middle = (p + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * (p * (1 - p) / size + _Z**2 / (4 * size**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
