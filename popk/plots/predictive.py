"""Would the model bring forth data like these? Visual predictive checks, drawn."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from popk.plots.picture import (
    BLUE,
    INK,
    MANY,
    MUTED,
    NORMAL,
    VERMILLION,
    labels,
    legend,
    logarithmic,
    panels,
    with_unit,
)

_DASHED = (0, (4, 2))


def vpc(check: xr.Dataset, *, log: bool = False) -> Figure:
    """Return a visual predictive check: observed percentiles on what the model says of them.

    Parameters
    ----------
    check : Dataset
        As `popk.vpc` returns it.
    log : bool
        Whether levels are on a logarithmic axis.

    Returns
    -------
    Figure
        Lines: observed percentiles. Bands: the interval of each over simulated trials, the middle
        percentile's darker. Points: levels. Ticks along the top: edges of the bins. A panel a stratum;
        below it, where levels are below a limit of quantification, the part that is.

    References
    ----------
    .. [1] Bergstrand M, Hooker AC, Wallin JE, Karlsson MO (2011). Prediction-corrected visual
       predictive checks for diagnosing nonlinear mixed-effects models. AAPS J 13:143-151.
       doi:10.1208/s12248-011-9255-z
    """
    each = _strata(check)
    below = "below_observed" in check and bool(
        (check["below_observed"] > 0).any() or (check["below_upper"] > 0).any()
    )
    columns, deep = min(3, len(each)), 2 if below else 1
    rows = math.ceil(len(each) / columns)
    height = 0.5 + rows * ((4.1 if columns == 1 else 3.0) + (1.3 if below else 0.0))
    picture, axes = panels(
        rows * deep, columns, (9, height), sharex=True, sharey="row" if not below else False,
        height_ratios=([3, 1] if below else [1]) * rows,
    )  # fmt: skip
    top = 1.05 * float(max(check["DV"].max(), check["upper"].max()))
    low = float(min(0.0, check["DV"].min(), check["lower"].min()))
    floor = 0.7 * float(check["DV"].where(check["DV"] > 0).min())
    for i, (name, own) in enumerate(each.items()):
        ax = axes[deep * (i // columns), i % columns]
        _levels(ax, _above(own, floor) if log else own)
        ax.set_ylim((floor, 1.05 * top) if log else (1.05 * low, top))
        if log:
            logarithmic(ax, "y")
        if name:
            ax.set_title(name, fontsize=NORMAL, color=INK, loc="left")
        ax.tick_params(labelleft=i % columns == 0)
        if below:
            _below(axes[deep * (i // columns) + 1, i % columns], own, first=i % columns == 0)
    for i in range(len(each), rows * columns):
        for j in range(deep):
            axes[deep * (i // columns) + j, i % columns].set_visible(False)
    _named(picture, axes, check, len(each), deep)
    legend(picture, axes[0, 0], 3)
    return picture


def _named(picture: Figure, axes: np.ndarray, check: xr.Dataset, count: int, deep: int) -> None:
    """Name the axes: those of one panel at it, of several once for all."""
    kind = str(check["DV"].attrs.get("long_name", "DV"))
    kind = f"Prediction-corrected {kind.lower()}" if check.attrs["prediction_corrected"] else kind
    x = with_unit("Time", check["TIME"].attrs["units"])
    y = with_unit(kind, check["DV"].attrs["units"])
    columns = axes.shape[1]
    if count == 1:
        labels(axes[0, 0], "" if deep == 2 else x, y)
        if deep == 2:
            axes[1, 0].set_xlabel(x, fontsize=NORMAL, color=INK)
        return
    for i in range(count):
        row, column = deep * (i // columns), i % columns
        if column == 0:
            axes[row, column].set_ylabel(y, fontsize=NORMAL, color=INK)
        lowest = axes[row + deep - 1, column]
        if i + columns >= count:
            lowest.tick_params(labelbottom=True)
            lowest.set_xlabel(x, fontsize=NORMAL, color=INK)


def _strata(check: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the check of each stratum, by its name."""
    if "stratum" not in check.coords:
        return {"": check}
    names = list(dict.fromkeys(check["stratum"].values.tolist()))
    return {
        n: check.isel(bin=check["stratum"].values == n, observation=check["stratum_of"].values == n)
        for n in names
    }


