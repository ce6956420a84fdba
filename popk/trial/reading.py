"""The functions that read a trial: `read_nonmem` and its kin."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from popk import units as unit_rules
from popk.records.nonmem import Records, check_records, read_rows
from popk.records.provenance import Provenance, read_provenance, sha256
from popk.records.table import DataError, Problem
from popk.trial.arrays import Trial, trial_of
from popk.trial.source import Source


def read_nonmem(
    source: str | Path | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
    missing: Sequence[str] | None = None,
) -> Trial:
    """Return the trial in a NONMEM-layout file or DataFrame.

    Parameters
    ----------
    source : path or DataFrame
        A text table with a header, separated by commas, semicolons, tabs or white space, or a
        DataFrame (whose index names its rows in errors).
    columns : mapping, optional
        For a standard column, its name in the table: ``{"DV": "CONC"}``.
    covariates : sequence of str, optional
        The covariate columns; by default those of the provenance file.
    units : mapping, optional
        The unit of TIME, AMT, DV and every covariate (``"1"`` for a code or a fraction); by default
        those of the provenance file, ``NAME.toml`` beside ``NAME.csv``.
    missing : sequence of str, optional
        The covariates that some subjects may lack: a model must then say what it believes of them, see
        `covariate_model`. By default a missing value is refused.

    Raises
    ------
    DataError
        Anything in the table is wrong or unsupported; all problems are listed together.

    Examples
    --------
    >>> import popk
    >>> trial = popk.read_nonmem("data/theophylline.csv")
    >>> trial.n_subjects
    12
    """
    if isinstance(source, pd.DataFrame):
        original, where = source, source.attrs.get("name", "DataFrame")
        fingerprint = sha256(source.to_csv(index=False).encode())
        known = Provenance(
            source.attrs.get("units", {}),
            tuple(source.attrs.get("covariates", ())),
            source.attrs.get("levels", {}),
            {},
        )
        if missing is None:
            missing = source.attrs.get("missing", ())
    else:
        path = Path(source)
        where = str(source)
        original, content = read_rows(path)
        known, fingerprint = read_provenance(path, content), sha256(content)
    missing = tuple(missing or ())
    records = check_records(original, where, columns, covariates, known, missing=missing)
    described = {n: known.units[own] for n, own in records.names.items() if own in known.units}
    used = _units(records, where, {**known.units, **described, **(units or {})})
    ids = tuple(dict.fromkeys(records.frame["ID"]))
    return trial_of(
        Source(
            records.frame, ids, used, records.covariates, known.levels, where, fingerprint, missing
        )
    )


def _units(records: Records, where: str, units: Mapping[str, str]) -> dict[str, str]:
    """Return the units of TIME, AMT, DV and the covariates, each checked."""
    names = ["TIME", "AMT", "DV", *records.covariates]
    found = [
        Problem(
            n,
            f"{n} has no unit; give units={{'{n}': ...}} or describe it in the .toml beside the file",
        )
        for n in names
        if n not in units
    ]
    for name in [n for n in names if n in units]:
        try:
            unit_rules.parse(units[name])
        except unit_rules.UnitError as error:
            found.append(Problem(name, f"{name}: {error}"))
    if found:
        raise DataError(where, found)
    return {name: units[name] for name in names}
