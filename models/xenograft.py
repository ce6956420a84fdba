"""Paclitaxel and the weight of tumors in mice: growth, damage and delayed death of cells.

Model: Simeoni M, Magni P, Cammia C, et al. (2004). Predictive pharmacokinetic-pharmacodynamic
modeling of tumor growth kinetics in xenograft models after administration of anticancer agents.
Cancer Res 64:1094-1101. doi:10.1158/0008-5472.CAN-03-2524, Table 2, paclitaxel, experiment 1

==============================  ============  ==============
parameter                       estimate      unit
==============================  ============  ==============
LAMBDA0, exponential growth     0.273         1/day
LAMBDA1, linear growth          0.814         g/day
K1, death of damaged cells      0.968         1/day
K2, potency                     0.000629      mL/ng/day
W0, weight at the first record  0.055         g
CL = 0.868 1/h times V1         16.9          L/day/kg
V1                              0.81          L/kg
Q, V2: 0.0060 and 0.0838 1/h    0.117, 0.058  L/day/kg, L/kg
==============================  ============  ==============

Check W0 and the drug's four parameters against the paper before you rely on them: they are quoted
second-hand. The paper fits mean curves: random effects on W0, LAMBDA0 and K2 and the error have
weak priors of popk's own. Amounts are in mg/kg; K2 is in L/mg/day here. Priors: within a third.
"""

import numpyro

import popk

PUBLISHED = {
    "LAMBDA0_pop": 0.273, "LAMBDA1_pop": 0.814, "K1_pop": 0.968, "K2_pop": 0.629, "W0_pop": 0.055,
    "CL_pop": 16.9, "V1_pop": 0.81, "Q_pop": 0.117, "V2_pop": 0.058,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def xenograft(trial):
    """Intravenous paclitaxel in mice: two compartments, and Simeoni's model of tumor growth."""
    p = popk.individual(
        trial, omega=0.3, correlated=False,
        W0=_typical("W0"), LAMBDA0=_typical("LAMBDA0"), K2=_typical("K2"),  # g, 1/day, L/mg/day
    )  # fmt: skip
    shared = {n: _typical(n) for n in ("LAMBDA1", "K1", "CL", "V1", "Q", "V2")}
    system = popk.systems.tumor_growth_inhibition(depot=False, peripheral=True)
    A = popk.ode(trial, system, {**p._asdict(), **shared})
    weight = A.proliferating + A.damaged1 + A.damaged2 + A.damaged3  # g
    popk.observe(trial, weight, popk.combined_error(additive=0.1, proportional=0.2))
