"""What has been told of a patient, and what became of it? Records late, twice, corrected, retracted."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popk.records.table import DataError, Problem
from popk.trial import Trial, read_nonmem
from popk.units import UnitError, factor

#: The columns that a record of a patient may have beside those of a trial.
RECORD, RECORDED_AT, RETRACTED = "RECORD", "RECORDED_AT", "RETRACTED"
_OWN = (RECORD, RECORDED_AT, RETRACTED)
_SEGMENT, _RANK, _ARRIVAL = "_segment", "_rank", "_arrival"  # by these columns records are in order
_SAME = ("TIME", "EVID", "AMT", "RATE", "II", "ADDL", "SS", "CMT", "DV", "DVID", "MDV",
         "BLQ", "LLOQ", "ALQ", "ULOQ")  # fmt: skip

Rows = Trial | pd.DataFrame | Iterable[Mapping[str, Any]]


class Arrival(NamedTuple):
    """What became of one record that arrived.

    Attributes
    ----------
    record : str
        Its id.
    time : float
        Its TIME [units["TIME"]].
    kind : str
        "new", "late" (its TIME lies before one that was known), "duplicate" (ignored), "corrected" (it
        took the place of one of the same id), "retracted", or "outdated" (ignored: something recorded
        later is known).
    says : str
        What happened, in words.
    """

    record: str
    time: float
    kind: str
    says: str


class Ledger(NamedTuple):
    """All records of a patient that arrived, and what became of each.

    Attributes
    ----------
    frame : DataFrame
        The records that count, in order, with RECORD, RECORDED_AT and the columns that order them.
    gone : dict of str to float
        The ids that were retracted, and when that was recorded [s, or the unit of TIME; -inf: unsaid].
    log : tuple of Arrival
    """

    frame: Any
    gone: dict[str, float]
    log: tuple[Arrival, ...]


def opened(patient: Trial) -> Ledger:
    """Return the ledger of a patient's first records."""
    frame = patient.host.table()
    back = (np.diff(frame["TIME"], prepend=-np.inf) < 0).cumsum()
    frame = _named(
        frame.assign(**{_SEGMENT: back, _ARRIVAL: np.arange(len(frame))}), patient.ids[0]
    )
    frame[RECORDED_AT] = -np.inf
    return Ledger(_ranked(frame), {}, ())


def received(
    patient: Trial,
    ledger: Ledger,
    records: Rows,
    *,
    retract: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    now: float | None = None,
) -> tuple[Trial, Ledger]:
    """Return a patient's trial and ledger after further records; see `Twin.update`.

    Raises
    ------
    DataError
        A record is another patient's, is a level of the future or below 0, lacks a covariate or has a
        unit that cannot be converted; `retract` names no known record; or what `read_nonmem` refuses.
    """
    known = ledger.frame
    if unknown := [r for r in map(str, retract) if r not in set(known[RECORD])]:
        says = (
            f"retract= names {', '.join(unknown)}; the records known are {', '.join(known[RECORD])}"
        )
        raise DataError("the update", [Problem(RECORD, says)])
    added, withdrawn = _read(records, patient, units)
    segment, arrival = int(known[_SEGMENT].max()), int(known[_ARRIVAL].max()) + 1
    newest = float(known["TIME"][known[_SEGMENT] == segment].max())
    state = ledger._replace(frame=known.set_index(RECORD, drop=False))
    if added is not None:
        _refuse(added, patient, now)
        at = np.arange(arrival, arrival + len(added))
        added = _ranked(added.assign(**{_SEGMENT: segment, _ARRIVAL: at}))
        told = added[~added[RETRACTED]]
        if _all_new(told, state):
            state = _appended(state, told, newest)
        else:
            for _, row in told.iterrows():
                state = _entered(state, row, newest)
        gone = added[added[RETRACTED]]
        withdrawn += list(zip(gone[RECORD], gone[RECORDED_AT], strict=True))
    for name, when in [*withdrawn, *((str(name), np.inf) for name in retract)]:
        state = _taken_back(state, name, when)
    frame = state.frame.reset_index(drop=True)
    if frame.empty:
        raise DataError(
            "the update", [Problem("", "it leaves no record; a twin needs one at least")]
        )
    frame = frame.sort_values([_SEGMENT, "TIME", _RANK, _ARRIVAL], ignore_index=True)
    return _trial(frame, patient), state._replace(frame=frame)


