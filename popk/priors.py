"""What is believed before the data? Priors in the field's words."""

import math
from typing import NamedTuple

import numpyro.distributions as dist


class Fixed(NamedTuple):
    """A value that is known rather than estimated; see `fixed`."""

    value: float


Prior = float | Fixed | dist.Distribution


def fixed(value: float) -> Fixed:
    """Return a value that takes the place of a prior: the parameter is not estimated.

    Parameters
    ----------
    value : float
        In the parameter's unit.
    """
    return Fixed(float(value))


def lognormal(median: float, *, cv: float) -> dist.Distribution:
    r"""Return the log-normal distribution with a given median and coefficient of variation.

    .. math:: \log\theta \sim N(\log m, \log(1 + cv^2))

    Parameters
    ----------
    median : float
        The median, in the parameter's unit; positive.
    cv : float
        Standard deviation over mean, as a fraction (0.5 is 50%); positive.

    Raises
    ------
    ValueError
        A number is not positive.

    Examples
    --------
    >>> float(lognormal(2.8, cv=0.5).icdf(0.5).round(6))
    2.8
    """
    if not (median > 0 and cv > 0):
        raise ValueError(f"lognormal(median={median}, cv={cv}): both must be positive")
    return dist.LogNormal(math.log(median), math.sqrt(math.log1p(cv**2)))


def half_normal(prior: Prior) -> Fixed | dist.Distribution:
    """Return the prior of a standard deviation: a number is the scale of a half-normal.

    Raises
    ------
    ValueError
        The number is not positive.
    """
    if isinstance(prior, Fixed | dist.Distribution):
        return prior
    if not prior > 0:
        raise ValueError(
            f"{prior} is no scale of a half-normal prior: it must be positive; "
            f"popk.fixed({prior}) fixes the value itself"
        )
    return dist.HalfNormal(float(prior))
