r"""What is the posterior, by importance sampling around its Laplace approximation?

Population values are drawn from Student's t distributions, the first around the mode of the
approximate posterior (`population`), each further one fitted to all draws before it. For each of them
every subject has draws of its random effects around their own mode, so that

.. math:: \hat p(y_i | \theta) = \frac{1}{D} \sum_d \frac{p(y_i, u_{id} | \theta)}{q_i(u_{id})},
    \qquad w = \frac{p(\theta) \prod_i \hat p(y_i | \theta)}{q(\theta)}

are an unbiased estimate of each subject's likelihood and a weight with which the draws are those of
the exact posterior. With q the mixture of all rounds' distributions no draw is lost [1]_. Weights are
smoothed; Pareto k tells whether they can be trusted [2]_.

References
----------
.. [1] Cornuet JM, Marin JM, Mira A, Robert CP (2012). Adaptive multiple importance sampling.
   Scand J Stat 39:798-812. doi:10.1111/j.1467-9469.2011.00756.x
.. [2] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
.. [3] Tran MN, Scharth M, Pitt MK, Kohn R (2013). Importance sampling squared for Bayesian inference
   in latent variable models. arXiv:1309.3339.
"""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from rich.console import Console

from popk.inference.convergence import MIN_ESS
from popk.inference.draws import Draws, Problem
from popk.inference.importance import StudentT, enough, heavy_tailed, resampled, smoothed
from popk.inference.laplace import curved, joint
from popk.inference.population import Summit, Surface, population_at, summit

#: The degrees of freedom of population draws: tails as heavy as those of standard deviations in log.
_FREEDOM = 8
_MOST_ROUNDS = 8
_AT_ONCE = 32  # population draws that are looked at together: what fits into a processor's cache


def draw(
    problem: Problem, *, seed: int, progress: bool, draws: int, population_draws: int,
    individual_draws: int | None,
) -> Draws:  # fmt: skip
    """Return draws of equal weight; the options are those of `popk.fit`.

    Raises
    ------
    ModelError
        The model has no Laplace approximation, or its mode is not found; what to do instead.
    ValueError
        An odd number of individual draws.
    """
    count = individual_draws or enough(problem.trial.n_subjects)
    if count % 2:
        raise ValueError(f"individual_draws is {count}; draws come in pairs: give an even number")
    key, key_keep, key_order = jax.random.split(jax.random.key(seed), 3)
    console = Console(stderr=True, quiet=not progress)
    with console.status("searching for the mode"):
        surface = Surface.of(problem)
        top = summit(surface, seed)
    rounds = _Rounds(surface, top, population_draws, count)
    with console.status("weighing draws") as status:
        weights, pareto_k, ess = rounds.run(key, lambda n: status.update(f"weighing round {n}"))
    chosen = resampled(weights, draws, key_keep)
    chosen = np.asarray(jax.random.permutation(key_order, jnp.asarray(chosen)))
    position = rounds.positions()[chosen]
    settings = {"draws": draws, "population_draws": population_draws, "individual_draws": count}
    attrs = {
        "pareto_k": pareto_k,
        "importance_ess": ess,
        "rounds": len(rounds.found),
        "objective": top.objective,
        "mode": json.dumps(top.values),
        "standard_errors": json.dumps(top.errors),
    }
    stats = {"lp": rounds.log_densities()[chosen][None], "weight": weights[chosen][None]}
    return Draws(surface.whole, position[None], stats, settings, attrs)


class _Rounds:
    """Rounds of weighted draws, each from what the rounds before it have found."""

    def __init__(self, surface: Surface, top: Summit, size: int, count: int):
        self.surface, self.top, self.size, self.count = surface, top, size, count
        self.proposals: list[StudentT] = []
        self.found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def run(self, key: Any, report: Any) -> tuple[np.ndarray, float, float]:
        """Return the weights of all draws, Pareto k and the effective sample size."""
        proposal = StudentT(self.top.position, np.linalg.cholesky(self.top.covariance), _FREEDOM)
        number = 0
        while True:
            number += 1
            report(number)
            self._look(proposal, jax.random.fold_in(key, number))
            weights, pareto_k = smoothed(self._log_weights())
            ess = float(1 / np.sum(weights**2))
            if number > 1 and (ess > 1.25 * MIN_ESS or number == _MOST_ROUNDS):
                return weights, pareto_k, ess
            proposal = self._fitted(weights, ess)

    def positions(self) -> np.ndarray:
        """Return all draws, population and random effects [draw, d]."""
        return np.concatenate([np.hstack([p, u.reshape(len(u), -1)]) for p, u, _ in self.found])

    def log_densities(self) -> np.ndarray:
        """Return the estimated log posterior density of each population draw, up to a constant."""
        return np.concatenate([logs for *_, logs in self.found])

    def _look(self, proposal: StudentT, key: Any) -> None:
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        positions = proposal.draw(np.random.default_rng(seed), self.size)
        s, top = self.surface, self.top
        effects, logs = _weighed(
            s.model, (s.whole, s.plan, self.count), s.arrays, s.stacked,
            (top.position, top.modes, top.turns), (positions, jax.random.split(key, self.size)),
        )  # fmt: skip
        self.proposals.append(proposal)
        self.found.append((positions, np.asarray(effects), np.asarray(logs)))

    def _log_weights(self) -> np.ndarray:
        population = np.concatenate([p for p, *_ in self.found])
        each = np.stack([q.log_density(population) for q in self.proposals])
        return self.log_densities() - np.logaddexp.reduce(each)

    def _fitted(self, weights: np.ndarray, ess: float) -> StudentT:
        """Return the distribution of all draws, held to the first one where they are few."""
        population = np.concatenate([p for p, *_ in self.found])
        center = weights @ population
        apart = population - center
        known = ess / (ess + apart.shape[1])
        scale = known * apart.T @ (apart * weights[:, None]) + (1 - known) * self.top.covariance
        return StudentT(center, np.linalg.cholesky(scale), _FREEDOM)


@partial(jax.jit, static_argnames=("model", "plans"))
def _weighed(model, plans, arrays, stacked, top, drawn):
    """Return one draw of all random effects for each population draw, and its log posterior density.

    The density is estimated: that of the subjects' levels is the mean of their draws' weights.
    """
    whole, plan, count = plans
    center, modes, turns = top

    def one(x):
        position, key = x
        values, prior = population_at(model, whole, arrays, position)

        def own(arrays, mode, turn, key):
            key_draw, key_choose = jax.random.split(key)
            # The mode moves with the population; one step from where it is expected suffices.
            begin = mode + turn @ (position - center)
            _, slope, _, h = curved(model, plan, arrays, values, begin)
            lower = jnp.linalg.cholesky(h)
            z, proposal = heavy_tailed(key_draw, count, plan.size)
            z = jax.scipy.linalg.solve_triangular(lower, slope, lower=True) + z
            vectors = begin + jax.scipy.linalg.solve_triangular(lower.T, z.T, lower=False).T
            exact = jax.vmap(partial(joint, model, plan, arrays, values))(vectors)
            logs = exact - proposal - jnp.log(jnp.diagonal(lower)).sum()
            logs = jnp.where(jnp.isnan(logs), -jnp.inf, logs)
            return vectors[jax.random.categorical(key_choose, logs)], logsumexp(logs)

        keys = jax.random.split(key, len(modes))
        effects, logs = jax.vmap(own)(stacked, modes, turns, keys)
        return effects, prior + logs.sum()

    effects, logs = jax.lax.map(one, drawn, batch_size=_AT_ONCE)
    return effects, jnp.where(jnp.isnan(logs), -jnp.inf, logs)
