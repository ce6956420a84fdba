r"""Divided differences of the exponential: what closed-form compartment models are made of.

Every closed form of linear pharmacokinetics is a divided difference of
:math:`f_t(a) = e^{-a t}` over the rate constants of the compartments passed on the way. Written so,
equal rate constants (KA near k, "flip-flop") are an ordinary point: neither the values nor
the first and second derivatives lose digits there, where the textbook quotient
:math:`(e^{-kt} - e^{-k_a t})/(k_a - k)` does.

References
----------
.. [1] McCurdy A, Ng KC, Parlett BN (1984). Accurate computation of divided differences of the
   exponential function. Math Comp 43:501-528. doi:10.1090/S0025-5718-1984-0758198-0
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]

_SMALL = 0.3
_TERMS = 13  # at |x| = 0.3 the first term left out is below 1e-16 of the sum


def _phi(x: Scalar) -> Scalar:
    """Return (exp(x) - 1) / x for x <= 0, by its series near 0."""
    small = x > -_SMALL
    y = jnp.where(small, x, 0.0)
    series = 1 / math.factorial(_TERMS)
    for n in range(_TERMS - 1, 0, -1):
        series = series * y + 1 / math.factorial(n)
    far = jnp.where(small, -1.0, x)
    return jnp.where(small, series, jnp.expm1(far) / far)


def _phi2(u: Scalar, v: Scalar) -> Scalar:
    """Return the divided difference of exp over (0, u, v) for v <= u <= 0.

    Near 0 it is the sum of the complete homogeneous polynomials h_n(u, v) / (n + 2)!; elsewhere
    the recursion over the widest gap, which loses at most a factor 2 / |v| of precision.
    """
    small = v > -_SMALL
    a, b = jnp.where(small, u, 0.0), jnp.where(small, v, 0.0)
    homogeneous, power, series = 1.0, 1.0, 0.5
    for n in range(1, _TERMS):
        power = power * b
        homogeneous = homogeneous * a + power
        series = series + homogeneous / math.factorial(n + 2)
    c, d = jnp.where(small, -0.5, u), jnp.where(small, -1.0, v)
    return jnp.where(small, series, (jnp.exp(c) * _phi(d - c) - _phi(c)) / d)


def decay(t: Scalar, a: Scalar) -> Scalar:
    r"""Return :math:`e^{-a t}`: the fraction left after a time `t` at a rate constant `a`."""
    return jnp.exp(-a * t)


def transfer(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    r"""Return :math:`(e^{-at} - e^{-bt}) / (b - a)`, safe at a = b [time].

    Times the transfer rate constant it is the fraction of a unit dose found at `t` in the second of
    two compartments in a row with exit rate constants `a` and `b` (1/time, >= 0).
    """
    # The arguments are swapped, not sorted by min or abs: those halve derivatives at a tie.
    swap = a > b
    slow, fast = jnp.where(swap, b, a), jnp.where(swap, a, b)
    return t * jnp.exp(-slow * t) * _phi((slow - fast) * t)


def transfer2(t: Scalar, a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    r"""Return the divided difference of :math:`e^{-xt}` over a, b, c, safe at ties [time**2].

    The unit response of the third of three compartments in a row, over its two transfer rate
    constants.
    """
    x = jnp.sort(jnp.stack([a, b, c]))  # symmetric in its arguments: any order at a tie will do
    u, v = (x[0] - x[1]) * t, (x[0] - x[2]) * t
    return t**2 * jnp.exp(-x[0] * t) * _phi2(u, v)
