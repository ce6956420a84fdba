"""What did the trial record? NONMEM-layout tables: their columns, their rules, their defaults.

References
----------
.. [1] Bauer RJ (2019). NONMEM tutorial part I. CPT Pharmacometrics Syst Pharmacol 8:525-537.
   doi:10.1002/psp4.12404
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from popk.records.provenance import Provenance
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
    "MDV": None,
    "BLQ": 0.0,
    "LLOQ": np.nan,
}
REQUIRED = ("ID", "TIME", "DV")
_INTEGER = ("EVID", "ADDL", "SS", "CMT", "MDV", "BLQ")

#: Columns that would change what a record means, and that popk cannot honor.
FOREIGN = {
    "DATE": "clock times are not read; give TIME as elapsed time and drop DATE",
    "CONT": "continued records are not read; write one row per record",
    "CALL": "CALL is not supported; remove the column",
    "CENS": "Monolix censoring is not read; give BLQ (0 or 1) and LLOQ",
    "LIMIT": "Monolix censoring is not read; give BLQ (0 or 1) and LLOQ",
}


class Records(NamedTuple):
    """A checked record table.

    Attributes
    ----------
    frame : DataFrame
        One row per record in file order: the columns of `DEFAULTS`, ROW (file line or index
        label) and the covariates, all numbers but ID.
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


def _dose(f: pd.DataFrame) -> "pd.Series[bool]":
    return f["EVID"].isin([1, 4])


def _previous(f: pd.DataFrame, column: str) -> "pd.Series":
    return f.groupby("ID", sort=False)[column].shift()


#: The rules of one record, as data. The order is that of the columns.
RULES = (
    Rule("an ID is one block of rows", "ID",
         lambda f: f["ID"].ne(f["ID"].shift()) & f["ID"].duplicated(),
         "ID {ID} was already used further up; put all its records together, or give it another ID"),
    Rule("an ID is given", "ID", lambda f: f["ID"].eq(""), "ID is missing; every record needs one"),
    Rule("a time is given", "TIME", lambda f: f["TIME"].isna(),
         "TIME is missing; every record needs one"),
    Rule("time goes on within an ID", "TIME",
         lambda f: f["TIME"].lt(_previous(f, "TIME")) & ~f["EVID"].isin([3, 4]),
         "TIME goes back; sort the records, or start a new occasion with EVID 3 or 4"),
    Rule("an EVID is known", "EVID", lambda f: ~f["EVID"].isin([0, 1, 2, 3, 4]),
         "EVID is {EVID}; use 0 (observation), 1 (dose), 2 (other), 3 (reset) or 4 (reset and dose)"),
    Rule("an amount is not negative", "AMT", lambda f: f["AMT"].lt(0),
         "AMT is {AMT}; a dose must be positive"),
    Rule("a dose has an amount", "AMT", lambda f: _dose(f) & f["AMT"].eq(0) & f["SS"].eq(0),
         "AMT is 0 on a dose (EVID {EVID}); give the amount, or set EVID 2"),
    Rule("only a dose has an amount", "AMT", lambda f: ~_dose(f) & f["AMT"].ne(0),
         "AMT is {AMT} on EVID {EVID}; set EVID 1 if it is a dose, AMT 0 if not"),
    Rule("only a dose has a rate", "RATE", lambda f: ~_dose(f) & f["RATE"].ne(0),
         "RATE is {RATE} on EVID {EVID}; set EVID 1 if it is an infusion, RATE 0 if not"),
    Rule("a rate is known", "RATE", lambda f: _dose(f) & f["RATE"].lt(0),
         "RATE is {RATE}; modeled rates (-1) and durations (-2) are not supported yet: give RATE > 0 "
         "for an infusion, 0 for a bolus"),
    Rule("steady state is not supported", "SS", lambda f: f["SS"].ne(0),
         "SS is {SS}; steady-state doses are not supported yet: write the doses out, with ADDL and II"),
    Rule("a number of further doses is not negative", "ADDL", lambda f: f["ADDL"].lt(0),
         "ADDL is {ADDL}; give the number of further doses, or 0"),
    Rule("further doses have an interval", "II", lambda f: f["ADDL"].gt(0) & f["II"].le(0),
         "ADDL is {ADDL} but II is {II}; give the interval between doses"),
    Rule("only a dose is repeated", "ADDL", lambda f: ~_dose(f) & f["ADDL"].gt(0),
         "ADDL is {ADDL} on EVID {EVID}; only a dose has further doses"),
    Rule("a compartment is not negative", "CMT", lambda f: f["CMT"].lt(0),
         "CMT is {CMT}; turning a compartment off is not supported yet"),
    Rule("MDV is 0 or 1", "MDV", lambda f: ~f["MDV"].isin([0, 1]),
         "MDV is {MDV}; use 0 (DV counts) or 1 (it does not)"),
    Rule("only an observation has a level", "MDV", lambda f: f["EVID"].ne(0) & f["MDV"].eq(0),
         "MDV is 0 on EVID {EVID}; set MDV 1, and put a level on a row of its own with EVID 0"),
    Rule("an observation has a level", "DV",
         lambda f: f["EVID"].eq(0) & f["MDV"].eq(0) & f["DV"].isna() & f["BLQ"].eq(0),
         "DV is missing on an observation; set MDV 1, or give LLOQ and BLQ 1"),
    Rule("BLQ is 0 or 1", "BLQ", lambda f: ~f["BLQ"].isin([0, 1]),
         "BLQ is {BLQ}; use 1 for a level below the limit of quantification, 0 if not"),
    Rule("a level below the limit has a limit", "LLOQ",
         lambda f: f["BLQ"].eq(1) & ~f["LLOQ"].gt(0),
         "LLOQ is {LLOQ} where BLQ is 1; give the limit of quantification"),
)


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
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1)
             if line.strip() and not line.startswith("#")]
    if not lines:
        raise DataError(where, [Problem("", "it is empty; it needs a header and records")])
    separator = next((s for s in ",;\t" if s in lines[0][1]), None)
    texts = [line for _, line in lines]
    cells = [_fields(line, separator) for line in texts]
    header = [name.strip() for name in cells[0]]
    ragged = [
        Problem("", f"it has {len(row)} fields where the header has {len(header)}" if row else
                "its quotes do not match; write each record on one line", row=n)
        for (n, _), row in zip(lines, cells, strict=True) if len(row) != len(header) or not row
    ]
    if ragged:
        raise DataError(where, ragged)
    stripped = [[cell.strip() for cell in row] for row in cells[1:]]
    return pd.DataFrame(stripped, columns=header, index=[n for n, _ in lines[1:]], dtype=str), content


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
    frame, broken = _numbers(original, names)
    if broken:
        raise DataError(where, broken)
    frame = _defaults(frame)
    missing = [
        Rule("covariates are complete", c, lambda f, c=c: f[c].isna(),
             f"{c} is missing; give a value on every row of the ID (popk never fills one in)")
        for c in covariates
    ]
    broken = problems(frame, [*RULES, *missing])
    if broken:
        raise DataError(where, broken)
    frame = frame[["ROW", *DEFAULTS, *covariates]].astype(dict.fromkeys(_INTEGER, int))
    return Records(frame, original, covariates, names)


