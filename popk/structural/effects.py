r"""What does a concentration do? Direct, indirect, cell-forming and tumor responses.

The equations of each response take a concentration, whatever the pharmacokinetics that it comes
from; a `System` is made of them with linear pharmacokinetics. Concentrations are in [amount/L],
responses in [response], any unit.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.structural.kinetics import Disposition, Rates, Scalar, System, driven

Values = Float[Array, "*#r"] | Any  # NumPyro types what it samples as anything
Constants = Float[Array, "*#r"] | float | Any

_PSI = 20.0  # Simeoni 2004: so large that growth switches from exponential to linear at once
_LEAST = 1e-6  # of the baseline count: what keeps the feedback of an emptied blood finite


def emax(C: Values, EMAX: Constants, EC50: Constants, E0: Constants = 0.0) -> Values:
    r"""Return a direct effect that saturates.

    .. math:: E = E_0 + \frac{E_{max} C}{EC_{50} + C}

    Parameters
    ----------
    C : Float[Array, "*#r"]
        Concentration [amount/L].
    EMAX : Float[Array, "*#r"]
        Greatest change of the effect; negative where the drug inhibits [response].
    EC50 : Float[Array, "*#r"]
        Concentration at half of it [amount/L].
    E0 : Float[Array, "*#r"]
        Effect without drug [response].

    References
    ----------
    .. [1] Holford NHG, Sheiner LB (1981). Understanding the dose-effect relationship: clinical
       application of pharmacokinetic-pharmacodynamic models. Clin Pharmacokinet 6:429-453.
       doi:10.2165/00003088-198106060-00002
    """
    return E0 + EMAX * C / (EC50 + C)


def hill(C: Values, C50: Constants, GAMMA: Constants) -> Values:
    r"""Return the fraction of the greatest effect at a concentration.

    .. math:: \frac{C^\gamma}{C_{50}^\gamma + C^\gamma} = \frac{1}{1 + e^{-\gamma \log(C / C_{50})}}

    The second form neither overflows nor loses digits. At C = 0 the fraction and its derivatives
    are 0, but for the slope 1 / C50 where GAMMA is 1 (below 1 the slope is infinite there, and 0
    takes its place).

    Parameters
    ----------
    C : Float[Array, "*#r"]
        Concentration [amount/L]; one below 0, by a solver's error, counts as none (where GAMMA is 1
        it has the effect C / C50).
    C50 : Float[Array, "*#r"]
        Concentration at half the greatest effect [amount/L].
    GAMMA : Float[Array, "*#r"]
        Hill's exponent.

    References
    ----------
    .. [1] Holford NHG, Sheiner LB (1981). Understanding the dose-effect relationship: clinical
       application of pharmacokinetic-pharmacodynamic models. Clin Pharmacokinet 6:429-453.
       doi:10.2165/00003088-198106060-00002
    """
    present = C > 0
    fraction = jax.nn.sigmoid(GAMMA * jnp.log(jnp.where(present, C, 1.0) / C50))
    tangent = jnp.where(jnp.asarray(GAMMA) == 1, C, 0.0) / C50
    return jnp.where(present, fraction, tangent)


def sigmoid_emax(
    C: Values, EMAX: Constants, EC50: Constants, GAMMA: Constants, E0: Constants = 0.0
) -> Values:
    r"""Return a direct effect that saturates, with Hill's exponent.

    .. math:: E = E_0 + \frac{E_{max} C^\gamma}{EC_{50}^\gamma + C^\gamma}

    Parameters
    ----------
    C : Float[Array, "*#r"]
        Concentration [amount/L].
    EMAX : Float[Array, "*#r"]
        Greatest change of the effect; negative where the drug inhibits [response].
    EC50 : Float[Array, "*#r"]
        Concentration at half of it [amount/L].
    GAMMA : Float[Array, "*#r"]
        Hill's exponent.
    E0 : Float[Array, "*#r"]
        Effect without drug [response].

    References
    ----------
    .. [1] Holford NHG, Sheiner LB (1981). Understanding the dose-effect relationship: clinical
       application of pharmacokinetic-pharmacodynamic models. Clin Pharmacokinet 6:429-453.
       doi:10.2165/00003088-198106060-00002
    """
    return E0 + EMAX * hill(C, EC50, GAMMA)


def turnover(
    model: Literal["I", "II", "III", "IV"], response: Scalar, C: Scalar, p: Any, *, sigmoid: bool
) -> Scalar:
    r"""Return the rate of change of an indirect response.

    .. math:: R' = k_{in} \cdot \{1 - I, 1, 1 + S, 1\} - k_{out} \cdot \{1, 1 - I, 1, 1 + S\} \cdot R

    for models I to IV, with :math:`I = I_{max} C / (IC_{50} + C)` and
    :math:`S = E_{max} C / (EC_{50} + C)`.

    Parameters
    ----------
    model : {"I", "II", "III", "IV"}
        Inhibition of production (I) or of loss (II); stimulation of production (III) or of loss (IV).
    response : Float[Array, ""]
        R [response].
    C : Float[Array, ""]
        Concentration [amount/L].
    p : object
        KIN [response/time], KOUT [1/time]; IMAX (at most 1) and IC50 [amount/L] for I and II, EMAX
        and EC50 [amount/L] for III and IV; GAMMA where it is sigmoid.
    sigmoid : bool
        Whether the effect has Hill's exponent GAMMA.

    References
    ----------
    .. [1] Dayneka NL, Garg V, Jusko WJ (1993). Comparison of four basic models of indirect
       pharmacodynamic responses. J Pharmacokinet Biopharm 21:457-478. doi:10.1007/BF01061691
    """
    greatest, half = (-p.IMAX, p.IC50) if model in ("I", "II") else (p.EMAX, p.EC50)
    factor = (
        sigmoid_emax(C, greatest, half, p.GAMMA, 1.0) if sigmoid else emax(C, greatest, half, 1.0)
    )
    if model in ("I", "III"):
        return p.KIN * factor - p.KOUT * response
    return p.KIN - p.KOUT * factor * response


def indirect_response(
    model: Literal["I", "II", "III", "IV"],
    *,
    depot: bool,
    peripheral: bool = False,
    sigmoid: bool = False,
) -> System:
    r"""Return a response that turns over, and whose production or loss the drug changes.

    The equations of `turnover`; the compartment `response` begins at KIN / KOUT.

    Parameters
    ----------
    model : {"I", "II", "III", "IV"}
        Inhibition of production (I) or of loss (II); stimulation of production (III) or of loss (IV).
    depot, peripheral : bool
        As in `popk.structural.kinetics.Disposition`, whose parameters it reads beside CL [L/time]
        and those of `turnover`.
    sigmoid : bool
        Whether the effect has Hill's exponent GAMMA.

    References
    ----------
    .. [1] Dayneka NL, Garg V, Jusko WJ (1993). Comparison of four basic models of indirect
       pharmacodynamic responses. J Pharmacokinet Biopharm 21:457-478. doi:10.1007/BF01061691
    """
    effect = ("IMAX", "IC50") if model in ("I", "II") else ("EMAX", "EC50")

    def response(t: Scalar, A: Any, p: Any, C: Scalar) -> Rates:
        return {"response": turnover(model, A.response, C, p, sigmoid=sigmoid)}

    def initial(p: Any) -> Rates:
        return {"response": p.KIN / p.KOUT}

    names = ("KIN", "KOUT", *effect, *(("GAMMA",) if sigmoid else ()))
    return driven(Disposition(depot, peripheral), ("response",), names, response, initial)


CELLS = ("prol", "transit1", "transit2", "transit3", "circ")


def cell_turnover(A: Any, p: Any, effect: Scalar) -> Rates:
    r"""Return the rates of change of blood cells that proliferate, mature and circulate.

    .. math::
        P' &= k P (1 - E) (C_0 / C)^\gamma - k P, \qquad k = 4 / MTT \\
        T_1' &= k (P - T_1), \quad T_2' = k (T_1 - T_2), \quad T_3' = k (T_2 - T_3) \\
        C' &= k (T_3 - C)

    A count below a millionth of the baseline feeds back as that much.

    Parameters
    ----------
    A : object
        prol, transit1, transit2, transit3 and circ [cells/L].
    p : object
        CIRC0, the circulating cells without drug [cells/L]; MTT, the mean transit time [time];
        GAMMA, the exponent of the feedback.
    effect : Float[Array, ""]
        E, the fraction of proliferation that the drug prevents; above 1 it kills.

    References
    ----------
    .. [1] Friberg LE, Henningsson A, Maas H, Nguyen L, Karlsson MO (2002). Model of
       chemotherapy-induced myelosuppression with parameter consistency across drugs. J Clin Oncol
       20:4713-4721. doi:10.1200/JCO.2002.02.140
    """
    k = 4 / p.MTT
    circ = jnp.maximum(A.circ / p.CIRC0, _LEAST)
    feedback = jnp.exp(-p.GAMMA * jnp.log(circ))
    return {
        "prol": k * A.prol * ((1 - effect) * feedback - 1),
        "transit1": k * (A.prol - A.transit1),
        "transit2": k * (A.transit1 - A.transit2),
        "transit3": k * (A.transit2 - A.transit3),
        "circ": k * (A.transit3 - A.circ),
    }


def myelosuppression(*, depot: bool, peripheral: bool, saturable: bool = False) -> System:
    r"""Return blood cells whose proliferation the drug inhibits.

    The equations of `cell_turnover`, with :math:`E = SLOPE \cdot C` or
    :math:`E = E_{max} C / (EC_{50} + C)`; all five compartments of cells begin at CIRC0.

    Parameters
    ----------
    depot, peripheral : bool
        As in `popk.structural.kinetics.Disposition`, whose parameters it reads beside CL [L/time]
        and CIRC0, MTT, GAMMA of `cell_turnover`.
    saturable : bool
        Whether EMAX and EC50 [amount/L] give the effect, or SLOPE [L/amount].

    References
    ----------
    .. [1] Friberg LE, Henningsson A, Maas H, Nguyen L, Karlsson MO (2002). Model of
       chemotherapy-induced myelosuppression with parameter consistency across drugs. J Clin Oncol
       20:4713-4721. doi:10.1200/JCO.2002.02.140
    """

    def response(t: Scalar, A: Any, p: Any, C: Scalar) -> Rates:
        effect = emax(C, p.EMAX, p.EC50) if saturable else p.SLOPE * C
        return cell_turnover(A, p, effect)

    def initial(p: Any) -> Rates:
        return dict.fromkeys(CELLS, p.CIRC0)

    names = ("CIRC0", "MTT", "GAMMA", *(("EMAX", "EC50") if saturable else ("SLOPE",)))
    return driven(Disposition(depot, peripheral), CELLS, names, response, initial)


TUMOR = ("proliferating", "damaged1", "damaged2", "damaged3")


def tumor_growth(A: Any, p: Any, C: Scalar) -> Rates:
    r"""Return the rates of change of a tumor whose cells the drug damages, to die later.

    .. math::
        x_1' &= \frac{\lambda_0 x_1}{[1 + (\lambda_0 w / \lambda_1)^\psi]^{1/\psi}} - k_2 C x_1,
        \qquad w = x_1 + x_2 + x_3 + x_4 \\
        x_2' &= k_2 C x_1 - k_1 x_2, \quad x_3' = k_1 (x_2 - x_3), \quad x_4' = k_1 (x_3 - x_4)

    with :math:`\psi = 20`: growth is exponential up to the size LAMBDA1 / LAMBDA0, linear above.

    Parameters
    ----------
    A : object
        proliferating, damaged1, damaged2 and damaged3 [tumor size].
    p : object
        LAMBDA0, the rate constant of exponential growth [1/time]; LAMBDA1, the rate of linear growth
        [tumor size/time]; K1, the rate constant of dying [1/time]; K2, the drug's potency [L/amount/time].
    C : Float[Array, ""]
        Concentration [amount/L].

    References
    ----------
    .. [1] Simeoni M, Magni P, Cammia C, et al. (2004). Predictive pharmacokinetic-pharmacodynamic
       modeling of tumor growth kinetics in xenograft models after administration of anticancer
       agents. Cancer Res 64:1094-1101. doi:10.1158/0008-5472.CAN-03-2524
    """
    size = A.proliferating + A.damaged1 + A.damaged2 + A.damaged3
    present = size > 0
    ratio = jnp.where(present, p.LAMBDA0 * size / p.LAMBDA1, 1.0)
    # By logarithms: the twentieth power of a large tumor's ratio leaves the range of float32.
    slowing = jnp.where(present, jnp.exp(-jax.nn.softplus(_PSI * jnp.log(ratio)) / _PSI), 1.0)
    damaged = p.K2 * C * A.proliferating
    return {
        "proliferating": p.LAMBDA0 * A.proliferating * slowing - damaged,
        "damaged1": damaged - p.K1 * A.damaged1,
        "damaged2": p.K1 * (A.damaged1 - A.damaged2),
        "damaged3": p.K1 * (A.damaged2 - A.damaged3),
    }


def tumor_growth_inhibition(*, depot: bool, peripheral: bool) -> System:
    r"""Return a tumor that grows at first exponentially, then linearly, and that the drug shrinks.

    The equations of `tumor_growth`; the tumor begins at the size W0, all of it proliferating. Its
    size is the sum of its four compartments.

    Parameters
    ----------
    depot, peripheral : bool
        As in `popk.structural.kinetics.Disposition`, whose parameters it reads beside CL [L/time],
        W0 [tumor size] and those of `tumor_growth`.

    References
    ----------
    .. [1] Simeoni M, Magni P, Cammia C, et al. (2004). Predictive pharmacokinetic-pharmacodynamic
       modeling of tumor growth kinetics in xenograft models after administration of anticancer
       agents. Cancer Res 64:1094-1101. doi:10.1158/0008-5472.CAN-03-2524
    """

    def response(t: Scalar, A: Any, p: Any, C: Scalar) -> Rates:
        return tumor_growth(A, p, C)

    def initial(p: Any) -> Rates:
        return {"proliferating": p.W0}

    names = ("LAMBDA0", "LAMBDA1", "K1", "K2", "W0")
    return driven(Disposition(depot, peripheral), TUMOR, names, response, initial)


def tumor_shrinkage(t: Scalar, size: Scalar, exposure: Scalar, p: Any) -> Scalar:
    r"""Return the rate of change of a tumor that becomes resistant to what shrinks it.

    .. math:: y' = K_L y - K_D e^{-\lambda t} X y

    Parameters
    ----------
    t : Float[Array, ""]
        Time since treatment began [time].
    size : Float[Array, ""]
        y [tumor size].
    exposure : Float[Array, ""]
        X: a concentration, a daily dose or an AUC [exposure].
    p : object
        KL, the growth rate constant [1/time]; KD, the drug's potency [1/exposure/time]; LAMBDA, the
        rate constant at which resistance appears [1/time].

    References
    ----------
    .. [1] Claret L, Girard P, Hoff PM, et al. (2009). Model-based prediction of phase III overall
       survival in colorectal cancer on the basis of phase II tumor dynamics. J Clin Oncol
       27:4103-4108. doi:10.1200/JCO.2008.21.0807
    """
    return (p.KL - p.KD * jnp.exp(-p.LAMBDA * t) * exposure) * size


def tumor_resistance(*, depot: bool, peripheral: bool) -> System:
    r"""Return a tumor that grows exponentially, and that the drug shrinks until it is resistant.

    The equation of `tumor_shrinkage` with the concentration as exposure: treatment is to begin at
    time 0. The compartment `tumor` begins at the size W0.

    Parameters
    ----------
    depot, peripheral : bool
        As in `popk.structural.kinetics.Disposition`, whose parameters it reads beside CL [L/time],
        W0 [tumor size] and those of `tumor_shrinkage`.

    References
    ----------
    .. [1] Claret L, Girard P, Hoff PM, et al. (2009). Model-based prediction of phase III overall
       survival in colorectal cancer on the basis of phase II tumor dynamics. J Clin Oncol
       27:4103-4108. doi:10.1200/JCO.2008.21.0807
    """

    def response(t: Scalar, A: Any, p: Any, C: Scalar) -> Rates:
        return {"tumor": tumor_shrinkage(t, A.tumor, C, p)}

    def initial(p: Any) -> Rates:
        return {"tumor": p.W0}

    names = ("KL", "KD", "LAMBDA", "W0")
    return driven(Disposition(depot, peripheral), ("tumor",), names, response, initial)
