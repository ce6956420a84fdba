"""Did the chains converge, or are weights to be trusted? A verdict, and what to do next.

References
----------
.. [1] Vehtari A, Gelman A, Simpson D, Carpenter B, Burkner PC (2021). Rank-normalization, folding,
   and localization: an improved R-hat. Bayesian Anal 16:667-718. doi:10.1214/20-BA1221
.. [2] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr

MAX_RHAT = 1.01
MIN_ESS = 400
#: A sampler that fails more often than once in so many transitions may have left a region out. A rarer
#: failure is a far tail: the draws around it are counted, and R-hat and ESS still judge them.
DIVERGING_ONCE_IN = 1000
#: Above this Pareto k weights cannot be trusted [2]_.
MAX_PARETO_K = 0.7


class ConvergenceWarning(UserWarning):
    """The chains did not converge: the posterior cannot be trusted yet."""


class Convergence(NamedTuple):
    """What the diagnostics say of a posterior.

    Attributes
    ----------
    rhat, ess_bulk, ess_tail : float
        The worst over the population parameters.
    worst : str
        The parameter with the worst R-hat, or with the lowest ESS if all R-hats are fine.
        "" where draws were weighted: their effective sample size is that of all parameters.
    divergences : int
        More than one in 1,000 transitions is too many.
    pareto_k : float, optional
        Of the weights of importance sampling; draws of NUTS have none, those that were weighted have
        no R-hat (NaN).
    transitions : int
        How many there were after the warm-up.
    family : str
        Of the guide that draws were proposed from, "" where there was none.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float
    worst: str
    divergences: int
    pareto_k: float | None = None
    transitions: int = 0
    family: str = ""

    @property
    def converged(self) -> bool:
        """Return whether the posterior may be used."""
        return not self.problems()

    def problems(self) -> list[str]:
        """Return what is wrong, each with the next step to take."""
        if self.pareto_k is not None:
            return self._of_weights(self.pareto_k)
        found = []
        if not self.rhat <= MAX_RHAT:  # NaN too: a chain that never moved
            found.append(
                f"R-hat of {self.worst} is {self.rhat:.3f} (at most {MAX_RHAT}): the chains "
                f"disagree; plot popk.plots.trace, tighten vague priors, or raise warmup="
            )
        if not min(self.ess_bulk, self.ess_tail) >= MIN_ESS:
            found.append(
                f"the lowest effective sample size is bulk {self.ess_bulk:.0f}, tail "
                f"{self.ess_tail:.0f} (at least {MIN_ESS}): raise draws= or chains="
            )
        if self.divergences * DIVERGING_ONCE_IN > self.transitions:
            found.append(
                f"{self.diverging} (at most one in {DIVERGING_ONCE_IN:,}): raise target_accept= (0.98, "
                f"0.995), or tighten priors that allow a standard deviation near 0"
            )
        return found

    @property
    def diverging(self) -> str:
        """Return how many transitions diverged, in words."""
        if not self.divergences:
            return "no divergence"
        plural = "s" if self.divergences > 1 else ""
        return f"{self.divergences:,} divergent transition{plural} of {self.transitions:,}"

    def _of_weights(self, pareto_k: float) -> list[str]:
        found = []
        if not pareto_k <= MAX_PARETO_K:
            unlike = f"its {self.family} guide" if self.family else "its Laplace approximation"
            first = "family='flow', or " if self.family == "mean-field" else ""
            found.append(
                f"Pareto k of the weights is {pareto_k:.2f} (at most {MAX_PARETO_K}): the posterior is "
                f"unlike {unlike}, and a few draws carry most of the weight; take {first}method='nuts'"
            )
        if not self.ess_bulk >= MIN_ESS:
            found.append(
                f"the effective sample size of the weights is {self.ess_bulk:.0f} (at least {MIN_ESS}): "
                f"raise population_draws= and individual_draws=, or take method='nuts'"
            )
        return found


def convergence(posterior: xr.DataTree) -> Convergence:
    """Return the verdict on a posterior's population parameters.

    Parameters
    ----------
    posterior : DataTree
        As `popk.fit` returns it.

    Raises
    ------
    ValueError
        It has no group ``posterior``.
    """
    import arviz as az

    population = population_draws(posterior)
    if not population:
        raise ValueError("the posterior has no population parameters")
    if "pareto_k" in posterior.attrs:
        pareto_k, ess = (float(posterior.attrs[n]) for n in ("pareto_k", "importance_ess"))
        family = str(posterior.attrs.get("family", ""))
        return Convergence(np.nan, ess, ess, "", 0, pareto_k, family=family)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant chain is NaN, and reported
        rhat = {n: float(az.rhat(x)) for n, x in population.items()}
        bulk = {n: float(az.ess(x, method="bulk")) for n, x in population.items()}
        tail = {
            n: float(az.ess(x, method="tail", prob=(0.05, 0.95))) for n, x in population.items()
        }
    worst = max(rhat, key=lambda n: np.nan_to_num(rhat[n], nan=np.inf))
    if rhat[worst] <= MAX_RHAT:
        worst = min(bulk, key=lambda n: min(bulk[n], tail[n]))
    stats = posterior["sample_stats"].dataset
    diverging = stats["diverging"].to_numpy() if "diverging" in stats else np.zeros(0, dtype=bool)
    return Convergence(
        max(rhat.values(), key=lambda v: np.nan_to_num(v, nan=np.inf)),
        min(bulk.values()),
        min(tail.values()),
        worst,
        int(diverging.sum()),
        transitions=diverging.size,
    )


def population_draws(posterior: xr.DataTree) -> dict[str, np.ndarray]:
    """Return each scalar population parameter's draws [chain, draw], constants left out.

    A correlation is named ``corr[CL, V]``.
    """
    group = posterior["posterior"].dataset
    draws: dict[str, np.ndarray] = {}
    for name, values in group.data_vars.items():
        block = str(name).startswith("corr_") and "corr" in group and values.ndim == 4
        if "subject" in values.dims or block:  # `corr` has the numbers of its blocks
            continue
        inner = values.dims[2:]
        for index in np.ndindex(*values.shape[2:]):
            if name == "corr" and index[0] >= index[1]:
                continue  # symmetric, with ones on the diagonal
            labels = [
                str(group[d].values[i]) if d in group.coords else str(i)
                for d, i in zip(inner, index, strict=True)
            ]
            array = values.values[(slice(None), slice(None), *index)]
            if np.ptp(array) > 0 or values.dims == ("chain", "draw"):
                draws[f"{name}[{', '.join(labels)}]" if labels else str(name)] = array
    fixed = posterior["posterior"].attrs.get("fixed", [])
    return {n: x for n, x in draws.items() if n not in np.atleast_1d(fixed)}
