"""What is known of a data file: the TOML that stands beside it, with units, columns and source."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from popk.records.table import DataError, Problem


class Provenance(NamedTuple):
    """What stands beside a data file.

    Attributes
    ----------
    units : dict of str to str
        The unit of each column that has one.
    covariates : tuple of str
        The columns that are covariates, in file order.
    levels : dict of str to dict
        For categorical covariates, what each code means.
    text : dict
        The whole file, as read.
    """

    units: dict[str, str]
    covariates: tuple[str, ...]
    levels: dict[str, dict[str, str]]
    text: dict[str, Any]


NOTHING = Provenance({}, (), {}, {})


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_provenance(path: Path, content: bytes) -> Provenance:
    """Return what ``NAME.toml`` says of ``NAME.csv``; empty where there is no such file.

    Raises
    ------
    DataError
        The TOML cannot be read, or its `sha256` is not that of the data.
    """
    beside = path.with_suffix(".toml")
    if not beside.is_file():
        return NOTHING
    try:
        text = tomllib.loads(beside.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(str(beside), [Problem("", f"it is not valid TOML: {error}")]) from error
    recorded, actual = text.get("sha256"), sha256(content)
    if recorded is not None and recorded != actual:
        says = (
            f"its sha256 {recorded[:12]}... is not that of {path.name} ({actual[:12]}...): the data "
            f"changed after they were described; check the change, then write the new sha256"
        )
        raise DataError(str(beside), [Problem("", says)])
    columns: dict[str, dict[str, Any]] = text.get("columns", {})
    return Provenance(
        units={name: column["unit"] for name, column in columns.items() if "unit" in column},
        covariates=tuple(n for n, column in columns.items() if column.get("role") == "covariate"),
        levels={n: column["levels"] for n, column in columns.items() if "levels" in column},
        text=text,
    )
