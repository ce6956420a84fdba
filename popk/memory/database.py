"""Where does it lie? Tables in SQLite or PostgreSQL, one writer at a time, and the schema's version.

A writer holds the store's one row (in SQLite the database) from before it reads the last entry until its
own is on disk: no two entries follow on the same one, and what was acknowledged outlives the process.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from popk.memory.chain import store_genesis
from popk.memory.writing import StoreError, moment

try:
    import sqlalchemy as sa
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a twin store needs SQLAlchemy, which is not installed: pip install 'popk[store]'"
    ) from error

#: The version of the tables below; `MIGRATIONS` lead to it.
SCHEMA = 1
#: For each older version, what makes the next one of it.
MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {}

_WAIT = 120.0  # seconds that a writer waits for its turn
_CONNECTIONS = 8
_CREATING = 0x706F706B  # PostgreSQL's advisory lock while tables are made

_tables = sa.MetaData()
#: The one row that says what the store is, and the head of the chain of all entries.
STORE = sa.Table(
    "popk_store", _tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)  # fmt: skip
#: The head of each patient's chain.
HEADS = sa.Table(
    "popk_heads", _tables,
    sa.Column("patient", sa.Text, primary_key=True),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)  # fmt: skip
#: The chains: nothing here is ever changed or removed.
ENTRIES = sa.Table(
    "popk_entries", _tables,
    sa.Column("patient", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("entered", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("seal", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)  # fmt: skip
#: What the entries say, apart from the chains so that it can be erased.
CONTENTS = sa.Table(
    "popk_contents", _tables,
    sa.Column("patient", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("record", sa.Text),
    sa.Column("valid", sa.Text),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Index("popk_contents_record", "patient", "record"),
)  # fmt: skip


class Database:
    """The tables of one store.

    Parameters
    ----------
    url : path or str
        A file, or ``sqlite:///FILE``, or ``postgresql://USER@HOST/NAME``.
    create : bool
        Whether a store is made where there is none.
    now : Callable
        The clock, for when the store was made.

    Raises
    ------
    StoreError
        No store is there, it is another program's or of a newer popk, or it cannot be reached.
    """

    def __init__(self, url: str | Path, *, create: bool, now: Callable[[], Any]):
        self.url = _address(url)
        self.name = self.url.render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and not create and not Path(self.url.database or "").is_file():
            raise StoreError(f"there is no store {self.url.database}; make one with popk twin new")
        self._turn = threading.Lock()  # SQLite lets waiting writers in by chance, a lock in turn
        with self._sentences():
            self._engine = self._connected()
        self._process = os.getpid()
        try:
            self._prepare(create, now)
        except BaseException:
            self._engine.dispose()
            raise

    def _connected(self) -> sa.Engine:
        """Return connections to the database."""
        if self.sqlite:
            options: dict[str, Any] = {"timeout": _WAIT, "check_same_thread": False}
        else:
            options = {"connect_timeout": 10}
        engine = sa.create_engine(
            self.url, pool_size=_CONNECTIONS, max_overflow=0, pool_timeout=_WAIT, connect_args=options,
            poolclass=sa.pool.QueuePool,
        )  # fmt: skip
        if self.sqlite:
            event.listen(engine, "connect", _settings)
            event.listen(engine, "begin", _begin)
        return engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection that sees the store as it is at one moment."""
        with self._sentences(), self._own().connect() as connection:
            if not self.sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[sa.Connection, Any]]:
        """Give a connection, and the store's row, to the one who writes; on disk when it ends."""
        turn = self._turn if self.sqlite else contextlib.nullcontext()
        with self._sentences(), turn, self._own().connect() as connection:
            connection.execution_options(popk_writing=True)
            with connection.begin():
                row = connection.execute(sa.select(STORE).with_for_update()).one_or_none()
                if row is None:
                    raise StoreError(
                        f"{self.name} has lost the row that says what it is; restore it"
                    )
                yield connection, row

    def forget(self) -> None:
        """Overwrite what was removed as far as the database allows."""
        with self._sentences():
            if self.sqlite:
                with contextlib.closing(self._own().raw_connection()) as raw:
                    raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return
            with self._own().connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql("VACUUM FULL popk_contents")

    def unsound(self) -> str:
        """Return what SQLite itself finds wrong with its file; "" where nothing."""
        if not self.sqlite:
            return ""
        with self.reading() as connection:
            said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        return "" if said == "ok" else str(said)

    def _own(self) -> sa.Engine:
        """Return connections of this process: those of the one that it was forked from are not its own."""
        if os.getpid() != self._process:
            self._engine.dispose(close=False)
            self._turn, self._process = threading.Lock(), os.getpid()
        return self._engine

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what the database says into one sentence."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise StoreError(
                f"{self.name} needs {error.name}: pip install 'popk[store]'"
            ) from error
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            said = str(cause).strip().splitlines() or [type(cause).__name__]
            raise StoreError(
                f"{self.name} cannot be read or written: {said[0]}; check the address, the rights and "
                f"the disk, or restore the store"
            ) from error

    def _prepare(self, create: bool, now: Callable[[], Any]) -> None:
        """Make the tables where there are none; bring older ones up to date."""
        with self._sentences(), self._engine.connect() as connection:
            connection.execution_options(popk_writing=create)
            with connection.begin():
                if not self.sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
                tables = set(sa.inspect(connection).get_table_names())
                if STORE.name not in tables:
                    self._refuse_to_make(create, tables)
                    _make(connection, moment(now(), "the clock"))
                row = connection.execute(sa.select(STORE)).one_or_none()
                if row is None:
                    raise StoreError(
                        f"{self.name} has lost the row that says what it is; restore it"
                    )
                version = row.schema_version
        if version != SCHEMA:
            self._migrate()

    def _refuse_to_make(self, create: bool, tables: set[str]) -> None:
        if not create:
            raise StoreError(f"{self.name} holds no twin store; make one with popk twin new")
        if self.sqlite and tables:
            raise StoreError(
                f"{self.name} is another program's database (with {', '.join(sorted(tables)[:3])}); "
                f"choose another file"
            )

    def _migrate(self) -> None:
        """Bring the tables to this version, all steps or none."""
        with self.writing() as (connection, row):
            found = row.schema_version
            steps = range(found, SCHEMA) if isinstance(found, int) else ()
            if found != SCHEMA and (not steps or not set(steps) <= set(MIGRATIONS)):
                raise StoreError(
                    f"{self.name} has schema version {found}; this popk knows versions "
                    f"{min(MIGRATIONS, default=SCHEMA)} to {SCHEMA}: use the popk that made it, or a newer"
                )
            for version in steps:
                MIGRATIONS[version](connection)
            connection.execute(sa.update(STORE).values(schema_version=SCHEMA))


