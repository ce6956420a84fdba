"""How do chains begin, and what is said while they run? NUTS from a model and a trial to draws."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from popk.inference import nuts
from popk.inference.density import Layout, constrained, layout, start
from popk.inference.draws import Draws, Problem
from popk.model.failures import why_not
from popk.model.sites import Model, ModelError, Sites, describe
from popk.trial import Trial


def draw(
    problem: Problem, *, seed: int, progress: bool, chains: int, warmup: int, draws: int,
    centering: float | Mapping[str, float], target_accept: float, max_depth: int,
) -> Draws:  # fmt: skip
    """Return the draws of NUTS; the options are those of `popk.fit`."""
    model, trial, sites = problem
    plan = layout(model, trial, _centering(centering, sites))
    settings = nuts.Settings(chains, warmup, draws, target_accept, max_depth)
    key_start, key_sample = jax.random.split(jax.random.key(seed))
    begin = _begin(model, plan, trial, jax.random.split(key_start, chains))
    with _Progress(progress, warmup + draws) as report:
        sampled = nuts.sample(
            model, plan, trial.arrays(), begin, key_sample, settings, report=report
        )
    stats = {n: np.swapaxes(x, 0, 1) for n, x in sampled._asdict().items()}
    return Draws(
        plan, stats.pop("position"), stats, {**settings._asdict(), "centering": plan.centering}, {}
    )


def _centering(centering: float | Mapping[str, float], sites: Sites) -> tuple[float, ...]:
    names = sites.parameters
    if isinstance(centering, Mapping):
        unknown = [name for name in centering if name not in names]
        if unknown:
            raise ModelError(
                f"centering names {', '.join(unknown)}, which have no random effect; "
                f"those that have one are {', '.join(names) or 'none'}"
            )
        values = [float(centering.get(name, 0.5)) for name in names]
    else:
        values = [float(centering)] * len(names)
    if not all(0 <= value <= 1 for value in values):
        raise ModelError(
            f"centering is {centering}; it must lie between 0 (not centred) and 1 (centred)"
        )
    return tuple(values)


def _begin(model: Model, plan: Layout, trial: Trial, keys: Any) -> nuts.State:
    """Return the chains' starting states, each with a finite density and gradient."""
    arrays = trial.arrays()
    for attempt in range(10):
        tried = jax.vmap(lambda key, n=attempt: jax.random.fold_in(key, n))(keys)
        positions = jax.vmap(lambda key: start(model, plan, arrays, key))(tried)
        states = nuts.state(model, plan, arrays, positions)
        if bool(jnp.isfinite(states.lp).all() and jnp.isfinite(states.gradient).all()):
            return states
    raise ModelError(_why_impossible(model, plan, trial, start(model, plan, arrays, keys[0])))


def _why_impossible(model: Model, plan: Layout, trial: Trial, vector: Any) -> str:
    """Return a sentence on why no starting point has a finite density."""
    # Compiled: what is refused there has a reason with a row, and the structure is never interpreted.
    compiled = jax.jit(constrained, static_argnums=(0, 1))
    values = compiled(model, plan, trial.arrays(), vector)
    bad = ~np.isfinite(np.asarray(values["log_likelihood"]))
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0)][bad]
    if why := why_not(model, trial, values):
        return "\n".join(["amounts cannot be computed at any of 10 starting points", *why])
    if rows.empty:
        return (
            "the log-density or its gradient is not finite at any of 10 starting points although "
            "every level has a finite likelihood; look for a prior or a parameter that can be "
            "negative or infinite"
        )
    shown = "; ".join(
        f"row {r.ROW} (ID {r.ID}, TIME {r.TIME:g}, DV {r.DV:g})" for r in rows.head(5).itertuples()
    )
    outcomes = (
        "; nor can a count or an event be explained where its mean or hazard is 0"
        if describe(model, trial).endpoints
        else ""
    )
    return (
        f"{len(rows)} levels have zero likelihood at every starting point: {shown}. A proportional "
        f"or log-normal error cannot explain a level where the prediction is 0 (before the first "
        f"dose): set MDV 1 there, or add an additive error{outcomes}"
    )


class _Progress:
    """A progress bar of steps, divergences and time left; nothing where it is not wanted."""

    def __init__(self, shown: bool, total: int):
        self.total = total
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

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        task = self.bar.add_task("sampling", total=self.total, divergences=0)
        return lambda done, divergences: self.bar.update(
            task, completed=done, divergences=divergences
        )

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
