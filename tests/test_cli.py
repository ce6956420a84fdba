"""The shell: what it prints, and that bad input is one sentence and exit code 2."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import popk
from popk import cli
from popk.inference import reweighted
from popk.inference.checkpoint import Checkpoint

ROOT = Path(__file__).parents[1]
MODEL = str(ROOT / "models" / "theophylline.py")
DATA = str(ROOT / "data" / "theophylline.csv")
UNITS = ["-u", "TIME=h", "-u", "AMT=mg", "-u", "DV=mg/L"]
SHORT = ["--chains", "2", "--warmup", "200", "--draws", "200", "--quiet"]


def shell(capsys, monkeypatch, *arguments):
    """Run a command in this process; return its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["popk", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory, theophylline_model, theophylline_posterior, theophylline):
    folder = tmp_path_factory.mktemp("cli") / "run"
    return str(popk.save_run(folder, theophylline_model, theophylline_posterior, theophylline).path)


def test_check_says_what_is_in_the_data_and_the_model(capsys, monkeypatch):
    code, out, _ = shell(capsys, monkeypatch, "check", DATA, "--model", MODEL)
    assert code == 0
    assert "subjects: 12" in out
    assert "levels: 132" in out
    assert "population: CL_pop, V_pop, KA_pop, omega_CL" in out


