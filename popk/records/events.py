"""What the records make happen: one sorted list of events a subject, further doses written out.

Every record is one event: in this order it may reset the amounts, put them at a steady state, give
its dose, be predicted, and turn a compartment off. Further doses (ADDL) and the ends of infusions
are events of their own. Events of the same time stand as their records do in the file; further doses, ends
of infusions and lagged doses stand before every record of their time.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

RECORD, DOSE, STOP, PADDING = range(4)
NONE, RESET, REPLACED = range(3)  # what a record does to the amounts before its dose
EARLY = -1.0  # the position before every record of the same time
MODELED_RATE, MODELED_DURATION = -1.0, -2.0  # what RATE says where the model gives R or D


class EventTable(NamedTuple):
    """Events of all subjects, sorted within each; every field has shape [subject, event].

    Attributes
    ----------
    kind : int
        RECORD, DOSE (a further one), STOP (the end of an infusion) or PADDING.
    time : float
        When it happens if nothing is delayed and the model gives no duration, on a clock that never
        goes back [time].
    position : float
        Its place among events of the same time.
    record : int
        The record that brought it.
    gives : bool
        Whether it gives the dose of its record.
    wipes : int
        NONE, RESET (EVID 3 and 4: to the initial amounts) or REPLACED (SS 1: by the steady state).
    steady : int
        SS of the dose; 0 on further doses.
    amount, rate, interval : float
        AMT, RATE and II of the dose or of the infusion that stops; 0 elsewhere.
    compartment : int
        The dose's CMT; 0 is the model's own.
    turns : int
        The compartment that is turned off (negative) or on (positive); 0 for none.
    epoch : int
        How many records up to its own wipe the amounts: a dose that comes to act after a
        later one is cancelled.
    """

    kind: Any
    time: Any
    position: Any
    record: Any
    gives: Any
    wipes: Any
    steady: Any
    amount: Any
    rate: Any
    interval: Any
    compartment: Any
    turns: Any
    epoch: Any


#: What an event that does nothing holds. Its time is the subject's last one: see `padded_events`.
BLANK = EventTable(PADDING, 0.0, np.inf, 0, False, NONE, 0, 0.0, 0.0, 0.0, 0, 0, 0)


def clock(frame: pd.DataFrame) -> np.ndarray:
    """Return times that never go back within an ID: an occasion that restarts follows the last one."""
    time = frame["TIME"].to_numpy()
    back = time - frame.groupby("ID", sort=False)["TIME"].shift().fillna(-np.inf).to_numpy()
    restart = np.where(back < 0, -back, 0.0)
    return time + pd.Series(restart).groupby(frame["ID"].to_numpy(), sort=False).cumsum().to_numpy()


def event_table(frame: pd.DataFrame, subject: np.ndarray, record: np.ndarray) -> EventTable:
    """Return the events of checked records.

    Parameters
    ----------
    frame : DataFrame
        Checked records, see `check_records`.
    subject, record : Int[ndarray, "row"]
        Each row's subject and its place among that subject's records.
    """
    names = ("EVID", "AMT", "RATE", "II", "ADDL", "CMT", "SS")
    f = {name: frame[name].to_numpy() for name in names}
    time = clock(frame)
    dosed, steady = np.isin(f["EVID"], [1, 4]), f["SS"]
    wipes = np.where(np.isin(f["EVID"], [3, 4]), RESET, np.where(steady == 1, REPLACED, NONE))
    epoch = pd.Series((wipes != NONE).astype(int)).groupby(subject).cumsum().to_numpy()

    rows, nth = _written_out(dosed, f["ADDL"])
    dose_time = time[rows] + nth * f["II"][rows]
    # Doses after the last record, or after amounts are wiped, never act, whatever their lag.
    until = _next_wipe(time, wipes != NONE, subject)
    last = pd.Series(time).groupby(subject).transform("max").to_numpy()
    acts = (nth == 0) | (dose_time <= np.minimum(last, until)[rows])
    rows, nth, dose_time = rows[acts], nth[acts], dose_time[acts]
    stops = (f["RATE"][rows] != 0) & (f["AMT"][rows] > 0)  # a constant infusion has no end
    stop_rows, rate = rows[stops], f["RATE"][rows[stops]]
    known = np.where(rate > 0, f["AMT"][stop_rows] / np.where(rate > 0, rate, 1), 0)
    further, every = nth > 0, np.arange(len(time))
    parts = [
        (RECORD, every, time, record.astype(float)),
        (DOSE, rows[further], dose_time[further], np.full(further.sum(), EARLY)),
        (STOP, stop_rows, dose_time[stops] + known, np.full(len(stop_rows), EARLY)),
    ]
    kind = np.repeat([p[0] for p in parts], [len(p[1]) for p in parts])
    row, when, position = (np.concatenate([p[i] for p in parts]) for i in (1, 2, 3))
    order = np.lexsort((position, when, subject[row]))
    row = row[order]
    happens = {"time": when[order], "position": position[order], "record": record[row]}
    brought = _brought(f, row, kind[order], wipes)
    return _rectangle(subject[row], EventTable(**happens, **brought, epoch=epoch[row]))


def _brought(
    f: dict[str, np.ndarray], row: np.ndarray, kind: np.ndarray, wipes: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what each event brings, from the row that brought it."""
    own, doses = kind == RECORD, np.isin(f["EVID"], [1, 4])[row]
    switches = own & np.isin(f["EVID"][row], [0, 2]) & ((f["CMT"][row] < 0) | (f["EVID"][row] == 2))
    return {
        "kind": kind,
        "gives": doses & (kind != STOP),
        "wipes": np.where(own, wipes[row], NONE),
        "steady": np.where(own & doses, f["SS"][row], 0),
        "amount": np.where(doses, f["AMT"][row], 0.0),
        "rate": np.where(doses, f["RATE"][row], 0.0),
        "interval": np.where(doses, f["II"][row], 0.0),
        "compartment": np.where(doses, f["CMT"][row], 0),
        "turns": np.where(switches, f["CMT"][row], 0),
    }


