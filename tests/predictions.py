"""Predictions written by hand, in the form that `popk.predict` returns them."""

import numpy as np
import xarray as xr

import popk
from popk.model.labels import observation_coords


def predictions_of(
    trial: popk.Trial,
    levels: np.ndarray,
    *,
    ipred: np.ndarray | None = None,
    pred: np.ndarray | None = None,
    new_subjects: bool = True,
) -> xr.DataTree:
    """Return simulated levels [sample, observation] of a trial; PRED and IPRED are 1 if not given."""
    ones, dims = np.ones_like(levels), ("sample", "observation")
    o = trial.observations
    values = {"DV": levels, "IPRED": ones if ipred is None else ipred,
              "PRED": ones if pred is None else pred}  # fmt: skip
    coords = observation_coords(trial, np.ones(len(o.value), dtype=bool))
    observed = np.where(np.asarray(o.measured & ~o.below), o.value, np.nan)
    tree = xr.DataTree.from_dict({
        "posterior_predictive": xr.Dataset({k: (dims, v) for k, v in values.items()}, coords),
        "observed_data": xr.Dataset({"DV": ("observation", observed)}, coords),
    })  # fmt: skip
    tree.attrs = {"trial": trial.host.name, "new_subjects": int(new_subjects)}
    return tree
