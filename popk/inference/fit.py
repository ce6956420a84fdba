"""What is the posterior? `fit`, from a model and a trial to an ArviZ DataTree."""

import hashlib
import inspect
import json
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from popk.endpoints import PARAMETERS
from popk.inference import nuts
from popk.inference.compilation import keep_compiled
from popk.inference.convergence import ConvergenceWarning, convergence
from popk.inference.density import Layout, constrained, layout, start
from popk.model.failures import why_not
from popk.model.labels import labelled
from popk.model.sites import Model, ModelError, Sites, describe
from popk.trial import Trial

VERSIONS = ("popk", "jax", "jaxlib", "numpyro", "blackjax", "arviz", "numpy", "xarray")


def fit(
    model: Model,
    trial: Trial,
    *,
    seed: int,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 2000,
    centering: float | Mapping[str, float] = 0.5,
    target_accept: float = 0.95,
    max_depth: int = 10,
    progress: bool = True,
) -> xr.DataTree:
    """Return the posterior of a model given a trial, by NUTS.

    Parameters
    ----------
    model : Callable
        A NumPyro function of a trial that ends in `popk.observe`.
    trial : Trial
    seed : int
        The same seed gives the same draws, bit for bit, on the same machine and versions.
    chains, warmup, draws : int
        The number of chains, and of steps of each before and after adaptation ends.
    centering : float or mapping of parameter to float
        How random effects are sampled: 1 centred (many levels a subject), 0 not
        centred (few), or in between; the posterior is the same.
    target_accept : float
        The mean acceptance rate to adapt the step size to; higher is slower and safer.
    max_depth : int
        At most 2**max_depth gradients a step.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    DataTree
        ``posterior`` (population and individual parameters), ``sample_stats``, ``log_likelihood``,
        ``observed_data``, ``constant_data`` (covariates), and provenance in ``attrs``.

    Raises
    ------
    ModelError
        The model does not fit the trial, or the data have zero probability under it.

    Warns
    -----
    ConvergenceWarning
        The chains did not converge; the message says what to do.

    Examples
    --------
    >>> posterior = popk.fit(theophylline, trial, seed=1)  # doctest: +SKIP
    """
    keep_compiled()
    began = time.perf_counter()
    if min(chains, warmup, draws) < 1:
        raise ValueError(
            f"chains={chains}, warmup={warmup}, draws={draws}: each must be at least 1"
        )
    sites = describe(model, trial)
    for name, asked in sites.unseen.items():
        which = f"levels with {asked}" if asked else "levels"
        raise ModelError(f"{name} stands for {which}, and the trial has none to fit")
    plan = layout(model, trial, _centering(centering, sites))
    settings = nuts.Settings(chains, warmup, draws, target_accept, max_depth)
    key_start, key_sample = jax.random.split(jax.random.key(seed))
    arrays = trial.arrays()
    begin = _begin(model, plan, trial, jax.random.split(key_start, chains))
    with _Progress(progress, warmup + draws) as report:
        sampled = nuts.sample(model, plan, arrays, begin, key_sample, settings, report=report)
    tree = _tree(model, plan, sites, trial, sampled)
    tree.attrs = {
        **provenance(model, trial),
        "seed": seed,
        "settings": json.dumps({**settings._asdict(), "centering": plan.centering}),
        "wall_time_s": round(time.perf_counter() - began, 3),
    }
    found = convergence(tree).problems()
    if found:
        message = "the chains did not converge:\n  " + "\n  ".join(found)
        warnings.warn(ConvergenceWarning(message), stacklevel=2)
    return tree


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
        "inference_library": "blackjax",
    }


def model_source(model: Model) -> str:
    """Return the source text of a model function; a sentence where it cannot be had."""
    try:
        return inspect.getsource(model)
    except (OSError, TypeError):
        return f"# the source of {model!r} is not available"


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


@partial(jax.jit, static_argnames=("model", "plan", "wanted"))
def _values(model, plan, wanted, arrays, positions):
    def one(vector):
        values = constrained(model, plan, arrays, vector)
        return {name: values[name] for name in wanted}

    return jax.lax.map(one, positions, batch_size=64)


def _tree(
    model: Model, plan: Layout, sites: Sites, trial: Trial, sampled: nuts.Sampled
) -> xr.DataTree:
    """Return sampled positions as a DataTree in ArviZ's schema."""
    own = sites.named("population", "individual", "latent", "deterministic")
    kept = [n for n in own if not n.startswith("IPRED")]
    positions = np.swapaxes(sampled.position, 0, 1)  # draw, chain -> chain, draw
    shape = positions.shape[:2]
    values = _values(
        model,
        plan,
        (*kept, "log_likelihood"),
        trial.arrays(),
        positions.reshape(-1, positions.shape[-1]),
    )
    values = {name: np.asarray(v).reshape(*shape, *v.shape[1:]) for name, v in values.items()}
    measured = np.asarray(trial.observations.measured)
    leading = ("chain", "draw")
    level = {"DV": values.pop("log_likelihood")}
    levels = np.where(trial.observations.exact, trial.observations.value, np.nan)
    posterior = labelled(values, sites, trial, leading, measured)
    posterior.attrs["fixed"] = [n for n in kept if _is_fixed(n, sites)]
    posterior.attrs["transforms"] = json.dumps(sites.transforms)
    stats = {
        name: (leading, np.swapaxes(getattr(sampled, name), 0, 1))
        for name in sampled._fields
        if name != "position"
    }
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
    """Return each subject's covariates at its first record."""
    first = trial.host.frame.groupby("ID", sort=False).first()
    data = {
        n: ("subject", first[n].to_numpy(), {"units": trial.units[n]})
        for n in trial.host.covariates
    }
    return xr.Dataset(data, coords={"subject": list(trial.ids)})
