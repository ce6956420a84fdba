"""Which observations are levels, and which are outcomes of an endpoint? What a prediction says of it."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from popk.model.outcomes import of_kinds
from popk.model.sites import ModelError
from popk.trial import Trial


def endpoints_of(simulated: xr.DataTree) -> dict[str, dict[str, Any]]:
    """Return a prediction's endpoints by output: the name and the kinds (CMT, DVID) of each."""
    return json.loads(simulated.attrs.get("endpoints", "{}"))


def outcomes_of(simulated: xr.DataTree) -> list[tuple[int, int]]:
    """Return the kinds (CMT, DVID) of a prediction that are outcomes of an endpoint."""
    return [tuple(kind) for one in endpoints_of(simulated).values() for kind in one["kinds"]]


def are_levels(simulated: xr.DataTree, trial: Trial) -> np.ndarray:
    """Return which observations are levels, and not events, categories or counts [observation].

    Raises
    ------
    ModelError
        None is.
    """
    levels = ~of_kinds(trial, outcomes_of(simulated))
    if not levels.any() and outcomes_of(simulated):
        names = ", ".join(sorted({one["name"] for one in endpoints_of(simulated).values()}))
        raise ModelError(
            f"the trial has no levels, only outcomes ({names}), which this compares with nothing; "
            f"compare DV of popk.predict with them, and events with popk.kaplan_meier"
        )
    return levels


def in_group(group: xr.Dataset, kinds: Iterable[Sequence[int]]) -> np.ndarray:
    """Return which observations of a prediction's group are of some kinds (CMT, DVID)."""
    # A coordinate that is absent is the same on all observations.
    axes = [(i, n) for i, n in enumerate(("CMT", "DVID")) if n in group.coords]
    found = np.zeros(group.sizes["observation"], dtype=bool)
    for kind in kinds:
        found |= np.all(
            [np.ones_like(found), *(group[n].values == kind[i] for i, n in axes)], axis=0
        )
    return found
