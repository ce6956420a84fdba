"""Propofol in adult volunteers: three compartments, by age, weight, height and lean body mass.

Model: Schnider TW, Minto CF, Gambus PL, et al. (1998). The influence of method of administration and
covariates on the pharmacokinetics of propofol in adult volunteers. Anesthesiology 88:1170-1182.
doi:10.1097/00000542-199805000-00006

=========  =========================================================  =====
parameter  estimate                                                   unit
=========  =========================================================  =====
CL         1.89 + 0.0456 (WT-77) - 0.0681 (LBM-59) + 0.0264 (HT-177)  L/min
V1         4.27                                                       L
Q2         1.29 - 0.024 (AGE-53)                                      L/min
V2         18.9 - 0.391 (AGE-53)                                      L
Q3         0.836                                                      L/min
V3         238                                                        L
=========  =========================================================  =====

Variability is not the paper's: CL, V1 and V2 vary between people with weak priors. The four
coefficients of CL are held fixed, as pumps for target-controlled infusion hold them.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"AGE": "year", "WT": "kg", "HT": "cm", "LBM": "kg"}
PUBLISHED = {
    "CL_pop": 1.89, "V1_pop": 4.27, "Q2_pop": 1.29, "Q2_AGE": -0.024,
    "V2_pop": 18.9, "V2_AGE": -0.391, "Q3_pop": 0.836, "V3_pop": 238,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def propofol(trial):
    """Intravenous propofol: three compartments of Schnider's model."""
    age, weight = trial.covariate("AGE") - 53, trial.covariate("WT") - 77
    lean, height = trial.covariate("LBM") - 59, trial.covariate("HT") - 177
    CL, Q2, V2 = _typical("CL"), _typical("Q2"), _typical("V2")
    size = (0.0456 * weight - 0.0681 * lean + 0.0264 * height) / 1.89
    Q2_older = Q2 + numpyro.sample("Q2_AGE", dist.Normal(-0.024, 0.005)) * age  # L/min
    V2_older = V2 + numpyro.sample("V2_AGE", dist.Normal(-0.391, 0.1)) * age  # L
    p = popk.individual(
        trial, omega=0.3, correlated=False, V1=_typical("V1"),
        CL=CL * jnp.maximum(1 + size, 0.1), V2=jnp.maximum(V2_older, V2 / 10),
    )  # fmt: skip
    concentration = popk.three_compartment(
        trial, CL=p.CL, V1=p.V1, V2=p.V2, Q2=jnp.maximum(Q2_older, Q2 / 10),
        Q3=_typical("Q3"), V3=_typical("V3"),
    )  # mg/L  # fmt: skip
    popk.observe(trial, concentration, popk.proportional_error(0.3))
