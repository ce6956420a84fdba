"""Morphine and its glucuronides in newborns, infants and toddlers: a drug with two metabolites.

Model: Knibbe CAJ, Krekels EHJ, van den Anker JN, et al. (2009). Morphine glucuronidation in preterm
neonates, infants and children younger than 3 years. Clin Pharmacokinet 48:371-385.
doi:10.2165/00003088-200948060-00003 (estimates: DDMODEL00000248, the run with further patients)

=====================================  ===================  ==============  ========
parameter                              estimate             unit            IIV, CV%
=====================================  ===================  ==============  ========
CLF3, to M3G: up to 10 days, older     3.09, 8.25           mL/min/kg^1.44  33
CLF6, to M6G: up to 10 days, older     0.408, 0.699         mL/min/kg^1.44
CL3, CL6: M3G, M6G eliminated          2.19, 1.11           mL/min/kg^1.44  54, 45
V of both compartments of morphine, Q  1.99, 28.9           L/kg, mL/min    51
VM, volume of a glucuronide            0.119                of V
log error: morphine, M3G, M6G          0.609, 0.454, 0.311
=====================================  ===================  ==============  ========

PNA is age since birth; amounts of glucuronides count the morphine in them. Priors: within a third.
"""

import jax.numpy as jnp
import numpyro

import popk

COVARIATES = {"WT": "kg", "PNA": "day"}
PUBLISHED = {
    "CLF3_pop": 0.00309, "CLF3_older_pop": 0.00825, "CLF6_pop": 0.000408, "CLF6_older_pop": 0.000699,
    "CL3_pop": 0.00219, "CL6_pop": 0.00111, "V_pop": 1.99, "Q_pop": 0.0289, "VM_pop": 0.119,
    "omega_CLF3": 0.322, "omega_V": 0.48, "omega_CL3": 0.508, "omega_CL6": 0.43,
    "sigma_log": 0.609, "sigma_log_m3g": 0.454, "sigma_log_m6g": 0.311,
}  # fmt: skip
_COMPARTMENTS = ("central", "peripheral1", "m3g", "m6g")


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def _rates(p):
    between = {("central", "peripheral1"): p.Q / p.V, ("peripheral1", "central"): p.Q / p.V}
    formed = {("central", "m3g"): p.CLF3 / p.V, ("central", "m6g"): p.CLF6 / p.V}
    return {**between, **formed, ("m3g", None): p.CL3 / p.VM, ("m6g", None): p.CL6 / p.VM}


def morphine(trial):
    """Intravenous morphine: two compartments, and one each for M3G and M6G."""
    size, newborn = trial.covariate("WT") ** 1.44, trial.covariate("PNA") <= 10
    V, Q = _typical("V") * trial.covariate("WT"), _typical("Q")  # L, L/min
    CLF3 = jnp.where(newborn, _typical("CLF3"), _typical("CLF3_older")) * size  # L/min
    CLF6 = jnp.where(newborn, _typical("CLF6"), _typical("CLF6_older")) * size
    CL3, CL6 = _typical("CL3") * size, _typical("CL6") * size
    p = popk.individual(trial, correlated=False, CLF3=CLF3, V=V, CL3=CL3, CL6=CL6)
    VM = _typical("VM") * p.V
    parameters = {**p._asdict(), "Q": Q, "CLF6": CLF6, "VM": VM}
    A = popk.linear(trial, _rates, parameters, compartments=_COMPARTMENTS)
    kinds = ((None, A.central, p.V), ("m3g", A.m3g, VM), ("m6g", A.m6g, VM))
    for DVID, (output, amount, volume) in enumerate(kinds, start=1):
        level = popk.concentration(trial, amount, volume)  # ng/mL
        popk.observe(trial, level, popk.lognormal_error(0.5), output=output, DVID=DVID)
