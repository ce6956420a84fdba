"""Size: weight, height and what follows from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.covariates.size import (
    allometry,
    body_mass_index,
    body_surface_area,
    fat_free_mass,
    lean_body_weight,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

OF_SEX = {"fat-free mass": fat_free_mass, "lean body weight": lean_body_weight}
OF_HEIGHT = {
    "BMI": body_mass_index,
    "body surface": body_surface_area,
    "fat-free mass": lambda WT, HT, **unit: fat_free_mass(WT, HT, male=1, **unit),
    "lean body weight": lambda WT, HT, **unit: lean_body_weight(WT, HT, male=1, **unit),
}
of_height = pytest.mark.parametrize("size", OF_HEIGHT.values(), ids=OF_HEIGHT)
of_sex = pytest.mark.parametrize("size", OF_SEX.values(), ids=OF_SEX)


def test_allometry_scales_clearances_by_three_quarters_and_volumes_by_1():
    assert float(allometry(70.0, 0.75)) == 1
    assert float(allometry(70 * 16.0, 0.75)) == pytest.approx(8, rel=1e-15)
    assert float(allometry(7.0, 1.0)) == pytest.approx(0.1, rel=1e-15)
    assert float(allometry(56.1, 1.0, ref=56.1)) == 1


def test_allometry_knows_mice():
    assert float(allometry(0.02, 1.0, ref=0.02)) == 1


def test_the_body_mass_index_of_80_kg_and_2_m_is_20():
    assert float(body_mass_index(80.0, 200.0)) == pytest.approx(20, rel=1e-15)


def test_the_body_surface_of_80_kg_and_180_cm_is_2_square_meters_by_mosteller():
    assert float(body_surface_area(80.0, 180.0)) == 2


def test_du_bois_makes_the_body_surface_a_product_of_powers():
    log = np.log(0.007184) + 0.425 * np.log(70) + 0.725 * np.log(170)
    found = float(body_surface_area(70.0, 170.0, formula="dubois"))
    assert found == pytest.approx(np.exp(log), rel=1e-14)
    assert found == pytest.approx(1.81, abs=0.005)


def test_fat_free_mass_falls_with_the_body_mass_index():
    # BMI 20 at 80 kg and 2 m: 9270 * 80 / (6680 + 216 * 20) = 741600 / 11000.
    found = fat_free_mass(80.0, 200.0, male=np.asarray([1, 0]))
    np.testing.assert_allclose(found, [741600 / 11000, 741600 / 13660], rtol=1e-15)


def test_fat_free_mass_rises_with_weight_however_heavy_a_person_is():
    WT = np.linspace(40, 300, 50)
    assert (np.diff(np.asarray(fat_free_mass(WT, 165.0, male=0))) > 0).all()


def test_james_takes_a_parabola_of_weight_over_height():
    # WT / HT is 0.5 kg/cm: 88 - 128 / 4 and 85.6 - 148 / 4.
    found = lean_body_weight(80.0, 160.0, male=np.asarray([1, 0]))
    np.testing.assert_allclose(found, [56.0, 48.6], rtol=1e-14)


@pytest.mark.parametrize(("male", "turn"), [(1, 1.10 / 0.0256), (0, 1.07 / 0.0296)])
def test_james_is_refused_where_the_parabola_turns(male, turn):
    WT = turn * 1.7**2  # at 170 cm
    slope = jax.grad(lambda WT: lean_body_weight(WT, 170.0, male=male))(0.9999 * WT)
    assert 0 < float(slope) < 1e-3
    with pytest.raises(ValueError, match="but James's equation holds up to 42"):
        lean_body_weight(1.0001 * WT, 170.0, male=male)
    beyond = jax.jit(lambda WT: lean_body_weight(WT, 170.0, male=male))(1.0001 * WT)
    assert np.isnan(beyond)


@of_height
def test_a_height_means_the_same_in_any_unit(size):
    expected = float(size(70.0, 175.26))
    for HT, unit in ((1.7526, "m"), (69.0, "inch"), (5.75, "ft"), (1752.6, "mm")):
        assert float(size(70.0, HT, height_unit=unit)) == pytest.approx(expected, rel=1e-14)


@of_height
@pytest.mark.parametrize(
    ("WT", "HT", "unit", "sentence"),
    [
        (
            -70.0,
            170.0,
            "cm",
            "WT is -70 kg, but must be from 0.2 to 700 kg; correct it, or convert",
        ),
        (70000.0, 170.0, "cm", "WT is 70000 kg, but must be from 0.2 to 700 kg"),
        (
            70.0,
            1.7,
            "cm",
            "HT is 1.7 cm, but must be from 20 to 280 cm; correct it, or name its unit",
        ),
        (70.0, 170.0, "m", "HT is 170 m, but must be from 0.2 to 2.8 m"),
        (70.0, 170.0, "kg", "height_unit is 'kg', but must be a unit of length; write 'cm', 'm'"),
        (70.0, np.nan, "cm", "HT is nan cm, but must be from 20 to 280 cm"),
    ],
)
def test_the_size_of_no_person_is_refused(size, WT, HT, unit, sentence):
    with pytest.raises(ValueError, match=sentence):
        size(WT, HT, height_unit=unit)


@of_height
def test_the_size_of_no_person_is_nan_within_a_compiled_function(size):
    WT, HT = jnp.asarray([70.0, -70.0, 70.0]), jnp.asarray([170.0, 170.0, 1.7])
    found = jax.jit(size)(WT, HT)
    np.testing.assert_array_equal(np.isnan(found), [False, True, True])


@of_sex
def test_sex_is_1_or_0_or_true_or_false(size):
    codes = np.asarray([1, 0])
    np.testing.assert_array_equal(size(70.0, 170.0, male=codes), size(70.0, 170.0, male=codes == 1))
    with pytest.raises(ValueError, match="male is 2, but must be one of 0, 1; code men as 1 and"):
        size(70.0, 170.0, male=2)
    with pytest.raises(ValueError, match=r"male has dtype .*, but must be real numbers"):
        size(70.0, 170.0, male="F")
    found = jax.jit(lambda male: size(70.0, 170.0, male=male))(jnp.asarray([1.0, 0.5, 0.0]))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])


@of_height
def test_a_size_has_the_gradient_of_finite_differences(size):
    for argument in (0, 1):
        at = [70.0, 170.0]
        found = float(jax.grad(size, argnums=argument)(*at))
        low, high = list(at), list(at)
        low[argument] -= 1e-4
        high[argument] += 1e-4
        difference = (size(*high) - size(*low)) / 2e-4
        assert found == pytest.approx(float(difference), rel=1e-7)


def test_a_formula_that_is_neither_is_refused():
    with pytest.raises(Exception, match="haycock"):  # ValueError, or earlier by a check of types
        body_surface_area(70.0, 170.0, formula="haycock")  # type: ignore[arg-type]


@pytest.mark.parametrize(("WT", "ref"), [(0.0, 70.0), (70.0, -70.0), (np.inf, 70.0)])
def test_a_mass_must_be_positive_and_finite(WT, ref):
    with pytest.raises(ValueError, match="but must be above 0"):
        allometry(WT, 0.75, ref=ref)
