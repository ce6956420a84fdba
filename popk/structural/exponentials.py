r"""Divided differences of the exponential: what closed-form compartment models are made of.

Every closed form of linear pharmacokinetics is a divided difference of
:math:`f_t(a) = e^{-a t}` over the rate constants of the compartments passed on the way. Written so,
equal rate constants (KA near k, "flip-flop") are an ordinary point: neither the values nor
the first and second derivatives lose digits there, where the textbook quotient
:math:`(e^{-kt} - e^{-k_a t})/(k_a - k)` does.

Where the rate constants (times t) are apart, a difference is the quotient of two differences of one
rate constant less by the *widest* gap; where all are close, it is a series in the gaps. Each
function hands its partial derivatives on with its value: they are made of the same parts, and
automatic differentiation would rather take each part's derivative apart, in twice the time.

References
----------
.. [1] McCurdy A, Ng KC, Parlett BN (1984). Accurate computation of divided differences of the
   exponential function. Math Comp 43:501-528. doi:10.1090/S0025-5718-1984-0758198-0
.. [2] Skaflestad B, Wright WM (2009). The scaling and modified squaring method for matrix functions
   related to the exponential. Appl Numer Math 59:783-799. doi:10.1016/j.apnum.2008.03.035
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

Scalar = Float[Array, ""]
Value = tuple[Scalar, tuple[Scalar, ...]]  # a function and its derivatives in each argument

#: The widest gap (times t) at which two, three and four rate constants are close, and how many terms
#: their series have: the first one left out is below 1e-16 of the sum.
_CLOSE2 = 0.25
_CLOSE3, _TERMS3 = 0.1, 9
_CLOSE4, _TERMS4 = 0.4, 14
_NO_GAP = 1e-30  # [1/time] below it the series is used at any t; its square can still be inverted


def decay(t: Scalar, a: Scalar) -> Scalar:
    r"""Return :math:`e^{-a t}`: the fraction left after a time `t` at a rate constant `a`.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    a : Float[Array, ""]
        Rate constant [1/time].
    """
    return jnp.exp(-a * t)


@jax.custom_jvp
def transfer(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    r"""Return :math:`(e^{-at} - e^{-bt}) / (b - a)`, safe at a = b [time].

    Times the transfer rate constant it is the fraction of a unit dose found at `t` in the second of
    two compartments in a row.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    a, b : Float[Array, ""]
        Exit rate constants of the two compartments, in any order, >= 0 [1/time].
    """
    return _pair(t, a, b)[0]


@jax.custom_jvp
def transfer2(t: Scalar, a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    r"""Return the divided difference of :math:`e^{-xt}` over a, b, c, safe at ties [time**2].

    The unit response of the third of three compartments in a row, over its two transfer rate
    constants.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    a, b, c : Float[Array, ""]
        Exit rate constants of the three compartments, in any order, >= 0 [1/time].
    """
    return _triple(t, a, b, c)[0]


@jax.custom_jvp
def transfer3(t: Scalar, a: Scalar, b: Scalar, c: Scalar, d: Scalar) -> Scalar:
    r"""Return the same over a, b, c, d, its sign made positive, safe at ties [time**3].

    The unit response of the fourth of four compartments in a row, over its three transfer rate
    constants.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    a, b, c, d : Float[Array, ""]
        Exit rate constants of the four compartments, >= 0; a >= b >= c, and d may be any [1/time].
    """
    return _quadruple(t, a, b, c, d)[0]


def _pair(t: Scalar, a: Scalar, b: Scalar) -> Value:
    gap = b - a
    x = -gap * t
    close = jnp.abs(x) < _CLOSE2
    y = jnp.where(close, x, 0.0)
    # With phi(y) = (exp(y) - 1) / y = 1 + y q(y), phi'(y) = phi(y) - q(y): one function gives both.
    # q by its Pade approximant [2]_: right to 1e-15, and a quotient is not computed again wherever
    # it is used, as XLA does with a polynomial.
    top = 1 / 2 + y * (-1 / 30 + y * (1 / 120 + y * y / 151200))
    q = top / (1.0 + y * (-2 / 5 + y * (1 / 15 + y * (-1 / 180 + y / 5040))))
    phi = 1.0 + y * q
    at_a, at_b = decay(t, a), decay(t, b)
    over = _inverse(gap)
    value = jnp.where(close, t * at_a * phi, (at_a - at_b) * over)
    in_b = jnp.where(close, t * t * at_a * (q - phi), (t * at_b - value) * over)
    in_t = jnp.where(a < b, at_b - a * value, at_a - b * value)  # the other way around cancels
    return value, (in_t, -t * value - in_b, in_b)


def _triple(t: Scalar, a: Scalar, b: Scalar, c: Scalar) -> Value:
    ab, (_, ab_a, ab_b) = _pair(t, a, b)
    ac, (_, ac_a, ac_c) = _pair(t, a, c)
    bc, (_, bc_b, bc_c) = _pair(t, b, c)
    c_within = (a <= c) == (c <= b)
    a_within = ~c_within & ((b <= a) == (a <= c))
    gap = jnp.where(c_within, b - a, jnp.where(a_within, c - b, c - a))
    over = _inverse(gap)
    far = (jnp.where(c_within, ac, ab) - jnp.where(a_within, ac, bc)) * over
    far_a = (jnp.where(c_within, ac_a, ab_a) - jnp.where(a_within, ac_a, -far)) * over
    far_b = (jnp.where(c_within, -far, ab_b) - jnp.where(a_within, -far, bc_b)) * over
    far_c = (jnp.where(c_within, ac_c, -far) - jnp.where(a_within, ac_c, bc_c)) * over
    close = jnp.abs(gap * t) < _CLOSE3
    size = t * t * decay(t, a)
    near, (near_b, near_c) = _series3(close, (a - b) * t, (a - c) * t)
    near, near_b, near_c = size * near, -t * size * near_b, -t * size * near_c
    value = jnp.where(close, near, far)
    a_slow, b_slow = (a <= b) & (a <= c), b <= c
    before, slow = jnp.where(b_slow, ac, ab), jnp.where(b_slow, b, c)
    return value, (
        jnp.where(a_slow, bc, before) - jnp.where(a_slow, a, slow) * value,
        jnp.where(close, -t * near - near_b - near_c, far_a),
        jnp.where(close, near_b, far_b),
        jnp.where(close, near_c, far_c),
    )


def _quadruple(t: Scalar, a: Scalar, b: Scalar, c: Scalar, d: Scalar) -> Value:
    abc, (_, abc_a, abc_b, abc_c) = _triple(t, a, b, c)
    abd, (_, abd_a, abd_b, abd_d) = _triple(t, a, b, d)
    bcd, (_, bcd_b, bcd_c, bcd_d) = _triple(t, b, c, d)
    below, above = d < c, d > a
    gap = jnp.where(below, a - d, jnp.where(above, d - c, a - c))
    over = _inverse(gap)
    far = (jnp.where(above, abc, bcd) - jnp.where(below, abc, abd)) * over
    far_a = (jnp.where(above, abc_a, -far) - jnp.where(below, abc_a, abd_a)) * over
    far_b = (jnp.where(above, abc_b, bcd_b) - jnp.where(below, abc_b, abd_b)) * over
    far_c = (jnp.where(above, abc_c, bcd_c) - jnp.where(below, abc_c, -far)) * over
    far_d = (jnp.where(above, -far, bcd_d) - jnp.where(below, -far, abd_d)) * over
    close = gap * t < _CLOSE4
    size = t * t * t * decay(t, a)
    near, (near_b, near_c, near_d) = _series4(close, (a - b) * t, (a - c) * t, (a - d) * t)
    near, near_b, near_c, near_d = (x * size for x in (near, -t * near_b, -t * near_c, -t * near_d))
    value = jnp.where(close, near, far)
    return value, (
        jnp.where(below, abc, abd) - jnp.where(below, d, c) * value,
        jnp.where(close, -t * near - near_b - near_c - near_d, far_a),
        jnp.where(close, near_b, far_b),
        jnp.where(close, near_c, far_c),
        jnp.where(close, near_d, far_d),
    )


def _inverse(gap: Scalar) -> Scalar:
    """Return 1 / gap: of rate constants alone, so that it is found once for all intervals."""
    return 1.0 / jnp.where(jnp.abs(gap) > _NO_GAP, gap, 1.0)


def _series3(close: Bool[Array, ""], u: Scalar, v: Scalar) -> Value:
    """Return the divided difference of exp over (0, u, v), and its derivatives in u and v.

    It is the sum of the complete homogeneous polynomials h_n(u, v) / (n + 2)!; the derivatives are
    the differences over (0, u, u, v) and (0, u, v, v), likewise.
    """
    u, v = jnp.where(close, u, 0.0), jnp.where(close, v, 0.0)
    power = h = h_u = h_v = jnp.ones_like(u)
    total, in_u, in_v = h / 2, h_u / 6, h_v / 6
    for n in range(1, _TERMS3 + 1):
        power = power * v
        h = h * u + power
        h_u, h_v = h_u * u + h, h_v * v + h
        total = total + h / math.factorial(n + 2)
        in_u, in_v = in_u + h_u / math.factorial(n + 3), in_v + h_v / math.factorial(n + 3)
    return total, (in_u, in_v)


def _series4(close: Bool[Array, ""], u: Scalar, v: Scalar, w: Scalar) -> Value:
    """Return the same over (0, u, v, w), from h_n(u, v, w) / (n + 3)!."""
    u, v, w = (jnp.where(close, x, 0.0) for x in (u, v, w))
    power = two = h = h_u = h_v = h_w = jnp.ones_like(u)
    total, in_u, in_v, in_w = h / 6, h_u / 24, h_v / 24, h_w / 24
    for n in range(1, _TERMS4 + 1):
        power = power * w
        two = two * v + power
        h = h * u + two
        h_u, h_v, h_w = h_u * u + h, h_v * v + h, h_w * w + h
        total = total + h / math.factorial(n + 3)
        below = math.factorial(n + 4)
        in_u, in_v, in_w = in_u + h_u / below, in_v + h_v / below, in_w + h_w / below
    return total, (in_u, in_v, in_w)


def _rule(function: Callable[..., Value]) -> Callable[..., tuple[Scalar, Scalar]]:
    """Return the rule of differentiation of a function that hands on its derivatives."""

    def rule(primals, tangents):
        value, derivatives = function(*primals)
        moves = zip(derivatives, tangents, strict=True)
        parts = [slope * move for slope, move in moves if not isinstance(move, SymbolicZero)]
        return value, sum(parts, start=jnp.zeros_like(value))

    return rule


transfer.defjvp(_rule(_pair), symbolic_zeros=True)
transfer2.defjvp(_rule(_triple), symbolic_zeros=True)
transfer3.defjvp(_rule(_quadruple), symbolic_zeros=True)
