"""Is what is kept what was written? Entries, each hashed with the one before, and where a chain breaks.

An entry's content is not hashed itself but sealed with a random salt: when content and salt are erased,
the seal says nothing of them and the chain still holds.

References
----------
.. [1] Haber S, Stornetta WS (1991). How to time-stamp a digital document. J Cryptology 3:99-111.
   doi:10.1007/BF00196791
.. [2] National Institute of Standards and Technology (2015). Secure hash standard. FIPS 180-4.
   doi:10.6028/NIST.FIPS.180-4
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

#: The kind of the tombstone that `erase` leaves.
ERASURE = "erasure"


class Head(NamedTuple):
    """How long a chain is and its last hash; kept elsewhere, it shows whether anything was rewritten.

    Attributes
    ----------
    patient : str or None
        None: of the whole store.
    length : int
        How many entries.
    hash : str
        SHA-256, hexadecimal.
    """

    patient: str | None
    length: int
    hash: str


class Breach(NamedTuple):
    """Where a chain breaks first.

    Attributes
    ----------
    patient : str or None
        None: it is not of one patient.
    sequence : int or None
        The entry's number, from 1.
    says : str
        What differs.
    """

    patient: str | None
    sequence: int | None
    says: str

    def __str__(self) -> str:
        """Return the breach on one line."""
        place = [] if self.patient is None else [f"patient {self.patient}"]
        place += [] if self.sequence is None else [f"entry {self.sequence}"]
        return f"{', '.join(place) or 'store'}: {self.says}"


class Verification(NamedTuple):
    """What `TwinStore.verify` found.

    Attributes
    ----------
    patients, entries : int
        How many were examined.
    breaches : tuple of Breach
        The first of each patient, then those of the store as a whole.
    """

    patients: int
    entries: int
    breaches: tuple[Breach, ...]

    @property
    def intact(self) -> bool:
        """Return whether nothing differs."""
        return not self.breaches

    def __str__(self) -> str:
        """Return one line, or one for each breach."""
        if self.intact:
            return f"intact: {self.entries} entries of {self.patients} patients"
        return "\n".join(map(str, self.breaches))


class Stored(NamedTuple):
    """An entry as it lies in the database; what was altered may be of any type.

    Attributes
    ----------
    patient, sequence, position, kind, entered, author, model, seal, previous, hash
        The chain's columns: position counts over the whole store, model is JSON, previous is the hash
        of the patient's entry before.
    record, valid, salt, payload
        The content, None where it is not there.
    """

    patient: Any
    sequence: Any
    position: Any
    kind: Any
    entered: Any
    author: Any
    model: Any
    seal: Any
    previous: Any
    hash: Any
    record: Any = None
    valid: Any = None
    salt: Any = None
    payload: Any = None


#: What an entry's hash covers, beside the hash before.
HASHED = ("patient", "sequence", "position", "kind", "entered", "author", "model", "seal")


def digest(value: Any, previous: Any = "") -> str:
    """Return SHA-256(JSON of the value + the hash before) [2]_, hexadecimal.

    Parameters
    ----------
    value : object
        Whatever JSON cannot say (an altered cell may be bytes) stands as its Python text.
    previous : str
        The hash before.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(f"{text}{previous!s}".encode("ascii", "backslashreplace")).hexdigest()


def store_genesis(store: str, created: str) -> str:
    """Return what the store's chain begins with."""
    return digest({"store": store, "created": created})


def genesis(store: str, patient: str) -> str:
    """Return what a patient's chain begins with: a chain of another store or patient does not fit."""
    return digest({"store": store, "patient": patient})


def seal(salt: Any, record: Any, valid: Any, payload: Any) -> str:
    """Return the salted hash of an entry's content; payload is JSON text."""
    return digest({"salt": salt, "record": record, "valid": valid, "payload": payload})


def entry_hash(entry: Stored, previous: Any) -> str:
    """Return the hash of an entry that follows on another [1]_."""
    return digest({name: getattr(entry, name) for name in HASHED}, previous)


def first_breach(
    store: str, patient: str, rows: Sequence[Stored], head: Head | None
) -> Breach | None:
    """Return where a patient's chain breaks first, None where it holds.

    Parameters
    ----------
    store : str
        The store's identity.
    patient : str
    rows : sequence of Stored
        In the order of their numbers.
    head : Head or None
        As the store keeps it; None where it has none.
    """
    broken = _first_unlinked(store, patient, rows, head)
    whole = rows[: (broken.sequence or 1) - 1] if broken else rows
    erased = max((row.sequence for row in whole if row.kind == ERASURE), default=0)
    for row in whole:  # a content counts as the first breach only where the chain holds
        if why := _content_differs(row, erased):
            return Breach(patient, row.sequence, why)
    return broken


