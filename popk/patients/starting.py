"""What does a twin begin with? The population's values, and the first belief of a patient."""

from typing import Any, NamedTuple

import xarray as xr

from popk.model.failures import why_not
from popk.model.manner import Manner
from popk.model.sites import ModelError, Sites
from popk.patients.arrivals import Ledger
from popk.patients.belief import METHODS, Belief, Problem, UnexplainedError, inferred
from popk.simulation import posterior_values
from popk.trial import Trial


class Shared(NamedTuple):
    """What an updated twin takes over from the one before.

    Attributes
    ----------
    population : dict of str to Array or None
        Values of the population's sites; None before they are known.
    ledger : Ledger or None
        The records that arrived.
    belief : Belief or None
        Where it has been inferred already.
    told : frozenset of str
        The warnings that have been given.
    """

    population: dict[str, Any] | None = None
    ledger: Ledger | None = None
    belief: Belief | None = None
    told: frozenset[str] = frozenset()


def check_options(method: str, flatten: float) -> None:
    """Refuse options that a twin does not know.

    Raises
    ------
    ModelError
        The method is none, or the power lies outside its range.
    """
    if method not in ("auto", *METHODS) or not 0 < flatten <= 1:
        raise ModelError(
            f"method is {method!r} and flatten {flatten}; they must be one of auto, "
            f"{', '.join(METHODS)}, and above 0 and at most 1"
        )


def population_of(
    posterior: xr.DataTree, sites: Sites, patient: Trial, draws: int, flatten: float
) -> dict[str, Any]:
    r"""Return the population's values, the omegas as wide as `flatten` makes them.

    A power on a normal prior divides its variance:
    :math:`N(\eta; 0, \Omega)^f \propto N(\eta; 0, \Omega / f)`.

    Raises
    ------
    ModelError
        The posterior lacks a site, its trial had other units, or an omega is known and not sampled.
    """
    found = posterior_values(posterior, sites, patient, new_subjects=True, draws=draws)
    if flatten == 1:
        return found
    wide = [f"omega_{name}" for name in sites.parameters]
    fixed = [name for name in wide if name not in found]
    if fixed or not wide:
        raise ModelError(
            f"flatten is {flatten}, and {', '.join(fixed) or 'every effect'} is not sampled by the "
            f"model; leave flatten=1"
        )
    return {n: x / flatten**0.5 if n in wide else x for n, x in found.items()}


def believed(
    problem: Problem, sites: Sites, manner: Manner, patient: Trial, *, seed: int, method: str
) -> Belief:
    """Return a patient's posterior; refuse one whom no draw can explain.

    Raises
    ------
    ModelError
        The levels are impossible: why, as far as that is known.
    """
    try:
        return inferred(
            problem, classes=len(sites.classes), apart=manner.apart, seed=seed, method=method
        )
    except UnexplainedError:
        first = {n: x[0] for n, x in problem.population.items()}
        why = why_not(problem.model, patient, first) or [
            "its levels are impossible under every draw of the population; check doses and units"
        ]
        raise ModelError("\n".join([f"ID {patient.ids[0]} cannot be predicted", *why])) from None
