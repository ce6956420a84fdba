"""Gradients are checked site by site, and a wrong one is named."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from tests.diagnostics.people import BETWEEN, MEAN, NOISE, people, people_trial

TRIAL = people_trial([[9.0, 10.0], [12.0]])


def test_the_gradient_of_a_right_model_agrees_at_draws_of_its_prior():
    table = popk.check_gradient(people, TRIAL)
    assert list(table.index) == ["mu", "eta"]
    assert table["right"].all()
    assert table["error"].max() < 1e-6


def test_the_gradient_at_given_values_is_the_one_by_hand():
    table = popk.check_gradient(people, TRIAL, {"mu": 8.0, "eta": [1.0, 2.5]})
    residuals = [9.0 - 9.0, 10.0 - 9.0, 12.0 - 10.5]
    by_hand = sum(residuals) / NOISE**2 - (8.0 - 10.0) / MEAN**2
    assert table.loc["mu", "gradient"] == pytest.approx(by_hand)
    assert table.loc["mu", "difference"] == pytest.approx(by_hand, rel=1e-6)
    typical = popk.check_gradient(people, TRIAL, {"mu": 8.0})
    by_hand = (1 + 2 + 4) / NOISE**2 - (8.0 - 10.0) / MEAN**2
    assert typical.loc["mu", "gradient"] == pytest.approx(by_hand)
    assert BETWEEN == 1.0


def stopped(trial):
    """A mean whose gradient is cut."""
    mu = numpyro.sample("mu", dist.Normal(10.0, 5.0))
    level = jax.lax.stop_gradient(mu) + 0 * trial.time
    popk.observe(trial, level, popk.additive_error(dist.LogNormal(0.0, 0.3)))


def test_a_wrong_gradient_is_told_with_its_site():
    table = popk.check_gradient(stopped, TRIAL)
    assert table["right"].to_dict() == {"mu": False, "sigma_additive": True}
    assert table.loc["mu", "error"] > 0.1


def rooted(trial):
    """A root that has no gradient at 0."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    level = jnp.sqrt(jnp.maximum(mu, 0.0)) + 0 * trial.time
    popk.observe(trial, level, popk.additive_error(popk.fixed(1.0)))


def test_a_gradient_that_is_no_number_is_wrong():
    table = popk.check_gradient(rooted, TRIAL, {"mu": -1.0})
    assert not table.loc["mu", "right"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nu": 1.0}, "does not sample nu; it samples mu, eta"),
        ({"eta": [0.0, 0.0]}, "values lacks mu"),
        ({"mu": [1.0, 2.0]}, "mu was given 2 numbers"),
        ({"mu": 1e200}, "the log-density is -inf"),
    ],
)
def test_values_that_are_no_place_are_refused(values, says):
    with pytest.raises(popk.ModelError, match=says):
        popk.check_gradient(people, TRIAL, values)


def test_the_number_of_draws_is_checked():
    with pytest.raises(ValueError, match="draws is 99; give 1 to 32"):
        popk.check_gradient(people, TRIAL, draws=99)
