r"""What is the area under levels at some times? Trapezoids, linear and logarithmic.

Over an interval of length d from C1 to C2 the linear rule takes levels to lie on a straight line,

.. math:: AUC = d\,(C_1 + C_2)/2, \qquad AUMC = d\,(t_1 C_1 + t_2 C_2)/2

and the logarithmic rule on an exponential with rate constant :math:`k = \ln(C_1/C_2)/d` [1]_,

.. math::
   AUC = (C_1 - C_2)/k, \qquad AUMC = (t_1 C_1 - t_2 C_2)/k + (C_1 - C_2)/k^2

References
----------
.. [1] Yeh KC, Kwan KC (1978). A comparison of numerical integrating algorithms by trapezoidal, Lagrange,
   and spline approximation. J Pharmacokinet Biopharm 6:79-98. doi:10.1007/BF01066064
.. [2] Purves RD (1992). Optimum numerical integration methods for estimation of area-under-the-curve
   (AUC) and area-under-the-moment-curve (AUMC). J Pharmacokinet Biopharm 20:211-226.
   doi:10.1007/BF01062525
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

METHODS = ("lin-up/log-down", "linear", "log")

#: Levels closer than this are the same: the logarithmic rule is 0/0 there.
SAME = 1e-10


class Areas(NamedTuple):
    """Areas from the first point on, at each point.

    Attributes
    ----------
    auc, aumc : Float[ndarray, "draw point"]
        What has come together up to each point; at a point that is not joined, up to the one before.
    """

    auc: Float[np.ndarray, "draw point"]
    aumc: Float[np.ndarray, "draw point"]

    def at(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both areas up to one point of each draw."""
        rows = np.arange(len(place))
        return self.auc[rows, place], self.aumc[rows, place]


def by_logarithm(first: np.ndarray, second: np.ndarray, method: str) -> Bool[np.ndarray, "*shape"]:
    """Return which intervals the logarithmic rule holds for; it needs two levels above 0.

    Parameters
    ----------
    first, second : Float[ndarray, "*shape"]
        The levels at both ends.
    method : str
        "linear": none. "lin-up/log-down": where levels fall. "log": where they rise as well.
    """
    positive = (first > 0) & (second > 0) & (abs(first - second) > SAME * abs(first))
    if method == "linear":
        return positive & False
    return positive & (second < first) if method == "lin-up/log-down" else positive


def trapezoids(time: np.ndarray, level: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return AUC and AUMC of intervals [..., 2 ends].

    Parameters
    ----------
    time, level : Float[ndarray, "*shape 2"]
        Of the two ends.
    method : str
        One of `METHODS`.
    """
    (t1, t2), (c1, c2) = np.moveaxis(time, -1, 0), np.moveaxis(level, -1, 0)
    length = t2 - t1
    auc, aumc = length * (c1 + c2) / 2, length * (t1 * c1 + t2 * c2) / 2
    curved = by_logarithm(c1, c2, method) & (length > 0)
    ratio = np.where(curved, c1 / np.where(curved, c2, 1.0), np.e)
    k = np.log(ratio) / np.where(curved, length, 1.0)
    auc = np.where(curved, (c1 - c2) / k, auc)
    return auc, np.where(curved, (t1 * c1 - t2 * c2) / k + (c1 - c2) / k**2, aumc)


def previous(joined: Bool[np.ndarray, "draw point"]) -> np.ndarray:
    """Return the joined point before each point, -1 where there is none [draw, point]."""
    last = np.maximum.accumulate(np.where(joined, np.arange(joined.shape[1]), -1), axis=1)
    return np.concatenate([np.full((len(last), 1), -1), last[:, :-1]], axis=1)


def areas(
    time: Float[np.ndarray, "point"],
    level: Float[np.ndarray, "draw point"],
    joined: Bool[np.ndarray, "draw point"],
    method: str,
) -> Areas:
    """Return the areas under levels up to each point.

    Parameters
    ----------
    time : Float[ndarray, "point"]
        Since the dose, not falling [time].
    level : Float[ndarray, "draw point"]
        Levels of several profiles at the same times [concentration].
    joined : Bool[ndarray, "draw point"]
        Which of them count; the others are passed over.
    method : str
        One of `METHODS`.

    Returns
    -------
    Areas
        Their first joined point has areas of 0.
    """
    before = previous(joined)
    started = joined & (before >= 0)
    earlier = np.where(started, before, 0)
    when = np.stack([time[earlier], np.broadcast_to(time, level.shape)], axis=-1)
    known = np.where(joined, level, 0.0)
    both = np.stack([np.take_along_axis(known, earlier, axis=1), known], axis=-1)
    auc, aumc = trapezoids(when, both, method)
    return Areas(*(np.where(started, x, 0.0).cumsum(axis=1) for x in (auc, aumc)))


def between(
    time: np.ndarray, level: np.ndarray, at: float, method: str
) -> Float[np.ndarray, "draw"]:
    """Return the level at a time between two points [draw, 2 ends], as the trapezoid has it."""
    (t1, t2), (c1, c2) = np.moveaxis(time, -1, 0), np.moveaxis(level, -1, 0)
    share = np.where(t2 > t1, (at - t1) / np.where(t2 > t1, t2 - t1, 1.0), 0.0)
    curved = by_logarithm(c1, c2, method)
    ratio = np.where(curved, c2 / np.where(curved, c1, 1.0), 1.0)
    return np.where(curved, c1 * ratio**share, c1 + share * (c2 - c1))
