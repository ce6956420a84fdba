"""Would the model bring forth events like these? Kaplan and Meier's curve, drawn."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from popk.plots.picture import BLUE, INK, SMALL, labels, legend, panels, with_unit


def kaplan_meier(check: xr.Dataset) -> Figure:
    """Return the observed share of subjects without an event on what the model says of it.

    Parameters
    ----------
    check : Dataset
        As `popk.kaplan_meier` returns it.

    Returns
    -------
    Figure
        Steps: the observed curve, thin ones its confidence limits; ticks on it: subjects who were
        censored. Band: between the outer percentiles of the simulated curves, with the middle one as
        a line. Below the axis: how many subjects were at risk.

    References
    ----------
    .. [1] Holford N (2013). A time to event tutorial for pharmacometricians. CPT Pharmacometrics Syst
       Pharmacol 2:e43. doi:10.1038/psp.2013.18
    """
    picture, axes = panels(1, 1, (9, 4.8))
    ax, time, followed = axes[0, 0], check["time"].values, check["followed"].values
    low, middle, high = (check["predicted"].quantile(q, "percentile") for q in (0, 0.5, 1))
    given = check["percentile"].values
    band = f"simulated, {given.min():g}th to {given.max():g}th percentile"
    ax.fill_between(followed, low, high, color=BLUE, alpha=0.22, linewidth=0, label=band)
    ax.plot(followed, middle, color=BLUE, lw=1.3, label="simulated, median")
    ax.step(time, check["observed"], where="post", color=INK, lw=1.5, label="observed")
    name = f"{100 * check.attrs['interval']:g}% confidence limits"
    for end, label in (("lower", name), ("upper", "_")):
        ax.step(
            time, check[end], where="post", color=INK, lw=0.7, ls=(0, (4, 2)), label=label
        )  # fmt: skip
    left = check["censored"].values > 0
    ax.plot(
        time[left], check["observed"].values[left], ls="", marker="|", ms=7, mew=0.9, color=INK,
        label="censored",
    )  # fmt: skip
    end = float(max(time.max(), followed.max()))
    ax.set(xlim=(0, 1.02 * end), ylim=(0, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _at_risk(ax, check)
    event = int(check.attrs["event"])
    which = "an event" if event == 1 else f"event {event}"
    labels(ax, with_unit("Time", check["time"].attrs["units"]), f"Subjects without {which}")
    legend(picture, ax, 5)
    return picture


def _at_risk(ax: Axes, check: xr.Dataset) -> None:
    """Write under each number of the time axis how many subjects were at risk there."""
    start, end = ax.get_xlim()
    ticks = [t for t in ax.get_xticks() if start <= t <= end]
    time = check["time"].values
    at_risk = np.append(check["at_risk"].values, 0)
    counts = [int(at_risk[np.searchsorted(time, t, side="left")]) for t in ticks]
    ax.set_xticks(ticks, [f"{t:g}\n{n}" for t, n in zip(ticks, counts, strict=True)])
    ax.annotate(
        "at risk", (0, 0), (-12, -17), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="top", fontsize=SMALL, color=INK,
    )  # fmt: skip
