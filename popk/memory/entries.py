"""How is an entry written and read? All that one transaction does, under the writer's lock.

A record is known by its ID: the same content twice is one entry, other content is a correction's matter.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from popk.memory.chain import ERASURE, Head, Stored, digest, entry_hash, genesis, seal
from popk.memory.database import CONTENTS, ENTRIES, HEADS, STORE
from popk.memory.writing import StoreError, moment

#: What an entry may be; `TwinStore.erase` alone writes the last.
KINDS = (
    "record", "correction", "retraction", "update", "forecast", "recommendation", "alarm", "decision",
    "note", ERASURE,
)  # fmt: skip
#: What is said about a record that is known.
CHANGES = ("correction", "retraction")
#: So far may clocks of several machines differ; a time before the last entry's becomes that one's.
_SKEW = timedelta(minutes=5)


class Entry(NamedTuple):
    """One thing that was remembered.

    Attributes
    ----------
    patient : str
    sequence : int
        Its number among the patient's entries, from 1.
    kind : str
    payload : object
        What was said; None where it was erased.
    author : str
    entered : datetime
        When, in UTC, as the store gave it.
    valid : datetime or None
        Since when it holds in the world, where that was said.
    model : dict or None
        Name, version, SHA-256 of source and posterior, where a model had a part in it.
    record : str or None
        The ID of what was entered.
    hash : str
        SHA-256 of the entry and the hash before.
    erased : bool
        Whether the content is gone.
    repeated : bool
        Whether `append` found it there already and wrote nothing.
    """

    patient: str
    sequence: int
    kind: str
    payload: Any
    author: str
    entered: datetime
    valid: datetime | None
    model: dict[str, Any] | None
    record: str | None
    hash: str
    erased: bool = False
    repeated: bool = False


class Draft(NamedTuple):
    """What is to be entered, checked: payload and model as JSON text."""

    kind: str
    payload: str
    author: str
    model: str | None = None
    record: str | None = None
    valid: str | None = None


def stored(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Stored]:
    """Return entries as they lie in the database, in the order of their numbers."""
    same = (CONTENTS.c.patient == ENTRIES.c.patient) & (CONTENTS.c.sequence == ENTRIES.c.sequence)
    columns = [*ENTRIES.c, *(CONTENTS.c[n] for n in ("record", "valid", "salt", "payload"))]
    query = sa.select(*columns).select_from(ENTRIES.outerjoin(CONTENTS, same))
    query = query.where(*where).order_by(ENTRIES.c.patient, ENTRIES.c.sequence)
    return [Stored(*row) for row in connection.execute(query)]


def opened(row: Stored) -> Entry:
    """Return an entry as its reader wants it."""
    return Entry(
        row.patient, row.sequence, row.kind,
        None if row.payload is None else json.loads(row.payload),
        row.author, datetime.fromisoformat(row.entered),
        None if row.valid is None else datetime.fromisoformat(row.valid),
        None if row.model is None else json.loads(row.model),
        row.record, row.hash, erased=row.payload is None,
    )  # fmt: skip


def now_utc() -> datetime:
    """Return the system's time."""
    return datetime.now(UTC)


def opened_draft(patient: str, draft: Draft) -> Entry:
    """Return a draft as the entry that it may become."""
    row = Stored(patient, 0, 0, draft.kind, "", draft.author, draft.model, "", "", "", draft.record,
                 draft.valid, "", draft.payload)  # fmt: skip
    return opened(row._replace(entered=moment(now_utc(), "now")))


def head_of(connection: sa.Connection, patient: str) -> Head | None:
    """Return the head of a patient's chain as the store keeps it."""
    row = connection.execute(sa.select(HEADS).where(HEADS.c.patient == patient)).one_or_none()
    return None if row is None else Head(*row)


def write(
    connection: sa.Connection,
    store: Any,
    patient: str,
    drafts: Sequence[Draft],
    now: Callable[[], Any],
) -> list[Entry]:
    """Enter drafts, all or none, and return the entries; those that were there already are marked.

    Parameters
    ----------
    connection : Connection
        Of the one who writes.
    store : Row
        The store's own.
    patient : str
    drafts : sequence of Draft
    now : Callable
        The clock.

    Raises
    ------
    StoreError
        The patient was erased, the chain's end is not what the head says, the clock is behind, or a
        record is not what it may be.
    """
    head = _end(connection, store, patient)
    entered = _time(connection, store, now)
    begun, length, chain, entries = head.length, store.length, store.hash, []
    for draft in drafts:
        if known := _known(connection, patient, draft):
            entries.append(opened(known)._replace(repeated=True))
            continue
        length += 1
        salt = secrets.token_hex(32)
        sealed = seal(salt, draft.record, draft.valid, draft.payload)
        row = Stored(
            patient, head.length + 1, length, draft.kind, entered, draft.author, draft.model, sealed,
            head.hash, "", draft.record, draft.valid, salt, draft.payload,
        )  # fmt: skip
        row = row._replace(hash=entry_hash(row, head.hash))
        head, chain = Head(patient, row.sequence, row.hash), digest(row.hash, chain)
        for table in (ENTRIES, CONTENTS):
            connection.execute(sa.insert(table), {c.name: getattr(row, c.name) for c in table.c})
        entries.append(opened(row))
    if length > store.length:
        change = sa.update(HEADS).where(HEADS.c.patient == patient) if begun else sa.insert(HEADS)
        connection.execute(change.values(head._asdict()))
        connection.execute(sa.update(STORE).values(length=length, hash=chain))
    return entries


