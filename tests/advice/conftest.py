"""One patient of a drug in closed form, for all that is advised on them."""

import pytest

import popk
from tests.patients.models import bolus, population, records


@pytest.fixture(scope="package")
def twin():
    """500 mg at once, levels at 2 and 10 h: CL about 4.5 L/h, V about 50 L."""
    return popk.Twin(bolus, population(), records([2.0, 10.0], [8.5, 4.0]))


@pytest.fixture(scope="package")
def draws(twin):
    """CL and k of each draw."""
    p = twin.parameters
    return p["CL"].values, p["V"].values, p["CL"].values / p["V"].values
