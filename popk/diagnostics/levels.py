"""Which levels are compared? Those that were measured, beside simulated ones at the same records."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from popk.diagnostics.kinds import are_levels
from popk.model.sites import ModelError
from popk.trial import Trial

#: With fewer simulated trials an interval of their percentiles means nothing.
MIN_REPLICATES = 20


class Levels(NamedTuple):
    """What is compared: measured levels, and simulated ones at the same records.

    Attributes
    ----------
    chosen : Bool[ndarray, "all"]
        Which of all observations of the trial these are.
    time : Float[ndarray, "observation"]
    ids : ndarray of str
    observed : Float[ndarray, "observation"]
        NaN where the level is only known to lie below or above a limit of quantification.
    simulated : Float[ndarray, "sample observation"]
        As they are simulated, below and above the limits too.
    low, high : Float[ndarray, "observation"]
        The limits of quantification of each record, infinite where there is none.
    below, above : Bool[ndarray, "observation"]
        Whether a level is only known to lie below or above its limit.
    """

    chosen: np.ndarray
    time: np.ndarray
    ids: np.ndarray
    observed: np.ndarray
    simulated: np.ndarray
    low: np.ndarray
    high: np.ndarray
    below: np.ndarray
    above: np.ndarray


def compared(simulated: xr.DataTree, trial: Trial, least: int = MIN_REPLICATES) -> Levels:
    """Return the measured levels of a trial, and those of so many simulated trials of new subjects.

    Parameters
    ----------
    simulated : DataTree
        ``popk.predict(model, posterior, trial, new_subjects=True, seed=...)``.
    trial : Trial
        The trial that was simulated.
    least : int
        How many simulated trials there must be.

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, has too few draws or no levels, or
        a level is not finite, or one is known to lie in an interval only.
    """
    replicated(simulated, trial, least)
    return at_records(simulated, trial, np.asarray(trial.observations.measured)
                      & are_levels(simulated, trial))  # fmt: skip


def replicated(simulated: xr.DataTree, trial: Trial, least: int = MIN_REPLICATES) -> xr.Dataset:
    """Return what was simulated of new subjects at a trial's own records.

    Raises
    ------
    ModelError
        `simulated` is no simulation of new subjects of this trial, or has too few draws.
    """
    if "posterior_predictive" not in simulated.children:
        raise ModelError(
            "nothing is simulated; give what popk.predict(..., new_subjects=True) returns"
        )
    if not int(simulated.attrs.get("new_subjects", 1)):
        raise ModelError(
            "the same subjects were simulated, not new ones, which hides how much people differ; "
            "call popk.predict with new_subjects=True"
        )
    same_records(simulated, trial)
    replicates = simulated["posterior_predictive"].sizes["sample"]
    if replicates < least:
        raise ModelError(f"there are {replicates} simulated trials; predict at least draws={least}")
    return simulated["posterior_predictive"].dataset


def same_records(simulated: xr.DataTree, trial: Trial) -> None:
    """Raise ModelError unless predictions are of a trial's own records."""
    group = simulated["posterior_predictive"].dataset
    o = trial.observations
    subject, record = np.asarray(o.subject), np.asarray(o.record)
    same = group.sizes["observation"] == len(subject) and (
        np.array_equal(group["ID"].values.astype(str), np.asarray(trial.ids)[subject])
        and np.allclose(group["TIME"].values, np.asarray(trial.time)[subject, record])
    )
    if not same:
        raise ModelError(
            f"the predictions are of {group.sizes['observation']} records of "
            f"{simulated.attrs.get('trial', 'a trial')}, the trial {trial.host.name} has "
            f"{len(subject)} at other times or of other subjects; predict this trial"
        )


def at_records(simulated: xr.DataTree, trial: Trial, chosen: np.ndarray) -> Levels:
    """Return the levels of some observations; see `compared`."""
    o, group = trial.observations, simulated["posterior_predictive"].dataset
    _refuse_intervals(trial, chosen)
    drawn = group["DV"].transpose("sample", "observation").values[:, chosen]
    if not np.isfinite(drawn).all():
        failed = 100 * (1 - np.isfinite(drawn).all(axis=0).mean())
        raise ModelError(
            f"the model has no finite prediction of {failed:.3g}% of the levels in some "
            f"draw; look at these with popk.predict, and tighten vague priors"
        )
    below, above = np.asarray(o.below)[chosen], np.asarray(o.above)[chosen]
    return Levels(
        chosen=chosen,
        time=group["TIME"].values[chosen],
        ids=group["ID"].values[chosen].astype(str),
        observed=np.where(below | above, np.nan, np.asarray(o.value)[chosen]),
        simulated=drawn,
        low=limits_of(trial, "LLOQ", -np.inf)[chosen],
        high=limits_of(trial, "ULOQ", np.inf)[chosen],
        below=below,
        above=above & ~below,
    )


def _refuse_intervals(trial: Trial, chosen: np.ndarray) -> None:
    """Refuse levels known to lie in an interval that does not begin at 0: they have no percentile."""
    o = trial.observations
    inside = np.flatnonzero(chosen & o.below & o.above & (o.upper > 0))
    if inside.size:
        rows = trial.host.frame[trial.host.frame["EVID"].eq(0)].iloc[inside]
        raise ModelError(
            f"{len(rows)} levels are known to lie in an interval only, the first on row "
            f"{rows['ROW'].iloc[0]}; percentiles of them do not exist: set MDV 1 there for a VPC"
        )


def limits_of(trial: Trial, column: str, none: float) -> np.ndarray:
    """Return each observation's limit of quantification; `none` where there is no limit.

    A record without a limit of its own has the trial's most common one: where only levels below the
    limit carry it, the others were measured with the same assay.
    """
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0)]
    limit = rows[column].to_numpy()
    if column == "ULOQ":  # of an interval from 0 it is no upper limit
        limit = np.where(rows["BLQ"].eq(1), np.nan, limit)
    own, counts = np.unique(limit[~np.isnan(limit)], return_counts=True)
    common = own[counts.argmax()] if own.size else none
    return np.where(np.isnan(limit), common, limit)
