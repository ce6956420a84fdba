"""What is done for a job? A fit, replicates of a bootstrap, or folds of a cross-validation."""

import json
import shutil
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from popk.batches.jobs import Job
from popk.diagnostics.subjects_left_out import log_predictive
from popk.inference.compilation import keep_compiled
from popk.inference.convergence import convergence, population_draws
from popk.inference.resuming import resumed_fit
from popk.model.sites import Model
from popk.reports.report import report
from popk.runs import (
    RunError,
    checkpoint_beside,
    load_model,
    open_run,
    staged_run,
    verdict_of,
    write_run,
)
from popk.trial import Trial, read_nonmem


class Task(NamedTuple):
    """A share of a job that one process works on.

    Attributes
    ----------
    job : Job
    out : str
        The folder of all run folders.
    part : int
        0 is the fit to all subjects, the others are replicates or folds.
    overwrite : bool
        Whether a run folder of other inputs is replaced.
    """

    job: Job
    out: str
    part: int
    overwrite: bool = False

    @property
    def place(self) -> Path:
        """Return the run folder, or the file, that the task makes."""
        if self.job.kind == "fit":
            return Path(self.out) / self.job.name
        return parts_of(self.job, self.out) / (f"{self.part:04d}.json" if self.part else "fit")


def parts_of(job: Job, out: str | Path) -> Path:
    """Return the hidden folder of a job's parts, which goes when its run folder is made."""
    return Path(out) / f".{job.name}.parts"


def found(task: Task) -> dict[str, Any] | None:
    """Return what came of a task before, None if nothing did.

    Raises
    ------
    RunError
        There is a run folder of other inputs.
    """
    inputs, place = _inputs(task), task.place
    if task.part:
        try:
            before = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return before if before["inputs"] == inputs else None
    if not place.exists():
        return None
    kept = open_run(place).info
    if kept.get("batch") == inputs:
        return {"verdict": kept["convergence"], "wall_time_s": kept["wall_time_s"]}
    if not task.overwrite and task.job.kind == "fit":
        raise RunError(
            f"{place} is a run of other inputs; give the job another name, or replace it with --overwrite"
        )
    return None


def perform(task: Task) -> dict[str, Any]:
    """Return what came of a task: its verdict and time, or why it failed.

    Parameters
    ----------
    task : Task
    """
    keep_compiled()
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # verdicts are in the table
            done = found(task) or _done(task)
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and the other jobs go on
        ours = isinstance(error, (ValueError, OSError))
        return {"why": str(error) if ours else f"{type(error).__name__}: {error}"}
    return {**done, "wall_time_s": round(time.monotonic() - began, 3)}


def _done(task: Task) -> dict[str, Any]:
    job, place = task.job, task.place
    trial, model = read_nonmem(job.data, **job.reading), load_model(job.model)
    place.parent.mkdir(parents=True, exist_ok=True)
    if task.part:
        made = {"bootstrap": _replicate, "cross-validation": _fold}[job.kind](task, model, trial)
        said = {"inputs": _inputs(task), **made}
        beside = place.with_name(f".{place.name}.new")
        beside.write_text(json.dumps(said, default=str), encoding="utf-8")
        beside.replace(place)
        return made
    # A folder of parts is ours, so that what is in it may always be replaced.
    with staged_run(place, overwrite=task.overwrite or job.kind != "fit") as folder:
        posterior, verdict = _fitted(task, model, trial)
        write_run(folder, model, posterior, trial, {"convergence": verdict, "batch": _inputs(task)})
        if job.report:
            report(model, posterior, trial, folder / "report.html")
    shutil.rmtree(checkpoint_beside(place), ignore_errors=True)
    return {"verdict": verdict}


def _fitted(task: Task, model: Model, trial: Trial) -> tuple[xr.DataTree, dict[str, Any]]:
    options = {**task.job.options, "seed": task.job.seed + task.part, "progress": False}
    posterior = resumed_fit(task.place, model, trial, options)
    verdict = verdict_of(convergence(posterior))
    return posterior, {n: _number(x) for n, x in verdict.items()}


def _number(x: Any) -> Any:
    return x.item() if isinstance(x, np.generic) else x


def _replicate(task: Task, model: Model, trial: Trial) -> dict[str, Any]:
    """Return the estimates from subjects drawn with replacement."""
    posterior, verdict = _fitted(task, model, resampled(trial, (task.job.seed, task.part)))
    shutil.rmtree(checkpoint_beside(task.place), ignore_errors=True)
    estimates = {n: float(np.median(x)) for n, x in population_draws(posterior).items()}
    return {"verdict": verdict, "estimates": estimates}


def resampled(trial: Trial, seed: tuple[int, ...]) -> Trial:
    """Return a trial of as many subjects, drawn with replacement; each has an ID of its own.

    Parameters
    ----------
    trial : Trial
    seed : tuple of int
    """
    frame, n = trial.host.frame, trial.n_subjects
    chosen = np.random.default_rng(seed).integers(0, n, n)
    of = dict(iter(frame.groupby("ID", sort=False)))
    copies = [of[trial.ids[i]].assign(ID=str(k)) for k, i in enumerate(chosen, 1)]
    return trial.replaced(pd.concat(copies, ignore_index=True))


def _fold(task: Task, model: Model, trial: Trial) -> dict[str, Any]:
    """Return how probable the levels of a fold's subjects are to those who know the others."""
    left_out = folds(trial.ids, task.job.parts, task.job.seed)[task.part - 1]
    posterior, verdict = _fitted(task, model, trial.without(left_out))
    shutil.rmtree(checkpoint_beside(task.place), ignore_errors=True)
    elpd = log_predictive(model, posterior, trial[left_out], seed=task.job.seed)
    return {"verdict": verdict, "elpd": elpd}


def folds(ids: tuple[str, ...], count: int, seed: int) -> list[list[str]]:
    """Return subjects dealt out to folds by chance, as evenly as it goes.

    Raises
    ------
    ValueError
        There are fewer subjects than folds.
    """
    if count > len(ids):
        raise ValueError(f"folds is {count}, and there are {len(ids)} subjects; give fewer folds")
    dealt = np.random.default_rng(seed).permutation(len(ids))
    return [[ids[i] for i in sorted(dealt[first::count])] for first in range(count)]


def plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs as they are after JSON."""
    return json.loads(json.dumps(inputs, default=str))


def _inputs(task: Task) -> dict[str, Any]:
    """Return what a task depends on: how many other parts there are matters to folds alone."""
    alone = task.job.kind == "bootstrap" or not task.part
    return plain({**task.job.inputs(), **({"parts": 0} if alone else {})})
