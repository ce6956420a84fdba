"""What do all figures share? Paper, ink, colors that everyone can tell apart, labels with units.

References
----------
.. [1] Okabe M, Ito K (2008). Color universal design (CUD): how to make figures and presentations
   that are friendly to colorblind people. University of Tokyo.
.. [2] Wong B (2011). Points of view: color blindness. Nat Methods 8:441. doi:10.1038/nmeth.1618
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator

from popk.trial import Trial

#: Okabe and Ito's palette, and two greys.
INK, MUTED = "#1f2328", "#6e7781"
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
CHAINS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, INK)

SMALL, NORMAL = 8, 9  # points
#: With more points than this a vector figure gets slow: they are drawn as an image inside it.
MANY = 4000


class Picture(Figure):
    """A figure that belongs to no window, and that a notebook shows without ``%matplotlib``."""

    def _repr_png_(self) -> bytes:
        # A figure that pyplot does not know is otherwise shown as text (matplotlib issue 16782).
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def panels(
    rows: int, columns: int, size: tuple[float, float], layout: Any = "constrained", **options: Any
) -> tuple[Picture, np.ndarray]:
    """Return a figure and its axes [rows, columns].

    Parameters
    ----------
    rows, columns : int
    size : tuple of float
        Width and height [inch].
    layout : str or None
        How space is shared out; None where there are so many panels that working it out takes
        seconds.
    **options
        Of `Figure.subplots`.
    """
    picture = Picture(figsize=size, layout=layout, facecolor="white")
    axes = picture.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        plain(ax)
    return picture, axes


def plain(ax: Axes) -> None:
    """Take away what carries no information, and set ink and sizes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.spines[["left", "bottom"]].set_linewidth(0.7)
    ax.tick_params(colors=INK, labelsize=SMALL, width=0.7, length=3)
    ax.patch.set_alpha(0.0)


def labels(ax: Axes, x: str, y: str) -> None:
    """Label both axes."""
    ax.set_xlabel(x, fontsize=NORMAL, color=INK)
    ax.set_ylabel(y, fontsize=NORMAL, color=INK)


def legend(picture: Figure, source: Axes | Sequence[Axes], columns: int) -> None:
    """Put one legend for all panels above them, of what some of them name."""
    named = {}
    for ax in [source] if isinstance(source, Axes) else source:
        named |= {
            n: h for h, n in zip(*ax.get_legend_handles_labels(), strict=True) if n not in named
        }
    handles, names = list(named.values()), list(named)
    place: Any = "outside upper center" if picture.get_layout_engine() else "upper center"
    picture.legend(
        handles, names, loc=place, ncols=columns, frameon=False, fontsize=SMALL,
        labelcolor=INK, handlelength=1.8, columnspacing=1.4,
    )  # fmt: skip


def with_unit(name: str, unit: str) -> str:
    """Return an axis label.

    Examples
    --------
    >>> with_unit("Time", "h"), with_unit("Concentration", "ug/mL"), with_unit("IWRES", "1")
    ('Time (h)', 'Concentration (µg/mL)', 'IWRES')
    """
    shown = re.sub(r"\bu(?=(g|L|l|mol|M)\b)", "µ", unit)
    return name if unit in ("", "1") else f"{name} ({shown})"


def level_name(trial: Trial) -> str:
    """Return what a level is."""
    return "Concentration" if trial.design.concentrations else "DV"


def logarithmic(ax: Axes, which: str) -> None:
    """Make one or both axes ("x", "y", "xy") logarithmic, with plain numbers.

    Call it when everything is drawn: what the axis spans decides which numbers stand at it.
    """
    for name in which:
        ax.set(**{f"{name}scale": "log"})
        axis = ax.xaxis if name == "x" else ax.yaxis
        low, high = axis.get_view_interval()
        decades = np.log10(high / low)
        fine, coarse = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0)
        subs = fine if decades < 1.2 else coarse if decades < 3 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(PlainLog(minor_thresholds=(np.inf, np.inf)))
        axis.set_minor_locator(NullLocator())


def number(x: float) -> str:
    """Return a number with three significant digits, as one writes it in a table.

    Examples
    --------
    >>> number(2.7918), number(0.5), number(1490.7), number(-0.0176), number(0.0000123)
    ('2.79', '0.500', '1,490', '−0.0176', '1.23×10⁻⁵')
    >>> number(0.0), number(float("nan"))
    ('0', '–')
    """
    if not np.isfinite(x):
        return "–" if np.isnan(x) else str(x)
    if x == 0:
        return "0"
    exponent = int(f"{x:.2e}".split("e")[1])
    if exponent < -4 or exponent > 8:
        power = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{x / 10.0**exponent:.2f}×10{power}"
    else:
        text = f"{round(x, 2 - exponent):,.{max(0, 2 - exponent)}f}"
    return text.replace("-", "−")


class PlainLog(LogFormatter):
    """Numbers on a logarithmic axis as one writes them: 0.05, 2, 500."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return a tick's label."""
        return f"{x:g}"