def _levels(ax: Axes, check: xr.Dataset) -> None:
    """Draw levels, observed percentiles, and the bands of simulated ones."""
    center, binned = check["center"].values, not check.attrs.get("smooth")
    percentiles = [float(p) for p in check["percentile"].values]
    middle = percentiles[int(np.argmin(np.abs(np.array(percentiles) - 50)))]
    outer = [p for p in percentiles if p != middle]
    ax.scatter(
        check["TIME"], check["DV"], s=9, color=MUTED, alpha=0.55, linewidths=0, label="observed",
        rasterized=check.sizes["observation"] > MANY,
    )  # fmt: skip
    percent = f"{100 * float(check.attrs['interval']):g}%"
    for p in [*outer, middle]:
        one = check.sel(percentile=p)
        inner, first = p == middle, p == (outer or [middle])[0]
        names = _ordinals([middle] if inner else outer)
        shown = "" if inner or first else "_"
        ax.fill_between(
            center, one["lower"], one["upper"], color=VERMILLION if inner else BLUE, linewidth=0,
            alpha=0.45 if inner else 0.22, label=f"{shown}simulated {names}, {percent} interval",
        )  # fmt: skip
        ax.plot(
            center, one["observed"], color=INK, lw=1.6 if inner else 1.1, ms=3,
            marker="o" if binned else "", ls="-" if inner else _DASHED,
            label=f"{shown}observed {names}",
        )  # fmt: skip
    if binned:
        _edges(ax, check)


def _edges(ax: Axes, check: xr.Dataset) -> None:
    """Draw the edges of bins as ticks along the top."""
    edges = np.append(check["left"].values, check["right"].values[-1])
    ax.vlines(edges, 0.98, 1, transform=ax.get_xaxis_transform(), color=INK, lw=0.7)


def _below(ax: Axes, check: xr.Dataset, *, first: bool) -> None:
    """Draw the part of levels below the limit of quantification."""
    center = check["center"].values
    ax.fill_between(center, check["below_lower"], check["below_upper"], color=BLUE, alpha=0.22,
                    linewidth=0)  # fmt: skip
    ax.plot(center, check["below_median"], color=BLUE, lw=1.0)
    ax.plot(center, check["below_observed"], color=INK, lw=1.4, ms=3,
            marker="" if check.attrs.get("smooth") else "o")  # fmt: skip
    most = float(max(check["below_upper"].max(), check["below_observed"].max()))
    ax.set_ylim(-0.02 * most, min(1.02, 1.15 * most))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    if first:
        ax.set_ylabel("Part below\nLLOQ", fontsize=NORMAL, color=INK)


def vpc_categories(check: xr.Dataset) -> Figure:
    """Return how often each category or count was observed, on what the model says of it.

    Parameters
    ----------
    check : Dataset
        As `popk.vpc_categories` returns it.

    Returns
    -------
    Figure
        A panel a category: the observed part of outcomes, and the median and interval of the same part
        over simulated trials. Ticks along the top: edges of the bins.
    """
    names = [str(n) for n in check["category"].values]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    picture, axes = panels(rows, columns, (9, 0.9 + 2.2 * rows), sharex=True, sharey=True)
    center = check["center"].values
    percent = f"{100 * float(check.attrs['interval']):g}%"
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        one = check.isel(category=i)
        ax.fill_between(center, one["lower"], one["upper"], color=BLUE, alpha=0.22, linewidth=0,
                        label=f"simulated, {percent} interval")  # fmt: skip
        ax.plot(center, one["median"], color=BLUE, lw=1.0, label="simulated median")
        ax.plot(center, one["observed"], color=INK, lw=1.4, marker="o", ms=3, label="observed")
        _edges(ax, check)
        ax.set_title(f"DV {names[i]}", fontsize=NORMAL, color=INK, loc="left")
        ax.tick_params(labelbottom=i + columns >= len(names))
    axes[0, 0].set_ylim(0, min(1.03, 1.12 * float(max(check["upper"].max(),
                                                      check["observed"].max()))))  # fmt: skip
    picture.supxlabel(with_unit("Time", check["center"].attrs["units"]), fontsize=NORMAL, color=INK)
    picture.supylabel("Part of outcomes", fontsize=NORMAL, color=INK)
    legend(picture, axes[0, 0], 3)
    return picture


def _above(check: xr.Dataset, floor: float) -> xr.Dataset:
    """Return a check for a logarithmic axis: bands that reach 0 end at its floor."""
    return check.assign(
        lower=check["lower"].clip(min=floor),
        upper=check["upper"].clip(min=floor),
        observed=check["observed"].where(check["observed"] > 0),
    )


def _ordinals(percentiles: list[float]) -> str:
    """Return percentiles in words.

    Examples
    --------
    >>> _ordinals([5.0, 95.0]), _ordinals([50.0]), _ordinals([2.5, 97.5])
    ('5th and 95th', 'median', '2.5th and 97.5th')
    """
    if percentiles == [50.0]:
        return "median"
    ends = {1: "st", 2: "nd", 3: "rd"}
    words = [
        f"{p:g}" + ("th" if p != int(p) or 10 <= p % 100 <= 20 else ends.get(int(p) % 10, "th"))
        for p in percentiles
    ]
    return " and ".join(words)
