"""Maturation from before term to adulthood."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.covariates.maturation import (
    asymptotic,
    normal_filtration_rate,
    post_menstrual_age,
    renal_maturation,
    sigmoid,
    size_and_maturation,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

YEAR = 365.25 / 7  # weeks


@pytest.mark.parametrize(
    ("PNA", "unit", "weeks"),
    [(14.0, "day", 2.0), (3.0, "week", 3.0), (3.0, "month", YEAR / 4), (2.0, "years", 2 * YEAR)],
)
def test_post_menstrual_age_is_gestational_and_postnatal_age(PNA, unit, weeks):
    assert float(post_menstrual_age(PNA, 30.0, age_unit=unit)) == pytest.approx(
        30 + weeks, rel=1e-12
    )


def test_gestational_age_has_a_unit_of_its_own():
    found = post_menstrual_age(1.0, 280.0, age_unit="week", gestational_unit="day")
    assert float(found) == pytest.approx(41, rel=1e-14)


def test_half_has_matured_at_tm50_whatever_the_exponent():
    for HILL in (0.5, 1.0, 3.4, 30.0):
        assert float(sigmoid(47.7, TM50=47.7, HILL=HILL)) == 0.5


def test_maturation_is_hills_equation():
    # 2^2 / (1 + 2^2), 0.5^3 / (1 + 0.5^3)
    assert float(sigmoid(80.0, 40.0, 2.0)) == pytest.approx(4 / 5, rel=1e-14)
    assert float(sigmoid(25.0, 50.0, 3.0)) == pytest.approx(1 / 9, rel=1e-14)


def test_rhodins_infant_of_one_year_has_nine_tenths_of_adult_filtration():
    PMA = post_menstrual_age(1.0, 40.0, age_unit="year")
    assert float(renal_maturation(PMA)) == pytest.approx(0.90, abs=0.005)


def test_rhodins_adult_of_70_kg_filters_121_milliliters_a_minute():
    PMA = post_menstrual_age(30.0, 40.0, age_unit="year")
    assert float(normal_filtration_rate(70.0, PMA)) == pytest.approx(121.2, rel=1e-4)


def test_filtration_is_size_times_maturation():
    # 70 / 16 kg: 16^(-3/4) is 1 / 8; half has matured.
    assert float(normal_filtration_rate(70 / 16, 47.7)) == pytest.approx(121.2 / 16, rel=1e-14)
    found = size_and_maturation(70 / 4, 50.0, TM50=50.0, HILL=3.0, exponent=1.0)
    assert float(found) == pytest.approx(1 / 8, rel=1e-14)


def test_paracetamol_clearance_of_anderson_2000_matures_from_birth():
    # 4.9 of 13.0 L/h/70kg at birth, half-life 3.25 months, 12.4 L/h/70kg by 12 months.
    found = 13.0 * asymptotic(np.asarray([0.0, 12.0]), 3.25, 4.9 / 13.0)
    np.testing.assert_allclose(found, [4.9, 12.4], atol=0.05)


def test_paracetamol_clearance_of_anderson_2002_matures_from_28_weeks():
    # 0.74 of 12.5 L/h/70kg at 28 weeks, half-life 11.3 weeks, 10.8 L/h/70kg by 60 weeks.
    found = 12.5 * asymptotic(60.0, 11.3, 0.74 / 12.5, start=28.0)
    assert float(found) == pytest.approx(10.8, abs=0.05)


def test_paracetamol_volume_of_anderson_2002_shrinks_to_that_of_adults():
    # 109.7 L/70kg at 28 weeks, half-life 11.5 weeks, 72.9 by 60 weeks, of 66.6 in the end.
    found = 66.6 * asymptotic(60.0, 11.5, 109.7 / 66.6, start=28.0)
    assert float(found) == pytest.approx(72.9, abs=0.1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            lambda: post_menstrual_age(-1.0, 40.0, age_unit="day"),
            "PNA is -1 day, but must be from 0 to 47482.5 day; correct it, or name its unit as age_unit",
        ),
        (lambda: post_menstrual_age(400.0, 40.0, age_unit="year"), "from 0 to 130 year"),
        (
            lambda: post_menstrual_age(1.0, 280.0, age_unit="day"),
            "gestational_age is 280 week, but must be from 20 to 45 week",
        ),
        (
            lambda: post_menstrual_age(1.0, 40.0, age_unit="kg"),
            "age_unit is 'kg', but must be a unit of time; write 'year', 'month', 'week' or 'day'",
        ),
        (
            lambda: renal_maturation(5.0),  # years, by mistake
            "PMA is 5 weeks, but must be from 20 to 7000 weeks; correct it, or convert it by post_",
        ),
        (lambda: sigmoid(40.0, -47.7, 3.4), "TM50 is -47.7 weeks, but must be above 0"),
        (lambda: sigmoid(40.0, 47.7, 0.0), "HILL is 0, but must be above 0"),
        (lambda: asymptotic(-1.0, 3.25, 0.4), "age is -1, but must be at least 0"),
        (lambda: asymptotic(1.0, 0.0, 0.4), "half_life is 0, but must be above 0"),
        (lambda: asymptotic(1.0, 3.25, -0.4), "at_start is -0.4, but must be at least 0"),
        (
            lambda: asymptotic(20.0, 11.3, 0.06, start=28.0),
            "age minus start is -8, but must not be negative; choose an earlier start",
        ),
        (lambda: normal_filtration_rate(-3.0, 40.0), "WT is -3 kg, but must be from 0.2 to 700 kg"),
    ],
)
def test_the_age_of_no_person_is_refused(function, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        function()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: post_menstrual_age(x, 40.0, age_unit="day"),
        lambda x: renal_maturation(x),
        lambda x: sigmoid(40.0, x, 3.4),
        lambda x: sigmoid(40.0, 47.7, x),
        lambda x: asymptotic(x, 3.25, 0.4),
        lambda x: normal_filtration_rate(x, 40.0),
        lambda x: size_and_maturation(3.5, x, 47.7, 3.4),
    ],
)
def test_what_is_negative_within_a_compiled_function_gives_nan_and_what_is_right_does_not(function):
    found = jax.jit(function)(jnp.asarray([-30.0, 30.0]))
    np.testing.assert_array_equal(np.isnan(found), [True, False])


def test_maturation_has_finite_gradients_from_the_newborn_to_the_old():
    gradient = jax.grad(sigmoid, argnums=(0, 1, 2))
    for PMA in (22.0, 47.7, 5000.0):
        assert np.isfinite(jnp.stack(gradient(PMA, 47.7, 3.4))).all()
    # At TM50 the slope of Hill's equation is h / (4 TM50).
    assert float(gradient(47.7, 47.7, 3.4)[0]) == pytest.approx(3.4 / (4 * 47.7), rel=1e-14)
