"""Why is a value not a number? Sentences for what a compiled function can only make NaN."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple


class Reason(NamedTuple):
    """Why values are not numbers, and where.

    Attributes
    ----------
    says : str or Callable
        What is wrong and what to do; or the sentence of a value that is, written out.
    record : Int[Array, "subject"] or None
        The record of each subject that it concerns, below 0 where nothing is wrong.
    value : Float[Array, "..."] or None
        What was refused, in the place of `record`.
    right : Bool[Array, "..."] or None
        Whether each of these values is right.
    """

    says: str | Callable[[str], str]
    record: Any = None
    value: Any = None
    right: Any = None


_asked: ContextVar[list[Reason] | None] = ContextVar("asked", default=None)


@contextmanager
def asking() -> Iterator[list[Reason]]:
    """Collect the reasons that `failing` and `refusing` are told while a model runs."""
    found: list[Reason] = []
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)


def failing(says: str, record: Any) -> None:
    """Say at which record of each subject amounts cannot be computed, to whoever asks.

    Parameters
    ----------
    says : str
        What is wrong and what to do.
    record : Int[Array, "subject"]
        The record; below 0 where nothing is wrong.
    """
    found = _asked.get()
    if found is not None:
        found.append(Reason(says, record=record))


def refusing(says: Callable[[str], str], value: Any, right: Any) -> None:
    """Say which values are refused, to whoever asks; one that is NaN already has another reason.

    Parameters
    ----------
    says : Callable
        ``says(found)`` is the sentence on a value that is wrong.
    value : Float[Array, "subject record"], [subject, 1] or any other shape
        Of the two shapes given first the rows can be named.
    right : Bool[Array, "..."]
        Whether each value is right, of the same shape.
    """
    found = _asked.get()
    if found is not None:
        found.append(Reason(says, value=value, right=right))
