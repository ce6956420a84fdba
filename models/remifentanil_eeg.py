"""Remifentanil and the spectral edge of the electroencephalogram: an effect compartment.

Model: Minto CF, Schnider TW, Egan TD, et al. (1997). Influence of age and gender on the
pharmacokinetics and pharmacodynamics of remifentanil: I. Model development. Anesthesiology 86:10-23.
doi:10.1097/00000542-199701000-00004 (the simple model of its abstract, without covariates)

==============================  =================  =====
parameter                       estimate           unit
==============================  =================  =====
CL, Q2, Q3                      2.46, 1.69, 0.065  L/min
V1, V2, V3                      4.98, 9.01, 6.54   L
KE0                             0.516              1/min
E0, and at the greatest effect  20, 5.62           Hz
EC50                            11.2               ng/mL
GAMMA                           2.51
==============================  =================  =====

The abstract gives no variability: its priors are weak and the paper's are not used. Random effects are
on CL, V1, KE0 and EC50. Priors of typical values: the estimates, within a third.
"""

import numpyro

import popk

PUBLISHED = {
    "CL_pop": 2.46, "V1_pop": 4.98, "Q2_pop": 1.69, "V2_pop": 9.01, "Q3_pop": 0.065, "V3_pop": 6.54,
    "KE0_pop": 0.516, "E0_pop": 20, "EMAX_pop": 14.38, "EC50_pop": 11.2, "GAMMA_pop": 2.51,
}  # fmt: skip


def _typical(name):
    return numpyro.sample(f"{name}_pop", popk.lognormal(PUBLISHED[f"{name}_pop"], cv=0.3))


def _at_effect_site(A, p):
    C = A.central / p.V1
    out2, out3 = p.Q2 * (C - A.peripheral1 / p.V2), p.Q3 * (C - A.peripheral2 / p.V3)
    effect = p.KE0 * (C - A.effect)  # a concentration, not an amount
    return -p.CL * C - out2 - out3, out2, out3, effect


def remifentanil_eeg(trial):
    """Remifentanil by infusion: three compartments, effect site, sigmoid Emax on spectral edge."""
    p = popk.individual(
        trial, omega=0.3, correlated=False,
        CL=_typical("CL"), V1=_typical("V1"),  # L/min, L
        KE0=_typical("KE0"), EC50=_typical("EC50"),  # 1/min, ng/mL
    )  # fmt: skip
    shared = {n: _typical(n) for n in ("Q2", "V2", "Q3", "V3")}
    names = ("central", "peripheral1", "peripheral2", "effect")
    A = popk.ode(trial, _at_effect_site, {**p._asdict(), **shared}, compartments=names)
    concentration = popk.concentration(trial, A.central, p.V1)  # ng/mL
    effect = popk.concentration(trial, A.effect, 1.0)
    EMAX, GAMMA, E0 = _typical("EMAX"), _typical("GAMMA"), _typical("E0")  # Hz, 1, Hz
    edge = popk.systems.sigmoid_emax(effect, -1 * EMAX, p.EC50, GAMMA, E0)  # Hz
    popk.observe(trial, concentration, popk.proportional_error(0.2), DVID=1)
    popk.observe(trial, edge, popk.additive_error(3), output="edge", DVID=2)
