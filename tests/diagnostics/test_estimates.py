"""The table of the mode; of a fit in tests/inference/test_reweighted.py."""

import json

import numpy as np
import pytest
import xarray as xr

import popk


def weighted(mode, errors, **sites):
    """Return a posterior as `method="laplace"` gives it, with a mode and its standard errors."""
    rng = np.random.default_rng(1)
    data = {
        name: (("chain", "draw", *dims), rng.uniform(0.1, 0.9, (1, 50, *[2] * len(dims))))
        for name, dims in sites.items()
    }
    coords = {"parameter": ["CL", "V_1"], "parameter2": ["CL", "V_1"]}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(data, coords=coords)})
    tree.attrs = {
        "mode": json.dumps(mode), "standard_errors": json.dumps(errors), "objective": 12.5,
        "method": "laplace", "pareto_k": 0.2, "importance_ess": 900.0,
    }  # fmt: skip
    return tree


def test_numbers_bear_the_names_of_the_summary_in_its_order():
    corr = [[1.0, 0.4], [0.4, 1.0]]
    tree = weighted(
        {"corr_CL_V_1": corr, "omega_CL": 0.3, "CL_pop": 2.0},
        {"corr_CL_V_1": [[0.0, 0.2], [0.2, 0.0]], "omega_CL": 0.06, "CL_pop": 0.1},
        omega_CL=(), CL_pop=(), corr=("parameter", "parameter2"),
    )  # fmt: skip
    table = popk.estimates(tree)
    assert list(table.index) == ["CL_pop", "omega_CL", "corr[CL, V_1]"]
    assert list(table["estimate"]) == [2.0, 0.3, 0.4]
    assert list(table["SE"]) == [0.1, 0.06, 0.2]
    np.testing.assert_allclose(table["RSE%"], [5, 20, np.nan])
    assert table.attrs["OFV"] == 12.5


def test_a_posterior_of_another_method_has_no_mode():
    tree = xr.DataTree()
    tree.attrs = {"method": "nuts"}
    with pytest.raises(popk.ModelError, match=r"made by method='nuts', which finds no mode; take"):
        popk.estimates(tree)
