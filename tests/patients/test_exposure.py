"""Exposure over an interval, and what other doses would bring, against the formula of each draw."""

import numpy as np
import pytest

import popk
from tests.patients.models import bolus, population, records

DOSE = 500.0


@pytest.fixture(scope="module")
def twin():
    return popk.Twin(bolus, population(), records([1.0, 6.0], [9.5, 5.2], dose=DOSE))


@pytest.fixture(scope="module")
def rate_and_volume(twin):
    p = twin.parameters
    return p["CL"].values / p["V"].values, p["V"].values


def test_exposure_is_that_of_each_draw(twin, rate_and_volume):
    k, V = rate_and_volume
    found = twin.exposure((2.0, 12.0))
    early, late = (DOSE / V * np.exp(-k * t) for t in (2.0, 12.0))
    np.testing.assert_allclose(found["AUC"], (early - late) / k, rtol=1e-6)
    np.testing.assert_allclose(found["Cavg"], (early - late) / k / 10.0, rtol=1e-6)
    np.testing.assert_allclose(found["Cmax"], early, rtol=1e-12)
    np.testing.assert_allclose(found["Cmin"], late, rtol=1e-12)
    np.testing.assert_allclose(found["Ctrough"], late, rtol=1e-12)
    np.testing.assert_array_equal(found["Tmax"], 2.0)
    assert found["AUC"].attrs["units"] == "mg/L * h"


def test_exposure_to_a_regimen_adds_up_over_doses(twin, rate_and_volume):
    k, V = rate_and_volume
    regimen = popk.Regimen(dose=250, interval=12, count=2, start=12)
    found = twin.exposure((12.0, 36.0), regimen)
    given = ((DOSE, 0.0), (250.0, 12.0), (250.0, 24.0))
    gone = [d / V * np.exp(-k * (36.0 - t)) for d, t in given]
    held = DOSE / V * np.exp(-k * 12.0) + 2 * 250 / V
    np.testing.assert_allclose(found["AUC"], (held - sum(gone)) / k, rtol=1e-6)
    np.testing.assert_allclose(found["Ctrough"], sum(gone), rtol=1e-12)


def test_an_infusion_holds_what_was_infused(twin, rate_and_volume):
    k, V = rate_and_volume
    found = twin.exposure((500.0, 600.0), popk.Regimen(dose=250, start=500.0, duration=2.0))
    peak = 250 / 2 / (k * V) * (1 - np.exp(-k * 2))
    np.testing.assert_allclose(found["Cmax"], peak, rtol=1e-9)
    np.testing.assert_array_equal(found["Tmax"], 502.0)
    np.testing.assert_allclose(
        found["AUC"], 250 / (k * V) - peak * np.exp(-k * 98) / k, rtol=1e-6
    )  # fmt: skip


def test_other_doses_take_the_place_of_those_to_come(twin, rate_and_volume):
    k, V = rate_and_volume
    planned = twin.update([{"TIME": 12.0, "EVID": 1, "AMT": DOSE}])
    found = planned.what_if(popk.Regimen(dose=100, start=12), [6.0, 18.0])["IPRED"]
    np.testing.assert_allclose(found[:, 0], DOSE / V * np.exp(-k * 6), rtol=1e-12)
    later = DOSE / V * np.exp(-k * 18) + 100 / V * np.exp(-k * 6)
    np.testing.assert_allclose(found[:, 1], later, rtol=1e-12)


@pytest.mark.parametrize("interval", [(12.0, 12.0), (12.0, 2.0), (0.0, np.inf)])
def test_an_interval_that_is_none_is_refused(twin, interval):
    with pytest.raises(ValueError, match="give its begin and a later end"):
        twin.exposure(interval)