def padded_events(events: EventTable, size: int) -> EventTable:
    """Return the events with the event axis filled up to `size`, at each subject's last time."""
    missing = [(0, 0)] * (events.time.ndim - 1) + [(0, size - events.time.shape[-1])]
    return EventTable(
        *(
            np.pad(x, missing, mode="edge")
            if name == "time"
            else np.pad(x, missing, constant_values=np.asarray(blank, dtype=x.dtype))
            for name, x, blank in zip(EventTable._fields, events, BLANK, strict=True)
        )
    )


def _written_out(dosed: np.ndarray, addl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of every dose, further ones included, and which of its row's doses it is."""
    rows = np.repeat(np.arange(len(dosed)), np.where(dosed, addl.astype(int) + 1, 0))
    return rows, pd.Series(rows).groupby(rows).cumcount().to_numpy()


def _next_wipe(time: np.ndarray, wipes: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Return when the next record after each row wipes the amounts; never: infinity."""
    at = pd.Series(np.where(wipes, time, np.nan))
    following = at.groupby(subject).shift(-1)
    return following.groupby(subject).bfill().fillna(np.inf).to_numpy()


def _rectangle(subject: np.ndarray, flat: EventTable) -> EventTable:
    """Return events of one row each as [subject, event], padded at the end of each subject."""
    place = pd.Series(subject).groupby(subject).cumcount().to_numpy()
    shape = (int(subject.max()) + 1, int(place.max()) + 1)
    columns = {}
    for name, values, blank in zip(EventTable._fields, flat, BLANK, strict=True):
        columns[name] = np.full(shape, np.asarray(blank, dtype=values.dtype))
        columns[name][subject, place] = values
    # Padding stands still at the subject's last event: an infinite time would make NaN gradients.
    columns["time"] = np.maximum.accumulate(
        np.where(columns["kind"] == PADDING, -np.inf, columns["time"]), axis=1
    )
    return EventTable(**columns)
