"""How does a report go into a document of one's own? As DOCX, by python-docx (``popk[report]``)."""

import io
from typing import Any

from popk.reports.blocks import (
    Block,
    Drawing,
    Facts,
    Formula,
    Heading,
    Points,
    Report,
    Source,
    Table,
    Words,
)
from popk.reports.formulas import png

_WIDTH = 6.3  # of figures [inch], on A4 with margins of 2.5 cm


def docx(report: Report) -> bytes:
    """Return a report as DOCX: text, tables that can be edited, figures as pictures.

    Parameters
    ----------
    report : Report

    Raises
    ------
    ValueError
        python-docx is not installed.
    """
    try:
        import docx as library
    except ImportError as error:
        raise ValueError("DOCX needs python-docx: install popk[report]") from error
    from docx.shared import Cm

    document = library.Document()
    for part in document.sections:
        part.page_width, part.page_height = Cm(21), Cm(29.7)
        part.left_margin = part.right_margin = Cm(2.5)
    document.core_properties.title = report.title
    document.core_properties.author = ""
    document.add_heading(report.title, 0)
    document.add_paragraph(report.subtitle)
    _opening(document, report)
    for section in report.sections:
        document.add_heading(section.title, 1)
        if section.missing:
            document.add_paragraph(f"This section is missing: {section.missing}.")
        for block in section.blocks:
            _added(document, block)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def _opening(document: Any, report: Report) -> None:
    from docx.shared import RGBColor

    said = document.add_paragraph().add_run(report.verdict)
    said.bold = True
    said.font.color.rgb = RGBColor(0x0B, 0x6B, 0x4B) if report.good else RGBColor(0xB3, 0x26, 0x1E)
    document.add_paragraph(report.advice)
    for problem in report.problems:
        document.add_paragraph(problem, style="List Bullet")
    _grid(document, [], [[n, f"{x} ({y})" if y else x] for n, x, y in report.facts])


def _added(document: Any, block: Block) -> None:
    from docx.shared import Inches, Pt

    match block:
        case Words(text):
            document.add_paragraph(text)
        case Points(sentences):
            for item in sentences:
                document.add_paragraph(item, style="List Bullet")
        case Heading(text):
            document.add_heading(text, 2)
        case Facts(rows):
            _grid(document, [], [list(row) for row in rows])
        case Table():
            _table(document, block)
        case Drawing(_, figure, _, caption):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=160, facecolor="white")
            buffer.seek(0)
            document.add_picture(buffer, width=Inches(_WIDTH))
            document.add_paragraph(caption, style="Caption")
        case Formula(latex):
            document.add_picture(png(latex))
            picture = document.inline_shapes[-1]
            if picture.width > Inches(_WIDTH):
                picture.height = int(picture.height * Inches(_WIDTH) / picture.width)
                picture.width = Inches(_WIDTH)
        case Source(text):
            run = document.add_paragraph().add_run(text)
            run.font.name, run.font.size = "Consolas", Pt(8)


def _table(document: Any, table: Table) -> None:
    rows: list[list[str]] = []
    for heading, own in table.groups.items():
        rows += [[heading]] if heading else []
        rows += [list(row) for row in own]
    _grid(document, list(table.columns), rows)
    for name, says in table.notes:
        document.add_paragraph().add_run(f"{name}: {says}").italic = True


def _grid(document: Any, columns: list[str], rows: list[list[str]]) -> None:
    from docx.shared import Pt

    width = max([len(columns), *(len(r) for r in rows)])
    grid = document.add_table(rows=0, cols=width)
    grid.style = "Light List" if columns else "Table Grid"
    for i, row in enumerate(([columns] if columns else []) + rows):
        # `cells` walks the whole table each time it is asked for
        cells = grid.add_row().cells
        for cell, text in zip(cells, row, strict=False):
            run = cell.paragraphs[0].add_run(text)
            run.font.size = Pt(8)
            run.bold = bool(columns) and (i == 0 or len(row) == 1)
        if len(row) == 1 and width > 1:
            cells[0].merge(cells[-1])
    document.add_paragraph()
