"""What is remembered of a patient: entries, as-of answers, corrections, twins, erasure, and refusals."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

import popk
from popk.memory import database
from popk.memory.chain import Head
from tests.memory.conftest import UNITS, level

AUTHOR = "Dr. Vogel"


def test_what_is_entered_is_read_back_with_author_time_and_model(store, clock):
    model = {"name": "m", "version": "0.1.0", "source": "a" * 64, "posterior": "b" * 64}
    payload = {"text": "ärztlich \u0000", "list": [1, 2.5, None, True, {"x": 1e-300}]}
    valid = "2026-02-28T23:30:00+02:00"
    entry = store.append("3", "note", payload, author=AUTHOR, model=model, valid=valid)
    (read,) = store.history("3")
    assert read == entry
    assert read.payload == payload
    assert (read.sequence, read.author, read.entered) == (1, AUTHOR, clock.time)
    assert read.valid == datetime(2026, 2, 28, 21, 30, tzinfo=UTC)
    assert read.model == model


def test_a_history_as_of_a_day_has_what_was_entered_by_then(store, clock):
    store.append("3", "note", {"n": 1}, author=AUTHOR)
    first = clock.time
    clock.later(days=1)
    store.append("3", "alarm", {"n": 2}, author=AUTHOR)
    assert [e.payload["n"] for e in store.history("3")] == [1, 2]
    assert [e.payload["n"] for e in store.history("3", as_of=first)] == [1]
    assert [e.payload["n"] for e in store.history("3", as_of="2026-03-01T09:59:59+02:00")] == []
    assert [e.payload["n"] for e in store.history("3", kinds=["alarm"])] == [2]


def test_records_are_those_believed_at_the_time_with_corrections_and_retractions_named(
    store, clock
):
    store.append("3", "record", level(2.0, 5.0), author="lab", record="b")
    store.append("3", "record", level(1.0, 4.0), author="lab", record="a")
    monday = clock.time
    clock.later(days=1)
    change = {"row": {"DV": 6.0}, "reason": "typing"}
    store.append("3", "correction", change, author=AUTHOR, record="b")
    tuesday = clock.time
    clock.later(days=1)
    store.append("3", "retraction", {"reason": "another's tube"}, author=AUTHOR, record="a")

    assert store.records("3", as_of=monday)["DV"].to_dict() == {"a": 4.0, "b": 5.0}  # in time order
    assert store.records("3", as_of=tuesday)["DV"].to_dict() == {"a": 4.0, "b": 6.0}
    now = store.records("3")
    assert now["DV"].to_dict() == {"b": 6.0}
    corrected, retracted = now.attrs["changes"]
    assert corrected == {
        "record": "b", "kind": "correction", "reason": "typing", "author": AUTHOR, "sequence": 3,
        "entered": tuesday.isoformat(), "was": {"DV": 5.0}, "is": {"DV": 6.0},
    }  # fmt: skip
    assert (retracted["record"], retracted["kind"], retracted["was"]["DV"]) == (
        "a",
        "retraction",
        4.0,
    )
    # Event time against time of entry: what had happened by 1 h, as it was known on Monday.
    assert list(store.records("3", as_of=monday, until=1.0).index) == ["a"]
    assert popk.read_nonmem(now).units == UNITS


def test_a_trial_comes_back_as_it_went_in(lite, theophylline, phenobarbital):
    for trial, patient in ((theophylline, "3"), (phenobarbital, "1")):
        lite.append_records(f"{patient}", trial[patient], author="lab")
        again = popk.read_nonmem(lite.records(patient)).host.frame.drop(columns="ROW")
        pd.testing.assert_frame_equal(again, trial[patient].host.frame.drop(columns="ROW"))


def test_a_record_twice_is_one_entry_and_other_content_a_correction(store):
    first = store.append("3", "record", level(1.0, 4.0), author="lab", record="a")
    again = store.append("3", "record", level(1.0, 4.0), author="other", record="a")
    assert not first.repeated
    assert again == first._replace(repeated=True)
    with pytest.raises(popk.StoreError, match=r"known with other content \(entry 1\).*correction"):
        store.append("3", "record", level(1.0, 4.5), author="lab", record="a")
    change = {"row": {"DV": 4.5}, "reason": "typing"}
    store.append("3", "correction", change, author="lab", record="a")
    assert store.append("3", "correction", change, author="lab", record="a").repeated
    store.append(
        "3", "correction", {"row": {"DV": 4.0}, "reason": "back"}, author="lab", record="a"
    )
    assert not store.append("3", "correction", change, author="lab", record="a").repeated
    assert len(store.history("3")) == 4


def test_a_table_is_entered_whole_or_not_at_all(lite, theophylline):
    rows = theophylline["3"].to_dataframe()
    lite.append_records("3", rows.iloc[:4], author="lab")
    assert [e.repeated for e in lite.append_records("3", rows.iloc[2:6], author="lab")] == [
        True, True, False, False,
    ]  # fmt: skip
    changed = rows.iloc[4:9].assign(DV=9.0)
    changed.attrs = rows.attrs
    with pytest.raises(popk.StoreError, match=r"EVID0 TIME1\.02 of patient 3 is known with other"):
        lite.append_records("3", changed, author="lab")
    assert len(lite.records("3")) == 6
    assert lite.verify().intact


@pytest.mark.filterwarnings("ignore:.*count twice")  # the store is told of subject 3 all the same
def test_a_twin_is_rebuilt_as_it_was_believed_that_day(
    lite, clock, tmp_path, theophylline_model, theophylline_posterior, theophylline
):
    run = popk.save_run(tmp_path / "run", theophylline_model, theophylline_posterior, theophylline)
    rows = theophylline["3"].to_dataframe()
    lite.append_records("3", rows.iloc[:4], author="lab")
    twin = popk.Twin(run.model, run.posterior, popk.read_nonmem(rows.iloc[:4]), 7, 50)
    entry = lite.remember(twin, author=AUTHOR, model=run)
    monday = clock.time
    clock.later(days=1)
    lite.append_records("3", rows.iloc[4:], author="lab")
    with pytest.raises(popk.StoreError, match="knows 4 records, and the store has 12"):
        lite.remember(twin, author=AUTHOR, model=run)

    believed = lite.history("3", as_of=monday, kinds=["update"])[-1]
    assert believed == entry
    assert believed.payload["records"] == [
        "EVID0 TIME0",
        "EVID1 TIME0",
        "EVID0 TIME0.27",
        "EVID0 TIME0.58",
    ]
    assert believed.model["posterior"] == run.info["files"]["posterior.nc"]
    again = lite.twin("3", run, as_of=monday)
    assert (again.seed, again.population_draws) == (7, 50)
    for name, x in again.parameters.items():
        low, median, high = np.quantile(x, [0.05, 0.5, 0.95])
        assert believed.payload["parameters"][name] == {"p05": low, "median": median, "p95": high}
    assert believed.payload["pareto_k"] == again.pareto_k
    # Another fit is another belief.
    other = popk.open_run(run.path)
    other.info["files"] = {**run.info["files"], "posterior.nc": "0" * 64}
    with pytest.raises(popk.StoreError, match=r"last updated \(entry 5\).*another posterior"):
        lite.twin("3", other)


def test_an_export_verifies_elsewhere_and_shows_a_change(store):
    store.append("3", "record", level(1.0, 4.0), author="lab", record="a")
    store.append("3", "note", {"text": "x"}, author=AUTHOR)
    document = json.loads(json.dumps(store.export("3")))
    assert popk.TwinStore.verify_export(document).intact
    assert json.loads(document["entries"][0]["payload"])["row"]["DV"] == 4.0
    document["entries"][1]["payload"] = document["entries"][1]["payload"].replace("x", "y")
    (breach,) = popk.TwinStore.verify_export(document).breaches
    assert (breach.patient, breach.sequence) == ("3", 2)
    with pytest.raises(popk.StoreError, match="no export"):
        popk.TwinStore.verify_export({"entries": []})


# Erasure


def test_an_erased_patient_leaves_a_chain_that_holds_and_no_content(store):
    store.append("3", "record", level(1.0, 4.0), author="lab", record="tube 17")
    store.append("3", "note", {"text": "lives in Basel"}, author=AUTHOR)
    store.append("4", "note", {"text": "another"}, author=AUTHOR)
    anchor = store.head("3")
    stone = store.erase("3", author="office", reason="consent withdrawn")
    assert stone.kind == "erasure"
    assert store.verify(anchors=[anchor]).intact
    first, second, last = store.history("3")
    assert (first.payload, first.record, first.erased) == (None, None, True)
    assert (second.payload, second.author, second.erased) == (None, AUTHOR, True)
    assert (last.payload, last.author) == ({"reason": "consent withdrawn"}, "office")
    assert store.history("4")[0].payload == {"text": "another"}
    assert popk.TwinStore.verify_export(store.export("3")).intact
    with pytest.raises(popk.StoreError, match="records of patient 3 were erased"):
        store.records("3")
    for again in (
        lambda: store.append("3", "note", {}, author=AUTHOR),
        lambda: store.erase("3", author=AUTHOR, reason="again"),
    ):
        with pytest.raises(popk.StoreError, match="patient 3 was erased on 2026-03-01"):
            again()


def test_no_byte_of_an_erased_content_stays_in_the_files(lite, tmp_path):
    for i in range(40):
        lite.append("3", "note", {"text": f"lives in Basel {i}" * 20}, author=AUTHOR)
    files = lambda: b"".join(p.read_bytes() for p in tmp_path.glob("twins.db*"))  # noqa: E731
    assert b"Basel" in files()
    lite.erase("3", author="office", reason="consent withdrawn")
    assert b"Basel" not in files()
    assert b"consent withdrawn" in files()


# What cannot be entered


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"author": ""}, "the author is ''; give text"),
        ({"author": "  "}, "the author is '  '"),
        ({"patient": ""}, "the patient's ID is ''"),
        ({"patient": "a\nb"}, "characters that can be printed"),
        ({"kind": "diary"}, "kind 'diary' cannot be entered; use one of record"),
        ({"kind": "erasure"}, "kind 'erasure' cannot be entered"),
        ({"payload": {"x": float("nan")}}, "payload.x is nan; JSON has finite numbers only"),
        ({"payload": {"x": [1, float("inf")]}}, r"payload.x\[1\] is inf"),
        ({"payload": {"x": np.float64(1)}}, "payload.x is a float64, which JSON does not have"),
        ({"payload": {"x": {1, 2}}}, "payload.x is a set"),
        ({"payload": {1: 2}}, "payload has the key 1; keys are text"),
        ({"valid": datetime(2026, 3, 1)}, "valid is 2026-03-01 00:00:00, without a time zone"),
        ({"valid": "yesterday"}, "valid is 'yesterday'; give a datetime or ISO 8601"),
        ({"model": {"name": "m"}}, "give a popk.Run, or a dict of name, version, source"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_refused_in_a_sentence(lite, change, says):
    good = {"patient": "3", "kind": "note", "payload": {"x": 1}, "author": AUTHOR}
    with pytest.raises(popk.StoreError, match=says):
        lite.append(**good | change)
    assert lite.patients == []


@pytest.mark.parametrize(
    ("kind", "payload", "says"),
    [
        ("record", level(1.0, 4.0, ID="4"), "is of ID 4, not of patient 3"),
        ("record", level(1.0, "high"), "DV of the record is 'high'; give a number"),
        ("record", level(None, 4.0), "TIME of the record is None"),
        ("record", level(1.0, 4.0, CONC=3.0), "CONC is no column"),
        ("record", level(1.0, None), "DV is missing on an observation"),
        ("record", level(1.0, None, AMT=-5.0), "AMT is -5; a dose must be positive"),
        ("record", level(2.0, 4.0) | {"units": {"TIME": "h"}}, "no unit of AMT, DV, WT"),
        ("record", {"row": {"TIME": 1.0}}, "a record has row.TIME and units"),
        ("record", [1], "the payload of a record is a dict"),
        ("record", level(2.0, 4.0) | {"units": UNITS | {"DV": "ug/L"}}, "convert it to these"),
        ("correction", {"row": {"DV": 1.0}}, "the reason of a correction is None"),
        ("correction", {"row": {"Dv": 1.0}, "reason": "x"}, "Dv is no column"),
        ("correction", {"row": {"DV": None}, "reason": "x"}, "DV is missing on an observation"),
        ("correction", {"row": {"ID": "4"}, "reason": "x"}, "is of ID 4, not of patient 3"),
        ("correction", {"reason": "x"}, "has row, the columns and their values"),
    ],
)  # fmt: skip
def test_a_bad_record_or_correction_is_refused_in_a_sentence(lite, kind, payload, says):
    lite.append("3", "record", level(1.0, 4.0), author="lab", record="a")
    name = "a" if kind == "correction" else "b"
    with pytest.raises((popk.StoreError, popk.DataError), match=says):
        lite.append("3", kind, payload, author=AUTHOR, record=name)
    assert len(lite.history("3")) == 1


def test_what_is_not_known_or_retracted_cannot_be_changed(lite):
    lite.append("3", "record", level(1.0, 4.0), author="lab", record="a")
    why = {"reason": "x"}
    with pytest.raises(popk.StoreError, match="record z of patient 3 is not known"):
        lite.append("3", "retraction", why, author=AUTHOR, record="z")
    with pytest.raises(popk.StoreError, match="a retraction has the ID of its record"):
        lite.append("3", "retraction", why, author=AUTHOR)
    lite.append("3", "retraction", why, author=AUTHOR, record="a")
    for kind, payload in (("correction", why | {"row": {"DV": 1.0}}), ("record", level(1.0, 4.0))):
        with pytest.raises(popk.StoreError, match=r"was retracted \(entry 2\)"):
            lite.append("3", kind, payload, author=AUTHOR, record="a")
    with pytest.raises(popk.StoreError, match="patient 3 has no valid record"):
        lite.records("3")


def test_tables_of_others_and_doubtful_ids_are_refused(lite, theophylline):
    with pytest.raises(popk.StoreError, match="records are of ID 4, not of patient 3"):
        lite.append_records("3", theophylline["4"], author="lab")
    rows = theophylline["3"].to_dataframe().iloc[[1, 2, 2]]
    rows.attrs = theophylline["3"].to_dataframe().attrs
    with pytest.raises(popk.StoreError, match=r"two records have the ID 'EVID0 TIME0\.27'"):
        lite.append_records("3", rows, author="lab")
    with pytest.raises(popk.StoreError, match="3 records and 2 IDs"):
        lite.append_records("3", rows, author="lab", ids=["a", "b"])
    lite.append_records("3", rows.assign(RECORD=["a", "b", "c"]), author="lab")
    assert list(lite.records("3").index) == ["a", "b", "c"]


def test_asking_wrongly_is_refused(lite):
    lite.append("3", "note", {}, author=AUTHOR)
    with pytest.raises(popk.StoreError, match="as_of is 2026-03-01 00:00:00, without a time zone"):
        lite.history("3", as_of=datetime(2026, 3, 1))
    with pytest.raises(popk.StoreError, match="knows no patient 9"):
        lite.history("9")
    with pytest.raises(popk.StoreError, match="kind 'diary' is unknown"):
        lite.history("3", kinds=["diary"])
    for ask in (lite.export, lite.head):
        with pytest.raises(popk.StoreError, match="knows no patient 9"):
            ask("9")


def test_a_clock_that_goes_back_a_little_is_held_and_one_that_goes_back_far_refused(lite, clock):
    lite.append("3", "note", {}, author=AUTHOR)
    before = clock.time
    clock.later(minutes=-4)
    assert lite.append("4", "note", {}, author=AUTHOR).entered == before
    clock.later(hours=-1)
    with pytest.raises(popk.StoreError, match="set the clock right"):
        lite.append("3", "note", {}, author=AUTHOR)


# Where a store can be


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (":memory:", "what is in memory is forgotten"),
        ("sqlite://", "is no place for a store"),
        ("mysql://me:secret@host/x", r"'mysql://me:\*\*\*@host/x' is no place for a store"),
        ("postgresql://popk@/none?host=/nowhere", "cannot be read or written"),
        ("://", "is no URL"),
    ],
)
def test_what_is_no_place_for_a_store_is_refused(url, says):
    with pytest.raises(popk.StoreError, match=says):
        popk.TwinStore(url)


def test_a_file_of_something_else_is_left_alone(tmp_path):
    text, other = tmp_path / "text.db", tmp_path / "other.db"
    text.write_text("not a database, but long enough to be read as one" * 50)
    with sqlite3.connect(other) as raw:
        raw.execute("create table addresses (a)")
    raw.close()
    with pytest.raises(popk.StoreError, match="file is not a database"):
        popk.TwinStore(text)
    with pytest.raises(popk.StoreError, match=r"another program's database \(with addresses\)"):
        popk.TwinStore(other)
    with pytest.raises(popk.StoreError, match=r"there is no store .*none.db"):
        popk.TwinStore(tmp_path / "none.db", create=False)
    assert not Path(tmp_path / "none.db").exists()


def test_a_store_of_a_newer_popk_is_refused(url):
    with popk.TwinStore(url) as store, store._database.writing() as (connection, _):
        connection.execute(sa.update(database.STORE).values(schema_version=7))
    with pytest.raises(popk.StoreError, match="schema version 7; this popk knows versions 1 to 1"):
        popk.TwinStore(url)


def test_an_older_store_is_brought_up_to_date_once(url, monkeypatch):
    with popk.TwinStore(url) as store:
        store.append("3", "note", {}, author=AUTHOR)
    add = lambda c: c.exec_driver_sql("alter table popk_heads add column mark text")  # noqa: E731
    monkeypatch.setattr(database, "SCHEMA", 2)
    monkeypatch.setattr(database, "MIGRATIONS", {1: add})
    for _ in range(2):
        with popk.TwinStore(url) as store, store._database.reading() as connection:
            assert connection.execute(sa.select(database.STORE.c.schema_version)).scalar_one() == 2
            connection.exec_driver_sql("select mark from popk_heads")


def test_heads_kept_elsewhere_are_passed_through_as_the_store_grows(store):
    store.append("3", "note", {}, author=AUTHOR)
    anchors = [store.head(), store.head("3")]
    store.append("3", "note", {}, author=AUTHOR)
    store.append("4", "note", {}, author=AUTHOR)
    assert store.verify(anchors=anchors).intact
    wrong = [Head(None, 2, anchors[0].hash), Head("3", 5, anchors[1].hash)]
    assert [b.patient for b in store.verify(anchors=wrong).breaches] == ["3", None]
