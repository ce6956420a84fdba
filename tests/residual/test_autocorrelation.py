"""How are errors of successive levels correlated?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import popk
from popk.residual import autocorrelated_error, box_cox_error, lognormal_error, yeo_johnson_error
from tests.residual.observed import levels

ERROR = autocorrelated_error(popk.additive_error(1), 1.0)
SIGMAS = {"additive": 0.7, "rate": 0.4}
TIME = np.array([[0.0, 0.5, 2.0, 2.5, 7.0], [1.0, 1.5, 4.0, 4.0, 4.0]])
SUBJECT, RECORD = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 4, 0, 1, 2])
F = np.array([1.0, 2.0, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0])
Y = np.array([1.4, 2.9, 2.2, 2.1, 1.3, 3.0, 3.5, 2.2])


def correlated(f=F, error=ERROR, sigmas=SIGMAS, time=TIME, **given):
    given = {"subject": SUBJECT, "record": RECORD, "censored": False, **given}
    return levels(error, sigmas, f, options={"time": jnp.asarray(time)}, **given)


def joint(time, y, f, sd=0.7, rate=0.4):
    distance = np.abs(time[:, None] - time)
    return stats.multivariate_normal(f, sd**2 * np.exp(-rate * distance)).logpdf(y)


def test_levels_of_a_subject_have_the_joint_density_of_correlated_errors():
    found = correlated().log_prob(jnp.asarray(Y))
    first, second = SUBJECT == 0, SUBJECT == 1
    expected = joint(TIME[0], Y[first], F[first]), joint(TIME[1, :3], Y[second], F[second])
    assert float(found[first].sum()) == pytest.approx(expected[0], rel=1e-12)
    assert float(found[second].sum()) == pytest.approx(expected[1], rel=1e-12)


def test_lognormal_errors_are_correlated_on_the_log_scale():
    error = autocorrelated_error(lognormal_error(1), 1.0)
    found = correlated(error=error, sigmas={"log": 0.3, "rate": 0.4}).log_prob(jnp.asarray(Y))
    first = SUBJECT == 0
    log = np.log(Y[first])
    expected = joint(TIME[0], log, np.log(F[first]), 0.3) - log.sum()
    assert float(found[first].sum()) == pytest.approx(expected, rel=1e-12)


def test_a_level_that_does_not_count_is_passed_over():
    own = np.array([True, False, True, True, False, True, True, True])
    measured = np.array([True, True, True, False, True, True, True, True])
    found = correlated(own=own, measured=measured).log_prob(jnp.asarray(Y))
    left = [0, 2]
    np.testing.assert_array_equal(np.asarray(found)[[1, 3, 4]], 0)
    expected = joint(TIME[0, left], Y[left], F[left])
    assert float(found[:5].sum()) == pytest.approx(expected, rel=1e-12)


def test_levels_at_the_same_moment_have_independent_errors_and_finite_gradients():
    record = np.array([0, 1, 2, 3, 4, 2, 3, 4])  # of the second subject, all at time 4

    def total(f, rate):
        sigmas = {"additive": 0.7, "rate": rate}
        return correlated(f, sigmas=sigmas, record=record).log_prob(jnp.asarray(Y))[5:].sum()

    value, slopes = jax.value_and_grad(total, (0, 1))(jnp.asarray(F), jnp.asarray(0.4))
    expected = stats.norm(F[5:], 0.7).logpdf(Y[5:]).sum()
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert float(slopes[1]) == 0


def test_levels_after_a_clock_began_anew_are_independent_of_those_before():
    time = np.array([[0.0, 0.5, 0.0, 0.5, 1.0], TIME[1]])
    found = correlated(time=time).log_prob(jnp.asarray(Y))
    parts = [joint(time[0, part], Y[part], F[part]) for part in ([0, 1], [2, 3, 4])]
    assert float(found[:5].sum()) == pytest.approx(sum(parts), rel=1e-12)


def test_at_a_fast_rate_errors_are_independent():
    found = correlated(sigmas={"additive": 0.7, "rate": 1e4}).log_prob(jnp.asarray(Y))
    np.testing.assert_allclose(found, stats.norm(F, 0.7).logpdf(Y), rtol=1e-12)


def test_the_gradient_agrees_with_differences():
    def total(rate):
        return correlated(sigmas={"additive": 0.7, "rate": rate}).log_prob(jnp.asarray(Y)).sum()

    h = 1e-5
    difference = (total(0.4 + h) - total(0.4 - h)) / (2 * h)
    assert float(jax.grad(total)(0.4)) == pytest.approx(float(difference), rel=1e-7)


def test_sampled_errors_have_the_correlations_of_their_times():
    y = np.asarray(correlated().sample(jax.random.key(1), (40_000,)))
    found = np.corrcoef(y.T)
    expected = np.zeros((8, 8))
    for one in (0, 1):
        places = np.equal(SUBJECT, one)
        times = TIME[one, RECORD[places]]
        expected[np.ix_(places, places)] = np.exp(-0.4 * np.abs(times[:, None] - times))
    np.testing.assert_allclose(found, expected, atol=4 / np.sqrt(40_000))
    np.testing.assert_allclose(y.std(0), 0.7, rtol=0.02)
    np.testing.assert_allclose(y.mean(0), F, atol=4 * 0.7 / 200)


def test_autocorrelated_errors_need_times():
    with pytest.raises(ValueError, match="need the time of each record"):
        levels(ERROR, SIGMAS, F, censored=False)


def test_levels_below_a_limit_cannot_be_autocorrelated():
    with pytest.raises(ValueError, match="leave those levels out"):
        correlated(censored=True)


@pytest.mark.parametrize("asked", ["information", "curvature"])
def test_autocorrelated_errors_have_no_information_level_by_level(asked):
    with pytest.raises(ValueError, match="no information level by level"):
        getattr(correlated(), asked)()


@pytest.mark.parametrize("rate", [0.0, -1.0, np.inf, np.nan])
def test_a_rate_is_positive_and_finite(rate):
    with pytest.raises(ValueError, match="it must be positive and finite"):
        autocorrelated_error(popk.additive_error(1), popk.fixed(rate))


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (popk.additive_error(1, degrees=popk.fixed(4)), "t-distributed errors"),
        (popk.additive_error(1, blq="M4"), r"errors cut at 0 \(M4\)"),
        (box_cox_error(popk.additive_error(1), popk.fixed(0.5)), "a power transformation"),
        (yeo_johnson_error(popk.additive_error(1), popk.fixed(0.5)), "a power transformation"),
        (ERROR, "autocorrelated errors"),
    ],
)
def test_only_plain_normal_errors_are_autocorrelated(error, what):
    with pytest.raises(ValueError, match=f"an error model with {what}; it takes normal errors"):
        autocorrelated_error(error, 1.0)
