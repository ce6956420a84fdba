"""How much does a covariate change a parameter, and exposure? Ratios beside the no-effect zone."""

import math
import textwrap

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from popk.plots.picture import BLUE, GREEN, INK, MUTED, NORMAL, SMALL, PlainLog, legend, panels

_FINE = (0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5)
_COARSE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_GAP = 0.6  # between the rows of two covariates


def covariate_forest(effects: xr.Dataset) -> Figure:
    """Return the ratio of each scenario to the reference subject, beside the no-effect zone.

    Parameters
    ----------
    effects : Dataset
        As `popk.covariate_effects` returns it.

    Returns
    -------
    Figure
        One panel a parameter or measure of exposure, one row a scenario, those of one covariate
        together. Points: medians; lines: the interval; shaded: the zone; at the right the numbers,
        and the probability of lying in the zone.

    References
    ----------
    .. [1] Menon-Andersen D, Yu B, Madabushi R, et al. (2011). Essential pharmacokinetic information for
       drug dosage decisions: a concise visual presentation in the drug label. Clin Pharmacol Ther
       90:471-474. doi:10.1038/clpt.2011.149
    """
    heights = _heights(list(effects["covariate"].values))
    quantities = list(effects["quantity"].values)
    names = list(effects["scenario"].values)
    columns = min(2, len(quantities))
    rows = math.ceil(len(quantities) / columns)
    width = 7.5 if columns == 1 else 11.0
    text = f"Ratio to the reference subject: {effects.attrs['reference']}"
    text = textwrap.fill(text, int(13 * width))
    height = 0.6 + 0.16 * (text.count("\n") + 1) + rows * (0.6 + 0.24 * (heights[-1] + 1.4))
    picture, axes = panels(rows, columns, (width, height))
    span = _span(effects)
    for ax in axes.flat[len(quantities) :]:
        ax.set_visible(False)
    for i, (ax, name) in enumerate(zip(axes.flat, quantities, strict=False)):
        one = effects.sel(quantity=name)
        _intervals(ax, one, heights, span)
        _numbers(ax, one, heights)
        ax.set_title(name, fontsize=NORMAL, color=INK, loc="left", fontweight="bold")
        ax.set_yticks(heights, names if i % columns == 0 else [""] * len(names))
    picture.supxlabel(text, fontsize=NORMAL, color=INK)
    legend(picture, axes[0, 0], 3)
    return picture


def _heights(covariates: list[str]) -> np.ndarray:
    """Return where each row stands: 0 on top, a gap where the covariate changes."""
    new = [a != b for a, b in zip(covariates[1:], covariates[:-1], strict=True)]
    return np.concatenate([[0.0], np.cumsum(1 + _GAP * np.array(new, dtype=float))])


def _span(effects: xr.Dataset) -> tuple[float, float]:
    """Return what all panels span: intervals and zone, the same way from 1 to both sides."""
    ends = [*effects.attrs["zone"], float(effects["lower"].min()), float(effects["upper"].max())]
    reach = max(1.6, np.exp(1.08 * np.abs(np.log(ends)).max()))
    return 1 / reach, reach


def _intervals(ax: Axes, one: xr.Dataset, heights: np.ndarray, span: tuple[float, float]) -> None:
    """Draw the zone, and each scenario's interval and median."""
    low, high = one.attrs["zone"]
    ax.axvspan(
        low, high, color=GREEN, alpha=0.13, lw=0, label=f"no-effect zone, {low:g} to {high:g}"
    )
    ax.axvline(1, color=MUTED, lw=0.8, ls=(0, (4, 2)), zorder=1)
    percent = f"{100 * one.attrs['interval']:g}% interval"
    ax.hlines(heights, one["lower"], one["upper"], color=BLUE, lw=1.8, label=percent)
    ax.scatter(one["median"], heights, s=24, color="white", edgecolors=BLUE, linewidths=1.3,
               zorder=3, label="median")  # fmt: skip
    ax.set(xscale="log", xlim=span, ylim=(heights[-1] + 0.7, -0.7))
    ticks = _FINE if span[1] < 3 else _COARSE
    ax.xaxis.set_major_locator(FixedLocator([x for x in ticks if span[0] <= x <= span[1]]))
    ax.xaxis.set_major_formatter(PlainLog(minor_thresholds=(np.inf, np.inf)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _numbers(ax: Axes, one: xr.Dataset, heights: np.ndarray) -> None:
    """Write medians, intervals and probabilities at the right."""
    text = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "fontsize": SMALL,
            "va": "center", "annotation_clip": False}  # fmt: skip
    columns = (  # places in points, so that they do not depend on how wide a panel is
        (8, "left", "ratio", [_ratio(one.isel(scenario=i)) for i in range(len(heights))]),
        (152, "right", "in zone", [f"{100 * p:.0f}%" for p in one["inside"].values]),
    )
    for x, side, head, rows in columns:
        ax.annotate(head, (1, -1.1), (x, 0), color=MUTED, ha=side, **text)
        for y, row in zip(heights, rows, strict=True):
            ax.annotate(row, (1, y), (x, 0), color=INK, ha=side, **text)


def _ratio(row: xr.Dataset) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(
        *(float(row[n]) for n in ("median", "lower", "upper"))
    )
