"""Why is a prediction not a number? Sentences for values that a compiled function can only make NaN."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from popk.model.sites import Model, values_of
from popk.trial import Trial

_asked: ContextVar[list[tuple[str, Any]] | None] = ContextVar("asked", default=None)


@contextmanager
def _asking() -> Iterator[list[tuple[str, Any]]]:
    """Collect what `failing` is told while a model runs: sentences, and the record of each subject."""
    found: list[tuple[str, Any]] = []
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
        found.append((says, record))


def why_not(model: Model, trial: Trial, values: Mapping[str, Any]) -> list[str]:
    """Return why amounts are not numbers, a line for each reason, with the first row it concerns.

    Parameters
    ----------
    model : Callable
    trial : Trial
    values : mapping of site to value
        Values of all sites that predictions depend on.
    """
    says: list[str] = []

    def records(arrays: Trial) -> list[Any]:
        with _asking() as found:
            values_of(model, arrays, values, jax.random.key(0))
        says[:] = [sentence for sentence, _ in found]
        return [record for _, record in found]

    # The sentences are known once the model is traced, the records when it has run.
    where = jax.jit(records)(trial.arrays())
    frame, lines = trial.host.frame, []
    for sentence, record in zip(says, where, strict=True):
        subjects = np.flatnonzero(np.asarray(record) >= 0)
        if not len(subjects):
            continue
        own = frame[frame["ID"].eq(trial.ids[subjects[0]])]
        row = own.iloc[min(int(np.asarray(record)[subjects[0]]), len(own) - 1)]
        others = f" (and {len(subjects) - 1} other IDs)" if len(subjects) > 1 else ""
        lines.append(
            f"  row {row['ROW']}  ID {row['ID']}  TIME {row['TIME']:g}{others}: {sentence}"
        )
    return lines
