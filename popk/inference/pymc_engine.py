"""What does PyMC's own sampler make of a model? Draws of `pymc_model`."""

import json
import warnings
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import pymc as pm
from numpyro.infer.util import unconstrain_fn

from popk.inference.density import Layout, layout
from popk.inference.draws import Draws, Problem
from popk.inference.pymc_models import pymc_model

#: What ArviZ calls the statistics that PyMC gives of each draw, by PyMC's names and types.
STATS = {
    "lp": ("lp", float),
    "diverging": ("diverging", bool),
    "energy": ("energy", float),
    "acceptance_rate": ("acceptance_rate", float),
    "n_steps": ("n_steps", int),
    "tree_depth": ("tree_depth", int),
    "step_size": ("step_size", float),
}


def draw(
    problem: Problem, *, seed: int, progress: bool, chains: int, warmup: int, draws: int,
    centering: float | Mapping[str, float], target_accept: float, max_depth: int,
) -> Draws:  # fmt: skip
    """Return the draws of PyMC's NUTS; the options are those of `popk.fit`."""
    model, trial, _ = problem
    written = pymc_model(model, trial, centering=centering)
    # Chains one after another: a process that has started JAX cannot be forked, and to spawn others
    # asks of every script that it be written for it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PyTensor could not link to a BLAS", UserWarning)
        tree: Any = pm.sample(
            draws, tune=warmup, chains=chains, cores=1, random_seed=seed, progressbar=progress,
            quiet=not progress, nuts_sampler="pymc", target_accept=target_accept,
            nuts_sampler_kwargs={"max_treedepth": max_depth}, compute_convergence_checks=False,
            model=written,
        )  # fmt: skip
    plan, position = _position(problem, tree["posterior"].dataset)
    stats = tree["sample_stats"].dataset
    settings = {
        "chains": chains, "warmup": warmup, "draws": draws, "target_accept": target_accept,
        "max_depth": max_depth, "centering": centering,
    }  # fmt: skip
    said = {name: version(name) for name in ("pymc", "pytensor")}
    return Draws(
        plan,
        position,
        {n: stats[theirs].to_numpy().astype(kind) for n, (theirs, kind) in STATS.items()},
        {**settings, "centering": dict(centering) if isinstance(centering, Mapping) else centering},
        {"engine_versions": json.dumps(said)},
    )


def _position(problem: Problem, posterior: Any) -> tuple[Layout, np.ndarray]:
    """Return where draws of all sites lie in popk's own vector, of the model as it stands."""
    model, trial, sites = problem
    plan = layout(model, trial)
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    values = {
        n: posterior[n].to_numpy().reshape(-1, *sites.all[n].shape)
        for n in (latent.name for latent in plan.latents)
    }
    flat = np.asarray(_unconstrained(model, plan, trial.arrays(), values))
    return plan, flat.reshape(*shape, -1)


@partial(jax.jit, static_argnames=("model", "plan"))
def _unconstrained(model, plan, arrays, values):
    def one(each):
        return plan.flatten(unconstrain_fn(model, (arrays,), {}, each))

    return jax.lax.map(one, values, batch_size=64)
