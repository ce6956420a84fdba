"""Zanubrutinib by mouth: zero-order, then first-order absorption.

Model: Ou YC, Liu L, Tariq B, et al. (2021). Population pharmacokinetic analysis of the BTK inhibitor
zanubrutinib in healthy volunteers and patients with B-cell malignancies. Clin Transl Sci 14:764-772.
doi:10.1111/cts.12948

================================  ========  =====  ========
parameter                         estimate  unit   IIV, CV%
================================  ========  =====  ========
CL: patients, healthy volunteers  170, 118  L/h    37
CL, power of ALT / 18             -0.189
V1                                112       L      37
Q                                 26.5      L/h    102
V2                                345       L      86
D, zero-order input               1.128     h      62
KA                                0.526     1/h
additive error                    0.633     ng/mL
proportional error                45        %
================================  ========  =====  ========

CL, V and Q are apparent; ALT is in U/L. Simplified: the paper's error is additive alone (8.69 ng/mL) up
to 5 h after a dose; left out is variability between occasions (CL 29%, V1 68%, D 62%).
Priors: the estimates, within a third.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk

COVARIATES = {"ALT": "1", "HEALTHY": "1"}
PUBLISHED = {
    "CL_pop": 170, "CL_HEALTHY": -0.365, "CL_ALT": -0.189, "V1_pop": 112, "Q_pop": 26.5, "V2_pop": 345,
    "D_pop": 1.128, "KA_pop": 0.526, "omega_CL": 0.367, "omega_V1": 0.371, "omega_Q": 1.02,
    "omega_V2": 0.864, "omega_D": 0.623, "sigma_additive": 0.633, "sigma_proportional": 0.449,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def zanubrutinib(trial):
    """Oral zanubrutinib: two compartments, sequential zero- and first-order absorption."""
    liver, healthy = jnp.log(trial.covariate("ALT") / 18), trial.covariate("HEALTHY")
    log_healthy = numpyro.sample("CL_HEALTHY", dist.Normal(-0.365, 0.15))  # log(118 / 170)
    power = numpyro.sample("CL_ALT", dist.Normal(-0.189, 0.1))
    p = popk.individual(
        trial, correlated=False,
        CL=_typical("CL") * jnp.exp(log_healthy * healthy + power * liver), Q=_typical("Q"),  # L/h
        V1=_typical("V1"), V2=_typical("V2"), D=_typical("D"),  # L, h
    )  # fmt: skip
    concentration = popk.two_compartment(
        trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2, KA=_typical("KA"),
        absorption=popk.zero_order(D=p.D),
    )  # ng/mL  # fmt: skip
    popk.observe(trial, concentration, popk.combined_error(additive=1, proportional=0.4))
