"""Categories: binary outcomes, and proportional odds."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import expit

import popk
from tests.endpoints.outcomes import frequencies, information_by_sum, log_mass, outcomes

LOGITS = np.array([-30.0, -2.0, 0.0, 0.5, 30.0])
FOUR = popk.ordered_categories(4, dist.Normal(0, 2), 1.0)
CUT = {"cutpoint_1": -1.0, "step_2": 1.5, "step_3": 0.5}  # cutpoints -1, 0.5, 1


def test_the_prediction_is_the_logit_of_the_probability_of_1():
    found = np.exp(log_mass(popk.binary(), [1] * 5 + [0] * 5, np.tile(LOGITS, 2)))
    np.testing.assert_allclose(found, [*expit(LOGITS), *expit(-LOGITS)], rtol=1e-12)


def test_the_sum_of_the_lowest_categories_is_the_logistic_of_their_cutpoint():
    mass = np.exp([log_mass(FOUR, y, LOGITS, CUT) for y in range(4)])
    for k, cutpoint in enumerate((-1.0, 0.5, 1.0)):
        np.testing.assert_allclose(mass[: k + 1].sum(0), expit(cutpoint - LOGITS), rtol=1e-10)
    np.testing.assert_allclose(mass.sum(0), 1.0, rtol=1e-12)


def test_improbable_categories_keep_their_digits():
    # s(b - f) - s(a - f) is e^-f (e^b - e^a) where f is large
    found = log_mass(FOUR, 1, 50.0, CUT)
    np.testing.assert_allclose(found, -50 + np.log(np.exp(0.5) - np.exp(-1.0)), rtol=1e-12)


def test_two_ordered_categories_are_a_binary_outcome():
    two = popk.ordered_categories(2, popk.fixed(0))
    for y in (0, 1):
        found = log_mass(two, y, LOGITS, {"cutpoint_1": 0.0})
        np.testing.assert_allclose(found, log_mass(popk.binary(), y, LOGITS), rtol=1e-12)


@pytest.mark.parametrize(("endpoint", "n"), [(popk.binary(), 2), (FOUR, 4)])
def test_what_a_category_tells_of_its_logit_is_the_variance_of_the_score(endpoint, n):
    f = np.array([-2.0, 0.0, 0.5])
    expected = information_by_sum(endpoint, f, CUT, range(n))
    np.testing.assert_allclose(outcomes(endpoint, f, CUT).information(), expected, rtol=1e-9)


@pytest.mark.parametrize(("endpoint", "n"), [(popk.binary(), 2), (FOUR, 4)])
def test_categories_are_drawn_as_often_as_they_are_probable(endpoint, n):
    seen, expected, sd = frequencies(endpoint, 0.3, CUT, range(n))
    np.testing.assert_allclose(seen, expected, atol=4 * sd)


@pytest.mark.parametrize("y", [0, 1, 3])
def test_gradients_are_finite_far_out(y):
    def density(f, cut):
        return outcomes(FOUR, f, cut).log_prob(jnp.full(5, float(y))).sum()

    cut = {k: jnp.asarray(v) for k, v in CUT.items()}
    gradients = jax.grad(density, argnums=(0, 1))(jnp.asarray(LOGITS), cut)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_cutpoints_are_in_order_by_construction():
    assert set(FOUR.priors) == {"cutpoint_1", "step_2", "step_3"}
    assert isinstance(FOUR.priors["step_2"], dist.HalfNormal)
    assert np.isnan(log_mass(FOUR, 1, 0.0, {**CUT, "step_2": -0.1})).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: popk.ordered_categories(1, popk.fixed(0)), "there are 1 categories; give 2 or more"),
        (lambda: popk.ordered_categories(4, popk.fixed(0)), "have 2 steps between their cutpoints, but 0"),
        (lambda: popk.ordered_categories(4, popk.fixed(0), [1.0]), "but 1 were given"),
        (lambda: popk.ordered_categories(3, popk.fixed(0), popk.fixed(0)), "a step is fixed at 0.0"),
    ],
)  # fmt: skip
def test_what_are_no_ordered_categories_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
