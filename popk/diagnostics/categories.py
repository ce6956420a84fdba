r"""Would the model bring forth outcomes like these? The visual predictive check of categories and counts.

References
----------
.. [1] Bergstrand M, Hooker AC, Karlsson MO (2009). Visual predictive checks for censored and categorical
   data. PAGE 18, abstract 1604.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from popk.diagnostics.bins import Bins, edges_of, places
from popk.diagnostics.kinds import endpoints_of, in_group
from popk.diagnostics.levels import replicated
from popk.model.sites import ModelError
from popk.trial import Trial

#: Counts have at most so many classes by default, the last of which holds all larger ones.
MOST = 6


def vpc_categories(
    simulated: xr.DataTree,
    trial: Trial,
    *,
    output: str | None = None,
    bins: Bins = None,
    classes: Sequence[int] | None = None,
    interval: float = 0.9,
) -> xr.Dataset:
    r"""Return how often each category or count was observed in bins of TIME, and what the model says of it.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, new_subjects=True, seed=...)``.
    trial : Trial
        The trial that was simulated.
    output : str, optional
        Whose outcomes these are; needed where the model has several endpoints.
    bins : int or sequence of float, optional
        See `popk.vpc`.
    classes : sequence of int, optional
        The least value of each class, as ``(0, 1, 2, 5)`` for 0, 1, 2 to 4 and 5 or more. By default each
        category is a class, and of counts each but the large ones, which are one.
    interval : float
        The probability of the equal-tailed interval over simulated trials.

    Returns
    -------
    Dataset
        ``observed``, ``median``, ``lower`` and ``upper`` (category, bin), the part of outcomes in each
        class [pure number]; ``levels`` (bin), how many there are; ``center``, ``left`` and ``right`` of each
        bin [unit of TIME]; ``category``, the class in words.

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, has fewer than 20 draws, or the model
        has no such outcomes: of times to events see `popk.kaplan_meier`, of levels `popk.vpc`.
    ValueError
        The bins, classes or interval cannot be used.

    Examples
    --------
    >>> popk.plots.vpc_categories(popk.vpc_categories(simulated, trial))  # doctest: +SKIP
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    group = replicated(simulated, trial)
    name, kinds = _endpoint(simulated, output)
    chosen = np.asarray(trial.observations.measured) & in_group(group, kinds)
    if not chosen.any():
        raise ModelError(f"the trial has no {name} that were measured; give another output=")
    observed = np.asarray(trial.observations.value)[chosen]
    drawn = group["DV"].transpose("sample", "observation").values[:, chosen]
    time = group["TIME"].values[chosen]
    edges = edges_of(time, bins, trial.units["TIME"])
    starts = _classes(classes, observed, drawn)
    place = places(time, edges)
    inside = [place == i for i in range(len(edges) - 1)]
    parts = np.stack([_parts(drawn[:, own], starts) for own in inside], axis=-1)
    lower, median, upper = np.quantile(parts, [0.5 - interval / 2, 0.5, 0.5 + interval / 2], axis=0)
    seen = np.stack([_parts(observed[None, own], starts)[0] for own in inside], axis=-1)
    values = {"observed": seen, "median": median, "lower": lower, "upper": upper}
    unit = {"units": trial.units["TIME"]}
    return xr.Dataset(
        {
            **{n: (("category", "bin"), x) for n, x in values.items()},
            "levels": ("bin", np.array([own.sum() for own in inside])),
        },
        coords={
            "category": _named(starts, drawn, observed),
            "center": ("bin", np.array([np.median(time[own]) for own in inside]), unit),
            "left": ("bin", edges[:-1], unit),
            "right": ("bin", edges[1:], unit),
        },
        attrs={"interval": interval, "replicates": len(drawn), "outcome": name,
               "trial": trial.host.name},
    )  # fmt: skip


def _endpoint(simulated: xr.DataTree, output: str | None) -> tuple[str, Any]:
    """Return the name and the kinds of the outcomes that are asked for."""
    known = {n: e for n, e in endpoints_of(simulated).items() if e["name"] != "events"}
    if output is None and len(known) == 1:
        output = next(iter(known))
    if output not in known:
        says = ", ".join(repr(n) for n in known) or "none"
        raise ModelError(
            f"output is {output!r}, and the model's outcomes that are categories or counts are {says}; "
            f"of times to events see popk.kaplan_meier, of levels popk.vpc"
        )
    return known[output]["name"], known[output]["kinds"]


def _classes(given: Sequence[int] | None, observed: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the least value of each class."""
    if given is not None:
        starts = np.asarray(given, dtype=float)
        if starts.size < 2 or (np.diff(starts) <= 0).any() or observed.min() < starts[0]:
            raise ValueError(
                f"classes are {tuple(given)}; give at least two increasing least values, the first at most "
                f"{observed.min():g}, the least outcome"
            )
        return starts
    low = min(observed.min(), drawn.min())
    high = max(observed.max(), np.quantile(drawn, 0.99))
    return np.arange(low, min(high, low + MOST - 1) + 1)


def _parts(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the part of values [sample, outcome] in each class [sample, class]."""
    own = np.searchsorted(starts, values, side="right") - 1
    return np.stack([(own == i).mean(axis=1) for i in range(len(starts))], axis=1)


def _named(starts: np.ndarray, drawn: np.ndarray, observed: np.ndarray) -> list[str]:
    """Return classes in words: "2", "3 to 5", "6 or more"."""
    names = []
    for low, after in zip(starts, [*starts[1:], np.inf], strict=True):
        if after == low + 1 or (np.isinf(after) and max(drawn.max(), observed.max()) <= low):
            names.append(f"{low:g}")
        else:
            names.append(f"{low:g} or more" if np.isinf(after) else f"{low:g} to {after - 1:g}")
    return names
