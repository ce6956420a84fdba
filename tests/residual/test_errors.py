"""Which residual error models are there? Standard deviations, distributions and scales of errors."""

from inspect import unwrap

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import popk
from popk.priors import Fixed
from popk.residual import lognormal_error, power_error

ERRORS = {
    "additive": lambda **options: popk.additive_error(0.5, **options),
    "proportional": lambda **options: popk.proportional_error(0.2, **options),
    "combined": lambda **options: popk.combined_error(0.5, 0.2, **options),
    "sd": lambda **options: popk.combined_error(0.5, 0.2, convention="sd", **options),
    "power": lambda **options: power_error(0.5, 1.0, **options),
    "lognormal": lambda **options: lognormal_error(0.3, **options),
}


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (popk.additive_error(0.5), ["additive"]),
        (popk.proportional_error(0.2), ["proportional"]),
        (popk.combined_error(0.5, 0.2), ["additive", "proportional"]),
        (popk.lognormal_error(0.3), ["log"]),
    ],
)
def test_a_number_is_the_scale_of_a_half_normal_prior_of_each_sigma(error, names):
    assert list(error.priors) == names
    assert all(isinstance(prior, dist.HalfNormal) for prior in error.priors.values())


def test_scales_stay_with_their_sigmas():
    priors = popk.combined_error(additive=0.5, proportional=0.2).priors
    assert float(priors["additive"].scale) == 0.5
    assert float(priors["proportional"].scale) == 0.2


def test_a_sigma_may_be_fixed_or_have_a_prior_of_its_own():
    prior = dist.Exponential(2.0)
    error = popk.combined_error(additive=popk.fixed(0.1), proportional=prior)
    assert error.priors == {"additive": Fixed(0.1), "proportional": prior}


@pytest.mark.parametrize("scale", [0, -1.0])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match="it must be positive"):
        popk.additive_error(scale)


def test_in_the_combined_error_variances_add():
    spread = popk.combined_error(1, 1).spread(
        jnp.asarray([0.0, 4.0]), additive=3.0, proportional=1.0
    )
    np.testing.assert_allclose(spread, [3.0, 5.0], rtol=1e-15)


def test_in_the_other_convention_standard_deviations_add():
    error = popk.combined_error(1, 1, convention="sd")
    spread = error.spread(jnp.asarray([0.0, 4.0]), intercept=3.0, slope=1.0)
    np.testing.assert_allclose(spread, [3.0, 7.0], rtol=1e-15)


def test_another_convention_is_refused():
    with pytest.raises(ValueError, match="convention is 'both'; write 'variance'"):
        unwrap(popk.combined_error)(1, 1, convention="both")


def test_a_power_error_grows_with_a_power_of_the_prediction():
    spread = power_error(1, 1).spread(jnp.asarray([0.0, 4.0]), coefficient=3.0, exponent=0.5)
    np.testing.assert_allclose(spread, [0.0, 6.0], rtol=1e-15)


def test_a_power_error_of_exponent_0_is_additive_even_where_nothing_is_predicted():
    spread = power_error(1, 1).spread(jnp.asarray([0.0, 4.0]), coefficient=3.0, exponent=0.0)
    np.testing.assert_allclose(spread, [3.0, 3.0], rtol=1e-15)


def test_a_power_error_has_finite_slopes_where_nothing_is_predicted():
    def spread(f, b, c):
        return power_error(1, 1).spread(f, coefficient=b, exponent=c)

    assert np.isfinite(jax.grad(spread, (0, 1, 2))(0.0, 3.0, 0.5)).all()


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_model_may_be_t_distributed(name):
    error = ERRORS[name](degrees=popk.fixed(4))
    assert error.priors["degrees"] == Fixed(4.0)
    assert error.heavy_tailed
    assert not ERRORS[name]().heavy_tailed


def test_degrees_may_have_a_prior():
    prior = dist.Gamma(2.0, 0.1)
    assert popk.additive_error(1, degrees=prior).priors["degrees"] is prior


def test_a_bare_number_is_no_prior_of_degrees():
    with pytest.raises(ValueError, match=r"degrees is 4; .* popk.fixed\(4\)"):
        unwrap(popk.additive_error)(1, degrees=4)


@pytest.mark.parametrize("degrees", [0.0, -1.0, np.inf, np.nan])
def test_degrees_are_positive_and_finite(degrees):
    with pytest.raises(ValueError, match="they must be positive and finite"):
        popk.additive_error(1, degrees=popk.fixed(degrees))


@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_a_standard_deviation_is_not_fixed_below_0(value):
    with pytest.raises(ValueError, match="it must be 0 or more"):
        popk.proportional_error(popk.fixed(value))


def test_another_method_below_the_limit_is_refused():
    with pytest.raises(ValueError, match="blq is 'M5'; write 'M3', or 'M4'"):
        unwrap(popk.additive_error)(1, blq="M5")


def test_t_distributed_errors_are_not_cut_at_0():
    with pytest.raises(ValueError, match="t-distributed errors were given blq='M4'"):
        popk.additive_error(1, degrees=popk.fixed(4), blq="M4")
