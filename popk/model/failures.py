"""Why is a prediction not a number? The reasons of a model, with the rows that they concern."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from popk.model.sites import Model, values_of
from popk.reasons import Reason, asking
from popk.trial import Trial

Say = Callable[[Any], str | None]  # a line on what was found, None where nothing is wrong


def why_not(model: Model, trial: Trial, values: Mapping[str, Any]) -> list[str]:
    """Return why predictions are not numbers, a line for each reason, with the first row it concerns.

    Parameters
    ----------
    model : Callable
    trial : Trial
    values : mapping of site to value
        Values of all sites that predictions depend on.
    """
    says: list[Say] = []

    def run(arrays: Trial, values: Mapping[str, Any], only: tuple[int, ...] | None) -> list[Any]:
        with asking() as reasons:
            values_of(model, arrays, values, jax.random.key(0))
        kept = reasons if only is None else [reasons[i] for i in only]
        says[:] = [_line(reason, arrays, trial) for reason in kept]
        return [(r.record, r.value, r.right) for r in kept]

    # Values are arguments, since what is known while a model is traced raises by itself. Sentences
    # are known once it is traced, where they hold when it has run.
    compiled = partial(jax.jit(run, static_argnums=2), trial.arrays(), dict(values))
    found = _found(compiled, lambda: len(says))
    lines = [say(each) for say, each in zip(says, found, strict=True)]
    return list(dict.fromkeys(line for line in lines if line))


def _found(compiled: Callable[[Any], list[Any]], count: Callable[[], int]) -> list[Any]:
    """Return what reasons found, but for those told within a loop or a map, which end with it."""

    def outlives(number: int) -> bool:
        try:
            compiled((number,))
        except jax.errors.UnexpectedTracerError:
            return False
        return True

    try:
        return compiled(None)
    except jax.errors.UnexpectedTracerError:
        return compiled(tuple(i for i in range(count()) if outlives(i)))


def _line(reason: Reason, arrays: Trial, trial: Trial) -> Say:
    """Return what a reason says once its arrays are known."""
    # A covariate that is refused as it stands in the records is named by its column.
    column = next((n for n, x in arrays.covariates.items() if x is reason.value), "")

    def of_records(found: Any) -> str | None:
        record = np.asarray(found[0])
        return f"{_place(trial, record)}: {reason.says}" if (record >= 0).any() else None

    def of_values(found: Any) -> str | None:
        value, right = (np.asarray(x) for x in found[1:])
        wrong = ~right & ~np.isnan(value)
        if not wrong.any():
            return None
        first = f"{value[tuple(np.argwhere(wrong)[0])]:g}"
        sentence = reason.says if isinstance(reason.says, str) else reason.says(first)
        if wrong.ndim != 2 or wrong.shape[0] != len(trial.ids):
            return f"  {sentence}"
        record = np.where(wrong.any(1), wrong.argmax(1), -1)
        return f"{_place(trial, record)}{column and f'  {column} {first}'}: {sentence}"

    return of_values if reason.record is None else of_records


def _place(trial: Trial, record: np.ndarray) -> str:
    """Return the first row that records of subjects stand for; below 0 are subjects of none."""
    frame, subjects = trial.host.frame, np.flatnonzero(record >= 0)
    own = frame[frame["ID"].eq(trial.ids[subjects[0]])]
    row = own.iloc[min(int(record[subjects[0]]), len(own) - 1)]
    others = f" (and {len(subjects) - 1} other IDs)" if len(subjects) > 1 else ""
    return f"  row {row['ROW']}  ID {row['ID']}  TIME {row['TIME']:g}{others}"
