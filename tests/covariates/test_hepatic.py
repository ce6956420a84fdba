"""Scores and classes of liver function, and their effect on clearance."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.covariates.hepatic import (
    albi_grade,
    albi_score,
    by_class,
    child_pugh_class,
    child_pugh_score,
    nci_odwg_class,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

CONVENTIONAL = {"bilirubin_unit": "mg/dL", "albumin_unit": "g/dL"}
SI = {"bilirubin_unit": "umol/L", "albumin_unit": "g/L"}
BEST = {"bilirubin": 1.0, "albumin": 4.0, "INR": 1.0, "ascites": 0, "encephalopathy": 0}


def score(**changed):
    return child_pugh_score(**{**BEST, **CONVENTIONAL, **changed})


# Child-Pugh


@pytest.mark.parametrize(
    ("component", "value", "points"),
    [
        ("bilirubin", 1.99, 1), ("bilirubin", 2.0, 2), ("bilirubin", 3.0, 2), ("bilirubin", 3.01, 3),
        ("albumin", 3.51, 1), ("albumin", 3.5, 2), ("albumin", 2.8, 2), ("albumin", 2.79, 3),
        ("INR", 1.69, 1), ("INR", 1.7, 2), ("INR", 2.3, 2), ("INR", 2.31, 3),
        ("ascites", 0, 1), ("ascites", 1, 2), ("ascites", 2, 3), ("ascites", 3, 3),
        ("encephalopathy", 0, 1), ("encephalopathy", 1, 2), ("encephalopathy", 2, 2),
        ("encephalopathy", 3, 3), ("encephalopathy", 4, 3),
    ],
)  # fmt: skip
def test_a_component_has_its_points(component, value, points):
    assert float(score(**{component: value})) == 4 + points
    assert float(jax.jit(lambda x: score(**{component: x}))(float(value))) == 4 + points


@pytest.mark.parametrize(("bilirubin", "points"), [(3.9, 1), (4.0, 2), (10.0, 2), (10.1, 3)])
def test_bilirubin_counts_less_in_primary_biliary_cholangitis(bilirubin, points):
    assert float(score(bilirubin=bilirubin, primary_biliary=True)) == 4 + points


@pytest.mark.parametrize(
    ("bilirubin", "albumin", "points"),
    [(34.1, 35.1, 2), (34.3, 35.0, 4), (51.2, 28.0, 4), (51.4, 27.9, 6)],
)
def test_the_limits_are_the_same_in_units_of_the_si(bilirubin, albumin, points):
    # 2 and 3 mg/dL are 34.2 and 51.3 umol/L; 2.8 and 3.5 g/dL are 28 and 35 g/L.
    found = child_pugh_score(**{**BEST, **SI, "bilirubin": bilirubin, "albumin": albumin})
    assert float(found) == 3 + points


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_limit_stays_on_its_side_whatever_the_unit(dtype):
    for values in (
        {"albumin": 3.5, "albumin_unit": "g/dL"},
        {"albumin": 3500.0, "albumin_unit": "mg/dL"},
        {"albumin": 0.035, "albumin_unit": "kg/L"},
        {"bilirubin": 20.0, "bilirubin_unit": "mg/L"},
        {"bilirubin": 2e4 / 584.66, "bilirubin_unit": "umol/L"},
        {"bilirubin": 0.03, "bilirubin_unit": "g/L"},
        {"INR": 2.3},
    ):
        given = {k: v if isinstance(v, str) else dtype(v) for k, v in values.items()}
        assert float(score(**given)) == 6


def test_the_worst_score_is_15():
    worst = score(bilirubin=9.0, albumin=2.0, INR=3.0, ascites=3, encephalopathy=4)
    assert (float(score()), float(worst)) == (5, 15)


def test_scores_from_5_to_15_fall_into_three_classes():
    found = child_pugh_class(np.arange(5, 16))
    np.testing.assert_array_equal(found, [1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"ascites": 4},
            "ascites is 4, but must be one of 0, 1, 2, 3; code none as 0 and the grades",
        ),
        ({"encephalopathy": 1.5}, "encephalopathy is 1.5, but must be one of 0, 1, 2, 3, 4; code"),
        ({"encephalopathy": -1}, "encephalopathy is -1, but"),
        ({"ascites": np.nan}, "ascites is nan, but"),
        ({"INR": -1.0}, "INR is -1, but must be from 0.5 to 30"),
        ({"bilirubin": -1.0}, "bilirubin is -1 mg/dL, but must be from 0.01 to 100 mg/dL"),
        ({"albumin": 40.0}, "albumin is 40 g/dL, but must be from 0.5 to 10 g/dL"),
        (
            {"albumin": 4.0, "albumin_unit": "g/L"},
            "albumin is 4 g/L, but must be from 5 to 100 g/L",
        ),
        (
            {"bilirubin_unit": "g"},
            "bilirubin_unit is 'g', but must be a unit of bilirubin in serum",
        ),
        ({"albumin_unit": "umol/L"}, "albumin_unit is 'umol/L', but must be a unit of albumin in"),
        ({"albumin_unit": "umol/L"}, "write 'g/dL' or 'g/L'"),
    ],
)
def test_a_component_out_of_range_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        score(**wrong)


@pytest.mark.parametrize("component", BEST)
def test_a_component_out_of_range_is_nan_within_a_compiled_function(component):
    found = jax.jit(lambda x: score(**{component: x}))(jnp.asarray([-1.0, BEST[component]]))
    np.testing.assert_array_equal(np.isnan(found), [True, False])


def test_a_score_that_is_none_has_no_class():
    for wrong in (4, 16, 7.5, np.nan):
        with pytest.raises(
            ValueError, match=r"the Child-Pugh score is .*, but must be one of 5, 6, 7"
        ):
            child_pugh_class(wrong)
        assert np.isnan(jax.jit(child_pugh_class)(jnp.asarray(float(wrong))))


# The National Cancer Institute's classes


def odwg(bilirubin, AST, unit="mg/dL", ULN=1.2):
    return nci_odwg_class(bilirubin, AST, bilirubin_ULN=ULN, AST_ULN=40.0, bilirubin_unit=unit)


@pytest.mark.parametrize(
    ("bilirubin", "AST", "expected"),
    [
        (1.2, 40.0, 0), (0.5, 40.1, 1), (1.2, 400.0, 1), (1.21, 20.0, 1), (1.8, 400.0, 1),
        (1.81, 20.0, 2), (3.6, 400.0, 2), (3.61, 20.0, 3), (12.0, 400.0, 3),
    ],
)  # fmt: skip
def test_bilirubin_and_ast_over_their_limits_of_normal_make_a_class(bilirubin, AST, expected):
    assert float(odwg(bilirubin, AST)) == expected
    assert float(jax.jit(odwg)(bilirubin, AST)) == expected
    molar = 1e4 / 584.66
    assert float(odwg(bilirubin * molar, AST, "umol/L", 1.2 * molar)) == expected


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda: odwg(-1.0, 30.0), "bilirubin is -1 mg/dL, but must be from 0.01 to 100 mg/dL"),
        (lambda: odwg(1.0, -30.0), "AST is -30 U/L, but must be from 1 to 50000 U/L"),
        (lambda: odwg(20.0, 30.0, "umol/L"), "bilirubin_ULN is 1.2 umol/L, but must be from 5.13"),
        (
            lambda: odwg(1.0, 30.0, "U/L"),
            "bilirubin_unit is 'U/L', but must be a unit of bilirubin",
        ),
    ],
)
def test_levels_and_limits_out_of_range_are_refused(function, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        function()


def test_levels_out_of_range_have_no_class_within_a_compiled_function():
    found = jax.jit(odwg)(
        jnp.asarray([-1.0, 1.0, 9.0, 1.0]), jnp.asarray([30.0, -30.0, -30.0, 30.0])
    )
    np.testing.assert_array_equal(np.isnan(found), [True, True, True, False])


# ALBI


def test_the_albi_score_is_linear_in_albumin_and_in_the_logarithm_of_bilirubin():
    # 0.66 * 1 - 0.085 * 40 and 0.66 * 2 - 0.085 * 20
    found = albi_score(np.asarray([10.0, 100.0]), np.asarray([40.0, 20.0]), **SI)
    np.testing.assert_allclose(found, [-2.74, -0.38], rtol=1e-12)


def test_the_albi_score_is_the_same_in_conventional_units():
    found = albi_score(100.0 * 584.66e-4, 2.0, **CONVENTIONAL)
    assert float(found) == pytest.approx(-0.38, rel=1e-12)


def test_the_albi_grade_changes_above_its_limits():
    found = albi_grade(np.asarray([-3.0, -2.60, -2.59, -1.39, -1.38, 0.0]))
    np.testing.assert_array_equal(found, [1, 1, 2, 2, 3, 3])


def test_an_albi_score_of_no_person_has_no_grade():
    with pytest.raises(
        ValueError, match="the ALBI score is 30, but must be from -10 to 2; compute"
    ):
        albi_grade(30.0)
    assert np.isnan(jax.jit(albi_grade)(jnp.asarray(jnp.nan)))
    with pytest.raises(ValueError, match="albumin is 4 g/L, but must be from 5 to 100 g/L"):
        albi_score(10.0, 4.0, **SI)
    assert np.isnan(jax.jit(lambda b: albi_score(b, 40.0, **SI))(-10.0))


def test_the_albi_score_has_a_gradient_in_both_levels():
    found = jax.grad(lambda b, a: albi_score(b, a, **SI), argnums=(0, 1))(20.0, 40.0)
    np.testing.assert_allclose(found, [0.66 / (20 * np.log(10)), -0.085], rtol=1e-12)


# The effect of a class


def test_each_class_has_its_factor_and_the_normal_liver_1():
    classes = np.asarray([0, 1, 2, 3])
    np.testing.assert_array_equal(by_class(classes, 0.8, 0.5, 0.25), [1, 0.8, 0.5, 0.25])
    np.testing.assert_array_equal(by_class(classes, 1.0, 1.5, 4.0), [1, 1, 1.5, 4])


def test_a_class_of_either_system_finds_its_factor():
    assert float(by_class(child_pugh_class(8), 0.8, 0.5, 0.25)) == 0.5
    assert float(by_class(odwg(9.0, 20.0), 0.8, 0.5, 0.25)) == 0.25


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        (
            (0.5, 0.8, 0.2),
            "mild is 0.5, but from 1 through mild and moderate to severe the factors",
        ),
        ((1.2, 0.8, 0.5), "must all fall or all rise; put them in order"),
        ((1.5, 2.0, 1.8), "must all fall or all rise"),
        ((0.8, 0.5, 0.0), "severe is 0, but must be above 0"),
    ],
)
def test_factors_out_of_order_are_refused_and_nan_within_a_compiled_function(factors, sentence):
    with pytest.raises(ValueError, match=sentence):
        by_class(2, *factors)
    for cls in (0, 1, 2, 3):
        assert np.isnan(jax.jit(lambda *f, cls=cls: by_class(cls, *f))(*factors)) or factors[2] == 0
    assert np.isnan(jax.jit(lambda *f: by_class(3, *f))(*factors))


def test_a_class_that_is_none_is_refused_and_nan_within_a_compiled_function():
    with pytest.raises(
        ValueError, match="the class is 4, but must be one of 0, 1, 2, 3; code normal,"
    ):
        by_class(4, 0.8, 0.5, 0.25)
    found = jax.jit(lambda cls: by_class(cls, 0.8, 0.5, 0.25))(jnp.asarray([4.0, 1.5, -1.0]))
    assert np.isnan(found).all()


def test_the_gradient_of_a_factor_is_1_in_its_own_class_and_0_in_others():
    found = jax.jacobian(lambda f: by_class(np.asarray([0, 1, 2, 3]), f, 0.5, 0.25))(0.8)
    np.testing.assert_array_equal(found, [0, 1, 0, 0])
