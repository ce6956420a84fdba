r"""How fast do levels fall at the end? The regression of their logarithms on time.

Of all regressions on the last points, from three on, the one with the highest adjusted R2 is taken; and
of those that come within 1e-4 of it, the one with the most points [1]_ [2]_.

.. math:: R^2_{adj} = 1 - (1 - R^2)\,(n - 1)/(n - 2)

References
----------
.. [1] Gabrielsson J, Weiner D (2012). Non-compartmental analysis. Methods Mol Biol 929:377-389.
   doi:10.1007/978-1-62703-050-2_16
.. [2] Kim H, Han S, Cho YS, Yoon SK, Bae KS (2018). Development of R packages: 'NonCompart' and 'ncar'
   for noncompartmental analysis (NCA). Transl Clin Pharmacol 26:10-15. doi:10.12793/tcp.2018.26.1.10
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

#: How far an adjusted R2 may lie below the best one [1]_.
TIED = 1e-4
LEAST_POINTS = 3
#: Log levels that fall by less than this are constant but for rounding.
FLAT = 1e-9


class Slope(NamedTuple):
    """The terminal regression of each profile; NaN where there is none.

    Attributes
    ----------
    lambda_z : Float[ndarray, "draw"]
        Minus the slope of log levels [1/time].
    intercept : Float[ndarray, "draw"]
        Of log levels at time 0.
    r2_adjusted : Float[ndarray, "draw"]
    points : Int[ndarray, "draw"]
        How many there are; 0 where there is no regression.
    first, last : Float[ndarray, "draw"]
        The times of the first and last point [time].
    candidates : Int[ndarray, "draw"]
        How many points could have been used.
    used : Bool[ndarray, "draw point"]
        Which are.
    """

    lambda_z: np.ndarray
    intercept: np.ndarray
    r2_adjusted: np.ndarray
    points: np.ndarray
    first: np.ndarray
    last: np.ndarray
    candidates: np.ndarray
    used: np.ndarray


class _Fits(NamedTuple):
    """Regressions on the points from each one to the last [draw, point]."""

    slope: np.ndarray
    intercept: np.ndarray
    r2_adjusted: np.ndarray
    points: np.ndarray


def terminal_slope(
    time: Float[np.ndarray, "point"],
    level: Float[np.ndarray, "draw point"],
    usable: Bool[np.ndarray, "draw point"],
    *,
    chosen: bool = False,
) -> Slope:
    """Return the terminal slope of several profiles at the same times.

    Parameters
    ----------
    time : Float[ndarray, "point"]
        Since the dose [time].
    level : Float[ndarray, "draw point"]
        Levels [concentration].
    usable : Bool[ndarray, "draw point"]
        Which points may be used: quantified ones, after the highest.
    chosen : bool
        Whether all of these are to be used, instead of as many of the last as fit best.

    Returns
    -------
    Slope
        A slope that is not negative is none: NaN, with 0 points.
    """
    fits = _fits(time, level, usable)
    candidates = usable.sum(axis=1)
    falls = fits.slope * np.ptp(time) < -FLAT if time.size else usable
    possible = usable & (fits.points >= LEAST_POINTS) & falls
    if chosen:
        possible &= fits.points == candidates[:, None]
    score = np.where(possible, fits.r2_adjusted, -np.inf)
    best = score.max(axis=1, initial=-np.inf)
    tied = possible & (score >= best[:, None] - TIED)
    start, found, rows = tied.argmax(axis=1), tied.any(axis=1), np.arange(len(tied))
    end = usable.shape[1] - 1 - usable[:, ::-1].argmax(axis=1)

    def of(values: np.ndarray) -> np.ndarray:
        return np.where(found, values, np.nan)

    return Slope(
        lambda_z=of(-fits.slope[rows, start]),
        intercept=of(fits.intercept[rows, start]),
        r2_adjusted=of(fits.r2_adjusted[rows, start]),
        points=np.where(found, fits.points[rows, start], 0),
        first=of(time[start]),
        last=of(time[end]),
        candidates=candidates,
        used=usable & found[:, None] & (np.arange(usable.shape[1]) >= start[:, None]),
    )


def _fits(time: np.ndarray, level: np.ndarray, usable: np.ndarray) -> _Fits:
    """Return the regression on the usable points from each on, by sums from the end."""
    middle = time.mean()  # sums of squares around 0 would lose digits
    x = np.where(usable, time - middle, 0.0)
    y = np.log(np.where(usable, level, 1.0))
    around = y.sum(axis=1, keepdims=True) / np.maximum(usable.sum(axis=1, keepdims=True), 1)
    y = np.where(usable, y - around, 0.0)
    n, sx, sy, sxx, sxy, syy = (
        values[:, ::-1].cumsum(axis=1)[:, ::-1]
        for values in (usable * 1.0, x, y, x * x, x * y, y * y)
    )
    count = np.maximum(n, 1)
    dxx, dxy, dyy = sxx - sx * sx / count, sxy - sx * sy / count, syy - sy * sy / count
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(dxx > 0, dxy / dxx, np.nan)
        r2 = np.where(dyy > 0, np.clip(dxy * dxy / (dxx * dyy), 0.0, 1.0), 0.0)
        adjusted = np.where(n > 2, 1 - (1 - r2) * (n - 1) / np.maximum(n - 2, 1), np.nan)
    intercept = around + sy / count - slope * (sx / count + middle)
    return _Fits(slope, intercept, adjusted, n.astype(int))