def _first_unlinked(
    store: str, patient: str, rows: Sequence[Stored], head: Head | None
) -> Breach | None:
    """Return where hashes do not follow on each other."""
    if head is None and not rows:
        return Breach(patient, None, "there is no entry, and no head that counts them")
    follows = [*(row.previous for row in rows[1:]), head.hash if head else None][: len(rows)]
    before = genesis(store, patient)
    for expected, (row, following) in enumerate(zip(rows, follows, strict=True), start=1):
        if row.sequence != expected:
            return Breach(
                patient, expected, f"it is missing; the next that is kept is {row.sequence}"
            )
        if why := _link_differs(row, before, following):
            return Breach(patient, expected, why)
        before = row.hash
    return _head_differs(patient, rows, head)


def _link_differs(row: Stored, before: str, following: Any) -> str:
    """Say how an entry does not follow on the one before; "" where it does."""
    if row.previous != before:
        if entry_hash(row, before) == row.hash:
            return "the hash of the entry before, as it keeps it, was altered"
        return "it does not follow on the entry before: removed, moved, replaced or put in later"
    own = entry_hash(row, before)
    if own == row.hash:
        return ""
    if own == following:
        return "its own hash was altered"
    return "its kind, time, author, model, position or seal is not what was hashed"


def _content_differs(row: Stored, erased: int) -> str:
    """Say how a content is not what was sealed; "" where it is."""
    if row.sequence < erased:
        return (
            ""
            if row.payload is None and row.salt is None
            else "its content was erased, and is there"
        )
    if row.payload is None and row.salt is None:
        return "its content is missing, and no erasure says why"
    if seal(row.salt, row.record, row.valid, row.payload) != row.seal:
        return "its payload, record ID, valid time or salt is not what was sealed"
    return ""


def _head_differs(patient: str, rows: Sequence[Stored], head: Head | None) -> Breach | None:
    """Return what the head knows otherwise than the entries."""
    count = len(rows)
    if head is None:
        return Breach(patient, count, "the head that counts this patient's entries is missing")
    if not isinstance(head.length, int):
        return Breach(patient, count, f"the head counts {head.length!r} entries: it was altered")
    if head.length > count:
        missing = f"{count + 1} to {head.length}" if head.length > count + 1 else f"{count + 1}"
        says = (
            f"it is missing at the end: the head counts {head.length}, so that {missing} are gone"
        )
        return Breach(patient, count + 1, says)
    if head.length < count:
        says = f"the head counts {head.length} entries: it was altered, or this one put in later"
        return Breach(patient, head.length + 1 if head.length >= 0 else count, says)
    if head.hash != rows[-1].hash:
        return Breach(patient, count, "the head's hash is not that of this, the last entry")
    return None


def store_breach(
    begin: str, rows: Sequence[tuple[Any, Any]], head: Head, anchors: Sequence[Head] = ()
) -> list[Breach]:
    """Return what the chain of the whole store says otherwise than its head and anchors.

    Parameters
    ----------
    begin : str
        What the chain begins with.
    rows : sequence of (position, hash)
        Of every entry, in the order of positions.
    head : Head
        As the store keeps it.
    anchors : sequence of Head
        Heads of the store that were kept elsewhere.
    """
    found, chain = [], [begin]
    for expected, (position, own) in enumerate(rows, start=1):
        if position != expected and not found:
            says = (
                f"of all entries, number {expected} is missing; the next that is kept is {position}"
            )
            found.append(Breach(None, None, says))
        chain.append(digest(own, chain[-1]))
    if not found and head.length != len(rows):
        says = f"its head counts {head.length} entries; {len(rows)} are kept"
        found.append(Breach(None, None, says))
    if not found and head.hash != chain[-1]:
        says = "its head is not the hash of all entries: an entry's hash, or the head, was altered"
        found.append(Breach(None, None, says))
    return found + [b for a in anchors for b in _unanchored(a, chain)]


def _unanchored(anchor: Head, chain: Sequence[str]) -> list[Breach]:
    """Return that a chain does not pass through a head that was kept elsewhere."""
    length = anchor.length
    if 0 <= length < len(chain) and chain[length] == anchor.hash:
        return []
    says = (
        f"it does not pass through the head kept elsewhere ({length} entries, {anchor.hash[:12]})"
    )
    return [Breach(anchor.patient, length, says)]


def anchored(anchor: Head, rows: Sequence[Stored]) -> list[Breach]:
    """Return that a patient's entries do not pass through a head that was kept elsewhere."""
    return _unanchored(anchor, ["", *(str(row.hash) for row in rows)])
