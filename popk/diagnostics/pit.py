r"""Do prediction intervals hold what they promise? Places in the predictive distribution, and coverage.

References
----------
.. [1] Gneiting T, Balabdaoui F, Raftery AE (2007). Probabilistic forecasts, calibration and sharpness.
   J R Stat Soc B 69:243-268. doi:10.1111/j.1467-9868.2007.00587.x
.. [2] Czado C, Gneiting T, Held L (2009). Predictive model assessment for count data. Biometrics
   65:1254-1261. doi:10.1111/j.1541-0420.2009.01191.x
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from popk.diagnostics.levels import compared
from popk.diagnostics.ranks import placed, ranked_among_themselves
from popk.trial import Trial

#: So many simulated trials there must be: the edge of a 95% interval lies between two of them.
LEAST = 100
#: Nominal probabilities at which the curve of coverage is known.
NOMINAL = np.round(np.linspace(0.02, 0.98, 49), 2)
_BINS = 10


def pit(
    simulated: xr.DataTree,
    trial: Trial,
    *,
    intervals: Sequence[float] = (0.5, 0.9, 0.95),
    band: float = 0.9,
    seed: int = 1,
) -> xr.Dataset:
    r"""Return the place of each level in its predictive distribution, and how many lie in intervals.

    The probability integral transform (PIT) of a level y is the predictive probability of a lower
    one [1]_, randomized where there are ties [2]_, and uniform below P(BLQ) for a level below its
    limit. A level lies in the central interval of probability c where
    :math:`|\mathrm{PIT} - 1/2| \le c / 2`. The levels of a person go together, so that neither PIT
    values nor the coverage vary as independent ones do: bands and the p-value are those of the
    simulated trials themselves, each in the place of the observed one.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, new_subjects=True, seed=...)``, of at least 100 draws.
    trial : Trial
        The trial that was simulated.
    intervals : sequence of float
        The probabilities of the intervals of which coverage is reported, between 0 and 1.
    band : float
        The probability of the interval in which coverage lies over simulated trials.
    seed : int
        Of levels beyond a limit, and of ties.

    Returns
    -------
    Dataset
        ``pit`` (observation), between 0 and 1, with ID and TIME; ``coverage``, ``coverage_lower`` and
        ``coverage_upper`` (interval): the part of levels within, and where it lies over simulated trials;
        ``subject_coverage`` (interval, subject) and ``levels`` (subject); the same ``curve``,
        ``curve_lower``, ``curve_upper`` (nominal) at 0.02 to 0.98; ``histogram``, ``histogram_lower``,
        ``histogram_upper`` (tenth): the part of PIT values in each tenth; ``p_value``: of the largest
        distance of the distribution of PIT values from a uniform one.

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, has too few draws or no levels.
    ValueError
        A probability does not lie between 0 and 1.

    Examples
    --------
    >>> popk.pit(simulated, trial)["coverage"].sel(interval=0.9)  # doctest: +SKIP
    """
    asked = np.asarray(intervals, dtype=float)
    if asked.size == 0 or not ((asked > 0) & (asked < 1)).all() or not 0 < band < 1:
        raise ValueError(
            f"intervals are {tuple(intervals)} and band is {band}; give probabilities such as 0.9"
        )
    levels = compared(simulated, trial, LEAST)
    random = np.random.default_rng(seed)
    own = placed(levels, random)
    among = ranked_among_themselves(own.simulated, random)
    tails = [0.5 - band / 2, 0.5 + band / 2]
    data = {}
    for name, axis, probabilities in (
        ("coverage", "interval", asked), ("curve", "nominal", NOMINAL)
    ):  # fmt: skip
        low, high = np.quantile(_within(among, probabilities), tails, axis=-1)
        each = _within(own.place, probabilities), low, high
        data |= _banded(name, axis, each)
    parts = np.stack([_tenths(one) for one in among])
    data |= _banded("histogram", "tenth", (_tenths(own.place), *np.quantile(parts, tails, axis=0)))
    who = [levels.ids == i for i in trial.ids]
    data["subject_coverage"] = (("interval", "subject"), _of_subjects(own.place, asked, who))
    data["levels"] = ("subject", np.array([rows.sum() for rows in who]))
    farther = _distance(among) >= _distance(own.place[None])[0] * (1 - 1e-12)
    data["p_value"] = (1 + farther.sum()) / (1 + len(farther))
    group = simulated["posterior_predictive"].dataset["DV"].isel(observation=levels.chosen)
    data["pit"] = ("observation", own.place)
    result = xr.Dataset(data, coords=group.isel(sample=0, drop=True).coords).assign_coords(
        interval=asked, nominal=NOMINAL, subject=list(trial.ids),
        tenth=(np.arange(_BINS) + 0.5) / _BINS,
    )  # fmt: skip
    result["TIME"].attrs = {"units": trial.units["TIME"]}
    result.attrs = {"replicates": len(among), "band": band, "seed": seed, "trial": trial.host.name}
    return result


def _banded(name: str, axis: str, values: tuple[np.ndarray, ...]) -> dict[str, tuple]:
    names = (name, f"{name}_lower", f"{name}_upper")
    return {n: (axis, x) for n, x in zip(names, values, strict=True)}


def _within(place: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the part of levels [..., observation] within each central interval [interval, ...]."""
    distance = np.sort(2 * np.abs(place - 0.5), axis=-1)
    rows = np.atleast_2d(distance)
    found = np.stack([np.searchsorted(row, probabilities, side="right") for row in rows], -1)
    return (found if place.ndim > 1 else found[:, 0]) / place.shape[-1]


def _tenths(place: np.ndarray) -> np.ndarray:
    """Return the part of values in each tenth between 0 and 1."""
    return np.bincount((place * _BINS).astype(int).clip(0, _BINS - 1), minlength=_BINS) / place.size


def _of_subjects(place: np.ndarray, asked: np.ndarray, who: list[np.ndarray]) -> np.ndarray:
    """Return the part of each subject's levels within each interval, NaN where it has none."""
    none = np.full(len(asked), np.nan)
    return np.stack([_within(place[rows], asked) if rows.any() else none for rows in who], -1)


def _distance(place: np.ndarray) -> np.ndarray:
    """Return Kolmogorov's distance of values [sample, observation] from a uniform distribution."""
    n = place.shape[-1]
    ordered, step = np.sort(place, axis=-1), np.arange(n) / n
    return np.maximum(ordered - step, step + 1 / n - ordered).max(axis=-1)
