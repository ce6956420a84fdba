"""Whoever edits the database behind the store's back is found, and where they did."""

import contextlib
import sqlite3

import pytest

import popk
from tests.memory.conftest import level

#: Each column, and a value that differs by little: a byte, a digit, a type.
ALTERED = {
    ("popk_entries", "patient"): "'4'",
    ("popk_entries", "sequence"): "sequence + 50",
    ("popk_entries", "position"): "position + 50",
    ("popk_entries", "kind"): "'alarm'",
    ("popk_entries", "entered"): "replace(entered, '08:00', '08:01')",
    ("popk_entries", "author"): "author || ' '",
    ("popk_entries", "model"): "replace(model, '0.1.0', '0.1.1')",
    ("popk_entries", "seal"): "substr(seal, 2) || '0'",
    ("popk_entries", "previous"): "substr(previous, 2) || 'x'",
    ("popk_entries", "hash"): "substr(hash, 2) || 'x'",
    ("popk_contents", "patient"): "'4'",
    ("popk_contents", "sequence"): "sequence + 50",
    ("popk_contents", "record"): "'b'",
    ("popk_contents", "valid"): "replace(valid, '2026', '2025')",
    ("popk_contents", "salt"): "substr(salt, 2) || 'x'",
    ("popk_contents", "payload"): "replace(payload, '4.0', '4.1')",
}
#: The same, of bytes that are no text at all.
BYTES = {
    key: "x'ff00'" for key in ALTERED if key[1] not in ("sequence", "position", "patient")
}  # fmt: skip
MODEL = {"name": "m", "version": "0.1.0", "source": "a", "posterior": "b"}


@pytest.fixture
def path(lite, tmp_path):
    """A store of two patients, the third of whose six entries is a record with everything."""
    for n in (1, 2):
        lite.append("3", "note", {"n": n}, author="A")
        lite.append("5", "note", {"n": n}, author="A")
    lite.append("3", "record", level(1.0, 4.0), author="A", record="a", model=MODEL,
                valid="2026-03-01T07:00Z")  # fmt: skip
    for n in (4, 5, 6):
        lite.append("3", "note", {"n": n}, author="A")
    lite.close()
    return tmp_path / "twins.db"


