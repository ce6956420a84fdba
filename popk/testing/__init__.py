r"""Does my own model keep the contract? The checks that popk runs on its own models, for yours.

    >>> import popk
    >>> popk.testing.check_model(model, trial)  # doctest: +SKIP

A model that keeps the contract can be fitted, predicted with, simulated from and made a twin of. One
that does not often fails late and far from its cause: a gradient that is wrong makes chains diverge,
a mean over all subjects makes a patient's prediction depend on who else is in the file.
"""

from popk.testing.computed import check_derivatives, check_prior, check_values
from popk.testing.contract import check_model
from popk.testing.declared import check_signature, check_sites
from popk.testing.invariance import (
    check_alone,
    check_compilation,
    check_order,
    check_padding,
    check_shift,
)
from popk.testing.problems import ContractError, Problem
from popk.testing.subject import Subject, subject_of

__all__ = [
    "ContractError", "Problem", "Subject", "check_alone", "check_compilation", "check_derivatives",
    "check_model", "check_order", "check_padding", "check_prior", "check_shift", "check_signature",
    "check_sites", "check_values", "subject_of",
]  # fmt: skip
