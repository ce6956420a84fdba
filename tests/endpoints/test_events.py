"""Events: once or again and again, at a known moment or between two records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import popk
from tests.endpoints.outcomes import outcomes

TIMES = np.array([1.0, 2.5, 6.0])
KNOWN = stats.weibull_min(1.7, scale=5)
h, H = (x[0] for x in popk.weibull_hazard(TIMES[None], 5.0, 1.7))


def events(y, total=H, subjects=1, *, repeated=False, interval=False, hazard=h, **given):
    """Return the distribution of events with one cumulative hazard for all subjects."""
    endpoint = popk.time_to_event(
        jnp.tile(jnp.asarray(total), (subjects, 1)), repeated=repeated, interval=interval
    )
    return outcomes(endpoint, hazard, subjects=subjects, value=y, **given)


def density(y, **options):
    found = events(y, **options)
    return np.asarray(found.log_prob(jnp.asarray(y, dtype=float)))


def test_records_up_to_an_event_add_up_to_the_density_of_its_time():
    assert density([0, 0, 1]).sum() == pytest.approx(KNOWN.logpdf(6.0))


def test_records_up_to_the_end_of_follow_up_add_up_to_the_survival():
    assert density([0, 0, 0]).sum() == pytest.approx(KNOWN.logsf(6.0))


def test_a_record_between_changes_nothing():
    measured = np.array([False, False, True])
    assert density([1, 1, 1], measured=measured).sum() == pytest.approx(KNOWN.logpdf(6.0))
    own = np.array([False, True, True])
    assert density([0.37, 0, 1], own=own).sum() == pytest.approx(KNOWN.logpdf(6.0))


def test_repeated_events_are_those_of_a_poisson_process():
    found = density([1, 0, 1], repeated=True)
    expected = np.log(h[0]) + np.log(h[2]) - H[-1]
    assert found.sum() == pytest.approx(float(expected))
    np.testing.assert_allclose(found[1], -(H[1] - H[0]))


def test_an_event_between_two_records_has_the_probability_of_the_interval():
    expected = np.log(KNOWN.sf(2.5) - KNOWN.sf(6.0))
    assert density([0, 0, 1], interval=True).sum() == pytest.approx(expected)
    tiny = density([0, 0, 1], total=[0.0, 1.0, 1.0 + 1e-12], interval=True)
    assert tiny[-1] == pytest.approx(np.log(1e-12), rel=1e-3)


def test_each_subject_begins_anew():
    found = density([0, 0, 1, 0, 0, 0], subjects=2).reshape(2, 3).sum(1)
    np.testing.assert_allclose(found, [KNOWN.logpdf(6.0), KNOWN.logsf(6.0)])


def test_a_cumulative_hazard_that_falls_gives_no_number():
    found = density([0, 0, 0], total=[1.0, 0.5, 2.0])
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    noise = density([0, 0, 0], total=[1.0, 1.0 - 1e-9, 2.0])  # a solver's
    np.testing.assert_allclose(noise, [-1, 0, -1], atol=1e-8)


def test_a_negative_hazard_gives_no_number_and_none_at_all_makes_an_event_impossible():
    assert np.isnan(density([0, 0, 1], hazard=[1.0, 1.0, -1.0])[-1])
    assert density([0, 0, 1], hazard=[1.0, 1.0, 0.0])[-1] == -np.inf


@pytest.mark.parametrize("interval", [False, True])
def test_gradients_are_finite_where_a_hazard_does_not_count(interval):
    def total(hazard, H):
        found = events([0, 0, 1], total=H, hazard=hazard, interval=interval)
        return found.log_prob(jnp.asarray([0.0, 0.0, 1.0])).sum()

    slopes = jax.grad(total, argnums=(0, 1))(jnp.asarray([jnp.inf, 0.0, 1.0]), jnp.asarray(H))
    assert all(np.isfinite(x).all() for x in slopes)


@pytest.fixture(scope="module")
def drawn():
    """20,000 subjects' simulated first events at three records."""
    n = 20_000
    found = events(np.zeros(3 * n), subjects=n).sample(jax.random.key(1))
    return np.asarray(found).reshape(n, 3)


def test_a_first_event_comes_once_and_as_often_as_the_survival_says(drawn):
    assert set(np.unique(drawn.sum(1))) == {0.0, 1.0}
    expected = -np.diff(KNOWN.sf([0.0, *TIMES]))
    np.testing.assert_allclose(drawn.mean(0), expected, atol=4 * np.sqrt(0.25 / len(drawn)))


def test_repeated_events_come_in_each_interval_for_itself():
    n = 20_000
    found = events(np.zeros(3 * n), subjects=n, repeated=True).sample(jax.random.key(1))
    found = np.asarray(found).reshape(n, 3)
    expected = -np.expm1(-np.diff(np.insert(H, 0, 0.0)))
    np.testing.assert_allclose(found.mean(0), expected, atol=4 * np.sqrt(0.25 / n))
    assert abs(np.corrcoef(found[:, 0], found[:, 2])[0, 1]) < 4 / np.sqrt(n)


def test_simulated_events_are_looked_for_at_records_with_mdv_1_too(drawn):
    n = len(drawn)
    hidden = np.tile([False, False, True], n)
    found = events(np.zeros(3 * n), subjects=n, measured=hidden).sample(jax.random.key(1))
    np.testing.assert_array_equal(np.asarray(found).reshape(n, 3), drawn)


def test_draws_are_no_numbers_where_the_cumulative_hazard_falls():
    found = events([0, 0, 0], total=[1.0, 0.5, 2.0]).sample(jax.random.key(0), (4,))
    np.testing.assert_array_equal(np.isnan(found), np.tile([False, True, False], (4, 1)))


def test_the_laplace_approximation_is_refused_unless_there_are_no_events():
    with pytest.raises(ValueError, match="no information on one prediction alone"):
        events([0, 0, 1]).information()
    with pytest.raises(ValueError, match="no information on one prediction alone"):
        events([0, 0, 1]).curvature()
    np.testing.assert_array_equal(events([0, 0, 1], own=False, present=False).information(), 0.0)
