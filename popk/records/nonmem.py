"""What did the trial record? NONMEM-layout tables: their columns, their rules, their defaults.

References
----------
.. [1] Bauer RJ (2019). NONMEM tutorial part I. CPT Pharmacometrics Syst Pharmacol 8:525-537.
   doi:10.1002/psp4.12404
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popk.records.provenance import Provenance
from popk.records.rules import RULES
from popk.records.table import DataError, Problem, Rule, problems

MISSING = frozenset({"", ".", "NA"})

#: Every column that has a meaning here, and what a record that lacks the column is given.
#: EVID and MDV have no constant default: they follow from the other columns.
DEFAULTS = {
    "ID": None,
    "TIME": None,
    "EVID": None,
    "AMT": 0.0,
    "RATE": 0.0,
    "II": 0.0,
    "ADDL": 0.0,
    "SS": 0.0,
    "CMT": 0.0,
    "DV": np.nan,
    "DVID": 0.0,
    "MDV": None,
    "BLQ": 0.0,
    "LLOQ": np.nan,
    "ALQ": 0.0,
    "ULOQ": np.nan,
    "CENS": 0.0,
    "LIMIT": np.nan,
}
#: The columns of checked records: what CENS and LIMIT say, BLQ, LLOQ, ALQ and ULOQ say as well.
KEPT = tuple(name for name in DEFAULTS if name not in ("CENS", "LIMIT"))
REQUIRED = ("ID", "TIME", "DV")
_INTEGER = ("EVID", "ADDL", "SS", "CMT", "DVID", "MDV", "BLQ", "ALQ", "CENS")

#: Columns that would change what a record means, and that popk cannot honor.
FOREIGN = {
    "DATE": "clock times are not read; give TIME as elapsed time and drop DATE",
    "CONT": "continued records are not read; write one row per record",
    "CALL": "CALL is not supported; remove the column",
}


class Records(NamedTuple):
    """A checked record table.

    Attributes
    ----------
    frame : DataFrame
        One row per record in file order: the columns of `KEPT`, ROW (file line or index label) and
        the covariates, all numbers but ID.
    original : DataFrame
        The table as it came.
    covariates : tuple of str
        The covariate columns.
    names : dict of str to str
        For each column that is used, its name in the table as it came.
    """

    frame: pd.DataFrame
    original: pd.DataFrame
    covariates: tuple[str, ...]
    names: dict[str, str]


def read_rows(path: Path) -> tuple[pd.DataFrame, bytes]:
    """Return a text table as strings, its index the line numbers, and the file's bytes.

    Fields are separated by the commas, semicolons or tabs of the header, else by white space. Empty
    lines and lines that begin with ``#`` are passed over, as NONMEM does.

    Raises
    ------
    DataError
        There is no such file, it is empty or not text, a header name stands twice, or a row has
        another number of fields than the header.
    """
    where = str(path)
    if not path.is_file():
        raise DataError(where, [Problem("", "there is no such file; check the path")])
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(where, [Problem("", "it is not UTF-8 text; export it as CSV")]) from error
    lines = [
        (n, line)
        for n, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise DataError(where, [Problem("", "it is empty; it needs a header and records")])
    separator = next((s for s in ",;\t" if s in lines[0][1]), None)
    texts = [line for _, line in lines]
    cells = [_fields(line, separator) for line in texts]
    header = [name.strip() for name in cells[0]]
    ragged = [
        Problem(
            "",
            f"it has {len(row)} fields where the header has {len(header)}"
            if row
            else "its quotes do not match; write each record on one line",
            row=n,
        )
        for (n, _), row in zip(lines, cells, strict=True)
        if len(row) != len(header) or not row
    ]
    if ragged:
        raise DataError(where, ragged)
    stripped = [[cell.strip() for cell in row] for row in cells[1:]]
    return pd.DataFrame(
        stripped, columns=header, index=[n for n, _ in lines[1:]], dtype=str
    ), content


def _fields(line: str, separator: str | None) -> list[str]:
    """Return the fields of a line; none where its quotes do not match."""
    if separator is None:
        return line.split()
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return []


def check_records(
    original: pd.DataFrame,
    where: str,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] | None = None,
    provenance: Provenance | None = None,
    *,
    missing: Sequence[str] = (),
) -> Records:
    """Return the records of a table as numbers, every rule checked and every default filled in.

    Parameters
    ----------
    original : DataFrame
        One row per record; its index names the rows in errors.
    where : str
        The file, for errors.
    columns : mapping of str to str, optional
        For a standard column, the name it has in this table: ``{"DV": "CONC"}``.
    covariates : sequence of str, optional
        The covariate columns; by default those that the provenance file names.
    provenance : Provenance, optional
        What stands beside the file.
    missing : sequence of str
        The covariates that some subjects may lack, on all their rows.

    Raises
    ------
    DataError
        All problems of columns, of cells or of rules, in this order.
    """
    if covariates is None:
        covariates = provenance.covariates if provenance else ()
    covariates = tuple(dict.fromkeys(covariates))
    names = _names(original, where, columns or {}, covariates)
    if not len(original):
        raise DataError(where, [Problem("", "it has a header but no records")])
    frame: Any
    frame, broken = _numbers(original, names)
    if broken:
        raise DataError(where, broken)
    frame = _defaults(frame)
    if strange := [c for c in missing if c not in covariates]:
        says = f"missing= names {', '.join(strange)}, which is no covariate"
        raise DataError(where, [Problem("", f"{says}; name it in covariates= too")])
    broken = problems(frame, [*RULES, *(_complete(c, c in missing) for c in covariates)])
    if broken:
        raise DataError(where, broken)
    whole = dict.fromkeys((n for n in _INTEGER if n in KEPT), int)
    frame = frame[["ROW", *KEPT, *covariates]].astype(whole)
    return Records(frame, original, covariates, names)


def _complete(name: str, may_be_missing: bool) -> Rule:
    """Return the rule that a covariate has values, of a subject on all rows or on none."""
    if may_be_missing:
        return Rule(
            "a covariate is missing on all rows of a subject",
            name,
            lambda f: f[name].isna() & f.groupby("ID")[name].transform("count").gt(0),
            f"{name} is missing here and known on another row of ID {{ID}}; give a value on every row",
        )
    return Rule(
        "covariates are complete",
        name,
        lambda f: f[name].isna(),
        f"{name} is missing; give a value on every row of the ID (popk never fills one in), or say "
        f"missing=['{name}'] and model it: popk.covariate_model",
    )


def _names(
    original: pd.DataFrame, where: str, columns: Mapping[str, str], covariates: Sequence[str]
) -> dict[str, str]:
    """Return, for each column that is used, its name in the table."""
    have = [str(name) for name in original.columns]
    found = _header_problems(have, columns)
    names: dict[str, str] = {}
    for name in DEFAULTS:
        wanted = columns.get(name, name)
        # columns={"BLQ": "CENS"} says that CENS is not what Monolix means by it.
        taken = {own for n, own in columns.items() if n in DEFAULTS and n != name}
        alike = [h for h in have if h == wanted and h not in taken]
        if not alike and name not in columns:  # lower-case headers are common
            alike = [h for h in have if h.upper() == name and h not in taken]
        if len(set(alike)) > 1:
            says = f"columns {', '.join(alike)} could both be {name}; name one with "
            found.append(Problem(name, f"{says}columns={{'{name}': ...}}"))
        if alike:
            names[name] = alike[0]
        elif name in REQUIRED or name in columns:
            says = f"column {wanted} is missing; the header has {', '.join(have)}; name it with "
            found.append(Problem(name, f"{says}columns={{'{name}': ...}}"))
    for name in covariates:
        if name in DEFAULTS:
            found.append(Problem(name, f"{name} cannot be a covariate: it is a standard column"))
        elif name not in have:
            says = f"covariate {name} is no column; the header has {', '.join(have)}"
            found.append(Problem(name, says))
        names[name] = name
    if found:
        raise DataError(where, found)
    return names


def _header_problems(have: Sequence[str], columns: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with a header, whatever it lacks."""
    twice = sorted({n for n in have if have.count(n) > 1})
    standard = ", ".join(DEFAULTS)
    return [
        *(
            Problem(n, f"column {n} stands {have.count(n)} times; rename or drop one")
            for n in twice
        ),
        *(
            Problem(n, f"columns= names {n}, which is no standard column; use one of {standard}")
            for n in columns
            if n not in DEFAULTS
        ),
        *(
            Problem(n, f"column {n}: {FOREIGN[n.upper()]}")
            for n in have
            if n.upper() in FOREIGN and n not in columns.values()
        ),
    ]


