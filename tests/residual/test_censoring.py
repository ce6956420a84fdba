"""What is the probability of a level known only to lie above 0, above a limit, or between two?"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import stats

import popk
from tests.residual.observed import levels
from tests.residual.test_levels import LEVELS, MODELS, PREDICTED, every_model

# Positive levels (M4)

M4 = popk.additive_error(1, blq="M4"), {"additive": 0.7}


def truncated(f, s=0.7):
    return stats.truncnorm(-f / s, np.inf, f, s)


def test_a_positive_level_below_the_limit_has_its_probability_given_that_it_is_positive():
    found = levels(*M4, PREDICTED, below=True, limit=0.8).log_prob(jnp.ones(4))
    np.testing.assert_allclose(found, truncated(PREDICTED).logcdf(0.8), rtol=1e-10)


def test_a_measured_level_of_m4_has_a_density_cut_at_0():
    found = levels(*M4, PREDICTED).log_prob(jnp.asarray(LEVELS))
    np.testing.assert_allclose(found, truncated(PREDICTED).logpdf(LEVELS), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_a_level_that_is_not_positive_is_impossible_under_m4(value):
    assert float(levels(*M4, [1.0]).log_prob(jnp.asarray([value]))[0]) == -np.inf


def test_a_limit_of_0_has_no_levels_below_it_under_m4():
    found = levels(*M4, [1.0], below=True, limit=0.0).log_prob(jnp.ones(1))
    assert not np.isfinite(found).any()


@pytest.mark.parametrize("sds", [-50, -10, 10, 50])
def test_under_m4_the_gradient_lives_far_above_and_below_the_limit(sds):
    # By digits: Phi((L - f) / s) - Phi(-f / s) over Phi(f / s).
    s, limit = 0.7, 0.5
    f = limit + sds * s

    def total(f):
        return levels(*M4, f, below=True, limit=limit).log_prob(jnp.ones(1)).sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray([f]))
    with mp.workdps(800):

        def exact(f):
            s_, low = mp.mpf(s), mp.mpf(f) / mp.mpf(s)
            return mp.log((mp.ncdf(low) - mp.ncdf((mp.mpf(f) - limit) / s_)) / mp.ncdf(low))

        expected, slope = float(exact(f)), float(mp.diff(exact, f))
    assert float(value) == pytest.approx(expected, rel=1e-8)
    assert float(gradient[0]) == pytest.approx(slope, rel=1e-8)


def test_sampled_levels_of_m4_are_positive_and_have_the_moments_of_a_cut_normal():
    f = np.array([0.1, 0.5, 2.0])
    y = np.asarray(levels(*M4, f).sample(jax.random.key(4), (40_000,)))
    assert y.min() > 0
    assert (np.abs(y.mean(0) - truncated(f).mean()) < 4 * truncated(f).std() / 200).all()
    np.testing.assert_allclose(y.std(0), truncated(f).std(), rtol=0.03)


# Above a limit, and between two


def outside(error, sigmas, below, above, limit=0.8, upper=3.0):
    given = {"below": below, "limit": limit, "above": above, "upper": upper}
    given["options"] = {"above": True}
    return levels(error, sigmas, PREDICTED, **given).log_prob(jnp.asarray(LEVELS))


@every_model
def test_a_level_above_the_upper_limit_has_the_probability_of_being_above_it(name):
    error, sigmas, reference = MODELS[name]
    found = outside(error, sigmas, below=False, above=True)
    np.testing.assert_allclose(found, reference(PREDICTED).logsf(3.0), rtol=1e-9)


def test_a_level_above_the_upper_limit_is_cut_at_0_under_m4():
    found = outside(*M4, below=False, above=True)
    np.testing.assert_allclose(found, truncated(PREDICTED).logsf(3.0), rtol=1e-9)


def test_a_level_between_two_limits_has_the_probability_of_being_there():
    found = outside(*MODELS["additive"][:2], below=True, above=True, limit=5.0)
    normal = stats.norm(PREDICTED, 0.7)
    np.testing.assert_allclose(found, np.log(normal.cdf(5) - normal.cdf(3)), rtol=1e-9)
    assert float(found[3]) == pytest.approx(stats.norm.logcdf(-10), rel=1e-9)  # 12 - 5 = 10 sd


def test_a_level_between_limits_in_the_wrong_order_has_no_probability():
    found = outside(*MODELS["additive"][:2], below=True, above=True, limit=2.0)
    assert np.isnan(found).all()


def test_levels_that_are_not_above_a_limit_are_as_without_one():
    found = outside(*MODELS["combined"][:2], below=False, above=False)
    np.testing.assert_array_equal(
        found, levels(*MODELS["combined"][:2], PREDICTED).log_prob(jnp.asarray(LEVELS))
    )


@pytest.mark.parametrize("sds", [-50, 50])
def test_the_gradient_lives_far_from_the_upper_limit(sds):
    s, upper = 0.7, 30.0
    options = {"above": True}

    def total(f):
        found = levels(*MODELS["additive"][:2], f, above=True, upper=upper, options=options)
        return found.log_prob(jnp.ones(1)).sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray([upper + sds * s]))
    hazard = np.exp(stats.norm.logpdf(sds) - stats.norm.logcdf(sds)) / s
    assert float(value) == pytest.approx(stats.norm.logcdf(sds), rel=1e-9)
    assert float(gradient[0]) == pytest.approx(hazard, rel=1e-9)
