"""Phenobarbital in 59 newborns: how do clearance and volume change with weight and Apgar score?

Data and model: Grasela TH, Donn SM (1985). Neonatal population pharmacokinetics of phenobarbital
derived from routine clinical data. Dev Pharmacol Ther 8:374-383. doi:10.1159/000457062. That of
phenobarbital.py takes both as proportional to weight, and the score to change volume alone; here the
exponents and both effects of a score below 5 are estimated.

Priors: weakly informative; exponents around proportionality, effects of the score around none.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk
from popk.covariates import power


def phenobarbital_covariates(trial):
    """Intravenous phenobarbital in newborns: CL and V by powers of weight and by Apgar score."""
    weight, low = trial.covariate("WT"), trial.covariate("APGR") < 5

    def typical(name, median):
        center = numpyro.sample(f"{name}_pop", popk.lognormal(median, cv=0.5))
        exponent = numpyro.sample(f"{name}_WT", dist.Normal(1.0, 0.5))
        score = numpyro.sample(f"{name}_low_apgar", dist.Normal(0.0, 0.5))  # log of a factor
        return center * power(weight, exponent, 1.3) * jnp.exp(jnp.where(low, score, 0.0))

    p = popk.individual(trial, CL=typical("CL", 0.006), V=typical("V", 1.3))  # L/h, L at 1.3 kg
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V)  # mg/L
    popk.observe(trial, concentration, popk.proportional_error(0.2))
