"""Indomethacin after an intravenous bolus in six volunteers.

Data: Kwan KC, Breault GO, Umbenhauer ER, McMahon FG, Duggan DE (1976). Kinetics of indomethacin
absorption, elimination, and enterohepatic circulation in man. J Pharmacokinet Biopharm 4:255-280.
doi:10.1007/BF01063617 (R's Indometh; the dose of 25 mg is the paper's.)

Priors: weakly informative, around the order of magnitude that the first and last levels suggest.
"""

import numpyro

import popk


def indomethacin(trial):
    """Intravenous indomethacin: two compartments, independent random effects."""
    CL = numpyro.sample("CL_pop", popk.lognormal(8, cv=1))  # L/h
    V1 = numpyro.sample("V1_pop", popk.lognormal(8, cv=1))  # L
    Q = numpyro.sample("Q_pop", popk.lognormal(8, cv=1))  # L/h
    V2 = numpyro.sample("V2_pop", popk.lognormal(16, cv=1))  # L
    p = popk.individual(trial, CL=CL, V1=V1, Q=Q, V2=V2, correlated=False)
    concentration = popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2)  # mg/L
    popk.observe(trial, concentration, popk.combined_error(additive=0.05, proportional=0.2))
