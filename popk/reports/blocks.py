"""What is a report made of? Sections of blocks, which know nothing of the format they are written in."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure


class Words(NamedTuple):
    """A paragraph; a DOI in it becomes a link where the format has links.

    Attributes
    ----------
    text : str
    quiet : bool
        Whether it is a note beside what it explains.
    """

    text: str
    quiet: bool = False


class Heading(NamedTuple):
    """A heading inside a section."""

    text: str


class Points(NamedTuple):
    """Sentences that stand beside one another."""

    sentences: Sequence[str]


class Facts(NamedTuple):
    """Names and values, one pair a line."""

    rows: Sequence[tuple[str, str]]


class Table(NamedTuple):
    """A table as a reader sees it, and as a computer does.

    Attributes
    ----------
    name : str
        Of its CSV file, without suffix.
    columns : sequence of str
    groups : mapping of str to sequence of rows
        Rows of cells under a heading each; "" has none.
    frame : DataFrame
        The same numbers with all their digits.
    wordy : sequence of int
        The columns that hold words rather than numbers.
    notes : sequence of (str, str)
        What columns mean.
    code : bool
        Whether the first column holds names of the program.
    """

    name: str
    columns: Sequence[str]
    groups: Mapping[str, Sequence[Sequence[str]]]
    frame: pd.DataFrame
    wordy: Sequence[int] = (0,)
    notes: Sequence[tuple[str, str]] = ()
    code: bool = True


class Drawing(NamedTuple):
    """A figure.

    Attributes
    ----------
    name : str
        One word, the only one of its kind in the report.
    figure : Figure
    says : str
        What it shows, for those who cannot see it.
    caption : str
        What to look for.
    points : mapping of int to sequence of str, or None
        What is said of each observed point of the first, second, ... axes, under the pointer.
    half : bool
        Whether another figure may stand beside it.
    """

    name: str
    figure: Figure
    says: str
    caption: str
    points: Mapping[int, Sequence[str]] | None = None
    half: bool = False


class Formula(NamedTuple):
    """An equation in the part of LaTeX that `popk.reports.formulas` reads."""

    latex: str


class Source(NamedTuple):
    """Program text.

    Attributes
    ----------
    text : str
    command : bool
        Whether it is a command rather than a Python function.
    """

    text: str
    command: bool = False


class Finding(NamedTuple):
    """What a section found out that the top of the report, and its limitations, should say.

    Attributes
    ----------
    check : str
        What was looked at.
    value : str
        What was found.
    wanted : str
        What one would like to find.
    good : bool or None
        Whether that is so; None: no judgement, a fact.
    limit : str
        The limitation in a sentence, "" where there is none.
    """

    check: str
    value: str
    wanted: str = ""
    good: bool | None = None
    limit: str = ""


Block = Words | Points | Heading | Facts | Table | Drawing | Formula | Source


class Section(NamedTuple):
    """A part of the report.

    Attributes
    ----------
    key : str
        One word, for links and options.
    title : str
    blocks : sequence of Block
    findings : sequence of Finding
    missing : str
        Why it is not there, "" if it is.
    seconds : float
        How long it took.
    """

    key: str
    title: str
    blocks: Sequence[Block] = ()
    findings: Sequence[Finding] = ()
    missing: str = ""
    seconds: float = 0.0


class Report(NamedTuple):
    """A whole report.

    Attributes
    ----------
    title, subtitle : str
    verdict : str
        One line: whether the fit may be used.
    good : bool
    advice : str
        What follows from it for the reader.
    problems : sequence of str
        What is wrong, each with the next step.
    facts : sequence of (str, str, str)
        The numbers that it rests on: what, how much, and how much it may be.
    sections : sequence of Section
    """

    title: str
    subtitle: str
    verdict: str
    good: bool
    advice: str
    problems: Sequence[str]
    facts: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]

    @property
    def tables(self) -> list[Table]:
        """Return all tables, in order."""
        return [b for s in self.sections for b in s.blocks if isinstance(b, Table)]
