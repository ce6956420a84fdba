r"""How much is in the observed compartment, where all doses go to one? A chain that doses run down.

Let M be the rate matrix of a structure, :math:`x_1 \ge x_2 \ge \dots` its rates, b the unit dose. By
Newton's form of the exponential, doses :math:`d_k` at times :math:`t_k` leave

.. math::
    A(t) = \sum_i Y_i(t) \prod_{j<i} (M + x_j I)\, b, \qquad
    Y_i(t) = \sum_{t_k \le t} d_k\, f_{x_1 \dots x_i}(t - t_k)

with f the divided differences of :math:`e^{-xt}`, their signs made positive. Y is what a chain of
compartments holds that drug leaves with the rates x, one after the other: it moves by a triangular
matrix of one number for each pair of compartments, which knows rates alone. Rates in falling order make
all terms of the observed compartment positive, and leave the widest gap between the first and the last.

References
----------
.. [1] McCurdy A, Ng KC, Parlett BN (1984). Accurate computation of divided differences of the
   exponential function. Math Comp 43:501-528. doi:10.1090/S0025-5718-1984-0758198-0
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.structural.compartments import (
    ONE_COMPARTMENT,
    ONE_COMPARTMENT_ORAL,
    THREE_COMPARTMENT,
    TWO_COMPARTMENT,
    TWO_COMPARTMENT_ORAL,
    Structure,
    three_rates,
    two_rates,
)

Scalar = Float[Array, ""]
Link = tuple[Scalar, tuple[Scalar, ...]]  # a value and its derivatives in the rates on the way

#: The widest gap (times t) at which two and three rates are close: there a series is summed, whose
#: first term left out is below 1e-16 of the sum, and elsewhere a quotient loses no more than a digit.
_CLOSE2, _CLOSE3 = 0.25, 0.1
_NO_GAP = 1e-30  # [1/time] below it the series is used at any t

#: tanh(z) / z = 1 - z**2 / 3 + ...
_TANH = (
    1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875,
)  # fmt: skip
_TANH_SLOPE = tuple(k * c for k, c in enumerate(_TANH))[1:]
_EXP = tuple(1 / math.factorial(k) for k in range(8))


class Chain(NamedTuple):
    """What doses into one compartment of a structure run down, and how it is observed.

    Attributes
    ----------
    rates : tuple of Float[Array, ""]
        x, the rates of the rate matrix in falling order [1/time].
    weights : tuple of Float[Array, ""] or None
        Of each Y in the observed compartment [1, 1/time, 1/time**2]; None: 0.
    """

    rates: tuple[Scalar, ...]
    weights: tuple[Scalar | None, ...]


def _one(CL: Scalar, V: Scalar) -> Chain:
    return Chain((CL / V,), (jnp.ones_like(CL),))


def _one_oral(CL: Scalar, V: Scalar, KA: Scalar) -> Chain:
    return Chain(_falling((CL / V,), KA), (None, KA))


def _two(CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar) -> Chain:
    rates, (first,) = two_rates(CL, V1, Q, V2)
    return Chain(rates, (jnp.ones_like(CL), first[0][0]))


def _two_oral(CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar, KA: Scalar) -> Chain:
    slow, (first,) = two_rates(CL, V1, Q, V2)
    rates = _falling(slow, KA)
    # k21 less the lowest rate: the sum of the rates is that of the diagonal.
    return Chain(rates, (None, KA, KA * (first[0][0] + (slow[1] - rates[2]))))


def _three(*, CL: Scalar, V1: Scalar, Q2: Scalar, V2: Scalar, Q3: Scalar, V3: Scalar) -> Chain:
    rates, (first, second) = three_rates(CL, V1, Q2, V2, Q3, V3)
    return Chain(rates, (jnp.ones_like(CL), first[0][0], second[0][0]))


def _falling(rates: tuple[Scalar, ...], one: Scalar) -> tuple[Scalar, ...]:
    """Return falling rates with one more in its place."""
    found = []
    for rate in rates:
        above = rate >= one
        found.append(jnp.where(above, rate, one))
        one = jnp.where(above, one, rate)
    return (*found, one)


#: The chain of each structure that has one, from its parameters.
CHAINS: Mapping[Structure, Callable[..., Chain]] = {
    ONE_COMPARTMENT: _one,
    ONE_COMPARTMENT_ORAL: _one_oral,
    TWO_COMPARTMENT: _two,
    TWO_COMPARTMENT_ORAL: _two_oral,
    THREE_COMPARTMENT: _three,
}


def links(t: Scalar, rates: tuple[Scalar, ...]) -> tuple[tuple[Link, ...], ...]:
    r"""Return what moves a chain along an interval, :math:`Y_i \leftarrow \sum_{j \le i} P_{ij} Y_j`.

    .. math:: P_{ij} = f_{x_j \dots x_i}(t)

    Each comes with its derivatives in :math:`x_j, \dots, x_i`.

    Parameters
    ----------
    t : Float[Array, ""]
        The length of the interval [time].
    rates : tuple of Float[Array, ""]
        x, one to three of them in falling order [1/time].

    Returns
    -------
    tuple of tuples
        A row for each compartment of the chain.
    """
    # Without barriers XLA computes the parts anew wherever they are used.
    wall = jax.lax.optimization_barrier
    left: list[Link] = [(e := wall(jnp.exp(-x * t)), (-t * e,)) for x in rates]
    pairs: list[Link] = [
        wall(_pair(t, fast, slow, a[0], b[0]))
        for fast, slow, a, b in zip(rates[:-1], rates[1:], left[:-1], left[1:], strict=True)
    ]
    rows = (left[0],), *((pair, own) for pair, own in zip(pairs, left[1:], strict=True))
    if len(rates) < 3:
        return rows
    far = wall(_triple(t, rates, left[1][0], *pairs))
    return (*rows[:2], (far, *rows[2]))


def _pair(t: Scalar, fast: Scalar, slow: Scalar, at_fast: Scalar, at_slow: Scalar) -> Link:
    r"""Return the divided difference over two rates, and its derivatives.

    Where they are close, :math:`e^{-bt} - e^{-at} = (e^{-at} + e^{-bt}) \tanh((a - b) t / 2)`.
    """
    gap = fast - slow
    close = gap * t < _CLOSE2
    over = 1.0 / jnp.where(gap > _NO_GAP, gap, 1.0)
    z = jnp.where(close, gap * t / 2, 0.0)
    both, ratio = at_fast + at_slow, _polynomial(_TANH, z * z)
    value = jnp.where(close, t / 2 * both * ratio, (at_slow - at_fast) * over)
    steep = t * t / 2 * (both * z * _polynomial(_TANH_SLOPE, z * z) - at_fast * ratio)
    in_fast = jnp.where(close, steep, (t * at_fast - value) * over)
    return value, (in_fast, -t * value - in_fast)


def _triple(t: Scalar, rates: tuple[Scalar, ...], middle: Scalar, upper: Link, lower: Link) -> Link:
    r"""Return the divided difference over three rates, and its derivatives.

    Where all are close it is :math:`t^2 e^{-mt} \sum_n h_n / (n + 2)!` with m their mean and h the
    complete homogeneous polynomials of :math:`u_i = (m - x_i) t`. As these add up to 0, h follows from
    :math:`q = \sum_{i<j} u_i u_j` and :math:`r = u_1 u_2 u_3` by
    :math:`h_n = r h_{n-3} - q h_{n-2}`, and few terms are left.
    """
    gap = rates[0] - rates[2]
    close = gap * t < _CLOSE3
    over = 1.0 / jnp.where(gap > _NO_GAP, gap, 1.0)
    m = (rates[0] + rates[1] + rates[2]) / 3
    a, b, c = (m - x for x in rates)
    Q, R = a * b + a * c + b * c, a * b * c
    square = jnp.where(close, t * t, 0.0)
    cube = square * t
    q, r = Q * square, R * cube
    total = 1 / 2 + q * (-1 / 24 + q * (1 / 720 - q / 40320))
    total = total + r * (1 / 120 + q * (-1 / 2520 + q / 120960) + r / 40320)
    in_q = -1 / 24 + q * (1 / 360 - q / 13440) + r * (-1 / 2520 + q / 60480)
    in_r = 1 / 120 + q * (-1 / 2520 + q / 120960) + r / 20160
    size = square * middle * _polynomial(_EXP, jnp.where(close, -b * t, 0.0))
    near, in_q, in_r = size * total, size * square * in_q, size * cube * in_r
    value = jnp.where(close, near, (lower[0] - upper[0]) * over)
    first = a * in_q + (Q / 3 - b * c) * in_r - t / 3 * near
    last = c * in_q + (Q / 3 - a * b) * in_r - t / 3 * near
    first = jnp.where(close, first, (-upper[1][0] - value) * over)
    last = jnp.where(close, last, (lower[1][1] + value) * over)
    return value, (first, -t * value - first - last, last)


def _polynomial(coefficients: Sequence[float], x: Scalar) -> Scalar:
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total
