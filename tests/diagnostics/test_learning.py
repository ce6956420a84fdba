"""What did the data say that was not believed before?"""

import numpy as np
import pytest
import xarray as xr

import popk


def draws(group, **values):
    data = {n: (("chain", "draw"), np.atleast_2d(x)) for n, x in values.items()}
    return xr.DataTree.from_dict({group: xr.Dataset(data)})


def normal(seed, mean, sd):
    return np.random.default_rng(seed).normal(mean, sd, 200_000)


def test_shift_is_in_prior_standard_deviations_and_contraction_in_variances():
    prior = draws("prior", CL_pop=normal(0, 3.0, 1.0), V_pop=normal(1, 30.0, 5.0))
    posterior = draws("posterior", CL_pop=normal(2, 4.5, 0.5), V_pop=normal(3, 30.0, 5.0))
    table = popk.prior_shift(prior, posterior)
    np.testing.assert_allclose(table["shift"], [1.5, 0.0], atol=0.02)
    np.testing.assert_allclose(table["contraction"], [0.75, 0.0], atol=0.02)
    np.testing.assert_allclose(table["prior_sd"], [1.0, 5.0], rtol=0.01)


def test_a_prior_without_a_standard_deviation_has_a_width():
    heavy = np.random.default_rng(4).standard_cauchy(200_000)
    table = popk.prior_shift(draws("prior", E=heavy), draws("posterior", E=normal(5, 1.837, 0.1)))
    assert table.loc["E", "prior_sd"] == pytest.approx(1.837, rel=0.02)
    assert table.loc["E", "shift"] == pytest.approx(1.0, abs=0.02)


def test_prior_and_posterior_of_different_models_are_refused():
    with pytest.raises(popk.ModelError, match="no parameter in common"):
        popk.prior_shift(draws("prior", A=normal(0, 1, 1)), draws("posterior", B=normal(0, 1, 1)))
