"""Dosing semantics against NONMEM: the predictions of shared/conformance/events, row by row.

Every case is answered by each tier of the solver. Cases with infusions have twins in which the model
gives their rate (RATE -1) or their duration (RATE -2).
"""

import functools

import numpy as np
import pandas as pd
import pytest

import popk

UNITS = {
    "TIME": "h", "AMT": "mg", "DV": "mg/L", "LAGT": "h", "BIOAV": "1", "RATE2": "mg/h", "DUR2": "h",
    "WT": "kg",
}  # fmt: skip
COVARIATES = ("LAGT", "BIOAV", "RATE2", "DUR2", "WT")
TOLERANCE = 5e-5  # NONMEM's table has five significant digits
VARYING = "time-varying"

KA, V = 1.5, 20 / 1000  # CP = A2 / (V / 1000)


def closed(trial, CL, **dosing):
    return popk.one_compartment(trial, CL=CL, V=V, KA=KA, **dosing)


def linear(trial, CL, **dosing):
    amounts = popk.linear(
        trial,
        lambda p: {("depot", "central"): KA, ("central", None): p.CL / V},
        {"CL": CL},
        compartments=("depot", "central"),
        **dosing,
    )
    assert amounts.tier.startswith("linear system, eigenvectors")
    return popk.concentration(trial, amounts.central, V)


def ode(trial, CL, **dosing):
    def rhs(A, p):
        absorbed = KA * A.depot * (1 + 0 * A.depot**2)  # not linear, for all that can be told
        return {"depot": -absorbed, "central": absorbed - p.CL / V * A.central}

    amounts = popk.ode(trial, rhs, {"CL": CL}, compartments=("depot", "central"), **dosing)
    assert amounts.tier.startswith("ODE solver")
    return popk.concentration(trial, amounts.central, V)


TIERS = {"closed form": closed, "linear": linear, "ODE": ode}
every_tier = pytest.mark.parametrize("tier", TIERS)


def oral(tier):
    """Return the model of the cases: LAGT and BIOAV act on doses into compartment 2 alone."""

    def model(trial):
        CL = 1.1 * (trial.covariate("WT") / 70) ** 0.75
        rate, duration = trial.covariate("RATE2"), trial.covariate("DUR2")
        concentration = TIERS[tier](
            trial,
            CL / 1000,
            F={"central": trial.covariate("BIOAV")},
            lag={"central": trial.covariate("LAGT")},
            R={"depot": rate, "central": rate},
            D={"depot": duration, "central": duration},
        )
        popk.observe(trial, concentration, popk.additive_error(popk.fixed(1.0)))

    return model


def records(conformance, name):
    frame = pd.read_csv(conformance / "events" / f"{name}.csv", na_values=".", dtype={"ID": str})
    frame = frame.rename(columns={"RAT2": "RATE2"}).rename(columns=str.upper)
    return frame.drop(columns=["C", "CL", "CP"], errors="ignore").assign(MDV=1)


def with_twins(frame):
    """Return the cases, and those with infusions once more for RATE -1 and for RATE -2."""
    known = frame["RATE"] > 0
    F = frame["BIOAV"].where(frame["CMT"] == 2, 1.0)
    infused = frame["ID"].isin(frame["ID"][known])
    # A modeled duration scales with nothing, so that of F AMT / RATE is the one to give.
    rates = frame.assign(
        RATE=frame["RATE"].mask(known, -1), RATE2=frame["RATE2"].mask(known, frame["RATE"])
    )
    length = F * frame["AMT"] / frame["RATE"].where(known, 1)
    durations = frame.assign(
        RATE=frame["RATE"].mask(known, -2), DUR2=frame["DUR2"].mask(known, length)
    )
    endless = frame["ID"].isin(frame["ID"][known & (frame["AMT"] == 0)])
    return pd.concat([
        frame,
        rates[infused].assign(ID=rates["ID"] + " with RATE -1"),
        durations[infused & ~endless].assign(ID=durations["ID"] + " with RATE -2"),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def dosing(conformance):
    return with_twins(records(conformance, "dosing").assign(WT=70.0))


@pytest.fixture(scope="module")
def varying(conformance):
    return records(conformance, "time_varying").assign(ID=VARYING)


@pytest.fixture(scope="module")
def nonmem(conformance):
    frame = pd.read_csv(conformance / "events" / "dosing_nonmem.csv", dtype={"ID": str})
    changing = pd.read_csv(conformance / "events" / "time_varying_nonmem.csv").assign(ID=VARYING)
    return pd.concat([frame, changing])


def read(frame):
    return popk.read_nonmem(frame.reset_index(drop=True), covariates=COVARIATES, units=UNITS)


@pytest.fixture(scope="module")
def predicted(dosing, varying):
    """Return what predicts all cases in a tier, by one compiled program."""
    trial = read(pd.concat([dosing, varying]))
    return functools.cache(lambda tier: popk.predict_at(oral(tier), trial, {}))


def agrees(found, expected):
    n = len(expected)
    np.testing.assert_array_equal(found["TIME"][:n], expected["TIME"])
    np.testing.assert_allclose(found[:n], expected["CP"], rtol=TOLERANCE, atol=1e-8)


def test_every_case_of_the_key_is_predicted_and_each_infusion_has_its_twins(dosing, conformance):
    key = pd.read_csv(conformance / "events" / "dosing_key.csv", dtype=str)["ID"]
    cases = set(dosing["ID"])
    assert {case for case in cases if case.isdigit()} == set(key)
    assert len(key) == 29
    infused = {"3", "4", *map(str, range(6, 15)), "17", "20", "26", "27", "29"}
    assert {case.removesuffix(" with RATE -1") for case in cases if "-1" in case} == infused
    assert {case.removesuffix(" with RATE -2") for case in cases if "-2" in case} == infused - {
        "29"
    }


@every_tier
@pytest.mark.parametrize("case", [str(i) for i in range(1, 30)])
def test_a_case_agrees_with_nonmem_row_by_row(case, tier, predicted, nonmem):
    subjects = [s for s in predicted(tier)["subject"].values if s.split(" ")[0] == case]
    assert subjects
    for subject in subjects:
        agrees(predicted(tier).sel(subject=subject), nonmem[nonmem["ID"] == case])


@every_tier
def test_covariates_that_change_hold_over_the_interval_that_ends_at_their_record(
    tier, predicted, nonmem
):
    agrees(predicted(tier).sel(subject=VARYING), nonmem[nonmem["ID"] == VARYING])
