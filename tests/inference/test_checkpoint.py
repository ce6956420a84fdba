"""A fit that was stopped goes on where it was, and ends with the draws of one that was not."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import popk
from popk.inference import checkpoint
from popk.inference.checkpoint import Checkpoint, CheckpointError, CheckpointWarning
from tests.conftest import ROOT
from tests.inference.gaussian import TRIAL, gaussian, gaussian_trial

SHORT = {"chains": 2, "warmup": 300, "draws": 200, "progress": False}


class StoppedError(Exception):
    """The power went."""


def gaussian_again(trial):
    """Another model of the same levels."""
    gaussian(trial)


def fitted(folder, model=gaussian, text=TRIAL, seed=1, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        trial = gaussian_trial(text)
        return popk.fit(model, trial, seed=seed, checkpoint=folder, **{**SHORT, **options})


@contextlib.contextmanager
def stopping(after=0):
    """Let fits write their checkpoint after every chunk, and stop after so many of them."""
    keep, calls = Checkpoint.keep, []

    def kept(self, run, centering, notes, *, now=False):
        keep(self, run, centering, notes, now=True)
        calls.append((run.done, len(run.stages)))
        if len(calls) == after:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "keep", kept)
        yield calls


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of a fit that was stopped in its warm-up, and of one that ended."""
    stopped, ended = (tmp_path_factory.mktemp("checkpoints") / name for name in ("some", "all"))
    with stopping(2) as calls, pytest.raises(StoppedError):
        fitted(stopped)
    assert calls[-1][0] < calls[-1][1]
    with stopping() as calls:
        fitted(ended)
    return stopped, ended, len(calls)


@pytest.fixture
def stopped(folders, tmp_path):
    return shutil.copytree(folders[0], tmp_path / "stopped")


@pytest.fixture
def ended(folders, tmp_path):
    return shutil.copytree(folders[1], tmp_path / "ended")


@pytest.fixture(scope="module")
def uninterrupted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        return popk.fit(gaussian, gaussian_trial(), seed=1, **SHORT)


def same(one: xr.DataTree, other: xr.DataTree) -> None:
    """Assert that two posteriors have the same draws and statistics, bit for bit."""
    for group in ("posterior", "sample_stats", "log_likelihood"):
        a, b = one[group].dataset, other[group].dataset
        assert set(a.data_vars) == set(b.data_vars)
        for name in a.data_vars:
            np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))
    assert one.attrs["settings"] == other.attrs["settings"]


# --- going on ---


def test_what_was_stopped_in_the_warm_up_ends_as_what_was_not(stopped, uninterrupted):
    same(fitted(stopped), uninterrupted)


def test_what_was_stopped_twice_while_sampling_ends_as_what_was_not(
    stopped, folders, uninterrupted
):
    left = folders[2] - 2
    for chunks in (left - 5, 2):
        with stopping(chunks) as calls, pytest.raises(StoppedError):
            fitted(stopped)
        assert calls[-1][0] > calls[-1][1]
    with stopping() as calls:
        same(fitted(stopped), uninterrupted)
    assert len(calls) == 3


def test_what_had_ended_takes_no_step_again(ended, uninterrupted):
    with stopping() as calls:
        same(fitted(ended), uninterrupted)
    assert calls == []


def test_going_on_is_told(stopped, caplog):
    with caplog.at_level("INFO", logger="popk"):
        fitted(stopped)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("popk")] == [
        f"going on after 50 steps, from the checkpoint {stopped}"
    ]


# --- what is refused ---


OTHERS = {
    "seed differs": {"seed": 2},
    "model_sha256, model_file differ": {"model": gaussian_again},
    "trial_sha256, records_sha256 differ": {"text": TRIAL.replace("4.1", "4.2")},
    "settings differs": {"draws": 300},
    "centering differs": {"centering": 0.0},
}


