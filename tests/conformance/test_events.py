"""Dosing semantics against NONMEM: the predictions of shared/conformance/events, row by row."""

import numpy as np
import pandas as pd
import pytest

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "LAGT": "h", "BIOAV": "1", "WT": "kg"}
TOLERANCE = 5e-5  # NONMEM's table has five significant digits

#: The cases that need no more than boluses, infusions, ADDL, F, lag and resets.
SUPPORTED = ["1", "2", "3", "4", "6", "7", "8", "16", "17", "20", "26", "27"]
MODELED = "modeled rates (-1) and durations (-2) are not supported yet"
STEADY = "steady-state doses are not supported yet"
#: The others, and the sentence that refuses them: support for one must change this test.
REFUSED = {
    "5": ("RATE", MODELED), "18": ("RATE", MODELED), "19": ("SS", STEADY),
    **dict.fromkeys([str(i) for i in (*range(9, 16), *range(21, 26), 28, 29)], ("SS", STEADY)),
}  # fmt: skip


def oral(CL):
    """Return the model of the cases: CP = A2 / (V / 1000), LAGT and BIOAV acting on compartment 2."""

    def model(trial):
        concentration = popk.one_compartment(
            trial,
            CL=CL(trial) / 1000,
            V=20 / 1000,
            KA=1.5,
            F={"central": trial.covariate("BIOAV")},
            lag={"central": trial.covariate("LAGT")},
        )
        popk.observe(trial, concentration, popk.additive_error(popk.fixed(1.0)))

    return model


def constant(trial):
    return 1.1


def by_weight(trial):
    return 1.1 * (trial.covariate("WT") / 70) ** 0.75


@pytest.fixture(scope="module")
def dosing(conformance):
    frame = pd.read_csv(conformance / "events" / "dosing.csv", na_values=".", dtype={"ID": str})
    return frame.assign(MDV=1)


@pytest.fixture(scope="module")
def nonmem(conformance):
    return pd.read_csv(conformance / "events" / "dosing_nonmem.csv", dtype={"ID": str})


@pytest.fixture(scope="module")
def predicted(dosing):
    """Return popk's predictions of all supported cases, from one compiled program."""
    rows = dosing[dosing["ID"].isin(SUPPORTED)]
    trial = popk.read_nonmem(rows, covariates=["LAGT", "BIOAV"], units=UNITS)
    return popk.predict_at(oral(constant), trial, {})


def test_every_case_is_either_matched_or_refused(dosing):
    assert {*SUPPORTED, *REFUSED} == set(dosing["ID"])
    assert not {*SUPPORTED} & {*REFUSED}


@pytest.mark.parametrize("case", SUPPORTED)
def test_a_case_agrees_with_nonmem_row_by_row(case, predicted, nonmem):
    expected = nonmem[nonmem["ID"] == case]
    found = predicted.sel(subject=case).to_numpy()[: len(expected)]
    np.testing.assert_array_equal(
        predicted["TIME"].sel(subject=case)[: len(expected)], expected["TIME"]
    )
    np.testing.assert_allclose(found, expected["CP"], rtol=TOLERANCE, atol=1e-8)


@pytest.mark.parametrize("case", REFUSED)
def test_a_case_that_popk_cannot_honor_is_refused_by_name(case, dosing):
    column, sentence = REFUSED[case]
    with pytest.raises(popk.DataError) as caught:
        popk.read_nonmem(dosing[dosing["ID"] == case], covariates=["LAGT", "BIOAV"], units=UNITS)
    assert column in {problem.column for problem in caught.value.problems}
    assert sentence in str(caught.value)


def test_covariates_that_change_hold_over_the_interval_that_ends_at_their_record(conformance):
    frame = pd.read_csv(
        conformance / "events" / "time_varying.csv", na_values=".", dtype={"ID": str}
    )
    frame = frame.drop(columns=["CL", "CP"]).assign(MDV=1)
    trial = popk.read_nonmem(frame, covariates=["LAGT", "BIOAV", "WT"], units=UNITS)
    found = popk.predict_at(oral(by_weight), trial, {}).to_numpy().ravel()
    expected = pd.read_csv(conformance / "events" / "time_varying_nonmem.csv")["CP"]
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=1e-8)
