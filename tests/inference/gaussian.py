"""A model whose posterior is known exactly, for tests of samplers."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import popk
from tests.trials import trial

MEAN, BETWEEN, NOISE = 10.0, 1.0, 2.0  # standard deviations of mu, of people, of levels

TRIAL = """
ID TIME EVID DV
1  0    0    4.1
2  0    0    1.7
2  1    0    2.9
3  0    0    6.2
3  1    0    3.8
3  2    0    5.5
3  3    0    4.4
"""


def gaussian_trial(text=TRIAL):
    """Return three people with one, two and four levels."""
    return trial(text)


def gaussian(trial):
    """Levels around a mean of each person, and two sites that the data do not touch."""
    mu = numpyro.sample("mu", dist.Normal(0.0, MEAN))
    numpyro.sample("tau", dist.Gamma(3.0, 2.0))
    numpyro.sample("rho", dist.LKJ(2, 1.0))
    with numpyro.plate("subject", trial.n_subjects, dim=-2):
        own = numpyro.sample("own", dist.Normal(mu, BETWEEN))
    level = jnp.broadcast_to(own, trial.time.shape)
    popk.observe(trial, level, popk.additive_error(popk.fixed(NOISE)))


def exact(trial):
    """Return the posterior mean and covariance of (mu, own of each person), by linear algebra."""
    o, n = trial.observations, trial.n_subjects
    precision, shift = np.zeros((n + 1, n + 1)), np.zeros(n + 1)
    precision[0, 0] = MEAN**-2
    for i in range(n):
        difference = np.eye(n + 1)[i + 1] - np.eye(n + 1)[0]
        precision += BETWEEN**-2 * np.outer(difference, difference)
    for i, y in zip(o.subject, o.value, strict=True):
        precision[i + 1, i + 1] += NOISE**-2
        shift[i + 1] += NOISE**-2 * y
    covariance = np.linalg.inv(precision)
    return covariance @ shift, covariance