def _end(connection: sa.Connection, store: Any, patient: str) -> Head:
    """Return the head that the next entry follows on; refuse one that is not the last entry's."""
    query = sa.select(ENTRIES.c.sequence, ENTRIES.c.hash, ENTRIES.c.kind, ENTRIES.c.entered)
    query = query.where(ENTRIES.c.patient == patient).order_by(ENTRIES.c.sequence.desc()).limit(1)
    last, head = connection.execute(query).one_or_none(), head_of(connection, patient)
    if last is None and head is None:
        return Head(patient, 0, genesis(store.identity, patient))
    if last is None or head is None or (last.sequence, last.hash) != (head.length, head.hash):
        raise StoreError(
            f"the entries of patient {patient} do not end where the store's head says, so nothing is "
            f"added; see popk twin verify, and restore the store"
        )
    if last.kind == ERASURE:
        raise StoreError(
            f"patient {patient} was erased on {last.entered[:10]}; nothing is remembered of them: "
            f"a new consent takes a new pseudonym"
        )
    return head


def _time(connection: sa.Connection, store: Any, now: Callable[[], Any]) -> str:
    """Return the time of entry, never before the last one: else as-of answers would change."""
    given = moment(now(), "the clock")
    query = sa.select(ENTRIES.c.entered, ENTRIES.c.position).order_by(ENTRIES.c.position.desc())
    last = connection.execute(query.limit(1)).one_or_none()
    if (last.position if last else 0) != store.length:
        raise StoreError(
            f"the store's head counts {store.length} entries, the last one kept is number "
            f"{last.position if last else 0}: nothing is added; see popk twin verify, and restore it"
        )
    if last is None or given >= last.entered:
        return given
    if datetime.fromisoformat(last.entered) - datetime.fromisoformat(given) > _SKEW:
        raise StoreError(
            f"the clock says {given}, but the last entry is of {last.entered}; set the clock right"
        )
    return last.entered


def _known(connection: sa.Connection, patient: str, draft: Draft) -> Stored | None:
    """Return the entry that says the same of the same record; refuse one that says otherwise."""
    if draft.record is None:
        return None
    told = stored(connection, ENTRIES.c.patient == patient, CONTENTS.c.record == draft.record)
    if draft.kind == "record":
        _refuse_other_units(connection, patient, draft)
    if draft.kind in ("record", *CHANGES):
        known = [row for row in told if row.kind in ("record", *CHANGES)]
        return _known_of_record(patient, draft, known)
    alike = [row for row in told if row.kind == draft.kind]
    if alike and (alike[0].payload, alike[0].valid) != (draft.payload, draft.valid):
        raise StoreError(
            f"patient {patient} has the {draft.kind} {draft.record} already (entry {alike[0].sequence}), "
            f"with other content; give another ID"
        )
    return alike[0] if alike else None


def _known_of_record(patient: str, draft: Draft, told: list[Stored]) -> Stored | None:
    """Return what repeats an entry on a patient's record."""
    same = (draft.kind, draft.payload, draft.valid)
    of = f"record {draft.record} of patient {patient}"
    if told and (told[-1].kind, told[-1].payload, told[-1].valid) == same:
        return told[-1]
    if told and told[-1].kind == "retraction":
        raise StoreError(
            f"{of} was retracted (entry {told[-1].sequence}); enter what is right under another ID"
        )
    if draft.kind in CHANGES:
        if not told:
            raise StoreError(f"{of} is not known, so no {draft.kind} of it; enter it as a record")
        return None
    if told and (told[0].payload, told[0].valid) != same[1:]:
        raise StoreError(
            f"{of} is known with other content (entry {told[0].sequence}): {told[0].payload:.200}; "
            f"enter a correction, or another ID if it is another record"
        )
    return told[0] if told else None


def _refuse_other_units(connection: sa.Connection, patient: str, draft: Draft) -> None:
    """Refuse a record that is described otherwise than the patient's first."""
    first = (ENTRIES.c.patient == patient) & (ENTRIES.c.kind == "record")
    query = sa.select(sa.func.min(ENTRIES.c.sequence)).where(first)
    number = connection.execute(query).scalar()
    if number is None:
        return
    before = json.loads(stored(connection, first, ENTRIES.c.sequence == number)[0].payload)
    given = json.loads(draft.payload)
    for name in ("units", "covariates", "levels", "missing"):
        if before.get(name) != given.get(name):
            raise StoreError(
                f"record {draft.record} has {name} {given.get(name)}, but the records of patient "
                f"{patient} have {before.get(name)}; convert it to these"
            )
