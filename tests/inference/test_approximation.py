"""A normal approximation of the posterior: from it chains begin, and are centred."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from popk.inference.approximation import approximations, population_at
from popk.inference.beginning import LEAST_MASS, beginning
from popk.inference.draws import Problem
from popk.inference.nuts import Settings
from popk.model.sites import describe
from tests.inference.gaussian import exact, gaussian, gaussian_trial
from tests.trials import trial

KEY, SETTINGS = jax.random.key(0), Settings(4, 100, 100, None, 10)
MANY, FEW = 40, 1  # levels of a subject


def levels(numbers, spread=0.1):
    """Return subjects whose levels scatter around means of their own."""
    rng = np.random.default_rng(1)
    rows = ["ID TIME EVID DV"]
    for i, (n, mean) in enumerate(zip(numbers, rng.normal(3.0, 1.0, len(numbers)), strict=True)):
        rows += [f"{i + 1} {t} 0 {mean + spread * rng.normal():.4f}" for t in range(n)]
    return trial("\n".join(rows))


def means(trial):
    """Levels around a normal mean of each subject, with the standard deviation of people unknown."""
    typical = numpyro.sample("M_pop", dist.Normal(0.0, 10.0))
    p = popk.individual(trial, M=typical, transform="normal", omega={"M": 2.0})
    level = jnp.broadcast_to(p.M, trial.time.shape)
    popk.observe(trial, level, popk.additive_error(popk.fixed(1.0)))


def begun(model, data, centering=None):
    problem = Problem(model, data, describe(model, data))
    return beginning(problem, KEY, SETTINGS, centering)


# --- the approximation ---


def test_the_approximation_of_a_normal_posterior_is_that_posterior():
    data = gaussian_trial()
    (found,) = approximations(gaussian, data, KEY)
    mean, covariance = exact(data)
    names = [latent.name for latent in found.population.latents]
    at = names.index("mu")
    assert found.position[at] == pytest.approx(mean[0], abs=0.01)
    assert found.covariance[at, at] == pytest.approx(covariance[0, 0], rel=1e-3)
    given_mu = np.linalg.inv(np.linalg.inv(covariance)[1:, 1:])
    np.testing.assert_allclose(1 / found.curvatures.ravel(), np.diag(given_mu), rtol=1e-6)
    np.testing.assert_allclose(found.centers.ravel(), mean[1:], atol=0.01)


def test_it_is_the_mode_of_the_marginal_density():
    """Subjects of 40 levels: y-bar ~ N(M, omega^2 + 1/40), and a half-normal prior of omega, in log."""
    data = levels([MANY] * 30)
    (found,) = approximations(means, data, KEY)
    values, _ = population_at(means, found.population, data.arrays(), jnp.asarray(found.position))
    average = data.to_dataframe().groupby("ID", sort=False)["DV"].mean().to_numpy(dtype=float)
    grid = np.exp(np.linspace(-1.5, 1.0, 20001))
    variance = grid**2 + 1 / MANY
    best = np.mean(average)  # the prior of M is wide
    squares = ((average - best) ** 2).sum()
    log_density = -15 * np.log(variance) - squares / variance / 2 - grid**2 / 8 + np.log(grid)
    assert float(values["omega_M"]) == pytest.approx(grid[np.argmax(log_density)], rel=0.01)
    assert float(values["M_pop"]) == pytest.approx(best, abs=0.02)


def test_two_modes_are_two_approximations():
    """A curve that goes up and down: KA and k change places, flip-flop, unless a prior forbids it."""

    def flip(trial):
        KA = numpyro.sample("KA_pop", dist.LogNormal(0.0, 2.0))
        K = numpyro.sample("K_pop", dist.LogNormal(0.0, 2.0))
        V = numpyro.sample("V_pop", dist.LogNormal(0.0, 2.0))
        p = popk.individual(trial, CL=K * V, V=V, KA=KA, omega=popk.fixed(0.05), correlated=False)
        C = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA)
        popk.observe(trial, C, popk.additive_error(popk.fixed(0.01)))

    t = np.array([0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8])
    C = 3.0 / 2.7 * (np.exp(-0.3 * t) - np.exp(-3.0 * t))
    rows = [
        f"{i} {x:g} 0 {c:.4f} ." for i in (1, 2, 3) for x, c in zip((0, *t), (0, *C), strict=True)
    ]
    rows = [r.replace(" 0 0 0.0000 .", " 0 1 . 1") for r in rows]
    data = trial("ID TIME EVID DV AMT\n" + "\n".join(rows))
    found = [
        population_at(flip, a.population, data.arrays(), jnp.asarray(a.position))[0]
        for a in approximations(flip, data, jax.random.key(4))
    ]
    assert [float(v["KA_pop"]) > float(v["K_pop"]) for v in found] == [True, False]
    up, down = ((float(v["KA_pop"]), float(v["K_pop"])) for v in found)
    np.testing.assert_allclose(up, down[::-1], rtol=0.01)


# --- the beginning ---


def test_random_effects_are_centred_as_far_as_each_subject_s_levels_say():
    """The part of the variance that n levels explain: omega^2 / (omega^2 + 1 / n)."""
    numbers = [MANY] * 12 + [FEW] * 12
    begin = begun(means, levels(numbers))
    omega = float(begin.target.centering.scale[0])
    expected = omega**2 / (omega**2 + 1 / np.array(numbers))
    np.testing.assert_allclose(begin.target.centering.fraction.ravel(), expected, rtol=1e-5)


def test_a_centering_that_is_given_is_kept():
    begin = begun(means, levels([3] * 6), centering={"M": 0.25})
    np.testing.assert_array_equal(begin.target.centering.fraction, 0.25)


def test_chains_begin_apart_and_where_the_posterior_is():
    begin = begun(means, levels([MANY] * 30))
    (mode,) = begin.modes
    away = np.asarray(begin.carry.state.position)[:, :2] - mode.position
    distance = np.sqrt(np.einsum("ci,ij,cj->c", away, np.linalg.inv(mode.covariance), away))
    assert distance.max() < 6
    assert np.ptp(distance) > 0.1
    assert np.isfinite(begin.carry.state.lp).all()


def test_the_metric_is_that_of_the_approximation():
    """Centred subjects of 40 levels: their means are known to about a standard deviation of 1/sqrt(40)."""
    begin = begun(means, levels([MANY] * 30))
    metric = begin.carry.metric
    np.testing.assert_allclose(np.ravel(metric.individual), 1 / np.sqrt(MANY), rtol=0.03)
    covariance = np.asarray(metric.population) @ np.asarray(metric.population).T
    np.testing.assert_allclose(covariance, begin.modes[0].covariance, rtol=1e-9)


def test_a_model_without_random_effects_begins_in_the_middle_of_its_prior():
    def fixed(trial):
        M = numpyro.sample("M_pop", dist.Normal(0.0, 10.0))
        level = jnp.broadcast_to(M, trial.time.shape)
        popk.observe(trial, level, popk.additive_error(popk.fixed(1.0)))

    begin = begun(fixed, levels([3, 3]))
    assert begin.modes == []
    assert begin.notes["approximation"].startswith("the model has no random effects")


def test_a_mode_of_little_mass_is_no_place_for_a_chain():
    assert np.exp(-LEAST_MASS) < 0.01
