"""Mavrilimumab, an antibody that its target (the GM-CSF receptor) clears: TMDD at quasi-steady state.

Estimates: Stein AM, Peletier LA (2018). Predicting the onset of nonlinear pharmacokinetics. CPT
Pharmacometrics Syst Pharmacol 7:670-677. doi:10.1002/psp4.12316, Table 1; levels of Burmester GR,
Feist E, Sleeman MA, et al. (2011). Ann Rheum Dis 70:1542-1549.

=======================  ========  ==========
parameter                estimate  unit
=======================  ========  ==========
CL                       0.3       L/day
V1, V2                   2.8, 5.6  L
Q                        1.7       L/day
KSYN                     2.4       nmol/L/day
KDEG, and KINT the same  2.2       1/day
KSS                      1.1       nmol/L
=======================  ========  ==========

Amounts are in nmol (150 kDa: 1 mg is 6.67 nmol), levels those of unbound antibody. The article
fits mean curves and gives no variability: random effects on CL, V1 and KSYN, and the error, have
weak priors of popk's own. Priors of typical values: the estimates, within a third.
"""

import numpyro

import popk

PUBLISHED = {
    "CL_pop": 0.3, "V1_pop": 2.8, "Q_pop": 1.7, "V2_pop": 5.6, "KSYN_pop": 2.4, "KDEG_pop": 2.2,
    "KSS_pop": 1.1,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def mavrilimumab(trial):
    """Intravenous mavrilimumab: two compartments and target-mediated disposition (QSS)."""
    p = popk.individual(
        trial, omega=0.3, correlated=False,
        CL=_typical("CL"), V1=_typical("V1"), KSYN=_typical("KSYN"),  # L/day, L, nmol/L/day
    )  # fmt: skip
    KDEG, KSS = _typical("KDEG"), _typical("KSS")  # 1/day, nmol/L
    shared = {"Q": _typical("Q"), "V2": _typical("V2"), "KDEG": KDEG, "KINT": KDEG, "KSS": KSS}
    system = popk.systems.tmdd_quasi_steady_state(depot=False, peripheral=True)
    A = popk.ode(trial, system, {**p._asdict(), **shared})
    free = popk.systems.free_concentration(A.central / p.V1, A.receptor, KSS)  # nmol/L
    popk.observe(trial, free, popk.proportional_error(0.3))
