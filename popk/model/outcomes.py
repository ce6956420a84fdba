"""What is observed that is no level? The outcomes of endpoints, and whether records may be such."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from popk.records.table import DataError, Rule, problems
from popk.trial import Trial


class Outcomes(NamedTuple):
    """What a site of levels holds that are none, but outcomes of an endpoint.

    Attributes
    ----------
    name : str
        "counts", "binary", "categories" or "events".
    rules : tuple of Rule
        What their records must keep.
    signed : bool
        Whether predictions may be negative.
    kinds : tuple of (int, int)
        Their CMT and DVID.
    """

    name: str
    rules: tuple[Rule, ...]
    signed: bool
    kinds: tuple[tuple[int, int], ...]


def of_kinds(trial: Trial, kinds: Iterable[Sequence[int]]) -> Any:
    """Return which observations are of some kinds (CMT, DVID) [observation]."""
    o = trial.observations
    found = np.zeros(np.shape(o.value), dtype=bool)
    for cmt, dvid in kinds:
        found |= (np.asarray(o.compartment) == cmt) & (np.asarray(o.kind) == dvid)
    return found


def check_outcomes(trial: Trial, endpoints: Mapping[str, Outcomes]) -> None:
    """Refuse records that are no outcomes of the endpoints they are observed as.

    Raises
    ------
    DataError
        A record breaks a rule of its endpoint; all of them are listed.
    """
    frame, found = trial.host.frame, []
    counts = frame["EVID"].eq(0) & frame["MDV"].eq(0)
    for endpoint in endpoints.values():
        alike = [
            frame["CMT"].abs().eq(cmt) & frame["DVID"].eq(dvid) for cmt, dvid in endpoint.kinds
        ]
        own = counts & np.any(alike, axis=0) if alike else counts & False
        found += problems(frame.assign(OWN=own), endpoint.rules)
    if found:
        raise DataError(trial.host.name, found)