def _trial(frame: Any, patient: Trial) -> Trial:
    """Return the trial of the records that count, each of which has been checked."""
    kept = frame.drop(columns=[RECORD, RECORDED_AT, _SEGMENT, _RANK, _ARRIVAL])
    if patient.host.missing:  # of a patient they are missing on all rows or on none
        kept.attrs = patient.to_dataframe().attrs
        return read_nonmem(kept)
    kept = kept.assign(ROW=np.arange(1, len(kept) + 1))
    kept = kept[list(patient.host.frame)].astype(patient.host.frame.dtypes)
    return patient.replaced(kept)


def _all_new(told: Any, state: Ledger) -> bool:
    """Return whether all records are of ids that were never heard of."""
    names = told[RECORD]
    heard = names.isin(state.frame.index) | names.isin(list(state.gone)) | names.duplicated()
    return not heard.any()


def _appended(state: Ledger, told: Any, newest: float) -> Ledger:
    """Return the ledger after many records, each of which is new."""
    rows = told.drop(columns=RETRACTED).set_index(RECORD, drop=False)
    arrived = tuple(
        Arrival(str(name), float(time), *_kind(float(time), newest))
        for name, time in zip(told[RECORD], told["TIME"], strict=True)
    )
    frame = pd.concat([state.frame, rows])
    return state._replace(frame=frame, log=state.log + arrived)


def _entered(state: Ledger, row: Any, newest: float) -> Ledger:
    """Return the ledger after one record."""
    name, time, when = str(row[RECORD]), float(row["TIME"]), float(row[RECORDED_AT])
    frame, gone = state.frame, state.gone
    if name in gone and not when > gone[name]:
        return _logged(state, name, time, "outdated", "it was retracted and stays out")
    if name not in frame.index:
        kind, says = _kind(time, newest)
        gone = {n: at for n, at in gone.items() if n != name}
        frame = pd.concat([frame, _row(row, name)])
        return _logged(state._replace(frame=frame, gone=gone), name, time, kind, says)
    old = frame.loc[name]
    differs = [c for c in _content_columns(frame) if not _equal(old[c], row[c])]
    if not differs:
        return _logged(state, name, time, "duplicate", "it is known already and was ignored")
    if when < float(old[RECORDED_AT]):
        says = "it was ignored: what is known was recorded later"
        return _logged(state, name, time, "outdated", says)
    changes = ", ".join(f"{c} {old[c]:g} to {row[c]:g}" for c in differs)
    frame = pd.concat([frame.drop(index=name), _row(row, name)])
    return _logged(
        state._replace(frame=frame), name, time, "corrected", f"it was corrected: {changes}"
    )


def _kind(time: float, newest: float) -> tuple[str, str]:
    """Return what a record is that was not known."""
    if time < newest:
        return "late", f"it was added, though records up to TIME {newest:g} were known"
    return "new", "it was added"


def _row(row: Any, name: str) -> Any:
    one = pd.DataFrame([row.drop(RETRACTED)]).infer_objects()
    return one.set_axis([name], axis=0)


def _taken_back(state: Ledger, name: str, when: float) -> Ledger:
    """Return the ledger without one record, or knowing that it is not to be entered."""
    frame, gone = state.frame, {**state.gone, name: max(when, state.gone.get(name, -np.inf))}
    if name not in frame.index:
        says = "it is not known; should it arrive, it stays out"
        return _logged(state._replace(gone=gone), name, np.nan, "retracted", says)
    old = frame.loc[name]
    if when < float(old[RECORDED_AT]):
        says = "the retraction was ignored: what is known was recorded later"
        return _logged(state, name, float(old["TIME"]), "outdated", says)
    state = state._replace(frame=frame.drop(index=name), gone=gone)
    return _logged(state, name, float(old["TIME"]), "retracted", "it was taken out")


