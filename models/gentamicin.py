"""Gentamicin in newborns and infants: three compartments, clearance that matures.

Model: Germovsek E, Kent A, Metsvaht T, et al. (2016). Development and evaluation of a gentamicin
pharmacokinetic model that facilitates opportunistic gentamicin therapeutic drug monitoring in
neonates and infants. Antimicrob Agents Chemother 60:4869-4877. doi:10.1128/AAC.00577-16 (the
estimates with all their digits: DDMoRe model repository, DDMODEL00000238).

=============================  ===============  ====  ==========
parameter                      estimate         unit  IIV, CV%
=============================  ===============  ====  ==========
CL, mature, at 70 kg           6.21             L/h   44
V1, V2, V3 at 70 kg            26.5, 21.2, 148  L     34, 38, 44
Q2, Q3 at 70 kg                2.15, 0.271      L/h
age since birth at half of CL  1.70             day
CL, power of creatinine        -0.130
additive error                 0.128            mg/L
proportional error             19               %
=============================  ===============  ====  ==========

Fixed: the exponents of weight (0.632 on CL, 0.75, 1) and maturation by postmenstrual age PMA, half at
55.4 weeks, Hill's exponent 3.33. Priors: the estimates, within a third.
"""

import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"WT": "kg", "PMA": "week", "PNA": "day", "CREAT": "umol/L"}
PUBLISHED = {
    "CL_pop": 6.21, "V1_pop": 26.5, "Q2_pop": 2.15, "V2_pop": 21.2, "Q3_pop": 0.271, "V3_pop": 148,
    "CL_PNA": 1.70, "CL_CREAT": -0.130, "omega_CL": 0.418, "omega_V1": 0.335, "omega_V2": 0.363,
    "omega_V3": 0.421, "sigma_additive": 0.128, "sigma_proportional": 0.19,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def gentamicin(trial):
    """Intravenous gentamicin: three compartments, CL by weight, age and creatinine."""
    size, pma = trial.covariate("WT") / 70, trial.covariate("PMA")
    pna, creatinine = trial.covariate("PNA"), trial.covariate("CREAT")
    half = numpyro.sample("CL_PNA", popk.lognormal(1.70, cv=0.3))  # day
    power = numpyro.sample("CL_CREAT", dist.Normal(-0.13, 0.05))
    maturation = pma**3.33 / (pma**3.33 + 55.4**3.33) * pna / (half + pna)
    renal = (creatinine / (166.48 - 2.8488 * pma)) ** power  # relative to what the age lets expect
    p = popk.individual(
        trial, CL=_typical("CL") * size**0.632 * maturation * renal, V1=_typical("V1") * size,
        V2=_typical("V2") * size, V3=_typical("V3") * size,
    )  # fmt: skip
    Q2, Q3 = _typical("Q2") * size**0.75, _typical("Q3") * size**0.75  # L/h
    concentration = popk.three_compartment(trial, Q2=Q2, Q3=Q3, **p._asdict())  # mg/L
    popk.observe(trial, concentration, popk.combined_error(additive=0.2, proportional=0.3))
