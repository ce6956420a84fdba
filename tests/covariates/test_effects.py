"""Factors by which a covariate multiplies a typical value."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.covariates.effects import categorical, emax, exponential, linear, piecewise, power

pytestmark = pytest.mark.usefixtures("strict_promotion")

KNOTS, EFFECTS = [20.0, 40.0, 80.0], [4.0, 1.0, 0.25]

#: Each effect of one covariate, with a reference at which its factor is 1.
OF_ONE = {
    "linear": (lambda x: linear(x, 0.02, ref=40.0), 40.0),
    "power": (lambda x: power(x, 0.75, ref=70.0), 70.0),
    "exponential": (lambda x: exponential(x, 0.02, ref=40.0), 40.0),
    "emax": (lambda x: emax(x, 2.0, 10.0), 0.0),
    "emax with a reference": (lambda x: emax(x, 2.0, 10.0, ref=30.0), 30.0),
    "piecewise": (lambda x: piecewise(x, KNOTS, EFFECTS), 40.0),
    "categorical": (lambda x: categorical(x, {40: 1.0, 50: 0.5}), 40.0),
}
every_effect = pytest.mark.parametrize("name", OF_ONE)

#: What is refused, and the sentence that says so.
REFUSED = {
    "a negative linear effect": (
        lambda x: linear(x, -0.01, ref=40.0),
        200.0,
        "the linear effect is -0.6, but must be above 0 and finite; choose a smaller slope",
    ),
    "a power of 0": (
        lambda x: power(x, 0.75, ref=70.0),
        0.0,
        "x is 0, but must be above 0 and finite; correct it, or use exponential",
    ),
    "a power of a negative number": (lambda x: power(x, 2.0, ref=70.0), -70.0, "x is -70, but"),
    "a negative reference": (lambda x: power(70.0, 2.0, ref=x), -70.0, "ref is -70, but"),
    "an exponential out of range": (
        lambda x: exponential(x, 1.0, ref=0.0),
        1e4,
        "the exponential effect is inf, but must be above 0 and finite",
    ),
    "a negative concentration": (
        lambda x: emax(x, 1.0, 10.0),
        -1.0,
        "x is -1, but must be at least 0",
    ),
    "a fall by all": (lambda x: emax(5.0, x, 10.0), -1.0, "emax is -1, but must be above -1"),
    "an x50 of 0": (lambda x: emax(5.0, 1.0, x), 0.0, "x50 is 0, but must be above 0"),
    "a covariate below the knots": (
        lambda x: piecewise(x, KNOTS, EFFECTS),
        19.0,
        "x is 19, beyond the knots; add a knot there",
    ),
    "a covariate above the knots": (
        lambda x: piecewise(x, KNOTS, EFFECTS),
        81.0,
        "beyond the knots",
    ),
    "an effect of 0 at a knot": (
        lambda x: piecewise(30.0, KNOTS, [1.0, x, 1.0]),
        0.0,
        "effects is 0 at index 1, but must be above 0",
    ),
    "a category without an effect": (
        lambda x: categorical(x, {0: 1.0, 1: 0.5}),
        3.0,
        "the category is 3, but must be one of 0, 1; give its effect, or correct the record",
    ),
    "a negative effect of a category": (
        lambda x: categorical(1.0, {0: 1.0, 1: x}),
        -0.5,
        "the effect of category 1 is -0.5, but must be above 0",
    ),
    "a missing covariate": (
        lambda x: linear(x, 0.01, ref=40.0),
        np.nan,
        "x is nan, but must be finite",
    ),
    "an infinite slope": (lambda x: exponential(40.0, x, ref=40.0), np.inf, "slope is inf, but"),
}
everything_refused = pytest.mark.parametrize("case", REFUSED)


@every_effect
def test_the_factor_is_1_at_the_reference(name):
    effect, ref = OF_ONE[name]
    assert float(effect(ref)) == pytest.approx(1, rel=1e-15)


@every_effect
def test_an_effect_of_an_array_is_that_of_each_element_compiled_or_not(name):
    effect, _ = OF_ONE[name]
    x = np.asarray([[40.0, 50.0], [50.0, 50.0]])
    each = [[float(effect(value)) for value in row] for row in x]
    for given in (x, jnp.asarray(x), x.astype(int)):
        np.testing.assert_allclose(effect(given), each, rtol=1e-15)
        np.testing.assert_allclose(jax.jit(effect)(given), each, rtol=1e-15)
    np.testing.assert_allclose(jax.vmap(effect)(jnp.asarray(x)), each, rtol=1e-15)


@pytest.mark.parametrize("name", ["linear", "power", "exponential", "emax with a reference"])
def test_an_effect_keeps_the_precision_of_its_covariate(name):
    effect, _ = OF_ONE[name]
    assert effect(np.asarray([40.0, 50.0], dtype=np.float32)).dtype == jnp.float32


@pytest.mark.parametrize("name", [name for name in OF_ONE if name != "categorical"])
def test_the_gradient_is_that_of_finite_differences(name):
    effect, _ = OF_ONE[name]
    for x in (25.0, 55.0):
        difference = (effect(x + 1e-5) - effect(x - 1e-5)) / 2e-5
        assert float(jax.grad(effect)(x)) == pytest.approx(float(difference), rel=1e-7)


@everything_refused
def test_what_is_known_and_wrong_is_refused_with_a_sentence(case):
    effect, wrong, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        effect(wrong)


@everything_refused
def test_what_is_wrong_within_a_compiled_function_gives_nan(case):
    effect, wrong, _ = REFUSED[case]
    assert np.isnan(jax.jit(effect)(jnp.asarray(wrong)))
    assert np.isnan(jax.vmap(effect)(jnp.asarray([wrong]))).all()


def test_a_constant_of_a_compiled_function_is_known_and_refused():
    with pytest.raises(ValueError, match="x is -70 at index 1, but must be above 0"):
        jax.jit(lambda exponent: power(np.asarray([70.0, -70.0]), exponent, ref=70.0))(0.75)


def test_one_wrong_value_spoils_no_other():
    x = jnp.asarray([30.0, 90.0, 50.0])
    found = jax.jit(lambda x: piecewise(x, KNOTS, EFFECTS))(x)
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])


@pytest.mark.parametrize("wrong", ["70", None, True, 1j])
def test_what_is_no_real_number_is_refused(wrong):
    with pytest.raises(
        ValueError, match=r"x has dtype .*, but must be real numbers; give a number"
    ):
        power(wrong, 0.75, ref=70.0)


# The equations


def test_a_linear_effect_adds_the_same_fraction_for_each_unit():
    x = np.asarray([30.0, 40.0, 60.0])
    np.testing.assert_allclose(linear(x, 0.02, ref=40.0), [0.8, 1.0, 1.4], rtol=1e-15)


def test_a_power_effect_raises_a_ratio():
    np.testing.assert_allclose(power(np.asarray([1.0, 4.0, 16.0]), 0.5, ref=4.0), [0.5, 1, 2])


def test_an_exponential_effect_multiplies_by_the_same_factor_for_each_unit():
    x = np.asarray([38.0, 40.0, 41.0])
    np.testing.assert_allclose(exponential(x, np.log(2), ref=40.0), [0.25, 1, 2], rtol=1e-14)


def test_an_emax_effect_is_half_its_greatest_at_x50():
    np.testing.assert_allclose(emax(np.asarray([0.0, 10.0, 1e12]), -0.8, 10.0), [1, 0.6, 0.2])
    # Over its value at the reference of 30: (1 + 2 * 0.5) / (1 + 2 * 0.75) = 0.8.
    assert float(emax(10.0, 2.0, 10.0, ref=30.0)) == pytest.approx(0.8, rel=1e-15)


def test_a_piecewise_effect_has_its_value_at_each_knot_and_the_geometric_mean_halfway():
    x = np.asarray([20.0, 30.0, 40.0, 60.0, 80.0])
    np.testing.assert_allclose(piecewise(x, KNOTS, EFFECTS), [4, 2, 1, 0.5, 0.25], rtol=1e-14)


def test_a_piece_is_an_exponential_effect():
    slope = -np.log(4) / 20
    x = np.linspace(20, 40, 7)
    np.testing.assert_allclose(
        piecewise(x, KNOTS, EFFECTS), exponential(x, slope, ref=40.0), rtol=1e-13
    )


def test_sampled_values_may_be_effects_of_knots_and_of_categories():
    def between(f):
        return piecewise(30.0, KNOTS, [f, 1.0, 1.0])  # sqrt(f)

    def poor(f):
        return categorical(np.asarray([0, 1]), {0: 1.0, 1: f})

    assert float(jax.grad(between)(4.0)) == pytest.approx(0.25, rel=1e-14)
    np.testing.assert_array_equal(jax.jacobian(poor)(0.3), [0.0, 1.0])


@pytest.mark.parametrize(
    ("knots", "effects", "sentence"),
    [
        ([20.0, 40.0], EFFECTS, r"knots have shape \(2,\) and effects \(3,\), but both must be"),
        ([20.0], [1.0], "at least 2; give one effect for each knot"),
        ([20.0, 80.0, 40.0], EFFECTS, "knot 40 at index 2 is not above the last; sort the knots"),
        ([20.0, 20.0, 40.0], EFFECTS, "knot 20 at index 1 is not above the last"),
    ],
)
def test_knots_increase_and_have_an_effect_each(knots, effects, sentence):
    with pytest.raises(ValueError, match=sentence):
        piecewise(20.0, knots, effects)


def test_a_category_that_nobody_thought_of_is_named_with_its_place():
    sentence = "the category is 7 at index 1, 0, but must be one of 0, 2"
    with pytest.raises(ValueError, match=sentence):
        categorical(np.asarray([[0, 2], [7, 0]]), {0: 1.0, 2: 0.5})


def test_effects_of_no_category_are_refused():
    with pytest.raises(ValueError, match="effects are empty, but each category must have one"):
        categorical(1.0, {})
    with pytest.raises(ValueError, match="a category is nan, but must be finite"):
        categorical(1.0, {np.nan: 0.5})


def test_a_category_may_be_true_or_false():
    assert categorical(np.asarray([True, False]), {0: 1.0, 1: 0.5}).tolist() == [0.5, 1.0]


def test_covariates_of_different_axes_broadcast():
    ages, slopes = np.asarray([[30.0], [40.0], [50.0]]), jnp.asarray([[0.0, 0.01]])
    found = linear(ages, slopes, ref=40.0)
    np.testing.assert_allclose(found, [[1, 0.9], [1, 1], [1, 1.1]], rtol=1e-15)
