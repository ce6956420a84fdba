"""How far do amounts move in one step of time, where their rates are no linear function of them?"""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from popk.structural import stepping
from popk.structural.stepping import explicit, implicit, jacobian

pytestmark = pytest.mark.usefixtures("strict_promotion")

METHODS = pytest.mark.parametrize("method", [explicit, implicit], ids=lambda m: m.__name__)
START, LENGTH = 0.1, 1.0


def rate(t, amounts):
    """Return rates that are non-linear, coupled, and change with time."""
    a, b = amounts
    return -a * b + jnp.sin(3 * t), a - 0.5 * b * b * jnp.cos(t)


@functools.cache
def stepper(method):
    return jax.jit(lambda t, h, amounts: method(rate, t, h, amounts))


def walked(method, steps):
    """Return the amounts after equal steps, and the error estimate of the first."""
    step = stepper(method)
    amounts, first, h = (jnp.asarray(1.0), jnp.asarray(0.5)), None, LENGTH / steps
    for i in range(steps):
        amounts, error = step(START + i * h, h, amounts)
        first = first or np.abs(error).max()
    return np.asarray(amounts), first


@functools.cache
def reference():
    def numeric(t, y):
        return [-y[0] * y[1] + np.sin(3 * t), y[0] - 0.5 * y[1] ** 2 * np.cos(t)]

    span = START, START + LENGTH
    return solve_ivp(numeric, span, [1.0, 0.5], method="DOP853", rtol=3e-14, atol=1e-15).y[:, -1]


def test_coefficients_are_those_of_the_published_pair():
    published = diffrax.Tsit5.tableau
    for ours, theirs in zip(stepping._TSIT_STAGES, published.a_lower, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)
    np.testing.assert_allclose(stepping._TSIT_NODES, published.c, rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.abs(stepping._TSIT_ERROR), np.abs(published.b_error), atol=1e-15)


@METHODS
def test_halving_steps_divides_the_error_by_two_to_the_fifth(method):
    errors = [np.abs(walked(method, n)[0] - reference()).max() for n in (8, 16, 32, 64)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert errors[-1] < 1e-11
    assert np.all(orders > 4.9), orders
    assert orders[-1] < 5.6, orders


@METHODS
def test_the_error_estimate_shrinks_as_the_fifth_power_and_bounds_the_error(method):
    estimates = [walked(method, n)[1] for n in (16, 32, 64)]
    orders = np.log2(np.divide(estimates[:-1], estimates[1:]))
    np.testing.assert_allclose(orders, 5, atol=0.25)
    assert np.abs(walked(method, 8)[0] - reference()).max() < 8 * walked(method, 8)[1]


@METHODS
def test_a_step_of_no_length_moves_nothing_and_lengthens_at_the_rate(method):
    amounts, t = (jnp.asarray(1.0), jnp.asarray(0.5)), jnp.asarray(START)
    (after, error), (speed, _) = jax.jvp(
        lambda h: stepper(method)(t, h, amounts), (jnp.asarray(0.0),), (jnp.asarray(1.0),)
    )
    np.testing.assert_array_equal(after, amounts)
    np.testing.assert_array_equal(error, 0)
    np.testing.assert_allclose(speed, rate(t, amounts), rtol=1e-13)


@METHODS
def test_derivatives_of_a_step_are_those_of_finite_differences(method):
    def after(x):
        return jnp.stack(method(rate, x[0], x[1], (x[2], x[3]))[0])

    x, d = jnp.asarray([0.3, 0.2, 1.0, 0.5]), 1e-5
    reverse = jax.jit(jax.jacrev(after))(x)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(after))(x), reverse, rtol=1e-12, atol=1e-14)
    numeric = [(after(x + d * e) - after(x - d * e)) / (2 * d) for e in jnp.eye(4)]
    np.testing.assert_allclose(reverse, np.stack(numeric, 1), rtol=1e-7, atol=1e-8)


def test_a_decay_far_faster_than_the_step_is_gone_after_one_implicit_step():
    """L-stability: what is left of y' = -k y falls as 1/k for ever."""
    left = [
        implicit(
            lambda t, a, k=k: (-k * a[0],), *map(jnp.asarray, (0.0, 1.0)), (jnp.asarray(1.0),)
        )[0][0]
        for k in (1e6, 1e9)
    ]
    assert abs(left[0]) < 2e-5
    np.testing.assert_allclose(left[0] / left[1], 1e3, rtol=1e-3)


def test_a_stiff_component_is_followed_onto_its_slow_solution():
    """After one long step, y' = -1e6 (y - cos t) - sin t is on y = cos t."""
    (after,), _ = implicit(
        lambda t, a: (-1e6 * (a[0] - jnp.cos(t)) - jnp.sin(t),),
        jnp.asarray(0.0), jnp.asarray(0.1), (jnp.asarray(1.0),),
    )  # fmt: skip
    np.testing.assert_allclose(after, np.cos(0.1), rtol=1e-9)


def test_the_jacobian_has_a_row_for_each_rate():
    a, b = jnp.asarray(1.0), jnp.asarray(0.5)
    J = jacobian(lambda x: rate(jnp.asarray(0.2), x), (a, b))
    np.testing.assert_allclose(J, [[-b, -a], [1, -b * np.cos(0.2)]], rtol=1e-15)
