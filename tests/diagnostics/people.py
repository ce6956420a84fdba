"""People whose posterior and marginal likelihood are known exactly, and an engine that draws from it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import popk
from popk.inference.density import layout
from popk.inference.draws import Draws, Problem
from tests.trials import trial

MEAN, BETWEEN, NOISE = 5.0, 1.0, 0.7  # standard deviations of mu, of people, of levels
WIDTH = {"exact": 1.0, "narrow": 0.5}  # of the posterior that an engine claims


def people(trial):
    """Levels around a mean of each person, the means around one of all."""
    mu = numpyro.sample("mu", dist.Normal(10.0, MEAN))
    p = popk.individual(
        trial, omega=popk.fixed(BETWEEN), correlated=False, transform="normal", OWN=mu
    )
    level = jnp.broadcast_to(p.OWN, trial.time.shape)
    popk.observe(trial, level, popk.additive_error(popk.fixed(NOISE)))


def shifted(trial):
    """People whose levels lie 3 above what the others say."""
    mu = numpyro.sample("mu", dist.Normal(10.0, MEAN))
    p = popk.individual(
        trial, omega=popk.fixed(BETWEEN), correlated=False, transform="normal", OWN=mu
    )
    level = jnp.broadcast_to(p.OWN + 3.0, trial.time.shape)
    popk.observe(trial, level, popk.additive_error(popk.fixed(NOISE)))


def two_kinds(trial):
    """People around one of two means, 3 apart."""
    mu = numpyro.sample("mu", dist.Normal(10.0, 5.0))
    mix = popk.mixture(trial, {"low": 0.3, "high": 0.7})
    of = popk.individual(
        trial, classes=mix, omega=popk.fixed(1.0), correlated=False, transform="normal",
        OWN={"low": mu, "high": mu + 3.0},
    )  # fmt: skip
    low, high = (p.OWN + 0 * trial.time for p in (of.low, of.high))
    popk.observe(trial, mix(low=low, high=high), popk.additive_error(popk.fixed(0.7)))


def people_trial(levels):
    """Return the trial of some people's levels, a sequence each."""
    rows = [f"{i} {t} 0 {y}" for i, own in enumerate(levels, 1) for t, y in enumerate(own)]
    return trial("\n".join(["ID TIME EVID DV", *rows]))


def drawn_levels(subjects, seed=0):
    """Return levels of some people, one to three each."""
    draw = np.random.default_rng(seed)
    own = 8.0 + BETWEEN * draw.normal(size=subjects)
    return [(o + NOISE * draw.normal(size=1 + i % 3)).round(3) for i, o in enumerate(own)]


def marginal(levels, mu):
    """Return the log density of one person's levels at each mu, the person's mean integrated out."""
    levels, mu = np.asarray(levels, dtype=float), np.atleast_1d(mu)
    covariance = BETWEEN**2 * np.ones((len(levels),) * 2) + NOISE**2 * np.eye(len(levels))
    gap = levels - mu[:, None]
    quadratic = np.einsum("mi,ij,mj->m", gap, np.linalg.inv(covariance), gap)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def of_mu(levels):
    """Return the posterior mean and variance of mu given some people's levels."""
    weights = [1 / (BETWEEN**2 + NOISE**2 / len(y)) for y in levels]
    precision = MEAN**-2 + sum(weights)
    middle = 10.0 * MEAN**-2 + sum(w * np.mean(y) for w, y in zip(weights, levels, strict=True))
    return middle / precision, 1 / precision


def left_out(levels):
    """Return the log density of each person's levels given all others', in closed form."""
    found = []
    for i, own in enumerate(levels):
        mean, variance = of_mu([y for j, y in enumerate(levels) if j != i])
        own = np.asarray(own)
        covariance = (variance + BETWEEN**2) * np.ones((len(own),) * 2)
        covariance += NOISE**2 * np.eye(len(own))
        gap = own - mean
        logdet = np.linalg.slogdet(2 * np.pi * covariance)[1]
        found.append(-0.5 * (gap @ np.linalg.solve(covariance, gap) + logdet))
    return np.array(found)


def draw(
    problem: Problem, *, seed: int, progress: bool, chains: int, draws: int, width: float
) -> Draws:
    """Return independent draws of the posterior of `people`, each narrower by `width` than it is."""
    plan, key = layout(problem.model, problem.trial), jax.random.key(seed)
    o, n = problem.trial.observations, problem.trial.n_subjects
    levels = [o.value[o.subject == i] for i in range(n)]
    middle, variance = of_mu(levels)
    z = np.asarray(jax.random.normal(key, (chains, draws, n + 1)))
    mu = middle + width * np.sqrt(variance) * z[..., 0]
    eta = []
    for i, y in enumerate(levels):
        precision = BETWEEN**-2 + len(y) * NOISE**-2
        own = NOISE**-2 * (y.sum() - len(y) * mu) / precision
        eta.append((own + width * precision**-0.5 * z[..., i + 1]) / 1.0)
    position = np.stack([mu, *eta], -1)
    stats = {"diverging": np.zeros((chains, draws), dtype=bool)}
    return Draws(plan, jnp.asarray(position), stats, {}, {})
