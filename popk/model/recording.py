"""What does a model ask of its structures? Their arguments, told to whoever reads the model."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Answer = Callable[[str, Any, dict[str, Any]], Any]

_reader: ContextVar[Answer | None] = ContextVar("reader", default=None)


@contextmanager
def answering(answer: Answer) -> Iterator[None]:
    """Let another function answer in the place of every structure that a model calls.

    Parameters
    ----------
    answer : Callable
        ``answer(name, trial, arguments)`` returns what the structure would.
    """
    token = _reader.set(answer)
    try:
        yield
    finally:
        _reader.reset(token)


def recorded[**P, R](structure: Callable[P, R]) -> Callable[P, R]:
    """Return a structure that asks whoever reads the model first."""
    signature = inspect.signature(structure)

    @functools.wraps(structure)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        answer = _reader.get()
        if answer is None:
            return structure(*args, **kwargs)
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        return answer(structure.__name__, arguments.pop("trial"), arguments)

    return asked
