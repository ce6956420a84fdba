"""What does a fit make of a trial whose truth is known? Trials simulated from the prior, and ranks."""

import dataclasses
import importlib.machinery
import inspect
import multiprocessing
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from numpyro import handlers

from popk.inference.convergence import ConvergenceWarning, convergence, population_draws
from popk.inference.density import layout
from popk.inference.fit import fit
from popk.model.labels import labelled
from popk.model.levels import levels_of
from popk.model.sites import Model, ModelError, describe, values_of
from popk.runs import load_model
from popk.trial import Trial


class Task(NamedTuple):
    """What is asked of every replicate.

    Attributes
    ----------
    model, simulate : Callable
        The model that is fitted, and the one that the trials are simulated from.
    design : Trial
        Whose doses, records and covariates each replicate has.
    limits : (Float[ndarray, "level"], Float[ndarray, "level"])
        Of quantification, lower and upper, for each record with EVID 0; infinite where there is none.
    ranks : int
        How many draws of each posterior are kept, so that ranks are 0 to this.
    method : str
    options : dict
        Of `popk.fit`.
    seed : int
    """

    model: Model
    simulate: Model
    design: Trial
    limits: tuple[np.ndarray, np.ndarray]
    ranks: int
    method: str
    options: dict[str, Any]
    seed: int


class Replicate(NamedTuple):
    """What came of one simulated trial.

    Attributes
    ----------
    number : int
    failure : str
        Why there was nothing to fit, or no fit; "" where there was.
    truth, rank : dict of str to float
        Of each population parameter, and of the joint log-likelihood.
    rhat, ess : float
        The largest and the smallest of the parameters.
    divergences : int
    beyond : float
        The share of levels beyond a limit of quantification.
    """

    number: int
    failure: str = ""
    truth: Mapping[str, float] = {}
    rank: Mapping[str, int] = {}
    rhat: float = np.nan
    ess: float = np.nan
    divergences: int = 0
    beyond: float = np.nan


LOG_LIKELIHOOD = "log_likelihood"


def replicate(task: Task, number: int) -> Replicate:
    """Return what a fit makes of one trial simulated from the prior.

    Parameters
    ----------
    task : Task
    number : int
        Which: each has a seed of its own, whoever works on it.
    """
    import arviz as az

    key_truth, key_fit, key_rank = jax.random.split(
        jax.random.fold_in(jax.random.key(task.seed), number), 3
    )
    drawn = _drawn(task.simulate, task.design.arrays(), key_truth)
    truth = {name: np.asarray(value) for name, value in drawn.items()}
    trial = _with_levels(task, truth["DV"])
    if trial is None:
        return Replicate(number, "a simulated level is not finite")
    seed = int(jax.random.randint(key_fit, (), 0, 2**31 - 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told of all replicates together
            told = {"method": task.method, **task.options, "progress": False}
            posterior = fit(task.model, trial, seed=seed, **told)
    except ModelError as error:
        return Replicate(number, str(error))
    verdict, o = convergence(posterior), trial.observations
    levels = joint_log_likelihood(posterior)
    draws = _quantities(task, trial, truth, posterior)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key_rank)))
    rank = {n: _rank(x[0], x[1:], task.ranks, random) for n, x in draws.items()}
    return Replicate(
        number, "", {n: float(x[0]) for n, x in draws.items()}, rank,
        verdict.rhat, min(verdict.ess_bulk, float(az.ess(levels, method="bulk"))), verdict.divergences,
        float(((o.below | o.above) & o.measured).sum() / max(o.measured.sum(), 1)),
    )  # fmt: skip


@partial(jax.jit, static_argnames="model")
def _drawn(model, arrays, key):
    return values_of(model, arrays, {}, key)


def _with_levels(task: Task, simulated: np.ndarray) -> Trial | None:
    """Return the design with simulated levels, those beyond a limit as such; None if one is no number."""
    frame = task.design.host.frame.copy()
    at = frame.index[frame["EVID"].eq(0)]
    counts = frame["MDV"].eq(0)[at].to_numpy()
    values, (low, high) = simulated[: len(at)], task.limits
    if not np.isfinite(values[counts]).all():
        return None
    below, above = counts & (values < low), counts & (values > high)
    frame.loc[at, "DV"] = np.where(counts & ~below & ~above, values, np.nan)
    for flag, column, beyond, limit in (
        ("BLQ", "LLOQ", below, low), ("ALQ", "ULOQ", above, high),
    ):  # fmt: skip
        frame.loc[at, flag] = beyond.astype(int)
        frame.loc[at, column] = np.where(np.isfinite(limit), limit, np.nan)
    trial = task.design.replaced(frame)
    # The same for all replicates, whether or not one has a level beyond a limit: one program.
    kinds = trial.design._replace(
        below=bool(np.isfinite(low).any()), above=bool(np.isfinite(high).any())
    )
    return dataclasses.replace(trial, design=kinds)


