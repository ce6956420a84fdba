"""Which records are believed, and what do they say of the patient? Corrections applied, by whom and when.

References
----------
.. [1] Snodgrass R, Ahn I (1985). A taxonomy of time in databases. Proc ACM SIGMOD 1985:236-246.
   doi:10.1145/318898.318921
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from popk.memory.entries import CHANGES, Entry
from popk.memory.writing import StoreError, named
from popk.records.nonmem import DEFAULTS, KEPT, check_records
from popk.trial import Trial, read_nonmem

#: Always written down; another column only where it is not what `read_nonmem` would assume.
_ALWAYS = ("TIME", "EVID", "MDV")
#: What belongs to all records of a patient.
_ABOUT = ("units", "covariates", "levels", "missing")


def refuse_payload(kind: str, patient: str, payload: Any) -> None:
    """Refuse the payload of a record, a correction or a retraction that `records` could not read.

    Parameters
    ----------
    kind : str
    patient : str
    payload : object
        Of a record ``{"row": {"TIME": 1.0, ...}, "units": {...}, "covariates": [...]}``, of a
        correction ``{"row": {"DV": 5.1}, "reason": "..."}``, of a retraction ``{"reason": "..."}``.

    Raises
    ------
    StoreError
        Something is missing, no number, or of another patient.
    """
    if kind not in ("record", *CHANGES):
        return
    if not isinstance(payload, dict):
        raise StoreError(f"the payload of a {kind} is a dict; {payload!r:.80} was given")
    if kind in CHANGES:
        named(payload.get("reason"), f"the reason of a {kind}")
    if kind == "retraction":
        return
    row = payload.get("row")
    if not isinstance(row, dict) or not row:
        raise StoreError(f"the payload of a {kind} has row, the columns and their values; give it")
    if str(row.get("ID", patient)).removesuffix(".0") != patient:
        raise StoreError(
            f"the record is of ID {row['ID']}, not of patient {patient}; enter it under its own patient"
        )
    if kind == "record" and ("TIME" not in row or not isinstance(payload.get("units"), dict)):
        raise StoreError(
            "a record has row.TIME and units, such as {'TIME': 'h', 'DV': 'mg/L', ...}"
        )
    for name, value in row.items():
        if name == "ID" or (value is None and name != "TIME"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StoreError(
                f"{name} of the record is {value!r}; give a number, or null if missing"
            )
    if kind == "record":
        _refuse_row(patient, payload)


def _refuse_row(patient: str, payload: dict[str, Any]) -> None:
    """Refuse a record that breaks a rule by itself, with columns that nobody reads, or without units."""
    covariates = payload.get("covariates", [])
    refuse_unread(payload["row"], covariates)
    row = pd.DataFrame([{"DV": None, **payload["row"], "ID": patient}], index=["row"])
    check_records(row, f"the record of patient {patient}", covariates=covariates,
                  missing=payload.get("missing", []))  # fmt: skip
    if lacks := [n for n in ("TIME", "AMT", "DV", *covariates) if n not in payload["units"]]:
        raise StoreError(f"the record has no unit of {', '.join(lacks)}; give units for each")


def refuse_unread(row: dict[str, Any], covariates: Sequence[str]) -> None:
    """Refuse columns that have no meaning: a misspelt one would be passed over in silence."""
    known = [*DEFAULTS, *covariates]
    if strange := [n for n in row if n not in known]:
        raise StoreError(
            f"{strange[0]} is no column of a record of this patient; use one of {', '.join(known)}"
        )


def payloads(trial: Trial) -> list[dict[str, Any]]:
    """Return each record of one patient's trial as the payload of an entry."""
    source = trial.host
    about = {
        "units": dict(source.units), "covariates": list(source.covariates),
        "levels": source.levels, "missing": list(source.missing),
    }  # fmt: skip
    names = [*KEPT, *source.covariates]
    rows = [
        {n: v for n in names if n != "ID" and (v := _written(n, row[n])) is not _ASSUMED}
        for row in source.frame.to_dict("records")
    ]
    return [{"row": row, **about} for row in rows]


_ASSUMED = object()


def _written(name: str, value: Any) -> Any:
    """Return a cell as JSON has it, `_ASSUMED` where it need not be written."""
    number = float(value)
    if name in _ALWAYS or name not in DEFAULTS:
        return None if math.isnan(number) else number
    default = DEFAULTS[name]
    return _ASSUMED if math.isnan(number) or number == default else number


def record_ids(trial: Trial, ids: Sequence[Any] | None) -> list[str]:
    """Return the ID of each record: as given, or of what it is and when, such as ``EVID0 TIME1.5``.

    Raises
    ------
    StoreError
        There are not as many as records, or one stands twice.
    """
    frame = trial.host.frame
    if ids is None:
        found = [_named_after(row) for row in frame.to_dict("records")]
    else:
        found = [named(str(one), "a record's ID") for one in ids]
    if len(found) != len(frame):
        raise StoreError(
            f"there are {len(frame)} records and {len(found)} IDs of records; give as many"
        )
    twice = sorted({one for one in found if found.count(one) > 1})
    if twice:
        raise StoreError(
            f"two records have the ID {twice[0]!r}; give each its own, in a column RECORD of the file or "
            f"with ids="
        )
    return found


