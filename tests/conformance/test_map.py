"""Individual posterior modes against NONMEM's (FOCE with INTERACTION), run by run.

Every random effect has a variance of 0.2; the residual error is proportional, with a variance of
0.05, which is the variance itself where nothing is predicted.
"""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "BW": "kg", "SEX": "1"}
IIV = popk.fixed(0.2**0.5)
ERROR = popk.proportional_error(popk.fixed(0.05**0.5))._replace(
    spread=lambda f, proportional: proportional * jnp.where(f == 0, 1.0, f)
)


def people(trial, **options):
    return popk.individual(trial, omega=IIV, correlated=False, **options)


def oral(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA), ERROR)


def lagged(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0, ALAG=1.0)
    lag = {"depot": p.ALAG}
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA, lag=lag), ERROR)


def zero_then_first_order(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0, D1=1.0)
    D = {"depot": p.D1}
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA, D=D), ERROR)


def dual(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0, D2=4.0)
    given = {"F": {"depot": 0.2, "central": 0.8}, "D": {"central": p.D2}}
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA, **given), ERROR)


def logit_bioavailability(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0, F1=0.5, transform={"F1": "logit"})
    F = {"depot": p.F1}
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA, F=F), ERROR)


def two_compartments(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0, VP=50.0)
    concentration = popk.two_compartment(trial, CL=p.CL, V1=p.VC, Q=4.0, V2=p.VP, KA=p.KA)
    popk.observe(trial, concentration, ERROR)


def saturable(trial):
    p = people(trial, VMAX=10000.0, VC=70.0, KA=1.0, KM=2500.0)
    system = popk.systems.michaelis_menten(depot=True, peripheral=False, linear=False)
    amounts = popk.ode(trial, system, {"VMAX": p.VMAX, "KM": p.KM, "V": p.VC, "KA": p.KA})
    popk.observe(trial, popk.concentration(trial, amounts.central, p.VC), ERROR)


def changing_covariates(trial):
    CL = 4.0 * (trial.covariate("BW") / 75) ** 1.5 * 0.75 ** trial.covariate("SEX")
    p = people(trial, CL=CL, VC=70.0, KA=1.0)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA), ERROR)


def parent_and_metabolite(trial):
    p = people(trial, CL=4.0, VC=70.0, KA=1.0, CLM=2.5, VM=60.0)
    names = ("depot", "central", "metabolite")

    def rates(p):
        k = p.CL / p.VC
        return {
            ("depot", "central"): p.KA,
            ("central", "metabolite"): 0.7 * k,
            ("central", None): 0.3 * k,
            ("metabolite", None): p.CLM / p.VM,
        }

    amounts = popk.linear(trial, rates, p, compartments=names)
    popk.observe(trial, popk.concentration(trial, amounts.central, p.VC), ERROR, CMT=2)
    metabolite = popk.concentration(trial, amounts.metabolite, p.VM)
    popk.observe(trial, metabolite, ERROR, output="metabolite", CMT=3)


#: The runs: their models, and how near the objective comes, relative to it.
RUNS = {
    "001": (oral, 1e-5),
    "002": (oral, 1e-5),
    "005": (zero_then_first_order, 1e-5),
    "008": (logit_bioavailability, 1e-5),
    "101": (two_compartments, 1e-5),
    "201": (saturable, 1e-5),
    # One subject's reference is printed after a search that stopped 1.2e-5 short.
    "301": (changing_covariates, 2e-5),
    "401": (parent_and_metabolite, 1e-5),
}

#: Those with several modes, and the subjects that are left out: their lag equals a time after dose.
SEVERAL = {"003": (lagged, [15, 19, 71, 87]), "006": (dual, [])}


def read(conformance, run):
    table = pd.read_csv(conformance / "map" / f"run{run}_data.csv", na_values=".")
    covariates = [name for name in ("BW", "SEX") if name in table]
    reference = pd.read_csv(conformance / "map" / f"run{run}_nonmem.csv")
    return popk.read_nonmem(table, units=UNITS, covariates=covariates), reference


def etas(reference):
    return reference[[c for c in reference if c.startswith("ETA(")]].to_numpy()


def assert_same(found, reference, rtol, kept=slice(None)):
    np.testing.assert_allclose(found["eta"].values[kept], etas(reference)[kept], atol=1e-3)
    np.testing.assert_allclose(found["objective"].values[kept], reference["OBJ"][kept], rtol=rtol)
    for i in range(found.sizes["parameter"]):
        for j in range(i + 1):
            expected = reference[f"ETC({i + 1},{j + 1})"]
            scale = np.sqrt(reference[f"ETC({i + 1},{i + 1})"] * reference[f"ETC({j + 1},{j + 1})"])
            off = np.abs(found["covariance"].values[:, i, j] - expected) / scale
            assert off[kept].max() < 0.01


#: Their structures are those of other runs: they wait for `-m slow`.
ALIKE = ("001", "002", "101")


@pytest.mark.parametrize(
    "run", [pytest.param(r, marks=pytest.mark.slow) if r in ALIKE else r for r in RUNS]
)
def test_modes_are_those_of_nonmem(conformance, run):
    trial, reference = read(conformance, run)
    model, rtol = RUNS[run]
    assert_same(popk.map_estimate(model, trial, {}), reference, rtol)


@pytest.mark.parametrize("run", SEVERAL)
def test_where_there_are_several_modes_nonmem_s_are_among_them(conformance, run):
    trial, reference = read(conformance, run)
    model, left_out = SEVERAL[run]
    found = popk.map_estimate(model, trial, {}, start=etas(reference))
    assert_same(found, reference, 1e-5, ~reference["ID"].isin(left_out).to_numpy())


#: Subjects of whom a lower mode than NONMEM's is known.
LOWER = {"003": [9, 17, 41, 57, 65], "006": [7, 11, 13, 15, 35, 41, 47, 57, 59, 91, 93]}


@pytest.mark.slow
@pytest.mark.parametrize("run", SEVERAL)
def test_the_best_of_many_searches_is_never_worse_than_nonmem_s(conformance, run):
    trial, reference = read(conformance, run)
    model, left_out = SEVERAL[run]
    kept = ~reference["ID"].isin(left_out).to_numpy()

    def lost(found):  # the objective without ln|H|: what a mode minimizes
        return found["objective"].values + np.linalg.slogdet(found["covariance"].values)[1]

    nonmem = lost(popk.map_estimate(model, trial, {}, start=etas(reference), starts=1))
    best = lost(popk.map_estimate(model, trial, {}, starts=20))
    assert (best[kept] <= nonmem[kept] + 1e-6).all()
    lower = reference["ID"].isin(LOWER[run]).to_numpy()
    assert (best[lower] < nonmem[lower] - 1e-3).all()
