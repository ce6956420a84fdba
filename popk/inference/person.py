r"""The No-U-Turn sampler for one subject's random effects together with the population values.

The population's posterior is known by draws alone; here it is the normal distribution of their mean
and covariance, unconstrained, so that a person unlike all draws has a posterior as well:

.. math:: p(\theta, u \mid y) \propto N(t(\theta); m, C)\, p(u \mid \theta)\, p(y \mid u, \theta)

References
----------
.. [1] Hoffman MD, Gelman A (2014). The No-U-Turn sampler. J Mach Learn Res 15:1593-1623.
"""

from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to

from popk.inference.tempering import Pairs, densities

_CHAINS, _WARMUP = 4, 500


class Sampled(NamedTuple):
    """Draws of one subject.

    Attributes
    ----------
    population : dict of str to Float[Array, "n ..."]
    vector : Float[Array, "n k"]
    rhat, ess : float
        The largest R-hat and smallest bulk effective sample size of all coordinates.
    """

    population: dict[str, Any]
    vector: Float[Array, "n k"]
    rhat: float
    ess: float


def nuts(
    model: Any, plan: Any, arrays: Any, population: dict[str, Any], begin: Pairs, *, seed: int
) -> Sampled:
    """Return draws of one subject's random effects and the population values.

    Parameters
    ----------
    model, plan, arrays
        See `terms`.
    population : mapping of site to array
        Population values, each [population draw, ...].
    begin : Pairs
        Where chains begin: some of these; as many draws are returned.
    seed : int
    """
    supports = _supports(model, arrays, tuple(population))
    flat, shapes = _flattened(population, supports)
    center = flat.mean(0)
    lower = np.linalg.cholesky(
        np.atleast_2d(np.cov(flat, rowvar=False)) + 1e-10 * np.eye(len(center))
    )
    count = len(begin.draw)
    first = np.linspace(0, count - 1, _CHAINS).astype(int)
    w = np.linalg.solve(lower, (flat[np.asarray(begin.draw)[first]] - center).T).T
    start = jnp.concatenate([w, begin.vector[first]], 1)

    def values(w: Any) -> dict[str, Any]:
        u, at, found = center + lower @ w, 0, {}
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            found[name] = biject_to(supports[name])(u[at : at + size].reshape(shape))
            at += size
        return found

    def density(x: Any) -> Any:
        w, vector = x[: len(center)], x[len(center) :]
        return sum(densities(model, plan, arrays, values(w), vector)) - (w @ w) / 2

    key = jax.random.key(seed)
    drawn = np.asarray(_chains(density, start, jax.random.split(key, _CHAINS), count // _CHAINS))
    together = jnp.asarray(drawn.reshape(-1, drawn.shape[-1]))
    own = jax.jit(jax.vmap(values))(together[:, : len(center)])
    return Sampled(own, together[:, len(center) :], *_judged(drawn))


def _chains(density: Any, start: Any, keys: Any, draws: int) -> Float[Array, "c n d"]:
    """Return the draws of each chain, with a step size and metric of its own."""

    def chain(begin: Any, key: Any) -> Any:
        warm, run = jax.random.split(key)
        adapt = blackjax.window_adaptation(blackjax.nuts, density, target_acceptance_rate=0.9)
        run_adapt: Any = adapt.run
        (state, parameters), _ = run_adapt(warm, begin, _WARMUP)
        step = blackjax.nuts(density, **parameters).step

        def once(state: Any, key: Any) -> Any:
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(once, state, jax.random.split(run, draws))[1]

    return jax.jit(jax.vmap(chain))(start, keys)


def _judged(drawn: np.ndarray) -> tuple[float, float]:
    """Return the largest R-hat and the smallest ESS of draws [chain, draw, coordinate]."""
    from arviz_stats.base.array import array_stats

    axes: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    return float(np.max(array_stats.rhat(drawn, **axes))), float(
        np.min(array_stats.ess(drawn, **axes))
    )


def _flattened(
    population: dict[str, Any], supports: dict[str, Any]
) -> tuple[np.ndarray, dict[str, tuple[int, ...]]]:
    """Return draws unconstrained and flat, and the shape of each site's part."""
    parts = {n: np.asarray(jax.vmap(biject_to(supports[n]).inv)(x)) for n, x in population.items()}
    shapes = {n: x.shape[1:] for n, x in parts.items()}
    return np.concatenate([x.reshape(len(x), -1) for x in parts.values()], 1), shapes


def _supports(model: Any, arrays: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the support of each population site."""
    found: dict[str, Any] = {}

    def run(arrays: Any) -> Any:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(arrays)
        found.update({n: trace[n]["fn"].support for n in names})
        return jnp.zeros(())

    jax.jit(run)(arrays)  # compiled, so that the structure is never computed
    return found
