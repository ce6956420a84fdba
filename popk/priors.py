"""What is believed before the data? Priors in the field's words."""

import math
from typing import Any, NamedTuple

import numpyro.distributions as dist


class Fixed(NamedTuple):
    """A value that is known rather than estimated; see `fixed`."""

    value: float


Known = dist.Distribution | Fixed
Prior = float | Known


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


def prior(estimate: float, *, rse: float, positive: bool = False) -> dist.Distribution:
    r"""Return the prior that a published estimate and its precision amount to.

    A normal distribution with mean :math:`e` and standard deviation :math:`r\,|e|`; with `positive`
    the log-normal one of median e and coefficient of variation r.

    Parameters
    ----------
    estimate : float
        e, in the parameter's unit; not 0.
    rse : float
        r, the relative standard error as a fraction (0.25 is 25%); positive. Papers understate it:
        a larger one leaves room for another population.
    positive : bool
        Whether the parameter cannot be negative, as a clearance.

    Raises
    ------
    ValueError
        `rse` is not positive, the estimate is 0, or negative where it must be positive.

    Examples
    --------
    >>> float(prior(0.15, rse=0.25).scale)
    0.0375
    """
    if not (rse > 0 and abs(estimate) > 0) or (positive and not estimate > 0):
        raise ValueError(
            f"prior({estimate}, rse={rse}, positive={positive}): rse must be positive and the estimate "
            f"not 0, nor below it where positive=True; write a distribution for anything else"
        )
    if positive:
        return lognormal(estimate, cv=rse)
    return dist.Normal(float(estimate), float(rse * abs(estimate)))


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


def known_prior(name: str, prior: Any, example: str) -> Known:
    """Return what must be a prior or a fixed value, since no number can stand for its prior.

    Parameters
    ----------
    name : str
        Of the parameter, as the caller gave it.
    prior : object
    example : str
        A value that it may be fixed at.

    Raises
    ------
    ValueError
        It is neither.
    """
    if isinstance(prior, Fixed | dist.Distribution):
        return prior
    raise ValueError(
        f"{name} is {prior!r}; give its prior, a NumPyro distribution, or popk.fixed({example})"
    )
