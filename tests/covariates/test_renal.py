"""Creatinine clearance and glomerular filtration rate."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.covariates.renal import ckd_epi_2021, cockcroft_gault, deindexed, schwartz_2009

pytestmark = pytest.mark.usefixtures("strict_promotion")

#: Each estimate as a function of creatinine and its unit.
ESTIMATES = {
    "Cockcroft-Gault": lambda CR, unit: cockcroft_gault(40.0, 72.0, CR, male=1, unit=unit),
    "CKD-EPI": lambda CR, unit: ckd_epi_2021(40.0, CR, male=1, unit=unit),
    "Schwartz": lambda CR, unit: schwartz_2009(100.0, CR, unit=unit),
}
every_estimate = pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)


def test_a_man_of_40_years_and_72_kg_clears_100_milliliters_a_minute():
    found = cockcroft_gault(40.0, 72.0, 1.0, male=np.asarray([1, 0]), unit="mg/dL")
    np.testing.assert_allclose(found, [100, 85], rtol=1e-15)


def test_cockcroft_gault_falls_to_0_at_140_years_and_inversely_with_creatinine():
    age, CR = np.asarray([20.0, 80.0, 110.0]), np.asarray([1.0, 2.0, 4.0])
    found = cockcroft_gault(age, 72.0, CR, male=1, unit="mg/dL")
    np.testing.assert_allclose(found, [120, 30, 7.5], rtol=1e-15)


@pytest.mark.parametrize(("male", "kappa", "factor"), [(1, 0.9, 1.0), (0, 0.7, 1.012)])
def test_ckd_epi_at_the_knot_knows_only_age_and_sex(male, kappa, factor):
    found = float(ckd_epi_2021(50.0, kappa, male=male, unit="mg/dL"))
    assert found == pytest.approx(142 * 0.9938**50 * factor, rel=1e-14)


@pytest.mark.parametrize(("male", "kappa", "alpha"), [(1, 0.9, -0.302), (0, 0.7, -0.241)])
def test_ckd_epi_has_two_slopes_in_the_logarithm_of_creatinine(male, kappa, alpha):
    at, half, twice = (
        float(ckd_epi_2021(50.0, scale * kappa, male=male, unit="mg/dL")) for scale in (1, 0.5, 2)
    )
    assert half / at == pytest.approx(0.5**alpha, rel=1e-14)
    assert twice / at == pytest.approx(2**-1.2, rel=1e-14)


def test_ckd_epi_of_a_woman_of_55_years_is_about_76():
    # A published worked example, with roundings on its way.
    assert float(ckd_epi_2021(55.0, 0.9, male=0, unit="mg/dL")) == pytest.approx(76, abs=0.6)


def test_schwartz_at_the_bedside_of_a_child_of_one_meter_gives_103():
    assert float(schwartz_2009(100.0, 0.4, unit="mg/dL")) == pytest.approx(103.25, rel=1e-14)
    assert float(schwartz_2009(1.0, 0.4, unit="mg/dL", height_unit="m")) == pytest.approx(103.25)


def test_a_filtration_rate_is_made_absolute_by_the_body_surface():
    np.testing.assert_allclose(deindexed(90.0, np.asarray([1.73, 0.865])), [90, 45], rtol=1e-15)


@every_estimate
def test_creatinine_means_the_same_in_any_unit(estimate):
    expected = float(estimate(1.2, "mg/dL"))
    molar = 1.2 * 1e4 / 113.12  # umol/L, by the molar mass of 113.12 g/mol
    for value, unit in (
        (12.0, "mg/L"),
        (molar, "umol/L"),
        (molar, "µmol/L"),
        (molar / 1e3, "mmol/L"),
    ):
        assert float(estimate(value, unit)) == pytest.approx(expected, rel=1e-13)
    # 88.4 umol/L is what laboratories take for 1 mg/dL.
    assert float(estimate(88.4, "umol/L")) == pytest.approx(float(estimate(1.0, "mg/dL")), rel=1e-4)


@every_estimate
@pytest.mark.parametrize("unit", ["mg", "U/L", "", "mL/min", "mg/kg", "furlong", "nonsense"])
def test_a_unit_that_is_no_concentration_is_refused(estimate, unit):
    sentence = "but must be a unit of creatinine in serum; write 'mg/dL' or 'umol/L'"
    with pytest.raises(ValueError, match=sentence) as error:
        estimate(1.0, unit)
    assert str(error.value).startswith(f"unit is {unit!r}, ")


def test_there_is_no_default_unit():
    with pytest.raises(TypeError, match="unit"):
        cockcroft_gault(40.0, 72.0, 1.0, male=1)  # type: ignore[call-arg]


@every_estimate
@pytest.mark.parametrize(
    ("creatinine", "unit", "sentence"),
    [
        (
            -1.0,
            "mg/dL",
            "creatinine is -1 mg/dL, but must be from 0.05 to 100 mg/dL; correct it, or",
        ),
        (0.0, "mg/dL", "creatinine is 0 mg/dL"),
        (1.0, "umol/L", "creatinine is 1 umol/L, but must be from 4.42"),
        (np.nan, "mg/dL", "creatinine is nan mg/dL"),
    ],
)
def test_the_creatinine_of_no_person_is_refused(estimate, creatinine, unit, sentence):
    with pytest.raises(ValueError, match=sentence):
        estimate(creatinine, unit)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            lambda: cockcroft_gault(-4.0, 72.0, 1.0, male=1, unit="mg/dL"),
            "age is -4 years, but must be from 18 to 130 years; for children use schwartz_2009",
        ),
        (
            lambda: ckd_epi_2021(12.0, 1.0, male=1, unit="mg/dL"),
            "age is 12 years, but must be from 18",
        ),
        (lambda: cockcroft_gault(40.0, -72.0, 1.0, male=1, unit="mg/dL"), "WT is -72 kg, but"),
        (
            lambda: ckd_epi_2021(40.0, 1.0, male=3, unit="mg/dL"),
            "male is 3, but must be one of 0, 1",
        ),
        (
            lambda: schwartz_2009(1.0, 0.4, unit="mg/dL"),
            "HT is 1 cm, but must be from 20 to 280 cm",
        ),
        (lambda: deindexed(-90.0, 1.73), "GFR is -90 mL/min/1.73 m^2, but must be above 0"),
        (lambda: deindexed(90.0, 17300.0), "BSA is 17300 m^2, but must be from 0.05 to 5 m^2"),
    ],
)
def test_what_is_out_of_range_is_refused(function, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        function()


@every_estimate
def test_what_is_out_of_range_is_nan_within_a_compiled_function(estimate):
    found = jax.jit(lambda CR: estimate(CR, "mg/dL"))(jnp.asarray([-1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


@pytest.mark.parametrize("function", [cockcroft_gault, ckd_epi_2021])
def test_age_and_sex_out_of_range_are_nan_within_a_compiled_function(function):
    body = (72.0,) if function is cockcroft_gault else ()

    def estimate(age, male):
        return function(age, *body, 1.0, male=male, unit="mg/dL")

    ages, sexes = jnp.asarray([40.0, -4.0, 40.0]), jnp.asarray([1, 1, 2])
    np.testing.assert_array_equal(np.isnan(jax.jit(estimate)(ages, sexes)), [False, True, True])


@every_estimate
def test_the_gradient_in_creatinine_is_that_of_finite_differences(estimate):
    for CR in (0.6, 1.4):
        found = float(jax.grad(lambda CR: estimate(CR, "mg/dL"))(CR))
        difference = (estimate(CR + 1e-6, "mg/dL") - estimate(CR - 1e-6, "mg/dL")) / 2e-6
        assert found == pytest.approx(float(difference), rel=1e-7)


def test_people_and_records_broadcast():
    ages, CR = np.asarray([[40], [68]]), jnp.asarray([[1.0, 2.0, 4.0]])
    found = cockcroft_gault(ages, 72.0, CR, male=np.asarray([[1], [1]]), unit="mg/dL")
    np.testing.assert_allclose(found, [[100, 50, 25], [72, 36, 18]], rtol=1e-14)