def _logged(state: Ledger, *said: Any) -> Ledger:
    return state._replace(log=(*state.log, Arrival(*said)))


def _read(
    records: Rows, patient: Trial, units: Mapping[str, str] | None
) -> tuple[Any, list[tuple[str, float]]]:
    """Return records in the patient's units, None where there are none, and the ids taken back."""
    where, withdrawn = "the update", []
    if isinstance(records, Trial):
        extra, trial = pd.DataFrame(index=range(len(records.host.frame))), records
        if (np.diff(trial.host.frame["TIME"]) < 0).any():
            says = "its clock begins anew; make a twin of all the records together"
            raise DataError(trial.host.name, [Problem("TIME", says)])
    else:
        table = _table(records, patient)
        told = {**patient.units, **table.attrs.get("units", {}), **(units or {})}
        table, withdrawn = _withdrawn(table, where)
        if table.empty:
            return None, withdrawn
        _refuse_units(told, patient, where)
        extra = table[[c for c in _OWN if c in table]].reset_index(drop=True)
        table = table.drop(columns=list(extra))
        table.attrs = {"name": where}
        covariates, missing = list(patient.host.covariates), patient.host.missing
        trial = read_nonmem(table, units=told, covariates=covariates, missing=missing)
    _refuse_strangers(trial, patient)
    frame = _converted(trial, patient).reset_index(drop=True)
    frame[RECORDED_AT] = _when(extra, where)
    frame[RETRACTED] = extra[RETRACTED].to_numpy() if RETRACTED in extra else False
    named = _named(frame, patient.ids[0])
    if RECORD in extra:
        given = extra[RECORD].notna().to_numpy()
        named[RECORD] = np.where(given, extra[RECORD].astype(str), named[RECORD])
    return named, withdrawn


def _withdrawn(table: Any, where: str) -> tuple[Any, list[tuple[str, float]]]:
    """Return a table without the rows that only take back a known id, and these ids."""
    if RETRACTED not in table:
        return table, []
    said: Any = pd.to_numeric(table[RETRACTED], errors="coerce")
    said = said.fillna(0).ne(0)
    table = table.assign(**{RETRACTED: said})
    named = said & (table[RECORD].notna() if RECORD in table else False)
    when = _when(table[named], where)
    return table[~named], list(zip(table[named].get(RECORD, []), when, strict=True))


def _table(records: Any, patient: Trial) -> pd.DataFrame:
    """Return records as a table; an ID need not be given."""
    if isinstance(records, Mapping):
        records = [records]
    frame = records.copy() if isinstance(records, pd.DataFrame) else pd.DataFrame(list(records))
    frame.attrs = getattr(records, "attrs", {})
    if frame.empty:
        return frame
    for name, value in {"ID": patient.ids[0], "DV": np.nan}.items():
        if name not in frame and name.lower() not in frame:
            frame[name] = value
    clock = next((c for c in ("TIME", "time") if c in frame), None)
    if clock is None:
        return frame
    # Any order of arrival; what is no number is refused where records are checked.
    return frame.sort_values(clock, kind="stable", key=_numeric, ignore_index=True)


def _numeric(column: Any) -> Any:
    return pd.to_numeric(column, errors="coerce")


def _refuse_units(told: Mapping[str, str], patient: Trial, where: str) -> None:
    wrong = []
    for name, mine in patient.units.items():
        try:
            factor(told[name], mine)
        except UnitError as error:
            wrong.append(Problem(name, f"{name}: {error}; the twin has it in {mine}"))
    if wrong:
        raise DataError(where, wrong)


