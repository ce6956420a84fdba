"""What are the estimates at the mode? The table that users of maximum likelihood know."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk.diagnostics.summary import kind, summary
from popk.model.sites import ModelError


def estimates(posterior: xr.DataTree) -> pd.DataFrame:
    r"""Return the mode of a posterior and its standard errors, as NONMEM's table has them.

    Parameters
    ----------
    posterior : DataTree
        As ``popk.fit(..., method="laplace")`` returns it.

    Returns
    -------
    DataFrame
        Indexed by parameter as `summary` is. ``estimate``, the mode of the Laplace-approximated
        posterior of unconstrained parameters, in the parameter's unit; ``SE``, its standard error by
        the second derivatives there and the delta method; ``RSE%``, :math:`100\,\mathrm{SE} /
        |\mathrm{estimate}|`, NaN for correlations; ``shrinkage%``, as in `summary`. In ``attrs``: the
        objective ``OFV`` there, FOCE's with INTERACTION without N ln 2 pi and without priors.

    Raises
    ------
    ModelError
        The posterior is of another method, which finds no mode.

    Examples
    --------
    >>> popk.estimates(posterior)  # doctest: +SKIP
    """
    if "mode" not in posterior.attrs:
        raise ModelError(
            f"the posterior was made by method={posterior.attrs.get('method', 'nuts')!r}, which finds no "
            f"mode; take popk.summary, or popk.fit(..., method='laplace')"
        )
    table = summary(posterior)
    coords = posterior["posterior"].dataset.coords
    order = [str(p) for p in coords["parameter"].values] if "parameter" in coords else []
    columns = [
        dict(_flat(json.loads(posterior.attrs[name]), order))
        for name in ("mode", "standard_errors")
    ]
    found = pd.DataFrame(dict(zip(("estimate", "SE"), columns, strict=True)))
    found = found.reindex([n for n in table.index if n in found.index])
    relative = 100 * found["SE"] / found["estimate"].abs()
    found["RSE%"] = relative.where([kind(str(n)) != "corr" for n in found.index])
    found["shrinkage%"] = table["shrinkage%"]
    found.attrs["OFV"] = float(posterior.attrs["objective"])
    return found.rename_axis("parameter")


def _flat(values: dict[str, Any], order: list[str]) -> Iterator[tuple[str, float]]:
    """Yield each number by the name that `summary` gives it."""
    for name, value in values.items():
        array = np.asarray(value, dtype=float)
        if kind(f"{name}_") == "corr":
            # A block is named by its parameters, whose names may hold underscores.
            own = _block(name.removeprefix("corr").strip("_"), order)
            for i, j in zip(*np.triu_indices(len(own), 1), strict=True):
                yield f"corr[{own[i]}, {own[j]}]", float(array[i, j])
        elif array.ndim == 0:
            yield name, float(array)
        else:
            for index in np.ndindex(*array.shape):
                yield f"{name}[{', '.join(map(str, index))}]", float(array[index])


def _block(name: str, order: list[str]) -> list[str]:
    """Return the parameters of a block of correlations; all of them where it has no name."""
    own: list[str] = []
    while name:
        longest = max((n for n in order if f"{name}_".startswith(f"{n}_")), key=len)
        own, name = [*own, longest], name.removeprefix(longest).lstrip("_")
    return own or order
