"""How does a figure stand in a page? As inline SVG whose colors follow the page's light or dark."""

import io
import re

from markupsafe import Markup, escape
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


def inline(figure: Figure, name: str, says: str) -> Markup:
    """Return a figure as SVG to stand in a page.

    Parameters
    ----------
    figure : Figure
    name : str
        Begins every id in the picture; two pictures of a page need different ones.
    says : str
        What it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    figure.patch.set_alpha(0.0)
    figure.savefig(buffer, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.S)
    # A page scales its pictures: they have proportions, and no size.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' d="[^"]*"', _rounded, text)
    for color, variable in COLORS.items():
        text = text.replace(color, f"var({variable})")
    text = _own_ids(text, name)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(says)}"', 1))


def _rounded(path: re.Match[str]) -> str:
    """Return a path to a hundredth of a point, which no eye can see and which halves the page."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path.group())


def _own_ids(text: str, name: str) -> str:
    """Return an SVG whose ids are its own in the page, and the same at every build."""
    ids = dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))
    new = {old: f"{name}-{i}" for i, old in enumerate(ids)}
    return re.sub(r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + new.get(m[2], m[2]), text)