@pytest.mark.parametrize("says", OTHERS)
def test_a_checkpoint_of_another_fit_is_refused_and_left_alone(stopped, says):
    before = {file: file.read_bytes() for file in stopped.iterdir()}
    with pytest.raises(CheckpointError, match=f"of another fit: its {says}; give another folder"):
        fitted(stopped, **OTHERS[says])
    assert {file: file.read_bytes() for file in stopped.iterdir()} == before


@pytest.mark.slow
def test_one_file_read_in_two_ways_is_two_fits(tmp_path):
    path = tmp_path / "two.csv"
    rows = "1,0,0,4.1,5.0\n2,0,0,1.7,2.0\n2,1,0,2.9,3.0\n"
    path.write_text("ID,TIME,EVID,FIRST,SECOND\n" + rows)
    units = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
    first, second = (
        popk.read_nonmem(path, columns={"DV": name}, units=units) for name in ("FIRST", "SECOND")
    )
    assert first.host.fingerprint == second.host.fingerprint
    fit = partial(popk.fit, gaussian, seed=1, checkpoint=tmp_path / "kept", **SHORT)
    with stopping(1), pytest.raises(StoppedError):
        fit(first)
    with pytest.raises(CheckpointError, match="its records_sha256 differs"):
        fit(second)


@pytest.mark.parametrize("name", ["state.npz", "draws-00000.npz"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(ended, name, kept):
    file = ended / name
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"cannot be read .*; delete it and start anew"):
        fitted(ended)


@pytest.mark.parametrize("name", ["state.npz", "draws-00000.npz"])
def test_a_changed_byte_is_refused(ended, name):
    file = ended / name
    content = bytearray(file.read_bytes())
    content[250] ^= 1  # in the numbers of its first array
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read .*; delete it and start anew"):
        fitted(ended)


def test_a_missing_file_is_refused(ended):
    (ended / "draws-00000.npz").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read .*; delete it and start anew"):
        fitted(ended)


def test_a_folder_without_a_state_is_a_beginning(tmp_path, uninterrupted):
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / ".state.npz.new").write_bytes(b"half a fi")
    same(fitted(folder), uninterrupted)


# --- what cannot be written ---


def test_a_checkpoint_that_cannot_be_written_warns_and_the_fit_goes_on(
    tmp_path, monkeypatch, uninterrupted
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_save", full)
    with (
        stopping(),
        pytest.warns(CheckpointWarning, match=r"cannot be written \(No space left on device\)"),
    ):
        same(fitted(tmp_path / "kept"), uninterrupted)


# --- from the shell ---


@pytest.mark.slow
def test_a_fit_killed_ten_times_ends_with_the_draws_of_one_that_was_not(tmp_path):
    """Each time at a random moment; the last run is let alone."""
    began = time.monotonic()
    assert subprocess.run(command(tmp_path / "whole"), capture_output=True).returncode in (0, 3)
    lasted = time.monotonic() - began
    out, kills, went_on = tmp_path / "killed" / "run", 0, 0
    moments = random.Random(1)
    while kills < 10:
        process = subprocess.Popen(
            command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            _, said = process.communicate(timeout=moments.uniform(0.1, 0.5) * lasted)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            _, said = process.communicate()
            kills += 1
            assert not out.exists()
        else:
            break
        went_on += "going on after" in said
        print(f"kill {kills}: {said.strip() or 'from the beginning'}")
    done = subprocess.run(command(out), capture_output=True, text=True)
    assert done.returncode in (0, 2, 3)
    print(f"{kills} kills, {went_on} of them while going on; last: {done.stderr.strip()}")
    assert (kills, went_on > 0) == (10, True)
    assert [p.name for p in out.parent.iterdir()] == ["run"]
    one, other = popk.open_run(out), popk.open_run(tmp_path / "whole")
    same(one.posterior, other.posterior)


def command(out: Path) -> list[str]:
    model, data = ROOT / "models" / "theophylline.py", ROOT / "data" / "theophylline.csv"
    options = ["--out", str(out), "--draws", "20000", "--seed", "1", "--no-report", "--quiet"]
    return [sys.executable, "-m", "popk", "fit", str(model), str(data), *options]
