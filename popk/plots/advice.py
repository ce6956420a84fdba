"""Which regimen? Probabilities of target and harm side by side, and the concentrations behind them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from popk.advice.recommending import Advice
from popk.advice.windows import DECIDES
from popk.plots.picture import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    SMALL,
    VERMILLION,
    labels,
    panels,
    plain,
    with_unit,
)

_BAND = ("trough", "peak", "lowest", "average")  # whose target is a concentration


def advice(found: Advice) -> Figure:
    """Return what `popk.recommend` says of each regimen: probabilities, and forecast bands.

    Parameters
    ----------
    found : Advice

    Returns
    -------
    Figure
        Left: of each regimen the probability of the target (filled circles) and of harm (open
        triangles), with 95% Monte Carlo intervals. Right: of each the median concentration and its 90%
        band over the window that was judged; a green band is the target where it is a concentration, of
        a trough at the window's end only; the dashed line is the limit of the risk.
    """
    names = list(found.table.index)
    rows = len(names)
    picture, axes = panels(rows, 2, (8.4, 1.2 + 1.35 * rows), width_ratios=[1.15, 1.0])
    for ax in axes[:, 0]:
        ax.remove()
    left: Any = picture.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    _probabilities(left, found, names)
    _bands(axes[:, 1], found, names)
    handles, titles = left.get_legend_handles_labels()
    more, others = axes[0, 1].get_legend_handles_labels()
    picture.legend(
        [*handles, *more], [*titles, *others], loc="outside upper center", ncols=3,
        frameon=False, fontsize=SMALL, labelcolor=INK, columnspacing=1.4,
    )  # fmt: skip
    picture.supxlabel(
        f"{found.texts['target']}. {found.texts['risk']}\n{DECIDES}", fontsize=SMALL, color=MUTED
    )
    return picture


def _probabilities(ax: Any, found: Advice, names: list[str]) -> None:
    plain(ax)
    at, t = np.arange(len(names))[::-1], found.table
    marks = [("attained", "target attained", 0.12, BLUE, {"fmt": "o", "ms": 6})]
    if found.risk is not None:
        marks.append(("harm", "harm", -0.12, VERMILLION, {"fmt": "^", "ms": 6, "mfc": "white"}))
    for name, title, shift, color, mark in marks:
        p = t[name].to_numpy()
        off = np.stack([p - t[f"{name}_low"].to_numpy(), t[f"{name}_high"].to_numpy() - p])
        ax.errorbar(
            p, at + shift, xerr=np.maximum(off, 0), color=color, elinewidth=1.2, capsize=2.5,
            label=title, clip_on=False, **mark,
        )  # fmt: skip
    ax.set_yticks(at, names)
    ax.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4))
    ax.grid(axis="x", color=MUTED, alpha=0.25, lw=0.6)
    labels(ax, "Probability", "")


def _bands(axes: Any, found: Advice, names: list[str]) -> None:
    units, risk = found.units, found.risk
    top = max(float(np.max(found.curves[n]["high"])) for n in names)
    limit = risk.low if risk is not None and risk.quantity in _BAND else None
    top = 1.05 * max(top, limit or 0.0)
    for ax, name in zip(axes, names, strict=True):
        c = found.curves[name]
        if found.target.quantity in _BAND:
            low, high = found.target.low, found.target.high
            ax.axhspan(
                low if low is not None else 0.0, high if high is not None else top, color=GREEN,
                alpha=0.2, lw=0, label="target", xmin=0.9 if found.target.quantity == "trough" else 0.0,
            )  # fmt: skip
        if limit is not None:
            ax.axhline(limit, color=VERMILLION, lw=1.2, ls=(0, (4, 2)), label="limit of harm")
        ax.fill_between(
            c["time"], c["low"], c["high"], color=BLUE, alpha=0.3, lw=0,
            label="concentration, 90% interval",
        )  # fmt: skip
        ax.plot(c["time"], c["median"], color=BLUE, lw=1.5, label="median")
        ax.set_title(name, fontsize=SMALL, color=INK, loc="left", pad=2)
        ax.set(ylim=(0, top), xlim=(0, float(c["time"].iloc[-1])))
        labels(ax, "", with_unit("Conc.", units["DV"]))
    labels(axes[-1], with_unit("Time since the window's begin", units["TIME"]),
           with_unit("Conc.", units["DV"]))  # fmt: skip
