"""Rifampicin in pulmonary tuberculosis: one compartment, absorption through transit compartments.

Model: Wilkins JJ, Savic RM, Karlsson MO, et al. (2008). Population pharmacokinetics of rifampin in
pulmonary tuberculosis patients, including a semimechanistic model to describe variable absorption.
Antimicrob Agents Chemother 52:2138-2148. doi:10.1128/AAC.00461-07 (with all digits: DDMoRe model
repository, DDMODEL00000280)

=============================  ===========  ====  ========
parameter                      estimate     unit  IIV, CV%
=============================  ===========  ====  ========
CL                             19.2         L/h   57
V                              53.2         L     45
KA                             1.15         1/h   74
MTT                            0.424        h     66
N, transit compartments        7.13               323
CL, MTT with separate tablets  +23.6, +104  %
additive error                 0.0923       mg/L
proportional error             22           %
=============================  ===========  ====  ========

SDC is 1 where each drug comes in a tablet of its own, 0 for the fixed combination. CL and V are
apparent. Left out: variability between occasions (CL 23%, MTT 77%). Priors: the estimates, within a
third.
"""

import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"SDC": "1"}
PUBLISHED = {
    "CL_pop": 19.2, "V_pop": 53.2, "KA_pop": 1.15, "MTT_pop": 0.424, "N_pop": 7.13, "CL_SDC": 0.236,
    "MTT_SDC": 1.04, "omega_CL": 0.528, "omega_V": 0.434, "omega_KA": 0.663, "omega_MTT": 0.601,
    "omega_N": 1.56, "sigma_additive": 0.0923, "sigma_proportional": 0.222,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def rifampicin(trial):
    """Oral rifampicin: one compartment, transit and first-order absorption, by formulation."""
    separate = trial.covariate("SDC")
    CL = _typical("CL") * (1 + numpyro.sample("CL_SDC", dist.Normal(0.236, 0.1)) * separate)
    MTT = _typical("MTT") * (1 + numpyro.sample("MTT_SDC", dist.HalfNormal(1.0)) * separate)
    p = popk.individual(
        trial, omega={"N": 1.0}, CL=CL, V=_typical("V"), KA=_typical("KA"), MTT=MTT, N=_typical("N")
    )  # L/h, L, 1/h, h
    absorption = popk.transit(N=p.N, MTT=p.MTT)
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA, absorption=absorption)
    popk.observe(trial, concentration, popk.combined_error(additive=0.2, proportional=0.3))
