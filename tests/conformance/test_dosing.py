"""Doses and times from one patient's posterior, against Monolix's and posologyr's: 20 subjects each.

Population parameters are known: every draw of the population is the same. A decision is for a first
dose into an empty patient, 2000 h after the last record.
"""

import numpy as np
import numpyro
import pandas as pd
import pytest
import xarray as xr

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "BW": "kg", "SEX": "1"}
IIV = popk.fixed(0.2**0.5)
ERROR = popk.proportional_error(popk.fixed(0.05))
LATER = 2000.0  # no drug is left
SHARE = 0.89


def people(trial, size=1.0, **more):
    CL = numpyro.sample("CL_pop", popk.lognormal(4.0, cv=0.1))
    return popk.individual(
        trial, CL=CL * size, VC=70.0, KA=1.0, omega=IIV, correlated=False, **more
    )


def oral(trial):
    p = people(trial)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA), ERROR)


def lagged(trial):
    p = people(trial, ALAG=1.0)
    lag = {"depot": p.ALAG}
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA, lag=lag), ERROR)


def two_compartments(trial):
    p = people(trial, VP=50.0)
    concentration = popk.two_compartment(trial, CL=p.CL, V1=p.VC, Q=4.0, V2=p.VP, KA=p.KA)
    popk.observe(trial, concentration, ERROR)


def changing_covariates(trial):
    size = (trial.covariate("BW", "locf") / 75) ** 1.5 * 0.75 ** trial.covariate("SEX", "locf")
    p = people(trial, size)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA), ERROR)


RUNS = {"001": oral, "003": lagged, "101": two_compartments, "301": changing_covariates}
NAMES = {"CL": "Cl", "VC": "Vc", "KA": "Ka", "ALAG": "ALAG", "VP": "Vp"}


def known(draws=2000):
    """Return the population's values, the same in every draw."""
    return xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"CL_pop": (("chain", "draw"), np.full((1, draws), 4.0))})}
    )


def patients(conformance, run):
    table = pd.read_csv(conformance / "dosing" / f"run{run}_data.csv", na_values=".")
    table = table.rename(columns=str.upper).drop(columns="S2_SAMPLING")
    table = table[table["EVID"].eq(1) | table["MDV"].eq(0)].reset_index(drop=True)
    covariates = [name for name in ("BW", "SEX") if name in table]
    if covariates:  # a decision is for 75 kg and SEX 1
        last = table.groupby("ID", sort=False).tail(1)
        last = last.assign(EVID=2, MDV=1, AMT=0.0, DV=np.nan, BW=75, SEX=1)
        # Two records: what stands at one holds until the next.
        later = [last.assign(TIME=LATER - 2), last.assign(TIME=LATER - 1)]
        table = pd.concat([table, *later]).sort_values(["ID", "TIME"], kind="stable")
    return popk.read_nonmem(table.reset_index(drop=True), units=UNITS, covariates=covariates)


def decisions(twin):
    """Return the doses for AUC and C(3 h), and the time above 0.5 after 100 mg."""
    doses = [
        popk.optimal_dose(
            twin, target, at=(LATER, LATER + hours), start=LATER, probability=SHARE, compartment=1
        ).table["dose"].iloc[0]
        for target, hours in ((popk.auc(500), 12.0), (popk.trough(30), 3.0))
    ]  # fmt: skip
    dose = popk.Regimen(dose=100, start=LATER, compartment=1)
    time = popk.time_until_below(twin, 0.5, regimen=dose)
    return [*doses, np.ceil(10 * float(time.quantile(SHARE)) - 1e-6) / 10]  # on a grid of 0.1 h


def answers(conformance, run, ids):
    """Return what Monolix and posologyr say [subject, decision, engine]."""
    found = []
    for name, kind in (("dose_auc", "dose"), ("dose_conc", "dose"), ("time_cmin", "time")):
        table = pd.read_csv(conformance / "dosing" / f"all_{name}.csv")
        table = table[table["run"] == int(run)].set_index("index").loc[ids]
        found.append(table[[f"mlx.{kind}", f"sir.{kind}"]].to_numpy())
    return np.stack(found, axis=1)


def off_by(conformance, run, ids, seeds=(1,)):
    """Return differences of doses, relative; of times, by what is allowed; of means, in Monolix's sds."""
    trial = patients(conformance, run)
    monolix = pd.read_csv(conformance / "dosing" / f"run{run}_monolix.csv").set_index("id")
    own, means = [], []
    for id in ids:
        # One level leaves two modes: the weights of proposals around one of them cannot know the other.
        twins = [
            popk.Twin(RUNS[run], known(), trial[str(id)], n, 2000, method="smc") for n in seeds
        ]
        own.append(np.mean([decisions(twin) for twin in twins], axis=0))
        together = xr.concat([twin.parameters for twin in twins], "sample")
        for name, draws in together.items():
            mean = float(draws.mean()) / (0.75 if run == "301" and name == "CL" else 1.0)
            theirs = monolix.loc[id]
            means.append((mean - theirs[f"{NAMES[name]}_mean"]) / theirs[f"{NAMES[name]}_sd"])
    theirs = answers(conformance, run, ids)
    own = np.array(own)[:, :, None]
    nearer = np.abs(own - theirs).min(-1)
    doses = nearer[:, :2] / theirs[:, :2].min(-1)
    times = nearer[:, 2] / np.maximum(0.2, 0.01 * theirs[:, 2].min(-1))
    return doses, times, np.array(means)


def assert_agree(doses, times, means):
    assert np.median(doses) < 0.01
    assert doses.max() < 0.05
    assert times.max() < 1.0  # 0.2 h, or 1%
    assert np.abs(means).max() < 0.15


def test_doses_and_times_are_those_of_monolix_and_posologyr(conformance):
    assert_agree(*off_by(conformance, "001", [1, 5, 9, 13]))


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_doses_and_times_of_all_subjects_are_those_of_monolix_and_posologyr(conformance, run):
    assert_agree(*off_by(conformance, run, range(1, 21), seeds=(1, 2, 3)))
