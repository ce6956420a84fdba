"""The compartment structures a model calls: from parameters to a concentration at every record."""

from collections.abc import Sequence

from jaxtyping import Float

from popk.model.absorption import Absorption, Route
from popk.model.disposition import Disposition, central
from popk.model.dosing import ByCompartment, Parameter, parameter
from popk.model.recording import recorded
from popk.model.sites import ModelError
from popk.structural.compartments import (
    ONE_COMPARTMENT,
    ONE_COMPARTMENT_ORAL,
    THREE_COMPARTMENT,
    THREE_COMPARTMENT_ORAL,
    TWO_COMPARTMENT,
    TWO_COMPARTMENT_ORAL,
)
from popk.trial import Array, Trial


@recorded
def one_compartment(
    trial: Trial,
    *,
    CL: Parameter,
    V: Parameter,
    KA: Parameter | None = None,
    absorption: Absorption | Sequence[Route] | None = None,
    F: ByCompartment | None = None,
    lag: ByCompartment | None = None,
    R: ByCompartment | None = None,
    D: ByCompartment | None = None,
    initial: ByCompartment | None = None,
) -> Float[Array, "s r"]:
    r"""Return the concentration at every record of a one-compartment model.

    .. math:: A_d' = -k_a A_d, \quad A_c' = k_a A_d - (CL/V) A_c, \quad C = A_c / V

    Compartments: without KA ``central`` (CMT 1); with KA ``depot`` (CMT 1) and ``central`` (CMT 2). A
    dose with CMT 0 goes to the first.

    Parameters
    ----------
    trial : Trial
    CL, V, KA : Float[Array, "subject record"], [subject, 1] or scalar
        Clearance [L/time], volume [L], absorption rate constant [1/time].
    absorption : Absorption or sequence of Route, optional
        How boluses by mouth arrive: `zero_order`, `transit`, `weibull`, `inverse_gaussian`, which
        with KA come before first-order absorption; or several roads, each a `route`.
    F, lag : mapping of compartment to such an array, optional
        Bioavailability [fraction] and lag time [time] of doses into a compartment.
    R, D : the same, optional
        Rate [amount/time] of doses with RATE -1, duration [time] of doses with RATE -2.
    initial : the same, optional
        Amounts at the first record and after a reset [amount].

    Returns
    -------
    Float[Array, "subject record"]
        The concentration in the central compartment, in the unit of DV.

    Raises
    ------
    ModelError
        The trial doses into or observes a compartment that the model does not have, a mapping
        names one, or a dose with RATE -1 or -2 lacks its R or D.
    """
    dosing = {"F": F, "lag": lag, "R": R, "D": D, "initial": initial}
    disposition = Disposition(ONE_COMPARTMENT, ONE_COMPARTMENT_ORAL, {"CL": CL, "V": V})
    return concentration(trial, central(trial, disposition, KA, absorption, dosing), V)


@recorded
def two_compartment(
    trial: Trial,
    *,
    CL: Parameter,
    V1: Parameter,
    Q: Parameter,
    V2: Parameter,
    KA: Parameter | None = None,
    absorption: Absorption | Sequence[Route] | None = None,
    F: ByCompartment | None = None,
    lag: ByCompartment | None = None,
    R: ByCompartment | None = None,
    D: ByCompartment | None = None,
    initial: ByCompartment | None = None,
) -> Float[Array, "s r"]:
    r"""Return the concentration at every record of a two-compartment model.

    .. math::
        A_d' = -k_a A_d, \quad
        A_1' = k_a A_d - \tfrac{CL + Q}{V_1} A_1 + \tfrac{Q}{V_2} A_2, \quad
        A_2' = \tfrac{Q}{V_1} A_1 - \tfrac{Q}{V_2} A_2, \quad C = A_1 / V_1

    Compartments: ``depot`` (with KA), ``central``, ``peripheral1``, numbered in this order.

    Parameters
    ----------
    trial : Trial
    CL, Q : Float[Array, "subject record"], [subject, 1] or scalar
        Clearance and intercompartmental clearance [L/time].
    V1, V2 : the same
        Central and peripheral volume [L].
    KA : the same, optional
        Absorption rate constant [1/time].
    absorption : Absorption or sequence of Route, optional
        How boluses by mouth arrive: `zero_order`, `transit`, `weibull`, `inverse_gaussian`, which
        with KA come before first-order absorption; or several roads, each a `route`.
    F, lag : mapping of compartment to such an array, optional
        Bioavailability [fraction] and lag time [time] of doses into a compartment.
    R, D : the same, optional
        Rate [amount/time] of doses with RATE -1, duration [time] of doses with RATE -2.
    initial : the same, optional
        Amounts at the first record and after a reset [amount].

    Returns
    -------
    Float[Array, "subject record"]
        The concentration in the central compartment, in the unit of DV.

    Raises
    ------
    ModelError
        As `one_compartment`.
    """
    parameters = {"CL": CL, "V1": V1, "Q": Q, "V2": V2}
    dosing = {"F": F, "lag": lag, "R": R, "D": D, "initial": initial}
    disposition = Disposition(TWO_COMPARTMENT, TWO_COMPARTMENT_ORAL, parameters)
    return concentration(trial, central(trial, disposition, KA, absorption, dosing), V1)


