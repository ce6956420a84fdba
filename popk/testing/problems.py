"""What is wrong with a model, and how is it told?"""

import functools
from typing import NamedTuple

from popk.model.sites import Model


class Problem(NamedTuple):
    """One thing that is wrong with a model.

    Attributes
    ----------
    check : str
        Which check found it.
    says : str
        What is wrong, where, what was found and what to do.
    """

    check: str
    says: str


class ContractError(AssertionError):
    """A model that does not keep the contract; its text lists all that is wrong.

    Parameters
    ----------
    model : str
        Its name.
    problems : sequence of Problem
    """

    def __init__(self, model: str, problems: list[Problem]):
        self.problems = tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        lines = [f"  {p.check:<12} {p.says}" for p in problems]
        super().__init__("\n".join([f"{count} with the model {model}", *lines]))


def name_of(model: Model) -> str:
    inner = model.func if isinstance(model, functools.partial) else model
    return getattr(inner, "__name__", type(inner).__name__)
