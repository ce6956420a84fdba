"""The compartment structures a model calls: from parameters to a concentration at every record."""

from collections.abc import Mapping

import jax
from jaxtyping import Float

from popk.model.sites import ModelError, by_subject
from popk.solve import solve
from popk.structural.compartments import (
    ONE_COMPARTMENT,
    ONE_COMPARTMENT_ORAL,
    TWO_COMPARTMENT,
    TWO_COMPARTMENT_ORAL,
    Structure,
)
from popk.trial import Array, Trial

Parameter = Float[Array, "..."] | float
Dosing = Mapping[str, Parameter]


def one_compartment(
    trial: Trial,
    *,
    CL: Parameter,
    V: Parameter,
    KA: Parameter | None = None,
    F: Dosing | None = None,
    lag: Dosing | None = None,
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
    F, lag : mapping of compartment to such an array, optional
        Bioavailability [fraction] and lag time [time] of doses into a compartment.

    Returns
    -------
    Float[Array, "subject record"]
        The concentration in the central compartment, in the unit of DV.

    Raises
    ------
    ModelError
        The trial doses into or observes a compartment that the model does not have, or F or lag
        names one.
    """
    if KA is None:
        return _concentration(trial, ONE_COMPARTMENT, {"CL": CL, "V": V}, "V", F, lag)
    return _concentration(trial, ONE_COMPARTMENT_ORAL, {"CL": CL, "V": V, "KA": KA}, "V", F, lag)


def two_compartment(
    trial: Trial,
    *,
    CL: Parameter,
    V1: Parameter,
    Q: Parameter,
    V2: Parameter,
    KA: Parameter | None = None,
    F: Dosing | None = None,
    lag: Dosing | None = None,
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
    F, lag : mapping of compartment to such an array, optional
        Bioavailability [fraction] and lag time [time] of doses into a compartment.

    Returns
    -------
    Float[Array, "subject record"]
        The concentration in the central compartment, in the unit of DV.

    Raises
    ------
    ModelError
        The trial doses into or observes a compartment that the model does not have, or F or lag
        names one.
    """
    parameters = {"CL": CL, "V1": V1, "Q": Q, "V2": V2}
    if KA is None:
        return _concentration(trial, TWO_COMPARTMENT, parameters, "V1", F, lag)
    return _concentration(trial, TWO_COMPARTMENT_ORAL, {**parameters, "KA": KA}, "V1", F, lag)


def _concentration(
    trial: Trial,
    structure: Structure,
    parameters: Mapping[str, Parameter],
    volume: str,
    F: Dosing | None,
    lag: Dosing | None,
) -> Float[Array, "s r"]:
    _check(trial, structure, F, lag)
    p = {k: _by_subject(k, v, trial) for k, v in parameters.items()}
    dosing = [
        {k: _by_subject(k, v, trial) for k, v in given.items()} if given else None
        for given in (F, lag)
    ]
    amounts = jax.vmap(
        lambda p, F, lag, events: solve(
            structure, p, events, trial.n_records, trial.design, F=F, lag=lag
        )
    )(p, dosing[0], dosing[1], trial.events)
    central = amounts[..., structure.compartments.index(structure.observed)]
    return central / p[volume] * trial.concentration_factor[..., None]


def _by_subject(name: str, value: Parameter, trial: Trial) -> Float[Array, "s _"]:
    """Return a parameter as [subject, 1] or [subject, record]."""
    return by_subject(name, value, trial, "popk.individual and trial.covariate() give")


def _check(trial: Trial, structure: Structure, F: Dosing | None, lag: Dosing | None) -> None:
    names = structure.compartments
    if not trial.design.concentrations:
        raise ModelError(
            "the unit of AMT per L cannot be converted to the unit of DV, so a "
            "concentration has no unit; give both as mass or both as amount of substance"
        )
    listed = ", ".join(f"{name} {i}" for i, name in enumerate(names, start=1))
    for number in trial.design.dosed:
        if number > len(names):
            raise ModelError(
                f"a dose goes to CMT {number}, but the compartments are {listed}; "
                f"correct CMT, or set it 0 for {structure.dosed}"
            )
    for number in trial.design.observed:
        if number not in (0, names.index(structure.observed) + 1):
            raise ModelError(
                f"levels are taken from CMT {number}, but this model predicts them in "
                f"{structure.observed}; its compartments are {listed}; set CMT 0"
            )
    for what, given in (("F", F), ("lag", lag)):
        for name in given or {}:
            if name not in names:
                raise ModelError(
                    f"{what} names compartment {name!r}, but the compartments are {listed}"
                )
