"""Quinidine in 136 patients with arrhythmia: one compartment, by alpha-1-acid glycoprotein.

Data: Verme CN, Ludden TM, Clementi WA, Harris SC (1992). Pharmacokinetics of quinidine in male
patients: a population analysis. Clin Pharmacokinet 22:468-480. doi:10.2165/00003088-199222060-00005
(nlme's Quinidine, data/quinidine.csv). Model and estimates: Pinheiro JC, Bates DM (2000).
Mixed-Effects Models in S and S-PLUS. doi:10.1007/b98882, its second model fm2Quin.nlme.

===========================  ========  ====  ========
parameter                    estimate  unit  IIV, CV%
===========================  ========  ====  ========
CL at 1 g/L of glycoprotein  13.8      L/h   28
log CL for each g/L more     -0.502    L/g
V                            195       L     0
KA                           0.430     1/h
additive error               0.651     mg/L
===========================  ========  ====  ========

Amounts are of quinidine base and CL and V apparent (bioavailability is in them). A rough guide: nlme's
own script marks this fit as hard to reproduce. Priors: the estimates, within a half.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"AAG": "g/L"}
PUBLISHED = {
    "CL_pop": 13.8, "CL_AAG": -0.502, "V_pop": 195, "KA_pop": 0.430,
    "omega_CL": 0.271, "sigma_additive": 0.651,
}  # fmt: skip


def quinidine(trial):
    """Oral quinidine: one compartment, first-order absorption, CL by alpha-1-acid glycoprotein."""
    binding = trial.covariate("AAG") - 1
    CL = numpyro.sample("CL_pop", popk.lognormal(13.8, cv=0.5))  # L/h at 1 g/L
    slope = numpyro.sample("CL_AAG", dist.Normal(-0.5, 0.25))  # of log CL, for each g/L
    V = numpyro.sample("V_pop", popk.lognormal(195, cv=0.5))  # L
    KA = numpyro.sample("KA_pop", popk.lognormal(0.43, cv=0.5))  # 1/h
    p = popk.individual(trial, CL=CL * jnp.exp(slope * binding))
    concentration = popk.one_compartment(trial, CL=p.CL, V=V, KA=KA)  # mg/L
    popk.observe(trial, concentration, popk.additive_error(1))