def edit(path, *statements):
    """Edit a file of SQLite without the store."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        for statement in statements:
            raw.execute(statement)
        raw.commit()


def breaches(path):
    with popk.TwinStore(path, create=False) as store:
        return store.verify().breaches


def test_an_untouched_store_is_intact(path):
    with popk.TwinStore(path) as store:
        found = store.verify()
    assert found.intact
    assert str(found) == "intact: 8 entries of 2 patients"


@pytest.mark.parametrize(
    ("column", "value"),
    [*ALTERED.items(), *BYTES.items()],
    ids=lambda x: ".".join(x) if isinstance(x, tuple) else x,
)
def test_an_altered_cell_is_found_at_its_entry(path, column, value):
    table, name = column
    edit(path, f"update {table} set {name} = {value} where patient = '3' and sequence = 3")
    found = breaches(path)
    assert (found[0].patient, found[0].sequence) == ("3", 3)
    assert "5" not in {b.patient for b in found}


def test_every_column_of_the_chain_is_among_those_altered(path):
    with contextlib.closing(sqlite3.connect(path)) as raw:
        columns = {
            (table, row[1])
            for table in ("popk_entries", "popk_contents")
            for row in raw.execute(f"pragma table_info({table})")
        }
    assert columns == set(ALTERED)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("author = 'B'", "its kind, time, author, model, position or seal is not what was hashed"),
        ("previous = 'x'", "the hash of the entry before, as it keeps it, was altered"),
        ("hash = 'x'", "its own hash was altered"),
    ],
)
def test_what_differs_is_said(path, name, says):
    edit(path, f"update popk_entries set {name} where patient = '3' and sequence = 3")
    assert breaches(path)[0].says == says


@pytest.mark.parametrize(
    ("statement", "patient", "sequence"),
    [
        ("update popk_heads set hash = 'x' where patient = '3'", "3", 6),
        ("update popk_heads set length = 5 where patient = '3'", "3", 6),
        ("update popk_heads set length = 9 where patient = '3'", "3", 7),
        ("update popk_heads set length = 'x' where patient = '3'", "3", 6),
        ("update popk_heads set patient = '4' where patient = '3'", "3", 6),
        ("delete from popk_heads where patient = '3'", "3", 6),
        ("update popk_store set hash = 'x'", None, None),
        ("update popk_store set length = 7", None, None),
        ("update popk_store set created = '2026'", None, None),
        ("update popk_store set id = 2", None, None),
        ("update popk_store set identity = 'x'", "3", 1),
        ("insert into popk_contents select '9', 1, record, valid, salt, payload from popk_contents "
         "where patient = '3' and sequence = 1", "9", 1),
    ],
)  # fmt: skip
def test_altered_heads_are_found(path, statement, patient, sequence):
    edit(path, statement)
    found = breaches(path)[0]
    assert (found.patient, found.sequence) == (patient, sequence)


BOTH = ("popk_entries", "popk_contents")


@pytest.mark.parametrize("table", BOTH)
def test_a_removed_row_is_found(path, table):
    edit(path, f"delete from {table} where patient = '3' and sequence = 3")
    found = breaches(path)[0]
    assert (found.patient, found.sequence) == ("3", 3)
    assert "missing" in found.says


def test_entries_cut_off_at_the_end_are_found(path):
    edit(path, *(f"delete from {t} where patient = '3' and sequence > 4" for t in BOTH))
    found = breaches(path)
    assert str(found[0]) == (
        "patient 3, entry 5: it is missing at the end: the head counts 6, so that 5 to 6 are gone"
    )
    with popk.TwinStore(path) as store, pytest.raises(popk.StoreError, match="nothing is added"):
        store.append("3", "note", {}, author="A")


def test_entries_cut_off_with_their_head_are_found_by_the_head_of_the_store(path):
    edit(path, *(f"delete from {t} where patient = '5'" for t in (*BOTH, "popk_heads")))
    (found,) = breaches(path)
    assert "number 2 is missing" in found.says
    with popk.TwinStore(path) as store:
        assert not store.verify("5").intact


def test_entries_that_changed_places_are_found(path):
    move = "update popk_entries set sequence = {} where patient = '3' and sequence = {}"
    edit(path, move.format(99, 3), move.format(3, 4), move.format(4, 99))
    found = breaches(path)[0]
    assert (found.patient, found.sequence) == ("3", 3)
    assert "moved" in found.says


def test_an_entry_that_was_doubled_is_found(path):
    edit(
        path,
        "insert into popk_entries select patient, 7, 99, kind, entered, author, model, seal, previous, "
        "hash from popk_entries where patient = '3' and sequence = 6",
        "insert into popk_contents select patient, 7, record, valid, salt, payload from popk_contents "
        "where patient = '3' and sequence = 6",
    )
    found = breaches(path)[0]
    assert (found.patient, found.sequence) == ("3", 7)


def test_a_forged_erasure_does_not_excuse_a_missing_content(path):
    edit(
        path,
        "delete from popk_contents where patient = '3' and sequence = 2",
        "update popk_entries set kind = 'erasure' where patient = '3' and sequence = 6",
    )
    found = breaches(path)[0]
    assert (found.patient, found.sequence) == ("3", 2)


def test_an_erased_content_that_was_put_back_is_found(path):
    with popk.TwinStore(path) as store:
        store.erase("3", author="A", reason="asked")
    edit(path, "insert into popk_contents values ('3', 2, null, null, 'salt', '{}')")
    assert str(breaches(path)[0]) == "patient 3, entry 2: its content was erased, and is there"


def test_a_rewritten_store_is_found_only_by_a_head_that_was_kept_elsewhere(path, tmp_path, clock):
    with popk.TwinStore(path) as store:
        anchors = [store.head(), store.head("3")]
    with popk.TwinStore(tmp_path / "other.db", clock=clock) as forged:
        for n in range(6):
            forged.append("3", "note", {"n": n}, author="A")
        for n in range(2):
            forged.append("5", "note", {"n": n}, author="A")
        assert forged.verify().intact
        found = forged.verify(anchors=anchors).breaches
    assert [b.patient for b in found] == ["3", None]
    assert "kept elsewhere" in found[0].says


@pytest.mark.parametrize("ask", ["records", "history", "export"])
def test_nothing_is_read_from_a_broken_chain(path, ask):
    edit(path, "update popk_contents set payload = replace(payload, '4.0', '9.0')")
    with popk.TwinStore(path) as store:
        with pytest.raises(popk.StoreError, match=r"patient 3, entry 3: .*restore the store"):
            getattr(store, ask)("3")
        shown = store.history("3", unverified=True)
    assert shown[2].payload["row"]["DV"] == 9.0


def test_a_damaged_file_is_one_sentence(path):
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 9] = b"\xff" * (4096 * 7)
    path.write_bytes(content)
    with pytest.raises(popk.StoreError), popk.TwinStore(path) as store:
        assert store.verify().intact
        raise AssertionError("the damage was not found")
