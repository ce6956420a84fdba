"""What is the probability of a level, measured or known only to lie somewhere?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints
from scipy import stats

import popk
from popk.residual import Residual, box_cox_error
from tests.residual.observed import levels, observations

PREDICTED = np.array([0.3, 1.0, 4.0, 12.0])
LEVELS = np.array([0.5, 0.9, 4.4, 10.0])

#: Each error model with values of its standard deviations, and the reference distribution at f.
MODELS = {
    "additive": (popk.additive_error(1), {"additive": 0.7}, lambda f: stats.norm(f, 0.7)),
    "proportional": (
        popk.proportional_error(1),
        {"proportional": 0.2},
        lambda f: stats.norm(f, 0.2 * f),
    ),
    "combined": (
        popk.combined_error(1, 1),
        {"additive": 0.7, "proportional": 0.2},
        lambda f: stats.norm(f, np.sqrt(0.7**2 + (0.2 * f) ** 2)),
    ),
    "lognormal": (popk.lognormal_error(1), {"log": 0.3}, lambda f: stats.lognorm(s=0.3, scale=f)),
}
every_model = pytest.mark.parametrize("name", MODELS)


def residual(name, f, own=True, **given):
    error, sigmas, _ = MODELS[name]
    return levels(error, sigmas, f, own=own, **given)


def log_prob_and_gradient(name, f, value, **given):
    def total(f):
        return residual(name, f, **given).log_prob(jnp.asarray(value, dtype=float)).sum()

    f = jnp.asarray(f, dtype=float)
    return jax.value_and_grad(total)(f)


@every_model
def test_a_level_has_the_density_of_its_error_model(name):
    expected = MODELS[name][2](PREDICTED).logpdf(LEVELS)
    np.testing.assert_allclose(
        residual(name, PREDICTED).log_prob(jnp.asarray(LEVELS)), expected, rtol=1e-12
    )


@every_model
def test_the_parts_of_a_normal_level_make_its_density(name):
    found = residual(name, PREDICTED, value=LEVELS, measured=[True, True, True, False])
    error, spread, constant = found.parts()
    total = -0.5 * (error / spread) ** 2 - jnp.log(spread) + constant
    np.testing.assert_allclose(total, found.log_prob(jnp.asarray(LEVELS)), rtol=1e-12)
    assert (error[3], spread[3], constant[3]) == (0, 1, 0)  # what does not count


@every_model
def test_a_level_below_the_limit_has_the_probability_of_being_below_it(name):
    expected = MODELS[name][2](PREDICTED).logcdf(0.8)
    found = residual(name, PREDICTED, below=True, limit=0.8).log_prob(jnp.ones(4))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_value_recorded_for_a_level_below_the_limit_does_not_matter():
    for value in (0.1, 1.0, 50.0):
        found = residual("combined", [2.0], below=True, limit=0.5).log_prob(jnp.asarray([value]))
        expected = stats.norm(2, np.sqrt(0.49 + 0.16)).logcdf(0.5)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("sds", [1, 10, 30, 50, 200])
def test_the_gradient_lives_far_above_the_limit(sds):
    # PITFALLS: NumPyro's own censored distribution has a gradient of 0 from 45 sd on.
    s, limit = 0.7, 0.5
    f = limit + sds * s
    value, gradient = log_prob_and_gradient("additive", [f], [1.0], below=True, limit=limit)
    expected = stats.norm(f, s).logcdf(limit)
    hazard = np.exp(stats.norm.logpdf(-sds) - stats.norm.logcdf(-sds)) / s
    assert float(value) == pytest.approx(expected, rel=1e-9)
    assert float(gradient[0]) == pytest.approx(-hazard, rel=1e-9)


@every_model
def test_a_level_below_the_limit_where_nothing_is_predicted_is_certain(name):
    # Before the first dose the prediction is 0; so is the error's spread, or the logarithm is infinite.
    value, gradient = log_prob_and_gradient(name, [0.0], [1.0], below=True, limit=100.0)
    assert float(value) == pytest.approx(0, abs=1e-12)
    assert np.isfinite(gradient).all()


@every_model
@pytest.mark.parametrize("below", [False, True])
def test_what_was_not_measured_contributes_nothing_not_even_a_nan(name, below):
    f = [0.0, -1.0, np.nan, 3.0]
    value, gradient = log_prob_and_gradient(
        name, f, [1.0, 1.0, 1.0, 1.0], measured=False, below=below
    )
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_measured_and_unmeasured_levels_do_not_mix():
    measured = jnp.asarray([True, False, True, False])
    found = residual("additive", PREDICTED, measured=measured).log_prob(jnp.asarray(LEVELS))
    expected = np.where(measured, stats.norm(PREDICTED, 0.7).logpdf(LEVELS), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@every_model
@pytest.mark.parametrize("below", [False, True])
def test_a_level_of_another_kind_contributes_nothing_not_even_a_nan(name, below):
    f, y = [0.0, np.nan, 3.0, 2.0], [1.0, 1.0, 1.0, 2.5]
    own = jnp.asarray([False, False, False, True])
    value, gradient = log_prob_and_gradient(name, f, y, own=own, below=below)
    alone, slope = log_prob_and_gradient(name, f[3:], y[3:], below=below)
    # 0 and not nearly: what stays may differ by how the compiler orders a sum.
    np.testing.assert_allclose(float(value), float(alone), rtol=1e-14)
    np.testing.assert_allclose(gradient, [0, 0, 0, slope[0]], rtol=1e-14)
    both, one = residual(name, f, own=own, below=below), residual(name, f[3:], below=below)
    np.testing.assert_allclose(both.information(), [0, 0, 0, *one.information()], rtol=1e-14)
    np.testing.assert_allclose(both.curvature(), [0, 0, 0, *one.curvature()], rtol=1e-14)


@every_model
def test_information_is_the_expected_curvature_in_the_prediction(name):
    error, sigmas, reference = MODELS[name]
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    for f in PREDICTED[1:]:
        center, spread = (np.log(f), sigmas["log"]) if error.log else (f, reference(f).std())
        y = center + spread * nodes
        y = jnp.asarray(np.exp(y) if error.log else y)

        def likelihood(f, y):
            return residual(name, f[None]).log_prob(y[None])[0]

        curvature = jax.vmap(jax.hessian(likelihood), (None, 0))(jnp.asarray(f), y)
        expected = -(weights * np.asarray(curvature)).sum() / weights.sum()
        assert float(residual(name, [f]).information()[0]) == pytest.approx(expected, rel=1e-9)


def test_information_of_a_proportional_error_is_that_of_the_conformance_readme():
    # 22 = 1 / 0.05 + 2, with v = 0.05 f^2.
    error = popk.proportional_error(popk.fixed(np.sqrt(0.05)))
    f = jnp.asarray([3.0])
    sigmas = {"proportional": jnp.sqrt(0.05)}
    found = Residual(f, sigmas, error, observations(1), jnp.asarray([True])).information()
    assert float(found[0]) == pytest.approx(22 / 9, rel=1e-12)


def test_information_of_a_level_below_the_limit_is_its_observed_curvature():
    def likelihood(f):
        return stats.norm(f, 0.7).logcdf(0.5)

    h = 1e-4
    curvature = (likelihood(1 + h) - 2 * likelihood(1.0) + likelihood(1 - h)) / h**2
    found = residual("additive", [1.0], below=True, limit=0.5).information()
    assert float(found[0]) == pytest.approx(-curvature, rel=1e-6)


def test_what_was_not_measured_has_no_information():
    found = residual("combined", [0.0, np.nan, 2.0], measured=False).information()
    np.testing.assert_array_equal(found, 0)


@every_model
def test_sampled_levels_have_the_moments_of_their_error_model(name):
    reference = MODELS[name][2](PREDICTED)
    y = np.asarray(residual(name, PREDICTED).sample(jax.random.key(1), (40_000,)))
    assert y.shape == (40_000, 4)
    error = reference.std() / 200
    assert (np.abs(y.mean(0) - reference.mean()) < 4 * error).all()
    np.testing.assert_allclose(y.std(0), reference.std(), rtol=0.03)


def test_sampled_levels_are_never_censored():
    y = residual("additive", np.full(2000, 0.5), below=True, limit=0.5).sample(jax.random.key(2))
    assert 0.4 < float((y < 0.5).mean()) < 0.6
    assert float(y.min()) < 0


def test_the_same_key_gives_the_same_levels():
    first, second = (residual("combined", PREDICTED).sample(jax.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_levels_of_a_lognormal_error_are_positive():
    assert residual("lognormal", [1.0]).support is constraints.positive
    assert residual("additive", [1.0]).support is constraints.real
    assert levels(popk.additive_error(1, blq="M4"), {}, [1.0]).support is constraints.positive


# Variability of the residual error between subjects


def test_each_subject_may_have_a_residual_error_of_its_own():
    subject = jnp.asarray([0, 0, 1, 1])
    scale = jnp.asarray([[1.0], [2.0]])
    found = levels(*MODELS["additive"][:2], PREDICTED, subject=subject, options={"scale": scale})
    expected = stats.norm(PREDICTED, [0.7, 0.7, 1.4, 1.4]).logpdf(LEVELS)
    np.testing.assert_allclose(found.log_prob(jnp.asarray(LEVELS)), expected, rtol=1e-12)
    np.testing.assert_allclose(found.information(), [1 / 0.49] * 2 + [1 / 1.96] * 2, rtol=1e-12)


def test_a_scale_has_one_value_a_subject():
    with pytest.raises(ValueError, match="one value a subject"):
        levels(*MODELS["additive"][:2], [1.0, 2.0], options={"scale": jnp.asarray([1.0, 2.0])})


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_that_is_not_positive_gives_no_number(scale):
    options = {"scale": jnp.asarray([[scale]])}
    found = levels(*MODELS["additive"][:2], [1.0], options=options).log_prob(jnp.ones(1))
    assert np.isnan(found).all()


def test_a_level_that_is_not_positive_is_impossible_where_levels_have_logarithms():
    power = box_cox_error(popk.additive_error(1), popk.fixed(0.5)), {"additive": 0.7, "lambda": 0.5}
    for error, sigmas in (MODELS["lognormal"][:2], power):
        found = levels(error, sigmas, [1.0, 1.0]).log_prob(jnp.asarray([0.0, -1.0]))
        np.testing.assert_array_equal(found, -np.inf)
