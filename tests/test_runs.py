"""A run folder is complete or absent, and says so when a byte of it changes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import popk
from popk.runs import RunError, load_model, staged_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, theophylline_model, theophylline_posterior, theophylline):
    folder = tmp_path_factory.mktemp("runs") / "deep" / "theophylline"
    return popk.save_run(folder, theophylline_model, theophylline_posterior, theophylline)


def test_a_run_gives_back_what_was_saved(run, theophylline, theophylline_posterior):
    again = popk.open_run(run.path)
    np.testing.assert_array_equal(
        again.posterior["posterior"]["CL_pop"], theophylline_posterior["posterior"]["CL_pop"]
    )
    np.testing.assert_array_equal(again.trial.observations.value, theophylline.observations.value)
    assert again.trial.units == theophylline.units
    assert again.trial.ids == theophylline.ids
    assert again.trial.host.name == theophylline.host.name
    values = {"CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5}
    assert float(popk.predict_at(again.model, again.trial, values)[0, 2]) == pytest.approx(
        2.7191794
    )


def test_a_run_folder_names_every_input_and_its_hash(run):
    info = json.loads((run.path / "run.json").read_text())
    assert set(info["files"]) == {"posterior.nc", "model.py", "trial.csv"}
    assert all(len(digest) == 64 for digest in info["files"].values())
    assert info["seed"] == 1
    assert info["settings"]["draws"] == 200
    assert info["versions"]["popk"] == "0.1.0"
    assert len(info["trial"]["sha256"]) == 64


@pytest.mark.parametrize("name", ["posterior.nc", "model.py", "trial.csv"])
def test_one_changed_byte_is_found(run, tmp_path, name):
    for file in run.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name} is not the file that the fit wrote"):
        popk.open_run(tmp_path)


def test_a_missing_file_is_named(run, tmp_path):
    (tmp_path / "run.json").write_bytes((run.path / "run.json").read_bytes())
    with pytest.raises(RunError, match=r"posterior\.nc is missing"):
        popk.open_run(tmp_path)


def test_a_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        popk.open_run(tmp_path)


def test_an_existing_folder_is_refused_and_left_alone(
    run, theophylline_model, theophylline_posterior, theophylline
):
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(RunError, match="exists; choose another folder"):
        popk.save_run(run.path, theophylline_model, theophylline_posterior, theophylline)
    assert (run.path / "run.json").read_bytes() == before


def test_overwriting_replaces_a_run_folder_but_nothing_else(tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter").write_text("years of work")
    with (
        pytest.raises(RunError, match="is no run folder, so it is not overwritten"),
        staged_run(other, overwrite=True),
    ):
        pass
    assert (other / "chapter").read_text() == "years of work"


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), staged_run(tmp_path / "run") as folder:
        (folder / "half").write_text("written")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from popk.runs import staged_run

with staged_run(sys.argv[1], overwrite=True) as folder:
    (folder / "half").write_text("written")
    os._exit(9)
"""


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "run")], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "half").is_file()
    with staged_run(tmp_path / "run") as folder:
        assert not left.exists()
        assert list(folder.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_two_processes_do_not_write_one_run(tmp_path):
    with (
        staged_run(tmp_path / "run"),
        pytest.raises(RunError, match="is being written by another process"),
        staged_run(tmp_path / "run"),
    ):
        pass
    with staged_run(tmp_path / "run.2"), staged_run(tmp_path / "run.3"):
        pass


def test_an_old_run_comes_back_where_its_replacement_was_killed(tmp_path, run):
    old = shutil.copytree(run.path, tmp_path / ".run.staging-abcdefgh.old")
    with (
        pytest.raises(RunError, match="exists; choose another folder"),
        staged_run(tmp_path / "run"),
    ):
        pass
    assert not old.exists()
    assert popk.open_run(tmp_path / "run").info == run.info


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size")
def test_a_full_disk_leaves_no_run_folder(
    tmp_path, theophylline_model, theophylline_posterior, theophylline
):
    import resource

    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (50_000, hard)
    )  # writing more fails, as on a full disk
    try:
        with pytest.raises(RunError, match="cannot be written"):
            popk.save_run(
                tmp_path / "run", theophylline_model, theophylline_posterior, theophylline
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match="cannot be written"),
        staged_run(tmp_path / "file" / "run"),
    ):
        pass


def written(folder: Path, text: str) -> Path:
    path = folder / "model.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "has no model function: define one"),
        ("def f(data):\n    pass\n", "has no model function"),
        ("def f(trial):\n    pass\ndef g(trial):\n    pass\n", r"has 2 model functions \(f, g\)"),
        ("import nothing_like_it\n", "at line 1 raised ModuleNotFoundError"),
        ("x = 1\n1 / 0\n", "at line 2 raised ZeroDivisionError: division by zero"),
        ("def f(trial:\n", "raised SyntaxError"),
    ],
)
def test_a_file_without_one_model_is_refused(tmp_path, text, says):
    with pytest.raises(RunError, match=says):
        load_model(written(tmp_path, text))


def test_private_functions_and_optional_arguments_do_not_hide_the_model(tmp_path):
    text = "def _helper(trial):\n    pass\ndef model(trial, scale=1):\n    return scale\n"
    assert load_model(written(tmp_path, text))(None) == 1


def test_a_missing_model_file_is_named(tmp_path):
    with pytest.raises(RunError, match="there is no model file"):
        load_model(tmp_path / "none.py")
