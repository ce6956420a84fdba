"""Does the model describe the levels? Fits, predictions and residuals, subject by subject."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from popk.diagnostics.kinds import are_levels, in_group, outcomes_of
from popk.diagnostics.residuals import predictions, trend
from popk.diagnostics.residuals import residuals as weighted
from popk.model.sites import ModelError
from popk.plots.picture import (
    BLUE,
    INK,
    MANY,
    MUTED,
    NORMAL,
    SMALL,
    VERMILLION,
    Picture,
    labels,
    legend,
    level_name,
    logarithmic,
    panels,
    with_unit,
)
from popk.trial import Trial

POINTS = {"s": 13, "facecolors": "none", "edgecolors": INK, "linewidths": 0.7}


def individual_fits(
    simulated: xr.DataTree, trial: Trial, interval: float = 0.9, *, log: bool = False
) -> Figure:
    """Return each subject's levels with the individual and the population prediction.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, seed=...)``, of the same subjects. Predictions of a
        trial with more observation records (MDV 1) than `trial` make smoother curves.
    trial : Trial
        The trial whose levels are shown.
    interval : float
        The probability of the bands: of IPRED (dark), and of a new level DV (light).
    log : bool
        Whether levels are on a logarithmic axis.

    Returns
    -------
    Figure
        One panel a subject, all with the same axis of levels, and of time unless most subjects end
        long before the last one. A level below or above a limit of quantification is a triangle at its
        limit. Events, categories and counts are not shown.

    Raises
    ------
    ModelError
        `simulated` is of new subjects, lacks a subject of the trial, or has no levels.
    """
    group = simulated["posterior_predictive"].dataset
    shown = are_levels(simulated, trial)
    group = group.isel(observation=~in_group(group, outcomes_of(simulated)))
    known = set(group["ID"].values.astype(str))
    lacking = [one for one in trial.ids if one not in known]
    if int(simulated.attrs.get("new_subjects", 0)) or lacking:
        raise ModelError(
            f"there is no individual prediction of ID {', '.join(lacking[:5]) or 'anyone'}; call "
            f"popk.predict on this trial with new_subjects=False"
        )
    tails = (0.5 - interval / 2, 0.5 + interval / 2)
    time, recorded = np.asarray(trial.time), np.asarray(trial.recorded)
    spans = [_span(time[i, recorded[i]]) for i in range(trial.n_subjects)]
    ends = [end for _, end in spans]
    together = float(np.median(ends)) > 0.6 * max(ends)
    if together:
        spans = [(min(start for start, _ in spans), max(ends))] * trial.n_subjects
    picture, axes = _grid(trial, together=together)
    bottom, top = _heights(group, trial, shown, tails, log=log)
    for i, ax in enumerate(axes):
        ax.set(xlim=spans[i], ylim=(bottom, top))
        if log:
            logarithmic(ax, "y")
        _curves(ax, group.isel(observation=group["ID"].values == trial.ids[i]), tails)
        _levels(ax, trial, shown, i)
    legend(picture, axes[0], 6)
    return picture


def _span(times: np.ndarray) -> tuple[float, float]:
    """Return what a panel spans in time: the subject's records, doses too."""
    start, end = float(times.min()), float(times.max())
    pad = 0.03 * (end - start) or 0.5
    return start - pad, end + pad


def _heights(
    group: xr.Dataset, trial: Trial, levels: np.ndarray, tails: tuple[float, float], *, log: bool
) -> tuple[float, float]:
    """Return what all panels span in level: what was observed, and the band of new levels."""
    o = trial.observations
    shown = np.where(o.above, o.upper, np.where(o.below, o.limit, o.value))
    shown = shown[np.asarray(o.measured) & levels]
    high = np.quantile(group["DV"].values, tails[1], axis=0)
    top = 1.05 * float(max(shown.max(initial=0.0), high.max()))
    if log:  # down to the lowest level: bands may reach 0 and below
        positive = np.concatenate([shown, high])
        return 0.7 * float(np.min(shown[shown > 0], initial=positive[positive > 0].max())), top
    return min(0.0, float(shown.min(initial=0.0))), top


