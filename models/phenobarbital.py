"""Phenobarbital in 59 newborns: several intravenous doses, one to six levels each.

Data and model: Grasela TH, Donn SM (1985). Neonatal population pharmacokinetics of phenobarbital
derived from routine clinical data. Dev Pharmacol Ther 8:374-383. doi:10.1159/000457062

Priors: weakly informative around a newborn's clearance of 5 mL/h/kg and volume of 1 L/kg; the
effect of a low Apgar score is centered on none.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk


def phenobarbital(trial):
    """Intravenous phenobarbital in newborns: CL and V by weight, V by Apgar score below 5."""
    weight, apgar = trial.covariate("WT"), trial.covariate("APGR")
    CL = numpyro.sample("CL_pop", popk.lognormal(0.005, cv=0.5))  # L/h/kg
    V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.5))  # L/kg
    low_apgar = numpyro.sample("V_low_apgar", dist.Normal(0.0, 0.5))  # fraction of V
    asphyxia = jnp.where(apgar < 5, low_apgar, 0.0)
    p = popk.individual(trial, CL=CL * weight, V=V * weight * (1 + asphyxia))
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V)  # mg/L
    popk.observe(trial, concentration, popk.proportional_error(0.2))
