r"""How does a dose that the data give as a bolus reach the body? Zero-order, in transit, by two roads.

Each is an argument of the compartment structures: ``popk.one_compartment(trial, CL=CL, V=V,
absorption=popk.transit(N=N, MTT=MTT), KA=KA)``.
"""

from collections.abc import Mapping
from typing import NamedTuple

from popk.model.dosing import Parameter
from popk.structural.absorption import INVERSE_GAUSSIAN, TRANSIT, WEIBULL, Input


class Absorption(NamedTuple):
    """How doses by mouth arrive in the compartment that they are given to.

    Attributes
    ----------
    input : Input or None
        The rate per unit dose after each dose; None: at a constant rate over D.
    parameters : mapping of str to array
        Its parameters.
    """

    input: Input | None
    parameters: Mapping[str, Parameter]


class Route(NamedTuple):
    """One of several roads that a dose by mouth takes.

    Attributes
    ----------
    F : Float[Array, "subject record"], [subject, 1] or scalar
        The part of the dose that takes it [fraction].
    KA : the same, or None
        First-order absorption rate constant [1/time]; None: straight into the central compartment.
    lag : the same
        Lag time [time].
    absorption : Absorption or None
        How the dose arrives where absorption begins; None: at once.
    """

    F: Parameter
    KA: Parameter | None = None
    lag: Parameter = 0.0
    absorption: Absorption | None = None


def zero_order(*, D: Parameter) -> Absorption:
    """Return absorption at a constant rate: with KA, zero-order and then first-order.

    Parameters
    ----------
    D : Float[Array, "subject record"], [subject, 1] or scalar
        How long it lasts [time].
    """
    return Absorption(None, {"D": D})


def transit(*, N: Parameter, MTT: Parameter) -> Absorption:
    r"""Return absorption through transit compartments, as many as any positive number says.

    .. math:: \frac{k_{tr} (k_{tr} t)^n e^{-k_{tr} t}}{\Gamma(n + 1)}, \qquad k_{tr} = (n + 1) / MTT

    Parameters
    ----------
    N : Float[Array, "subject record"], [subject, 1] or scalar
        The number of transit compartments.
    MTT : the same
        The mean transit time [time].

    References
    ----------
    .. [1] Savic RM, Jonker DM, Kerbusch T, Karlsson MO (2007). Implementation of a transit
       compartment model for describing drug absorption in pharmacokinetic studies. J Pharmacokinet
       Pharmacodyn 34:711-726. doi:10.1007/s10928-007-9066-0
    """
    return Absorption(TRANSIT, {"N": N, "MTT": MTT})


def weibull(*, SCALE: Parameter, SHAPE: Parameter) -> Absorption:
    r"""Return absorption whose absorbed fraction is :math:`1 - e^{-(t/\lambda)^\beta}`.

    Parameters
    ----------
    SCALE : Float[Array, "subject record"], [subject, 1] or scalar
        :math:`\lambda`, when 63% is absorbed [time].
    SHAPE : the same
        :math:`\beta`; 1 is first-order.

    References
    ----------
    .. [1] Piotrovskii VK (1987). The use of Weibull distribution to describe the in vivo absorption
       kinetics. J Pharmacokinet Biopharm 15:681-686. doi:10.1007/BF01068420
    """
    return Absorption(WEIBULL, {"SCALE": SCALE, "SHAPE": SHAPE})


def inverse_gaussian(*, MAT: Parameter, CV2: Parameter) -> Absorption:
    r"""Return absorption with inverse Gaussian times.

    .. math:: \sqrt{\frac{MAT}{2 \pi\, CV^2\, t^3}}\;
        \exp\left(-\frac{(t - MAT)^2}{2\, CV^2\, MAT\, t}\right)

    Parameters
    ----------
    MAT : Float[Array, "subject record"], [subject, 1] or scalar
        The mean absorption time [time].
    CV2 : the same
        The squared coefficient of variation of absorption times.

    References
    ----------
    .. [1] Weiss M (1996). A novel extravascular input function for the assessment of drug
       absorption in bioavailability studies. Pharm Res 13:1547-1553. doi:10.1023/A:1016039931663
    """
    return Absorption(INVERSE_GAUSSIAN, {"MAT": MAT, "CV2": CV2})


def route(
    *,
    F: Parameter,
    KA: Parameter | None = None,
    lag: Parameter = 0.0,
    absorption: Absorption | None = None,
) -> Route:
    """Return one of several roads of a dose: ``absorption=(popk.route(...), popk.route(...))``.

    Parameters
    ----------
    F : Float[Array, "subject record"], [subject, 1] or scalar
        The part of the dose that takes it [fraction].
    KA : the same, optional
        First-order absorption rate constant [1/time]; without, drug comes straight into the
        central compartment.
    lag : the same, optional
        Lag time [time].
    absorption : Absorption, optional
        How the dose arrives where absorption begins, as `zero_order` gives it; at once by default.
    """
    return Route(F, KA, lag, absorption)
