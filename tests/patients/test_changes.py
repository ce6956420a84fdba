"""Patients who change: between occasions, slowly, or with their covariates; and two kinds of levels.

Posteriors are compared with importance sampling from the prior, of which nothing is popk's.
"""

import numpy as np
import numpyro
import pandas as pd
import pytest
import xarray as xr

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
OMEGA, GAMMA, ERROR = 0.3, 0.25, 0.1
DOSES = np.array([0.0, 24.0, 48.0])
TIMES = np.array([2.0, 12.0, 22.0, 26.0, 36.0, 46.0])
LEVELS = np.array([8.4, 3.2, 1.1, 9.9, 4.9, 2.9])  # CL 5 on the first day, slower on the second
KNOWN = popk.proportional_error(popk.fixed(ERROR))


def nothing(draws=250):
    """A population of which all is known."""
    values = xr.Dataset({"nothing": (("chain", "draw"), np.ones((1, draws)))})
    return xr.DataTree.from_dict({"posterior": values})


def person(**columns):
    """Return three doses a day apart and levels on the first two days."""
    rows = [{"TIME": t, "EVID": 1, "AMT": 500.0} for t in DOSES]
    rows += [{"TIME": t, "EVID": 0, "DV": y} for t, y in zip(TIMES, LEVELS, strict=True)]
    frame = pd.DataFrame(rows).sort_values("TIME", kind="stable").assign(ID=1)
    frame["DAY"] = frame["TIME"] // 24 + 1
    frame = frame.assign(**columns).fillna({"AMT": 0.0})
    return popk.read_nonmem(frame, units=UNITS | {"DAY": "1"}, covariates=["DAY"])


def of_occasions(trial):
    p = popk.individual(
        trial, CL=5.0, V=50.0, omega=popk.fixed(OMEGA), correlated=False,
        iov={"DAY": {"CL": popk.fixed(GAMMA)}},
    )  # fmt: skip
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), KNOWN)


def drifting(trial):
    p = popk.individual(
        trial, CL=5.0, V=50.0, omega=popk.fixed(OMEGA), correlated=False,
        drift={"DAY": {"CL": popk.fixed(GAMMA / 24**0.5)}},
    )  # fmt: skip
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), KNOWN)


def weighed(deviations):
    """Return CL of each day and the prediction at 60 h of draws from the prior, and their weights.

    Parameters
    ----------
    deviations : Callable
        Of standard normal numbers [draw, day]: the deviation of log CL on each day.
    """
    rng, size = np.random.default_rng(1), 400_000
    V = 50 * np.exp(OMEGA * rng.standard_normal(size))
    own = OMEGA * rng.standard_normal((size, 1)) + deviations(rng.standard_normal((size, 3)))
    CL = 5 * np.exp(own)
    k = CL / V[:, None]

    def amount(t):
        total = np.zeros(size)
        for i, at in enumerate(DOSES):
            if t < at:
                break
            if i:
                total = total * np.exp(-24 * k[:, i - 1])
            total = total + 500.0
        return total * np.exp(-k[:, i if t >= at else i - 1] * (t - DOSES[t >= DOSES][-1]))

    logs = np.zeros(size)
    for t, y in zip(TIMES, LEVELS, strict=True):
        f = amount(t) / V
        logs += -0.5 * ((y - f) / (ERROR * f)) ** 2 - np.log(f)
    weights = np.exp(logs - logs.max())
    return CL, amount(60.0) / V, weights / weights.sum()


def close(draws, reference, weights):
    """Return whether mean and sd of the logs of draws are those of weighted ones."""
    found, expected = np.log(draws), np.log(reference)
    mean = weights @ expected
    sd = np.sqrt(weights @ (expected - mean) ** 2)
    assert abs(found.mean() - mean) < 0.12 * sd
    assert found.std() == pytest.approx(sd, rel=0.1)


@pytest.mark.parametrize(
    ("model", "deviations"),
    [(of_occasions, lambda z: GAMMA * z),
     (drifting, lambda z: GAMMA * np.cumsum(z * [0, 1, 1], axis=1))],
)  # fmt: skip
def test_clearance_of_a_day_that_has_no_level_yet(model, deviations):
    twin = popk.Twin(model, nothing(), person())
    CL, later, weights = weighed(deviations)
    assert 1 / np.sum(weights**2) > 1000
    close(twin.parameters["CL"].values, CL[:, 2], weights)  # of the last record, the third dose
    close(twin.forecast([60.0])["IPRED"].values[:, 0], later, weights)


def renal(trial):
    CL = 5.0 * trial.covariate("CRCL", "locf") / 100
    p = popk.individual(trial, CL=CL, V=50.0, omega=popk.fixed(OMEGA), correlated=False)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), KNOWN)


def test_a_covariate_that_changes_arrives_as_a_record():
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 6.0], "EVID": [1, 0], "AMT": [500.0, 0.0],
                          "DV": [np.nan, 5.2], "CRCL": 100.0})  # fmt: skip
    units = UNITS | {"CRCL": "mL/min"}
    patient = popk.read_nonmem(frame, units=units, covariates=["CRCL"])
    twin = popk.Twin(renal, nothing(), patient)
    CL, V = (twin.parameters[n].values for n in ("CL", "V"))
    failing = twin.update([{"TIME": 12.0, "EVID": 2, "CRCL": 50.0}])
    np.testing.assert_allclose(failing.parameters["CL"], CL / 2, rtol=1e-9)
    found = failing.forecast([12.0, 36.0])["IPRED"].values
    before = 500 / V * np.exp(-CL / V * 12)
    np.testing.assert_allclose(found[:, 0], before, rtol=1e-9)
    np.testing.assert_allclose(found[:, 1], before * np.exp(-CL / V / 2 * 24), rtol=1e-9)


def two_kinds(trial):
    """A drug, and an effect that follows its concentration directly."""
    p = popk.individual(trial, CL=5.0, V=50.0, SLOPE=2.0, omega=popk.fixed(OMEGA), correlated=False)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V)
    popk.observe(trial, concentration, KNOWN, DVID=1)
    popk.observe(trial, 10 + p.SLOPE * concentration, popk.additive_error(popk.fixed(0.5)),
                 output="effect", DVID=2)  # fmt: skip


def test_two_kinds_of_levels_are_forecast_each():
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 2.0, 2.0], "EVID": [1, 0, 0], "DVID": [0, 1, 2],
                          "AMT": [500.0, 0.0, 0.0], "DV": [np.nan, 8.0, 22.0]})  # fmt: skip
    twin = popk.Twin(two_kinds, nothing(), popk.read_nonmem(frame, units=UNITS))
    found, p = twin.forecast([4.0, 8.0]), twin.parameters
    CL, V, SLOPE = (p[n].values[:, None] for n in ("CL", "V", "SLOPE"))
    expected = 500 / V * np.exp(-CL / V * np.array([4.0, 8.0]))
    np.testing.assert_allclose(found["IPRED"], expected, rtol=1e-9)
    np.testing.assert_allclose(found["IPRED_effect"], 10 + SLOPE * expected, rtol=1e-9)
    off = (found["DV_effect"] - found["IPRED_effect"]).values
    assert off.std() == pytest.approx(0.5, rel=0.05)
    relative = (found["DV"] / found["IPRED"] - 1).values
    assert relative.std() == pytest.approx(ERROR, rel=0.05)
