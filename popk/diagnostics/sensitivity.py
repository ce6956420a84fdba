r"""Does the posterior hang on the prior? Sensitivity to raising prior or likelihood to a power.

References
----------
.. [1] Kallioinen N, Paananen T, Bürkner PC, Vehtari A (2024). Detecting and diagnosing prior and
   likelihood sensitivity with power-scaling. Stat Comput 34:57. doi:10.1007/s11222-023-10366-5
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr
from numpyro import handlers

from popk.inference.convergence import population_draws
from popk.model.sites import Model, ModelError, Sites, describe
from popk.simulation import posterior_values
from popk.trial import Trial

#: Above it a posterior is said to be sensitive [1]: of a normal one the mean then moves by more than
#: about a quarter of a standard deviation where the power is doubled or halved.
THRESHOLD = 0.05

CONFLICT, STRONG, FINE = "prior-data conflict", "strong prior / weak likelihood", "-"


def prior_sensitivity(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    priors: Sequence[str] | None = None,
    alphas: tuple[float, float] = (0.99, 1.01),
    threshold: float = THRESHOLD,
) -> pd.DataFrame:
    r"""Return how much each population parameter's posterior hangs on the priors and on the data.

    The posterior's draws are reweighted, with Pareto smoothing, to what they would be with

    .. math:: p(\theta)^\alpha\,p(\eta \mid \theta)\,p(y \mid \theta, \eta) \qquad\text{and}\qquad
        p(\theta)\,p(\eta \mid \theta)\,p(y \mid \theta, \eta)^\alpha

    and the sensitivity is how fast the posterior of a parameter moves away from itself, the cumulative
    Jensen-Shannon distance by which it has moved over :math:`|\log_2 \alpha|` [1]_. Priors are those of
    population values. The distributions of random effects, of subjects, occasions and groups alike, are
    the model and are not scaled.

    Parameters
    ----------
    model : Callable
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        That of the fit.
    priors : sequence of str, optional
        Whose priors are scaled, by default those of all population sites: that of one site alone tells
        which prior it is that matters.
    alphas : tuple of float
        A power below 1 and one above. The nearer they are to 1 the safer the weights, and the nearer is
        the difference to the derivative that the threshold is meant for.
    threshold : float
        Above it a posterior is called sensitive.

    Returns
    -------
    DataFrame
        Indexed by population parameter. ``prior`` and ``likelihood``, the sensitivities; ``diagnosis``:
        "prior-data conflict" where both are above the threshold, "strong prior / weak likelihood" where
        only the prior's is, else "-".

    Raises
    ------
    ModelError
        The posterior lacks a site of the model, or `priors` names none of its priors.
    ValueError
        The powers do not lie on either side of 1.

    Examples
    --------
    >>> popk.prior_sensitivity(model, posterior, trial)  # doctest: +SKIP
    """
    import arviz as az

    if not 0 < alphas[0] < 1 < alphas[1]:
        raise ValueError(f"alphas are {alphas}; give one between 0 and 1, and one above 1")
    draws = population_draws(posterior)
    scaled = {
        "log_prior": _log_prior(model, posterior, trial, priors),
        "log_likelihood": np.asarray(posterior["log_likelihood"].dataset["DV"].sum("observation")),
    }
    flat = {n: xr.Dataset({"all": (("chain", "draw"), _centered(x))}) for n, x in scaled.items()}
    values = xr.Dataset({n: (("chain", "draw"), x) for n, x in draws.items()})
    tree = xr.DataTree.from_dict({"posterior": values, **flat})
    rows = {}
    for name in ("prior", "likelihood"):
        found = az.psense(tree, group=name, alphas=alphas)
        rows[name] = {n: float(found[n]) for n in draws}
    table = pd.DataFrame(rows).rename_axis("parameter")
    table["diagnosis"] = [
        FINE if p < threshold else STRONG if q < threshold else CONFLICT
        for p, q in zip(table["prior"], table["likelihood"], strict=True)
    ]
    return table


def _centered(values: np.ndarray) -> np.ndarray:
    """Return log-densities around their mean, so that no power of them overflows."""
    return values - values.mean()


def _log_prior(
    model: Model, posterior: xr.DataTree, trial: Trial, priors: Sequence[str] | None
) -> np.ndarray:
    """Return the log-density of the population values' priors at each draw [chain, draw]."""
    sites = describe(model, trial)
    own = hyperpriors(model, trial, sites)
    if priors is not None:
        if strange := [n for n in priors if n not in own] or (["nothing"] if not priors else []):
            raise ModelError(
                f"priors names {', '.join(strange)}; the model has priors of {', '.join(own)}"
            )
        own = tuple(n for n in own if n in priors)
    values = posterior_values(posterior, sites, trial, new_subjects=True, draws=None)
    shape = posterior["posterior"].sizes["chain"], posterior["posterior"].sizes["draw"]
    return np.asarray(_densities(model, own, trial.arrays(), values)).reshape(shape)


def hyperpriors(model: Model, trial: Trial, sites: Sites) -> tuple[str, ...]:
    """Return the population sites that have a prior: those that are no random effects of a group."""
    population = sites.named("population")
    seen: list[str] = []

    def run(arrays: Trial) -> None:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(arrays)
        seen.extend(n for n in population if "typical" not in trace[n]["infer"])

    jax.eval_shape(run, trial.arrays())
    return tuple(seen)


@partial(jax.jit, static_argnames=("model", "names"))
def _densities(model, names, arrays, values: Mapping[str, Any]):
    def one(given):
        seeded = handlers.seed(handlers.substitute(model, data=given), jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(arrays)
        return sum(trace[n]["fn"].log_prob(trace[n]["value"]).sum() for n in names)

    # Random effects and levels are computed nowhere: nothing here depends on them.
    return jax.lax.map(one, values, batch_size=64)
