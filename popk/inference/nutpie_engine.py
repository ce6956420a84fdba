"""What does nutpie's sampler make of a model? Draws of popk's own log-density."""

import importlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from popk.inference.beginning import Beginning, asked, beginning
from popk.inference.density import log_density
from popk.inference.draws import Draws, Problem
from popk.inference.nuts import Settings
from popk.model.sites import Model, ModelError

#: Of so many starting points each chain takes one, by its own seed.
STARTS = 16

#: What ArviZ calls the statistics that nutpie gives of each draw, by nutpie's names and types.
STATS = {
    "lp": ("logp", float),
    "diverging": ("diverging", bool),
    "energy": ("energy", float),
    "acceptance_rate": ("mean_tree_accept", float),
    "n_steps": ("n_steps", int),
    "tree_depth": ("depth", int),
    "step_size": ("step_size", float),
}


def draw(
    problem: Problem, *, seed: int, progress: bool, chains: int, warmup: int, draws: int,
    centering: float | Mapping[str, float] | None, target_accept: float, max_depth: int,
) -> Draws:  # fmt: skip
    """Return the draws of nutpie; the options are those of `popk.fit`."""
    nutpie = _nutpie()
    settings = Settings(STARTS, warmup, draws, target_accept, max_depth)
    begin = beginning(problem, jax.random.key(seed), settings, centering)
    compiled = _compiled(nutpie, problem.model, begin)
    tree = nutpie.sample(
        compiled, draws=draws, tune=warmup, chains=chains, cores=min(chains, os.cpu_count() or 1),
        seed=seed, save_warmup=False, progress_bar=progress, target_accept=target_accept,
        maxdepth=max_depth,
    )  # fmt: skip
    stats = tree["sample_stats"].dataset
    notes = {"engine_versions": json.dumps({"nutpie": version("nutpie")}), **begin.notes}
    return Draws(
        begin.plan,
        tree["posterior"].dataset["position"].to_numpy(),
        {n: stats[theirs].to_numpy().astype(kind) for n, (theirs, kind) in STATS.items()},
        asked(settings._replace(chains=chains), problem, begin.target.centering),
        notes,
        begin.target.centering,
    )


def _nutpie() -> Any:
    try:
        return importlib.import_module("nutpie")
    except ModuleNotFoundError as error:
        if error.name != "nutpie":
            raise
        raise ModelError(
            "method='nutpie' needs the package nutpie, which is not installed; install popk[nutpie], or "
            "take method='nuts'"
        ) from error


def _compiled(nutpie: Any, model: Model, begin: Beginning) -> Any:
    """Return the log-density as nutpie takes it."""
    plan, (arrays, centering), positions = begin.plan, begin.target, begin.carry.state.position
    # Closed over: to hand the trial's arrays over at every call would cost more than the density.
    density = jax.jit(jax.value_and_grad(lambda x: log_density(model, plan, arrays, x, centering)))

    def logp(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(x)
        return float(value), np.asarray(gradient)

    return nutpie.compiled_pyfunc.from_pyfunc(
        ndim=plan.size,
        make_logp_fn=lambda: logp,
        make_expand_fn=lambda *_: lambda x: {"position": np.asarray(x)},
        # nutpie's own start, next to 0 on the unconstrained scale, is far from any typical value.
        make_initial_point_fn=lambda chain_seed: np.asarray(positions[chain_seed % STARTS]),
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(plan.size,)],
        expanded_names=["position"],
    )
