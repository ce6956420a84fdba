"""What was believed of a patient, when, and why? `TwinStore`: entries that are added, and never changed."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from popk.memory.beliefs import belief, table
from popk.memory.chain import ERASURE, Head, Verification, first_breach
from popk.memory.database import CONTENTS, ENTRIES, HEADS, STORE, Database
from popk.memory.drafts import (
    drafted,
    drafted_records,
    refuse_correction,
    refuse_other_model,
)
from popk.memory.entries import (
    CHANGES,
    KINDS,
    Draft,
    Entry,
    head_of,
    now_utc,
    opened,
    stored,
    write,
)
from popk.memory.examination import examined, examined_export, exported
from popk.memory.writing import StoreError, canonical, moment, named
from popk.patients.twin import Twin
from popk.runs import Run
from popk.trial import Trial, read_nonmem


class TwinStore:
    """A store of twins: everything believed of patients, each entry hashed with the one before.

    Entries are added and never changed: what was wrong is corrected or retracted by a further entry. Each
    has its time of entry, so that every question can be asked as of a day. Everything that is read is
    verified first.

    An entry that was altered, removed, moved or put in is found by `verify`, and so are entries missing at
    the end, by the heads that the store keeps. One who can write to the database and knows how may
    rewrite entries, hashes and heads alike, or put back an old copy: that is found only where `head` was
    kept elsewhere [1]_, as an anchor of `verify`.

    Parameters
    ----------
    url : path or str
        A file of SQLite, or a URL: ``sqlite:///FILE``, ``postgresql://USER@HOST/NAME``.
    create : bool
        Whether a store is made where there is none.
    clock : Callable, optional
        What gives the time of entry, a datetime with a zone; by default the system's, in UTC.

    Raises
    ------
    StoreError
        No store is there, it is another program's or of a newer popk, or it cannot be reached.

    References
    ----------
    .. [1] Haber S, Stornetta WS (1991). How to time-stamp a digital document. J Cryptology 3:99-111.
       doi:10.1007/BF00196791

    Examples
    --------
    >>> store = popk.TwinStore("twins.db")  # doctest: +SKIP
    >>> store.append("3", "note", {"text": "asked for a level"}, author="Dr. Vogel")  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str | Path = "sqlite:///twins.db",
        *,
        create: bool = True,
        clock: Callable[[], Any] | None = None,
    ):
        self._now = clock or now_utc
        self._database = Database(url, create=create, now=self._now)

    @property
    def patients(self) -> list[str]:
        """Return the patients' IDs, those of erased ones too."""
        with self._database.reading() as connection:
            query = sa.select(HEADS.c.patient).order_by(HEADS.c.patient)
            return list(connection.execute(query).scalars())

    def append(
        self,
        patient: str,
        kind: str,
        payload: Any,
        *,
        author: str,
        model: Run | dict[str, Any] | None = None,
        record: str | None = None,
        valid: datetime | str | None = None,
    ) -> Entry:
        """Enter one thing, and return it when it is on disk.

        Parameters
        ----------
        patient : str
            The patient's pseudonym: the ID of their records.
        kind : str
            "record", "correction", "retraction", "update", "forecast", "recommendation", "alarm",
            "decision" or "note".
        payload : object
            What JSON can say, of finite numbers. Of a record its row, units and covariates, ``{"row":
            {"TIME": 1.0, "DV": 5.1}, "units": {...}, "covariates": [...]}``; of a correction the columns
            that change and why, ``{"row": {"DV": 6.1}, "reason": "..."}``; of a retraction its reason.
        author : str
            Who enters it.
        model : Run or dict, optional
            With which model: its name, version, and the SHA-256 of its source and its posterior.
        record : str, optional
            The ID of what is entered. Entered twice with the same content it is one entry (`repeated`).
            Records need one; a correction or a retraction names the record's.
        valid : datetime, optional
            Since when it holds in the world, with a time zone.

        Raises
        ------
        StoreError
            Something is missing or no JSON, a record is known with other content (correct it) or not at
            all, the patient was erased, or nothing can be written.
        DataError
            A record that `read_nonmem` would refuse, as it is or as it is corrected.
        """
        draft = drafted(patient, kind, payload, author, model=model, record=record, valid=valid)
        if kind == "correction":
            refuse_correction(patient, self._told(patient), draft)
        return self._written(patient, [draft])[0]

    def append_records(
        self,
        patient: str,
        records: Trial | pd.DataFrame,
        *,
        author: str,
        ids: Sequence[Any] | None = None,
    ) -> list[Entry]:
        """Enter a table of one patient's records, all or none.

        Parameters
        ----------
        patient : str
            The ID that the records have.
        records : Trial or DataFrame
            With units and covariates; a DataFrame's in ``attrs``, else those that the patient has.
        author : str
        ids : sequence of str, optional
            Of each record; by default the column RECORD of a DataFrame, else what it is and when: a
            second level of one time then needs an ID of its own.

        Returns
        -------
        list of Entry
            One for each record; those that were known already are marked `repeated`.

        Raises
        ------
        DataError
            What `read_nonmem` refuses, of these records or of all together.
        StoreError
            Another patient's record, or what `append` refuses.
        """
        known = self._told(named(patient, "the patient's ID"))
        return self._written(patient, drafted_records(patient, records, author, ids, known))

    def remember(self, twin: Twin, *, author: str, model: Run | dict[str, Any]) -> Entry:
        """Enter what a twin believes: medians and 90% intervals, Pareto k, seed, and which records it knows.

        Parameters
        ----------
        twin : Twin
            Of the patient's valid records, no more and no fewer: else it is refused.
        author : str
        model : Run or dict
            What the twin was made with, as in `append`.
        """
        payload = belief(twin, self.records(twin.id))
        return self.append(twin.id, "update", payload, author=author, model=model)

    def history(
        self,
        patient: str,
        as_of: datetime | str | None = None,
        kinds: Iterable[str] | None = None,
        *,
        unverified: bool = False,
    ) -> list[Entry]:
        """Return a patient's entries in the order in which they were entered.

        Parameters
        ----------
        patient : str
        as_of : datetime or str, optional
            Only what had been entered by then; with a time zone.
        kinds : iterable of str, optional
            Only these.
        unverified : bool
            Show a chain that is broken too.

        Raises
        ------
        StoreError
            There is no such patient, or the chain is broken: then where.
        """
        wanted = None if kinds is None else set(kinds)
        if wanted and (strange := wanted - set(KINDS)):
            raise StoreError(
                f"kind {sorted(strange)[0]!r} is unknown; use one of {', '.join(KINDS)}"
            )
        until = None if as_of is None else moment(as_of, "as_of")
        with self._database.reading() as connection:
            rows = stored(connection, ENTRIES.c.patient == patient)
            head = head_of(connection, patient)
            identity = connection.execute(sa.select(STORE.c.identity)).scalar_one()
        if not rows and head is None:
            raise StoreError(
                f"the store knows no patient {patient}; it has {len(self.patients)} others"
            )
        if not unverified and (breach := first_breach(identity, patient, rows, head)):
            raise StoreError(f"{breach}; nothing is read from a broken chain: restore the store")
        rows = [r for r in rows if until is None or r.entered <= until]
        return [opened(r) for r in rows if wanted is None or r.kind in wanted]

    def records(
        self,
        patient: str,
        as_of: datetime | str | None = None,
        *,
        until: float | None = None,
    ) -> pd.DataFrame:
        """Return the records that were believed at a time, as `read_nonmem` takes them.

        Parameters
        ----------
        patient : str
        as_of : datetime or str, optional
            What had been entered by then; by default all.
        until : float, optional
            What had happened by then, on the patient's own clock [TIME]; by default all.

        Returns
        -------
        DataFrame
            One row for each valid record in time order, its ID the index. ``attrs`` has units and
            covariates, `entered` (when each was entered) and `changes`, every correction and
            retraction: what it was, what it is, who said so, when and why.

        Raises
        ------
        StoreError
            No record was valid, they were erased, or the chain is broken.
        """
        entries = self.history(patient, as_of, ["record", *CHANGES])
        if any(entry.erased for entry in entries):
            raise StoreError(f"the records of patient {patient} were erased")
        return table(patient, entries, until)

    def twin(
        self,
        patient: str,
        run: Run,
        as_of: datetime | str | None = None,
        *,
        other_model: bool = False,
    ) -> Twin:
        """Return the twin that was believed in at a time: of its records, seed and model.

        Parameters
        ----------
        patient : str
        run : Run
            The model and the posterior.
        as_of : datetime or str, optional
            By default now.
        other_model : bool
            Take another model, or another fit, than that of the last update; else it is refused.
        """
        records = self.records(patient, as_of)
        updates = self.history(patient, as_of, ["update"])
        seeds: dict[str, Any] = {}
        if updates:
            last = updates[-1].payload
            seeds = {n: last[n] for n in ("seed", "population_draws") if n in last}
            if not other_model:
                refuse_other_model(updates[-1], run)
        return Twin(run.model, run.posterior, read_nonmem(records), **seeds)

    def head(self, patient: str | None = None) -> Head:
        """Return the length and last hash of a patient's chain, or of the whole store's, to keep elsewhere.

        Parameters
        ----------
        patient : str, optional
        """
        with self._database.reading() as connection:
            row = connection.execute(sa.select(STORE.c.length, STORE.c.hash)).one()
            head = Head(None, *row) if patient is None else head_of(connection, patient)
        if head is None:
            raise StoreError(f"the store knows no patient {patient}")
        return head

    def verify(self, patient: str | None = None, *, anchors: Iterable[Head] = ()) -> Verification:
        """Return whether anything was altered, and where first.

        Parameters
        ----------
        patient : str, optional
            By default all, and the store as a whole.
        anchors : iterable of Head
            Heads that were kept elsewhere, each of which the chain must pass through.
        """
        unsound = "" if patient is not None else self._database.unsound()
        with self._database.reading() as connection:
            return examined(connection, patient, list(anchors), unsound)

    def export(self, patient: str) -> dict[str, Any]:
        """Return everything about a patient as JSON has it, with hashes and salts to verify it elsewhere.

        Parameters
        ----------
        patient : str
        """
        with self._database.reading() as connection:
            return exported(connection, patient)

    @staticmethod
    def verify_export(document: dict[str, Any]) -> Verification:
        """Return whether an export is what was exported.

        Parameters
        ----------
        document : dict
            As `export` returned it.
        """
        return examined_export(document)

    def erase(self, patient: str, *, author: str, reason: str) -> Entry:
        """Erase what the entries of a patient say; that there were entries, when and by whom remains.

        The content goes with its salt, so that the hashes that remain say nothing of it, and is
        overwritten in the file (SQLite) or the table rewritten (PostgreSQL). Copies elsewhere are not
        reached: backups, exports, PostgreSQL's log. Authors, kinds, times of entry, models and the
        pseudonym remain, and the patient takes no further entries.

        Parameters
        ----------
        patient : str
        author, reason : str
            Who, and why; both remain.
        """
        if patient not in self.patients:
            raise StoreError(f"the store knows no patient {patient}: nothing is erased")
        payload = {"reason": named(reason, "the reason")}
        draft = Draft(ERASURE, canonical(payload), named(author, "the author"))
        with self._database.writing() as (connection, store):
            entry = write(connection, store, patient, [draft], self._now)[0]
            connection.execute(
                sa.delete(CONTENTS).where(
                    CONTENTS.c.patient == patient, CONTENTS.c.sequence < entry.sequence
                )
            )
        self._database.forget()
        return entry

    def _told(self, patient: str) -> list[Entry]:
        """Return what was said of a patient's records, nothing where the patient is new."""
        if patient not in self.patients:
            return []
        told = self.history(patient, kinds=["record", *CHANGES])
        return [entry for entry in told if not entry.erased]

    def _written(self, patient: str, drafts: Sequence[Draft]) -> list[Entry]:
        """Return the entries of drafts when they are on disk."""
        with self._database.writing() as (connection, store):
            return write(connection, store, patient, drafts, self._now)

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def __enter__(self) -> "TwinStore":
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        """Return where the store is."""
        return f"TwinStore({self._database.name!r})"
