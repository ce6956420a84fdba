"""Which level would teach most: against the optimum of a one-compartment model of which CL is unknown."""

import numpy as np
import numpyro
import pytest
import xarray as xr

import popk
from tests.patients.models import records


def unknown_clearance(trial):
    CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.2))
    p = popk.individual(trial, CL=CL, omega=popk.fixed(0.1), correlated=False)
    error = popk.additive_error(popk.fixed(0.5))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=50.0), error)


@pytest.fixture(scope="module")
def newcomer():
    values = {"CL_pop": (("chain", "draw"), np.full((1, 500), 5.0))}
    posterior = xr.DataTree.from_dict({"posterior": xr.Dataset(values)})
    return popk.Twin(unknown_clearance, posterior, records([], []), population_draws=500)


TIMES = [1, 3, 6, 10, 16, 24, 36]


@pytest.fixture(scope="module")
def sampling(newcomer):
    return popk.next_sample(newcomer, TIMES, "CL")


def test_the_best_time_for_clearance_is_one_over_k(sampling):
    assert sampling.best == 10.0  # V / CL
    assert "a clinician decides" in repr(sampling)


def test_the_reduction_is_that_of_the_linearized_model(sampling):
    """Var(CL | y) = 1 / (1/s^2 + J^2/sigma^2), with J = -t/V C: exact for small s, near it for 10%."""
    t = np.array(TIMES)
    slope = t / 50 * 10 * np.exp(-0.1 * t)
    expected = 1 - 1 / (1 + (0.5 * slope / 0.5) ** 2)
    np.testing.assert_allclose(sampling.table["reduction"], expected, atol=0.03)
    assert (sampling.table["reduction_low"] < sampling.table["reduction_high"]).all()


def test_a_target_s_attainment_is_a_quantity_too(newcomer):
    regimen = popk.Regimen(dose=500, interval=12, start=48)
    found = popk.next_sample(
        newcomer, [1, 10], popk.trough(4, 6), regimen=regimen, attained=True, levels=200
    )
    assert found.best == 10.0
    assert found.quantity == "whether trough 4 to 6 mg/L is attained"
    assert 0 < found.table["reduction"].iloc[1] < 1


@pytest.mark.parametrize(
    ("times", "of", "says"),
    [
        ([], "CL", "at least one finite time"),
        ([np.nan], "CL", "at least one finite time"),
        ([1], "KA", "of is 'KA'"),
        ([1], popk.trough(3), "give regimen="),
    ],
)
def test_what_cannot_be_asked_is_refused(newcomer, times, of, says):
    with pytest.raises(ValueError, match=says):
        popk.next_sample(newcomer, times, of)
