"""When is the next dose due? `time_until_below`: when a concentration falls below a limit for good."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from popk.advice.targets import crossing
from popk.patients.courses import path
from popk.patients.regimen import Regimen, replaced, written_out
from popk.patients.twin import Twin

_COARSE, _FINE = 65, 600
_DOUBLINGS = 16


def time_until_below(
    twin: Twin,
    limit: float,
    *,
    regimen: Regimen | Sequence[Regimen] | None = None,
    after: float | None = None,
    output: str | None = None,
) -> xr.DataArray:
    """Return when each draw's concentration falls below a limit for good, once no more is given.

    ``time_until_below(twin, 5).quantile(0.1)`` is the time by which one in ten patients like this one
    has fallen below 5. Between 600 points the concentration is taken to fall exponentially. A clinician
    decides when the next dose is given.

    Parameters
    ----------
    twin : Twin
    limit : float
        [unit of DV]
    regimen : Regimen, or sequence of Regimen, optional
        Doses in the place of those to come.
    after : float, optional
        From when on time is counted [unit of TIME]; the last dose by default.
    output : str, optional

    Returns
    -------
    DataArray
        Time since `after` (sample) [unit of TIME]; 0 of draws that are below from then on.

    Raises
    ------
    ValueError
        The limit is not positive, there is no dose, or some draws do not fall below it.
    """
    if not (limit > 0 and np.isfinite(limit)):
        raise ValueError(f"limit is {limit}; it must be positive")
    patient = twin.patient if regimen is None else replaced(twin.patient, regimen)
    frame = written_out(patient.host.frame)
    doses = frame["TIME"][frame["EVID"].isin([1, 4])]
    if after is None and not len(doses):
        raise ValueError(f"ID {twin.id} has no dose; give after=, or a regimen")
    begin = float(doses.iloc[-1]) if after is None else float(after)
    last = max(float(doses.iloc[-1]) if len(doses) else begin, begin)
    span, settled = (last - begin) + 1.0, False
    for _ in range(_DOUBLINGS):
        times = begin + span * np.linspace(0.0, 1.0, _COARSE)
        value = path(twin, patient, times, output)
        above, before = value >= limit, settled
        settled = bool(last <= times[-1] and _past_its_peak(value, limit).all())
        if settled and before:  # of the half as long a span too
            break
        span *= 2
    else:
        raise ValueError(
            f"{output or 'the concentration'} of ID {twin.id} is not known to stay below {limit:g} after "
            f"{span / 2:g} {patient.units['TIME']}: there is no dose, or the limit is too low"
        )
    late = np.flatnonzero(above.any(0))
    end = begin + span if not len(late) else times[min(late[-1] + 1, _COARSE - 1)]
    times = np.linspace(begin, end, _FINE)
    value = path(twin, patient, times, output)
    found = _last_above(times, value, limit) - begin
    return xr.DataArray(
        found, dims="sample", name="time",
        attrs={"units": patient.units["TIME"], "ID": twin.id, "after": begin},
    )  # fmt: skip


def _past_its_peak(value: np.ndarray, limit: float) -> np.ndarray:
    """Return whether each draw [sample, time] has had its peak and fallen below a limit."""
    peak = value.max(1)
    return (value[:, -1] < limit) & (peak > 0) & (value[:, -1] < peak)


def _last_above(times: np.ndarray, value: np.ndarray, limit: float) -> np.ndarray:
    """Return when each draw [sample, time] falls below a limit for the last time."""
    above = value >= limit
    count = value.shape[1]
    last = np.where(above.any(1), count - 1 - above[:, ::-1].argmax(1), -1)
    rows, i = np.arange(len(value)), np.clip(last, 0, count - 2)
    part = crossing(value[rows, i][:, None], value[rows, i + 1][:, None], limit)[:, 0]
    fell = times[i] + part * (times[i + 1] - times[i])
    return np.where(last < 0, times[0], np.where(last == count - 1, times[-1], fell))
