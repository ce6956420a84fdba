"""Which model predicts the next person best? Models compared by leave-one-subject-out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from popk.diagnostics.subjects_left_out import loso
from popk.model.sites import ModelError


class _Options(NamedTuple):
    draws: int
    refit: bool
    seed: int


def compare(
    models: Mapping[str, Any],
    *,
    weights: str = "stacking",
    draws: int = 2000,
    refit: bool = False,
    seed: int = 1,
) -> pd.DataFrame:
    r"""Return models in the order of how well they predict subjects that they have not seen.

    Each model's expected log predictive density is `loso`'s. Differences are taken subject by subject,
    so that their standard error is much smaller than that of either [1]_,

    .. math:: \mathrm{dse} = \sqrt{n \operatorname{Var}_i(\mathrm{elpd}_{i}^{A} - \mathrm{elpd}_{i}^{B})}

    A difference below about 4, or of less than about two standard errors, does not tell models apart
    [2]_.

    Parameters
    ----------
    models : mapping of str to Run, ELPDData or (model, posterior, trial)
        Names, and what `popk.open_run` or `popk.loso` returned, or what was fitted.
    weights : "stacking", "BB-pseudo-BMA" or "pseudo-BMA"
        How the models' weights are found: those of the best mixture of their predictions [3]_, or by
        each one's own elpd.
    draws, refit, seed
        Of `popk.loso`, where it is still to be done.

    Returns
    -------
    DataFrame
        ArviZ's, indexed by name, the best first: ``rank``, ``elpd_diff`` to the best, ``dse``,
        ``p_worse``, ``diag_diff`` and ``diag_elpd`` (what to be careful of), ``p``, ``elpd``, ``se``,
        ``weight``; and ``converged``, whether the posterior was.

    Raises
    ------
    ModelError
        They are not of the same levels of the same subjects; or what `popk.loso` refuses.
    ValueError
        There are fewer than two models, one is given as something else, or `weights` is none of these.

    Examples
    --------
    >>> runs = {"one": popk.open_run("runs/one"), "two": popk.open_run("runs/two")}  # doctest: +SKIP
    >>> popk.compare(runs)[["elpd_diff", "dse", "weight"]]  # doctest: +SKIP

    References
    ----------
    .. [1] Vehtari A, Gelman A, Gabry J (2017). Practical Bayesian model evaluation using leave-one-out
       cross-validation and WAIC. Stat Comput 27:1413-1432. doi:10.1007/s11222-016-9696-4
    .. [2] Sivula T, Magnusson M, Matamoros AA, Vehtari A (2025). Uncertainty in Bayesian leave-one-out
       cross-validation based model comparison. Bayesian Anal. doi:10.48550/arXiv.2008.10296
    .. [3] Yao Y, Vehtari A, Simpson D, Gelman A (2018). Using stacking to average Bayesian predictive
       distributions. Bayesian Anal 13:917-1007. doi:10.1214/17-BA1091
    """
    import arviz as az

    known = ("stacking", "BB-pseudo-BMA", "pseudo-BMA")
    if len(models) < 2 or weights not in known:
        raise ValueError(
            f"there are {len(models)} models and weights is {weights!r}; give at least two models, and "
            f"weights as one of {', '.join(known)}"
        )
    options = _Options(draws, refit, seed)
    found = {name: _left_out(name, given, options) for name, given in models.items()}
    _refuse_other_levels(found)
    table = az.compare(found, method=weights, round_to="none")
    return table.assign(converged=[bool(found[n].elpd_i.attrs["converged"]) for n in table.index])


def _left_out(name: str, given: Any, options: _Options) -> Any:
    """Return a model's leave-one-subject-out estimate, whatever is given of it."""
    if hasattr(given, "elpd_i"):
        if "observations_sha256" not in getattr(given.elpd_i, "attrs", {}):
            raise ValueError(
                f"{name} was not made by popk.loso: nothing says which levels it is of; give what "
                f"popk.loso returns"
            )
        return given
    if all(hasattr(given, part) for part in ("model", "posterior", "trial")):
        given = (given.model, given.posterior, given.trial)
    if not isinstance(given, tuple) or len(given) != 3:
        raise ValueError(
            f"{name} is given as {type(given).__name__}; give what popk.open_run or popk.loso returned, or "
            f"(model, posterior, trial)"
        )
    return loso(*given, **options._asdict())


def _refuse_other_levels(found: Mapping[str, Any]) -> None:
    """Refuse models of other levels: their densities are of other things."""
    first, *others = found
    known = found[first].elpd_i
    for name in others:
        other = found[name].elpd_i
        if other.attrs["observations_sha256"] != known.attrs["observations_sha256"]:
            raise ModelError(
                f"{first} is of {known.attrs['trial']} ({known.size} subjects) and {name} of "
                f"{other.attrs['trial']} ({other.size} subjects), whose levels differ: elpd of other "
                f"levels, limits or units says nothing; fit both to the same ones"
            )
