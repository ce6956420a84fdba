"""Quinidine in 136 patients: which of eleven covariates change clearance?

Data: Verme CN, Ludden TM, Clementi WA, Harris SC (1992). Pharmacokinetics of quinidine in male
patients: a population analysis. Clin Pharmacokinet 22:468-480. doi:10.2165/00003088-199222060-00005
(nlme's Quinidine, data/quinidine.csv). Ethanol stands for the state of the liver. The structure is that
of quinidine.py; all candidates share a regularized horseshoe prior, with two expected to matter.
"""

import jax.numpy as jnp
import numpyro

import popk

#: The candidates, each from `Trial.covariate`: about 0, and of about one standard deviation.
CANDIDATES = {
    "AAG": lambda of: (of("AAG") - 1.2) / 0.45,  # g/L
    "AGE": lambda of: (of("AGE") - 67) / 9,  # years
    "HT": lambda of: (of("HT") - 70) / 3.4,  # inches
    "WT": lambda of: (of("WT") - 79) / 15,  # kg
    "LATIN": lambda of: (of("RACE") == 1) - 0.25,
    "BLACK": lambda of: (of("RACE") == 2) - 0.08,
    "SMOK": lambda of: of("SMOK") - 0.3,
    "DRINKS": lambda of: (of("ETOH") == 1) - 0.1,
    "DRANK": lambda of: (of("ETOH") == 2) - 0.2,
    "HF": lambda of: of("HF") - 0.9,  # 0 none or mild, 1 moderate, 2 severe
    "CRCL": lambda of: of("CRCL") - 0.74,  # 1: 50 mL/min or more
}


def quinidine_covariates(trial):
    """Oral quinidine: one compartment, first-order absorption, CL by whichever covariates matter."""
    CL = numpyro.sample("CL_pop", popk.lognormal(13, cv=0.5))  # L/h
    V = numpyro.sample("V_pop", popk.lognormal(195, cv=0.5))  # L
    KA = numpyro.sample("KA_pop", popk.lognormal(0.43, cv=0.5))  # 1/h
    candidates = {name: of(trial.covariate) for name, of in CANDIDATES.items()}
    effect = popk.horseshoe(trial, "CL", candidates, expected=2)
    p = popk.individual(trial, CL=CL * jnp.exp(effect))
    concentration = popk.one_compartment(trial, CL=p.CL, V=V, KA=KA)  # mg/L
    popk.observe(trial, concentration, popk.additive_error(1))
