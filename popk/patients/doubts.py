"""Is this patient one that the model can speak of? What a twin should not be believed without a look."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk.trial import Trial


class TwinWarning(UserWarning):
    """A twin that is unreliable: its weights, or what it was told of the patient."""


def applicability(posterior: xr.DataTree, patient: Trial) -> pd.DataFrame:
    """Return a patient's covariates beside the range of those that the population was fitted to.

    Parameters
    ----------
    posterior : DataTree
    patient : Trial

    Returns
    -------
    DataFrame
        A row for each covariate: the patient's ``lowest`` and ``highest`` value, those of the fit,
        ``fitted_lowest`` and ``fitted_highest``, and whether the patient's lie ``within``.
    """
    known = posterior["constant_data"].dataset if "constant_data" in posterior.children else {}
    rows = {}
    for name in patient.host.covariates:
        own = patient.host.frame[name].to_numpy(dtype=float)
        own = own[np.isfinite(own)]
        if name not in known or not own.size:
            continue
        values = known[name].values[np.isfinite(known[name].values)]
        if not values.size:
            continue
        low = float(known[name].attrs.get("lowest", values.min()))
        high = float(known[name].attrs.get("highest", values.max()))
        coded = name in patient.host.levels  # a code between two others may be none of them
        within = np.isin(own, values).all() if coded else (own >= low).all() & (own <= high).all()
        rows[name] = {
            "lowest": own.min(), "highest": own.max(), "fitted_lowest": low,
            "fitted_highest": high, "within": bool(within),
        }  # fmt: skip
    columns = ["lowest", "highest", "fitted_lowest", "fitted_highest", "within"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def outside(posterior: xr.DataTree, patient: Trial) -> list[str]:
    """Return a sentence for each covariate that lies outside the fitted range."""
    table: Any = applicability(posterior, patient)
    return [
        f"{name} of ID {patient.ids[0]} is {_span(row['lowest'], row['highest'])}, and was "
        f"{_span(row['fitted_lowest'], row['fitted_highest'])} in the trial that the model was fitted "
        f"to: what the model says of it is extrapolated"
        for name, row in table[~table["within"].astype(bool)].iterrows()
    ]


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def used_twice(posterior: xr.DataTree, patient: Trial) -> list[str]:
    """Return a sentence where levels of the patient are among those that the population was fitted to."""
    if "observed_data" not in posterior.children:
        return []
    seen = posterior["observed_data"].dataset
    if "DV" not in seen or "ID" not in seen.coords:
        return []
    o, frame = patient.observations, patient.host.frame
    exact = np.asarray(o.exact)
    times = frame["TIME"].to_numpy()[frame["EVID"].eq(0).to_numpy()]
    own = set(zip(_rounded(times[exact]), _rounded(o.value[exact]), strict=True))
    ids = seen["ID"].values.astype(str)
    for id in dict.fromkeys(ids):
        at = ids == id
        fitted = set(
            zip(_rounded(seen["TIME"].values[at]), _rounded(seen["DV"].values[at]), strict=True)
        )
        shared = len(own & fitted)
        # Of another ID one level may agree by chance, and so may levels of 0.
        if shared and (id == patient.ids[0] or (len(own) > 2 and shared == len(own))):
            return [
                f"{shared} levels of ID {patient.ids[0]} are those of ID {id} in the trial that the "
                f"population was fitted to: they count twice; fit without the patient, "
                f"trial.without('{id}')"
            ]
    return []


def _rounded(values: Any) -> list[str]:
    return [f"{x:.9g}" for x in np.asarray(values, dtype=float)]


def unexplained(patient: Trial, ipred: np.ndarray) -> list[str]:
    """Return a sentence for the first level above 0 where no draw predicts anything.

    Parameters
    ----------
    patient : Trial
    ipred : Float[ndarray, "sample record"]
    """
    rows = before_doses(patient)
    bad = rows[(ipred[:, rows] == 0).all(0)] if len(rows) else rows
    if not len(bad):
        return []
    frame = patient.host.frame
    row = frame.iloc[int(bad[0])]
    return [
        f"the level of {row['DV']:g} at TIME {row['TIME']:g} of ID {patient.ids[0]} stands before "
        f"every dose, and the model predicts 0 there: correct its TIME, or enter the earlier doses"
    ]


def before_doses(patient: Trial) -> np.ndarray:
    """Return the records that are levels above 0 before every dose."""
    frame = patient.host.frame
    dosed = frame["EVID"].isin([1, 4]).cummax()
    level = frame["EVID"].eq(0) & frame["MDV"].eq(0) & frame["BLQ"].eq(0) & frame["DV"].gt(0)
    return np.flatnonzero((level & ~dosed).to_numpy())