def _quantities(
    task: Task, trial: Trial, truth: Mapping[str, Any], posterior: xr.DataTree
) -> dict[str, np.ndarray]:
    """Return the truth and then all draws of each quantity [1 + draw]."""
    sites, group = describe(task.model, trial), posterior["posterior"].dataset
    own = [n for n in sites.named("population", "deterministic") if n in group and n in truth]
    same = [
        n for n in own if truth[n].shape == sites.all[n].shape and "subject" not in group[n].dims
    ]
    known = labelled(
        {n: truth[n][None, None] for n in same}, sites, trial, ("chain", "draw"),
        np.asarray(trial.observations.measured),
    )  # fmt: skip
    together = {}
    for name in same:
        x = group[name].transpose("chain", "draw", ...).values
        x = np.concatenate([known[name].values, x.reshape(1, -1, *x.shape[2:])], axis=1)
        together[name] = (known[name].dims, x)
    data = xr.Dataset(together, coords=known.coords, attrs=group.attrs)
    found = population_draws(xr.DataTree.from_dict({"posterior": data}))
    values = {n: x[0] for n, x in found.items()}
    plan = layout(task.model, trial)
    if all(truth.get(x.name, np.empty(0)).shape == _shape(sites, x.name) for x in plan.latents):
        latents = {x.name: truth[x.name] for x in plan.latents}
        levels = joint_log_likelihood(posterior)
        known = float(_log_likelihood(task.model, trial.arrays(), latents))
        values[LOG_LIKELIHOOD] = np.concatenate([[known], np.ravel(levels)])
    return values


def joint_log_likelihood(posterior: xr.DataTree) -> np.ndarray:
    """Return the log-likelihood of all levels together at each draw [chain, draw]."""
    return np.asarray(posterior["log_likelihood"].dataset["DV"].sum("observation"))


def _shape(sites: Any, name: str) -> tuple[int, ...]:
    return sites.all[name].shape if name in sites.all else ()


@partial(jax.jit, static_argnames="model")
def _log_likelihood(model, arrays, values):
    trace = handlers.trace(handlers.substitute(model, data=values)).get_trace(arrays)
    return levels_of(trace).log_prob.sum()


def _rank(truth: float, draws: np.ndarray, count: int, random: np.random.Generator) -> int:
    """Return the rank of the truth among so many draws, spread evenly; ties are broken at random."""
    kept = draws[np.linspace(0, len(draws) - 1, count).round().astype(int)]
    ties = int((kept == truth).sum())
    return int((kept < truth).sum()) + int(random.integers(0, ties + 1))


class Address(NamedTuple):
    """Where another process finds a model function: in a module, or in a model file."""

    module: str
    name: str
    file: str


def address_of(model: Model) -> Address:
    """Return where another process finds a model function.

    Raises
    ------
    ModelError
        It cannot: the function was made in a notebook or inside another function.
    """
    module, name = getattr(model, "__module__", ""), getattr(model, "__qualname__", "")
    home = sys.modules.get(module)
    if home is not None and getattr(home, name, None) is model:
        # A model file that load_model read bears the name of no module that can be imported.
        found = importlib.machinery.PathFinder.find_spec(module.split(".")[0])
        file = getattr(home, "__file__", None)
        if found is not None or (module == "__main__" and file):
            return Address(module, name, "")
        if file and module != "__main__":
            return Address("", name, inspect.getsourcefile(model) or "")
    raise ModelError(
        f"another process cannot find the model {name or model!r}; put it into a file of its own and "
        f"import it from there, or calibrate with processes=1"
    )


def _model_at(address: Address) -> Model:
    if address.file:
        return load_model(address.file, address.name)
    return getattr(importlib.import_module(address.module), address.name)


def replicates(task: Task, count: int, processes: int) -> Iterator[Replicate]:
    """Yield what came of each simulated trial, in the order in which they end.

    Parameters
    ----------
    task : Task
    count : int
    processes : int
        Among how many processes they are dealt out; each compiles for itself.

    Raises
    ------
    ModelError
        Another process cannot find the model.
    """
    if processes == 1:
        yield from (replicate(task, number) for number in range(count))
        return
    homes = address_of(task.model), address_of(task.simulate)
    bare = task._replace(model=None, simulate=None)
    dealt = [range(count)[first::processes] for first in range(processes)]
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs JAX hangs
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for part in pool.map(partial(_share, bare, homes), dealt):
            yield from part


def _share(task: Any, homes: tuple[Address, Address], numbers: Sequence[int]) -> list[Replicate]:
    """Return a process's share of the replicates."""
    own = task._replace(model=_model_at(homes[0]), simulate=_model_at(homes[1]))
    return [replicate(own, number) for number in numbers]
