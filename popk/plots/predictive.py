"""Would the model bring forth data like these? The visual predictive check, drawn."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from popk.plots.picture import (
    BLUE,
    INK,
    MANY,
    MUTED,
    VERMILLION,
    labels,
    legend,
    logarithmic,
    panels,
    with_unit,
)


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
        percentile's darker. Points: levels. Ticks along the top: edges of the bins.

    References
    ----------
    .. [1] Bergstrand M, Hooker AC, Wallin JE, Karlsson MO (2011). Prediction-corrected visual
       predictive checks for diagnosing nonlinear mixed-effects models. AAPS J 13:143-151.
       doi:10.1208/s12248-011-9255-z
    """
    picture, axes = panels(1, 1, (9, 4.6))
    ax, center = axes[0, 0], check["center"].values
    percentiles = [float(p) for p in check["percentile"].values]
    middle = percentiles[int(np.argmin(np.abs(np.array(percentiles) - 50)))]
    outer = [p for p in percentiles if p != middle]
    ax.scatter(
        check["TIME"], check["DV"], s=9, color=MUTED, alpha=0.55, linewidths=0, label="observed",
        rasterized=check.sizes["observation"] > MANY,
    )  # fmt: skip
    percent = f"{100 * float(check.attrs['interval']):g}%"
    floor = 0.7 * float(check["DV"].where(check["DV"] > 0).min())
    if log:
        check = _above(check, floor)
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
            center, one["observed"], color=INK, lw=1.6 if inner else 1.1, marker="o", ms=3,
            ls="-" if inner else (0, (4, 2)), label=f"{shown}observed {names}",
        )  # fmt: skip
    edges = np.append(check["left"].values, check["right"].values[-1])
    ax.vlines(edges, 0.98, 1, transform=ax.get_xaxis_transform(), color=INK, lw=0.7)
    if log:
        ax.set_ylim(floor, 1.1 * float(max(check["DV"].max(), check["upper"].max())))
        logarithmic(ax, "y")
    kind = str(check["DV"].attrs.get("long_name", "DV"))
    kind = f"Prediction-corrected {kind.lower()}" if check.attrs["prediction_corrected"] else kind
    labels(ax, with_unit("Time", check["TIME"].attrs["units"]),
           with_unit(kind, check["DV"].attrs["units"]))  # fmt: skip
    legend(picture, ax, 3)
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
