"""What will be seen? Draws of concentrations and levels at some times, of each kind that a model has."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from popk.model.sites import ModelError
from popk.patients.regimen import asking, joined
from popk.trial import Trial


def kinds_of(asked: Mapping[str, str], patient: Trial) -> dict[str, tuple[int, int]]:
    """Return CMT and DVID of each kind of levels that a model observes, by the suffix of its sites.

    Parameters
    ----------
    asked : mapping of site to str
        What each site of levels asks for.
    patient : Trial
    """
    found = {}
    for name in asked:
        said = dict(re.findall(r"(DVID|CMT) (\d+)", asked[name]))
        cmt, dvid = int(said.get("CMT", 0)), int(said.get("DVID", 0))
        if not said and patient.design.observed and len(asked) == 1:
            dvid = patient.design.observed[0][1]
        found[name.removeprefix("DV")] = cmt, dvid
    return found


def forecast(
    patient: Trial,
    times: np.ndarray,
    kinds: Mapping[str, tuple[int, int]],
    values: Callable[[Trial], Mapping[str, np.ndarray]],
) -> xr.Dataset:
    """Return draws of concentrations and levels at some times.

    Parameters
    ----------
    patient : Trial
        Doses that are known or planned.
    times : Float[ndarray, "time"]
    kinds : mapping of suffix to (CMT, DVID)
    values : Callable
        Of a trial: the values of all sites, draws first.
    """
    rows = asking(times, list(kinds.values()))
    future = patient.replaced(joined(patient.host.frame, rows, patient, [False] * len(rows)))
    found, labels = values(future), future.host.frame["ROW"].astype(str).to_numpy()
    place = {label: i for i, label in enumerate(labels) if label.startswith("forecast ")}
    level = np.cumsum(future.host.frame["EVID"].eq(0).to_numpy()) - 1
    unit, data = {"units": patient.units["DV"]}, {}
    for k, suffix in enumerate(kinds):
        at = [place[f"forecast {i} {k}"] for i in range(len(times))]
        data[f"IPRED{suffix}"] = ("sample", "time"), found[f"IPRED{suffix}"][:, 0, at], unit
        data[f"DV{suffix}"] = ("sample", "time"), found["DV"][:, level[at]], unit
    clock = ("time", times, {"units": patient.units["TIME"]})
    return xr.Dataset(data, coords={"time": clock})


def output_of(sites: Mapping[str, Any], output: str | None) -> str:
    """Return the site of one kind of concentrations.

    Raises
    ------
    ModelError
        The model has no such output.
    """
    name = f"IPRED_{output}" if output else "IPRED"
    if name in sites:
        return name
    known = [n.removeprefix("IPRED_") for n in sites if n.startswith("IPRED_")]
    raise ModelError(f"the model has no such output; give output= one of {', '.join(known)}")