def _named_after(row: dict[Any, Any]) -> str:
    """Return the ID of a record that has none: what it is, and when."""
    said = [n for n in ("EVID", "TIME", "CMT", "DVID") if n in ("EVID", "TIME") or row[n]]
    return " ".join(f"{n}{row[n]:.12g}" for n in said)


def table(patient: str, entries: Sequence[Entry], until: float | None = None) -> pd.DataFrame:
    """Return the records that entries leave valid, as `read_nonmem` takes them.

    When something was entered and when it happened are two times [1]_: the entries are those of one
    time of entry, `until` is a time of the patient's own clock.

    Parameters
    ----------
    patient : str
    entries : sequence of Entry
        Records, corrections and retractions, in the order in which they were entered.
    until : float, optional
        Only records up to this time [TIME].

    Raises
    ------
    StoreError
        No record is left.
    """
    rows: dict[str, dict[str, Any]] = {}
    entered: dict[str, str] = {}
    changes, about = [], {}
    for entry in entries:
        name = str(entry.record)
        if entry.kind == "record":
            about = about or {n: entry.payload[n] for n in _ABOUT if n in entry.payload}
            rows[name] = {"ID": patient, **entry.payload["row"]}
            entered[name] = entry.entered.isoformat()
            continue
        changes.append(_change(entry, rows[name]))
        if entry.kind == "correction":
            rows[name] = rows[name] | entry.payload["row"] | {"ID": patient}
        else:
            del rows[name]
    kept = {n: row for n, row in rows.items() if until is None or row["TIME"] <= until}
    if not kept:
        asked = "" if until is None else f" up to {until:g}"
        raise StoreError(f"patient {patient} has no valid record{asked} at that time")
    frame = pd.DataFrame(list(kept.values()), index=pd.Index(list(kept), name="record"))
    frame = frame.astype({n: float for n in frame if n != "ID"})
    frame.attrs = {
        **about, "name": f"patient {patient}", "changes": changes,
        "entered": {n: entered[n] for n in kept},
    }  # fmt: skip
    return frame if _restarts(frame) else frame.sort_values("TIME", kind="stable")


def _change(entry: Entry, row: dict[str, Any]) -> dict[str, Any]:
    """Return what a correction or a retraction did, and why."""
    new = entry.payload.get("row", {})
    return {
        "record": entry.record, "kind": entry.kind, "reason": entry.payload["reason"],
        "author": entry.author, "entered": entry.entered.isoformat(), "sequence": entry.sequence,
        "was": {n: row.get(n) for n in new} if new else dict(row), "is": dict(new),
    }  # fmt: skip


def _restarts(frame: pd.DataFrame) -> bool:
    """Return whether the clock begins anew at a reset: such records stay in the order of entry."""
    resets = frame["EVID"].isin([3, 4]) if "EVID" in frame else pd.Series(False, index=frame.index)
    return bool((frame["TIME"].diff().lt(0) & resets).any())


def belief(twin: Any, records: pd.DataFrame) -> dict[str, Any]:
    """Return what a twin believes and which records it knows, as the payload of an entry.

    Parameters
    ----------
    twin : Twin
    records : DataFrame
        The patient's valid records.

    Raises
    ------
    StoreError
        The twin's records are others.
    """
    _refuse_other_records(twin, records)
    tails = [0.05, 0.5, 0.95]
    found = {
        str(name): dict(zip(("p05", "median", "p95"), np.quantile(x, tails).tolist(), strict=True))
        for name, x in twin.parameters.items()
    }
    k = float(twin.pareto_k)
    return {
        "parameters": found, "pareto_k": k if math.isfinite(k) else None, "ess": float(twin.ess),
        "seed": twin.seed, "population_draws": twin.population_draws, "records": list(records.index),
        "changes": records.attrs["changes"],
    }  # fmt: skip


def _refuse_other_records(twin: Any, records: pd.DataFrame) -> None:
    known, kept = twin.patient.host, read_nonmem(records).host
    names = ["TIME", "EVID", "AMT", "CMT", "DV", "MDV", *kept.covariates]
    alike = (
        known.units == kept.units
        and set(names) <= set(known.frame)
        and len(known.frame) == len(kept.frame)
        and np.array_equal(
            known.frame[names].sort_values(names).to_numpy(dtype=float),
            kept.frame[names].sort_values(names).to_numpy(dtype=float),
            equal_nan=True,
        )
    )
    if not alike:
        raise StoreError(
            f"the twin of ID {twin.id} knows {len(known.frame)} records, and the store has "
            f"{len(kept.frame)} valid ones or others; append_records first, or take store.twin(...)"
        )
