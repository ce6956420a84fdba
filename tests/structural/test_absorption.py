"""Input rates: densities that integrate to one, smooth where the dose is given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

from popk.structural.absorption import INVERSE_GAUSSIAN, TRANSIT, WEIBULL

pytestmark = pytest.mark.usefixtures("strict_promotion")

#: Each input with the distribution of the absorption time that it is, and parameters for it.
INPUTS = {
    "transit": (
        TRANSIT,
        lambda N, MTT: stats.gamma(N + 1, scale=MTT / (N + 1)),
        [(3.0, 1.5), (0.3, 2.0), (7.62, 0.9), (40.0, 5.0), (1e-3, 1.0)],
    ),
    "weibull": (
        WEIBULL,
        lambda SCALE, SHAPE: stats.weibull_min(SHAPE, scale=SCALE),
        [(2.0, 1.0), (2.0, 0.4), (1.5, 3.5), (8.0, 0.9), (1.0, 12.0)],
    ),
    "inverse Gaussian": (
        INVERSE_GAUSSIAN,
        lambda MAT, CV2: stats.invgauss(CV2, scale=MAT / CV2),
        [(2.0, 0.5), (4.0, 3.0), (1.0, 0.01), (0.7, 1.0), (3.0, 30.0)],
    ),
}
every_input = pytest.mark.parametrize("name", INPUTS)
TIMES = jnp.asarray([1e-8, 1e-3, 0.05, 0.3, 0.9, 1.0, 2.2, 6.0, 25.0, 400.0])


@functools.cache
def compiled(name, which):
    """Return the rate or the fraction of an input as a function of t and its parameters x."""
    given = INPUTS[name][0]
    f = getattr(given, which)
    return jax.jit(lambda t, *x: f(t, **dict(zip(given.parameters, x, strict=True))))


def at(name, which, times, x):
    times = jnp.asarray(times, dtype=float)
    return np.asarray(
        compiled(name, which)(times, *(jnp.full(times.shape, float(value)) for value in x))
    )


@every_input
def test_the_rate_is_the_density_of_the_absorption_time(name):
    _, distribution, parameters = INPUTS[name]
    for x in parameters:
        expected = distribution(*x).pdf(TIMES)
        np.testing.assert_allclose(at(name, "rate", TIMES, x), expected, rtol=1e-11, atol=1e-300)


@every_input
def test_the_fraction_absorbed_is_its_distribution_function(name):
    _, distribution, parameters = INPUTS[name]
    for x in parameters:
        expected = distribution(*x).cdf(TIMES)
        np.testing.assert_allclose(at(name, "absorbed", TIMES, x), expected, rtol=1e-11, atol=1e-15)


@every_input
def test_all_of_a_dose_arrives_in_the_end(name):
    for x in INPUTS[name][2]:
        assert at(name, "absorbed", [1e9], x) == pytest.approx(1.0, rel=1e-13)
        assert at(name, "rate", [1e9], x) == pytest.approx(0.0, abs=1e-12)


@every_input
def test_the_rate_is_the_slope_of_the_fraction_absorbed(name):
    _, _, parameters = INPUTS[name]
    slope = jax.jit(jax.vmap(jax.grad(compiled(name, "absorbed"))))
    for x in parameters:
        times = jnp.asarray([0.3, 0.9, 2.2, 6.0])
        rate, h = at(name, "rate", times, x), 1e-5
        up, down = at(name, "absorbed", times + h, x), at(name, "absorbed", times - h, x)
        np.testing.assert_allclose((up - down) / (2 * h), rate, rtol=1e-6, atol=1e-9)
        exact = slope(times, *(jnp.full(times.shape, value) for value in x))
        np.testing.assert_allclose(exact, rate, rtol=1e-11, atol=1e-14)


@every_input
def test_nothing_arrives_before_or_at_the_dose_nor_does_a_derivative(name):
    times = jnp.asarray([-1e9, -3.0, -1e-300, 0.0])
    for x in INPUTS[name][2]:
        for which in ("rate", "absorbed"):
            np.testing.assert_array_equal(at(name, which, times, x), 0.0)
            for slope in slopes(name, which)(times, *(jnp.full(times.shape, v) for v in x)):
                np.testing.assert_array_equal(slope, 0.0)


@functools.cache
def slopes(name, which):
    """Return the compiled derivatives in the time and in the parameters."""
    return jax.jit(jax.vmap(jax.grad(compiled(name, which), argnums=(0, 1, 2))))


@every_input
def test_derivatives_are_finite_at_any_time_after_the_dose(name):
    times = jnp.asarray([1e-60, 1e-30, 1e-12, 1e-3, 1.0, 30.0, 1e3, 1e9, 1e40])
    for x in (*INPUTS[name][2], (60.0, 60.0), (0.05, 0.05)):
        for which in ("rate", "absorbed"):
            for slope in slopes(name, which)(times, *(jnp.full(times.shape, v) for v in x)):
                assert np.isfinite(slope).all(), (x, which, slope)


@every_input
def test_derivatives_in_the_parameters_are_central_differences(name):
    times, h = jnp.asarray([0.3, 1.7, 5.0]), 1e-5
    for x in INPUTS[name][2]:
        for which in ("rate", "absorbed"):
            full = [jnp.full(times.shape, value) for value in x]
            found = slopes(name, which)(times, *full)[1:]
            for i, slope in enumerate(found):
                step = h * x[i]
                up, down = (
                    at(name, which, times, [*x[:i], x[i] + sign * step, *x[i + 1 :]])
                    for sign in (1, -1)
                )
                np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_whole_number_of_transit_compartments_is_the_chain_of_n_plus_1(n):
    MTT = 1.8
    ktr = (n + 1) / MTT
    chain = ktr * (np.diag(np.ones(n), -1) - np.eye(n + 1))
    for t in (0.1, 1.0, 4.0):
        held = expm(chain * t)[:, 0]
        assert at("transit", "rate", [t], (n, MTT)) == pytest.approx(ktr * held[-1], rel=1e-12)
        assert at("transit", "absorbed", [t], (n, MTT)) == pytest.approx(1 - held.sum(), rel=1e-12)


def test_a_weibull_input_of_shape_1_is_first_order_absorption():
    found = at("weibull", "rate", TIMES, (1 / 0.8, 1.0))
    np.testing.assert_allclose(found, 0.8 * np.exp(-0.8 * np.asarray(TIMES)), rtol=1e-13)


def test_a_weibull_input_of_shape_below_1_grows_towards_the_dose_but_brings_no_more():
    rate = at("weibull", "rate", [1e-6, 1e-12, 1e-100], (2.0, 0.5))
    np.testing.assert_allclose(
        rate, 0.25 * (np.array([1e-6, 1e-12, 1e-100]) / 2) ** -0.5, rtol=1e-3
    )
    assert at("weibull", "absorbed", [1e-12], (2.0, 0.5)) == pytest.approx(np.sqrt(5e-13), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "x", "mean", "variance"),
    [
        ("transit", (3.2, 1.8), 1.8, 1.8**2 / 4.2),
        ("inverse Gaussian", (2.0, 0.4), 2.0, 0.4 * 2.0**2),
    ],
)
def test_the_mean_and_the_spread_of_the_absorption_time_are_the_parameters(name, x, mean, variance):
    nodes, weights = np.polynomial.legendre.leggauss(400)
    times = 30 * (nodes + 1)
    density = 30 * weights * at(name, "rate", times, x)
    assert density.sum() == pytest.approx(1.0, rel=1e-8)
    assert (density * times).sum() == pytest.approx(mean, rel=1e-8)
    assert (density * (times - mean) ** 2).sum() == pytest.approx(variance, rel=1e-7)
