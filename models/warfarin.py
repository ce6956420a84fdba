"""Warfarin and prothrombin complex activity (PCA): turnover whose production the drug inhibits.

Data: O'Reilly RA, Aggeler PM, Leong LS (1963). J Clin Invest 42:1542-1551. doi:10.1172/JCI104839;
O'Reilly RA, Aggeler PM (1968). Circulation 38:169-177. doi:10.1161/01.CIR.38.1.169
Estimates: Nguyen THT, Mouksassi MS, Holford N, et al. (2017). Model evaluation of continuous data
pharmacometric models: metrics and graphics. CPT Pharmacometrics Syst Pharmacol 6:87-109.
doi:10.1002/psp4.12161 (the NONMEM files of its example; drug first, then the response given the drug)

==========================  ===========  =======  ========
parameter                   estimate     unit     IIV, CV%
==========================  ===========  =======  ========
CL, V at 70 kg              0.131, 8.06  L/h, L   26, 14
TABS, absorption half-life  0.944        h        75
TLAG                        1.03         h        60
E0, baseline of PCA         95.9         %        4.5
C50                         1.17         mg/L     38
TEQ, half-life of PCA       13.3         h        12
additive error: drug, PCA   0.367, 3.73  mg/L, %
proportional error: drug    6.9          %
==========================  ===========  =======  ========

The drug can stop production entirely. Weight has exponents 0.75 and 1. Priors: within a third.
"""

import math

import numpyro

import popk

COVARIATES = {"WT": "kg"}
PUBLISHED = {
    "CL_pop": 0.131, "V_pop": 8.06, "TABS_pop": 0.944, "TLAG_pop": 1.03, "E0_pop": 95.9,
    "C50_pop": 1.17, "TEQ_pop": 13.3, "omega_CL": 0.255, "omega_V": 0.142, "omega_TABS": 0.669,
    "omega_TLAG": 0.558, "omega_E0": 0.0446, "omega_C50": 0.369, "omega_TEQ": 0.12,
    "sigma_additive": 0.367, "sigma_proportional": 0.0691, "sigma_additive_pca": 3.73,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def warfarin(trial):
    """Oral warfarin: one compartment with lag time, and turnover of PCA (indirect response I)."""
    size = trial.covariate("WT") / 70
    p = popk.individual(
        trial, omega={"E0": 0.1, "TEQ": 0.2},
        CL=_typical("CL") * size**0.75, V=_typical("V") * size,  # L/h, L
        TABS=_typical("TABS"), TLAG=_typical("TLAG"),  # h
        E0=_typical("E0"), C50=_typical("C50"), TEQ=_typical("TEQ"),  # %, mg/L, h
    )  # fmt: skip
    KA, KOUT = math.log(2) / p.TABS, math.log(2) / p.TEQ
    response = {"KIN": p.E0 * KOUT, "KOUT": KOUT, "IMAX": 1.0, "IC50": p.C50}
    system = popk.systems.indirect_response("I", depot=True)
    A = popk.ode(trial, system, {"CL": p.CL, "V": p.V, "KA": KA, **response}, lag={"depot": p.TLAG})
    concentration = popk.concentration(trial, A.central, p.V)  # mg/L
    popk.observe(trial, concentration, popk.combined_error(additive=0.5, proportional=0.2), DVID=1)
    popk.observe(trial, A.response, popk.additive_error(5), output="pca", DVID=2)  # %
