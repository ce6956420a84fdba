"""What did the data say that was not believed before? The posterior beside the prior."""

import numpy as np
import pandas as pd
import xarray as xr

from popk.inference.convergence import population_draws
from popk.model.sites import ModelError


def prior_shift(prior: xr.DataTree, posterior: xr.DataTree) -> pd.DataFrame:
    r"""Return how far each posterior moved from its prior, and how much narrower it is.

    Medians and half the width of the central 68.3% take the place of means and standard deviations,
    which heavy-tailed priors do not have; for a normal distribution they are the same.

    Parameters
    ----------
    prior : DataTree
        What `popk.prior_draws` returns for the same model.
    posterior : DataTree
        As `popk.fit` returns it.

    Returns
    -------
    DataFrame
        Indexed by population parameter. ``prior``, ``prior_sd``, ``posterior``, ``posterior_sd`` in
        the parameter's unit; ``shift``, :math:`(m_1 - m_0) / s_0`; and ``contraction``,
        :math:`1 - s_1^2 / s_0^2`: 1 where the data say all, 0 where they say nothing [1]_, below it
        where prior and data disagree.

    Raises
    ------
    ModelError
        They have no parameter in common.

    References
    ----------
    .. [1] Betancourt M (2020). Towards a principled Bayesian workflow.
    """
    after = population_draws(posterior)
    before = population_draws(xr.DataTree.from_dict({"posterior": prior["prior"].dataset}))
    common = [n for n in after if n in before]
    if not common:
        raise ModelError("prior and posterior have no parameter in common; are they of one model?")
    rows = {}
    for name in common:
        m0, s0 = _middle(before[name])
        m1, s1 = _middle(after[name])
        rows[name] = {
            "prior": m0, "prior_sd": s0, "posterior": m1, "posterior_sd": s1,
            "shift": (m1 - m0) / s0, "contraction": 1 - s1**2 / s0**2,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


def _middle(draws: np.ndarray) -> tuple[float, float]:
    """Return the median, and half the width of the central 68.3%."""
    low, middle, high = np.quantile(draws, [0.158655, 0.5, 0.841345])
    return float(middle), float((high - low) / 2)
