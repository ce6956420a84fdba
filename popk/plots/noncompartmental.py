"""What do the levels say without a model, and does the model agree? Terminal slopes and exposures, drawn."""

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from popk.plots.picture import (
    BLUE,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    VERMILLION,
    Picture,
    legend,
    logarithmic,
    number,
    panels,
    with_unit,
)

#: What stands at the axis of a statistic.
NAMES = {
    "AUC_last": "AUC to the last level", "AUC_inf": "AUC to infinity", "AUC_tau": "AUC of an interval",
    "half_life": "Half-life", "Ctrough": "Trough", "Cmax": "Cmax", "tmax": "tmax",
}  # fmt: skip
#: With more subjects their p-values and names would lie on one another.
MOST_NAMES = 30


def nca(found: xr.Dataset, *, log: bool = True) -> Figure:
    """Return each profile's levels with the terminal slope and the points that it was made of.

    Parameters
    ----------
    found : Dataset
        As `popk.nca` returns it.
    log : bool
        Whether levels are on a logarithmic axis, where the terminal slope is a line.

    Returns
    -------
    Figure
        One panel a profile, all with the same axes. Filled points: those of the terminal slope. A level
        below the limit of quantification is a triangle at its limit. The slope is drawn through its
        points, and dashed beyond them to the axis and the last time. An asterisk: a flagged profile, the
        reasons are in ``found["reason"]``.

    Raises
    ------
    ValueError
        No subject has a level after a dose.
    """
    rows = _profiles(found)
    if not rows or not (found["DV"] > 0).any():
        raise ValueError("there is no level after a dose to draw; look at popk.nca_table(found)")
    points: Any = found[["ID", "dose_of", "TIME", "DV", "BLQ", "in_slope"]].to_dataframe()
    picture, axes = _grid(len(rows), found)
    shown = points["DV"][points["DV"] > 0]
    low, high = 0.6 * float(shown.min()), 1.4 * float(shown.max())
    last = 1.04 * float(points["TIME"].max())
    for ax, row in zip(axes, rows, strict=True):
        own = points[points["ID"].eq(row["subject"]) & points["dose_of"].eq(row["dose_number"])]
        _slope(ax, row, last)
        _points(ax, own)
        ax.set(xlim=(-0.03 * last, last), ylim=(low, high) if log else (0, high / 1.3))
        if log:
            logarithmic(ax, "y")
        _title(ax, row, found)
    fullest = max(axes, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
    legend(picture, fullest, 4)
    return picture


def _profiles(found: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row of values for each profile with levels."""
    table = found.drop_dims(["point", "flag"]).to_dataframe().reset_index()
    have = set(zip(found["ID"].values, found["dose_of"].values, strict=True))
    rows = table.to_dict("records")
    return [row for row in rows if (row["subject"], row["dose_number"]) in have]  # type: ignore[misc]


def _grid(count: int, found: xr.Dataset) -> tuple[Picture, list[Axes]]:
    """Return a figure of one panel a profile, with room shared out by hand: quick for many."""
    columns = min(6, max(2, math.ceil(math.sqrt(1.4 * count))), count)
    rows = math.ceil(count / columns)
    width, height = 9.0, 1.05 + 1.9 * rows
    picture, axes = panels(rows, columns, (width, height), layout=None)
    picture.subplots_adjust(
        left=0.75 / width, right=1 - 0.1 / width, top=1 - 0.62 / height, bottom=0.55 / height,
        wspace=0.1, hspace=0.34,
    )  # fmt: skip
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < count)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(labelbottom=i + columns >= count, labelleft=i % columns == 0)
    text = {"fontsize": NORMAL, "color": INK}
    units = found["TIME"].attrs["units"], found["DV"].attrs["units"]
    picture.supxlabel(with_unit("Time since the dose", units[0]), y=0.08 / height, **text)
    picture.supylabel(with_unit("Concentration", units[1]), x=0.01, **text)
    return picture, list(axes.flat[:count])


def _slope(ax: Axes, row: dict[str, Any], last: float) -> None:
    """Draw the terminal line, dashed where it goes beyond its points."""
    if not row["lambda_z"] > 0:
        return
    for ends, style, name in (
        ((0.0, last), (0, (4, 2)), "_"),
        ((row["slope_first"], row["slope_last"]), "-", "terminal slope"),
    ):
        time = np.linspace(*ends, 60)  # a curve where levels are not on a logarithmic axis
        level = row["slope_intercept"] * np.exp(-row["lambda_z"] * time)
        width = 1.6 if style == "-" else 0.8
        ax.plot(time, level, color=VERMILLION, lw=width, ls=style, label=name, zorder=2)


def _points(ax: Axes, own: Any) -> None:
    """Draw the levels: filled where the slope is made of them."""
    for rows, fill, marker, name in (
        (~own["BLQ"] & ~own["in_slope"], "none", "o", "level"),
        (own["in_slope"], BLUE, "o", "level of the terminal slope"),
        (own["BLQ"] & own["DV"].gt(0), "none", "v", "below the limit of quantification"),
    ):
        if not rows.any():
            continue
        ax.scatter(
            own["TIME"][rows], own["DV"][rows], s=15, facecolors=fill, marker=marker, label=name,
            edgecolors=BLUE if fill == BLUE else INK, linewidths=0.7, zorder=3,
        )  # fmt: skip


def _title(ax: Axes, row: dict[str, Any], found: xr.Dataset) -> None:
    """Say whose profile it is, and its half-life; an asterisk where it is flagged."""
    several = "interval" in found.dims
    name = f"ID {row['subject']}" + (f", dose {row['dose_number']}" if several else "")
    ax.set_title(
        f"{name}{' *' if row['reason'] else ''}", fontsize=SMALL, color=INK, loc="left", pad=2
    )
    if row["lambda_z"] > 0:
        unit = found["half_life"].attrs["units"]
        ax.set_title(
            f"t½ {number(row['half_life'])} {unit}",
            fontsize=SMALL - 1,
            color=MUTED,
            loc="right",
            pad=2,
        )


def exposure_check(check: xr.Dataset, *, dose_interval: int = 1) -> Figure:
    """Return observed exposures on what the model says of each subject, and of all of them.

    Parameters
    ----------
    check : Dataset
        As `popk.exposure_check` returns it.
    dose_interval : int
        Which of the dosing intervals, where subjects have several.

    Returns
    -------
    Figure
        A panel for each statistic. Lines: the interval over simulated trials, with a tick at the median.
        Points: observed; red diamonds where they lie outside. Below: the median and the standard
        deviation over subjects. At the right: p-values.

    Raises
    ------
    ValueError
        There is no such dosing interval.
    """
    if "interval" in check.dims:
        if dose_interval not in check["interval"].values:
            raise ValueError(
                f"dose_interval is {dose_interval}; the check has {check['interval'].values.tolist()}"
            )
        check = check.sel(interval=dose_interval)
    names = [str(n) for n in check["statistic"].values]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    subjects = check.sizes["subject"]
    tall = max(1.6, min(0.17 * (subjects + 3), 6.0)) + 0.55
    picture, axes = panels(rows, columns, (9, rows * tall + 0.4))
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        _statistic(ax, check.sel(statistic=names[i]), float(check.attrs["interval"]))
        label = NAMES.get(names[i], names[i])
        unit = str(check["unit"].sel(statistic=names[i]).item()).replace("*", "·")
        ax.set_xlabel(with_unit(label, unit), fontsize=NORMAL, color=INK)
        ax.tick_params(labelleft=i % columns == 0)
    drawn = axes.flat[: len(names)]
    legend(picture, max(drawn, key=lambda ax: len(ax.get_legend_handles_labels()[1])), 4)
    return picture


def _statistic(ax: Axes, one: xr.Dataset, interval: float) -> None:
    """Draw one statistic: a row a subject, and two for all of them."""
    subjects = [str(s) for s in one["subject"].values]
    over = [str(s) for s in one["summary"].values]
    place = np.concatenate([np.arange(len(subjects)), len(subjects) + 0.8 + np.arange(len(over))])

    def both(name: str) -> np.ndarray:
        return np.concatenate([one[name].values, one[f"{name}_summary"].values])

    low, middle, high, observed = (both(n) for n in ("lower", "median", "upper", "observed"))
    outside = (observed < low) | (observed > high)
    inside = np.isfinite(observed) & ~outside
    ax.hlines(place, low, high, color=BLUE, lw=2.6, alpha=0.45,
              label=f"simulated, {100 * interval:g}% interval")  # fmt: skip
    ax.scatter(
        middle, place, marker="|", s=36, color=BLUE, linewidths=1.2, label="simulated, median"
    )
    ax.scatter(observed[inside], place[inside], s=17, color=INK, zorder=3, label="observed")
    if outside.any():
        ax.scatter(observed[outside], place[outside], s=26, marker="D", facecolors="none",
                   edgecolors=VERMILLION, linewidths=1.3, zorder=3, label="observed, outside")  # fmt: skip
    ax.axhline(len(subjects) - 0.1, color=MUTED, lw=0.6)
    ax.set_ylim(place[-1] + 0.7, -0.7)
    few = len(subjects) <= MOST_NAMES
    shown = [f"ID {s}" if few else "" for s in subjects]
    ax.set_yticks(place, [*shown, *({"median": "median", "sd": "SD"}.get(o, o) for o in over)])
    p = both("p_value")
    for y, value in zip(place, p, strict=True):
        if np.isfinite(value) and (few or y >= len(subjects)):
            ax.text(1.01, y, f"{value:.2f}", transform=ax.get_yaxis_transform(), va="center",
                    fontsize=SMALL - 1.5, color=MUTED)  # fmt: skip
    ax.text(1.01, -0.9, "p", transform=ax.get_yaxis_transform(), va="bottom",
            fontsize=SMALL - 1, color=MUTED, style="italic")  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(5))
