r"""Are the levels draws of the model? Normalized prediction distribution errors, and their tests.

References
----------
.. [1] Brendel K, Comets E, Laffont C, Laveille C, Mentré F (2006). Metrics for external model
   evaluation with an application to the population pharmacokinetics of gliclazide. Pharm Res
   23:2036-2049. doi:10.1007/s11095-006-9067-5
.. [2] Comets E, Brendel K, Mentré F (2008). Computing normalised prediction distribution errors to
   evaluate nonlinear mixed-effect models: the npde add-on package for R. Comput Methods Programs
   Biomed 90:154-166. doi:10.1016/j.cmpb.2007.12.002
.. [3] Brendel K, Comets E, Laffont C, Mentré F (2010). Evaluation of different tests based on
   observations for external model evaluation of population analyses. J Pharmacokinet Pharmacodyn
   37:49-65. doi:10.1007/s10928-009-9143-7
.. [4] Nguyen THT, Comets E, Mentré F (2012). Extension of NPDE for evaluation of nonlinear mixed
   effect models in presence of data below the quantification limit with applications to HIV dynamic
   model. J Pharmacokinet Pharmacodyn 39:499-518. doi:10.1007/s10928-012-9264-2
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import xarray as xr
from scipy import stats
from scipy.linalg import solve_triangular

from popk.diagnostics.bins import Bins, edges_of, places
from popk.diagnostics.levels import compared
from popk.diagnostics.ranks import placed, ranked
from popk.model.sites import ModelError
from popk.trial import Trial

#: So many simulated trials there must be, and so many for each level of the subject with most: the
#: covariance of n levels from K draws makes the variance of npde too large by about n / K.
LEAST, LEAST_A_LEVEL = 200, 20
#: Shapiro and Wilk's p-value is known up to so many values.
_MOST_SHAPIRO = 5000
_SETS = 2000  # of standard normal values, by which a band is known


def npde(simulated: xr.DataTree, trial: Trial, *, seed: int = 1) -> xr.Dataset:
    r"""Return normalized prediction distribution errors, of which a right model has standard normal ones.

    The levels :math:`y_i` of a subject and each of K simulated ones are decorrelated by the mean and
    the covariance of the simulated ones [1]_,

    .. math:: y_i^* = L_i^{-1}\,(y_i - \bar y_i), \qquad L_i L_i^T = S_i

    with L the Cholesky factor, and the rank of each among its simulated ones becomes a normal deviate,
    :math:`\mathrm{npde} = \Phi^{-1}(p)`; ``npd`` is the same of levels as they are, which within a
    subject are correlated. A level below its limit of quantification is put uniformly below
    the predicted probability of being there, in simulated trials too (CDF method [4]_); above an upper
    limit likewise. Ties are broken at random. Where many levels are beyond a limit the tests depend
    on how they happen to be imputed, and see less: look at several seeds. Draws of a posterior know
    the trial: the tests then reject somewhat too seldom, as they do with point estimates.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, new_subjects=True, seed=...)``: at least 200 draws, and 20
        for each level of the subject with most levels.
    trial : Trial
        The trial that was simulated.
    seed : int
        Of imputed levels and broken ties.

    Returns
    -------
    Dataset
        ``npde``, ``npd`` (observation), pure numbers, NaN where the model predicts a level without any
        spread; ``DV`` (NaN beyond a limit) and ``PRED``, the median over draws [unit of DV];
        ``censored``, 1 beyond a limit; with ID and TIME. ``statistic`` and ``p_value`` (test) of npde:
        "mean, t", "mean, Wilcoxon", "variance" (that it is 1, by chi-squared, two-sided), "normality"
        (Shapiro and Wilk's), and "global": three times the least of the last three p-values, at
        most 1 [3]_. ``mean`` and ``variance`` of npde with ``mean_se`` and ``variance_se``.

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, has too few draws or no levels; or
        the simulated levels of a subject are linearly dependent.

    Examples
    --------
    >>> simulated = popk.predict(model, posterior, trial, new_subjects=True, seed=2)
    ... # doctest: +SKIP
    >>> popk.npde(simulated, trial)["p_value"].sel(test="global")  # doctest: +SKIP
    """
    levels = compared(simulated, trial, LEAST)
    _enough(levels.ids, len(levels.simulated))
    random = np.random.default_rng(seed)
    own = placed(levels, random)
    free = np.ptp(own.simulated, axis=0) > 0
    errors = np.full(len(free), np.nan)
    for who in np.unique(levels.ids[free]):
        rows = np.flatnonzero((levels.ids == who) & free)
        observed, drawn = _decorrelated(own.observed[rows], own.simulated[:, rows], who)
        errors[rows] = stats.norm.ppf(ranked(observed, drawn, random))
    group = simulated["posterior_predictive"].dataset.isel(observation=levels.chosen)
    result = xr.Dataset(
        {
            "npde": ("observation", errors),
            "npd": ("observation", np.where(free, stats.norm.ppf(own.place), np.nan)),
            "DV": ("observation", levels.observed, {"units": trial.units["DV"]}),
            "PRED": ("observation", group["PRED"].median("sample").values,
                     {"units": trial.units["DV"]}),
            "censored": ("observation", (levels.below | levels.above).astype(int)),
        },
        coords=group["DV"].isel(sample=0, drop=True).coords,
    )  # fmt: skip
    result["TIME"].attrs = {"units": trial.units["TIME"]}
    result.attrs = {"replicates": len(levels.simulated), "without_spread": int((~free).sum()),
                    "seed": seed, "trial": trial.host.name}  # fmt: skip
    return result.merge(_tested(errors[free], random), combine_attrs="override")


def _enough(ids: np.ndarray, replicates: int) -> None:
    most = int(np.unique(ids, return_counts=True)[1].max())
    if replicates < LEAST_A_LEVEL * most:
        raise ModelError(
            f"there are {replicates} simulated trials, and a subject with {most} levels, whose covariance "
            f"takes at least {LEAST_A_LEVEL * most} to be known; predict more draws"
        )


def _decorrelated(observed: np.ndarray, drawn: np.ndarray, who: str) -> tuple[np.ndarray, ...]:
    """Return one subject's levels, observed and simulated, decorrelated by the simulated ones."""
    mean = drawn.mean(axis=0)
    try:
        lower = np.linalg.cholesky(np.atleast_2d(np.cov(drawn, rowvar=False)))
    except np.linalg.LinAlgError:
        raise ModelError(
            f"the simulated levels of ID {who} are linearly dependent, so that they cannot be "
            f"decorrelated; has the model a residual error at each level, and does a record stand twice?"
        ) from None
    both = solve_triangular(lower, np.vstack([observed, drawn]).T - mean[:, None], lower=True)
    return both[:, 0], both[:, 1:].T


def _tested(errors: np.ndarray, random: np.random.Generator) -> xr.Dataset:
    """Return the tests of npde being independent standard normal values."""
    n = len(errors)
    if n < 3:
        raise ModelError(f"there are {n} levels with a predicted spread; tests of npde need 3")
    mean, variance = errors.mean(), errors.var(ddof=1)
    some = errors if n <= _MOST_SHAPIRO else random.choice(errors, _MOST_SHAPIRO, replace=False)
    tails = stats.chi2.cdf((n - 1) * variance, n - 1), stats.chi2.sf((n - 1) * variance, n - 1)
    t, wilcoxon, shapiro = stats.ttest_1samp(errors, 0), stats.wilcoxon(errors), stats.shapiro(some)
    found = {
        "mean, t": (t[0], t[1]),
        "mean, Wilcoxon": (wilcoxon[0], wilcoxon[1]),
        "variance": ((n - 1) * variance, min(1.0, 2 * min(tails))),
        "normality": (shapiro[0], shapiro[1]),
    }
    least = min(p for name, (_, p) in found.items() if name != "mean, t")
    found["global"] = (3 * least, min(1.0, 3 * least))
    values = np.array(list(found.values()), dtype=float)
    return xr.Dataset(
        {
            "statistic": ("test", values[:, 0]), "p_value": ("test", values[:, 1]),
            "mean": mean, "mean_se": np.sqrt(variance / n),
            "variance": variance, "variance_se": variance * np.sqrt(2 / (n - 1)),
        },
        coords={"test": list(found)},
    )  # fmt: skip


def npde_percentiles(
    errors: xr.Dataset,
    against: Literal["TIME", "PRED"] = "TIME",
    *,
    bins: Bins = None,
    percentiles: Sequence[float] = (5, 50, 95),
    interval: float = 0.9,
) -> xr.Dataset:
    """Return percentiles of npde in bins of TIME or PRED, and those that normal values would have.

    Parameters
    ----------
    errors : Dataset
        As `npde` returns it.
    against : "TIME" or "PRED"
    bins : int or sequence of float, optional
        See `popk.vpc`; of PRED by default as many as have 15 levels each, at most 8.
    percentiles : sequence of float
    interval : float
        The probability of the interval in which a percentile of independent standard normal values lies.

    Returns
    -------
    Dataset
        ``observed``, ``median``, ``lower`` and ``upper`` (percentile, bin), pure numbers; ``center``,
        ``left`` and ``right`` [unit of TIME or DV]; ``levels`` (bin).

    Raises
    ------
    ValueError
        The bins cannot be used.
    """
    kept = errors.isel(observation=np.isfinite(errors["npde"].values))
    x, z, unit = kept[against].values, kept["npde"].values, kept[against].attrs["units"]
    if against == "PRED" and bins is None:
        bins = max(1, min(8, len(x) // 15, len(np.unique(x))))
    edges = edges_of(x, bins, unit)
    place = places(x, edges)
    inside = [place == i for i in range(len(edges) - 1)]
    tails = (50 - 50 * interval, 50, 50 + 50 * interval)
    ends = np.stack(
        [_normal_percentiles(int(own.sum()), tuple(percentiles), tails) for own in inside], -1
    )
    observed = np.stack([np.percentile(z[own], percentiles) for own in inside], -1)
    names = ("lower", "median", "upper")
    return xr.Dataset(
        {
            "observed": (("percentile", "bin"), observed),
            **{n: (("percentile", "bin"), v) for n, v in zip(names, ends, strict=True)},
            "levels": ("bin", np.array([own.sum() for own in inside])),
        },
        coords={
            "percentile": np.asarray(percentiles, dtype=float),
            "center": ("bin", np.array([np.median(x[own]) for own in inside]), {"units": unit}),
            "left": ("bin", edges[:-1], {"units": unit}),
            "right": ("bin", edges[1:], {"units": unit}),
        },
        attrs={"interval": interval, "against": against},
    )


def normal_quantiles(count: int, interval: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the medians of so many ordered normal values, and the interval that each lies in.

    Parameters
    ----------
    count : int
    interval : float
        The probability of each equal-tailed interval; not of all of them together.
    """
    i = np.arange(1, count + 1)
    tails = (0.5, 0.5 - interval / 2, 0.5 + interval / 2)
    middle, low, high = (stats.norm.ppf(stats.beta.ppf(q, i, count + 1 - i)) for q in tails)
    return middle, low, high


@lru_cache(maxsize=64)
def _normal_percentiles(
    count: int, percentiles: tuple[float, ...], tails: tuple[float, ...]
) -> np.ndarray:
    """Return where percentiles of so many normal values lie [tail, percentile]."""
    drawn = np.random.default_rng(0).normal(size=(_SETS, count))
    return np.percentile(np.percentile(drawn, percentiles, axis=1), tails, axis=1)
