"""Is the whole batch done, each job once, whoever is lost on the way?"""

import importlib.util
import json
import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest

import popk
from popk.batches import dealing
from popk.batches.batch import run_batch

MODEL = """import numpyro
import numpyro.distributions as dist
import popk


def small(trial):
    CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
    p = popk.individual(trial, CL=CL, omega=popk.fixed(0.2))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=10.0), popk.additive_error(popk.fixed(0.5)))
"""
ROWS = "".join(
    f"{i},0,1,100,.\n{i},2,0,.,{8 + 0.2 * i:g}\n{i},9,0,.,{4 - 0.2 * i:g}\n" for i in range(1, 5)
)
UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
LAPLACE = {"method": "laplace", "draws": 500, "population_draws": 500}


@pytest.fixture
def jobs(tmp_path):
    """Return what makes jobs of a small model and trial, fitted around the mode unless said otherwise."""
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "small.csv").write_text("ID,TIME,EVID,AMT,DV\n" + ROWS)
    files = {"model": str(tmp_path / "small.py"), "data": str(tmp_path / "small.csv")}
    defaults = {**files, "units": UNITS, **LAPLACE}
    return lambda *listed: {"defaults": defaults, "job": list(listed)}


@pytest.mark.slow
def test_jobs_make_run_folders_and_a_table_and_a_bad_one_stops_none(tmp_path, jobs):
    (tmp_path / "bad.csv").write_text("ID,TIME,EVID,AMT,DV\n1,0,1,-5,.\n1,2,0,.,8\n")
    asked = jobs({"name": "good"}, {"name": "bad", "data": str(tmp_path / "bad.csv")})
    out = tmp_path / "runs"
    table = run_batch(asked, out, processes=1, progress=False)
    assert table["status"].to_dict() == {"good": "done", "bad": "failed"}
    assert "AMT is -5; a dose must be positive" in table.loc["bad", "why"]
    assert table.loc["good", "converged"]
    assert {p.name for p in out.iterdir()} == {"good", "batch.csv"}
    pd.testing.assert_index_equal(
        pd.read_csv(out / "batch.csv", index_col="job").index, table.index
    )
    run = popk.open_run(out / "good")
    direct = popk.fit(run.model, run.trial, seed=1, progress=False, **LAPLACE)
    # Threads may change the order of sums, and so the last digits.
    one, other = (tree["posterior"]["CL_pop"] for tree in (direct, run.posterior))
    np.testing.assert_allclose(one, other, rtol=1e-6)

    # Again: what is done is kept as it is, and only what failed is tried.
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*")}
    table = run_batch(asked, out, processes=1, progress=False)
    assert list(table["status"]) == ["kept", "failed"]
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*")} == before

    # Other inputs under the name of a run are refused.
    table = run_batch(jobs({"name": "good", "seed": 2}), out, processes=1, progress=False)
    assert "is a run of other inputs" in table.loc["good", "why"]


@pytest.mark.slow
def test_parts_of_a_job_end_in_one_run_folder_with_their_table(tmp_path, jobs):
    asked = jobs(
        {"name": "boot", "kind": "bootstrap", "replicates": 3},
        {"name": "left-out", "kind": "cross-validation", "folds": 2},
    )
    out = tmp_path / "runs"
    table = run_batch(asked, out, processes=2, progress=False)
    assert list(table["status"]) == ["done", "done"]
    assert {p.name for p in out.iterdir()} == {"boot", "left-out", "batch.csv"}
    each = pd.read_csv(out / "boot" / "bootstrap.csv", index_col="replicate")
    summary = pd.read_csv(out / "boot" / "summary.csv", index_col="parameter")
    assert each["CL_pop"].nunique() == 3
    for label, q in (("lower", 0.05), ("median", 0.5), ("upper", 0.95)):
        assert summary.loc["CL_pop", label] == pytest.approx(np.quantile(each["CL_pop"], q))
    elpd = pd.read_csv(out / "left-out" / "cross_validation.csv", index_col="ID")
    info = popk.open_run(out / "left-out").info
    assert list(elpd.index) == [1, 2, 3, 4]
    assert info["elpd"] == pytest.approx(elpd["elpd"].sum())
    assert sorted(elpd["fold"]) == [1, 1, 2, 2]

    assert list(run_batch(asked, out, progress=False)["status"]) == ["kept", "kept"]
    other = jobs({"name": "boot", "kind": "bootstrap", "replicates": 2, "seed": 2})
    table = run_batch(other, out, progress=False, overwrite=True)
    assert table.loc["boot", "status"] == "done"
    assert popk.open_run(out / "boot").info["seed"] == 2


