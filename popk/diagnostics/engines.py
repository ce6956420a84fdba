"""Do two engines find the same posterior? Means, standard deviations, and how far they are apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from popk.inference.convergence import population_draws
from popk.inference.fit import METHODS, fit
from popk.model.sites import Model
from popk.trial import Trial

COLUMNS = ("mean", "MCSE of mean", "sd", "MCSE of sd", "R-hat", "ESS bulk", "ESS tail")


def compare_engines(
    model: Model,
    trial: Trial,
    *,
    seed: int,
    engines: Sequence[str] = ("nuts", "pymc"),
    posteriors: Mapping[str, xr.DataTree] | None = None,
    chains: int | None = None,
    warmup: int | None = None,
    draws: int | None = None,
    target_accept: float | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    r"""Fit a model with two engines; print and return how far their posteriors are apart.

    For the mean and the standard deviation of each population parameter, the difference in units of
    what Monte Carlo error lets expect,

    .. math:: d = \frac{a - b}{\sqrt{\mathrm{MCSE}_a^2 + \mathrm{MCSE}_b^2}}

    which is about standard normal where both engines sample one posterior [1]_. "nuts" and "nutpie"
    sample popk's own log-density; "pymc" samples that of `pymc_model`, which shares neither its
    likelihood nor its concentrations with popk.

    Parameters
    ----------
    model : Callable
    trial : Trial
    seed : int
        Of both fits.
    engines : sequence of str
        Two methods of `popk.fit`.
    posteriors : mapping of str to DataTree, optional
        What `popk.fit` returned of an engine before; it is then not fitted again.
    chains, warmup, draws, target_accept
        As in `popk.fit`.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    DataFrame
        A row for each population parameter; columns (engine, statistic), and ("difference", "mean")
        and ("difference", "sd") in combined MCSEs.

    Raises
    ------
    ModelError
        The model has no counterpart in PyMC.
    ValueError
        There are not two different engines, or one is no method of `popk.fit`.

    Examples
    --------
    >>> table = popk.compare_engines(theophylline, trial, seed=1)  # doctest: +SKIP

    References
    ----------
    .. [1] Vehtari A, Gelman A, Simpson D, Carpenter B, Burkner PC (2021). Rank-normalization,
       folding, and localization: an improved R-hat. Bayesian Anal 16:667-718. doi:10.1214/20-BA1221
    """
    names = tuple(engines)
    if len(set(names)) != 2 or len(names) != 2 or not set(names) <= set(METHODS):
        raise ValueError(f"engines is {names}; give two different ones of {', '.join(METHODS)}")
    given = dict(posteriors or {})
    for name in names:
        if name not in given:
            given[name] = fit(
                model, trial, seed=seed, method=name, chains=chains, warmup=warmup, draws=draws,
                target_accept=target_accept, progress=progress,
            )  # fmt: skip
    table = _compared({name: given[name] for name in names})
    worst: Any = table["difference"].abs().stack()
    name, what = worst.index[int(np.argmax(worst.to_numpy()))]
    print(table.to_string(float_format=lambda x: f"{x:.4g}"))
    print(
        f"The largest of {len(worst)} differences is {worst.max():.2f} combined MCSEs, "
        f"of the {what} of {name}."
    )
    return table


def _compared(posteriors: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Return the statistics of each posterior beside each other, and their differences."""
    tables = {name: _statistics(posterior) for name, posterior in posteriors.items()}
    (one, first), (other, second) = tables.items()
    if list(first.index) != list(second.index):
        raise ValueError(
            f"the posterior of {one} has {', '.join(first.index)}, that of {other} "
            f"{', '.join(second.index)}; give two fits of one model"
        )
    apart = pd.DataFrame(
        {
            what: (first[what] - second[what])
            / np.hypot(first[f"MCSE of {what}"], second[f"MCSE of {what}"])
            for what in ("mean", "sd")
        }
    )
    return pd.concat({**tables, "difference": apart}, axis=1)


def _statistics(posterior: xr.DataTree) -> pd.DataFrame:
    """Return what the draws of each population parameter say."""
    rows = {
        name: (
            x.mean(),
            float(az.mcse(x, method="mean")),
            x.std(),
            float(az.mcse(x, method="sd")),
            float(az.rhat(x)),
            float(az.ess(x, method="bulk")),
            float(az.ess(x, method="tail", prob=(0.05, 0.95))),
        )
        for name, x in population_draws(posterior).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).rename_axis(
        "parameter"
    )
