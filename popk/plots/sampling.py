"""Did the chains agree, and where did they end? Traces and intervals of population parameters."""

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from popk.diagnostics.summary import kind, scale_of, summary
from popk.inference.convergence import population_draws
from popk.plots.picture import BLUE, CHAINS, INK, MUTED, NORMAL, SMALL, Picture, number, panels


def trace(posterior: xr.DataTree) -> Figure:
    """Return the draws of each population parameter in the order they were drawn, by chain.

    Parameters
    ----------
    posterior : DataTree
        As `popk.fit` returns it.

    Returns
    -------
    Figure
        ArviZ's ``plot_trace``, one panel a parameter, in its own unit. Chains that agree lie on one
        another without trend; ticks along the bottom are divergent transitions.
    """
    import arviz as az

    draws = population_draws(posterior)
    names = list(summary(posterior).index)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    picture, axes = panels(rows, columns, (9, 0.4 + 1.4 * rows), sharex=True)
    data = xr.Dataset({n: (("chain", "draw"), draws[n]) for n in names})
    data = data.assign_coords(
        chain=np.arange(data.sizes["chain"]), draw=np.arange(data.sizes["draw"])
    )
    stats = posterior["sample_stats"].dataset if "sample_stats" in posterior else xr.Dataset()
    tree = xr.DataTree.from_dict({"posterior": data, "sample_stats": stats})
    az.plot_trace(
        tree,
        plot_collection=_collection(picture, data, dict(zip(names, axes.flat, strict=False)),
                                    aes={"color": ["chain"], "overlay": ["chain"]}, color=CHAINS),
        visuals={"trace": {"width": 0.5, "alpha": 0.75}, "title": False, "xlabel": False,
                 "divergence": {"color": INK, "size": 18}, "ticklabels": False},
    )  # fmt: skip
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        for line in ax.lines:
            line.set_rasterized(True)
        ax.tick_params(labelbottom=i + columns >= len(names))
        ax.set_title(names[i], fontsize=SMALL, color=INK, loc="left", pad=2)
    picture.supxlabel("Draw after warm-up", fontsize=NORMAL, color=INK)
    return picture


def forest(posterior: xr.DataTree, interval: float = 0.9) -> Figure:
    """Return the posterior median and intervals of each population parameter.

    Parameters
    ----------
    posterior : DataTree
        As `popk.fit` returns it.
    interval : float
        The probability of the thin equal-tailed interval; the thick one has 0.5.

    Returns
    -------
    Figure
        ArviZ's ``plot_forest``, one panel a scale: parameters with units of their own (typical
        values and residual error) relative to their medians, omegas as they are, correlations and
        effects around 0. Beside each, its median and interval in its own unit.
    """
    draws, table = population_draws(posterior), summary(posterior, interval)
    scales = _scales(draws, list(table.index), posterior)
    heights = [len(names) + 0.8 for names in scales.values()]
    picture, axes = panels(len(scales), 1, (9, 0.35 + 0.3 * sum(heights)), height_ratios=heights)
    for (scale, names), ax in zip(scales.items(), axes.flat, strict=True):
        relative = scale.startswith("relative")
        shown = {n: draws[n] / (table["median"][n] if relative else 1.0) for n in names}
        _intervals(picture, ax, shown, interval)
        ax.axvline(1.0 if relative else 0.0, color=MUTED, lw=0.8, ls=(0, (4, 2)), zorder=0)
        ax.set_xlabel(scale, fontsize=NORMAL, color=INK)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)  # the first on top
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        for i, name in enumerate(names):
            row = table.loc[name, ["median", "lower", "upper"]]
            text = "{} ({} to {})".format(*map(number, row))
            ax.annotate(text, (1.01, i), xycoords=ax.get_yaxis_transform(), va="center",
                        fontsize=SMALL, color=INK)  # fmt: skip
    return picture


def _scales(
    draws: dict[str, np.ndarray], names: list[str], posterior: xr.DataTree
) -> dict[str, list[str]]:
    """Return the parameters that one axis can hold, by the axis's label."""
    scales: dict[str, list[str]] = {
        "relative to the posterior median": [],
        "standard deviation of the random effect (log scale)": [],
        "correlation, or effect in the model's own unit": [],
    }
    relative, spread, signed = scales.values()
    for name in names:
        positive = draws[name].min() > 0 and kind(name) != "corr"
        if kind(name) in ("omega", "gamma", "tau"):
            (spread if scale_of(name, posterior) == "log" else signed).append(name)
        else:
            (relative if positive else signed).append(name)
    return {label: own for label, own in scales.items() if own}


def _intervals(picture: Picture, ax: Axes, draws: dict[str, np.ndarray], interval: float) -> None:
    """Let ArviZ draw medians and intervals at heights 0, 1, ..."""
    import arviz as az

    data = xr.Dataset({name: (("chain", "draw"), values) for name, values in draws.items()})
    heights = xr.Dataset({name: float(i) for i, name in enumerate(draws)})
    collection = _collection(picture, data, dict.fromkeys(draws, ax))
    collection.update_aes_from_dataset("y", heights)
    az.plot_forest(
        xr.DataTree.from_dict({"posterior": data}), plot_collection=collection, combined=True,
        labels=[], ci_kind="eti", ci_probs=(0.5, interval), point_estimate="median",
        visuals={"twig": {"color": BLUE, "width": 1.0}, "trunk": {"color": BLUE, "width": 3.0},
                 "point_estimate": {"color": BLUE, "facecolor": "white", "size": 22},
                 "ticklabels": False, "remove_axis": False},
    )  # fmt: skip


def _collection(picture: Picture, data: xr.Dataset, axes: dict[str, Axes], **options: Any) -> Any:
    """Return ArviZ's plot collection over axes that are there already: its own are pyplot's."""
    from arviz_plots.plot_collection import PlotCollection

    places = {name: xr.DataArray(np.array(ax, dtype=object)) for name, ax in axes.items()}
    tree = xr.DataTree.from_dict({
        "/": xr.Dataset({"figure": xr.DataArray(np.array(picture, dtype=object))}),
        "plot": xr.Dataset(places),
    })  # fmt: skip
    return PlotCollection(data, tree, backend="matplotlib", **options)
