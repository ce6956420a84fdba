"""Cefamandole after a short infusion in six volunteers: two compartments.

Data: Davidian M, Giltinan DM (1995). Nonlinear Models for Repeated Measurement Data. Chapman and Hall,
London, section 1.1. (nlme's Cefamandole, data/cefamandole.csv.) Estimates: computed from these data
with nlme 3.1-162, random effects independent; no published ones for this model are known.

=========  ========  ========  ========
parameter  estimate  unit      IIV, CV%
=========  ========  ========  ========
CL         0.00271   L/min/kg  31
V1         0.0831    L/kg      30
Q          0.00124   L/min/kg  0
V2         0.0537    L/kg      18
=========  ========  ========  ========

The data give no body weight: amounts are in mg/kg, so clearances and volumes are per kg. nlme's
error was a power of the level; here it is additive and proportional. Priors: within a half.
"""

import numpyro

import popk

PUBLISHED = {
    "CL_pop": 0.00271, "V1_pop": 0.0831, "Q_pop": 0.00124, "V2_pop": 0.0537,
    "omega_CL": 0.302, "omega_V1": 0.291, "omega_V2": 0.174,
}  # fmt: skip


def cefamandole(trial):
    """Cefamandole by short infusion: two compartments, per kg of body weight."""
    CL = numpyro.sample("CL_pop", popk.lognormal(0.00271, cv=0.5))  # L/min/kg
    V1 = numpyro.sample("V1_pop", popk.lognormal(0.0831, cv=0.5))  # L/kg
    Q = numpyro.sample("Q_pop", popk.lognormal(0.00124, cv=0.5))  # L/min/kg
    V2 = numpyro.sample("V2_pop", popk.lognormal(0.0537, cv=0.5))  # L/kg
    p = popk.individual(trial, correlated=False, CL=CL, V1=V1, V2=V2)
    concentration = popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=Q, V2=p.V2)  # ug/mL
    popk.observe(trial, concentration, popk.combined_error(additive=1, proportional=0.2))
