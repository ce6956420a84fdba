"""How do the people differ? Posterior draws of random effects, drawn."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from popk.diagnostics.residuals import trend
from popk.plots.picture import (
    BLUE,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    VERMILLION,
    labels,
    legend,
    panels,
    with_unit,
)

_DASHED = (0, (4, 2))
#: A covariate with at most so many values is drawn in boxes.
_CATEGORIES = 5


def eta_distributions(effects: xr.Dataset) -> Figure:
    """Return the draws of all subjects' random effects beside the distribution that the model states.

    Parameters
    ----------
    effects : Dataset
        As `popk.random_effects` returns it.

    Returns
    -------
    Figure
        A panel a parameter: the histogram of pooled posterior draws, the normal density with the
        posterior median of omega, and ticks at the posterior mean of each subject. Above, how far the
        means are shrunk.
    """
    names = [str(p) for p in effects["parameter"].values]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    picture, axes = panels(rows, columns, (9, 0.7 + 2.6 * rows))
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.set_visible(False)
            continue
        _distribution(ax, effects.sel(parameter=names[i], parameter2=names[i]), names[i])
    legend(picture, axes[0, 0], 3)
    return picture


def _distribution(ax: Axes, one: xr.Dataset, name: str) -> None:
    draws, omega = one["eta"].values.ravel(), float(one["omega"])
    reach = 1.05 * float(np.quantile(np.abs(draws), 0.999))
    edges = np.linspace(-reach, reach, 42)
    ax.hist(
        draws,
        edges.tolist(),
        density=True,
        color=BLUE,
        alpha=0.3,
        label="posterior draws of all subjects",
    )
    if omega > 0:
        at = np.linspace(-reach, reach, 200)
        density = np.exp(-((at / omega) ** 2) / 2) / (omega * math.sqrt(2 * math.pi))
        ax.plot(at, density, color=INK, lw=1.3, ls=_DASHED, label="N(0, ω²), ω at its median")
    ax.plot(
        one["mean"].values, np.full(one.sizes["subject"], -0.03), ls="", marker="|", ms=7, mew=0.9,
        color=VERMILLION, clip_on=False, transform=ax.get_xaxis_transform(),
        label="posterior mean of each subject",
    )  # fmt: skip
    ax.tick_params(axis="x", pad=7)
    shrunk = float(one["shrinkage"].sel(kind="sd"))
    text = "" if np.isnan(shrunk) else f"shrinkage of means {shrunk:.0f}% (sd)"
    ax.set_title(text, fontsize=SMALL, color=INK, loc="left")
    labels(ax, f"η of {name}", "Density")


def eta_correlation(effects: xr.Dataset) -> Figure:
    """Return the random effects of each pair of parameters, with their correlation.

    Parameters
    ----------
    effects : Dataset
        As `popk.random_effects` returns it, with two parameters or more.

    Returns
    -------
    Figure
        A panel a pair: a cross of intervals for each subject, on 500 draws of all subjects together.
        Above, the median and the interval of the correlation over posterior draws.

    Raises
    ------
    ValueError
        There is one parameter.
    """
    names = [str(p) for p in effects["parameter"].values]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    if not pairs:
        raise ValueError(f"there is one random effect, {names[0]}; a correlation needs two")
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    size = (5, 4.2) if columns == 1 else (9, 0.7 + 2.9 * rows)
    picture, axes = panels(rows, columns, size)
    for i, ax in enumerate(axes.flat):
        if i >= len(pairs):
            ax.set_visible(False)
            continue
        _pair(ax, effects, *pairs[i])
    legend(picture, axes[0, 0], 2)
    return picture


def _pair(ax: Axes, effects: xr.Dataset, a: str, b: str) -> None:
    x, y = (effects.sel(parameter=n) for n in (a, b))
    flat = np.stack([x["eta"].values.ravel(), y["eta"].values.ravel()])
    some = flat[:, np.linspace(0, flat.shape[1] - 1, 500).astype(int)]
    ax.scatter(*some, s=5, color=MUTED, alpha=0.35, linewidths=0, label="posterior draws")
    percent = f"{100 * effects.attrs['interval']:g}%"
    ax.errorbar(
        x["mean"], y["mean"], fmt="o", ms=3, color=BLUE, mfc="white", mew=0.9, elinewidth=0.6,
        xerr=_arms(x), yerr=_arms(y), label=f"mean and {percent} interval of each subject",
    )  # fmt: skip
    r = [float(effects[n].sel(parameter=a, parameter2=b)) for n in
         ("correlation", "correlation_lower", "correlation_upper")]  # fmt: skip
    ax.set_title("correlation {:.2f} ({:.2f} to {:.2f})".format(*r).replace("-", "−"),
                 fontsize=SMALL, color=INK, loc="left")  # fmt: skip
    labels(ax, f"η of {a}", f"η of {b}")


def _arms(one: xr.Dataset) -> np.ndarray:
    mean = one["mean"].values
    return np.maximum(np.stack([mean - one["lower"].values, one["upper"].values - mean]), 0)


def eta_covariates(effects: xr.Dataset) -> Figure:
    """Return the random effects of each parameter against each covariate.

    Parameters
    ----------
    effects : Dataset
        As `popk.random_effects` returns it, of a trial with covariates that differ between subjects.

    Returns
    -------
    Figure
        A row a covariate, a column a parameter. Of a covariate with more than 5 values, each subject's
        posterior mean and interval, and the trend of the means; of others a box for each value, of the
        draws of all subjects with it: whiskers hold 90%. Above, the rank correlation over draws.

    Raises
    ------
    ValueError
        There is no such covariate.
    """
    if "covariate" not in effects.coords or effects.sizes["covariate"] == 0:
        raise ValueError(
            "there is no covariate that differs between subjects; read the trial with covariates=[...]"
        )
    rows, columns = effects.sizes["covariate"], effects.sizes["parameter"]
    width = min(12, max(9, 2.6 * columns))
    picture, axes = panels(rows, columns, (width, 0.7 + 2.5 * rows), sharey="col", sharex="row")
    for i in range(rows):
        for j in range(columns):
            one = effects.isel(covariate=i, parameter=j, parameter2=j)
            _against(axes[i, j], one, float(effects.attrs["interval"]))
    sources = [axes[i, 0] for i in range(rows)]
    legend(picture, sources, 3)
    return picture


def _against(ax: Axes, one: xr.Dataset, interval: float) -> None:
    x, known = one["covariate_value"].values, np.isfinite(one["covariate_value"].values)
    values = np.unique(x[known])
    ax.axhline(0, color=MUTED, lw=0.9, ls=_DASHED)
    if len(values) <= _CATEGORIES:
        _boxes(ax, one, x, values)
    else:
        mean = one["mean"].values
        ax.errorbar(
            x, mean, yerr=_arms(one), fmt="o", ms=3, color=BLUE, mfc="white", mew=0.9,
            elinewidth=0.6, label=f"mean and {100 * interval:g}% interval of each subject",
        )  # fmt: skip
        ax.plot(
            *trend(x[known], mean[known]),
            color=VERMILLION,
            lw=1.4,
            label="local trend of the means",
        )
    r = [float(one[n]) for n in ("covariate_correlation", "covariate_correlation_lower",
                                 "covariate_correlation_upper")]  # fmt: skip
    ax.set_title("rank correlation {:.2f} ({:.2f} to {:.2f})".format(*r).replace("-", "−"),
                 fontsize=SMALL, color=INK, loc="left")  # fmt: skip
    labels(ax, with_unit(str(one["covariate"].values), str(one["unit"].values)),
           f"η of {one['parameter'].values}")  # fmt: skip


def _boxes(ax: Axes, one: xr.Dataset, x: np.ndarray, values: np.ndarray) -> None:
    drawn = [one["eta"].values[:, x == v].ravel() for v in values]
    made = ax.boxplot(
        drawn, positions=range(len(values)), widths=0.5, whis=(5, 95), showfliers=False,
        patch_artist=True, manage_ticks=False,
    )  # fmt: skip
    for box in made["boxes"]:
        box.set(facecolor=BLUE, alpha=0.3, edgecolor=BLUE)
    for line in [*made["medians"], *made["whiskers"], *made["caps"]]:
        line.set_color(INK)
    place = np.searchsorted(values, x[np.isfinite(x)])
    side = 0.36 * np.where(np.arange(place.size) % 2, 1, -1)
    ax.scatter(place + side, one["mean"].values[np.isfinite(x)], s=11, facecolors="white",
               edgecolors=BLUE, linewidths=0.7, zorder=3, label="mean of each subject")  # fmt: skip
    counts = [int((x == v).sum()) for v in values]
    ax.set_xticks(
        range(len(values)), [f"{v:g}\nn = {n}" for v, n in zip(values, counts, strict=True)]
    )
    ax.tick_params(labelsize=SMALL, labelcolor=INK)
    ax.set_xlim(-0.6, len(values) - 0.4)
    ax.xaxis.label.set_fontsize(NORMAL)
