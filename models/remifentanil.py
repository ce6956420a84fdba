"""Remifentanil in 65 healthy adults: three compartments, by age and lean body mass.

Data and model: Minto CF, Schnider TW, Egan TD, et al. (1997). Influence of age and gender on the
pharmacokinetics and pharmacodynamics of remifentanil: I. Model development. Anesthesiology 86:10-23.
doi:10.1097/00000542-199701000-00004 (the levels are nlme's Remifentanil, data/remifentanil.csv)

=========  =======================================  =====  ========
parameter  estimate                                 unit   IIV, CV%
=========  =======================================  =====  ========
CL         2.6 - 0.0162 (AGE-40) + 0.0191 (LBM-55)  L/min  21
V1         5.1 - 0.0201 (AGE-40) + 0.072 (LBM-55)   L      41
Q2         2.05 - 0.0301 (AGE-40)                   L/min  42
V2         9.82 - 0.0811 (AGE-40) + 0.108 (LBM-55)  L      36
Q3         0.076 - 0.00113 (AGE-40)                 L/min
V3         5.42                                     L
log error  0.14
=========  =======================================  =====  ========

The typical values are the paper's; IIV and error come from a fit of these data without covariates
(data/remifentanil.toml). Priors: the estimates, within a third; no parameter falls below a tenth.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"AGE": "year", "LBM": "kg"}
PUBLISHED = {
    "CL_pop": 2.6, "CL_AGE": -0.0162, "CL_LBM": 0.0191, "V1_pop": 5.1, "V1_AGE": -0.0201,
    "V1_LBM": 0.072, "Q2_pop": 2.05, "Q2_AGE": -0.0301, "V2_pop": 9.82, "V2_AGE": -0.0811,
    "V2_LBM": 0.108, "Q3_pop": 0.076, "Q3_AGE": -0.00113, "V3_pop": 5.42, "omega_CL": 0.206,
    "omega_V1": 0.396, "omega_Q2": 0.399, "omega_V2": 0.353, "sigma_log": 0.14,
}  # fmt: skip


def remifentanil(trial):
    """Remifentanil by infusion: three compartments, linear in age and lean body mass."""
    differs = {"AGE": trial.covariate("AGE") - 40, "LBM": trial.covariate("LBM") - 55}

    def typical(name, value, **slopes):
        center = value = numpyro.sample(f"{name}_pop", popk.lognormal(value, cv=0.3))
        for covariate, slope in slopes.items():
            prior = dist.Normal(slope, abs(slope) / 3)
            value = value + numpyro.sample(f"{name}_{covariate}", prior) * differs[covariate]
        return jnp.maximum(value, center / 10)

    p = popk.individual(
        trial, correlated=False, CL=typical("CL", 2.6, AGE=-0.0162, LBM=0.0191),
        V1=typical("V1", 5.1, AGE=-0.0201, LBM=0.072), Q2=typical("Q2", 2.05, AGE=-0.0301),
        V2=typical("V2", 9.82, AGE=-0.0811, LBM=0.108),
    )  # fmt: skip
    Q3, V3 = typical("Q3", 0.076, AGE=-0.00113), typical("V3", 5.42)  # L/min, L
    concentration = popk.three_compartment(trial, Q3=Q3, V3=V3, **p._asdict())  # ng/mL
    popk.observe(trial, concentration, popk.lognormal_error(0.2))
