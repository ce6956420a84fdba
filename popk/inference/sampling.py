"""How do chains begin, and what is said while they run? NUTS from a model and a trial to draws."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from popk.inference import nuts
from popk.inference.beginning import asked, beginning
from popk.inference.checkpoint import Checkpoint, Kept
from popk.inference.density import layout
from popk.inference.draws import Draws, Problem, provenance
from popk.records.provenance import sha256


def draw(
    problem: Problem, *, seed: int, progress: bool, chains: int, warmup: int, draws: int,
    centering: float | Mapping[str, float] | None, target_accept: float | None, max_depth: int,
    checkpoint: str | Path | None,
) -> Draws:  # fmt: skip
    """Return the draws of NUTS; the options are those of `popk.fit`."""
    threads = nuts.threads_for(problem.trial, chains)
    settings = nuts.Settings(chains, warmup, draws, target_accept, max_depth, threads)
    key_start, key_sample = jax.random.split(jax.random.key(seed))
    disk = None
    if checkpoint is not None:
        of = {"seed": seed, "settings": settings, "centering": centering}
        disk = Checkpoint(Path(checkpoint), _identity(problem, of))
    kept = disk.load() if disk else None
    if kept is None:
        begin = beginning(problem, key_start, settings, centering)
        kept = Kept(nuts.first(begin.carry, settings), begin.target.centering, begin.notes)
    plan = layout(problem.model, problem.trial, coordinates=kept.centering is not None)
    target = nuts.Target(problem.trial.arrays(), kept.centering)
    with _Progress(progress) as report:

        def after(run: nuts.Run, total: int) -> None:
            if disk:
                disk.keep(run, kept.centering, kept.notes, now=run.done >= total)
            report(run, total)

        sampled = nuts.sample(
            problem.model, plan, target, kept.run, key_sample, settings, after=after
        )
    stats = {n: np.swapaxes(x, 0, 1) for n, x in sampled._asdict().items()}
    position = stats.pop("position")
    chosen = asked(settings, problem, kept.centering)
    return Draws(plan, position, stats, chosen, kept.notes, kept.centering)


def _identity(problem: Problem, asked: Mapping[str, Any]) -> dict[str, str]:
    """Return what a run is of, by which a checkpoint is known."""
    of = provenance(problem.model, problem.trial)
    made = ("model_sha256", "trial_sha256", "units", "versions", "device", "precision")
    # A model file is a module whose name bears the hash of all of it; and one data file may be read in
    # several ways, as other columns.
    host = problem.trial.host
    read = (host.frame.to_csv(index=False), host.covariates, host.missing)
    return {
        **{n: str(of[n]) for n in made},
        "model_file": getattr(problem.model, "__module__", ""),
        "records_sha256": sha256(repr(read).encode()),
        **{n: repr(v) for n, v in asked.items()},
    }


class _Progress:
    """A progress bar of steps, divergences and time left; nothing where it is not wanted."""

    def __init__(self, shown: bool):
        self.bar = Progress(
            TextColumn("sampling"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TextColumn("{task.fields[divergences]} divergences"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )

    def __enter__(self) -> Callable[[nuts.Run, int], None]:
        self.bar.start()
        task = self.bar.add_task("sampling", total=None, divergences=0)
        return lambda run, total: self.bar.update(
            task, completed=min(run.done, total), total=total, divergences=run.divergences
        )

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
