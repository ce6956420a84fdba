"""What is known of one patient, and what is to come? A twin's forecast, drawn."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from popk.patients.regimen import Regimen, replaced, written_out
from popk.patients.twin import Twin
from popk.plots.picture import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    VERMILLION,
    labels,
    legend,
    level_name,
    logarithmic,
    panels,
    with_unit,
)

_POINTS = 160


def twin(
    person: Twin,
    *,
    until: float | None = None,
    regimen: Regimen | Sequence[Regimen] | None = None,
    interval: float = 0.9,
    target: tuple[float, float] | None = None,
    now: float | None = None,
    log: bool = False,
) -> Figure:
    """Return a twin's concentration over time: what was measured, what is believed, what is to come.

    Parameters
    ----------
    person : Twin
        Of a model with one kind of levels.
    until : float, optional
        The end of the forecast [unit of TIME]; a quarter beyond the last record by default.
    regimen : Regimen, or sequence of Regimen, optional
        Takes the place of all doses from its start on.
    interval : float
        Of the bands, 0.9 for 90%.
    target : tuple of float, optional
        The lower and upper end of a range to be in [unit of DV].
    now : float, optional
        Where the past ends, a dashed line: by default the time of the last level.
    log : bool
        Whether levels are on a logarithmic axis.

    Returns
    -------
    Figure
        Line: median concentration. Bands: the interval of the concentration and, lighter, of a level as
        it would be measured. Points: levels, open below the limit of quantification. Ticks: doses.

    Raises
    ------
    ValueError
        The interval or the end is none.
    """
    patient = person.patient if regimen is None else replaced(person.patient, regimen)
    frame = written_out(patient.host.frame)
    begin, last = float(frame["TIME"].min()), float(frame["TIME"].max())
    end = last + 0.25 * max(last - begin, 1.0) if until is None else float(until)
    if not (0 < interval < 1 and end > begin):
        raise ValueError(f"interval is {interval} and until {end:g}; give a share, and a later end")
    doses = frame["TIME"][frame["EVID"].isin([1, 4])].to_numpy()
    doses = doses[doses <= end]
    times = _times(begin, end, doses)
    ask = person.forecast if regimen is None else partial(person.what_if, regimen)
    each = [ask(times, seed=seed) for seed in range(2, 6)]  # more errors make smoother bands
    tails = [(1 - interval) / 2, 0.5, (1 + interval) / 2]
    ipred = np.quantile(each[0]["IPRED"].values, tails, axis=0)
    level = np.quantile(np.concatenate([x["DV"].values for x in each]), tails, axis=0)
    level = np.maximum(level, 0.0) if patient.design.concentrations else level
    picture, axes = panels(1, 1, (8, 4.4))
    ax, percent = axes[0, 0], f"{100 * interval:g}% interval"
    if target is not None:
        ax.axhspan(*target, color=GREEN, alpha=0.14, lw=0, label="target")
    ax.fill_between(
        times, level[0], level[2], color=BLUE, alpha=0.14, lw=0, label=f"level, {percent}"
    )
    ax.fill_between(
        times, ipred[0], ipred[2], color=BLUE, alpha=0.32, lw=0, label=f"concentration, {percent}"
    )
    ax.plot(times, ipred[1], color=BLUE, lw=1.6, label="median")
    _levels(ax, patient.host.frame)
    _doses(ax, doses)
    _past(ax, patient.host.frame, now)
    ax.set_xlim(begin - 0.01 * (end - begin), end)
    if log:
        ax.set_ylim(max(ipred[0][ipred[0] > 0].min() / 2, ipred[2].max() * 1e-4), None)
        logarithmic(ax, "y")
    else:
        ax.set_ylim(0 if patient.design.concentrations else None, None)
    units = patient.units
    labels(ax, with_unit("Time", units["TIME"]), with_unit(level_name(patient), units["DV"]))
    legend(picture, ax, 6)
    return picture


def _times(begin: float, end: float, doses: Any) -> np.ndarray:
    """Return even times, with those just before and after each dose."""
    step = (end - begin) / _POINTS
    near = np.concatenate([doses, doses + 0.02 * step])
    near = near[(near > begin) & (near < end)]
    return np.unique(np.concatenate([np.linspace(begin, end, _POINTS + 1), near]))


def _levels(ax: Any, frame: Any) -> None:
    measured = frame[frame["EVID"].eq(0) & frame["MDV"].eq(0)]
    exact = measured[measured["BLQ"].eq(0) & measured["ALQ"].eq(0)]
    below = measured[measured["BLQ"].eq(1)]
    if len(exact):
        ax.plot(exact["TIME"], exact["DV"], "o", color=VERMILLION, ms=5, label="measured", zorder=4)
    if len(below):
        ax.plot(
            below["TIME"], below["LLOQ"], "v", mfc="white", mec=VERMILLION, ms=6,
            label="below the limit", zorder=4,
        )  # fmt: skip


def _doses(ax: Any, doses: Any) -> None:
    if len(doses):
        ax.plot(
            doses, np.full(len(doses), 0.015), "|", color=INK, ms=9, mew=1.2, clip_on=False,
            transform=ax.get_xaxis_transform(), label="dose",
        )  # fmt: skip


def _past(ax: Any, frame: Any, now: float | None) -> None:
    """Draw where the past ends."""
    seen = frame["TIME"][frame["EVID"].eq(0) & frame["MDV"].eq(0)]
    if now is None and not len(seen):
        return
    ax.axvline(float(seen.max()) if now is None else now, color=MUTED, lw=0.9, ls=(0, (4, 3)))