def _refuse_strangers(records: Trial, patient: Trial) -> None:
    others = [i for i in records.ids if i != patient.ids[0]]
    if others:
        says = (
            f"the twin is of ID {patient.ids[0]}, but the records are of ID {', '.join(others)}; "
            f"update that patient's twin"
        )
        raise DataError(records.host.name, [Problem("ID", says)])


def _refuse(added: Any, patient: Trial, now: float | None) -> None:
    """Refuse levels that cannot have been measured."""
    level = added["EVID"].eq(0) & added["MDV"].eq(0) & ~added[RETRACTED]
    wrong = {}
    if now is not None:
        wrong["TIME"] = (
            level & added["TIME"].gt(now),
            (f"a level lies in the future: it is TIME {now:g} now; correct its TIME"),
        )
    if patient.design.concentrations:
        wrong["DV"] = (
            level & added["DV"].lt(0),
            ("a concentration is below 0; correct it, or give BLQ 1 and LLOQ"),
        )
    found = [
        Problem(name, says, row["ROW"], row["ID"], f"{row['TIME']:g}")
        for name, (rows, says) in wrong.items()
        for _, row in added[rows].iterrows()
    ]
    if found:
        raise DataError("the update", found)


def _converted(records: Trial, patient: Trial) -> pd.DataFrame:
    """Return records in the units of the patient's own."""
    frame, mine, theirs = records.host.frame.copy(), patient.units, records.units
    missing = [n for n in patient.host.covariates if n not in frame]
    if missing:
        raise DataError(
            records.host.name,
            [Problem(n, f"{n} is missing; the twin's records have it") for n in missing],
        )
    by = {n: factor(theirs[n], mine[n]) for n in mine if n in theirs}
    by |= {"II": by["TIME"], "RATE": by["AMT"] / by["TIME"], "LLOQ": by["DV"], "ULOQ": by["DV"]}
    rated = frame["RATE"].gt(0)  # -1 and -2 are codes
    for name, multiple in by.items():
        changed = frame[name] * multiple
        frame[name] = changed.where(rated, frame[name]) if name == "RATE" else changed
    return frame


def _named(frame: Any, id: str) -> Any:
    """Return records with ids made from their contents: the same content is the same record."""
    columns = _content_columns(frame)
    texts = ["|".join(f"{x:.10g}" for x in row) for row in frame[columns].to_numpy(dtype=float)]
    nth = pd.Series(texts).groupby(texts).cumcount()
    hashed = [hashlib.sha256(f"{id}|{t}|{n}".encode()).hexdigest()[:12]
              for t, n in zip(texts, nth, strict=True)]  # fmt: skip
    return frame.assign(**{RECORD: hashed})


def _content_columns(frame: Any) -> list[str]:
    own = {RECORD, RECORDED_AT, RETRACTED, _SEGMENT, _RANK, _ARRIVAL, "ROW", "ID"}
    return [*_SAME, *(c for c in frame if c not in own and c not in _SAME)]


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))


def _when(extra: pd.DataFrame, where: str) -> np.ndarray:
    """Return when each record was recorded, as a number; -inf where that is not said."""
    if RECORDED_AT not in extra:
        return np.full(len(extra), -np.inf)
    given = extra[RECORDED_AT]
    if pd.api.types.is_numeric_dtype(given):
        return given.fillna(-np.inf).to_numpy(dtype=float)
    try:
        times = pd.to_datetime(given, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        says = f"{RECORDED_AT} is no time: {error}; write 2026-11-23T14:30:00Z, or a number"
        raise DataError(where, [Problem(RECORDED_AT, says)]) from error
    seconds = (times - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds()
    return seconds.fillna(-np.inf).to_numpy(dtype=float)


def _ranked(frame: Any) -> Any:
    """Return records with their place among those of one time: as in the table they came in.

    A level that stands before the doses of its time in its own table, or comes alone, stands before
    those of any other table: it is a trough.
    """
    doses = frame["EVID"].isin([1, 3, 4]).astype(int)
    return frame.assign(**{_RANK: doses.groupby([frame[_SEGMENT], frame["TIME"]]).cummax()})
