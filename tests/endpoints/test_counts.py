"""Counts: their probabilities, what they tell of the mean, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import popk
from popk.priors import known_prior
from tests.endpoints.outcomes import frequencies, information_by_sum, log_mass, outcomes

Y, MEANS = np.arange(12), np.array([0.03, 0.7, 3.0, 40.0])
NEGATIVE = popk.negative_binomial(1.0)
INFLATED = popk.zero_inflated(popk.poisson(), dist.Beta(1, 3))
BOTH = popk.zero_inflated(NEGATIVE, popk.fixed(0.2))


def test_poisson_counts_have_the_probabilities_of_scipy():
    y, f = np.meshgrid(Y, MEANS)
    np.testing.assert_allclose(
        log_mass(popk.poisson(), y.ravel(), f.ravel()), stats.poisson.logpmf(y, f).ravel(), rtol=1e-12
    )  # fmt: skip


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 2.0])
def test_negative_binomial_counts_have_mean_f_and_variance_f_plus_alpha_f_squared(alpha):
    y, f = np.meshgrid(Y, MEANS)
    expected = stats.nbinom.logpmf(y, 1 / alpha, 1 / (1 + alpha * f)).ravel()
    found = log_mass(NEGATIVE, y.ravel(), f.ravel(), {"dispersion": alpha})
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    counts = np.arange(500)
    mass = np.exp(log_mass(NEGATIVE, counts, 3.0, {"dispersion": alpha}))
    assert mass.sum() == pytest.approx(1)
    assert mass @ counts == pytest.approx(3.0)
    assert mass @ (counts - 3.0) ** 2 == pytest.approx(3.0 + alpha * 9.0)


@pytest.mark.parametrize("alpha", [0.0, 1e-14, 1e-8])
def test_counts_with_next_to_no_dispersion_are_poisson_with_a_gradient(alpha):
    y, f = np.meshgrid(Y, MEANS)
    found = log_mass(NEGATIVE, y.ravel(), f.ravel(), {"dispersion": alpha})
    np.testing.assert_allclose(found, stats.poisson.logpmf(y, f).ravel(), rtol=1e-5, atol=1e-5)
    # d log P / d alpha at 0 is ((y - f)^2 - y) / 2
    slope = jax.grad(
        lambda a: outcomes(NEGATIVE, [3.0], {"dispersion": a}).log_prob(jnp.asarray([7.0])).sum()
    )(alpha)
    assert float(slope) == pytest.approx(((7 - 3) ** 2 - 7) / 2, rel=1e-5)


@pytest.mark.parametrize("y", [0.0, 1.0, 30.0])
def test_both_sides_of_the_series_for_little_dispersion_agree(y):
    edge = 1e-3 / max(y, 1.0)

    def density(a):
        return outcomes(NEGATIVE, [2.0], {"dispersion": a}).log_prob(jnp.asarray([y])).sum()

    for function in (density, jax.grad(density)):
        below, above = function(edge * (1 - 1e-9)), function(edge * (1 + 1e-9))
        np.testing.assert_allclose(below, above, rtol=1e-7)


@pytest.mark.parametrize("endpoint", [INFLATED, BOTH])
def test_a_share_of_further_zeros_takes_from_all_counts_alike(endpoint):
    values = {"dispersion": 0.3, "zeros": 0.2}
    inner = popk.poisson() if endpoint is INFLATED else NEGATIVE
    plain = np.exp(log_mass(inner, Y, 2.0, values))
    found = np.exp(log_mass(endpoint, Y, 2.0, values))
    np.testing.assert_allclose(found[0], 0.2 + 0.8 * plain[0])
    np.testing.assert_allclose(found[1:], 0.8 * plain[1:])


@pytest.mark.parametrize("endpoint", [popk.poisson(), NEGATIVE, INFLATED, BOTH])
def test_what_a_count_tells_of_its_mean_is_the_variance_of_the_score(endpoint):
    values = {"dispersion": 0.3, "zeros": 0.2}
    f = np.array([0.2, 1.0, 6.0])
    expected = information_by_sum(endpoint, f, values, range(200))
    np.testing.assert_allclose(outcomes(endpoint, f, values).information(), expected, rtol=1e-7)


def test_the_observed_curvature_of_a_poisson_count_is_y_over_f_squared():
    y, f = np.array([0.0, 3.0]), np.array([2.0, 1.5])
    found = outcomes(popk.poisson(), f, value=y).curvature()
    np.testing.assert_allclose(found, y / f**2)


@pytest.mark.parametrize("endpoint", [popk.poisson(), NEGATIVE, INFLATED, BOTH])
def test_counts_are_drawn_as_often_as_they_are_probable(endpoint):
    values = {"dispersion": 0.5, "zeros": 0.3}
    seen, expected, sd = frequencies(endpoint, 2.5, values, range(8))
    np.testing.assert_allclose(seen, expected, atol=4 * sd)


def test_where_nothing_can_be_counted_zero_is_certain_and_the_gradient_finite():
    def density(f):
        return outcomes(popk.poisson(), f).log_prob(jnp.zeros(2)).sum()

    f = jnp.asarray([0.0, -1e-12])  # what a solver leaves of nothing
    assert float(density(f)) == 0.0
    assert np.isfinite(jax.grad(density)(f)).all()
    np.testing.assert_array_equal(outcomes(popk.poisson(), f).information(), 0.0)


def test_a_negative_mean_gives_no_number():
    assert np.isnan(log_mass(popk.poisson(), 1, -0.1)).all()
    drawn = outcomes(popk.poisson(), [-0.1, np.nan]).sample(jax.random.key(0))
    assert np.isnan(drawn).all()


def test_levels_of_other_kinds_and_what_was_not_counted_do_not_count():
    measured, own = np.array([True, False, True]), np.array([True, True, False])
    found = outcomes(popk.poisson(), [1.0, 1.0, np.nan], own=own, measured=measured)
    y = jnp.asarray([2.0, 1.0, 0.37])
    np.testing.assert_allclose(found.log_prob(y), [stats.poisson.logpmf(2, 1.0), 0, 0])
    np.testing.assert_array_equal(found.information(), [1.0, 0, 0])
    gradient = jax.grad(
        lambda f: outcomes(popk.poisson(), f, own=own, measured=measured).log_prob(y).sum()
    )(jnp.asarray([1.0, np.nan, np.nan]))
    np.testing.assert_array_equal(gradient, [1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: popk.negative_binomial(popk.fixed(0)), "must be positive and finite: counts without any"),
        (lambda: popk.negative_binomial(-1.0), "it must be positive"),
        (lambda: known_prior("zeros", 0.2, "0.1"), r"zeros is 0.2; give its prior.*popk.fixed\(0.1\)"),
        (lambda: popk.zero_inflated(popk.poisson(), popk.fixed(1.0)), "0 or more, and below 1"),
        (lambda: popk.zero_inflated(popk.binary(), popk.fixed(0.1)), "takes counts without further zeros"),
        (lambda: popk.zero_inflated(INFLATED, popk.fixed(0.1)), "takes counts without further zeros"),
    ],
)  # fmt: skip
def test_what_is_no_model_of_counts_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
