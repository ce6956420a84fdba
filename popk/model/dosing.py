"""What does a model say of doses, and does it fit the trial's?"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float

from popk.model.sites import ModelError, by_subject
from popk.reasons import failing
from popk.solve import OVERLAPPING, PENDING, Dosing, Schedule
from popk.trial import Array, Trial

Parameter = Float[Array, "..."] | float | Any  # NumPyro types what it samples as anything
ByCompartment = Mapping[str, Parameter]

MEANINGLESS = (
    "F, lag, R or D of this dose has no meaning: F, lag and D must be 0 or more, R above 0; "
    "correct the model's value, or sample it from a positive prior"
)
CROWDED = (
    f"more than {PENDING} doses at steady state are on their way at once, or more than {OVERLAPPING} of its "
    f"infusions with a modeled length run at once; shorten lag or D, or write the doses out"
)


def parameter(name: str, value: Parameter, trial: Trial) -> Float[Array, "s _"]:
    """Return a parameter as [subject, 1] or [subject, record].

    Raises
    ------
    ModelError
        It has another shape.
    """
    return by_subject(name, value, trial, "popk.individual and trial.covariate() give")


def dosing_of(
    trial: Trial,
    compartments: tuple[str, ...],
    dosed: str,
    given: Mapping[str, ByCompartment | None],
) -> Dosing:
    """Return what a model says of doses, checked against the trial.

    Parameters
    ----------
    trial : Trial
    compartments : tuple of str
    dosed : str
        The compartment of doses with CMT 0.
    given : mapping of str to mapping
        ``F``, ``lag``, ``R``, ``D``, ``initial`` and ``spread``, each by compartment, or None.

    Raises
    ------
    ModelError
        A mapping names no compartment, a dose goes to none, or lacks the R or D that it asks for.
    """
    listed = ", ".join(f"{name} {i}" for i, name in enumerate(compartments, start=1))
    for what, values in given.items():
        for name in values or {}:
            if name not in compartments:
                raise ModelError(
                    f"{what} names compartment {name!r}, but the compartments are {listed}"
                )

    def named(cmt: int) -> str:
        return compartments[cmt - 1] if cmt else dosed

    design = trial.design
    for what, numbers in (
        ("a dose goes", design.dosed),
        ("a record that turns off goes", design.turned_off),
    ):
        for cmt in numbers:
            if cmt > len(compartments):
                raise ModelError(
                    f"{what} to CMT {cmt}, but the compartments are {listed}; correct CMT, "
                    f"or set it 0 for {dosed}",
                    rows={"CMT": cmt},
                )
    for rate, what, numbers in (
        (-1, "R", design.modeled_rates),
        (-2, "D", design.modeled_durations),
    ):
        for cmt in numbers:
            if named(cmt) not in (given.get(what) or {}):
                meaning = "rate" if what == "R" else "duration"
                raise ModelError(
                    f"a dose into {named(cmt)} has RATE {rate}, but the model gives it no {meaning}; "
                    f"add {what}={{{named(cmt)!r}: ...}}, or give RATE in the data",
                    rows={"CMT": cmt, "RATE": rate},
                )
    arrays: Any = {
        what: {k: parameter(f"{what} of {k}", v, trial) for k, v in (values or {}).items()}
        for what, values in given.items()
    }
    return Dosing(**arrays)


def tell(plans: Schedule) -> None:
    """Tell whoever asks which doses of each subject make its amounts NaN."""
    failing(MEANINGLESS, plans.refused)
    failing(CROWDED, plans.crowded)
