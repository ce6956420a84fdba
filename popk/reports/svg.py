"""How does a figure stand in a page? As inline SVG whose colors follow the page's light or dark."""

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from popk.plots import picture

#: Each color of the figures, and the page's variable for it.
COLORS = {
    picture.INK: "--ink",
    picture.MUTED: "--muted",
    picture.BLUE: "--blue",
    picture.VERMILLION: "--vermillion",
    "#ffffff": "--paper",
}


def inline(
    figure: Figure, name: str, says: str, points: Mapping[int, Sequence[str]] | None = None,
    *, themed: bool = True,
) -> Markup:  # fmt: skip
    """Return a figure as SVG to stand in a page.

    Parameters
    ----------
    figure : Figure
    name : str
        Begins every id in the picture; two pictures of a page need different ones.
    says : str
        What it shows, for those who cannot see it.
    points : mapping of int to sequence of str, optional
        What is said of each point labelled "observed" of the first, second, ... axes, when the pointer
        rests on it.
    themed : bool
        Whether colors are the page's variables; else they are those of paper.
    """
    marked = _marked(figure, points or {})
    buffer = io.StringIO()
    figure.patch.set_alpha(0.0)
    figure.savefig(buffer, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.S)
    if themed:  # a page scales its pictures: they have proportions, and no size
        text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' d="[^"]*"', _rounded, text)
    for gid, words in marked.items():
        text = _titled(text, gid, words)
    for color, variable in COLORS.items() if themed else ():
        text = text.replace(color, f"var({variable})")
    text = _own_ids(text, name)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(says)}"', 1))


def _marked(figure: Figure, points: Mapping[int, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the groups of points that words belong to, named so that they are found again."""
    found = {}
    for i, words in points.items():
        drawn = [c for c in figure.axes[i].collections
                 if isinstance(c, PathCollection) and c.get_label() == "observed"
                 and np.shape(c.get_offsets())[0] == len(words)]  # fmt: skip
        if drawn:
            drawn[0].set_gid(f"points{i}")
            found[f"points{i}"] = words
    return found


def _titled(text: str, gid: str, words: Sequence[str]) -> str:
    """Return an SVG with words at the points of a group; one drawn as an image keeps none."""
    start = text.find(f'<g id="{gid}">')
    if start < 0:
        return text
    end = text.find('<g id="', start + 10)
    end = len(text) if end < 0 else end
    part = text[start:end]
    if part.count("<use ") != len(words):
        return text
    said = iter(words)
    part = re.sub(
        r"<use [^>]*/>",
        lambda m: f"<g><title>{escape(next(said))}</title>{m.group()}</g>",
        part,
    )
    return text[:start] + part + text[end:]


def _rounded(path: re.Match[str]) -> str:
    """Return a path to a hundredth of a point, which no eye can see and which halves the page."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path.group())


def _own_ids(text: str, name: str) -> str:
    """Return an SVG whose ids are its own in the page, and the same at every build."""
    ids = dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))
    new = {old: f"{name}-{i}" for i, old in enumerate(ids)}
    return re.sub(r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + new.get(m[2], m[2]), text)
