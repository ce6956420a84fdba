"""Are ranks uniform? Their distribution, drawn around the diagonal."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from popk.diagnostics.uniformity import Band, band, share
from popk.plots.picture import BLUE, INK, MUTED, NORMAL, SMALL, VERMILLION, legend, panels


def calibration(calibrated: xr.Dataset, probability: float = 0.95) -> Figure:
    """Return how far the distribution of each parameter's ranks lies from a uniform one.

    Parameters
    ----------
    calibrated : Dataset
        As `popk.calibrate` returns it.
    probability : float
        That the whole of a uniform distribution lies in the band.

    Returns
    -------
    Figure
        A panel for each parameter: the share of ranks up to each, less that of uniform ranks, on the
        band that holds it everywhere at once. Ranks that leave the band are red. A line above 0 on the
        left and below it on the right is of posteriors that are too narrow; one that lies above
        everywhere is of posteriors that are too high.

    Raises
    ------
    ValueError
        The probability does not lie between 0 and 1.

    References
    ----------
    .. [1] Säilynoja T, Bürkner PC, Vehtari A (2022). Graphical test for discrete uniformity and its
       applications in goodness-of-fit evaluation and multiple sample comparison. Stat Comput 32:32.
       doi:10.1007/s11222-022-10090-6
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability}; give one such as 0.95")
    names, largest = list(calibrated["parameter"].values), int(calibrated.attrs["ranks"])
    fitted = calibrated["rank"].dropna("replicate")
    expected = band(fitted.sizes["replicate"], largest, probability)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    picture, axes = panels(
        rows, columns, (9, 0.9 + 1.7 * rows), sharex=True, sharey=True
    )  # fmt: skip
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        _difference(ax, fitted.sel(parameter=names[i]).values, expected, probability)
        p = float(calibrated["p_value"].sel(parameter=names[i]))
        ax.set_title(f"{names[i]}   p {_shown(p)}", fontsize=SMALL, color=INK, loc="left", pad=3)
        ax.tick_params(labelbottom=i + columns >= len(names))
    axes[0, 0].set_xlim(0, 1)
    picture.supxlabel("Normalized rank", fontsize=NORMAL, color=INK)
    picture.supylabel("Share of ranks − uniform", fontsize=NORMAL, color=INK)
    outside = [ax for ax in axes.flat if len(ax.get_legend_handles_labels()[0]) > 2]
    legend(picture, [*outside, axes[0, 0]][0], 3)
    return picture


def _shown(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _difference(ax: Axes, ranks: np.ndarray, expected: Band, probability: float) -> None:
    """Draw one parameter's distribution, less the uniform one, on its band."""
    largest = len(expected.place)
    place = np.concatenate([[0.0], expected.place, [1.0]])
    found = np.concatenate([[0.0], share(ranks, largest), [1.0]]) - place
    low, high = (
        np.concatenate([[0.0], end, [1.0]]) - place for end in (expected.lower, expected.upper)
    )
    ax.fill_between(
        place, low, high, color=BLUE, alpha=0.18, linewidth=0,
        label=f"{100 * probability:g}% of uniform ranks, everywhere at once",
    )  # fmt: skip
    ax.axhline(0.0, color=MUTED, lw=0.8, ls=(0, (4, 2)), zorder=0)
    ax.plot(place, found, color=INK, lw=1.2, label=f"ranks of {len(ranks)} replicates")
    beyond = (found < low) | (found > high)
    ax.plot(
        place[beyond], found[beyond], ls="", marker="o", ms=2.5, color=VERMILLION,
        label="outside" if beyond.any() else "_",
    )  # fmt: skip
