"""May this be entered? Drafts of entries, each checked by itself and together with what is known."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from popk.memory.beliefs import payloads, record_ids, refuse_payload, refuse_unread, table
from popk.memory.chain import ERASURE
from popk.memory.entries import CHANGES, KINDS, Draft, Entry, opened_draft
from popk.memory.writing import StoreError, canonical, identified, moment, named
from popk.runs import Run
from popk.trial import Trial, read_nonmem


def drafted(
    patient: str, kind: str, payload: Any, author: str, *,
    model: Run | dict[str, Any] | None, record: str | None, valid: datetime | str | None,
) -> Draft:  # fmt: skip
    """Return what is to be entered, as JSON; refuse what cannot be.

    Parameters
    ----------
    patient, kind, payload, author, model, record, valid
        As of `TwinStore.append`.
    """
    named(patient, "the patient's ID")
    if kind not in KINDS or kind == ERASURE:
        allowed = ", ".join(k for k in KINDS if k != ERASURE)
        raise StoreError(f"kind {kind!r} cannot be entered; use one of {allowed} (erase() erases)")
    if record is None and kind in ("record", *CHANGES):
        raise StoreError(f"a {kind} has the ID of its record; give record=")
    text = canonical(payload)
    refuse_payload(kind, patient, payload)
    what = identified(model)
    return Draft(
        kind, text, named(author, "the author"),
        None if what is None else canonical(what, "model"),
        None if record is None else named(record, "the record's ID"),
        None if valid is None else moment(valid, "valid"),
    )  # fmt: skip


def drafted_records(
    patient: str,
    records: Trial | pd.DataFrame,
    author: str,
    ids: Sequence[Any] | None,
    known: Sequence[Entry],
) -> list[Draft]:
    """Return the records of a table, each to be entered, checked with those that are known.

    Parameters
    ----------
    patient : str
    records : Trial or DataFrame
    author : str
    ids : sequence of str or None
    known : sequence of Entry
        The patient's records, corrections and retractions so far.
    """
    if isinstance(records, pd.DataFrame):
        ids = list(records["RECORD"]) if ids is None and "RECORD" in records else ids
        first = next((entry.payload for entry in known if entry.kind == "record"), {})
        about = {n: records.attrs.get(n) or first.get(n) for n in ("units", "covariates")}
        records = read_nonmem(records, **about)
    if others := [one for one in records.ids if one != patient]:
        raise StoreError(
            f"the records are of ID {', '.join(others)}, not of patient {patient}; enter them under "
            f"their own patient"
        )
    name = named(author, "the author")
    drafts = [
        Draft("record", canonical(payload), name, record=one)
        for one, payload in zip(record_ids(records, ids), payloads(records), strict=True)
    ]
    told = {entry.record for entry in known}
    _refuse_together(patient, known, [draft for draft in drafts if draft.record not in told])
    return drafts


def refuse_correction(patient: str, known: Sequence[Entry], draft: Draft) -> None:
    """Refuse a correction after which the patient's records could not be read.

    Raises
    ------
    StoreError, DataError
        It names a column that nobody reads, or breaks a rule.
    """
    told = [entry for entry in known if entry.record == draft.record]
    if not told or told[-1].kind == "retraction":
        return  # refused where it would be written, with the reason
    change = opened_draft(patient, draft).payload["row"]
    refuse_unread(change, told[0].payload.get("covariates", []))
    _refuse_together(patient, known, [draft])


def _refuse_together(patient: str, known: Sequence[Entry], drafts: Sequence[Draft]) -> None:
    """Refuse records that break a rule together with those known."""
    if drafts:
        read_nonmem(table(patient, [*known, *(opened_draft(patient, d) for d in drafts)]))


def refuse_other_model(update: Entry, run: Run) -> None:
    """Refuse a run that is not the one of the last update."""
    then, now = update.model or {}, identified(run) or {}
    if differs := [n for n in ("source", "posterior") if then.get(n) != now[n]]:
        raise StoreError(
            f"patient {update.patient} was last updated (entry {update.sequence}) with {then.get('name')}, "
            f"and the run is {now['name']} with another {' and '.join(differs)} (SHA-256): take the run of "
            f"then ({then.get('run', 'not said')}), or say other_model=True"
        )
