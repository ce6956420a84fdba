"""The contract of a model, and what of it a model breaks."""

from collections.abc import Callable, Mapping
from typing import Any

from popk.model.sites import Model
from popk.testing.computed import check_derivatives, check_prior, check_values
from popk.testing.declared import check_signature, check_sites, unusable
from popk.testing.invariance import (
    check_alone,
    check_compilation,
    check_order,
    check_padding,
    check_shift,
)
from popk.testing.problems import ContractError, Problem, name_of
from popk.testing.subject import Subject, subject_of
from popk.trial import Trial


def check_model(
    model: Model,
    trial: Trial,
    *,
    values: Mapping[str, Any] | None = None,
    depends_on_time: bool = False,
    seed: int = 0,
) -> None:
    """Return nothing if a model keeps the contract on a trial; raise an error that lists what it breaks.

    ================  ===========================================================================
    ``signature``     it is a function of the trial alone, with a docstring
    ``sites``         it samples and observes, under the names that popk's reports know
    ``prior``         what the prior believes gives finite predictions, density and gradient
    ``gradient``      the gradient of the log-density agrees with central differences
    ``padding``       filling the trial's axes up changes nothing
    ``order``         the order of subjects changes nothing
    ``alone``         a subject's prediction does not depend on who else is in the trial
    ``shift``         the moment from which time is counted changes nothing
    ``compilation``   a second call with the same shapes compiles nothing
    ``values``        published values give finite predictions, none of them negative
    ================  ===========================================================================

    Parameters
    ----------
    model : Callable
    trial : Trial
        A few subjects are enough. One without levels gets some that the model draws.
    values : mapping of site to value, optional
        Population values, as published, in their units; random effects are 0.
    depends_on_time : bool
        Whether the model is meant to depend on the time of day or since the study began: its right-hand
        side reads t, or the model TIME. Then a shift is not checked.
    seed : int
        Of the draws and directions that are tried.

    Raises
    ------
    ContractError
        The model breaks the contract; ``problems`` holds what is wrong, the text says all of it.

    Examples
    --------
    >>> popk.testing.check_model(theophylline, trial, values={"CL_pop": 2.8, "V_pop": 32, "KA_pop": 1.5})
    ... # doctest: +SKIP
    """
    found = [*check_signature(model), *check_sites(model, trial)]
    if not unusable(model, trial):
        found += _behavior(model, trial, seed, depends_on_time)
        found += check_values(model, trial, values) if values is not None else []
    if found:
        raise ContractError(name_of(model), found)


def _behavior(model: Model, trial: Trial, seed: int, depends_on_time: bool) -> list[Problem]:
    """Return what is wrong with what a model computes."""
    subject = subject_of(model, trial, seed)
    checks: list[Callable[[Subject], list[Problem]]] = [
        check_prior, check_derivatives, check_padding, check_order, check_alone, check_compilation,
    ]  # fmt: skip
    if not depends_on_time:
        checks.append(check_shift)
    return [problem for check in checks for problem in check(subject)]
