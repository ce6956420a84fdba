"""Does the whole store hold? Every chain, every content, the heads, and what was kept elsewhere."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from popk.memory.chain import (
    Breach,
    Head,
    Stored,
    Verification,
    anchored,
    first_breach,
    store_breach,
    store_genesis,
)
from popk.memory.database import CONTENTS, ENTRIES, HEADS, SCHEMA, STORE
from popk.memory.entries import head_of, stored
from popk.memory.writing import StoreError


def examined(
    connection: sa.Connection, patient: str | None, anchors: Sequence[Head], unsound: str
) -> Verification:
    """Return what differs in one patient's chain, or in all and the store as a whole.

    Parameters
    ----------
    connection : Connection
    patient : str or None
    anchors : sequence of Head
        Kept elsewhere; those of other patients count too.
    unsound : str
        What the database itself finds wrong.
    """
    store = connection.execute(sa.select(STORE)).one()
    heads: dict[Any, Head] = {
        row.patient: Head(*row) for row in connection.execute(sa.select(HEADS))
    }
    found: list[Breach] = [Breach(None, None, f"SQLite says: {unsound}")] if unsound else []
    chains: dict[Any, list[Stored]] = {}
    only = () if patient is None else (ENTRIES.c.patient == patient,)
    for row in stored(connection, *only):
        chains.setdefault(row.patient, []).append(row)
    asked = [patient] if patient is not None else [*dict.fromkeys([*chains, *heads])]
    for one in asked:
        breach = first_breach(store.identity, one, chains.get(one, []), heads.get(one))
        found += [breach] if breach else []
    for anchor in anchors:
        if anchor.patient is not None:
            rows = chains.get(anchor.patient) or stored(
                connection, ENTRIES.c.patient == anchor.patient
            )
            found += anchored(anchor, rows)
    if patient is None:
        whole = [anchor for anchor in anchors if anchor.patient is None]
        found += [*_orphans(connection), *_of_store(store, list(chains.values()), whole)]
    return Verification(len(asked), sum(map(len, chains.values())), tuple(found))


def _of_store(store: Any, chains: list[list[Stored]], anchors: Sequence[Head]) -> list[Breach]:
    """Return what differs in the chain of all entries."""
    begin = store_genesis(store.identity, store.created)
    rows = [(row.position, row.hash) for rows in chains for row in rows]
    rows.sort(
        key=lambda row: (not isinstance(row[0], int), row[0] if isinstance(row[0], int) else 0)
    )
    found = store_breach(begin, rows, Head(None, store.length, store.hash), anchors)
    if store.id != 1 or store.schema_version != SCHEMA:
        found.append(Breach(None, None, "the row that says what the store is was altered"))
    return found


def _orphans(connection: sa.Connection) -> list[Breach]:
    """Return the contents that belong to no entry."""
    same = (CONTENTS.c.patient == ENTRIES.c.patient) & (CONTENTS.c.sequence == ENTRIES.c.sequence)
    query = sa.select(CONTENTS.c.patient, CONTENTS.c.sequence).outerjoin(ENTRIES, same)
    rows = connection.execute(query.where(ENTRIES.c.patient.is_(None)))
    return [
        Breach(str(p), int(n), "there is a content, and no entry that it is of") for p, n in rows
    ]


def exported(connection: sa.Connection, patient: str) -> dict[str, Any]:
    """Return everything about a patient as JSON has it, where the chain holds."""
    store = connection.execute(sa.select(STORE)).one()
    rows, head = stored(connection, ENTRIES.c.patient == patient), head_of(connection, patient)
    if not rows and head is None:
        raise StoreError(f"the store knows no patient {patient}; nothing is exported")
    breach = first_breach(store.identity, patient, rows, head)
    if breach or head is None:
        raise StoreError(f"{breach}; a broken chain is not exported: restore the store")
    return {
        "format": "popk patient history", "schema_version": SCHEMA, "store": store.identity,
        "patient": patient, "head": head._asdict(), "entries": [row._asdict() for row in rows],
    }  # fmt: skip


def examined_export(document: dict[str, Any]) -> Verification:
    """Return what differs in an export from what was exported."""
    try:
        rows = [Stored(**row) for row in document["entries"]]
        patient, store = document["patient"], document["store"]
        found = first_breach(store, patient, rows, Head(**document["head"]))
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"this is no export of popk ({error}); export the patient again"
        ) from error
    return Verification(1, len(rows), (found,) if found else ())
