"""How does exposure differ between groups of people? Geometric means and their ratios, by a covariate.

References
----------
.. [1] Julious SA, Debarnot CA (2000). Why are pharmacokinetic data summarized by arithmetic means?
   J Biopharm Stat 10:55-71. doi:10.1081/BIP-100101013
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk.model.sites import ModelError
from popk.trial import Trial

#: Quantities that are times and may be 0: their groups are summarized by medians.
BY_MEDIAN = ("tmax",)


def exposure_by(
    exposure: xr.Dataset,
    trial: Trial,
    by: str | None = None,
    *,
    edges: Sequence[float] | None = None,
    reference: str | None = None,
    interval: float = 0.9,
) -> pd.DataFrame:
    """Return exposure by groups of subjects, with ratios to one of them: a table for a report.

    In each draw the subjects of a group are summarized, by their geometric mean, and tmax by its median;
    the table has the median and the interval of these over draws.

    Parameters
    ----------
    exposure : Dataset
        As `popk.exposure` returns it.
    trial : Trial
        With the covariate, of the same subjects.
    by : str, optional
        A covariate; of one that changes within subjects the first value counts. By default all subjects
        are one group; ``"ID"`` makes each a group of its own.
    edges : sequence of float, optional
        Of bands of a continuous covariate, rising: [18, 65] for below 18, 18 to below 65, and 65 and
        above.
    reference : str, optional
        The group that others are compared with; by default the largest.
    interval : float
        The probability of the equal-tailed interval over draws.

    Returns
    -------
    DataFrame
        A row for each quantity and group: ``unit``, ``subjects``, ``statistic``, ``estimate``, ``lower``,
        ``upper``, ``CV%`` between the group's subjects (geometric; of tmax none), and ``ratio``,
        ``ratio_lower`` and ``ratio_upper`` to the reference group.

    Raises
    ------
    ModelError
        The trial has other subjects than `exposure`.
    DataError
        The trial was read without the covariate.
    ValueError
        More than 20 groups without `edges`, edges that do not rise, or a reference that is no group.

    Examples
    --------
    >>> popk.exposure_by(found, trial, "SEX")  # doctest: +SKIP
    >>> popk.exposure_by(found, trial, "AGE", edges=[40, 65])  # doctest: +SKIP
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    subjects = [str(one) for one in exposure["subject"].values]
    if subjects != list(trial.ids):
        raise ModelError(
            f"the exposure is of {len(subjects)} subjects, the trial has {trial.n_subjects} or others; "
            f"give the trial whose exposure it is"
        )
    group = groups_of(trial, by, edges)
    sizes: Any = group.value_counts(sort=False)
    usual = str(sizes.idxmax())
    if reference is not None and reference not in sizes.index:
        raise ValueError(f"reference is {reference!r}; the groups are {', '.join(sizes.index)}")
    tails = [(1 - interval) / 2, 0.5, (1 + interval) / 2]
    rows = []
    for name, values in exposure.data_vars.items():
        each = {
            one: _summarized(str(name), values.values[:, (group == one).to_numpy()])
            for one in sizes.index
        }
        compared = each[reference or usual][0]
        for one, (middle, spread) in each.items():
            lower, median, upper = np.quantile(middle, tails)
            ratio = (
                np.quantile(middle / compared, tails)
                if str(name) not in BY_MEDIAN
                else [np.nan] * 3
            )
            rows.append(
                {
                    "quantity": str(name), by or "group": one, "unit": values.attrs["units"],
                    "subjects": int(sizes[one]),
                    "statistic": "median" if name in BY_MEDIAN else "geometric mean",
                    "estimate": median, "lower": lower, "upper": upper, "CV%": np.median(spread),
                    "ratio": ratio[1], "ratio_lower": ratio[0], "ratio_upper": ratio[2],
                }
            )  # fmt: skip
    table = pd.DataFrame(rows).set_index(["quantity", by or "group"])
    table.attrs = {"interval": interval, "reference": reference or usual}
    return table


def _summarized(name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the summary of a group [sample, subject] in each draw, and its variation [%]."""
    if name in BY_MEDIAN:
        return np.median(values, axis=1), np.full(len(values), np.nan)
    logs = np.log(values)
    spread = np.full(len(values), np.nan)
    if values.shape[1] > 1:
        spread = 100 * np.sqrt(np.expm1(logs.var(axis=1, ddof=1)))
    return np.exp(logs.mean(axis=1)), spread


def groups_of(trial: Trial, by: str | None, edges: Sequence[float] | None) -> Any:
    """Return the name of each subject's group, an ordered category."""
    if by is None or by == "ID":
        names = list(trial.ids) if by else ["all"] * trial.n_subjects
        return pd.Series(pd.Categorical(names, list(dict.fromkeys(names)), ordered=True))
    first = np.asarray(trial.covariate(by))[:, 0]
    if edges is not None:
        return _bands(first, edges, by)
    values = np.unique(first[~np.isnan(first)])
    if len(values) > 20:
        raise ValueError(
            f"{by} has {len(values)} values; give edges= of bands, such as edges=[{np.median(values):.3g}]"
        )
    codes = trial.host.levels.get(by, {})
    name = {x: codes.get(f"{x:g}", f"{x:g}") for x in values}
    shown = [name.get(x, "unknown") for x in first]
    order = [*name.values(), *(["unknown"] if "unknown" in shown else [])]
    return pd.Series(pd.Categorical(shown, list(dict.fromkeys(order)), ordered=True))


def _bands(values: np.ndarray, edges: Sequence[float], by: str) -> Any:
    inner = np.asarray(edges, dtype=float)
    if not inner.size or not np.isfinite(inner).all() or (np.diff(inner) <= 0).any():
        raise ValueError(f"edges of {by} are {list(edges)}; give finite rising numbers")
    names = [
        f"below {inner[0]:g}",
        *(f"{a:g} to below {b:g}" for a, b in itertools.pairwise(inner)),
        f"{inner[-1]:g} and above",
    ]
    missing = np.isnan(values)
    place = np.searchsorted(inner, np.where(missing, inner[0], values), side="right")
    shown = ["unknown" if m else names[p] for m, p in zip(missing, place, strict=True)]
    order = [n for n in [*names, "unknown"] if n in shown]
    return pd.Series(pd.Categorical(shown, order, ordered=True))