def _address(url: str | Path) -> sa.URL:
    """Return the address of a database, with the driver that popk uses."""
    text = str(url)
    if "://" not in text:
        if not text.strip() or text == ":memory:":
            raise StoreError(
                f"the store is {text!r}; give a file or a URL: what is in memory is forgotten"
            )
        return sa.URL.create("sqlite", database=text)
    try:
        found = sa.make_url(text)
    except ArgumentError as error:
        raise StoreError(
            f"{text!r} is no URL; write sqlite:///FILE or postgresql://HOST/NAME"
        ) from error
    if found.drivername == "sqlite" and found.database and found.database != ":memory:":
        return found
    if found.drivername in ("postgresql", "postgresql+psycopg"):
        return found.set(drivername="postgresql+psycopg")
    raise StoreError(
        f"{found.render_as_string(hide_password=True)!r} is no place for a store; write sqlite:///FILE or "
        f"postgresql://HOST/NAME"
    )


def _make(connection: sa.Connection, created: str) -> None:
    _tables.create_all(connection)
    identity = secrets.token_hex(16)
    connection.execute(
        sa.insert(STORE).values(
            id=1, schema_version=SCHEMA, identity=identity, created=created, length=0,
            hash=store_genesis(identity, created),
        )
    )  # fmt: skip


def _settings(connection: Any, _: Any) -> None:
    """Set up one connection to SQLite: a journal that readers need not wait for, each commit on disk."""
    connection.isolation_level = None  # BEGIN is said by _begin, not by the driver
    connection.text_factory = lambda text: text.decode(
        "utf-8", "surrogateescape"
    )  # altered bytes too
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            break
        except Exception as error:  # the driver's own; only "locked" is waited for
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # SQLite does not wait by itself while another makes it a WAL
    for setting in ("synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: sa.Connection) -> None:
    """Begin to write by taking the lock at once: two who read first could not both go on."""
    writes = connection.get_execution_options().get("popk_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
