r"""Sequential Monte Carlo of one subject's random effects together with the population draw.

Particles are pairs of a population draw j and the subject's random effects u. They begin at the prior
and pass through

.. math:: \pi_b(j, u) \propto p(u \mid \theta_j)\, p(y \mid u, \theta_j)^b, \qquad 0 = b_0 < \dots < 1

each b so much higher that the effective sample size of the particles halves [1]_, after which they are
resampled and moved. No derivative is taken, and levels need no information each for itself: errors
may be autocorrelated, and posteriors have several modes.

References
----------
.. [1] Del Moral P, Doucet A, Jasra A (2006). Sequential Monte Carlo samplers. J R Stat Soc B
   68:411-436. doi:10.1111/j.1467-9868.2006.00553.x
.. [2] Roberts GO, Gelman A, Gilks WR (1997). Weak convergence and optimal scaling of random walk
   Metropolis algorithms. Ann Appl Probab 7:110-120. doi:10.1214/aoap/1034625254
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.distributions import biject_to
from scipy.special import logsumexp

from popk.inference.importance import resampled
from popk.inference.laplace import prior_density, traced
from popk.model.levels import levels_of

_STEPS = 6  # moves of each particle at each temperature
_LAST = 24  # at the last one
_MOST = 200  # temperatures
_KEEP = 0.5  # of the effective sample size from one temperature to the next


class Pairs(NamedTuple):
    """Particles: which population draw, which random effects, and their log-densities.

    Attributes
    ----------
    draw : Int[Array, "n"]
    vector : Float[Array, "n k"]
        Unconstrained random effects.
    prior, likelihood : Float[Array, "n"]
    """

    draw: Int[Array, " n"]
    vector: Float[Array, "n k"]
    prior: Float[Array, " n"]
    likelihood: Float[Array, " n"]


class Tempered(NamedTuple):
    """What sequential Monte Carlo found.

    Attributes
    ----------
    pairs : Pairs
        Of equal weight.
    log_evidence : float
        The log-probability of the subject's levels, over population draws and random effects.
    apart : float
        The largest difference of means of two independent halves, in standard deviations.
    distinct : int
        How many of the population draws are left.
    """

    pairs: Pairs
    log_evidence: float
    apart: float
    distinct: int


def tempered(
    model: Any, plan: Any, arrays: Any, population: dict[str, Any], *, count: int, seed: int
) -> Tempered:
    """Return pairs of population draws and one subject's random effects, by two independent runs.

    Parameters
    ----------
    model, plan, arrays
        See `terms`.
    population : mapping of site to array
        Population values, each [population draw, ...].
    count : int
        How many particles, both runs together.
    seed : int
    """
    problem = (model, plan, arrays, population)
    runs = [_run(problem, count // 2, np.random.default_rng([seed, half])) for half in (0, 1)]
    a, b = (pairs.vector + _centers(problem, pairs.draw) for pairs, _ in runs)
    spread = jnp.concatenate([a, b]).std(0)
    apart = jnp.abs(a.mean(0) - b.mean(0)) / jnp.where(spread > 0, spread, 1.0)
    both = jax.tree.map(lambda *x: jnp.concatenate(x), runs[0][0], runs[1][0])
    evidence = float(np.logaddexp(runs[0][1], runs[1][1]) - np.log(2))
    return Tempered(both, evidence, float(apart.max()), len(np.unique(both.draw)))


def _run(problem: Any, count: int, rng: np.random.Generator) -> tuple[Pairs, float]:
    """Return the particles of one run, and its log evidence."""
    size = len(next(iter(problem[3].values())))
    draw = jnp.asarray(rng.permutation(np.arange(count) % size))
    pairs = _begun(*problem, draw, _keys(rng, count))
    power, evidence, scale = 0.0, 0.0, 1.0
    for _ in range(_MOST):
        likelihood = np.asarray(pairs.likelihood)
        if not np.isfinite(likelihood).any():  # nothing explains the levels
            return pairs, -np.inf
        after = _next(likelihood, power)
        logs = (after - power) * np.where(np.isfinite(likelihood), likelihood, -np.inf)
        evidence += float(logsumexp(logs) - np.log(count))
        power = after
        pairs = chosen(pairs, logs, rng)
        pairs, scale = moved(problem, pairs, power, scale, rng, _LAST if power == 1 else _STEPS)
        if power == 1:
            break
    return pairs, evidence


def chosen(pairs: Pairs, log_weights: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Return particles of equal weight."""
    weights = np.exp(log_weights - log_weights.max())
    which = resampled(weights, len(weights), _keys(rng, 1)[0])
    return jax.tree.map(lambda x: x[which], pairs)


