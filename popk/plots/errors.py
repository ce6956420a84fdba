"""Are the levels draws of the model? Prediction errors, conditional residuals and coverage, drawn."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from popk.diagnostics.npde import normal_quantiles, npde_percentiles
from popk.diagnostics.residuals import trend
from popk.plots.picture import (
    BLUE,
    INK,
    MANY,
    MUTED,
    SMALL,
    VERMILLION,
    labels,
    legend,
    panels,
    with_unit,
)

_DASHED = (0, (4, 2))
_POINTS = {"s": 11, "facecolors": "none", "edgecolors": INK, "linewidths": 0.6}


def npde(errors: xr.Dataset, *, interval: float = 0.9) -> Figure:
    """Return normalized prediction distribution errors beside the normal ones of a right model.

    Parameters
    ----------
    errors : Dataset
        As `popk.npde` returns it.
    interval : float
        The probability of the bands, of each quantile and of the percentiles in each bin.

    Returns
    -------
    Figure
        Quantiles against normal ones; the histogram with the normal density; and npde against time and
        PRED: lines are observed 5th, 50th and 95th percentiles, bands where those of a right model lie.
        Triangles: levels beyond a limit, imputed. In the titles, mean, variance and the p-values of the
        tests, each alone and all three together.

    Raises
    ------
    ValueError
        The interval is no probability.

    References
    ----------
    .. [1] Comets E, Brendel K, Mentré F (2010). Model evaluation in nonlinear mixed effect models, with
       applications to pharmacokinetics. J Soc Fr Stat 151:106-128.
    """
    if not 0 < interval < 1:
        raise ValueError(f"interval is {interval}; give a probability such as 0.9")
    picture, axes = panels(2, 2, (9, 7.0))
    _quantiles(axes[0, 0], errors, interval)
    _histogram(axes[0, 1], errors["npde"].dropna("observation").values)
    for ax, against in zip(axes[1], ("TIME", "PRED"), strict=True):
        _percentiles(ax, errors, against, interval)
    p = {str(n): _shown(float(v)) for n, v in errors["p_value"].to_series().items()}
    mean, variance = (f"{float(errors[n]):.2f}".replace("-", "−") for n in ("mean", "variance"))
    for ax, text in (
        (
            axes[0, 0],
            f"mean {mean}, p {p['mean, Wilcoxon']};  variance {variance}, p {p['variance']}",
        ),
        (axes[0, 1], f"normal: p {p['normality']};  all three: p {p['global']}"),
    ):
        ax.set_title(text, fontsize=SMALL, color=INK, loc="left")
    legend(picture, (axes[1, 0], axes[0, 1]), 3)
    return picture


def _shown(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _quantiles(ax: Axes, errors: xr.Dataset, interval: float) -> None:
    """Draw quantiles against normal ones, with the band of each."""
    z = np.sort(errors["npde"].dropna("observation").values)
    middle, low, high = normal_quantiles(len(z), interval)
    ax.fill_between(middle, low, high, color=BLUE, alpha=0.22, linewidth=0)
    ax.plot(middle, middle, color=MUTED, lw=0.9, ls=_DASHED)
    ax.scatter(middle, z, rasterized=z.size > MANY, **_POINTS)
    labels(ax, "Normal quantile (sd)", "npde quantile (sd)")


def _histogram(ax: Axes, z: np.ndarray) -> None:
    """Draw the histogram beside the normal density."""
    reach = max(3.5, float(np.abs(z).max()))
    count = int(np.clip(np.sqrt(z.size), 8, 30)) | 1  # odd: one bin around 0
    edges = np.linspace(-reach, reach, count + 1)
    ax.hist(z, edges.tolist(), density=True, color=BLUE, alpha=0.22, edgecolor=BLUE, linewidth=0.7)
    at = np.linspace(-reach, reach, 200)
    density = np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)
    ax.plot(at, density, color=INK, lw=1.2, ls=_DASHED, label="normal density")
    labels(ax, "npde (sd)", "Density (1/sd)")


def _percentiles(ax: Axes, errors: xr.Dataset, against: str, interval: float) -> None:
    """Draw npde against time or PRED, with percentiles and their bands."""
    kept = errors.isel(observation=np.isfinite(errors["npde"].values))
    found = npde_percentiles(kept, "TIME" if against == "TIME" else "PRED", interval=interval)
    x, z, hidden = (kept[n].values for n in (against, "npde", "censored"))
    many = z.size > MANY
    ax.scatter(x[hidden == 0], z[hidden == 0], rasterized=many, label="observed", **_POINTS)
    if hidden.any():
        ax.scatter(x[hidden == 1], z[hidden == 1], rasterized=many, marker="v",
                   label="beyond a limit, imputed", **_POINTS)  # fmt: skip
    for i, p in enumerate(found["percentile"].values):
        one, inner = found.sel(percentile=p), p == 50
        edges = np.append(one["left"].values, one["right"].values[-1])
        name = "median" if inner else "5th and 95th percentile"
        shown = "" if i < 2 else "_"
        low, high = (np.append(one[n].values, one[n].values[-1]) for n in ("lower", "upper"))
        ax.fill_between(
            edges, low, high, step="post", color=VERMILLION if inner else BLUE, linewidth=0,
            alpha=0.45 if inner else 0.22,
            label=f"{shown}{100 * interval:g}% interval of the {name} of a right model",
        )  # fmt: skip
        ax.plot(one["center"], one["observed"], color=INK, marker="o", ms=3,
                lw=1.6 if inner else 1.1, ls="-" if inner else _DASHED,
                label=f"{shown}observed {name}")  # fmt: skip
    reach = 1.08 * max(3.0, float(np.abs(z).max()))
    ax.set_ylim(-reach, reach)
    kind = "Time" if against == "TIME" else "Population prediction PRED"
    labels(ax, with_unit(kind, errors[against].attrs["units"]), "npde (sd)")


def cwres(residuals: xr.Dataset) -> Figure:
    """Return conditional weighted residuals against time and against PRED.

    Parameters
    ----------
    residuals : Dataset
        As `popk.cwres` returns it.

    Returns
    -------
    Figure
        Lines at 0 and at 1.96 sd, between which 95% of the residuals of a right model lie.
    """
    picture, axes = panels(1, 2, (9, 3.4), sharey=True)
    y = residuals["CWRES"].values
    for ax, name in zip(axes.flat, ("TIME", "PRED"), strict=True):
        x = residuals[name].values
        ax.axhline(0, color=INK, lw=0.7)
        for side, text in ((-1.96, "_"), (1.96, "±1.96 sd")):
            ax.axhline(side, color=MUTED, lw=0.9, ls=_DASHED, label=text)
        ax.scatter(x, y, rasterized=x.size > MANY, label="observed", **_POINTS)
        ax.plot(*trend(x, y), color=VERMILLION, lw=1.4, label="local trend")
        kind = {"TIME": "Time", "PRED": "Population prediction PRED"}[name]
        labels(ax, with_unit(kind, residuals[name].attrs["units"]), "CWRES (sd)")
        ax.label_outer()
    reach = 1.1 * max(3.0, float(np.abs(y).max()))
    axes[0, 0].set_ylim(-reach, reach)
    legend(picture, axes[0, 0], 3)
    return picture


def coverage(places: xr.Dataset) -> Figure:
    """Return how many levels lie in prediction intervals, of each probability and each subject.

    Parameters
    ----------
    places : Dataset
        As `popk.pit` returns it.

    Returns
    -------
    Figure
        On the left the part of levels in central intervals less their probability; in the middle the
        histogram of PIT values, both on the bands of simulated trials; on the right each subject's part
        of levels in each of the intervals asked for.
    """
    picture, axes = panels(1, 3, (9, 3.4))
    percent = f"{100 * float(places.attrs['band']):g}% of simulated trials"
    ax, x = axes[0, 0], 100 * places["nominal"].values
    low, middle, high = (
        100 * places[n].values - x for n in ("curve_lower", "curve", "curve_upper")
    )
    ax.fill_between(x, low, high, color=BLUE, alpha=0.22, linewidth=0, label=percent)
    ax.axhline(0, color=MUTED, lw=0.9, ls=_DASHED, label="as promised")
    ax.plot(x, middle, color=INK, lw=1.4, label="observed")
    labels(ax, "Probability of the interval (%)", "Levels within − promised (%)")
    ax = axes[0, 1]
    x, width = places["tenth"].values, 1 / places.sizes["tenth"]
    edges = np.append(x - width / 2, 1.0)
    low, high = (np.append(v, v[-1]) for v in
                 (100 * places[f"histogram_{e}"].values for e in ("lower", "upper")))  # fmt: skip
    ax.fill_between(edges, low, high, step="post", color=BLUE, alpha=0.22, linewidth=0)
    ax.axhline(100 * width, color=MUTED, lw=0.9, ls=_DASHED)
    ax.stairs(100 * places["histogram"].values, edges, color=INK, lw=1.4, baseline=None)
    ax.set(xlim=(0, 1), ylim=(0, None))
    labels(ax, "PIT", "Levels (%)")
    ax.set_title(f"uniform: p {_shown(float(places['p_value']))}", fontsize=SMALL, color=INK,
                 loc="left")  # fmt: skip
    _subjects(axes[0, 2], places)
    legend(picture, axes[0, 0], 3)
    return picture


def _subjects(ax: Axes, places: xr.Dataset) -> None:
    """Draw each subject's coverage, those of one value beside one another."""
    asked = places["interval"].values
    for i, c in enumerate(asked):
        part = 100 * places["subject_coverage"].sel(interval=c).values
        part = np.sort(part[np.isfinite(part)])
        # Subjects with equal parts lie beside one another.
        counts = np.unique(part, return_counts=True)[1]
        offset = np.concatenate([np.linspace(-1, 1, n) * min(1, n / 12) for n in counts])
        ax.scatter(i + 0.32 * offset, part, **_POINTS)
        ax.hlines(100 * c, i - 0.42, i + 0.42, color=VERMILLION, lw=1.6)
    ax.set_xticks(range(len(asked)), [f"{100 * c:g}%" for c in asked])
    ax.set_ylim(-3, 103)
    labels(ax, "Interval (line: as promised)", "Each subject's levels within (%)")
