"""Small trials written as tables, for tests that need a particular sequence of records."""

from io import StringIO

import pandas as pd

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}


def table(text: str) -> pd.DataFrame:
    """Return the DataFrame of a table whose columns are separated by white space."""
    return pd.read_csv(StringIO(text), sep=r"\s+", dtype=str)


def trial(text: str, **covariates: str) -> popk.Trial:
    """Return the trial of a table; covariates are given with their units."""
    return popk.read_nonmem(
        table(text), covariates=tuple(covariates), units={**UNITS, **covariates}
    )
