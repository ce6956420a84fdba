"""Rules of a record table as data: each rule finds the rows that break it and says what to do."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd


class DataError(ValueError):
    """Records that cannot be used: all their problems, with file, row, ID, column and remedy."""

    def __init__(self, where: str, problems: Sequence["Problem"]):
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        shown = [f"  {problem}" for problem in problems[:50]]
        if len(problems) > 50:
            shown.append(f"  ... and {len(problems) - 50} more")
        super().__init__("\n".join([f"{count} in {where}", *shown]))
        self.where = where
        self.problems = tuple(problems)


class Problem(NamedTuple):
    """One thing that is wrong: where it stands, and a sentence of what was found and what to do."""

    column: str
    says: str
    row: int | str | None = None
    id: str | None = None
    time: str | None = None

    def __str__(self) -> str:
        """Return the problem on one line."""
        place = [
            "" if self.row is None else f"row {self.row}",
            f"ID {self.id}" if self.id else "",
            "" if self.time is None else f"TIME {self.time}",
        ]
        return "  ".join([part for part in place if part] + [self.says])


class Rule(NamedTuple):
    """One row of a table of rules.

    Attributes
    ----------
    name : str
        The rule as a sentence.
    column : str
        The column that a problem is reported on.
    broken : Callable[[DataFrame], Series]
        The rows, True where the rule is broken.
    says : str
        What is wrong and what to do; ``{COLUMN}`` stands for the row's value.
    """

    name: str
    column: str
    broken: Callable[[Any], Any]
    says: str


def problems(frame: pd.DataFrame, rules: Iterable[Rule]) -> list[Problem]:
    """Return every violation of `rules` in a table with columns ID, TIME and ROW, in row order."""
    found: list[tuple[int, Problem]] = []
    for rule in rules:
        broken = rule.broken(frame).to_numpy(dtype=bool)
        for position in broken.nonzero()[0]:
            row = {str(k): _text(v) for k, v in frame.iloc[position].items()}
            says = rule.says.format(**row)
            found.append(
                (
                    int(position),
                    Problem(rule.column, says, frame["ROW"].iloc[position], row["ID"], row["TIME"]),
                )
            )
    return [problem for _, problem in sorted(found, key=lambda pair: pair[0])]


def _text(value: object) -> str:
    if isinstance(value, float):
        return "missing" if value != value else f"{value:.10g}"
    return str(value)
