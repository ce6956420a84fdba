"""Theophylline after one oral dose in twelve adults.

Data: Boeckmann AJ, Sheiner LB, Beal SL (1994). NONMEM Users Guide, Part V. University of California,
San Francisco. (R's Theoph.)

Priors: a clearance near 0.04 L/h/kg and a volume near 0.5 L/kg are the textbook values in adults
(Ogilvie RI (1978). Clinical pharmacokinetics of theophylline. Clin Pharmacokinet 3:267-293.
doi:10.2165/00003088-197803040-00002); absorption from an immediate-release form takes about an hour.
Allometric exponents: Anderson BJ, Holford NHG (2008). Annu Rev Pharmacol Toxicol 48:303-332.
doi:10.1146/annurev.pharmtox.48.113006.094708
"""

import numpyro

import popk


def theophylline(trial):
    """Oral theophylline: one compartment, first-order absorption, allometric size."""
    size = trial.covariate("WT") / 70
    CL = numpyro.sample("CL_pop", popk.lognormal(2.8, cv=0.5))  # L/h at 70 kg
    V = numpyro.sample("V_pop", popk.lognormal(32, cv=0.5))  # L at 70 kg
    KA = numpyro.sample("KA_pop", popk.lognormal(1.5, cv=0.5))  # 1/h
    p = popk.individual(trial, CL=CL * size**0.75, V=V * size, KA=KA)
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA)  # mg/L
    popk.observe(trial, concentration, popk.combined_error(additive=0.5, proportional=0.2))
