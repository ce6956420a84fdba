"""Simulated study of hepatic impairment and CYP2C9 genotype: clearance by Child-Pugh class and score.

Data: data/simulated_hepatic.csv, written by data/simulate_hepatic.py, which has the true values below.
Design: FDA (2003). Guidance for industry: pharmacokinetics in patients with impaired hepatic function.
Classes: Pugh RNH, Murray-Lyon IM, Dawson JL, et al. (1973). Br J Surg 60:646-649.
doi:10.1002/bjs.1800600817. Activity scores: Theken KN, Lee CR, Gong L, et al. (2020). Clin Pharmacol
Ther 108:191-200. doi:10.1002/cpt.1830

=======================================  ==============  ==========  ========
parameter                                true value      unit        IIV, CV%
=======================================  ==============  ==========  ========
CL, V at 70 kg                           6, 45           L/h, L      25, 20
KA                                       1.2             1/h         42
CL of Child-Pugh A, B, C over normal     0.8, 0.5, 0.3
CL of activity score 0 or 0.5, 1 or 1.5  0.3, 0.65       of score 2
log-normal error                         12              %
=======================================  ==============  ==========  ========

A class is a fraction of the one before it, an activity a step above the one below: both stay in order
whatever is sampled. Weight has exponents 0.75 and 1.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk
from popk.covariates import by_class, child_pugh_class, child_pugh_score, phenotypes

COVARIATES = dict.fromkeys(("LIVER", "INR", "ASCITES", "ENCEPH", "CYP2C9"), "1")
COVARIATES |= {"BILI": "mg/dL", "ALB": "g/dL", "WT": "kg"}
PUBLISHED = {
    "CL_pop": 6.0, "V_pop": 45.0, "KA_pop": 1.2, "CL_A": 0.8, "CL_B_A": 0.625, "CL_C_B": 0.6,
    "CL_poor": 0.773, "CL_intermediate": 0.431, "omega_CL": 0.25, "omega_V": 0.2, "omega_KA": 0.4,
    "sigma_log": 0.12,
}  # fmt: skip
#: What the codes of the column CYP2C9 mean.
METABOLISM = phenotypes("CYP2C9", ["*3/*3", "*2/*3", "*1/*3", "*1/*2", "*1/*1"])


def simulated_hepatic(trial):
    """Oral drug cleared by CYP2C9: one compartment, first-order absorption."""
    of = trial.covariate
    score = child_pugh_score(
        of("BILI", unit="mg/dL"), of("ALB", unit="g/dL"), of("INR"), of("ASCITES"), of("ENCEPH"),
        bilirubin_unit="mg/dL", albumin_unit="g/dL",
    )  # fmt: skip
    A, B, C = (numpyro.sample(f"CL_{n}", dist.Beta(4, 2)) for n in ("A", "B_A", "C_B"))
    liver = by_class(jnp.where(of("LIVER") == 1, child_pugh_class(score), 0.0), A, A * B, A * B * C)
    steps = [numpyro.sample(f"CL_{n}", dist.Gamma(2, 4)) for n in ("poor", "intermediate")]
    activity = popk.covariates.monotone(METABOLISM.code, jnp.stack(steps), 2)  # of each code
    enzyme = popk.covariates.categorical(of("CYP2C9"), dict(enumerate(activity)))
    size = of("WT") / 70
    CL = numpyro.sample("CL_pop", popk.lognormal(5, cv=0.5)) * size**0.75 * liver * enzyme  # L/h
    V = numpyro.sample("V_pop", popk.lognormal(50, cv=0.5)) * size  # L
    KA = numpyro.sample("KA_pop", popk.lognormal(1, cv=0.5))  # 1/h
    p = popk.individual(trial, omega=0.4, correlated=False, CL=CL, V=V, KA=KA)
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA)  # ug/L
    popk.observe(trial, concentration, popk.lognormal_error(0.3))
