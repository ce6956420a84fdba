"""What would be observed? Predictions of a model for given values, or for every posterior draw."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from popk.model.failures import why_not
from popk.model.labels import labelled
from popk.model.sites import Model, ModelError, Sites, describe, values_of
from popk.trial import Trial
from popk.units import same


def predict_at(
    model: Model, trial: Trial, values: Mapping[str, Any], *, output: str | None = None
) -> xr.DataArray:
    """Return the deterministic prediction at every record, for given values.

    Parameters
    ----------
    model : Callable
    trial : Trial
    values : mapping of site to value
        Population values such as ``{"CL_pop": 2.8}``, and ``eta`` [subject, parameter] if wanted: a
        random effect not given is 0.
    output : str, optional
        Which of a model's predictions, where it observes several kinds of levels.

    Returns
    -------
    DataArray
        IPRED (subject, record) in the unit of DV, NaN on padding, with TIME beside it.

    Raises
    ------
    ModelError
        A value that the prediction depends on is missing, is none of the model's, or has a wrong shape;
        the model has no such output; or a prediction cannot be computed: then the first record and why.

    Examples
    --------
    >>> popk.predict_at(theophylline, trial, {"CL_pop": 2.8, "V_pop": 32, "KA_pop": 1.5})
    ... # doctest: +SKIP
    """
    sites = describe(model, trial)
    name = f"IPRED_{output}" if output else "IPRED"
    if name not in sites.all:
        known = [n.removeprefix("IPRED_") for n in sites.all if n.startswith("IPRED_")]
        raise ModelError(f"the model has no such output; give output= one of {', '.join(known)}")
    given = _at_sites(values, sites, trial)
    needed = [n for n in sites.named("population", "latent") if n not in given]
    # What is not given is made NaN: a prediction that turns NaN depends on it.
    blank = {n: jnp.full(sites.all[n].shape, jnp.nan) for n in needed}

    def ipred(values: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(_ipred_compiled(model, name, trial.arrays(), dict(values)))

    recorded, found = np.asarray(trial.recorded), ipred({**blank, **given})
    if np.isnan(found[recorded]).any():
        known = {**_ones(sites, needed), **given}
        missing = [n for n in needed if np.isnan(ipred({**known, n: blank[n]})[recorded]).any()]
        if missing and not np.isnan(ipred(known)[recorded]).any():
            raise ModelError(f"values lacks {', '.join(missing)}, which the prediction depends on")
        if why := why_not(model, trial, {**blank, **given}):
            raise ModelError("\n".join(["amounts cannot be computed", *why]))
    return xr.DataArray(
        np.where(recorded, found, np.nan),
        dims=("subject", "record"),
        name="IPRED",
        coords={
            "subject": list(trial.ids),
            "TIME": (("subject", "record"), np.where(recorded, trial.time, np.nan)),
        },
        attrs={"units": trial.units["DV"]},
    )


def _ones(sites: Sites, names: list[str]) -> dict[str, Any]:
    return {
        n: jnp.eye(sites.all[n].shape[0]) if n == "corr" else jnp.ones(sites.all[n].shape)
        for n in names
    }


@partial(jax.jit, static_argnames=("model", "name"))
def _ipred_compiled(model, name, arrays, values):
    return values_of(model, arrays, values, jax.random.key(0))[name]


def _at_sites(values: Mapping[str, Any], sites: Sites, trial: Trial) -> dict[str, Any]:
    """Return values in the shapes of their sites, individual ones not given being 0."""
    sampled = sites.named("population", "individual", "latent")
    unknown = [n for n in values if n not in sampled]
    if unknown:
        raise ModelError(
            f"the model does not sample {', '.join(unknown)}; it samples {', '.join(sampled)}"
        )
    given = {n: jnp.zeros(sites.all[n].shape) for n in sites.named("individual")}
    if sites.classes and "class_probability" not in values:
        raise ModelError(
            f"values lacks class_probability (subject, class): 1 for the class of each subject, "
            f"{', '.join(sites.classes)}, and 0 for the others"
        )
    for name, value in values.items():
        array, shape = jnp.asarray(value, dtype=float), sites.all[name].shape
        if array.size != np.prod(shape, dtype=int):
            raise ModelError(f"{name} was given {array.size} numbers; its shape is {shape}")
        given[name] = array.reshape(shape)
    return given


def predict(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    seed: int,
    new_subjects: bool = False,
    draws: int | None = None,
) -> xr.DataTree:
    """Return what the posterior predicts for the records of a trial.

    Population values are taken draw by draw. With `new_subjects` each subject is a new person, whose
    random effects are sampled; otherwise it is the person of that ID in the posterior. Levels are
    sampled with residual error and never censored.

    Parameters
    ----------
    model : Callable
    posterior : DataTree
        As `popk.fit` returns it; or what `prior_draws` does, for new subjects.
    trial : Trial
        Any trial that the model fits; levels are predicted at each record with EVID 0.
    seed : int
    new_subjects : bool
    draws : int, optional
        How many posterior draws to use, spread evenly over chains and draws; all by default.

    Returns
    -------
    DataTree
        ``posterior_predictive`` with DV and IPRED (sample, observation), and for the same draws PRED,
        the prediction at random effects of 0, all in the unit of DV; ``observed_data`` with DV, NaN
        where nothing was measured. Of an endpoint, DV are counts, categories, or 1 at the first record
        at or after an event, and IPRED and PRED mean counts, logits or hazards.

    Raises
    ------
    ModelError
        The posterior lacks a site of the model, or a subject that is not new; a column has another unit
        than in the trial that was fitted; or a level cannot be predicted: then where and why.
    """
    sites = describe(model, trial)
    given = posterior_values(posterior, sites, trial, new_subjects, draws)
    count = next(iter(given.values())).shape[0]
    keys = jax.random.split(jax.random.key(seed), count)
    arrays = trial.arrays()
    everyone = np.ones(len(trial.observations.value), dtype=bool)
    out = {k: np.asarray(v) for k, v in _predicted(model, arrays, given, keys).items()}
    _refuse_unknown(model, trial, given, out["IPRED"])
    typical = {
        n: jnp.broadcast_to(jnp.zeros(sites.all[n].shape), (count, *sites.all[n].shape))
        for n in sites.named("individual")
    }
    pred = np.asarray(_predicted(model, arrays, {**given, **typical}, keys)["IPRED"])
    levels = labelled(out, sites, trial, ("sample",), everyone)
    levels["PRED"] = labelled({"IPRED": pred}, sites, trial, ("sample",), everyone)["IPRED"]
    for values in levels.data_vars.values():
        values.attrs["units"] = trial.units["DV"]
    measured = trial.observations.exact
    observed = {"DV": np.where(measured, trial.observations.value, np.nan)}
    tree = xr.DataTree.from_dict(
        {
            "posterior_predictive": levels,
            "observed_data": labelled(observed, sites, trial, (), everyone),
        }
    )
    tree.attrs = {
        "model": posterior.attrs.get("model", ""),
        "trial": trial.host.name,
        "seed": seed,
        "new_subjects": int(new_subjects),
        "time_unit": trial.units["TIME"],
        "endpoints": json.dumps(
            {
                n.removeprefix("DV").removeprefix("_"): {"name": e.name, "kinds": e.kinds}
                for n, e in sites.endpoints.items()
            }
        ),
    }
    return tree


def _refuse_unknown(
    model: Model, trial: Trial, given: Mapping[str, Any], found: np.ndarray
) -> None:
    """Refuse levels [sample, observation] that are not numbers, where there is a reason."""
    bad = np.isnan(found[:, : len(trial.observations.value)]).any(1)
    if not bad.any():
        return
    first = int(bad.argmax())
    if why := why_not(model, trial, {n: x[first] for n, x in given.items()}):
        raise ModelError(
            "\n".join([f"levels cannot be predicted in {bad.sum()} of {len(bad)} draws", *why])
        )


@partial(jax.jit, static_argnames="model")
def _predicted(model, arrays, given, keys):
    def one(x):
        values, key = x
        out = values_of(model, arrays, values, key)
        return {"DV": out["DV"], "IPRED": out["prediction"]}

    return jax.lax.map(one, (given, keys), batch_size=32)


def prior_draws(model: Model, trial: Trial, *, seed: int, draws: int = 1000) -> xr.DataTree:
    """Return what a model believes before the data: draws of its population values.

    `predict` with ``new_subjects=True`` takes them in the place of a posterior, so that a `vpc` of the
    result is a prior predictive check.

    Parameters
    ----------
    model : Callable
    trial : Trial
    seed, draws : int

    Returns
    -------
    DataTree
        Its group ``prior`` has each population site (chain, draw), of one chain.

    Raises
    ------
    ModelError
        The model cannot be used with the trial.

    Examples
    --------
    >>> prior = popk.prior_draws(theophylline, trial, seed=1)  # doctest: +SKIP
    >>> popk.vpc(popk.predict(theophylline, prior, trial, new_subjects=True, seed=2), trial)
    ... # doctest: +SKIP
    """
    sites = describe(model, trial)
    keys = jax.random.split(jax.random.key(seed), draws)
    names = tuple(sites.named("population"))
    found = _population(model, trial.arrays(), names, keys)
    values = {n: np.asarray(v)[None] for n, v in found.items()}
    kept = np.asarray(trial.observations.measured)
    tree = xr.DataTree.from_dict({"prior": labelled(values, sites, trial, ("chain", "draw"), kept)})
    tree.attrs = {
        "model": getattr(model, "__name__", "model"),
        "seed": seed,
        "units": json.dumps(trial.units),
    }
    return tree


@partial(jax.jit, static_argnames=("model", "names"))
def _population(model, arrays, names, keys):
    def one(key):
        values = values_of(model, arrays, {}, key)
        return {name: values[name] for name in names}

    return jax.lax.map(one, keys, batch_size=32)


def posterior_values(
    posterior: xr.DataTree, sites: Sites, trial: Trial, new_subjects: bool, draws: int | None
) -> dict[str, Any]:
    """Return the posterior's values of a model's sites, each [sample, *site shape].

    Parameters
    ----------
    new_subjects : bool
        Whether individual sites are left out, to be sampled.
    draws : int or None
        How many draws, spread evenly over chains and draws; None for all.

    Raises
    ------
    ModelError
        The posterior lacks a site, or a subject that is not new, or its trial had another unit.
    """
    _refuse_other_units(posterior, trial)
    group = posterior["posterior" if "posterior" in posterior.children else "prior"].dataset
    wanted = sites.named("population") + (
        [] if new_subjects else sites.named("individual", "latent")
    )
    missing = [n for n in wanted if n not in group]
    if missing:
        raise ModelError(
            f"the posterior lacks {', '.join(missing)}; was it fitted with this model?"
        )
    if not new_subjects:
        strangers = [i for i in trial.ids if i not in group["subject"].values]
        if strangers:
            raise ModelError(
                f"ID {', '.join(strangers[:5])} is not in the posterior; "
                f"predict with new_subjects=True, or make a popk.Twin"
            )
        group = group.sel(subject=list(trial.ids))
    count = group.sizes["chain"] * group.sizes["draw"]
    chosen = spread_evenly(count, draws)
    flat = {}
    for name in wanted:
        values = group[name].transpose("chain", "draw", ...).values
        flat[name] = jnp.asarray(
            values.reshape(count, *values.shape[2:])[chosen].reshape(
                len(chosen), *sites.all[name].shape
            )
        )
    return flat


def spread_evenly(count: int, draws: int | None) -> np.ndarray:
    """Return which of so many draws are taken, where so many are asked for (None: all)."""
    return np.linspace(0, count - 1, min(draws or count, count)).round().astype(int)


def _refuse_other_units(posterior: xr.DataTree, trial: Trial) -> None:
    """Refuse a trial in other units than the one that the model was fitted to."""
    for name, then in json.loads(posterior.attrs.get("units", "{}")).items():
        now = trial.units.get(name)
        if now is not None and not same(now, then):
            raise ModelError(
                f"{name} is in {now} in {trial.host.name}, and was in {then} in the trial that the model "
                f"was fitted to; convert it to {then}, or correct its unit"
            )
