r"""Whose levels make the population's estimates what they are? The posterior without each subject.

References
----------
.. [1] Gelfand AE, Dey DK, Chang H (1992). Model determination using predictive distributions with
   implementation via sampling-based methods. In: Bayesian Statistics 4. Oxford University Press,
   147-167.
.. [2] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import numpy as np
import xarray as xr

from popk.diagnostics.subjects_left_out import likelihoods_of_subjects
from popk.inference.convergence import population_draws
from popk.model.sites import Model
from popk.trial import Trial


def subject_influence(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    draws: int = 2000,
    individual_draws: int = 64,
    seed: int = 1,
) -> xr.Dataset:
    r"""Return how far each subject's levels move the posterior of each population parameter.

    Posterior draws are weighted by :math:`1 / p(y_i \mid \theta)`, with the random effects of the subject
    integrated out and the weights Pareto-smoothed [2]_: they are then draws of the posterior without
    the subject [1]_. With :math:`w_i` these weights,

    .. math:: \mathrm{shift}_i = \frac{E[\theta] - E_{w_i}[\theta]}{\mathrm{sd}[\theta]}

    is how many posterior standard deviations the mean moves because the subject is in.

    Parameters
    ----------
    model : Callable
        With random effects for each subject.
    posterior : DataTree
        As `popk.fit` returns it for this model and trial.
    trial : Trial
    draws : int
        How many posterior draws to use, spread evenly.
    individual_draws : int
        How many draws of a subject's random effects there are for each of them; even.
    seed : int
        Of the draws of random effects.

    Returns
    -------
    Dataset
        ``shift`` (subject, parameter), in posterior standard deviations; ``spread`` (subject, parameter),
        the standard deviation with the subject over that without, below 1 where the subject makes the
        parameter better known; ``pareto_k`` (subject), above ``attrs["good_k"]`` where weights cannot tell
        and only a fit without the subject can (`popk.loso` with ``refit=True``).

    Raises
    ------
    ModelError
        As `popk.loso` does.
    ValueError
        There are too few draws.

    Examples
    --------
    >>> popk.subject_influence(model, posterior, trial)["shift"].sel(parameter="CL_pop")
    ... # doctest: +SKIP
    """
    asked = (draws, individual_draws, seed)
    logs, chosen = likelihoods_of_subjects(model, posterior, trial, asked)
    weights, k = _left_out(logs)
    population = population_draws(posterior)
    values = np.stack([x.ravel()[chosen] for x in population.values()], -1)
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    without = weights @ values
    variance = np.maximum(weights @ values**2 - without**2, 0.0)
    axes = ("subject", "parameter")
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"shift": (mean - without) / spread, "spread": spread / np.sqrt(variance)}
    return xr.Dataset(
        {**{n: (axes, x) for n, x in found.items()}, "pareto_k": ("subject", k)},
        coords={"subject": list(trial.ids), "parameter": list(population)},
        attrs={"draws": len(chosen), "good_k": min(0.7, 1 - 1 / np.log10(len(chosen))),
               "trial": trial.host.name},
    )  # fmt: skip


def _left_out(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [subject, draw] that leave each subject out, and Pareto k, of logs [draw, subject]."""
    from arviz_stats.base.array import array_stats

    smoothed, k = array_stats.psislw(logs.T, axis=-1)  # it takes what is divided by
    weights = np.exp(smoothed - smoothed.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True), np.asarray(k)
