"""How do chains begin, and what is said while they run? NUTS from a model and a trial to draws."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from popk.inference import nuts
from popk.inference.beginning import beginning
from popk.inference.draws import Draws, Problem
from popk.variability import Centering


def draw(
    problem: Problem, *, seed: int, progress: bool, chains: int, warmup: int, draws: int,
    centering: float | Mapping[str, float] | None, target_accept: float | None, max_depth: int,
) -> Draws:  # fmt: skip
    """Return the draws of NUTS; the options are those of `popk.fit`."""
    settings = nuts.Settings(chains, warmup, draws, target_accept, max_depth)
    key_start, key_sample = jax.random.split(jax.random.key(seed))
    plan, target, carry, modes, said = beginning(problem, key_start, settings, centering)
    with _Progress(progress) as report:
        sampled = nuts.sample(
            problem.model, plan, target, carry, key_sample, settings, report=report
        )
    stats = {n: np.swapaxes(x, 0, 1) for n, x in sampled._asdict().items()}
    chosen = _settings(settings, problem, target.centering)
    return Draws(
        plan,
        stats.pop("position"),
        stats,
        chosen,
        {"modes": len(modes), "approximation": said or "yes"},
        target.centering,
    )


def _settings(
    settings: nuts.Settings, problem: Problem, centering: Centering | None
) -> dict[str, Any]:
    """Return what was asked for, and the mean centering of each random effect."""
    said = settings._asdict()
    if centering is not None:
        mean = np.asarray(centering.fraction).reshape(-1, len(problem.sites.parameters)).mean(0)
        said["centering"] = [round(float(x), 3) for x in mean]
    return said


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

    def __enter__(self) -> Callable[[int, int, int], None]:
        self.bar.start()
        task = self.bar.add_task("sampling", total=None, divergences=0)
        return lambda done, total, divergences: self.bar.update(
            task, completed=done, total=total, divergences=divergences
        )

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
