"""The No-U-Turn sampler: all chains in one compiled program that takes the data as an argument."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.inference import nuts
from popk.inference.adaptation import (
    CHUNK,
    Metric,
    averaged,
    collected,
    no_moments,
    schedule,
    settled,
    step_size,
)  # fmt: skip
from popk.inference.density import layout, log_density, start
from tests.inference.gaussian import TRIAL, exact, gaussian, gaussian_trial

SETTINGS = nuts.Settings(chains=4, warmup=300, draws=1000, target_accept=0.95, max_depth=10)
PLAN = layout(gaussian, gaussian_trial())


def silent(run, total):
    pass


def beginning(text=TRIAL, metric=None):
    target = nuts.Target(gaussian_trial(text).arrays())
    keys = jax.random.split(jax.random.key(0), SETTINGS.chains)
    positions = jax.vmap(lambda key: start(gaussian, PLAN, target.arrays, key))(keys)
    states = nuts.state(gaussian, PLAN, target, positions)
    return target, nuts.begin(PLAN, states, metric, SETTINGS.target_accept)


def sampled(text=TRIAL, seed=1, after=silent):
    target, carry = beginning(text)
    run = nuts.first(carry, SETTINGS)
    return nuts.sample(gaussian, PLAN, target, run, jax.random.key(seed), SETTINGS, after=after)


@pytest.mark.parametrize("threads", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_chains_in_threads_of_their_own_sample_the_same_distribution(threads):
    target, carry = beginning()
    settings = SETTINGS._replace(threads=threads)
    drawn = [
        nuts.sample(
            gaussian, PLAN, target, nuts.first(carry, settings), jax.random.key(1), settings,
            after=silent,
        )
        for _ in range(2)
    ]  # fmt: skip
    mean, covariance = exact(gaussian_trial())
    draws = drawn[0].position.reshape(-1, PLAN.size)[:, [0, 3, 4, 5]]  # the mean, and persons' own
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.1 * spread.max())
    np.testing.assert_allclose(draws.std(0), spread, rtol=0.1)
    assert (drawn[0].step_size == drawn[0].step_size[0, 0]).all()  # one for all chains
    assert len(np.unique(drawn[0].lp[-1])) == 4
    jax.tree.map(np.testing.assert_array_equal, *drawn)  # however the threads were scheduled


def test_a_small_trial_has_one_thread_and_a_larger_one_a_thread_for_each_chain(
    theophylline, phenobarbital
):
    assert nuts.threads_for(theophylline, 4) == 1
    assert [nuts.threads_for(phenobarbital, chains) for chains in (1, 4, 6, 64)] == [1, 4, 6, 8]


@pytest.fixture(scope="module")
def reports():
    return []


@pytest.fixture(scope="module")
def draws(reports):
    return sampled(after=lambda run, total: reports.append((run.done, total, run.divergences)))


@pytest.fixture(scope="module")
def positions(draws):
    """Return the draws of (mu, tau, rho, own 1, own 2, own 3), unconstrained, [chain, draw, 6]."""
    return np.swapaxes(draws.position, 0, 1)


def agrees(chains, mean, sd):
    """Assert that draws [chain, draw] have a mean and sd, to four of their standard errors."""
    ess = float(az.ess(chains, method="mean"))
    assert ess > 1000
    assert chains.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(ess))
    of_squares = float(az.ess((chains - mean) ** 2, method="mean"))
    kurtosis = np.mean((chains - mean) ** 4) / sd**4
    error = sd**2 * np.sqrt((kurtosis - 1) / of_squares)
    assert chains.var() == pytest.approx(sd**2, abs=4 * error)


def test_the_posterior_of_a_gaussian_model_is_recovered(positions):
    mean, covariance = exact(gaussian_trial())
    for i, at in enumerate((0, 3, 4, 5)):
        agrees(positions[..., at], mean[i], np.sqrt(covariance[i, i]))
    found = np.corrcoef(positions[..., [0, 3, 4, 5]].reshape(-1, 4).T)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found, covariance / np.outer(sd, sd), atol=0.06)


def test_sites_that_the_data_do_not_touch_keep_their_prior(positions):
    agrees(np.exp(positions[..., 1]), 1.5, np.sqrt(3) / 2)  # Gamma(3, 2)
    agrees(np.tanh(positions[..., 2]), 0.0, np.sqrt(1 / 3))  # LKJ(1) of two: uniform


def test_chains_agree_and_nothing_diverges(draws, positions):
    assert max(float(az.rhat(positions[..., i])) for i in range(6)) < 1.01
    assert not draws.diverging.any()
    assert (draws.tree_depth < SETTINGS.max_depth).all()


def test_the_acceptance_rate_is_near_the_one_asked_for(draws):
    assert draws.acceptance_rate.mean() == pytest.approx(SETTINGS.target_accept, abs=0.04)


def test_the_step_size_no_longer_moves_after_the_warm_up(draws):
    assert np.ptp(draws.step_size) == 0


def test_each_draw_carries_its_log_density(draws):
    arrays = gaussian_trial().arrays()
    density = jax.jit(jax.vmap(lambda x: log_density(gaussian, PLAN, arrays, x)))
    np.testing.assert_allclose(draws.lp[::250, 0], density(draws.position[::250, 0]), rtol=1e-9)


def test_every_field_has_the_draws_of_every_chain(draws):
    assert draws.position.shape == (1000, 4, 6)
    for name in (
        "lp",
        "diverging",
        "energy",
        "acceptance_rate",
        "n_steps",
        "tree_depth",
        "step_size",
    ):
        assert getattr(draws, name).shape == (1000, 4)


def test_progress_is_reported_to_the_last_step(draws, reports):
    done = [steps for steps, *_ in reports]
    assert done == sorted(done)
    assert len(done) >= 20
    last, total, divergences = reports[-1]
    assert total <= last < total + 25
    assert 1000 < total <= 1300
    assert divergences == 0


def test_the_same_seed_gives_the_same_draws_bit_for_bit(draws):
    again = sampled()
    for first, second in zip(draws, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_gives_other_draws(draws):
    assert (sampled(seed=2).position != draws.position).any(axis=(0, 2)).all()


def test_other_data_of_the_same_shapes_compile_nothing_anew(draws):
    before = nuts._advance._cache_size(), nuts.state._cache_size()
    other = sampled(TRIAL.replace("4.1", "9.9"))
    assert (nuts._advance._cache_size(), nuts.state._cache_size()) == before
    assert other.position[..., 3].mean() > draws.position[..., 3].mean()


# --- warm-up ---


def test_the_metric_is_learned_in_windows_that_double_and_the_step_size_always():
    stage = np.asarray(schedule(1000, informed=False))
    assert (stage & 1).all()
    collecting = np.flatnonzero(stage & 2)
    assert (collecting[0], collecting[-1]) == (150, 949)
    closes = np.flatnonzero(stage & 4) + 1
    # The next window, of 400, would leave less than its double behind: it takes all that is left.
    assert np.diff([150, *closes]).tolist() == [25, 50, 100, 200, 425]


def test_who_knows_the_metric_about_has_a_long_window_at_once():
    closes = np.flatnonzero(np.asarray(schedule(1000, informed=True)) & 4) + 1
    assert np.diff([0, *closes]).tolist() == [75, 150, 300, 425]


@pytest.mark.parametrize("warmup", [1, 2, 3, 5, 10, 20, 33, 100, 150, 500, 777])
def test_the_last_window_ends_before_the_steps_for_the_step_size_alone(warmup):
    stage = np.asarray(schedule(warmup, informed=False))
    assert stage.shape == (warmup,)
    collecting, closes = np.flatnonzero(stage & 2), np.flatnonzero(stage & 4)
    if len(collecting):
        assert collecting[-1] == closes[-1]
        assert 0 <= warmup - min(50, -(-warmup // 10)) - 1 - closes[-1] < CHUNK
    assert not set((closes + 1) % CHUNK) - {0}  # the metric changes between calls of the program
    assert set(closes) <= set(collecting)


def window(spread=1.0, apart=0.0, n=75):
    """Return a window of independent draws in a metric of ones, wider or further apart than it says."""
    rng = np.random.default_rng(3)
    chains = 1 + apart * np.arange(4.0)
    position = spread * rng.normal(size=(n, 4, 6)) + chains[:, None]
    other = [rng.normal(size=(n, 4)) for _ in nuts.Sampled._fields[1:]]
    return nuts.Sampled(position, *other)


ONES = Metric(jnp.eye(3), jnp.ones((3, 1, 1)))


def test_a_warm_up_is_over_when_chains_agree_and_the_metric_fits():
    assert settled(PLAN, ONES, *window()[:2])


@pytest.mark.parametrize(
    "unsettled",
    [window(spread=3.0), window(spread=0.3), window(apart=2.0), window(n=20)],
    ids=["metric too narrow", "too wide", "chains apart", "too few draws"],
)
def test_a_warm_up_goes_on_where_a_window_says_something_new(unsettled):
    assert not settled(PLAN, ONES, *unsettled[:2])


def test_a_warm_up_that_begins_well_is_short(reports, draws):
    """A metric that fits: 75 steps and 50 for the step size, of the 300 that there might be."""
    mean, covariance = exact(gaussian_trial())
    sd = np.sqrt(np.diag(covariance))
    common = jnp.diag(jnp.asarray([sd[0], 0.6, 0.6]))
    target, carry = beginning(metric=Metric(common, jnp.asarray(sd[1:, None, None])))
    seen = []
    settings = SETTINGS._replace(draws=100)
    drawn = nuts.sample(
        gaussian, PLAN, target, nuts.first(carry, settings), jax.random.key(4), settings,
        after=lambda run, total: seen.append(total),
    )  # fmt: skip
    assert seen[-1] == 75 + 50 + 100
    assert drawn.position.shape == (100, 4, 6)
    assert abs(drawn.position[..., 0].mean() - mean[0]) < sd[0]


@pytest.fixture
def metric():
    """Return a metric with a dense block for the population and for each person."""
    rng = np.random.default_rng(1)
    n, k = PLAN.n_population, PLAN.n_individual
    lower = np.tril(rng.normal(size=(n, n))) + 3 * np.eye(n)
    each = np.tril(rng.normal(size=(3, k, k))) + 3 * np.eye(k)
    return Metric(jnp.asarray(lower), jnp.asarray(each))


def test_whitening_undoes_coloring(metric):
    x = jnp.arange(1.0, 7.0)
    np.testing.assert_allclose(metric.whiten(PLAN, metric.color(PLAN, x)), x, rtol=1e-12)
    np.testing.assert_allclose(
        metric.color_gradient(PLAN, metric.whiten_gradient(PLAN, x)), x, rtol=1e-12
    )


def test_gradients_follow_the_chain_rule_of_coloring(metric):
    x, weights = jnp.arange(1.0, 7.0), jnp.asarray([1.0, -2, 3, 0.5, 2, -1])
    expected = jax.grad(lambda white: (weights * metric.color(PLAN, white) ** 2).sum())(x)
    at = metric.color(PLAN, x)
    np.testing.assert_allclose(metric.whiten_gradient(PLAN, 2 * weights * at), expected, rtol=1e-12)


def test_moments_collected_draw_by_draw_are_those_of_all_draws():
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(6, 6))
    steps = rng.normal(size=(40, 4, 6)) @ mix + 100.0
    start = Metric(jnp.eye(3), jnp.broadcast_to(jnp.eye(1), (3, 1, 1)))
    moments = no_moments(start, jnp.zeros(6))
    for positions in steps:
        moments = collected(PLAN, moments, jnp.asarray(positions))
    flat = steps.reshape(-1, 6)
    covariance = np.cov(flat.T)
    np.testing.assert_allclose(moments.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.population / (160 - 1), covariance[:3, :3], rtol=1e-9)
    np.testing.assert_allclose(
        np.ravel(moments.individual) / (160 - 1), np.diag(covariance)[3:], rtol=1e-9
    )


def test_the_step_size_shrinks_where_too_little_is_accepted_and_grows_where_too_much_is():
    begin = step_size(jnp.log(jnp.asarray(0.1)))
    for error, grows in ((0.5, False), (-0.1, True)):
        size = begin
        for _ in range(20):
            size = averaged(size, jnp.asarray(error))
        assert bool(size.log > size.center) is grows
        assert bool(size.log_average > begin.log) is grows
