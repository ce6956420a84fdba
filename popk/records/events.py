"""What the records make happen: one sorted list of events a subject, further doses written out.

A record gives up to three kinds of event: a reset of the amounts, doses (with their further doses,
and the end of each if it is an infusion), and an output, the moment at which the record is predicted.
Ties in time are settled by a position: a reset stands before the record's own dose, the dose before
the record's output, and all of them where the record stands in the file. Further doses, ends of
infusions and lagged doses stand before every record of their time.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

OUTPUT, DOSE, STOP, RESET, PADDING = range(5)
EARLY = -1.0  # the position before every record of the same time


class EventTable(NamedTuple):
    """Events of all subjects, sorted within each; every field has shape [subject, event].

    Attributes
    ----------
    kind : int
        OUTPUT, DOSE, STOP (the end of an infusion), RESET or PADDING.
    time : float
        When it happens if nothing is delayed, on a clock that never goes back [time].
    position : float
        Its place among events of the same time.
    record : int
        The record that brought it.
    amount, rate : float
        Of a dose or of the infusion that stops; 0 elsewhere [amount], [amount/time].
    compartment : int
        The dose's CMT; 0 is the model's own.
    epoch : int
        How many resets stand up to its record in the file: a dose that comes to act
        after a later reset is cancelled.
    """

    kind: np.ndarray
    time: np.ndarray
    position: np.ndarray
    record: np.ndarray
    amount: np.ndarray
    rate: np.ndarray
    compartment: np.ndarray
    epoch: np.ndarray


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
    f = {name: frame[name].to_numpy() for name in ("EVID", "AMT", "RATE", "II", "ADDL", "CMT")}
    time = clock(frame)
    resets = np.isin(f["EVID"], [3, 4])
    epoch = pd.Series(resets.astype(int)).groupby(subject).cumsum().to_numpy()
    until = _next_reset(time, resets, subject)
    last = pd.Series(time).groupby(subject).transform("max").to_numpy()

    rows, nth = _written_out(f["EVID"], f["ADDL"])
    dose_time = time[rows] + nth * f["II"][rows]
    # Doses after the last record, or after a reset, never act, whatever their lag.
    acts = (nth == 0) | (dose_time <= np.minimum(last, until)[rows])
    rows, nth, dose_time = rows[acts], nth[acts], dose_time[acts]
    infused = f["RATE"][rows] > 0
    stop_rows = rows[infused]
    stop_time = dose_time[infused] + f["AMT"][stop_rows] / f["RATE"][stop_rows]
    every, reset_rows = np.arange(len(time)), np.flatnonzero(resets)
    parts = [
        (OUTPUT, every, time, record.astype(float)),
        (RESET, reset_rows, time[reset_rows], record[reset_rows] - 0.75),
        (DOSE, rows, dose_time, np.where(nth == 0, record[rows] - 0.5, EARLY)),
        (STOP, stop_rows, stop_time, np.full(len(stop_rows), EARLY)),
    ]
    kind = np.repeat([p[0] for p in parts], [len(p[1]) for p in parts])
    row, when, position = (np.concatenate([p[i] for p in parts]) for i in (1, 2, 3))
    order = np.lexsort((position, when, subject[row]))
    row, kind = row[order], kind[order]
    dosing = np.isin(kind, [DOSE, STOP])
    return _rectangle(
        subject[row],
        EventTable(
            kind=kind,
            time=when[order],
            position=position[order],
            record=record[row],
            amount=np.where(dosing, f["AMT"][row], 0.0),
            rate=np.where(dosing, f["RATE"][row], 0.0),
            compartment=np.where(dosing, f["CMT"][row], 0),
            epoch=epoch[row],
        ),
    )


def _written_out(evid: np.ndarray, addl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of every dose, further ones included, and which of its row's doses it is."""
    given = np.isin(evid, [1, 4])
    rows = np.repeat(np.arange(len(evid)), np.where(given, addl.astype(int) + 1, 0))
    return rows, pd.Series(rows).groupby(rows).cumcount().to_numpy()


def _next_reset(time: np.ndarray, resets: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Return when the next reset after each row comes; never: infinity."""
    at = pd.Series(np.where(resets, time, np.nan))
    following = at.groupby(subject).shift(-1)
    return following.groupby(subject).bfill().fillna(np.inf).to_numpy()


def _rectangle(subject: np.ndarray, flat: EventTable) -> EventTable:
    """Return events of one row each as [subject, event], padded at the end of each subject."""
    place = pd.Series(subject).groupby(subject).cumcount().to_numpy()
    shape = (int(subject.max()) + 1, int(place.max()) + 1)
    filling = {"kind": PADDING, "position": np.inf}
    columns = {}
    for name, values in flat._asdict().items():
        columns[name] = np.full(shape, filling.get(name, 0), dtype=values.dtype)
        columns[name][subject, place] = values
    # Padding stands still at the subject's last event: an infinite time would make NaN gradients.
    columns["time"] = np.maximum.accumulate(
        np.where(columns["kind"] == PADDING, -np.inf, columns["time"]), axis=1
    )
    return EventTable(**columns)
