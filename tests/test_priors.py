"""What is believed before the data?"""

import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import popk
from popk.priors import Fixed, half_normal


@pytest.mark.parametrize(("median", "cv"), [(2.8, 0.5), (0.005, 0.3), (32, 1.0), (1, 2.5)])
def test_lognormal_has_its_median_and_coefficient_of_variation(median, cv):
    prior = popk.lognormal(median, cv=cv)
    assert float(prior.icdf(0.5)) == pytest.approx(median, rel=1e-12)
    assert float(np.sqrt(prior.variance) / prior.mean) == pytest.approx(cv, rel=1e-12)


def test_lognormal_is_the_log_normal_distribution_of_log_sd_sqrt_log_1_plus_cv_squared():
    prior = popk.lognormal(2.8, cv=0.5)
    reference = stats.lognorm(s=np.sqrt(np.log(1.25)), scale=2.8)
    for x in (0.1, 1.0, 2.8, 9.0):
        assert float(prior.log_prob(x)) == pytest.approx(reference.logpdf(x), rel=1e-12)


@pytest.mark.parametrize(
    ("median", "cv"), [(0, 0.5), (-1, 0.5), (1, 0), (1, -0.1), (float("nan"), 1)]
)
def test_lognormal_refuses_what_is_not_positive(median, cv):
    with pytest.raises(ValueError, match="both must be positive") as caught:
        popk.lognormal(median, cv=cv)
    assert str(caught.value).startswith(f"lognormal(median={median}, cv={cv}):")


def test_fixed_holds_a_value_in_the_place_of_a_prior():
    assert popk.fixed(2) == Fixed(2.0)
    assert isinstance(popk.fixed(2).value, float)


def test_a_number_is_the_scale_of_a_half_normal():
    prior = half_normal(0.4)
    assert isinstance(prior, dist.HalfNormal)
    assert float(prior.log_prob(0.3)) == pytest.approx(stats.halfnorm(scale=0.4).logpdf(0.3))
    assert isinstance(half_normal(1), dist.HalfNormal)


@pytest.mark.parametrize(
    "prior", [popk.fixed(0.2), dist.Exponential(3.0)], ids=["fixed", "distribution"]
)
def test_a_prior_that_is_given_is_taken_as_it_is(prior):
    assert half_normal(prior) is prior


@pytest.mark.parametrize("scale", [0, -0.5, 0.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused_with_the_way_to_fix_a_value(scale):
    with pytest.raises(ValueError, match=r"must be positive; popk\.fixed") as caught:
        half_normal(scale)
    assert str(caught.value) == (
        f"{scale} is no scale of a half-normal prior: it must be positive; "
        f"popk.fixed({scale}) fixes the value itself"
    )


def test_a_published_estimate_is_a_normal_prior_of_its_standard_error():
    found = popk.prior(-0.5, rse=0.2)
    assert (float(found.loc), float(found.scale)) == (-0.5, 0.1)


def test_of_a_positive_parameter_it_is_log_normal():
    found = popk.prior(2.8, rse=0.3, positive=True)
    assert float(found.icdf(0.5)) == pytest.approx(2.8)
    assert float(np.sqrt(found.variance) / found.mean) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("estimate", "options"),
    [
        (0.0, {"rse": 0.2}),
        (1.0, {"rse": 0}),
        (-1.0, {"rse": 0.2, "positive": True}),
        (float("nan"), {"rse": 1}),
    ],
)
def test_an_estimate_that_makes_no_prior_is_refused(estimate, options):
    with pytest.raises(ValueError, match="rse must be positive and the estimate not 0"):
        popk.prior(estimate, **options)
