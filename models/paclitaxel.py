"""Paclitaxel and leukocytes: chemotherapy that stops the cells that blood cells come from.

Model: Friberg LE, Henningsson A, Maas H, Nguyen L, Karlsson MO (2002). Model of chemotherapy-induced
myelosuppression with parameter consistency across drugs. J Clin Oncol 20:4713-4721.
doi:10.1200/JCO.2002.02.140 (leukocytes and paclitaxel; with all digits: DDMoRe model repository,
DDMODEL00000186)

======================  ========  ======  ========
parameter               estimate  unit    IIV, CV%
======================  ========  ======  ========
CIRC0, leukocytes       7.21      10^9/L  34
MTT, mean transit time  124       h       17
SLOPE                   28.9      L/umol  44
GAMMA, feedback         0.239
proportional error      28.6      %
CL, Q of unbound drug   285, 204  L/h
V1, V2 of unbound drug  290, 995  L
======================  ========  ======  ========

The paper took each patient's own pharmacokinetics as known. Here they are estimated, around the medians
of the repository's patients and with weak priors: these four rows are not the paper's estimates.
Amounts are in umol of paclitaxel (853.9 g/mol), concentrations those of unbound drug.
"""

import numpyro

import popk

PUBLISHED = {
    "CL_pop": 285, "V1_pop": 290, "Q_pop": 204, "V2_pop": 995, "CIRC0_pop": 7.21, "MTT_pop": 124,
    "SLOPE_pop": 28.9, "GAMMA_pop": 0.239, "omega_CIRC0": 0.327, "omega_MTT": 0.172,
    "omega_SLOPE": 0.42, "sigma_proportional_cells": 0.286,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def paclitaxel(trial):
    """Paclitaxel by infusion: two compartments, and Friberg's model of leukocytes."""
    p = popk.individual(
        trial, omega=0.3, correlated=False,
        CL=_typical("CL"), V1=_typical("V1"), V2=_typical("V2"),  # L/h, L
        CIRC0=_typical("CIRC0"), MTT=_typical("MTT"), SLOPE=_typical("SLOPE"),
    )  # fmt: skip
    shared = {"Q": _typical("Q"), "GAMMA": _typical("GAMMA")}  # L/h, 1
    system = popk.systems.myelosuppression(depot=False, peripheral=True)
    A = popk.ode(trial, system, {**p._asdict(), **shared})
    concentration = popk.concentration(trial, A.central, p.V1)  # umol/L
    popk.observe(trial, concentration, popk.proportional_error(0.3), DVID=1)
    popk.observe(trial, A.circ, popk.proportional_error(0.4), output="cells", DVID=2)  # 10^9/L
