r"""Which parameter's uncertainty makes a prediction uncertain? First-order indices from draws at hand.

References
----------
.. [1] Sobol IM (2001). Global sensitivity indices for nonlinear mathematical models and their Monte Carlo
   estimates. Math Comput Simul 55:271-280. doi:10.1016/S0378-4754(00)00270-6
.. [2] Plischke E, Borgonovo E, Smith CL (2013). Global sensitivity measures from given data. Eur J Oper
   Res 226:536-550. doi:10.1016/j.ejor.2012.11.047
"""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr

from popk.inference.convergence import population_draws

#: So many draws there must be.
LEAST = 200


def global_sensitivity(
    output: xr.DataArray | np.ndarray,
    posterior: xr.DataTree,
    *,
    interval: float = 0.9,
    seed: int = 1,
) -> pd.DataFrame:
    r"""Return the part of a quantity's variance over posterior draws that each parameter explains.

    .. math:: S_p = \mathrm{Var}(E[z \mid \theta_p]) / \mathrm{Var}(z)

    estimated from the draws themselves [2]_: they are divided into classes of equal size by
    :math:`\theta_p`, and the variance of the classes' means is freed of what chance alone gives, as an
    analysis of variance does. Independent parameters share out at most 1 in sum; those of a posterior are
    correlated, and what two of them tell together counts for both. Small values, also negative ones,
    are chance.

    Parameters
    ----------
    output : DataArray or Float[ndarray, "sample"]
        One value for each draw of the posterior, (chain, draw) or in that order: an AUC, a trough, a
        probability [any unit].
    posterior : DataTree
        As `popk.fit` returns it.
    interval : float
        The probability of the equal-tailed interval, by the bootstrap over draws.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Indexed by population parameter, the largest first: ``index``, ``lower``, ``upper`` and
        ``correlation``, the rank correlation with the quantity, which has a sign.

    Raises
    ------
    ValueError
        There is not one finite value for each draw, they are all the same, or there are fewer than 200.

    Examples
    --------
    >>> dose = 320
    >>> CL = posterior["posterior"]["CL_pop"]  # doctest: +SKIP
    >>> popk.global_sensitivity(dose / CL, posterior)  # doctest: +SKIP
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    population = population_draws(posterior)
    values = {n: np.asarray(x).ravel() for n, x in population.items()}
    z = output.transpose("chain", "draw", missing_dims="ignore").values if isinstance(
        output, xr.DataArray) else np.asarray(output, dtype=float)  # fmt: skip
    z = np.asarray(z, dtype=float).ravel()
    draws = len(next(iter(values.values())))
    if len(z) != draws or draws < LEAST or not np.isfinite(z).all() or np.ptp(z) == 0:
        raise ValueError(
            f"output has {len(z)} values, {int(np.isfinite(z).sum())} of them finite; give one for each of "
            f"the {draws} posterior draws, at least {LEAST}, that are not all the same"
        )
    random = np.random.default_rng(seed)
    again = random.integers(0, draws, size=(200, draws))
    rows = {}
    for name, x in values.items():
        resampled = [_explained(x[i], z[i]) for i in again]
        # The bootstrap repeats draws, which raises the index: its spread counts, not its middle.
        found = _explained(x, z)
        ends = np.quantile(resampled, [0.5 - interval / 2, 0.5 + interval / 2])
        lower, upper = found + ends - np.median(resampled)
        rows[name] = {"index": found, "lower": lower, "upper": upper, "correlation": _rank(x, z)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")
    return table.sort_values("index", ascending=False)


def _explained(x: np.ndarray, z: np.ndarray) -> float:
    """Return the part of the variance of z between classes of x, less what chance gives."""
    count = max(5, min(25, len(z) // 50))
    classes = np.array_split(z[np.argsort(x, kind="stable")], count)
    within = sum(((one - one.mean()) ** 2).sum() for one in classes) / (len(z) - count)
    return float(1 - within / z.var(ddof=1))


def _rank(x: np.ndarray, z: np.ndarray) -> float:
    return float(np.asarray(spearmanr(x, z))[0])