def _numbers(
    original: pd.DataFrame, names: Mapping[str, str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the used columns as numbers (missing: NaN) and the cells that are none."""
    frame = pd.DataFrame({"ROW": [*original.index]})
    frame["ID"] = [_label(cell) for cell in original[names["ID"]]]
    found: list[Problem] = []
    for name, column in names.items():
        if name == "ID":
            continue
        values = np.full(len(frame), np.nan)
        for i, cell in enumerate(original[column]):
            values[i], complaint = _number(cell)
            if name in _INTEGER and values[i] % 1 > 0:
                complaint = "it must be a whole number"
            if complaint:
                time = None if name == "TIME" else str(original[names["TIME"]].iloc[i])
                says = f"{column} is {str(cell)!r}: {complaint}"
                found.append(Problem(name, says, frame["ROW"].iloc[i], frame["ID"].iloc[i], time))
        frame[name] = values
    order = {row: i for i, row in enumerate(frame["ROW"])}
    return frame, sorted(found, key=lambda problem: order[problem.row])


def _label(cell: object) -> str:
    """Return an ID as text: 3, "3" and 3.0 are the same subject."""
    text = "" if _missing(cell) else str(cell).strip()
    whole, _, rest = text.partition(".")
    return whole if whole.lstrip("-").isdigit() and not rest.strip("0") else text


def _missing(cell: object) -> bool:
    return cell.strip() in MISSING if isinstance(cell, str) else bool(np.all(pd.isna(cell)))


def _number(cell: object) -> tuple[float, str]:
    """Return a cell as a number, and a complaint where it is neither a number nor missing."""
    if _missing(cell):
        return np.nan, ""
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan, "not a number; write . where it is missing, and code categories as numbers"
    if value != value:
        return np.nan, "not a number; write . where it is missing"
    return (
        (value, "") if np.isfinite(value) else (np.nan, "not finite; write . where it is missing")
    )


def _defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in what a missing column or cell means (NONMEM's rules for EVID and MDV)."""
    for name, value in DEFAULTS.items():
        if name not in frame:
            frame[name] = np.nan
        if value is not None:
            frame[name] = frame[name].fillna(value)
    dosed = frame[["AMT", "RATE", "SS", "II", "ADDL"]].ne(0).any(axis=1)
    other = frame["MDV"].eq(1)
    frame["EVID"] = frame["EVID"].fillna(pd.Series(np.select([dosed, other], [1.0, 2.0], 0.0)))
    frame["MDV"] = frame["MDV"].fillna(frame["EVID"].ne(0).astype(float))
    return _censored(frame)


def _censored(frame: Any) -> pd.DataFrame:
    """Say in BLQ, LLOQ, ALQ and ULOQ what Monolix's CENS and LIMIT say (rules refuse both at once)."""
    own = frame["BLQ"].ne(0) | frame["ALQ"].ne(0)
    for sign, flag, limit, far_flag, far_limit in (
        (1, "BLQ", "LLOQ", "ALQ", "ULOQ"),
        (-1, "ALQ", "ULOQ", "BLQ", "LLOQ"),
    ):
        rows = frame["CENS"].eq(sign) & ~own
        frame.loc[rows, flag] = 1.0
        frame.loc[rows, limit] = frame["DV"][rows]
        frame.loc[rows, far_flag] = frame["LIMIT"][rows].notna().astype(float)
        frame.loc[rows, far_limit] = frame["LIMIT"][rows]
    return frame
