"""How is a report printed? As PDF, by WeasyPrint, which is installed with ``popk[report]``."""

import logging

from popk.reports.blocks import Report
from popk.reports.page import html


def pdf(report: Report) -> bytes:
    """Return a report as PDF.

    Parameters
    ----------
    report : Report

    Raises
    ------
    ValueError
        WeasyPrint is not installed, or lacks a library of the system.
    """
    try:
        import weasyprint
    except (ImportError, OSError) as error:  # OSError: Pango, which comes with the system
        raise ValueError(
            "PDF needs WeasyPrint and the system's Pango: install popk[report], and Pango with the "
            "system's packages; or print the HTML page from a browser"
        ) from error
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # of rules for screens
    return weasyprint.HTML(string=html(report, paper=True)).write_pdf() or b""
