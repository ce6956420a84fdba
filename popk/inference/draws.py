"""What do draws of a posterior say? From positions of any engine to an ArviZ DataTree."""

import hashlib
import inspect
import json
import platform
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from popk.endpoints import PARAMETERS
from popk.inference.density import Layout, constrained
from popk.model.labels import labelled
from popk.model.sites import Model, Sites
from popk.trial import Trial
from popk.variability import Centering

VERSIONS = ("popk", "jax", "jaxlib", "numpyro", "blackjax", "arviz", "numpy", "xarray")


class Problem(NamedTuple):
    """What a posterior is asked of."""

    model: Model
    trial: Trial
    sites: Sites


class Draws(NamedTuple):
    """Draws of a posterior, as an engine returns them.

    Attributes
    ----------
    plan : Layout
        How a position is laid out.
    position : Float[ndarray, "chain draw d"]
        Unconstrained.
    stats : dict of str to ndarray
        What the engine says of each draw, each [chain, draw].
    settings : dict
        What was asked for, and what the engine chose by itself; JSON must know it.
    attrs : dict
        What else the DataTree should say of itself.
    centering : Centering, optional
        The coordinates of random effects, where the position is in coordinates.
    """

    plan: Layout
    position: Any
    stats: dict[str, Any]
    settings: dict[str, Any]
    attrs: dict[str, Any]
    centering: Centering | None = None


def provenance(model: Model, trial: Trial) -> dict[str, Any]:
    """Return what a result was made from: hashes of data and model source, versions, machine, time."""
    source = model_source(model)
    return {
        "model": getattr(model, "__name__", "model"),
        "model_source": source,
        "model_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "trial": trial.host.name,
        "trial_sha256": trial.host.fingerprint,
        "subjects": len(trial.ids),
        "units": json.dumps(trial.units),
        "versions": json.dumps({name: version(name) for name in VERSIONS}),
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "precision": "float64" if jax.config.read("jax_enable_x64") else "float32",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def model_source(model: Model) -> str:
    """Return the source text of a model function; a sentence where it cannot be had."""
    try:
        return inspect.getsource(model)
    except (OSError, TypeError):
        return f"# the source of {model!r} is not available"


@partial(jax.jit, static_argnames=("model", "plan", "wanted"))
def _values(model, plan, wanted, arrays, centering, positions):
    def one(vector):
        values = constrained(model, plan, arrays, vector, centering)
        return {name: values[name] for name in wanted}

    return jax.lax.map(one, positions, batch_size=64)


def posterior_tree(problem: Problem, drawn: Draws) -> xr.DataTree:
    """Return draws as a DataTree in ArviZ's schema.

    ``posterior`` (population and individual parameters), ``sample_stats``, ``log_likelihood``,
    ``observed_data`` and ``constant_data`` (covariates).
    """
    model, trial, sites = problem
    own = sites.named("population", "individual", "latent", "deterministic")
    kept = [n for n in own if not n.startswith("IPRED")]
    shape = drawn.position.shape[:2]
    values = _values(
        model,
        drawn.plan,
        (*kept, "log_likelihood"),
        trial.arrays(),
        drawn.centering,
        drawn.position.reshape(-1, drawn.position.shape[-1]),
    )
    values = {name: np.asarray(v).reshape(*shape, *v.shape[1:]) for name, v in values.items()}
    measured = np.asarray(trial.observations.measured)
    leading = ("chain", "draw")
    level = {"DV": values.pop("log_likelihood")}
    levels = np.where(trial.observations.exact, trial.observations.value, np.nan)
    posterior = labelled(values, sites, trial, leading, measured)
    posterior.attrs["fixed"] = [n for n in kept if _is_fixed(n, sites)]
    posterior.attrs["transforms"] = json.dumps(sites.transforms)
    stats = {name: (leading, value) for name, value in drawn.stats.items()}
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": xr.Dataset(stats),
            "log_likelihood": labelled(level, sites, trial, leading, measured),
            "observed_data": labelled({"DV": levels}, sites, trial, (), measured),
            "constant_data": _covariates(trial),
        }
    )
    for group in ("posterior", "sample_stats", "log_likelihood"):
        tree[group] = tree[group].dataset.assign_coords(
            chain=np.arange(shape[0]), draw=np.arange(shape[1])
        )
    tree["observed_data"]["DV"].attrs["units"] = trial.units["DV"]
    return tree


def _is_fixed(name: str, sites: Sites) -> bool:
    kinds = ("omega_", "gamma_", "tau_", "sigma_", "degrees", *PARAMETERS)
    return sites.all[name].kind == "deterministic" and name.startswith(kinds)


def _covariates(trial: Trial) -> xr.Dataset:
    """Return each subject's covariates at its first record, with their range over all records."""
    frame = trial.host.frame
    first = frame.groupby("ID", sort=False).first()
    data = {
        n: (
            "subject",
            first[n].to_numpy(),
            {"units": trial.units[n], "lowest": frame[n].min(), "highest": frame[n].max()},
        )
        for n in trial.host.covariates
    }
    return xr.Dataset(data, coords={"subject": list(trial.ids)})
