"""Which covariates are enough? The effects of many, and how much of them a few explain."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk.model.sites import ModelError


def selection(
    posterior: xr.DataTree, parameter: str, candidates: Mapping[str, Any], interval: float = 0.9
) -> pd.DataFrame:
    r"""Return candidate covariates in the order in which they explain a parameter, and how sure.

    The whole effect of all candidates on the log of the parameter, :math:`f = X \beta` in each
    subject, is projected draw by draw on fewer of them, :math:`\hat f = X_S (X_S^T X_S)^{-1} X_S^T f`:
    what a model with these alone would predict most like the model with all [1]_. They are taken in
    one after the other, the one that explains most first.

    Parameters
    ----------
    posterior : DataTree
        Of a model with `popk.horseshoe` or other linear effects named ``CL_AAG`` and so on.
    parameter : str
        As the model names it, ``"CL"``.
    candidates : mapping of str to Float[Array, "subject"] or [subject, 1]
        The covariates as the model has them; one that changes within subjects by its mean.
    interval : float
        The probability of the equal-tailed credible interval.

    Returns
    -------
    DataFrame
        Indexed by candidate, in order. ``median``, ``lower``, ``upper`` of the coefficient [log of a
        factor for one unit of the candidate]; ``sure``, the probability of its more likely sign;
        ``explained``, the part of the variance of f between subjects that this candidate and those
        before it explain, its posterior median.

    Raises
    ------
    ModelError
        The posterior lacks a coefficient, a candidate is no column of numbers, or nothing varies.

    References
    ----------
    .. [1] Piironen J, Paasiniemi M, Vehtari A (2020). Projective inference in high-dimensional
       problems: prediction and feature selection. Electron J Stat 14:2155-2197. doi:10.1214/20-EJS1711
    """
    beta = _coefficients(posterior, parameter, tuple(candidates))
    x = np.stack([_column(name, value) for name, value in candidates.items()], -1)
    x = x - x.mean(0)
    f = beta @ x.T  # [draw, subject]
    whole = (f**2).sum(1)
    if not (whole > 0).any():
        raise ModelError(f"no candidate of {parameter} varies between subjects; nothing to select")
    tails, rows, chosen = [0.5 - interval / 2, 0.5, 0.5 + interval / 2], {}, []
    left = list(range(len(candidates)))
    while left:
        gains = {i: _explained(x[:, [*chosen, i]], f, whole) for i in left}
        best = max(gains, key=lambda i: gains[i])
        chosen.append(best)
        left.remove(best)
        lower, median, upper = np.quantile(beta[:, best], tails)
        positive = (beta[:, best] > 0).mean()
        rows[list(candidates)[best]] = {
            "median": median,
            "lower": lower,
            "upper": upper,
            "sure": max(positive, 1 - positive),
            "explained": gains[best],
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("candidate")
    table.attrs["interval"] = interval
    return table


def _coefficients(posterior: xr.DataTree, parameter: str, names: tuple[str, ...]) -> np.ndarray:
    group = posterior["posterior"].dataset
    missing = [f"{parameter}_{n}" for n in names if f"{parameter}_{n}" not in group]
    if missing or not names:
        raise ModelError(
            f"the posterior lacks {', '.join(missing) or 'candidates'}; was it fitted so?"
        )
    return np.stack([group[f"{parameter}_{n}"].values.ravel() for n in names], -1)


def _column(name: str, value: Any) -> np.ndarray:
    """Return a candidate as one number for each subject."""
    array = np.asarray(value, dtype=float)
    if array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise ModelError(
            f"candidate {name} has shape {array.shape}; give one finite number a subject"
        )
    return array if array.ndim == 1 else array.mean(1)


def _explained(x: np.ndarray, f: np.ndarray, whole: np.ndarray) -> float:
    """Return the median part of f that columns explain."""
    basis, sizes, _ = np.linalg.svd(x, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes.max(initial=0)]
    seen = whole > 0
    return float(np.median((((f @ basis) ** 2).sum(1))[seen] / whole[seen]))
