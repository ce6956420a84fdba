"""What is the distribution of a standardized error, and of what is cut of it?"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import integrate, stats

from popk.residual.standardized import (
    information,
    log_between,
    log_cdf,
    log_density,
    truncated_information,
)

PLACES = np.array([-200, -50, -10, -4, -1.6, -1.5, -1.4999, -0.5, 0, 0.5, 1.4, 1.5, 1.6, 4, 50])

log_cdf_jit, slope_in_z, slope_in_degrees = (
    jax.jit(f)
    for f in (
        log_cdf,
        jax.grad(lambda z, degrees: log_cdf(z, degrees).sum()),
        jax.jacfwd(log_cdf, argnums=1),
    )
)


@pytest.mark.parametrize("degrees", [0.5, 1, 2.5, 4, 30, 200])
def test_t_errors_have_the_distribution_of_student(degrees):
    z, nu = jnp.asarray(PLACES), jnp.asarray(float(degrees))
    reference = stats.t(degrees)
    np.testing.assert_allclose(log_density(z, nu), reference.logpdf(PLACES), rtol=1e-11)
    np.testing.assert_allclose(log_cdf_jit(z, nu), reference.logcdf(PLACES), rtol=1e-11)


def test_t_errors_with_many_degrees_are_normal():
    # At 10 sd the logarithms differ by z^4 / (4 nu), 3e-4 of 53.
    z = PLACES[np.abs(PLACES) <= 10]
    found = log_cdf_jit(jnp.asarray(z), jnp.asarray(1e7))
    np.testing.assert_allclose(found, stats.norm.logcdf(z), rtol=2e-5)


def test_one_degree_of_freedom_is_cauchy():
    found = log_cdf_jit(jnp.asarray(PLACES), jnp.asarray(1.0))
    np.testing.assert_allclose(found, stats.cauchy.logcdf(PLACES), rtol=1e-12)


def test_the_slope_of_the_probability_is_the_density():
    z, nu = jnp.asarray(PLACES), jnp.asarray(4.0)
    expected = np.exp(stats.t.logpdf(PLACES, 4) - stats.t.logcdf(PLACES, 4))
    np.testing.assert_allclose(slope_in_z(z, nu), expected, rtol=1e-9)


def test_the_probability_has_a_slope_in_the_degrees_of_freedom():
    h, nu = 1e-4, 4.0
    difference = stats.t.logcdf(PLACES, nu + h) - stats.t.logcdf(PLACES, nu - h)
    found = slope_in_degrees(jnp.asarray(PLACES), jnp.asarray(nu))
    np.testing.assert_allclose(found, difference / (2 * h), rtol=1e-5, atol=1e-10)


BETWEEN = [(-1.0, 2.0), (-60.0, -50.0), (50.0, 60.0), (-3.0, -2.99), (8.0, 8.5), (-50.0, 50.0)]


@pytest.mark.parametrize(("low", "high"), BETWEEN)
def test_the_probability_between_two_values_keeps_its_digits_in_either_tail(low, high):
    with mp.workdps(900):
        expected = float(mp.log(mp.ncdf(high) - mp.ncdf(low)))
    found = float(log_between(jnp.asarray(low), jnp.asarray(high)))
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-300)


def test_the_probability_between_two_values_is_that_of_student_for_t_errors():
    low, high = np.array([-1.0, 2.0, -9.0]), np.array([2.0, 3.0, -4.0])
    found = log_between(jnp.asarray(low), jnp.asarray(high), jnp.asarray(4.0))
    expected = np.log(stats.t.cdf(high, 4) - stats.t.cdf(low, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_nothing_lies_between_values_in_the_wrong_order():
    found = log_between(jnp.asarray([2.0, -1.0]), jnp.asarray([1.0, -2.0]))
    assert np.isnan(found).all()


def test_information_of_normal_errors_that_are_not_cut_is_1_of_the_center_and_2_of_the_spread():
    c, d = jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0])
    np.testing.assert_allclose(information(c, d), [1, 2])
    wide = jnp.full(2, 1e15)
    np.testing.assert_allclose(truncated_information(c, d, -wide, wide), [1, 2], rtol=1e-12)


def test_information_of_t_errors_is_that_of_lange_little_and_taylor():
    # nu = 5: (nu + 1) / (nu + 3) = 3 / 4 of the center, 2 nu / (nu + 3) = 5 / 4 of the spread.
    found = information(jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0]), jnp.asarray(5.0))
    np.testing.assert_allclose(found, [3 / 4, 5 / 4], rtol=1e-15)


@pytest.mark.parametrize(("low", "high"), [(-1.0, np.inf), (-0.3, 2.0), (2.0, np.inf), (-20, -3)])
def test_information_of_cut_errors_is_the_variance_of_what_depends_on_them(low, high):
    c, d = 1.3, 0.4
    mass = stats.norm.cdf(high) - stats.norm.cdf(low)

    def mean(g):
        return integrate.quad(lambda z: g(z) * stats.norm.pdf(z) / mass, low, high)[0]

    middle = mean(lambda z: c * z + d * z**2)
    expected = mean(lambda z: (c * z + d * z**2 - middle) ** 2)
    ends = (jnp.asarray([np.clip(end, -1e15, 1e15)]) for end in (low, high))
    found = truncated_information(jnp.asarray([c]), jnp.asarray([d]), *ends)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_information_of_a_location_far_below_its_cut_vanishes_like_that_of_an_exponential():
    # At 50 sd the cut normal is exponential of rate 50, of variance 1 / 50**2 to first order.
    found = truncated_information(*(jnp.asarray([x]) for x in (1.0, 0.0, 50.0, 1e15)))
    np.testing.assert_allclose(found, stats.truncnorm(50, np.inf).var(), rtol=1e-6)
    np.testing.assert_allclose(found, 1 / 2500, rtol=3e-3)