@pytest.mark.slow
def test_a_short_fit_makes_a_whole_run_folder_and_exits_3(capsys, monkeypatch, tmp_path):
    out = tmp_path / "run"
    code, text, err = shell(capsys, monkeypatch, "fit", MODEL, DATA, "--out", str(out), *SHORT)
    assert code == 3
    assert "NOT CONVERGED" in err
    assert "CL_pop" in text
    names = {file.name for file in out.iterdir()}
    assert names == {"posterior.nc", "run.json", "model.py", "trial.csv", "report.html"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    opened = popk.open_run(out)
    assert opened.info["convergence"]["converged"] is False
    assert "did not converge" in (out / "report.html").read_text()


SMALL_MODEL = """import numpyro
import popk


def small(trial):
    CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
    p = popk.individual(trial, CL=CL, omega=popk.fixed(0.2))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=10.0), popk.additive_error(popk.fixed(0.5)))
"""


@pytest.mark.slow
def test_a_fit_around_the_mode_says_pareto_k_and_exits_3_where_it_fails(
    capsys, monkeypatch, tmp_path
):
    (tmp_path / "small.py").write_text(SMALL_MODEL)
    (tmp_path / "small.csv").write_text(
        "ID,TIME,EVID,AMT,DV\n1,0,1,100,.\n1,2,0,.,8\n2,0,1,100,.\n2,2,0,.,7\n"
    )
    asked = ["fit", str(tmp_path / "small.py"), str(tmp_path / "small.csv"), "--method", "laplace"]
    asked += ["--no-report", "--quiet", *UNITS]
    code, text, _ = shell(capsys, monkeypatch, *asked, "--out", str(tmp_path / "good"))
    assert code == 0
    assert "weights can be trusted: Pareto k" in text
    monkeypatch.setattr(reweighted, "smoothed", lambda x: (np.full(x.size, 1 / x.size), 0.8))
    code, _, err = shell(capsys, monkeypatch, *asked, "--out", str(tmp_path / "bad"))
    assert code == 3
    assert "Pareto k of the weights is 0.80" in err
    assert "take method='nuts'" in err
    said = popk.open_run(tmp_path / "bad").info["convergence"]
    assert (said["converged"], said["pareto_k"], said["rhat"]) == (False, 0.8, None)
    code, _, err = shell(
        capsys, monkeypatch, *asked, "--chains", "2", "--out", str(tmp_path / "no")
    )
    assert code == 2
    assert "chains means nothing to method='laplace'" in err


def test_the_same_command_goes_on_where_it_was_killed(capsys, monkeypatch, tmp_path):
    keep, out = Checkpoint.keep, tmp_path / "run"

    def killed(self, run, centering, notes, *, now=False):
        keep(self, run, centering, notes, now=True)
        raise KeyboardInterrupt

    asked = ["fit", MODEL, DATA, "--out", str(out), *SHORT, "--no-report"]
    monkeypatch.setattr(Checkpoint, "keep", killed)
    with contextlib.suppress(KeyboardInterrupt):
        shell(capsys, monkeypatch, *asked)
    assert [p.name for p in tmp_path.iterdir()] == [".run.checkpoint"]
    monkeypatch.setattr(Checkpoint, "keep", keep)
    code, _, err = shell(capsys, monkeypatch, *asked)
    assert code in (0, 3)
    assert (
        f"popk: going on after 25 steps, from the checkpoint {tmp_path / '.run.checkpoint'}" in err
    )
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_checkpoint_of_another_fit_is_set_aside(capsys, monkeypatch, tmp_path):
    (tmp_path / ".run.checkpoint").mkdir()
    (tmp_path / ".run.checkpoint" / "state.npz").write_bytes(b"something else")
    asked = ["fit", MODEL, DATA, "--out", str(tmp_path / "run"), *SHORT, "--no-report"]
    code, _, err = shell(capsys, monkeypatch, *asked)
    assert code in (0, 3)
    (said,) = [line for line in err.splitlines() if "starts anew" in line]
    assert "held a checkpoint that cannot be read" in said
    assert f"which is now {tmp_path / '.run.checkpoint-1'}; delete that" in said
    assert {p.name for p in tmp_path.iterdir()} == {"run", ".run.checkpoint-1"}


def test_a_batch_prints_its_table_and_exits_2_where_a_job_failed(capsys, monkeypatch, tmp_path):
    file = tmp_path / "jobs.toml"
    file.write_text('[[job]]\nname = "one"\nmodel = "none.py"\ndata = "none.csv"\n')
    out = tmp_path / "runs"
    code, text, err = shell(
        capsys, monkeypatch, "batch", str(file), "--out", str(out), "--quiet", "--processes", "1"
    )
    assert code == 2
    assert "failed" in text
    assert f"popk: one: there is no model file {tmp_path / 'none.py'}; check the path" in err
    assert (out / "batch.csv").is_file()


def test_predict_prints_a_row_for_every_level(capsys, monkeypatch, run, tmp_path):
    code, out, _ = shell(capsys, monkeypatch, "predict", run)
    assert code == 0
    assert len(out.splitlines()) == 133
    path = tmp_path / "predictions.csv"
    shell(capsys, monkeypatch, "predict", run, "--new-subjects", "--out", str(path))
    table = pd.read_csv(path, na_values=".")
    assert len(table) == 132
    assert (table["DV_lower"] <= table["DV_median"]).all()
    assert (table["PRED_lower"] <= table["PRED_upper"]).all()


@pytest.mark.slow
def test_compare_prints_the_table_and_exits_3_where_a_run_did_not_converge(
    capsys, monkeypatch, run, tmp_path
):
    again = shutil.copytree(run, tmp_path / "again")
    code, out, err = shell(capsys, monkeypatch, "compare", run, str(again), "--draws", "112")
    assert code == 3
    assert "did not converge" in err
    head, *rows = out.splitlines()
    assert {"elpd_diff", "dse", "weight", "converged"} <= set(head.split())
    assert {row.split()[0] for row in rows} == {run, str(again)}


@pytest.mark.filterwarnings("ignore:.*count twice")
def test_twin_prints_parameters_and_a_forecast(capsys, monkeypatch, run):
    arguments = ("twin", "infer", run, DATA, "--id", "3", "--times", "0:24:12")
    code, out, _ = shell(capsys, monkeypatch, *arguments)
    assert code == 0
    assert out.startswith("Twin of ID 3: 11 levels")
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["0", "12", "24"]


def test_doctor_says_versions_devices_and_precision(capsys, monkeypatch):
    code, out, _ = shell(capsys, monkeypatch, "doctor")
    assert code == 0
    for words in ("popk 0.1.0", "jax ", "devices: cpu", "precision: float64", "compiled programs:"):
        assert words in out


def test_the_module_runs_as_the_command_does():
    ran = subprocess.run(
        [sys.executable, "-m", "popk", "check", "--help"], capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    assert "Example: popk check" in ran.stdout


@pytest.mark.parametrize(
    "command", ["check", "fit", "batch", "report", "compare", "predict", "twin", "doctor"]
)
def test_every_command_has_an_example(capsys, monkeypatch, command):
    code, out, _ = shell(capsys, monkeypatch, command, "--help")
    assert code == 0
    assert f"Example: popk {command}" in out


GOOD = "ID,TIME,EVID,AMT,DV,MDV,WT\n1,0,1,100,.,1,70\n1,1,0,.,5,0,70\n1,2,0,.,4,0,70\n"
BAD_TABLES = {
    "is empty": "",
    "column TIME is missing": "ID,EVID,AMT,DV\n1,1,100,.\n",
    "DV is 'abc': not a number": GOOD.replace(".,5,", ".,abc,"),
    "AMT is -100; a dose must be positive": GOOD.replace("100", "-100"),
    "TIME goes back": GOOD.replace("1,2,0", "1,0.5,0"),
    "AMT is 0 on a dose": GOOD.replace("100", "0"),
    "EVID is 9": GOOD.replace("1,2,0", "1,2,9"),
    "DV is missing on an observation": GOOD.replace(".,4,", ".,.,"),
    "column DV stands 2 times": GOOD.replace("WT", "DV"),
    "ID 1 was already used": GOOD + "2,0,0,.,3,0,70\n1,3,0,.,3,0,70\n",
    "WT is missing": GOOD.replace("4,0,70", "4,0,."),
    "DV is 'nan'": GOOD.replace(".,4,", ".,nan,"),
    "DV is 'inf'": GOOD.replace(".,4,", ".,inf,"),
}


@pytest.mark.parametrize("says", BAD_TABLES)
def test_bad_data_are_one_clear_error_and_exit_2(capsys, monkeypatch, tmp_path, says):
    path, out = tmp_path / "bad.csv", tmp_path / "run"
    path.write_text(BAD_TABLES[says])
    arguments = (
        "fit",
        MODEL,
        str(path),
        "--out",
        str(out),
        "--covariates",
        "WT",
        *UNITS,
        "-u",
        "WT=kg",
    )
    code, _, err = shell(capsys, monkeypatch, *arguments)
    assert code == 2
    assert err.startswith("popk: ")
    assert "bad.csv" in err
    assert says in err
    assert not out.exists()


BAD_MODELS = {
    "has no model function": "x = 1\n",
    "has 2 model functions": "def a(trial): pass\ndef b(trial): pass\n",
    "raised ZeroDivisionError": "1 / 0\n",
    "observes no levels": "def a(trial): pass\n",
    "the model a raised TypeError at": "def a(trial):\n    return 1 + 'x'\n",
    "WT is no covariate": "def a(trial):\n    trial.covariate('WT')\n",
}


@pytest.mark.parametrize("says", BAD_MODELS)
def test_a_bad_model_is_one_clear_error_and_exit_2(capsys, monkeypatch, tmp_path, says):
    data, model, out = tmp_path / "good.csv", tmp_path / "model.py", tmp_path / "run"
    data.write_text(GOOD)
    model.write_text(BAD_MODELS[says])
    arguments = ("fit", str(model), str(data), "--out", str(out), *UNITS)
    code, _, err = shell(capsys, monkeypatch, *arguments)
    assert code == 2
    assert says in err
    assert not out.exists()


@pytest.mark.filterwarnings("ignore:.*count twice")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["batch", "none.toml"], "none.toml cannot be read as TOML"),
        (["check", "none.csv"], "there is no such file"),
        (["fit", "none.py", DATA, "--out", "x"], "there is no model file none.py"),
        (["fit", MODEL, DATA, "--out", "/dev/null/run"], "cannot be written"),
        (["fit", MODEL, DATA, "--out", "{run}"], "exists; choose another folder"),
        (["compare", "{run}"], "there are 1 models"),
        (["compare", "{run}", "nowhere"], "nowhere is no run folder"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["twin", "infer", "{run}", DATA, "--times", "0:24:2"], "a twin is of one patient"),
        (["twin", "infer", "{run}", DATA, "--id", "99", "--times", "1"], "has no ID 99"),
        (["twin", "infer", "{run}", DATA, "--id", "3", "--times", "soon"], "write FROM:TO:STEP"),
        (["check", DATA, "-u", "DV"], "write NAME=VALUE"),
        (["check", DATA, "-u", "DV=furlong per fortnigth"], "is not a unit"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_2(capsys, monkeypatch, run, arguments, says):
    code, _, err = shell(capsys, monkeypatch, *(a.replace("{run}", run) for a in arguments))
    assert code == 2
    assert says in err
    assert "Traceback" not in err
