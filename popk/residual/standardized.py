r"""What is the distribution of a standardized error, normal or Student's t, and of what is cut of it?

References
----------
.. [1] Lange KL, Little RJA, Taylor JMG (1989). Robust statistical modeling using the t distribution.
   J Am Stat Assoc 84:881-896. doi:10.1080/01621459.1989.10478852
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from jaxtyping import Float

from popk.trial import Array

Values = Float[Array, "..."]
Degrees = Float[Array, ""] | None | Any  # None is the normal distribution

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_NEAR = 1.5  # up to here the t distribution is summed from 0, beyond from infinity
_REACH = 6.5  # exp(-6.5**2) is 4e-19
_WIDTH = 9.0  # of a window in which all but 1e-18 of a normal density lies


def log_density(z: Values, degrees: Degrees = None) -> Values:
    r"""Return the log-density of standardized errors.

    .. math:: \log\phi(z) \quad\text{or}\quad
        \log\frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2})\sqrt{\pi\nu}}
        - \frac{\nu + 1}{2}\log\Big(1 + \frac{z^2}{\nu}\Big)

    Parameters
    ----------
    z : Float[Array, "..."]
        In standard deviations, or in units of the scale of the t distribution.
    degrees : Float[Array, ""], optional
        Degrees of freedom nu of a t distribution; normal without.
    """
    if degrees is None:
        return norm.logpdf(z)
    constant = gammaln((degrees + 1) / 2) - gammaln(degrees / 2) - jnp.log(math.pi * degrees) / 2
    return constant - (degrees + 1) / 2 * jnp.log1p(z**2 / degrees)


def log_cdf(z: Values, degrees: Degrees = None) -> Values:
    r"""Return the log-probability that a standardized error is less than z, right in either tail.

    For a t distribution with density t, with :math:`T(z) = \frac12 + \int_0^z t(u)\,du` near 0 and,
    from :math:`1 + u^2/\nu = (1 + x^2/\nu)\, e^{2 v^2/\nu}`, in the tail at -x

    .. math:: T(-x) = t(x) \Big(1 + \frac{x^2}{\nu}\Big)
        \int_0^\infty \frac{2 v e^{-v^2}\,dv}{\sqrt{x^2 + \nu (1 - e^{-2 v^2/\nu})}}

    both by Gauss and Legendre's rule, so that nu has a gradient, too.

    Parameters
    ----------
    z : Float[Array, "..."]
        In standard deviations, or in units of the scale of the t distribution.
    degrees : Float[Array, ""], optional
        Degrees of freedom nu of a t distribution; normal without.
    """
    if degrees is None:
        return norm.logcdf(z)
    near = jnp.abs(z) < _NEAR
    inner, far = jnp.where(near, z, 0.0), jnp.where(near, 2 * _NEAR, jnp.abs(z))
    tail = _log_tail(far, degrees)
    outer = jnp.where(z < 0, tail, jnp.log1p(-jnp.exp(tail)))
    u = inner[..., None] * (_NODES + 1) / 2
    from_zero = inner / 2 * (jnp.exp(log_density(u, degrees)) * _WEIGHTS).sum(-1)
    return jnp.where(near, jnp.log(0.5 + from_zero), outer)


def _log_tail(x: Values, degrees: Any) -> Values:
    v = (_NODES + 1) * _REACH / 2
    weights = _WEIGHTS * _REACH * v * np.exp(-(v**2))
    under = jnp.sqrt(x[..., None] ** 2 - degrees * jnp.expm1(-2 * v**2 / degrees))
    mills = (weights / under).sum(-1)
    return log_density(x, degrees) + jnp.log1p(x**2 / degrees) + jnp.log(mills)


def log_between(low: Values, high: Values, degrees: Degrees = None) -> Values:
    r"""Return the log-probability that a standardized error lies between two values.

    .. math:: \log[\Phi(b) - \Phi(a)] = \log\Phi(b) + \log(1 - e^{\log\Phi(a) - \log\Phi(b)})

    in the tail that holds the smaller probabilities, so that no digits are lost there. Not a number
    where a > b.

    Parameters
    ----------
    low, high : Float[Array, "..."]
        a and b, in standard deviations, or in units of the scale of the t distribution.
    degrees : Float[Array, ""], optional
        Degrees of freedom of a t distribution; normal without.
    """
    flip = low + high > 0
    less, more = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    upper = log_cdf(more, degrees)
    gap = log_cdf(less, degrees) - upper
    small = gap < -math.log(2)
    rest = jnp.log1p(-jnp.exp(jnp.where(small, gap, -1.0)))
    return upper + jnp.where(small, rest, jnp.log(-jnp.expm1(jnp.where(small, -1.0, gap))))


def information(center1: Values, spread1: Values, degrees: Degrees = None) -> Values:
    r"""Return the expected information of a level on its prediction.

    .. math:: c^2 + 2 d^2 \quad\text{or}\quad \frac{(\nu + 1)\, c^2 + 2 \nu d^2}{\nu + 3}

    Parameters
    ----------
    center1, spread1 : Float[Array, "..."]
        c and d: the derivatives of center and spread in the prediction, over the spread
        [1/unit of DV].
    degrees : Float[Array, ""], optional
        Degrees of freedom nu of a t distribution; normal without.

    References
    ----------
    .. [1] Lange KL, Little RJA, Taylor JMG (1989). Robust statistical modeling using the t
       distribution. J Am Stat Assoc 84:881-896. doi:10.1080/01621459.1989.10478852
    """
    if degrees is None:
        return center1**2 + 2 * spread1**2
    return ((degrees + 1) * center1**2 + 2 * degrees * spread1**2) / (degrees + 3)


def truncated_information(center1: Values, spread1: Values, low: Values, high: Values) -> Values:
    r"""Return the expected information of a level whose normal error lies between two values.

    .. math:: \mathrm{Var}(c z + d z^2 \mid a < z < b)

    The score is :math:`c z + d (z^2 - 1)` less the derivative of the log-probability of lying there,
    and its mean is 0: so the information is the variance of what depends on z.

    Parameters
    ----------
    center1, spread1 : Float[Array, "..."]
        c and d: the derivatives of center and spread in the prediction, over the spread
        [1/unit of DV].
    low, high : Float[Array, "..."]
        a and b [standard deviations].
    """
    # Where the mode is cut off, the density falls from the cut: the window follows it.
    start = jnp.maximum(low, -jnp.hypot(jnp.maximum(-high, 0.0), _WIDTH))
    end = jnp.minimum(high, jnp.hypot(jnp.maximum(low, 0.0), _WIDTH))
    z = start[..., None] + (end - start)[..., None] * (_NODES + 1) / 2
    least = jnp.min(z**2, axis=-1, keepdims=True)
    weights = _WEIGHTS * jnp.exp((least - z**2) / 2)
    weights = weights / weights.sum(-1, keepdims=True)
    score = center1[..., None] * z + spread1[..., None] * z**2
    return (weights * (score - (weights * score).sum(-1, keepdims=True)) ** 2).sum(-1)