@recorded
def three_compartment(
    trial: Trial,
    *,
    CL: Parameter,
    V1: Parameter,
    Q2: Parameter,
    V2: Parameter,
    Q3: Parameter,
    V3: Parameter,
    KA: Parameter | None = None,
    absorption: Absorption | Sequence[Route] | None = None,
    F: ByCompartment | None = None,
    lag: ByCompartment | None = None,
    R: ByCompartment | None = None,
    D: ByCompartment | None = None,
    initial: ByCompartment | None = None,
) -> Float[Array, "s r"]:
    r"""Return the concentration at every record of a three-compartment model.

    .. math::
        A_d' = -k_a A_d, \quad
        A_1' = k_a A_d - \tfrac{CL + Q_2 + Q_3}{V_1} A_1 + \tfrac{Q_2}{V_2} A_2 + \tfrac{Q_3}{V_3} A_3

    .. math::
        A_2' = \tfrac{Q_2}{V_1} A_1 - \tfrac{Q_2}{V_2} A_2, \quad
        A_3' = \tfrac{Q_3}{V_1} A_1 - \tfrac{Q_3}{V_3} A_3, \quad C = A_1 / V_1

    Compartments: ``depot`` (with KA), ``central``, ``peripheral1``, ``peripheral2``, numbered in this
    order.

    Parameters
    ----------
    trial : Trial
    CL, Q2, Q3 : Float[Array, "subject record"], [subject, 1] or scalar
        Clearance and intercompartmental clearances [L/time].
    V1, V2, V3 : the same
        Central and peripheral volumes [L].
    KA : the same, optional
        Absorption rate constant [1/time].
    absorption : Absorption or sequence of Route, optional
        How boluses by mouth arrive: `zero_order`, `transit`, `weibull`, `inverse_gaussian`, which
        with KA come before first-order absorption; or several roads, each a `route`.
    F, lag : mapping of compartment to such an array, optional
        Bioavailability [fraction] and lag time [time] of doses into a compartment.
    R, D : the same, optional
        Rate [amount/time] of doses with RATE -1, duration [time] of doses with RATE -2.
    initial : the same, optional
        Amounts at the first record and after a reset [amount].

    Returns
    -------
    Float[Array, "subject record"]
        The concentration in the central compartment, in the unit of DV.

    Raises
    ------
    ModelError
        As `one_compartment`.
    """
    parameters = {"CL": CL, "V1": V1, "Q2": Q2, "V2": V2, "Q3": Q3, "V3": V3}
    dosing = {"F": F, "lag": lag, "R": R, "D": D, "initial": initial}
    disposition = Disposition(THREE_COMPARTMENT, THREE_COMPARTMENT_ORAL, parameters)
    return concentration(trial, central(trial, disposition, KA, absorption, dosing), V1)


def concentration(trial: Trial, amount: Float[Array, "s r"], V: Parameter) -> Float[Array, "s r"]:
    """Return amounts over a volume, in the unit of DV.

    Parameters
    ----------
    trial : Trial
    amount : Float[Array, "subject record"]
        As `ode` and `linear` give it [amount].
    V : Float[Array, "subject record"], [subject, 1] or scalar
        The volume [L].

    Raises
    ------
    ModelError
        The unit of AMT per L cannot be converted to the unit of DV.
    """
    if not trial.design.concentrations:
        raise ModelError(
            "the unit of AMT per L cannot be converted to the unit of DV, so a "
            "concentration has no unit; give both as mass or both as amount of substance"
        )
    return amount / parameter("V", V, trial) * trial.concentration_factor[..., None]
