"""Which observations belong together? Strata of a trial, by a covariate or a column of its records."""

import numpy as np

from popk.trial import Trial

#: More strata than this cannot be told apart in one figure.
MOST = 8
_COLUMNS = ("DVID", "CMT")


def strata_of(trial: Trial, column: str, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return which of some observations are of each stratum, by its name, in the order of its values.

    Parameters
    ----------
    trial : Trial
    column : str
        A covariate, or DVID or CMT.
    chosen : Bool[ndarray, "observation"]
        The observations to divide.

    Raises
    ------
    ValueError
        There is no such column, a value is missing, or it has more than 8 values.
    """
    known = (*trial.host.covariates, *_COLUMNS)
    if column not in known:
        raise ValueError(f"stratify is {column!r}; give one of {', '.join(known)}")
    frame = trial.host.frame
    values = frame[frame["EVID"].eq(0)][column].to_numpy(dtype=float)[chosen]
    if column == "CMT":
        values = np.abs(values)
    if np.isnan(values).any():
        raise ValueError(f"stratify is {column!r}, which some levels lack; give another column")
    found = np.unique(values)
    if len(found) > MOST:
        raise ValueError(
            f"stratify is {column!r}, which has {len(found)} values; give a column of at most {MOST}, such "
            f"as the covariate in classes"
        )
    unit = trial.units.get(column, "1")
    unit = "" if unit in ("1", "") else f" {unit}"
    return {f"{column} {value:g}{unit}": values == value for value in found}