def moved(
    problem: Any, pairs: Pairs, power: float, scale: float, rng: np.random.Generator, steps: int
) -> tuple[Pairs, float]:
    """Return particles after some moves that leave their distribution as it is, and the step size.

    Parameters
    ----------
    problem : tuple
        The model, its layout, the arrays and the population values.
    pairs : Pairs
    power : float
        Of the likelihood.
    scale : float
        The step size, in units of what is best for a normal distribution [2]_.
    steps : int
    """
    spread = np.atleast_2d(np.cov(pairs.vector + _centers(problem, pairs.draw), rowvar=False))
    ridge = 1e-10 + 1e-6 * np.diagonal(spread)
    lower = np.linalg.cholesky(spread + np.diag(ridge))
    for _ in range(steps // _STEPS):
        pairs, accepted = _stepped(
            *problem, pairs, _keys(rng, _STEPS), power=power, lower=scale * lower
        )
        # A quarter of the steps of a random walk should be taken.
        scale = float(np.clip(scale * np.exp(2 * (float(accepted) - 0.25)), 0.02, 3.0))
    return pairs, scale


def _next(likelihood: np.ndarray, power: float) -> float:
    """Return the next temperature: where the effective sample size has fallen as far as it may."""
    known = likelihood[np.isfinite(likelihood)]

    def size(after: float) -> float:
        logs = (after - power) * known
        total: Any = logsumexp(logs)
        squares: Any = logsumexp(2 * logs)
        return float(np.exp(2 * total - squares)) / len(likelihood)

    if size(1.0) >= _KEEP:
        return 1.0
    low, high = power, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) >= _KEEP * size(power) else (low, middle)
    return min(max(high, power * 1.0001 + 1e-9), 1.0)


def _keys(rng: np.random.Generator, count: int) -> Any:
    return jax.random.split(jax.random.key(int(rng.integers(2**31))), count)


def densities(
    model: Any, plan: Any, arrays: Any, values: Any, vector: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the log-densities of one subject's random effects and levels; impossible: -inf."""
    trace, prior = traced(model, plan, arrays, values, vector)
    likelihood = levels_of(trace).log_prob.sum()
    return jnp.where(jnp.isnan(prior), -jnp.inf, prior), jnp.where(
        jnp.isnan(likelihood), -jnp.inf, likelihood
    )


@partial(jax.jit, static_argnames=("model", "plan"))
def _begun(model, plan, arrays, population, draw, keys):
    """Return particles of the prior."""

    def one(j, key):
        values = _at(population, j)
        vector, _ = drawn(model, plan, arrays, values, key)
        return Pairs(j, vector, *densities(model, plan, arrays, values, vector))

    return jax.vmap(one)(draw, keys)


@partial(jax.jit, static_argnames=("model", "plan"))
def _stepped(model, plan, arrays, population, pairs, keys, *, power, lower):
    """Return particles after one move for each key, and the share of random walks taken."""
    size = len(next(iter(population.values())))

    def take(old, new, key):
        gain = new.prior - old.prior + power * (new.likelihood - old.likelihood)
        accept = jnp.log(jax.random.uniform(key)) < gain  # False where it is not a number
        return jax.tree.map(partial(jnp.where, accept), new, old), accept

    def proposed(j, vector):
        return Pairs(j, vector, *densities(model, plan, arrays, _at(population, j), vector))

    def center(j):
        return drawn(model, plan, arrays, _at(population, j), jax.random.key(0))[1]

    def one(pair, key):
        walk, how_far, other, *uniform = jax.random.split(key, 5)
        far = jnp.exp(0.7 * jax.random.normal(how_far)) * 2.38 / plan.size**0.5
        step = far * (lower @ jax.random.normal(walk, (plan.size,)))
        pair, accepted = take(pair, proposed(pair.draw, pair.vector + step), uniform[0])
        # Another population draw, the person's own parameters staying what they are.
        j = jax.random.randint(other, (), 0, size)
        shift = center(pair.draw) - center(j)
        pair, _ = take(pair, proposed(j, pair.vector + shift), uniform[1])
        return pair, accepted

    def all_once(pairs, key):
        pairs, accepted = jax.vmap(one)(pairs, jax.random.split(key, len(pairs.draw)))
        return pairs, accepted.mean()

    pairs, accepted = jax.lax.scan(all_once, pairs, keys)
    return pairs, accepted.mean()


def _at(population: dict[str, Any], j: Any) -> dict[str, Any]:
    return {n: x[j] for n, x in population.items()}


def _centers(problem: Any, draw: Any) -> Any:
    return _centered(*problem, draw)


@partial(jax.jit, static_argnames=("model", "plan"))
def _centered(model, plan, arrays, population, draw):
    return jax.vmap(lambda j: drawn(model, plan, arrays, _at(population, j), jax.random.key(0))[1])(
        draw
    )


def drawn(
    model: Any, plan: Any, arrays: Any, population: dict[str, Any], key: Any
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Return random effects drawn from their distribution, and the typical values they vary around."""
    own = [latent.name for latent in plan.latents]
    found: dict[str, Any] = {}
    typical: dict[str, Any] = {}

    def choose(site: dict[str, Any]) -> Any:
        name = site["name"]
        if site["type"] != "sample" or name not in own:
            return population.get(name)
        value = site["fn"].sample(jax.random.fold_in(key, own.index(name)))
        found[name] = biject_to(site["fn"].support).inv(value)
        center = site["infer"].get("typical", 0.0)
        typical[name] = jnp.broadcast_to(center, found[name].shape)
        return value

    seeded = handlers.seed(handlers.substitute(model, substitute_fn=choose), jax.random.key(0))
    prior_density(seeded, set(own), arrays)  # runs the model up to the last of them
    return plan.flatten(found), plan.flatten(typical)
