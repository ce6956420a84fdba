"""What are the axes of results called? Sites as Datasets, with their coordinates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from popk.model.sites import Sites
from popk.trial import Trial


def observation_coords(trial: Trial, chosen: Any) -> dict[str, Any]:
    """Return the coordinates of the `observation` axis: ID, TIME, and the row of the file."""
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0)][np.asarray(chosen)]
    return {
        "observation": np.arange(len(rows)),
        "ID": ("observation", rows["ID"].to_numpy(dtype=str)),
        "TIME": ("observation", rows["TIME"].to_numpy()),
        "row": ("observation", [str(row) for row in rows["ROW"]]),
        **_kind_coords(rows),
    }


def _kind_coords(rows: Any) -> dict[str, Any]:
    """Return what tells levels of several kinds apart."""
    return {
        name: ("observation", rows[name].abs().to_numpy())
        for name in ("CMT", "DVID")
        if rows[name].nunique() > 1
    }


def labelled(
    values: Mapping[str, Any], sites: Sites, trial: Trial, leading: tuple[str, ...], chosen: Any
) -> xr.Dataset:
    """Return sites as a Dataset with named axes.

    Parameters
    ----------
    values : mapping of str to array
        Of shape (*leading, *site shape).
    leading : tuple of str
        The axes before the site's own.
    chosen : Bool[ndarray, "observation"]
        The observations to keep.
    """
    data = {}
    for name, value in values.items():
        array = np.asarray(value)
        dims = ("observation",) if name in ("DV", "IPRED") else sites.all[name].dims
        if dims[-1:] == ("observation",):
            array = array[..., chosen]
        kept = [array.shape[i] for i in range(len(leading))]
        own = array.shape[len(leading) :]
        if len(own) > len(dims):  # the axis of size 1 within subjects
            own = (own[0], *own[2:]) if own[1] == 1 else own
        data[name] = ((*leading, *dims), array.reshape(*kept, *own))
    coords = {}
    used = {d for dims, _ in data.values() for d in dims}
    if "observation" in used:
        coords |= observation_coords(trial, chosen)
    if "subject" in used:
        coords["subject"] = list(trial.ids)
    coords |= {axis: list(sites.parameters) for axis in ("parameter", "parameter2") if axis in used}
    if "class" in used:
        coords["class"] = list(sites.classes)
    coords |= {column: list(levels) for column, levels in sites.levels.items() if column in used}
    own = {name.replace("kappa", "iov", 1): list(which) for name, which in sites.iov.items()}
    coords |= {axis: which for axis, which in own.items() if axis in used}
    return xr.Dataset(data, coords=coords)
