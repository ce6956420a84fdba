r"""How does drug move when it is not plain compartments? Saturable, induced, recycled, collected.

A right-hand side is ``rhs(t, A, p)``, for one person: `A` has the amount in each compartment as an
attribute, `p` the parameters, and it gives the rate of change of every compartment by name. Doses
and infusions are none of its business: they are added by whoever integrates it.

Units throughout: amounts in [amount], volumes in [L], concentrations in [amount/L]. Without a
peripheral compartment the volume is `V`; with one it is `V1`, beside `Q` and `V2`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Rates = dict[str, Scalar]


class System(NamedTuple):
    """Compartments and the equations that move what is in them.

    Attributes
    ----------
    compartments : tuple of str
        Their names, in the order of NONMEM's numbers (1, 2, ...).
    dosed : str
        The compartment that doses go to where CMT is 0.
    rhs : Callable
        ``rhs(t, A, p)`` gives the rate of change of every compartment by name.
    parameters : tuple of str
        The names that `rhs` and `initial` read from `p`.
    initial : Callable
        ``initial(p)`` gives the amounts before the first dose by name; a compartment that it
        leaves out is empty.
    """

    compartments: tuple[str, ...]
    dosed: str
    rhs: Callable[[Scalar, Any, Any], Rates]
    parameters: tuple[str, ...]
    initial: Callable[[Any], Rates]


def empty(p: Any) -> Rates:
    """Return the initial amounts of a system that holds nothing before its first dose.

    Parameters
    ----------
    p : object
        The parameters, of which none is read.
    """
    del p
    return {}


class Disposition(NamedTuple):
    r"""First-order absorption and distribution, which the systems of this room share.

    .. math::
        A_d' &= -k_a A_d \\
        A_c' &= k_a A_d - Q (C - A_p / V_2) - \text{eliminated}, \qquad C = A_c / V \\
        A_p' &= Q (C - A_p / V_2)

    Attributes
    ----------
    depot : bool
        Whether doses are absorbed, with KA [1/time].
    peripheral : bool
        Whether drug is distributed, with Q [L/time] between V1 and V2 [L]; if not, V [L].

    References
    ----------
    .. [1] Gibaldi M, Perrier D (1982). Pharmacokinetics, 2nd edition. doi:10.1201/b14095
    """

    depot: bool
    peripheral: bool

    @property
    def compartments(self) -> tuple[str, ...]:
        """The compartments, in the order of NONMEM's numbers."""
        return (
            *(("depot",) if self.depot else ()),
            "central",
            *(("peripheral1",) if self.peripheral else ()),
        )

    @property
    def dosed(self) -> str:
        """The compartment that doses go to where CMT is 0."""
        return "depot" if self.depot else "central"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of volumes, intercompartmental clearance and absorption rate constant."""
        return (
            *(("V1", "Q", "V2") if self.peripheral else ("V",)),
            *(("KA",) if self.depot else ()),
        )

    def volume(self, p: Any) -> Scalar:
        """Return the volume of the central compartment [L]."""
        return p.V1 if self.peripheral else p.V

    def concentration(self, A: Any, p: Any) -> Scalar:
        """Return the concentration in the central compartment [amount/L]."""
        return A.central / self.volume(p)

    def rates(self, A: Any, p: Any, C: Scalar, eliminated: Scalar) -> Rates:
        """Return the rate of change of each compartment.

        Parameters
        ----------
        A, p : object
            Amounts and parameters.
        C : Float[Array, ""]
            The concentration that distributes: that of unbound drug where some is bound [amount/L].
        eliminated : Float[Array, ""]
            What leaves the central compartment for good [amount/time].
        """
        rates, central = {}, -eliminated
        if self.depot:
            absorbed = p.KA * A.depot
            rates["depot"], central = -absorbed, central + absorbed
        if self.peripheral:
            distributed = p.Q * (C - A.peripheral1 / p.V2)
            rates["peripheral1"], central = distributed, central - distributed
        return {**rates, "central": central}


def driven(
    pk: Disposition,
    compartments: tuple[str, ...],
    parameters: tuple[str, ...],
    response: Callable[[Scalar, Any, Any, Scalar], Rates],
    initial: Callable[[Any], Rates] = empty,
) -> System:
    """Return a system of linear pharmacokinetics and what its concentration drives.

    Parameters
    ----------
    pk : Disposition
        Absorption and distribution; elimination is CL [L/time] times the concentration.
    compartments : tuple of str
        The compartments of the response, which come after those of the drug.
    parameters : tuple of str
        The names that the response reads, beside those of the drug.
    response : Callable
        ``response(t, A, p, C)`` gives their rates of change.
    initial : Callable
        ``initial(p)`` gives their amounts before the first dose.
    """

    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        C = pk.concentration(A, p)
        return {**pk.rates(A, p, C, p.CL * C), **response(t, A, p, C)}

    return System(
        (*pk.compartments, *compartments),
        pk.dosed,
        rhs,
        ("CL", *pk.parameters, *parameters),
        initial,
    )


def michaelis_menten(*, depot: bool, peripheral: bool, linear: bool) -> System:
    r"""Return saturable elimination, alone or beside a linear clearance.

    .. math:: \text{eliminated} = \frac{V_{max} C}{K_M + C} + CL\, C, \qquad C = A_c / V

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads.
    linear : bool
        Whether there is a linear clearance CL [L/time] too. VMAX [amount/time] is the
        greatest saturable rate, KM [amount/L] the concentration at half of it.

    References
    ----------
    .. [1] Wagner JG (1973). Properties of the Michaelis-Menten equation and its integrated form
       which are useful in pharmacokinetics. J Pharmacokinet Biopharm 1:103-121.
       doi:10.1007/BF01059625
    """
    pk = Disposition(depot, peripheral)

    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        C = pk.concentration(A, p)
        saturable = p.VMAX * C / (p.KM + C)
        return pk.rates(A, p, C, saturable + p.CL * C if linear else saturable)

    clearance = ("CL",) if linear else ()
    return System(pk.compartments, pk.dosed, rhs, (*clearance, "VMAX", "KM", *pk.parameters), empty)


def autoinduction(*, depot: bool, peripheral: bool) -> System:
    r"""Return a clearance that the drug itself induces, by a pool of enzyme that turns over.

    .. math::
        E' = k_{ENZ} \left(1 + \frac{E_{max} C}{EC_{50} + C}\right) - k_{ENZ} E, \quad E(0) = 1,
        \qquad \text{eliminated} = CL\, E\, C

    The compartment `enzyme` holds E, relative to its amount before treatment.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance before
        induction [L/time]; KENZ, the enzyme's turnover rate constant [1/time]; EMAX, the greatest
        relative increase of its formation; EC50, the concentration at half of it [amount/L].

    References
    ----------
    .. [1] Smythe W, Khandelwal A, Merle C, et al. (2012). A semimechanistic
       pharmacokinetic-enzyme turnover model for rifampin autoinduction in adult tuberculosis
       patients. Antimicrob Agents Chemother 56:2091-2098. doi:10.1128/AAC.05792-11
    """
    pk = Disposition(depot, peripheral)

    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        C = pk.concentration(A, p)
        formed = 1 + p.EMAX * C / (p.EC50 + C)
        enzyme = p.KENZ * (formed - A.enzyme)
        return {**pk.rates(A, p, C, p.CL * A.enzyme * C), "enzyme": enzyme}

    def initial(p: Any) -> Rates:
        return {"enzyme": jnp.ones_like(p.CL)}

    return System(
        (*pk.compartments, "enzyme"),
        pk.dosed,
        rhs,
        ("CL", "KENZ", "EMAX", "EC50", *pk.parameters),
        initial,
    )


def parent_metabolite(*, depot: bool, peripheral: bool) -> System:
    r"""Return a drug and its metabolite, some of which is formed on the first pass.

    .. math::
        A_c' &= F_P k_a A_d - CL\, C - \dots \\
        A_m' &= (1 - F_P) k_a A_d + F_M\, CL\, C - CL_M A_m / V_M

    Linear. Amounts of both are in moles, or in the parent's mass that they came from.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the parent's clearance
        [L/time]; FM, the fraction of it that forms the metabolite; CLM [L/time] and VM [L],
        the metabolite's clearance and volume; with a depot FP, the fraction of absorbed drug
        that reaches the circulation as the parent.

    References
    ----------
    .. [1] Bertrand J, Laffont CM, Mentre F, Chenel M, Comets E (2011). Development of a complex
       parent-metabolite joint population pharmacokinetic model. AAPS J 13:390-404.
       doi:10.1208/s12248-011-9282-9
    """
    pk = Disposition(depot, peripheral)

    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        C = pk.concentration(A, p)
        eliminated = p.CL * C
        formed = p.FM * eliminated
        if depot:
            first_pass = (1 - p.FP) * p.KA * A.depot
            eliminated, formed = eliminated + first_pass, formed + first_pass
        return {
            **pk.rates(A, p, C, eliminated),
            "metabolite": formed - p.CLM * A.metabolite / p.VM,
        }

    extraction = ("FP",) if depot else ()
    return System(
        (*pk.compartments, "metabolite"),
        pk.dosed,
        rhs,
        ("CL", "FM", "CLM", "VM", *extraction, *pk.parameters),
        empty,
    )


def enterohepatic(*, depot: bool, peripheral: bool) -> System:
    r"""Return drug that is excreted into the bile and absorbed again from the gut.

    .. math::
        A_c' &= -CL\, C - k_{CB} A_c + F_R k_G A_g \;(\text{without a depot}) \dots \\
        A_b' &= k_{CB} A_c - k_{BG} A_b \\
        A_g' &= k_{BG} A_b - k_G A_g

    Linear. What is reabsorbed joins the depot, to be absorbed as a dose is, or without a depot
    the central compartment; the rest of what leaves the gut is lost. Over all time
    :math:`AUC = F \cdot dose / (CL + k_{CB} V (1 - F_R))`.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance by other
        ways than bile [L/time]; KCB, KBG and KG, the rate constants from central to bile, from bile
        to gut and out of the gut [1/time]; FR, the fraction of what leaves the gut that is
        reabsorbed.

    References
    ----------
    .. [1] Roberts MS, Magnusson BM, Burczynski FJ, Weiss M (2002). Enterohepatic circulation:
       physiological, pharmacokinetic and clinical implications. Clin Pharmacokinet 41:751-790.
       doi:10.2165/00003088-200241100-00005
    """
    pk = Disposition(depot, peripheral)

    def rhs(t: Scalar, A: Any, p: Any) -> Rates:
        C = pk.concentration(A, p)
        excreted, emptied, passed = p.KCB * A.central, p.KBG * A.bile, p.KG * A.gut
        rates = pk.rates(A, p, C, p.CL * C + excreted)
        rates[pk.dosed] = rates[pk.dosed] + p.FR * passed
        return {**rates, "bile": excreted - emptied, "gut": emptied - passed}

    return System(
        (*pk.compartments, "bile", "gut"),
        pk.dosed,
        rhs,
        ("CL", "KCB", "KBG", "KG", "FR", *pk.parameters),
        empty,
    )


def urine_collection(*, depot: bool, peripheral: bool) -> System:
    r"""Return the pharmacokinetics with the amount that is excreted unchanged into the urine.

    .. math:: A_u' = f_e\, CL\, C

    Linear. The difference of `urine` between two times is the amount in that collection.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance [L/time],
        and FE, the fraction of it that is renal excretion of unchanged drug.

    References
    ----------
    .. [1] Gibaldi M, Perrier D (1982). Pharmacokinetics, 2nd edition. doi:10.1201/b14095
    """

    def response(t: Scalar, A: Any, p: Any, C: Scalar) -> Rates:
        return {"urine": p.FE * p.CL * C}

    return driven(Disposition(depot, peripheral), ("urine",), ("FE",), response)


def effect_compartment(*, depot: bool, peripheral: bool) -> System:
    r"""Return the pharmacokinetics with a concentration at the site of effect that lags behind.

    .. math:: C_e' = k_{e0} (C - C_e)

    Linear. The compartment `effect` holds a concentration, not an amount.

    Parameters
    ----------
    depot, peripheral : bool
        As in `Disposition`, whose parameters it reads. Further ones: CL, the clearance [L/time],
        and KE0, the rate constant of equilibration [1/time].

    References
    ----------
    .. [1] Sheiner LB, Stanski DR, Vozeh S, Miller RD, Ham J (1979). Simultaneous modeling of
       pharmacokinetics and pharmacodynamics: application to d-tubocurarine. Clin Pharmacol Ther
       25:358-371. doi:10.1002/cpt1979253358
    """

    def response(t: Scalar, A: Any, p: Any, C: Scalar) -> Rates:
        return {"effect": p.KE0 * (C - A.effect)}

    return driven(Disposition(depot, peripheral), ("effect",), ("KE0",), response)
