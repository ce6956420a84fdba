"""Stores to test: a file of SQLite, and a PostgreSQL server of the tests' own where one is installed."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg"}


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.time = datetime(2026, 3, 1, 8, tzinfo=UTC)

    def __call__(self):
        return self.time

    def later(self, **by):
        self.time += timedelta(**by)
        return self.time


def level(time, value, **more):
    """Return the payload of one record: a level."""
    row = {"TIME": time, "DV": value, "WT": 70.0, **more}
    return {"row": row, "units": UNITS, "covariates": ["WT"]}


def _programs():
    """Return the folder of PostgreSQL's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    where = shutil.which("initdb")
    return Path(where).resolve().parent if where else found[-1].parent if found else None


def _as_user():
    """Return how a command is run by a user that PostgreSQL takes, and their name, or None."""
    if os.geteuid() != 0:
        return [], pwd.getpwuid(os.geteuid()).pw_name
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return ["runuser", "-u", name, "--"], name
    return None


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server in a folder of its own, reached by its socket alone."""
    programs, user = _programs(), _as_user()
    if programs is None or user is None:
        pytest.skip("PostgreSQL is not installed (no initdb): its store is not tested here")
    prefix, name = user
    folder = Path(tempfile.mkdtemp(prefix="popk-pg-", dir="/tmp"))  # a socket's path must be short
    shutil.chown(folder, name)

    def say(program, *arguments):
        subprocess.run(
            [*prefix, str(programs / program), *arguments],
            check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    data = str(folder / "data")
    say("initdb", "-D", data, "-A", "trust", "-U", "popk", "-E", "UTF8")
    say("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o",
        f"-k {folder} -c listen_addresses='' -c max_connections=200", "start")  # fmt: skip
    yield folder, say, data
    say("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


_numbers = count()


def database_of(server):
    """Return the URL of a new database."""
    folder, say, _ = server
    name = f"store{next(_numbers)}"
    say("createdb", "-h", str(folder), "-U", "popk", "-T", "template0", name)
    return f"postgresql://popk@/{name}?host={folder}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Return the address of a store that is not there yet, in each of the databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'twins.db'}"
    return database_of(request.getfixturevalue("server"))


@pytest.fixture
def clock():
    """Return a clock that stands at 2026-03-01 08:00 UTC."""
    return Clock()


@pytest.fixture
def store(url, clock):
    """An empty store."""
    with popk.TwinStore(url, clock=clock) as opened:
        yield opened


@pytest.fixture
def lite(tmp_path, clock):
    """An empty store in a file, for what does not depend on the database."""
    with popk.TwinStore(tmp_path / "twins.db", clock=clock) as opened:
        yield opened
