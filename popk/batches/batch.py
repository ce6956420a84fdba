"""Is the whole batch done, and what came of it? One view while it runs, one table at the end."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from popk.batches.dealing import Event, dealt, scheduled
from popk.batches.folders import gathered
from popk.batches.jobs import BatchError, Job, jobs_of
from popk.batches.work import Task, plain
from popk.runs import open_run

#: What stands in the table of a verdict.
_FIGURES = {"rhat": "rhat", "ess": "ess_bulk", "divergences": "divergences", "pareto_k": "pareto_k"}


def run_batch(
    jobs: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    retries: int = 2,
    overwrite: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Return a table of many fits, each of which makes a run folder.

    A job that is done with the same inputs is not done again, and one that was killed goes on where it
    was. Compiled programs are shared by way of JAX's cache on disk.

    Parameters
    ----------
    jobs : path or mapping
        A TOML file, or what it would hold: ``[[job]]`` tables, and ``[defaults]`` for all of them. A job
        has a `name`, a `model` file and a `data` file; a `seed`, or a list of seeds, which makes as many
        jobs; the options of `popk.fit`; `units`, `columns`, `covariates` and `missing` of
        `popk.read_nonmem`; and `report` = true for a report. Its `kind` is "fit", "bootstrap" (of as many
        `replicates`, subjects drawn with replacement) or "cross-validation" (of so many `folds`, by the
        marginal likelihood of the subjects left out). Paths in a file are relative to it.
    out : path
        The folder of the run folders, and of ``batch.csv``, the table.
    processes : int, optional
        How many work at the same time; by default as many as there are processors, which they share.
    scheduler : str, optional
        The address of a Dask scheduler in their place, ``tcp://host:8786`` (``popk[distributed]``); its
        workers see the same files, and have one thread each.
    retries : int
        How many times a task is begun again whose process was lost.
    overwrite : bool
        Whether a run folder of other inputs is replaced.
    progress : bool
        Whether progress is shown.

    Returns
    -------
    DataFrame
        Indexed by job: ``status`` ("done", "kept" from before, or "failed"), ``wall_time_s`` [s], the worst
        ``rhat`` and ``ess``, ``divergences``, ``pareto_k``, ``converged`` (of a job of several fits, of all),
        ``attempts``, ``folder``, and ``why`` a job failed.

    Raises
    ------
    BatchError
        The jobs cannot be understood, a number is too small, or there is no such scheduler.

    Examples
    --------
    >>> table = popk.run_batch("jobs.toml", "runs")  # doctest: +SKIP
    """
    count = (os.cpu_count() or 1) if processes is None else processes
    if count < 1 or retries < 0:
        raise BatchError(f"processes={count}, retries={retries}; give at least 1 and 0")
    listed = jobs_of(jobs)
    Path(out).mkdir(parents=True, exist_ok=True)
    ended: dict[tuple[str, int], Event] = {}
    kept, tasks = [], []
    for job in listed:
        if _kept(job, out):
            kept.append(job.name)
        else:
            tasks += [Task(job, str(out), part, overwrite) for part in range(job.parts + 1)]
    events = scheduled(tasks, scheduler, retries) if scheduler else dealt(tasks, count, retries)
    with _View(tasks, shown=progress) as view:
        for event in events if tasks else ():
            view.tell(event)
            if event.outcome is not None:
                task = tasks[event.number]
                ended[task.job.name, task.part] = event
    rows = [
        _row_of_kept(job, out) if job.name in kept else _row(job, out, ended, overwrite=overwrite)
        for job in listed
    ]
    table = pd.DataFrame(rows).set_index("job")
    beside = Path(out) / ".batch.csv.new"
    table.to_csv(beside)
    beside.replace(Path(out) / "batch.csv")
    return table


def _kept(job: Job, out: str | Path) -> bool:
    """Return whether a job was done before; what is wrong is left to who works on it."""
    folder = Path(out) / job.name
    if not folder.exists():
        return False
    try:
        return open_run(folder).info.get("batch") == plain(job.inputs())
    except (OSError, ValueError):
        return False


def _row_of_kept(job: Job, out: str | Path) -> dict[str, Any]:
    info = open_run(Path(out) / job.name).info
    sound = info["convergence"]["converged"] and not info.get("not_converged")
    return _said(job, out, "kept", info["convergence"], info["wall_time_s"], sound, 0, "")


def _row(
    job: Job, out: str | Path, ended: Mapping[tuple[str, int], Event], *, overwrite: bool
) -> dict[str, Any]:
    """Return what is said of a job that was worked on; its parts are put together first."""
    events = [ended[job.name, part] for part in range(job.parts + 1)]
    told = [event.outcome or {} for event in events]
    time, attempts = sum(one.get("wall_time_s", 0) for one in told), max(e.attempts for e in events)
    failed = [(i, one["why"]) for i, one in enumerate(told) if "why" in one]
    part = {"bootstrap": "replicate", "cross-validation": "fold"}.get(job.kind, "")
    why = "".join(f"{f'{part} {i}: ' if i else ''}{says}" for i, says in failed[:1])
    if job.parts and not failed:
        try:
            gathered(job, out, overwrite=overwrite)
        except (OSError, ValueError) as error:
            why = str(error)
    if why:
        return _said(job, out, "failed", {}, time, False, attempts, why)
    sound = all(one["verdict"]["converged"] for one in told)
    return _said(job, out, "done", told[0]["verdict"], time, sound, attempts, "")


def _said(
    job: Job, out: str | Path, status: str, verdict: Mapping[str, Any], *rest: Any
) -> dict[str, Any]:
    time, sound, attempts, why = rest
    figures = {n: verdict.get(of) for n, of in _FIGURES.items()}
    return {
        "job": job.name, "status": status, "wall_time_s": time,
        **{n: np.nan if x is None else x for n, x in figures.items()},
        "converged": sound, "attempts": attempts,
        "folder": str(Path(out) / job.name) if status != "failed" else "", "why": why,
    }  # fmt: skip


class _View:
    """One line for all tasks: how many are done, running and failed, and which are running."""

    def __init__(self, tasks: Sequence[Task], *, shown: bool):
        self.tasks, self.running, self.failed, self.done = tasks, set(), 0, 0
        self.bar = Progress(
            TextColumn("batch"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[says]}"), TimeElapsedColumn(),
            console=Console(stderr=True), disable=not shown,
        )  # fmt: skip

    def __enter__(self) -> "_View":
        self.bar.start()
        self.line = self.bar.add_task("batch", total=len(self.tasks), says="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def tell(self, event: Event) -> None:
        """Show what happened to a task."""
        if event.outcome is None:
            self.running.add(event.number)
        else:
            self.running.discard(event.number)
            self.failed += "why" in event.outcome
            self.done += "why" not in event.outcome
        names = sorted({self.tasks[i].job.name for i in self.running})
        named = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
        says = f"{self.done} done, {len(self.running)} running{named}, {self.failed} failed"
        self.bar.update(self.line, completed=self.done + self.failed, says=says)
