"""Where a trial came from: its table, IDs and units, and how they are shown."""

from html import escape
from typing import Any, NamedTuple

import pandas as pd

from popk.records.nonmem import DEFAULTS


class Source(NamedTuple):
    """Where a trial came from; stays on the host.

    Attributes
    ----------
    frame : DataFrame
        The checked records, one row each, in file order.
    ids : tuple of str
        The subjects, in file order.
    units : dict of str to str
        The unit of TIME, AMT, DV and each covariate.
    covariates : tuple of str
    levels : dict
        What the codes of categorical covariates mean.
    name, fingerprint : str
        The file and its SHA-256 ("DataFrame" and the hash of its CSV for a table in memory).
    """

    frame: Any  # pandas types a column as a union of everything a frame may hold
    ids: tuple[str, ...]
    units: dict[str, str]
    covariates: tuple[str, ...]
    levels: dict[str, dict[str, str]]
    name: str
    fingerprint: str
    missing: tuple[str, ...] = ()

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def table(self) -> pd.DataFrame:
        """Return the records, with units, covariates and codes in ``attrs``."""
        frame = self.frame.drop(columns="ROW")
        frame.attrs = {
            "units": dict(self.units),
            "covariates": list(self.covariates),
            "levels": self.levels,
            "name": self.name,
            "missing": list(self.missing),
        }
        return frame

    def summary(self) -> pd.Series:
        """Return the counts that describe the trial."""
        f = self.frame
        observed = f["EVID"].eq(0) & f["MDV"].eq(0)
        per_subject = observed.groupby(f["ID"], sort=False).sum()
        return pd.Series(
            {
                "subjects": len(self.ids),
                "records": len(f),
                "doses": int((f["EVID"].isin([1, 4]) * (f["ADDL"] + 1)).sum()),
                "levels": int(observed.sum()),
                "levels a subject": f"{per_subject.min()} to {per_subject.max()}",
                "below the limit of quantification": int((observed & f["BLQ"].eq(1)).sum()),
                **_above(int((observed & f["ALQ"].eq(1)).sum())),
                "time": f"{f['TIME'].min():g} to {f['TIME'].max():g} {self.units['TIME']}",
            }
        )

    def html(self) -> str:
        """Return the counts and first records for a notebook."""
        counts = "".join(
            f"<tr><th style='text-align:left'>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>"
            for k, v in self.summary().items()
        )
        shown = self.table().head(5)
        # Columns that say nothing here (no rate, no further doses) are left out of the picture.
        silent = [c for c in shown if c in DEFAULTS and not (self.frame[c].fillna(0) != 0).any()]
        shown = shown.drop(columns=silent).rename(
            columns={name: f"{name} [{unit}]" for name, unit in self.units.items()}
        )
        return (
            f"<b>Trial</b> {escape(self.name)}<table>{counts}</table>"
            f"{shown.to_html(index=False, border=0)}"
        )


def _above(count: int) -> dict[str, int]:
    """Return the count of levels above the upper limit, where there are any: few trials have them."""
    return {"above the upper limit of quantification": count} if count else {}
