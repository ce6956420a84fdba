"""Forecasts of levels left out, against PsN's proseval over NONMEM: vancomycin, 10 patients x 5 steps.

The model is that of Thomson et al. (2009), doi:10.1093/jac/dkp085, with NONMEM's estimates known.
"""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg", "CRCL": "L/h", "CL_HEMO": "L/h"}
VARIANCE = {"CL": 0.0729, "V1": 0.0225, "Q": 0.2401, "V2": 1.69}
IIV = {name: popk.fixed(value**0.5) for name, value in VARIANCE.items()}
CORRELATION = np.eye(4)
CORRELATION[0, 1] = CORRELATION[1, 0] = 0.01 / (0.0729 * 0.0225) ** 0.5
ERROR = popk.combined_error(popk.fixed(1.6), popk.fixed(0.15))


def vancomycin(trial):
    renal = 1 + 0.0154 * (16.66667 * trial.covariate("CRCL") - 66)
    CL = 2.99 * renal + trial.covariate("CL_HEMO")
    size = trial.covariate("WT")
    p = popk.individual(trial, omega=IIV, CL=CL, V1=0.675 * size, Q=2.28, V2=0.732 * size)
    popk.observe(trial, popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2), ERROR)


@pytest.fixture(scope="module")
def proseval(conformance):
    """Each patient at each step as a subject of its own, and what NONMEM answers row by row."""
    data = pd.read_csv(conformance / "forecast" / "vancomycin_data.csv")
    answers = pd.read_csv(conformance / "forecast" / "vancomycin_psn_proseval.csv")
    parts = []
    for (id, step), rows in answers.groupby(["ID", "OBS"], sort=False):
        one = data[data["ID"] == id].reset_index(drop=True)
        assert np.allclose(one["TIME"], rows["TIME"])
        seen = rows["EVID"].to_numpy() == 0
        level = one["EVID"].to_numpy() == 0
        one["MDV"] = np.where(level & ~seen, 1, one["MDV"])
        parts.append(one.assign(ID=1000 * int(id) + int(step)))
    return pd.concat(parts, ignore_index=True), answers


def test_forecasts_are_those_of_nonmem_for_all_patients_and_steps(proseval):
    table, answers = proseval
    trial = popk.read_nonmem(table, units=UNITS, covariates=["WT", "CRCL", "CL_HEMO"])
    assert trial.n_subjects == 50
    population = {"corr": CORRELATION}
    modes = popk.map_estimate(vancomycin, trial, population)["eta"].values
    for column, eta in (("PRED", 0 * modes), ("IPRED", modes)):
        found = popk.predict_at(vancomycin, trial, {**population, "eta": jnp.asarray(eta)})
        forecast = (answers["EVID"] != 1).to_numpy()
        found = found.values[np.asarray(trial.recorded)][forecast]
        np.testing.assert_allclose(found, answers[column].to_numpy()[forecast], rtol=1e-4)
