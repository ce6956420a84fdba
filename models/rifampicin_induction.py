"""Rifampicin over weeks of treatment: it induces the enzymes that eliminate it.

Model: Smythe W, Khandelwal A, Merle C, et al. (2012). A semimechanistic pharmacokinetic-enzyme
turnover model for rifampin autoinduction in adult tuberculosis patients. Antimicrob Agents Chemother
56:2091-2098. doi:10.1128/AAC.05792-11

================================  =============  =======  ========
parameter                         estimate       unit     IIV, CV%
================================  =============  =======  ========
CL before induction, at 70 kg     10.0           L/h      30
V at 70 kg                        86.7           L        19
fat's part in the size for CL, V  0.311, 0.188
MTT, of one transit compartment   0.713          h
EMAX, KENZ                        1.04, 0.00369  1, 1/h
EC50                              0.0705         mg/L     493
additive, proportional error      0.965, 9.9     mg/L, %
================================  =============  =======  ========

CL and V are apparent; size is fat-free mass FFM and a part of the fat; HIV adds 29.6% to V. Left out:
EC50's variability, and between occasions that of MTT (68%) and bioavailability (16%). Priors: within a
third; the effects of HIV and fat are fixed.
"""

import numpyro

import popk

COVARIATES = {"WT": "kg", "FFM": "kg", "HIV": "1"}
PUBLISHED = {
    "CL_pop": 10.0, "V_pop": 86.7, "MTT_pop": 0.713, "EMAX_pop": 1.04, "EC50_pop": 0.0705,
    "KENZ_pop": 0.00369, "omega_CL": 0.294, "omega_V": 0.190, "sigma_additive": 0.965,
    "sigma_proportional": 0.099,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def _rates(A, p):
    C = A.central / p.V
    absorbed = p.KTR * A.transit
    enzyme = p.KENZ * (1 + p.EMAX * C / (p.EC50 + C) - A.enzyme)  # relative to its baseline
    return -p.KTR * A.depot, p.KTR * A.depot - absorbed, absorbed - p.CL * A.enzyme * C, enzyme


def rifampicin_induction(trial):
    """Oral rifampicin: one transit compartment, one compartment, enzyme turnover."""
    weight, lean = trial.covariate("WT"), trial.covariate("FFM")
    CL = _typical("CL") * ((lean + 0.311 * (weight - lean)) / 70) ** 0.75  # L/h
    V = _typical("V") * (lean + 0.188 * (weight - lean)) / 70  # L
    p = popk.individual(trial, omega=0.3, CL=CL, V=V * (1 + 0.296 * trial.covariate("HIV")))
    induction = {n: _typical(n) for n in ("EMAX", "EC50", "KENZ")}  # 1, mg/L, 1/h
    names = ("depot", "transit", "central", "enzyme")
    A = popk.ode(
        trial, _rates, {**p._asdict(), **induction, "KTR": 2 / _typical("MTT")},
        compartments=names, initial={"enzyme": 1.0}, solver="implicit",  # hours beside weeks
    )  # fmt: skip
    concentration = popk.concentration(trial, A.central, p.V)  # mg/L
    popk.observe(trial, concentration, popk.combined_error(additive=1, proportional=0.2))
