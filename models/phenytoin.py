"""Phenytoin by mouth in patients with epilepsy: saturable (Michaelis-Menten) elimination.

Model: Grasela TH, Sheiner LB, Rambeck B, et al. (1983). Steady-state pharmacokinetics of phenytoin
from routinely collected patient data. Clin Pharmacokinet 8:355-364.
doi:10.2165/00003088-198308040-00006

=================  ========  ===============  ========
parameter          estimate  unit             IIV, CV%
=================  ========  ===============  ========
VMAX               415       mg/day at 70 kg  10 to 20
KM                 5.7       mg/L             about 50
VMAX, power of WT  0.6
=================  ========  ===============  ========

For Europeans of 15 years and more; the paper has a KM lower by 43% in children and by 23% in Japanese
patients, left out here. Its levels are at steady state, so it has neither volume nor absorption: V
0.65 L/kg and KA 0.5 1/h are usual values with weak priors, and not the paper's. Residual error: weak.
"""

import numpyro

import popk

COVARIATES = {"WT": "kg"}
PUBLISHED = {
    "VMAX_pop": 415 / 24, "KM_pop": 5.7, "V_pop": 0.65, "KA_pop": 0.5,
    "omega_VMAX": 0.15, "omega_KM": 0.47,
}  # fmt: skip


def phenytoin(trial):
    """Oral phenytoin: one compartment, saturable elimination, VMAX by weight."""
    weight = trial.covariate("WT")
    VMAX = numpyro.sample("VMAX_pop", popk.lognormal(415 / 24, cv=0.2))  # mg/h at 70 kg
    KM = numpyro.sample("KM_pop", popk.lognormal(5.7, cv=0.3))  # mg/L
    V = numpyro.sample("V_pop", popk.lognormal(0.65, cv=0.2))  # L/kg
    KA = numpyro.sample("KA_pop", popk.lognormal(0.5, cv=0.5))  # 1/h
    p = popk.individual(
        trial, omega={"VMAX": 0.15, "KM": 0.5}, correlated=False,
        VMAX=VMAX * (weight / 70) ** 0.6, KM=KM,
    )  # fmt: skip
    V = V * weight
    system = popk.systems.michaelis_menten(depot=True, peripheral=False, linear=False)
    A = popk.ode(trial, system, {**p._asdict(), "V": V, "KA": KA})
    popk.observe(
        trial, popk.concentration(trial, A.central, V), popk.combined_error(1, 0.2)
    )  # mg/L
