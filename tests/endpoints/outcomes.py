"""Outcomes as the tests of this room give them, and their distribution."""

import jax
import jax.numpy as jnp
import numpy as np

from popk.endpoints import distribution_of
from tests.residual.observed import observations


def outcomes(endpoint, f, values=None, *, subjects=1, own=True, present=True, **given):
    """Return the distribution of outcomes with predictions f [record], the same in each subject."""
    f = jnp.asarray(f, dtype=float)
    n = subjects * len(f)
    given = {"subject": np.repeat(np.arange(subjects), len(f)), **given}
    given = {"record": np.tile(np.arange(len(f)), subjects), **given}
    own = jnp.broadcast_to(jnp.asarray(own), (n,))
    known = {k: jnp.asarray(v, dtype=float) for k, v in (values or {}).items()}
    seen = observations(n, **given)
    prediction = jnp.tile(f, (subjects, 1))
    return distribution_of(endpoint, prediction, known, seen, own, present=present)


def log_mass(endpoint, y, f, values=None):
    """Return the log-probability of outcomes y at predictions f."""
    y, f = np.broadcast_arrays(np.atleast_1d(y).astype(float), np.asarray(f, dtype=float))
    return np.asarray(outcomes(endpoint, f, values).log_prob(jnp.asarray(y)))


def information_by_sum(endpoint, f, values, support):
    """Return the variance of the score, summed over all outcomes [f]."""
    y, each = (jnp.asarray(x.ravel(), dtype=float) for x in np.meshgrid(list(support), f))

    def log_mass(f):
        return outcomes(endpoint, f, values).log_prob(y)

    value, score = jax.jvp(log_mass, (each,), (jnp.ones_like(each),))
    seen = np.where(np.isfinite(value), np.exp(value) * np.asarray(score) ** 2, 0.0)
    return seen.reshape(len(f), -1).sum(1)


def frequencies(endpoint, f, values, support, seed=0, draws=40_000):
    """Return how often each outcome is drawn at one prediction, and its probability."""
    one = outcomes(endpoint, [f], values)
    drawn = np.asarray(one.sample(jax.random.key(seed), (draws,)))[:, 0]
    seen = np.array([(drawn == y).mean() for y in support])
    expected = np.array([np.exp(log_mass(endpoint, y, f, values)) for y in support])
    return seen, expected.ravel(), np.sqrt(0.25 / draws)