def _grid(trial: Trial, *, together: bool) -> tuple[Picture, list[Axes]]:
    """Return a figure of one panel a subject; time has numbers below each, or below each column.

    Space is shared out by hand, in inches, and axes are not linked: with 60 panels Matplotlib's
    layout engine takes 10 s, its shared axes another 5.
    """
    count = trial.n_subjects
    columns = min(6, max(2, math.ceil(math.sqrt(1.4 * count))), count)
    rows = math.ceil(count / columns)
    width, height = 9.0, 1.05 + (1.9 if columns < 6 else 1.45) * rows
    picture, axes = panels(rows, columns, (width, height), layout=None)
    picture.subplots_adjust(
        left=0.7 / width, right=1 - 0.1 / width, top=1 - 0.5 / height, bottom=0.55 / height,
        wspace=0.1 if together else 0.16, hspace=0.25 if together else 0.45,
    )  # fmt: skip
    for i, ax in enumerate(axes.flat):
        if i >= count:
            ax.set_visible(False)
            continue
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        below = i + columns >= count or not together
        ax.tick_params(labelbottom=below, labelleft=i % columns == 0)
        ax.set_title(f"ID {trial.ids[i]}", fontsize=SMALL, color=INK, loc="left", pad=2)
    text = {"fontsize": NORMAL, "color": INK}
    picture.supxlabel(with_unit("Time", trial.units["TIME"]), y=0.08 / height, **text)
    picture.supylabel(with_unit(level_name(trial), trial.units["DV"]), x=0.01, **text)
    return picture, list(axes.flat[:count])


def _curves(ax: Axes, own: xr.Dataset, tails: tuple[float, float]) -> None:
    """Draw one subject's predictions; time that goes back (a new occasion) breaks the curves."""
    percent = f"{100 * (tails[1] - tails[0]):g}%"
    back = np.flatnonzero(np.diff(own["TIME"].values) < 0) + 1
    for i, part in enumerate(np.split(np.arange(own.sizes["observation"]), back)):
        one = own.isel(observation=part)
        time = one["TIME"].values
        level, person = (np.quantile(one[name].values, tails, axis=0) for name in ("DV", "IPRED"))
        middle = one[["IPRED", "PRED"]].median("sample")
        first = "" if i == 0 else "_"  # only the first part has names in the legend
        fill = {"color": BLUE, "linewidth": 0}
        ax.fill_between(time, *level, alpha=0.13, label=f"{first}{percent} of new levels", **fill)
        ax.fill_between(time, *person, alpha=0.38, label=f"{first}{percent} of IPRED", **fill)
        ax.plot(time, middle["PRED"], color=MUTED, lw=0.9, ls=(0, (4, 2)), label=f"{first}PRED")
        ax.plot(time, middle["IPRED"], color=BLUE, lw=1.2, label=f"{first}IPRED")


def _levels(ax: Axes, trial: Trial, levels: np.ndarray, subject: int) -> None:
    o = trial.observations
    own = np.asarray(o.measured) & levels & (np.asarray(o.subject) == subject)
    time = np.asarray(trial.time)[subject, np.asarray(o.record)]
    seen = own & np.asarray(o.exact)
    ax.scatter(time[seen], np.asarray(o.value)[seen], zorder=3, label="observed", **POINTS)
    for hidden, limit, marker, name in (
        (o.below, o.limit, "v", "below the limit of quantification"),
        (o.above, o.upper, "^", "above the upper limit of quantification"),
    ):
        if np.any(hidden):
            rows = own & np.asarray(hidden)
            ax.scatter(
                time[rows], np.asarray(limit)[rows], zorder=3, marker=marker, label=name, **POINTS
            )


