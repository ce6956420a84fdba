"""What did the data say, and whose? Priors beside posteriors, and each subject's influence."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from popk.diagnostics.learning import prior_shift
from popk.diagnostics.summary import kind
from popk.inference.convergence import population_draws
from popk.plots.picture import (
    BLUE,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    VERMILLION,
    legend,
    panels,
)

_DASHED = (0, (4, 2))


def prior_posterior(prior: xr.DataTree, posterior: xr.DataTree) -> Figure:
    """Return the density of each population parameter before and after the data.

    Parameters
    ----------
    prior : DataTree
        What `popk.prior_draws` returns for the same model.
    posterior : DataTree
        As `popk.fit` returns it.

    Returns
    -------
    Figure
        A panel a parameter, in its own unit: the prior dashed, the posterior filled. Above, the
        contraction: 1 where the data say all, 0 where they say nothing.

    Raises
    ------
    ModelError
        They have no parameter in common.
    """
    table = prior_shift(prior, posterior)
    after = population_draws(posterior)
    before = population_draws(xr.DataTree.from_dict({"posterior": prior["prior"].dataset}))
    names = list(table.index)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    picture, axes = panels(rows, columns, (9, 0.7 + 1.75 * rows))
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        name = names[i]
        _densities(ax, before[name].ravel(), after[name].ravel(), name)
        contraction = table.loc[name, "contraction"]
        ax.set_title(f"contraction {contraction:.2f}".replace("-", "−"), fontsize=SMALL, color=INK,
                     loc="right", pad=2)  # fmt: skip
        ax.set_title(name, fontsize=SMALL, color=INK, loc="left", pad=2)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    picture.supxlabel("Parameter, in its own unit", fontsize=NORMAL, color=INK)
    picture.supylabel("Density", fontsize=NORMAL, color=INK)
    legend(picture, axes[0, 0], 2)
    return picture


def _densities(ax: Axes, before: np.ndarray, after: np.ndarray, name: str) -> None:
    positive = min(before.min(), after.min()) >= 0
    low, high = np.quantile(before, [0.01, 0.97])
    low, high = min(low, after.min()), max(high, after.max())
    low = 0.0 if positive and kind(name) != "typical" else low
    at = np.linspace(low, high, 240)
    # A bound reflects what a kernel would put beyond it.
    bounds = (-1.0, 1.0) if kind(name) == "corr" else (0.0, np.inf) if positive else ()
    ax.plot(at, _density(before, at, bounds), color=INK, lw=1.2, ls=_DASHED, label="prior")
    found = _density(after, at, bounds)
    ax.fill_between(at, 0, found, color=BLUE, alpha=0.3, linewidth=0)
    ax.plot(at, found, color=BLUE, lw=1.4, label="posterior")
    ax.set(xlim=(low, high), ylim=(0, None))


def _density(draws: np.ndarray, at: np.ndarray, bounds: tuple[float, ...]) -> np.ndarray:
    """Return a kernel density of at most 2,000 draws, reflected at bounds."""
    some = draws[np.linspace(0, len(draws) - 1, min(len(draws), 2000)).astype(int)]
    # Of heavy tails the width is that of the middle: 1.349 is the quartiles' distance of a normal one.
    middle = np.subtract(*np.quantile(some, [0.75, 0.25])) / 1.349
    narrow = min(1.0, float(middle) / float(some.std()))
    kernel = gaussian_kde(some, bw_method=narrow * len(some) ** -0.2)
    found = kernel(at)
    for bound in bounds:
        if np.isfinite(bound):
            found = found + kernel(2 * bound - at)
    return found


def subject_influence(influence: xr.Dataset, *, most: int = 12) -> Figure:
    """Return how far each subject moves the population parameters, those who move them most on top.

    Parameters
    ----------
    influence : Dataset
        As `popk.subject_influence` returns it.
    most : int
        How many parameters are shown, those that some subject moves farthest.

    Returns
    -------
    Figure
        A panel a parameter: the shift of its posterior mean by each subject, in posterior standard
        deviations; the three largest bear the ID. Filled triangles: Pareto k is too high for the number to
        be trusted.
    """
    shift = influence["shift"]
    far = np.nan_to_num(np.abs(shift.values)).max(axis=0)
    names = [str(n) for n in shift["parameter"].values[np.argsort(-far)][:most]]
    names = [str(n) for n in shift["parameter"].values if n in names]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    picture, axes = panels(rows, columns, (9, 0.9 + 1.6 * rows), sharex=True, sharey=True)
    high = influence["pareto_k"].values > influence.attrs["good_k"]
    x, ids = np.arange(influence.sizes["subject"]), influence["subject"].values
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        y = shift.sel(parameter=names[i]).values
        ax.axhline(0, color=MUTED, lw=0.9, ls=_DASHED)
        ax.vlines(x, 0, y, color=BLUE, lw=0.9)
        ax.scatter(x[~high], y[~high], s=12, facecolors="white", edgecolors=BLUE, linewidths=0.9,
                   zorder=3, label="subject")  # fmt: skip
        ax.scatter(x[high], y[high], s=20, marker="^", color=VERMILLION, zorder=3,
                   label=f"subject with Pareto k above {influence.attrs['good_k']:.2f}")  # fmt: skip
        for j in np.argsort(-np.abs(y))[:3]:
            ax.annotate(str(ids[j]), (x[j], y[j]), (3, 2 if y[j] >= 0 else -8), fontsize=SMALL - 1,
                        textcoords="offset points", color=INK)  # fmt: skip
        ax.set_title(names[i], fontsize=SMALL, color=INK, loc="left", pad=2)
        ax.tick_params(labelbottom=i + columns >= len(names))
    reach = 1.25 * float(np.abs(shift.sel(parameter=names)).max())
    axes[0, 0].set_ylim(-reach, reach)
    picture.supxlabel("Subject, in the order of the trial", fontsize=NORMAL, color=INK)
    picture.supylabel("Shift of the posterior mean (posterior sd)", fontsize=NORMAL, color=INK)
    legend(picture, axes[0, 0], 2)
    return picture