@pytest.mark.slow
def test_a_task_whose_process_is_lost_each_time_fails_with_the_signal(tmp_path, jobs):
    dies = MODEL.replace(
        "def small(trial):", "import os\n\n\ndef small(trial):\n    os.kill(os.getpid(), 9)"
    )
    (tmp_path / "dies.py").write_text(dies)
    asked = jobs({"name": "dies", "model": str(tmp_path / "dies.py")})
    table = run_batch(asked, tmp_path / "runs", processes=1, retries=1, progress=False)
    assert table.loc["dies", "status"] == "failed"
    assert table.loc["dies", "why"] == "its process was lost 2 times (signal 9)"


@pytest.mark.parametrize("told", [{"processes": 0}, {"retries": -1}])
def test_a_number_that_is_too_small_is_refused(tmp_path, jobs, told):
    with pytest.raises(popk.BatchError, match="give at least 1 and 0"):
        run_batch(jobs({"name": "good"}), tmp_path, **told)


@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is not None, reason="Dask is installed here"
)
def test_a_scheduler_without_dask_is_one_sentence(tmp_path, jobs):
    with pytest.raises(popk.BatchError, match=r"popk\[distributed\]"):
        run_batch(jobs({"name": "good"}), tmp_path, scheduler="tcp://localhost:1", progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Dask's own
def test_a_dask_cluster_does_the_same(tmp_path, jobs):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        table = run_batch(
            jobs({"name": "good", "seed": [1, 2, 3]}), tmp_path / "runs",
            scheduler=cluster.scheduler_address, progress=False,
        )  # fmt: skip
    assert list(table["status"]) == ["done"] * 3
    assert table["converged"].all()


@pytest.mark.slow
def test_twenty_fits_are_all_done_and_none_twice_though_a_worker_is_killed(
    tmp_path, jobs, monkeypatch
):
    workers, began = [], dealing._Worker._started

    def started(self):
        workers.append(began(self))
        return workers[-1]

    monkeypatch.setattr(dealing._Worker, "_started", started)
    out, seen = tmp_path / "runs", {}

    def kill():
        while len(list(out.glob("*/run.json"))) < 3:
            time.sleep(0.05)
        os.kill(workers[0].pid, signal.SIGKILL)

    def watch():
        while len(seen) < 20:
            for run in out.glob("fit-*/run.json"):
                seen.setdefault(run.parent.name, []).append(run.stat().st_ino)
            time.sleep(0.05)

    for task in (kill, watch):
        threading.Thread(target=task, daemon=True).start()
    nuts = {"method": "nuts", "chains": 2, "warmup": 100, "draws": 100}
    asked = jobs({"name": "fit", "seed": list(range(1, 21)), "draws": 100})
    del asked["defaults"]["population_draws"]
    asked["defaults"] |= nuts
    table = run_batch(asked, out, processes=2, progress=False)
    assert list(table["status"]) == ["done"] * 20
    assert len(workers) == 3
    assert sorted(table["attempts"]) == [1] * 19 + [2]
    assert all(len(set(inodes)) == 1 for inodes in seen.values())
    runs = sorted(p.name for p in out.iterdir() if p.name != "batch.csv")
    assert runs == sorted(table.index)
    seeds = {json.loads((out / name / "run.json").read_text())["seed"] for name in runs}
    assert seeds == set(range(1, 21))
    print(f"\n{len(workers)} workers; attempts {sorted(table['attempts'])}")
    print(
        f"retried: {list(table.index[table['attempts'].eq(2)])}; "
        f"wall times {table['wall_time_s'].min():.1f} to {table['wall_time_s'].max():.1f} s"
    )