def observed_predicted(simulated: xr.DataTree, trial: Trial, *, log: bool = False) -> Figure:
    """Return observed levels against PRED and against IPRED, with the line of identity.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, seed=...)``, of the same subjects.
    trial : Trial
        The trial that was predicted.
    log : bool
        Whether both axes are logarithmic; what is not positive is then not shown.

    Raises
    ------
    ModelError
        `simulated` is of new subjects or of another trial.
    """
    data = predictions(simulated, trial)
    picture, axes = panels(1, 2, (9, 4.5), sharex=True, sharey=True)
    unit, level = trial.units["DV"], data["DV"].values
    for ax, name in zip(axes.flat, ("PRED", "IPRED"), strict=True):
        x = data[name].values
        shown = (x > 0) & (level > 0) if log else np.isfinite(x)
        ends = _ends(np.concatenate([x[shown], level[shown]]), log=log)
        ax.plot(ends, ends, color=MUTED, lw=1, ls=(0, (4, 2)), label="identity")
        ax.scatter(x[shown], level[shown], rasterized=x.size > MANY, label="observed", **POINTS)
        scale, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
        middle = [back(v) for v in trend(scale(x[shown]), scale(level[shown]))]
        ax.plot(*middle, color=VERMILLION, lw=1.4, label="local trend")
        if log:
            logarithmic(ax, "xy")
        ax.set_aspect("equal")
        kind = {"PRED": "Population prediction PRED", "IPRED": "Individual prediction IPRED"}[name]
        labels(ax, with_unit(kind, unit), with_unit(f"Observed {level_name(trial).lower()}", unit))
        ax.label_outer()
    legend(picture, axes[0, 0], 3)
    return picture


def _ends(values: np.ndarray, *, log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if log else (min(low, 0.0), high)


def residuals(simulated: xr.DataTree, posterior: xr.DataTree, trial: Trial) -> Figure:
    """Return individual weighted residuals against time and IPRED, and their size against IPRED.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, seed=...)``, of the same subjects.
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial that was predicted.

    Returns
    -------
    Figure
        Lines at 0 and at 1.96 sd, between which 95% of the residuals of a right model lie. On the
        right, the absolute residuals: a trend shows an error that grows otherwise with the prediction
        than the model says; the mean of normal ones is 0.80 sd.

    Raises
    ------
    ModelError
        `simulated` does not fit, or the residual error is none of popk's.
    """
    data = weighted(simulated, posterior, trial)
    data = data.isel(observation=np.isfinite(data["IWRES"].values))
    picture, axes = panels(1, 3, (9, 3.2))
    y = data["IWRES"].values
    for ax, name in zip(axes.flat, ("TIME", "IPRED"), strict=False):
        x = data[name].values
        ax.axhline(0, color=INK, lw=0.7)
        for side, text in ((-1.96, "_"), (1.96, "±1.96 sd")):
            ax.axhline(side, color=MUTED, lw=0.9, ls=(0, (4, 2)), label=text)
        ax.scatter(x, y, rasterized=x.size > MANY, label="observed", **POINTS)
        ax.plot(*trend(x, y), color=VERMILLION, lw=1.4, label="local trend")
        kind = {"TIME": "Time", "IPRED": "IPRED"}[name]
        unit = trial.units["TIME" if name == "TIME" else "DV"]
        labels(ax, with_unit(kind, unit), "IWRES (sd)")
    reach = 1.1 * max(3.0, abs(y).max())
    for ax in axes.flat[:2]:
        ax.set_ylim(-reach, reach)
    size, x = axes[0, 2], data["IPRED"].values
    size.axhline(
        math.sqrt(2 / math.pi), color=MUTED, lw=0.9, ls=(0, (1, 1.5)), label="mean of a right model"
    )
    size.axhline(1.96, color=MUTED, lw=0.9, ls=(0, (4, 2)))
    size.scatter(x, abs(y), rasterized=x.size > MANY, **POINTS)
    size.plot(*trend(x, abs(y)), color=VERMILLION, lw=1.4)
    size.set_ylim(0, reach)
    labels(size, with_unit("IPRED", trial.units["DV"]), "|IWRES| (sd)")
    legend(picture, (axes[0, 0], size), 4)
    return picture
