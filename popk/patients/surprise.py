"""How surprising is a level? Its place among those that were expected."""

import numpy as np

from popk.trial import Trial


def newest_level(patient: Trial) -> int | None:
    """Return the last record that is a level; None where there is none."""
    frame = patient.host.frame
    levels = np.flatnonzero(frame["EVID"].eq(0) & frame["MDV"].eq(0))
    return int(levels[-1]) if len(levels) else None


def without_level(patient: Trial, record: int) -> Trial:
    """Return a patient's records, one of whose levels was not measured."""
    frame = patient.host.frame.copy()
    frame.loc[record, ["DV", "MDV", "BLQ", "ALQ"]] = [np.nan, 1, 0, 0]
    return patient.replaced(frame.astype(patient.host.frame.dtypes))


def surprise_of(patient: Trial, record: int, drawn: np.ndarray) -> float:
    """Return the two-sided p-value of a level among draws of all levels [sample, observation]."""
    frame = patient.host.frame
    level = frame.iloc[record]
    own = drawn[:, int(frame["EVID"].eq(0).to_numpy()[:record].sum())]
    if level["BLQ"] == 1:
        return float(np.mean(own < level["LLOQ"]))
    if level["ALQ"] == 1:
        return float(np.mean(own > level["ULOQ"]))
    tails = np.mean(own <= level["DV"]), np.mean(own >= level["DV"])
    return float(min(1.0, 2 * min(tails)))
