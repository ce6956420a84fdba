"""What does nutpie's sampler make of a model? Draws of popk's own log-density."""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from popk.inference.density import Layout, layout, log_density, start
from popk.inference.draws import Draws, Problem
from popk.model.sites import ModelError, Sites
from popk.trial import Trial

ATTEMPTS = 10  # to start a chain where the log-density is finite

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
    centering: float | Mapping[str, float], target_accept: float, max_depth: int,
) -> Draws:  # fmt: skip
    """Return the draws of nutpie; the options are those of `popk.fit`."""
    nutpie = _nutpie()
    model, trial, sites = problem
    plan = layout(model, trial, _centering(centering, sites))
    compiled = _compiled(nutpie, problem, plan)
    tree = nutpie.sample(
        compiled, draws=draws, tune=warmup, chains=chains, cores=min(chains, os.cpu_count() or 1),
        seed=seed, save_warmup=False, progress_bar=progress, target_accept=target_accept,
        maxdepth=max_depth,
    )  # fmt: skip
    stats = tree["sample_stats"].dataset
    settings = {
        "chains": chains, "warmup": warmup, "draws": draws, "target_accept": target_accept,
        "max_depth": max_depth, "centering": plan.centering,
    }  # fmt: skip
    return Draws(
        plan,
        tree["posterior"].dataset["position"].to_numpy(),
        {n: stats[theirs].to_numpy().astype(kind) for n, (theirs, kind) in STATS.items()},
        settings,
        {"engine_versions": json.dumps({"nutpie": version("nutpie")})},
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


def _centering(centering: float | Mapping[str, float], sites: Sites) -> tuple[float, ...]:
    """Return how each random effect is sampled."""
    names = sites.parameters
    each = centering if isinstance(centering, Mapping) else dict.fromkeys(names, centering)
    if set(each) - set(names) or not all(0 <= c <= 1 for c in each.values()):
        raise ModelError(
            f"centering is {centering}; it must lie between 0 (not centred) and 1 (centred), or say so "
            f"of some of {', '.join(names) or 'no random effects'}"
        )
    return tuple(float(each.get(name, 0.5)) for name in names)


def _compiled(nutpie: Any, problem: Problem, plan: Layout) -> Any:
    """Return the log-density as nutpie takes it."""
    model, trial, _ = problem
    arrays = trial.arrays()
    # Closed over: to hand the trial's arrays over at every call would cost more than the density.
    density = jax.jit(jax.value_and_grad(lambda x: log_density(model, plan, arrays, x)))

    def logp(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(x)
        return float(value), np.asarray(gradient)

    def begin(chain_seed: int) -> np.ndarray:
        # nutpie's own start, next to 0 on the unconstrained scale, is far from any typical value.
        key = jax.random.key(chain_seed % 2**63)
        found = np.asarray(start(model, plan, arrays, key))
        for attempt in range(ATTEMPTS - 1):
            value, gradient = logp(found)
            if np.isfinite(value) and np.isfinite(gradient).all():
                break
            found = np.asarray(start(model, plan, arrays, jax.random.fold_in(key, attempt)))
        return found

    _refuse_impossible(trial, begin, logp)
    return nutpie.compiled_pyfunc.from_pyfunc(
        ndim=plan.size,
        make_logp_fn=lambda: logp,
        make_expand_fn=lambda *_: lambda x: {"position": np.asarray(x)},
        make_initial_point_fn=begin,
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(plan.size,)],
        expanded_names=["position"],
    )


def _refuse_impossible(
    trial: Trial, begin: Callable[[int], Any], logp: Callable[[Any], Any]
) -> None:
    """Refuse a model that has no finite log-density where a chain could begin."""
    value, gradient = logp(begin(0))
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        raise ModelError(
            f"the log-density or its gradient is not finite at any of {ATTEMPTS} starting points on "
            f"{trial.host.name}; popk.fit(..., method='nuts') says of which levels"
        )
