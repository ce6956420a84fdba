"""The amount in the central compartment, by whatever road drug comes there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from popk.model.absorption import Absorption, Route
from popk.model.dosing import ByCompartment, Parameter, dosing_of, parameter, tell
from popk.model.explanation import explained
from popk.model.sites import ModelError
from popk.reasons import failing
from popk.solve import OVERLAPPING, Dosing, observed
from popk.solve.clocks import Solver
from popk.solve.nonlinear import DONE, integrate
from popk.structural.absorption import Input
from popk.structural.compartments import Structure
from popk.trial import Array, Trial

Given = Mapping[str, ByCompartment | None]
Central = Float[Array, "s r"]

_FAILED = "the ODE solver failed in this subject; check the absorption's parameters at these values"


class Disposition(NamedTuple):
    """A compartment structure without and with a depot.

    Attributes
    ----------
    bolus, oral : Structure
    parameters : mapping of str to array
        Those of both; the oral one has KA beside.
    """

    bolus: Structure
    oral: Structure
    parameters: Mapping[str, Parameter]


def central(
    trial: Trial,
    disposition: Disposition,
    KA: Parameter | None,
    absorption: Absorption | Sequence[Route] | None,
    given: Given,
) -> Central:
    """Return the amount in the central compartment at every record.

    Parameters
    ----------
    trial : Trial
    disposition : Disposition
    KA : array or None
        Of first-order absorption; None: no depot.
    absorption : Absorption, sequence of Route, or None
        How boluses by mouth arrive.
    given : mapping of str to mapping
        F, lag, R, D and initial, each by compartment, or None.
    """
    if absorption is None or isinstance(absorption, Absorption):
        structure = disposition.bolus if KA is None else disposition.oral
        _check_observed(trial, structure)
        own = {} if KA is None else {"KA": KA}
        return _one_road(trial, structure, {**disposition.parameters, **own}, absorption, given)
    if KA is not None:
        raise ModelError(
            "KA stands beside several roads; give each its own, popk.route(F=F, KA=KA)"
        )
    if trial.design.turned_off:
        raise ModelError("a compartment is turned off, which several roads of absorption cannot do")
    _check_observed(trial, disposition.oral)
    return _all_roads(trial, disposition, absorption, given)


def _all_roads(
    trial: Trial, disposition: Disposition, routes: Sequence[Route], given: Given
) -> Central:
    """Return the sum over roads: in a linear system each dose acts by itself."""
    for what, values in given.items():
        if "depot" in (values or {}):
            raise ModelError(
                f"{what} names the depot, but each road has its own; give it to popk.route"
            )
    oral, iv = _doses_apart(trial)
    total = jnp.zeros(trial.time.shape)
    for road in routes:
        where = "central" if road.KA is None else "depot"
        own: Given = {**dict.fromkeys(given), "F": {where: road.F}, "lag": {where: road.lag}}
        parameters = {**disposition.parameters, **({} if road.KA is None else {"KA": road.KA})}
        structure = disposition.bolus if road.KA is None else disposition.oral
        total = total + _one_road(oral, structure, parameters, road.absorption, own)
    if iv.design.dosed or given["initial"]:
        total = total + _one_road(iv, disposition.bolus, disposition.parameters, None, given)
    return total


def _doses_apart(trial: Trial) -> tuple[Trial, Trial]:
    """Return the trial with its doses by mouth alone, and with the others, numbered without a depot."""
    events, design = trial.events, trial.design
    by_mouth = events.compartment <= 1

    def only(keep: Any, compartment: Any, dosed: tuple[int, ...]) -> Trial:
        kept = events._replace(
            gives=events.gives & keep,
            amount=jnp.where(keep, events.amount, 0.0),
            rate=jnp.where(keep, events.rate, 0.0),
            steady=jnp.where(keep, events.steady, 0),
            compartment=compartment,
        )
        numbers = {
            name: tuple(n for n in getattr(design, name) if (n > 1) == bool(dosed and dosed[0]))
            for name in ("modeled_rates", "modeled_durations")
        }
        shifted = {k: tuple(n - 1 if n > 1 else 0 for n in v) for k, v in numbers.items()}
        return dataclasses.replace(
            trial, events=kept, design=design._replace(dosed=dosed, **shifted)
        )

    others = tuple(n - 1 for n in design.dosed if n > 1)
    oral = only(by_mouth, jnp.zeros_like(events.compartment), (0,))
    return oral, only(~by_mouth, jnp.maximum(events.compartment - 1, 0), others)


def _one_road(
    trial: Trial,
    structure: Structure,
    parameters: Mapping[str, Parameter],
    absorption: Absorption | None,
    given: Given,
) -> Central:
    names, index = structure.compartments, structure.compartments.index(structure.observed)
    dosing = dosing_of(trial, names, structure.dosed, given)
    p: Any = {k: parameter(k, v, trial) for k, v in parameters.items()}
    if absorption is not None and absorption.input is not None:
        return _by_input(trial, structure, p, absorption, dosing)[..., index]
    if absorption is not None:
        spread = parameter("D of the absorption", absorption.parameters["D"], trial)
        dosing = dosing._replace(spread={structure.dosed: spread})
        design = trial.design._replace(
            infusions=True, modeled_durations=(0,), overlap=max(trial.design.overlap, OVERLAPPING)
        )
        trial = dataclasses.replace(trial, design=design)
    amount, plans = observed(structure, p, trial.events, trial.n_records, trial.design, dosing)
    tell(plans)
    turned = bool(trial.design.turned_off)
    explained(
        ", ".join(names),
        "linear system, matrix exponential of each interval" if turned else "closed form",
        "a compartment is turned off in the trial" if turned else "its exponentials are known",
    )
    return amount


def _by_input(
    trial: Trial,
    structure: Structure,
    p: Mapping[str, Any],
    absorption: Absorption,
    dosing: Dosing,
) -> Float[Array, "s r n"]:
    """Return the amounts where each bolus arrives at a rate that changes with the time since it."""
    input_ = absorption.input
    assert isinstance(input_, Input)
    if trial.design.steady:
        raise ModelError(
            "a dose is at steady state, which absorption by an input rate does not have here; write the "
            "doses out, with ADDL and II",
            rows={"SS": 1},
        )
    own: Any = {f"of input {k}": parameter(k, v, trial) for k, v in absorption.parameters.items()}

    def rhs(t: Any, A: Any, p: Mapping[str, Any]) -> Any:
        M = structure.rates(**{k: v for k, v in p.items() if k not in own})
        return (M * A).sum(-1)

    def arrives(t: Any, p: Mapping[str, Any]) -> Any:
        return input_.rate(t, **{k.removeprefix("of input "): p[k] for k in own})

    found = integrate(
        rhs, structure.compartments, structure.dosed, {**p, **own}, trial.events, trial.n_records,
        design=trial.design, dosing=dosing, options=Solver(), inputs={structure.dosed: arrives},
    )  # fmt: skip
    tell(found.plans)
    failing(_FAILED, jnp.where(found.status != DONE, 0, -1))
    explained(
        ", ".join(structure.compartments),
        "ODE solver, Tsitouras 5(4), explicit",
        "doses arrive at a rate that changes with time",
    )
    return found.amounts


def _check_observed(trial: Trial, structure: Structure) -> None:
    """Refuse levels that are all of one kind, and of a compartment that is not the one predicted."""
    names, kinds = structure.compartments, trial.design.observed
    listed = ", ".join(f"{name} {i}" for i, name in enumerate(names, start=1))
    for cmt in {cmt for cmt, _ in kinds} if len(kinds) == 1 else set():
        if cmt not in (0, names.index(structure.observed) + 1):
            raise ModelError(
                f"levels are taken from CMT {cmt}, but this model predicts them in "
                f"{structure.observed}; its compartments are {listed}; set CMT 0",
                rows={"CMT": cmt, "EVID": 0},
            )
