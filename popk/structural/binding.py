r"""How does drug move that its target holds? Target-mediated drug disposition (TMDD).

The ligand is an amount, as all drug is; the target (receptor) and the complex of both are
concentrations in the same molar unit, [amount/L], in the volume of the central compartment. Mass
units for the ligand would not do: one molecule of it binds one of the target.

References
----------
.. [1] Mager DE, Jusko WJ (2001). General pharmacokinetic model for drugs exhibiting
   target-mediated drug disposition. J Pharmacokinet Pharmacodyn 28:507-532.
   doi:10.1023/A:1014414520282
.. [2] Gibiansky L, Gibiansky E, Kakkar T, Ma P (2008). Approximations of the target-mediated drug
   disposition model and identifiability of model parameters. J Pharmacokinet Pharmacodyn
   35:573-591. doi:10.1007/s10928-008-9102-8
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.structural.kinetics import (
    Disposition,
    Rates,
    Scalar,
    System,
    michaelis_menten,
)


def free_concentration(
    total: Float[Array, "*#r"], receptor: Float[Array, "*#r"], K: Float[Array, "*#r"] | Any
) -> Float[Array, "*#r"]:
    r"""Return the concentration of unbound ligand where binding is always at equilibrium.

    The root :math:`C \ge 0` of :math:`C + R_{tot} C / (K + C) = L_{tot}`:

    .. math::
        C = \tfrac12 (b + \sqrt{b^2 + 4 K L_{tot}})
          = \frac{2 K L_{tot}}{\sqrt{b^2 + 4 K L_{tot}} - b}, \qquad b = L_{tot} - R_{tot} - K

    the first form where b is positive and the second elsewhere, so that nothing cancels.

    Parameters
    ----------
    total : Float[Array, "*#r"]
        Ligand, unbound and bound [amount/L].
    receptor : Float[Array, "*#r"]
        Target, unbound and bound [amount/L].
    K : Float[Array, "*#r"]
        KSS, or KD at equilibrium; positive [amount/L].

    References
    ----------
    .. [1] Gibiansky L, Gibiansky E, Kakkar T, Ma P (2008). Approximations of the target-mediated
       drug disposition model and identifiability of model parameters. J Pharmacokinet Pharmacodyn
       35:573-591. doi:10.1007/s10928-008-9102-8
    """
    b = total - receptor - K
    root = jnp.sqrt(b**2 + 4 * K * total)
    excess = b > 0
    scarce = 2 * K * total / jnp.where(excess, 1.0, root - b)
    return jnp.where(excess, (b + root) / 2, scarce)


def _baseline(p: Any) -> Rates:
    return {"receptor": p.KSYN / p.KDEG}


def tmdd(*, depot: bool, peripheral: bool) -> System:
    r"""Return target-mediated drug disposition in full: binding takes its time.

    .. math::
        \text{bound} &= k_{on} C R - k_{off} RC, \qquad C = A_c / V \\
        A_c' &= -CL\, C - V \cdot \text{bound} \dots \\
        R' &= k_{syn} - k_{deg} R - \text{bound} \\
        RC' &= \text{bound} - k_{int} RC

    `central` holds unbound ligand, `receptor` unbound target, `complex` their complex.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance of
        unbound ligand [L/time]; KON [L/amount/time] and KOFF [1/time], binding and dissociation;
        KINT, loss of the complex, KDEG, loss of the target [1/time]; KSYN, its
        synthesis [amount/L/time]. The target begins at KSYN / KDEG.

    References
    ----------
    .. [1] Mager DE, Jusko WJ (2001). General pharmacokinetic model for drugs exhibiting
       target-mediated drug disposition. J Pharmacokinet Pharmacodyn 28:507-532.
       doi:10.1023/A:1014414520282
    """
    pk = Disposition(depot, peripheral)

    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        C = pk.concentration(A, p)
        bound = p.KON * C * A.receptor - p.KOFF * A.complex
        return {
            **pk.rates(A, p, C, p.CL * C + pk.volume(p) * bound),
            "receptor": p.KSYN - p.KDEG * A.receptor - bound,
            "complex": bound - p.KINT * A.complex,
        }

    return System(
        (*pk.compartments, "receptor", "complex"),
        pk.dosed,
        rhs,
        ("CL", "KON", "KOFF", "KINT", "KDEG", "KSYN", *pk.parameters),
        _baseline,
    )


def _at_equilibrium(pk: Disposition, constant: str) -> System:
    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        K = getattr(p, constant)
        C = free_concentration(pk.concentration(A, p), A.receptor, K)
        bound = A.receptor * C / (K + C)
        return {
            **pk.rates(A, p, C, p.CL * C + pk.volume(p) * p.KINT * bound),
            "receptor": p.KSYN - p.KDEG * A.receptor - (p.KINT - p.KDEG) * bound,
        }

    return System(
        (*pk.compartments, "receptor"),
        pk.dosed,
        rhs,
        ("CL", constant, "KINT", "KDEG", "KSYN", *pk.parameters),
        _baseline,
    )


def tmdd_quasi_steady_state(*, depot: bool, peripheral: bool) -> System:
    r"""Return target-mediated drug disposition with the complex at its quasi-steady state (QSS).

    .. math::
        A_c' &= -CL\, C - V k_{int} RC \dots, \qquad RC = \frac{R_{tot} C}{K_{SS} + C} \\
        R_{tot}' &= k_{syn} - k_{deg} R_{tot} - (k_{int} - k_{deg}) RC

    `central` holds all ligand, unbound and bound, `receptor` all target, and C is
    `free_concentration` of both. :math:`K_{SS} = (k_{off} + k_{int}) / k_{on}`.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads; only unbound ligand is distributed.
        Further ones: CL, the clearance of unbound ligand [L/time]; KSS, the steady-state
        constant [amount/L]; KINT, loss of the complex, KDEG, loss of the target [1/time]; KSYN,
        its synthesis [amount/L/time]. The target begins at KSYN / KDEG.

    References
    ----------
    .. [1] Gibiansky L, Gibiansky E, Kakkar T, Ma P (2008). Approximations of the target-mediated
       drug disposition model and identifiability of model parameters. J Pharmacokinet Pharmacodyn
       35:573-591. doi:10.1007/s10928-008-9102-8
    """
    return _at_equilibrium(Disposition(depot, peripheral), "KSS")


def tmdd_quasi_equilibrium(*, depot: bool, peripheral: bool) -> System:
    r"""Return target-mediated drug disposition with binding at its quasi-equilibrium (QE).

    The equations of `tmdd_quasi_steady_state` with :math:`K_D = k_{off} / k_{on}` for
    :math:`K_{SS}`: binding and dissociation are far faster than everything else.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance of
        unbound ligand [L/time]; KD, the dissociation constant [amount/L]; KINT, KDEG [1/time] and
        KSYN [amount/L/time] as in `tmdd_quasi_steady_state`.

    References
    ----------
    .. [1] Mager DE, Krzyzanski W (2005). Quasi-equilibrium pharmacokinetic model for drugs
       exhibiting target-mediated drug disposition. Pharm Res 22:1589-1596.
       doi:10.1007/s11095-005-6650-0
    """
    return _at_equilibrium(Disposition(depot, peripheral), "KD")


def tmdd_michaelis_menten(*, depot: bool, peripheral: bool) -> System:
    r"""Return target-mediated drug disposition where the ligand far outnumbers its target.

    .. math:: A_c' = -CL\, C - \frac{V_{max} C}{K_M + C} \dots

    The target is not followed. With a total of it that stays at R0, VMAX is KINT R0 V and KM
    is KSS; with one that settles at once, :math:`R_{tot}' = 0`, VMAX is KSYN V and KM is
    KSS KDEG / KINT. The two are one where KINT = KDEG.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance of
        unbound ligand [L/time]; VMAX [amount/time] and KM [amount/L].

    References
    ----------
    .. [1] Gibiansky L, Gibiansky E, Kakkar T, Ma P (2008). Approximations of the target-mediated
       drug disposition model and identifiability of model parameters. J Pharmacokinet Pharmacodyn
       35:573-591. doi:10.1007/s10928-008-9102-8
    """
    return michaelis_menten(depot=depot, peripheral=peripheral, linear=True)