def _names(
    original: pd.DataFrame, where: str, columns: Mapping[str, str], covariates: Sequence[str]
) -> dict[str, str]:
    """Return, for each column that is used, its name in the table."""
    have = [str(name) for name in original.columns]
    found: list[Problem] = []
    twice = sorted({n for n in have if have.count(n) > 1})
    found += [Problem(n, f"column {n} stands {have.count(n)} times; rename or drop one") for n in twice]
    found += [
        Problem(n, f"columns= names {n}, which is no standard column; use one of {', '.join(DEFAULTS)}")
        for n in columns if n not in DEFAULTS
    ]
    found += [Problem(n, f"column {n}: {FOREIGN[n.upper()]}") for n in have
              if n.upper() in FOREIGN and n not in columns.values()]
    names: dict[str, str] = {}
    for name in DEFAULTS:
        alike = [h for h in have if h == columns.get(name, name)]
        if not alike and name not in columns:  # lower-case headers are common
            alike = [h for h in have if h.upper() == name]
        if len(set(alike)) > 1:
            found.append(Problem(name, f"columns {', '.join(alike)} could both be {name}; name one with "
                                       f"columns={{'{name}': ...}}"))
        if alike:
            names[name] = alike[0]
        elif name in REQUIRED or name in columns:
            wanted = columns.get(name, name)
            found.append(Problem(name, f"column {wanted} is missing; the header has {', '.join(have)}; "
                                       f"name it with columns={{'{name}': ...}}"))
    for name in covariates:
        if name in DEFAULTS:
            found.append(Problem(name, f"{name} cannot be a covariate: it is a standard column"))
        elif name not in have:
            found.append(Problem(name, f"covariate {name} is no column; the header has {', '.join(have)}"))
        names[name] = name
    if found:
        raise DataError(where, found)
    return names


def _numbers(original: pd.DataFrame, names: Mapping[str, str]) -> tuple[pd.DataFrame, list[Problem]]:
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
    return (value, "") if np.isfinite(value) else (np.nan, "not finite; write . where it is missing")


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
    return frame
