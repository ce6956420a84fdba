"""How does a report stand in a browser, and on paper? One page of HTML that needs nothing beside it."""

import base64
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from popk.reports import text
from popk.reports.blocks import Block, Drawing, Formula, Report
from popk.reports.formulas import drawn, mathml, text_of
from popk.reports.svg import inline


def html(report: Report, *, paper: bool = False) -> str:
    """Return a report as a page.

    Parameters
    ----------
    report : Report
    paper : bool
        Whether it is to be printed by a program that knows neither MathML nor the page's colors in
        pictures: these are then drawn, in the colors of paper.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip

    def figure(block: Drawing) -> Markup:
        if not paper:
            return inline(block.figure, block.name, block.says, block.points)
        return _picture(inline(block.figure, block.name, block.says, themed=False), block.says)

    def equation(block: Formula) -> Markup:
        if not paper:
            return mathml(block.latex)
        says = text_of(block.latex)
        return _picture(inline(drawn(block.latex), "f", says, themed=False), says)

    return environment.get_template("page.html.jinja").render(
        report=report, kind=_kind, figure=figure, equation=equation, linked=text.linked,
        colored=text.colored, paper=paper,
    )  # fmt: skip


def _kind(block: Block) -> str:
    return type(block).__name__


def _picture(svg: Markup, says: str) -> Markup:
    """Return an SVG as an image of its own, where ids and styles of others cannot reach it."""
    code = base64.b64encode(_standing_alone(svg).encode()).decode()
    return Markup('<img alt="{}" src="data:image/svg+xml;base64,{}">').format(
        Markup(says) if isinstance(says, Markup) else says, code
    )


def _standing_alone(svg: str) -> str:
    spaces: Any = {
        "xmlns=": 'xmlns="http://www.w3.org/2000/svg"',
        "xmlns:xlink=": 'xmlns:xlink="http://www.w3.org/1999/xlink"',
    }
    lacking = " ".join(v for k, v in spaces.items() if k not in svg[:600])
    return svg.replace("<svg", f"<svg {lacking}", 1) if lacking else svg
