"""Many who write at once, and those who are killed while they do: nothing acknowledged is lost."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

import popk

WRITERS = 100

# What `append` does when an entry is checked. The package stands empty in place of popk, whose import
# brings JAX, so that a process is soon there.
PROCESS = """
import json, sys, types
from concurrent.futures import ThreadPoolExecutor
sys.modules["popk"] = types.ModuleType("popk")
sys.modules["popk"].__path__ = [sys.argv[4]]
from popk.memory.database import Database
from popk.memory.entries import Draft, now_utc, write
database = Database(sys.argv[1], create=False, now=now_utc)
print("ready", flush=True)
sys.stdin.readline()
def wrote(thread):
    for i in range(int(sys.argv[3])):
        said = {"writer": int(sys.argv[2]), "thread": thread, "n": i}
        with database.writing() as (connection, row):
            (entry,) = write(connection, row, "3", [Draft("note", json.dumps(said), "A")], now_utc)
        sys.stdout.write(f"{entry.sequence} {i}\\n")
        sys.stdout.flush()
with ThreadPoolExecutor(int(sys.argv[5])) as pool:
    list(pool.map(wrote, range(int(sys.argv[5]))))
"""


def started(url, writer, times, threads=1):
    """Return a process that writes when it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, url, str(writer), str(times), *popk.__path__, str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(process):
    """Let a process begin."""
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_hundred_writers_at_once_lose_nothing(store):
    with ThreadPoolExecutor(WRITERS) as pool:
        write = lambda i: store.append("3", "note", {"n": i}, author=f"writer {i}")  # noqa: E731
        entries = list(pool.map(write, range(WRITERS)))
    assert sorted(e.sequence for e in entries) == list(range(1, WRITERS + 1))
    assert {e.payload["n"] for e in store.history("3")} == set(range(WRITERS))
    assert store.verify().intact


def test_a_hundred_writers_of_one_record_are_one_entry(store):
    with ThreadPoolExecutor(WRITERS) as pool:
        write = lambda _: store.append("3", "note", {"n": 1}, author="A", record="one")  # noqa: E731
        entries = list(pool.map(write, range(WRITERS)))
    assert sum(not e.repeated for e in entries) == 1
    assert {e.sequence for e in entries} == {1}
    assert len(store.history("3")) == 1


def test_processes_that_write_at_once_lose_nothing(url):
    with popk.TwinStore(url) as store:
        processes = [started(url, i, 25) for i in range(4)]
        for process in processes:
            told(process)
        said = [process.communicate(timeout=120)[0] for process in processes]
        numbers = [int(line.split()[0]) for one in said for line in one.splitlines()]
        assert sorted(numbers) == list(range(1, 101))
        for writer in range(4):  # each in its own order
            own = [e.payload["n"] for e in store.history("3") if e.payload["writer"] == writer]
            assert own == list(range(25))
        assert store.verify().intact


def test_a_killed_writer_loses_nothing_that_it_was_told(url):
    with popk.TwinStore(url) as store:
        done, enough_of = 0, (1, 7, 23)
        processes = [started(url, i, 100_000) for i in range(len(enough_of))]  # abreast until told
        for writer, (process, enough) in enumerate(zip(processes, enough_of, strict=True)):
            told(process)
            lines = [process.stdout.readline() for _ in range(enough)]
            os.kill(process.pid, signal.SIGKILL)
            lines += [
                line for line in process.communicate()[0].splitlines(True) if line.endswith("\n")
            ]
            history = {e.sequence: e.payload for e in store.history("3")}
            for sequence, n in (map(int, line.split()) for line in lines):
                assert history[sequence] == {"writer": writer, "thread": 0, "n": n}
            assert len(history) in (
                done + len(lines),
                done + len(lines) + 1,
            )  # one was not told yet
            done = len(history)
            assert store.verify().intact


@pytest.mark.slow
def test_a_hundred_writers_in_twenty_processes_lose_nothing(url):
    with popk.TwinStore(url) as store:
        processes = [started(url, i, 1, threads=5) for i in range(20)]
        for process in processes:
            told(process)
        for process in processes:
            process.communicate(timeout=300)
        found = {(e.payload["writer"], e.payload["thread"]) for e in store.history("3")}
        assert len(found) == len(store.history("3")) == WRITERS
        assert store.verify().intact


def test_a_forked_process_takes_connections_of_its_own(lite):
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    lite.append("3", "note", {"n": 0}, author="A")
    before = lite._database._process
    lite._database._process = -1  # as a child finds it
    lite.append("3", "note", {"n": 1}, author="A")
    assert lite._database._process == before
    assert lite.verify().intact


def test_a_writer_that_fails_half_way_leaves_nothing(store):
    store.append("3", "note", {"n": 0}, author="A")
    fails = pytest.raises(popk.StoreError, match="cannot be read or written")
    with fails, store._database.writing() as (connection, _):
        connection.execute(sa.text("delete from popk_entries"))
        connection.execute(sa.text("no such statement"))
    assert store.verify().intact
    assert len(store.history("3")) == 1
