"""How did records become levels of the fit? A flow chart, as trials are reported.

References
----------
.. [1] Hopewell S, Chan AW, Collins GS, et al. (2025). CONSORT 2025 statement: updated guideline for
   reporting randomised trials. BMJ 389:e081123. doi:10.1136/bmj-2024-081123
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from popk.plots.picture import INK, MUTED, NORMAL, panels

_LINE, _PAD, _GAP = 0.19, 0.16, 0.34  # of a text line, inside a box, between boxes [inch]


class Step(NamedTuple):
    """One box of the main line, and what leaves the line below it.

    Attributes
    ----------
    says : str
    aside : sequence of str
        One line of the box at the side each.
    """

    says: str
    aside: Sequence[str] = ()


def flow(steps: Sequence[Step]) -> Figure:
    """Return a flow chart: a column of boxes, and at the right what leaves it between two of them.

    Parameters
    ----------
    steps : sequence of Step
    """
    heights = [_high(s.says.count("\n") + 1) for s in steps]
    gaps = [max(_GAP, _high(len(s.aside)) + 0.24) if s.aside else _GAP for s in steps[:-1]]
    total = sum(heights) + sum(gaps) + 0.1
    picture, axes = panels(1, 1, (9, total), layout=None)
    ax = axes[0, 0]
    picture.subplots_adjust(left=0, right=1, bottom=0, top=1)
    ax.set(xlim=(0, 9), ylim=(total, 0))
    ax.axis("off")
    top, center = 0.05, 2.4
    for i, step in enumerate(steps):
        _box(ax, (0.25, top, 4.3, heights[i]), step.says, INK)
        bottom = top + heights[i]
        if i < len(gaps):
            below = bottom + gaps[i]
            arrow = {
                "arrowstyle": "-|>",
                "color": INK,
                "linewidth": 1.0,
                "shrinkA": 0,
                "shrinkB": 0,
            }
            ax.annotate("", (center, below), (center, bottom), arrowprops=arrow)
            if step.aside:
                high, middle = _high(len(step.aside)), bottom + gaps[i] / 2
                _box(ax, (5.0, middle - high / 2, 3.75, high), "\n".join(step.aside), MUTED)
                ax.annotate("", (5.0, middle), (center, middle), arrowprops=arrow)
            top = below
    return picture


def _high(lines: int) -> float:
    return lines * _LINE + 2 * _PAD


def _box(ax, place: tuple[float, float, float, float], says: str, edge: str) -> None:
    x, y, width, height = place
    ax.add_patch(FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05", facecolor="none",
        edgecolor=edge, linewidth=1.0,
    ))  # fmt: skip
    ax.text(x + 0.15, y + height / 2, says, va="center", ha="left", fontsize=NORMAL + 1, color=INK,
            linespacing=1.35)  # fmt: skip
