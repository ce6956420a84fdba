"""The shell remembers patients: what it prints, and how it exits."""

import json
import sqlite3
from contextlib import closing

import pytest

import popk
from tests.test_cli import shell


@pytest.fixture(scope="module")
def folder(tmp_path_factory, theophylline_model, theophylline_posterior, theophylline):
    """A run, and the records of a patient in two files without units, as those of the run."""
    place = tmp_path_factory.mktemp("twins")
    popk.save_run(place / "run", theophylline_model, theophylline_posterior, theophylline)
    rows = theophylline["3"].to_dataframe()
    rows.iloc[:4].to_csv(place / "first.csv", index=False, na_rep=".")
    rows.iloc[3:6].to_csv(place / "more.csv", index=False, na_rep=".")
    return place


@pytest.mark.filterwarnings("ignore:.*count twice")
def test_a_patient_is_entered_updated_forecast_verified_and_erased(
    capsys, monkeypatch, folder, tmp_path
):
    monkeypatch.setenv("POPK_AUTHOR", "Dr. Vogel")
    store = str(tmp_path / "twins.db")

    def twin(command, *arguments):
        return shell(capsys, monkeypatch, "twin", command, store, *map(str, arguments))

    run, first, more = folder / "run", folder / "first.csv", folder / "more.csv"
    code, out, _ = twin("new", "3", "--run", run, "--records", first)
    assert code == 0
    assert out.startswith("4 records entered, 0 known already\nTwin of ID 3: 3 levels")
    assert "update remembered as entry 5 of patient 3" in out
    code, _, err = twin("new", "3", "--run", run, "--records", first)
    assert code == 2
    assert "has patient 3 already; go on with popk twin update" in err

    code, out, _ = twin("update", "3", more)
    assert code == 0
    assert out.startswith("2 records entered, 1 known already\nTwin of ID 3: 5 levels")

    code, out, _ = twin(
        "correct", "3", "EVID0 TIME1.02", "DV=8.1", "--reason", "typing", "--author", "lab"
    )
    assert code == 0
    assert "correction remembered as entry 9" in out

    code, out, _ = twin("forecast", "3", "--times", "12,24")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["12", "24", "forecast"]

    code, out, _ = twin("history", "3")
    kinds = [line.split()[3] for line in out.splitlines()]
    assert kinds == [
        *["record"] * 4,
        "update",
        "record",
        "record",
        "update",
        "correction",
        "forecast",
    ]
    assert '[EVID0 TIME1.02] {"reason": "typing", "row": {"DV": 8.1}}' in out
    assert twin("history", "3", "--as-of", "2020-01-01T00:00Z")[1] == ""

    code, out, _ = twin("export", "3")
    assert popk.TwinStore.verify_export(json.loads(out)).intact

    code, out, _ = twin("verify")
    assert code == 0
    intact, head = out.splitlines()
    assert intact == "intact: 10 entries of 1 patients"
    assert twin("verify", "--anchor", head.split()[1])[0] == 0

    assert twin("erase", "3", "--reason", "consent withdrawn", "--yes")[0] == 0
    assert twin("verify")[0] == 0
    assert "erased" in twin("history", "3")[1].splitlines()[0]


def test_a_store_that_was_altered_exits_4_and_says_where(capsys, monkeypatch, tmp_path):
    path = tmp_path / "twins.db"
    with popk.TwinStore(path) as store:
        store.append("3", "note", {"text": "x"}, author="A")
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("update popk_entries set author = 'B'")
        raw.commit()
    code, _, err = shell(capsys, monkeypatch, "twin", "verify", str(path))
    assert code == 4
    assert "patient 3, entry 1: its kind, time, author" in err
    assert shell(capsys, monkeypatch, "twin", "history", str(path), "3")[0] == 2
    assert shell(capsys, monkeypatch, "twin", "history", str(path), "3", "--unverified")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify", "none.db"], "there is no store none.db"),
        (["history", "{store}", "9"], "knows no patient 9"),
        (["history", "{store}", "3", "--as-of", "2026-03-01"], "without a time zone"),
        (["forecast", "{store}", "3", "--times", "1", "--author", "A"], "give --run"),
        (["update", "{store}", "9", "x.csv", "--author", "A"], "knows no patient 9"),
        (["correct", "{store}", "3", "a", "--reason", "x", "--author", "A"], "or --retract"),
        (["correct", "{store}", "3", "a", "DV", "--reason", "x", "--author", "A"], "write COLUMN=VALUE"),
        (["verify", "{store}", "--anchor", "7"], "write LENGTH:HASH"),
        (["erase", "{store}", "3", "--reason", "", "--yes", "--author", "A"], "the reason is ''"),
        (["new", "{store}", "4", "--run", "{folder}/run", "--records", "{folder}/first.csv",
          "--author", "A"], "has no ID 4; it has 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_exit_2(
    capsys, monkeypatch, folder, tmp_path, arguments, says
):
    store = str(tmp_path / "twins.db")
    with popk.TwinStore(store) as opened:
        opened.append("3", "note", {}, author="A")
    given = [a.replace("{store}", store).replace("{folder}", str(folder)) for a in arguments]
    code, _, err = shell(capsys, monkeypatch, "twin", *given)
    assert code == 2
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "command",
    ["new", "update", "correct", "forecast", "history", "verify", "export", "erase", "infer"],
)
def test_every_command_has_an_example(capsys, monkeypatch, command):
    code, out, _ = shell(capsys, monkeypatch, "twin", command, "--help")
    assert code == 0
    assert f"Example: popk twin {command}" in out
