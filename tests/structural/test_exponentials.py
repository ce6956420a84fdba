"""Divided differences of the exponential, against 160 digits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from popk.structural.exponentials import decay, transfer, transfer2, transfer3

pytestmark = pytest.mark.usefixtures("strict_promotion")

DIGITS = 160
APART = mpmath.mpf("1e-15")  # equal rate constants are set this far apart, at 160 digits

#: Times and two rate constants: flip-flop ties, near ties, the edge of the series (x = 0.3), large
#: and vanishing x = (a - b) t, no elimination, t = 0.
PAIRS = [
    (2.0, 0.1, 0.1), (2.0, 1.5, 1.5), (24.0, 0.3, 0.3),
    *[(2.0, 0.1, 0.1 * (1 + sign * d)) for d in (1e-15, 1e-12, 1e-8, 1e-5, 1e-3, 0.1) for sign in (1, -1)],
    *[(1.0, 1.0, 1.0 + x) for x in (0.29, 0.299999, 0.300001, 0.31, -0.299999, -0.300001)],
    (1.0, 0.001, 1000.001), (1.0, 1000.001, 0.001), (1000.0, 0.5, 1.5), (1000.0, 1.5, 0.5),
    (3.0, 0.0, 0.7), (3.0, 0.7, 0.0), (3.0, 0.0, 0.0), (1e-9, 0.2, 1.3), (0.0, 0.2, 1.3), (0.0, 0.4, 0.4),
]  # fmt: skip

#: Times and three rate constants, the same with every kind of tie.
TRIPLES = [
    (2.0, 0.3, 0.3, 0.3), (2.0, 0.1, 0.1, 1.5), (2.0, 1.5, 0.1, 1.5), (2.0, 0.1, 1.5, 1.5),
    *[(2.0, 0.3, 0.3 * (1 + d), 0.3 * (1 - d)) for d in (1e-14, 1e-8, 1e-4, 1e-2)],
    *[(2.0, 0.3, 0.3 * (1 + d), 2.0) for d in (1e-14, 1e-8, 1e-4, 1e-2)],
    (1.0, 1.0, 1.1, 1.2999), (1.0, 1.0, 1.1, 1.3001), (1.0, 1.0, 1.2999, 1.3), (1.0, 1.0, 1.0001, 1.3001),
    (1.0, 0.001, 1.0, 1000.0), (1.0, 0.001, 999.0, 1000.0), (100.0, 0.1, 1.0, 10.0),
    (3.0, 0.0, 0.7, 0.2), (3.0, 0.7, 0.7, 0.0), (3.0, 0.0, 0.0, 0.7), (1e-6, 0.2, 1.3, 4.0),
    (0.0, 0.2, 1.3, 4.0),
]  # fmt: skip

#: Times and four rate constants, the first three falling: the last one anywhere, and ties.
QUADRUPLES = [
    (2.0, 0.3, 0.3, 0.3, 0.3), (2.0, 1.5, 0.1, 0.1, 1.5), (2.0, 1.5, 1.5, 0.1, 0.7),
    (2.0, 1.5, 0.7, 0.1, 0.7 * (1 + 1e-8)), (2.0, 0.3 * (1 + 1e-4), 0.3, 0.3 * (1 - 1e-4), 2.0),
    (1.0, 1.39, 1.2, 1.1, 1.0), (1.0, 1.41, 1.2, 1.1, 1.0), (1.0, 1.41, 1.4, 1.001, 1.0),
    (1.0, 1000.0, 1.0, 0.001, 30.0), (100.0, 10.0, 1.0, 0.1, 0.0), (3.0, 0.7, 0.2, 0.0, 0.0),
    (3.0, 0.7, 0.2, 0.1, 5.0), (1e-6, 4.0, 1.3, 0.2, 0.0), (0.0, 4.0, 1.3, 0.2, 2.0),
]  # fmt: skip


def divided_difference(t, *rates):
    """Return the divided difference of exp(-x t) over distinct rates, with its sign made positive."""
    total = mpmath.mpf(0)
    for i, x in enumerate(rates):
        others = [x - y for j, y in enumerate(rates) if j != i]
        total += mpmath.exp(-x * t) / mpmath.fprod(others)
    return (-1) ** (len(rates) - 1) * total


def exact(orders, t, *rates):
    """Return a derivative of the divided difference: `orders` times with respect to (t, *rates)."""
    with mpmath.workdps(DIGITS):
        apart = [mpmath.mpf(x) + (mpmath.mpf(i) * APART**2) for i, x in enumerate(rates)]
        # Times before 0 are as good as others for a power series; a two-sided difference needs them.
        return float(mpmath.diff(divided_difference, (mpmath.mpf(t), *apart), tuple(orders)))


def exact_derivatives(order, *case):
    """Return all derivatives of an order, as an array of that many axes of (t, *rates)."""
    n = len(case)
    shape = (n,) * order
    one = {
        index: exact([index.count(i) for i in range(n)], *case)
        for index in itertools.combinations_with_replacement(range(n), order)
    }
    return np.array([one[tuple(sorted(index))] for index in np.ndindex(*shape)]).reshape(shape)


CASES = {transfer: PAIRS, transfer2: TRIPLES, transfer3: QUADRUPLES}


@functools.cache
def derivatives(f, order):
    """Return the derivatives of `f` at all of its cases, from one compiled program."""
    derivative = {0: lambda g: g, 1: jax.grad, 2: jax.hessian}[order]
    return jax.jit(jax.vmap(derivative(lambda x: f(*x))))(jnp.asarray(CASES[f]))


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(("f", "case"), [(f, case) for f, cases in CASES.items() for case in cases])
def test_a_divided_difference_and_its_derivatives_agree_with_160_digits(f, case, order):
    found = derivatives(f, order)[CASES[f].index(case)]
    expected = exact_derivatives(order, *case)
    # An entry that is small beside the largest one may carry that one's rounding.
    rounding = 1e-60 + 4 * np.finfo(float).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=(2e-14, 1e-12, 1e-10)[order], atol=rounding)


def test_decay_is_what_is_left():
    assert decay(jnp.asarray(2.0), jnp.asarray(0.3)) == pytest.approx(np.exp(-0.6), rel=1e-15)


@pytest.mark.parametrize("f", [transfer, transfer2])
def test_the_order_of_the_rate_constants_does_not_matter(f):
    rates = [0.2, 1.3, 4.0][: 2 if f is transfer else 3]
    t = jnp.asarray(1.7)
    forward = f(t, *map(jnp.asarray, rates))
    backward = f(t, *map(jnp.asarray, rates[::-1]))
    assert forward == pytest.approx(float(backward), rel=1e-15)


def test_the_textbook_gradient_is_wrong_where_ours_is_right():
    # DESIGN, numerics 3: the quotient's value looks fine where its gradient has no digit left.
    t, k = 2.0, 0.1
    KA = k * (1 + 1e-15)

    def textbook(KA):
        return (jnp.exp(-k * t) - jnp.exp(-KA * t)) / (KA - k)

    right = exact([0, 0, 1], t, k, KA)
    ours = jax.grad(lambda KA: transfer(jnp.asarray(t), jnp.asarray(k), KA))(jnp.asarray(KA))
    assert float(ours) == pytest.approx(right, rel=1e-12)
    assert abs(float(jax.grad(textbook)(jnp.asarray(KA))) - right) > 1


@pytest.mark.parametrize("f", [transfer, transfer2, transfer3])
def test_values_and_gradients_stay_finite_over_all_sizes(f):
    rng = np.random.default_rng(1)
    cases = 10 ** rng.uniform(-6, 4, size=(500, len(CASES[f][0])))
    if f is transfer3:
        cases[:, 1:4] = -np.sort(-cases[:, 1:4])
    cases = jnp.asarray(cases)
    value, gradient = jax.vmap(jax.value_and_grad(lambda x: f(*x)))(cases)
    assert np.isfinite(value).all()
    assert (np.asarray(value) >= 0).all()
    assert np.isfinite(gradient).all()
