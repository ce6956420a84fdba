"""Vancomycin in adults in hospital: two compartments, clearance by renal function.

Model: Thomson AH, Staatz CE, Tobin CM, Gall M, Lovering AM (2009). Development and evaluation of
vancomycin dosage guidelines designed to achieve new target concentrations. J Antimicrob Chemother
63:1050-1057. doi:10.1093/jac/dkp085

==================================  ========  ======  ========
parameter                           estimate  unit    IIV, CV%
==================================  ========  ======  ========
CL at a creatinine clearance of 66  2.99      L/h     27
CL, change for each mL/min more     0.0154    min/mL
V1                                  0.675     L/kg    15
Q                                   2.28      L/h     49
V2                                  0.732     L/kg    130
additive error                      1.6       mg/L
proportional error                  15        %
==================================  ========  ======  ========

CRCL is creatinine clearance by Cockcroft and Gault. Simplified: random effects are independent, and
clearance cannot fall below a tenth of its typical value. Priors: the estimates, within a third.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"WT": "kg", "CRCL": "mL/min"}
PUBLISHED = {
    "CL_pop": 2.99, "CL_CRCL": 0.0154, "V1_pop": 0.675, "Q_pop": 2.28, "V2_pop": 0.732,
    "omega_CL": 0.27, "omega_V1": 0.15, "omega_Q": 0.49, "omega_V2": 1.3,
    "sigma_additive": 1.6, "sigma_proportional": 0.15,
}  # fmt: skip


def vancomycin(trial):
    """Intravenous vancomycin: two compartments, CL by creatinine clearance, volumes by weight."""
    weight, crcl = trial.covariate("WT"), trial.covariate("CRCL")
    CL = numpyro.sample("CL_pop", popk.lognormal(2.99, cv=0.3))  # L/h at 66 mL/min
    slope = numpyro.sample("CL_CRCL", dist.Normal(0.0154, 0.003))  # for each mL/min
    V1 = numpyro.sample("V1_pop", popk.lognormal(0.675, cv=0.3))  # L/kg
    Q = numpyro.sample("Q_pop", popk.lognormal(2.28, cv=0.3))  # L/h
    V2 = numpyro.sample("V2_pop", popk.lognormal(0.732, cv=0.3))  # L/kg
    renal = jnp.maximum(1 + slope * (crcl - 66), 0.1)
    p = popk.individual(
        trial, omega={"V2": 1.0}, correlated=False,
        CL=CL * renal, V1=V1 * weight, Q=Q, V2=V2 * weight,
    )  # fmt: skip
    concentration = popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2)  # mg/L
    popk.observe(trial, concentration, popk.combined_error(additive=2, proportional=0.2))
