"""Urine: amounts, the part of the dose, renal clearance, and gaps."""

import numpy as np
import pandas as pd
import pytest

import popk
from tests.trials import trial

CL, CLR, V, DOSE = 3.0, 1.2, 20.0, 100.0
K = CL / V
UNITS = {"VOLUME": "mL", "CONC": "ug/mL"}


@pytest.fixture
def plasma():
    rows = [f"1 {t} 0 . . {DOSE / V * np.exp(-K * t):.17g}" for t in (0.5, 1, 2, 4, 8, 12, 24)]
    return trial("\n".join(["ID TIME EVID AMT RATE DV", "1 0 1 100 0 .", *rows]))


def collected(starts, ends):
    """Return collections of 500 mL with what the kidney of one compartment excretes."""
    rows = []
    for start, end in zip(starts, ends, strict=True):
        amount = DOSE * CLR / CL * (np.exp(-K * start) - np.exp(-K * end))
        rows.append(
            {"ID": 1, "START": start, "END": end, "VOLUME": 500.0, "CONC": 1000 * amount / 500}
        )
    return pd.DataFrame(rows)


def test_renal_clearance_is_the_amount_by_the_area_of_the_same_time(plasma):
    urine = collected([0, 4, 10], [4, 10, 16])
    found = popk.nca(plasma, route="bolus", urine=urine, urine_units=UNITS)
    amount = DOSE * CLR / CL * (1 - np.exp(-K * 16))
    assert found["Ae"].item() == pytest.approx(amount)
    assert found["fe"].item() == pytest.approx(amount)  # of a dose of 100 mg
    assert found["CLr"].item() == pytest.approx(CLR)
    assert (found["Ae"].attrs["units"], found["CLr"].attrs["units"]) == ("mg", "L/h")
    assert found["reason"].item() == ""


def test_amounts_may_be_given_and_their_unit_is_converted(plasma):
    urine = pd.DataFrame({"ID": ["1"], "START": [0.0], "END": [8.0], "AMOUNT": [0.02]})
    urine.attrs["units"] = {"AMOUNT": "g"}
    assert popk.nca(plasma, route="bolus", urine=urine)["Ae"].item() == pytest.approx(20)


def test_missing_urine_is_flagged(plasma):
    urine = collected([0, 6], [4, 16])
    found = popk.nca(plasma, route="bolus", urine=urine, urine_units=UNITS)
    assert bool(found["flags"].sel(flag="urine_gap"))
    assert "urine is missing" in found["reason"].item()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.drop(columns="END"), "column END is missing"),
        (lambda f: f.assign(ID=7), "no such ID"),
        (lambda f: f.assign(START=[0, 3]), "before the last one ended at 4"),
        (lambda f: f.assign(END=f["START"]), "is not after START"),
        (lambda f: f.assign(CONC=[1, -1]), "missing or negative"),
    ],
)
def test_collections_that_cannot_be_used_are_refused(plasma, change, match):
    with pytest.raises(popk.DataError, match=match):
        popk.nca(plasma, route="bolus", urine=change(collected([0, 4], [4, 10])), urine_units=UNITS)


def test_urine_without_units_is_refused(plasma):
    with pytest.raises(popk.DataError, match="VOLUME has no unit"):
        popk.nca(plasma, route="bolus", urine=collected([0], [4]))


def test_an_amount_that_is_no_amount_is_refused(plasma):
    with pytest.raises(popk.UnitError, match="measure different things"):
        popk.nca(
            plasma,
            route="bolus",
            urine=collected([0], [4]),
            urine_units={"VOLUME": "mL", "CONC": "mg"},
        )
