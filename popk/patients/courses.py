"""How does a concentration run over some time? Draws of it, and what of a twin its advice must say."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from popk.model.sites import ModelError
from popk.patients.exposure import asked
from popk.patients.forecasts import output_of
from popk.patients.regimen import asking, joined, written_out
from popk.patients.twin import Twin
from popk.trial import Trial


class Course(NamedTuple):
    """A concentration, or another output of a model, over a window of time.

    Attributes
    ----------
    time : Float[ndarray, "point"]
        Rising; a time at which doses are given stands there twice, before and after them [TIME].
    weight : Float[ndarray, "point"]
        Of the quadrature: ``value @ weight`` is the area under the curve [TIME].
    value : Float[ndarray, "sample point"]
        One row for each of the twin's draws, without residual error [unit of DV].
    """

    time: np.ndarray
    weight: np.ndarray
    value: np.ndarray


def courses(
    twin: Twin,
    patient: Trial,
    window: tuple[float, float],
    outputs: Sequence[str | None] = (None,),
) -> dict[str | None, Course]:
    """Return draws of outputs of the model over a window, under the doses that records hold.

    Parameters
    ----------
    twin : Twin
    patient : Trial
        The patient's records, with the doses that are to be judged.
    window : tuple of float
        Begin and end [unit of TIME].
    outputs : sequence of str or None
        The names of outputs; None for the one of a model with one kind of levels.

    Raises
    ------
    ModelError
        The model has no such output, or the prediction is no number in some draws.
    ValueError
        The window is none, or holds too many doses.
    """
    names = {output: output_of(twin._sites.all, output) for output in outputs}
    grid, whole, points = asked(patient, window)
    values = twin._values(whole, 0)
    found = {}
    for output, name in names.items():
        value = values[name][:, 0, points]
        if not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).any(1).sum())
            raise ModelError(
                f"{name} of ID {twin.id} is no number between {window[0]:g} and {window[1]:g} in {bad} "
                f"of {len(value)} draws: the regimen cannot be predicted; where elimination saturates "
                f"there may be no steady state"
            )
        found[output] = Course(grid.time, grid.weight, value)
    return found


def clusters_of(twin: Twin) -> np.ndarray:
    """Return which draws are not independent: those of one population draw [sample].

    Where there is one population draw only, those that are copies of one individual draw.
    """
    belief = twin._belief
    size = len(belief.vector)
    columns = [np.asarray(x).reshape(size, -1) for x in belief.draws.values()]
    _, which = np.unique(np.concatenate(columns, axis=1), axis=0, return_inverse=True)
    if which.max() == 0:
        _, which = np.unique(np.asarray(belief.vector), axis=0, return_inverse=True)
    return which.reshape(-1)


def doubts_of(twin: Twin) -> tuple[str, ...]:
    """Return what a twin warned of: draws that cannot be trusted, covariates outside the fitted range."""
    doubt = twin._belief.doubt
    own = (
        (f"the draws of ID {twin.id} cannot be trusted ({twin.method}): {doubt}",) if doubt else ()
    )
    return (*own, *sorted(twin._shared.told))


def next_dose_of(twin: Twin, interval: float | None) -> float:
    """Return when the next dose is due: an interval after the last one, and not before the last record."""
    frame = written_out(twin.patient.host.frame)
    doses = frame["TIME"][frame["EVID"].isin([1, 4])]
    due = float(doses.iloc[-1]) + (interval or 0.0) if len(doses) else -np.inf
    return max(due, float(frame["TIME"].iloc[-1]))


def path(twin: Twin, patient: Trial, times: np.ndarray, output: str | None = None) -> np.ndarray:
    """Return draws of one output at some times, after the doses of each [sample, time].

    Parameters
    ----------
    twin : Twin
    patient : Trial
        The patient's records, with the doses that are to be judged.
    times : Float[ndarray, "time"]
        Rising [unit of TIME].
    output : str, optional

    Raises
    ------
    ModelError
        The model has no such output, or the prediction is no number.
    """
    name = output_of(twin._sites.all, output)
    frame = written_out(patient.host.frame)
    whole = joined(frame, asking(times), patient, after=[True] * len(times))
    rows = whole["ROW"].astype(str).str.startswith("forecast ").to_numpy()
    value = twin._values(patient.replaced(whole), 0)[name][:, 0, np.flatnonzero(rows)]
    if not np.isfinite(value).all():
        raise ModelError(
            f"{name} of ID {twin.id} is no number between {times[0]:g} and {times[-1]:g}; the doses "
            f"cannot be predicted"
        )
    return value
