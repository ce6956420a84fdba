"""What does a model sample? Its sites by kind, their axes, and their values under given ones."""

import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro import handlers

from popk.trial import Trial

Model = Callable[[Trial], Any]

#: The axes of results. A site may not bear the name of one: ArviZ would drop it without a word.
AXES = (
    "chain",
    "draw",
    "sample",
    "subject",
    "record",
    "observation",
    "occasion",
    "parameter",
    "parameter2",
    "compartment",
    "output",
    "regimen",
    "target",
)

#: Names that popk keeps for sites of its own.
RESERVED = ("eta", "eta_coordinate", "kappa", "corr", "IPRED", "DV", "log_likelihood")


class ModelError(ValueError):
    """A model that cannot be used with a trial, or values that do not fit a model."""


class Site(NamedTuple):
    """One named value of a model.

    Attributes
    ----------
    kind : str
        "population", "individual" (inside the `subject` plate), "level" (inside `observation`)
        or "deterministic".
    dims : tuple of str
        Its axes, after those of size 1 within subjects are dropped.
    shape : tuple of int
        Its shape inside the model.
    """

    kind: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]


class Sites(NamedTuple):
    """A model's sites.

    Attributes
    ----------
    all : dict of str to Site
    parameters : tuple of str
        The individual parameters, in the order of `eta`.
    """

    all: dict[str, Site]
    parameters: tuple[str, ...]

    def named(self, *kinds: str) -> list[str]:
        """Return the names of the sites of some kinds, in the model's order."""
        return [name for name, site in self.all.items() if site.kind in kinds]


def check_parameter(name: str) -> None:
    """Raise ModelError where an individual parameter bears a name that has another meaning."""
    check_name(name)
    if name in RESERVED:
        raise ModelError(_reserved(name))


def check_name(name: str) -> None:
    """Raise ModelError where a site bears the name of an axis."""
    if name in AXES:
        raise ModelError(
            f"a site is named {name!r}, which is an axis of the results; rename it "
            f"(axes: {', '.join(AXES)})"
        )


def describe(model: Model, trial: Trial) -> Sites:
    """Return what a model samples on a trial; nothing is computed.

    Raises
    ------
    ModelError
        The model observes nothing, or a site bears the name of an axis.
    """
    leaves, structure = jax.tree.flatten(trial.arrays())
    return _described(model, structure, tuple((np.shape(x), np.result_type(x)) for x in leaves))


@lru_cache(maxsize=256)
def _described(model: Model, structure: Any, leaves: tuple[Any, ...]) -> Sites:
    seen: dict[str, Any] = {}

    def run(arrays: Trial) -> None:
        seeded = handlers.seed(model, jax.random.key(0))
        seen.update(handlers.trace(seeded).get_trace(arrays))

    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in leaves]
    try:
        jax.eval_shape(run, jax.tree.unflatten(structure, shapes))
    except Exception as error:  # a user's function may raise anything
        if type(error).__module__.startswith("popk."):
            raise
        raise ModelError(_raised(model, error)) from error
    parameters: tuple[str, ...] = ()
    if "eta" in seen:
        parameters = seen["eta"]["infer"].get("parameters", ())
    sites = {}
    for name, message in seen.items():
        if message["type"] in ("sample", "deterministic"):
            check_name(name)
            if name in ("eta_coordinate", "kappa", "log_likelihood") or (
                name == "eta" and not parameters
            ):
                raise ModelError(_reserved(name))
            sites[name] = _site(name, message)
    if not any(site.kind == "level" for site in sites.values()):
        raise ModelError("the model observes no levels; end it with popk.observe(trial, ...)")
    return Sites(sites, parameters)


def _reserved(name: str) -> str:
    return f"the name {name!r} is kept for a site of popk's own; choose another one"


def _raised(model: Model, error: Exception) -> str:
    """Return a sentence on an error that a model raised, with the line of the model."""
    file = getattr(getattr(model, "__code__", None), "co_filename", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    at = f" at {file} line {lines[-1]}" if lines else ""
    first = str(error).strip().split("\n")[0]
    return (
        f"the model {getattr(model, '__name__', model)} raised {type(error).__name__}{at}: {first}"
    )


def _site(name: str, message: dict[str, Any]) -> Site:
    plates = {frame.dim: frame.name for frame in message["cond_indep_stack"]}
    shape = tuple(np.shape(message["value"]))
    if message["type"] == "deterministic":
        kind, events = "deterministic", 0
    else:
        kind = (
            "level"
            if "observation" in plates.values()
            else "individual"
            if "subject" in plates.values()
            else "population"
        )
        events = message["fn"].event_dim
    if name == "IPRED":
        return Site(kind, ("observation",), shape)
    batch = shape[: len(shape) - events]
    dims: list[str] = []
    for i, size in enumerate(batch):
        axis = plates.get(i - len(batch))
        if axis is None and i == len(batch) - 1 and "subject" in plates.values():
            axis = "record" if size > 1 else ""
        dims.append(f"{name}_dim_{i}" if axis is None else axis)
    inner = {"eta": ("parameter",), "corr": ("parameter", "parameter2")}.get(
        name, tuple(f"{name}_dim_{i + len(batch)}" for i in range(events))
    )
    return Site(kind, tuple(d for d in (*dims, *inner) if d), shape)


def values_of(model: Model, arrays: Trial, given: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return the values of all sites, those not given being sampled; for use under jit and vmap."""
    conditioned = handlers.substitute(handlers.seed(model, key), data=dict(given))
    trace = handlers.trace(conditioned).get_trace(arrays)
    return {n: s["value"] for n, s in trace.items() if s["type"] in ("sample", "deterministic")}


def conditioned(model: Model) -> Model:
    """Return the model whose levels are the trial's own."""
    return lambda trial: handlers.condition(model, data={"DV": trial.observations.value})(trial)


def observation_coords(trial: Trial, chosen: Any) -> dict[str, Any]:
    """Return the coordinates of the `observation` axis: ID, TIME, and the row of the file."""
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0)][np.asarray(chosen)]
    return {
        "observation": np.arange(len(rows)),
        "ID": ("observation", rows["ID"].to_numpy(dtype=str)),
        "TIME": ("observation", rows["TIME"].to_numpy()),
        "row": ("observation", [str(row) for row in rows["ROW"]]),
    }


def labelled(
    values: Mapping[str, Any], sites: Sites, trial: Trial, leading: tuple[str, ...], chosen: Any
) -> xr.Dataset:
    """Return sites as a Dataset with named axes.

    Parameters
    ----------
    values : mapping of str to array
        Of shape (*leading, *site shape).
    leading : tuple of str
        The axes before the site's own.
    chosen : Bool[ndarray, "observation"]
        The observations to keep.
    """
    o = trial.observations
    subject, record = np.asarray(o.subject)[chosen], np.asarray(o.record)[chosen]
    data = {}
    for name, value in values.items():
        site, array = sites.all[name], np.asarray(value)
        if name == "IPRED":
            array = array[..., subject, record]
        elif site.dims[-1:] == ("observation",):
            array = array[..., chosen]
        kept = [array.shape[i] for i in range(len(leading))]
        own = array.shape[len(leading) :]
        if len(own) > len(site.dims):  # the axis of size 1 within subjects
            own = (own[0], *own[2:]) if own[1] == 1 else own
        data[name] = ((*leading, *site.dims), array.reshape(*kept, *own))
    coords = {}
    used = {d for dims, _ in data.values() for d in dims}
    if "observation" in used:
        coords |= observation_coords(trial, chosen)
    if "subject" in used:
        coords["subject"] = list(trial.ids)
    coords |= {axis: list(sites.parameters) for axis in ("parameter", "parameter2") if axis in used}
    return xr.Dataset(data, coords=coords)


def by_subject(what: str, value: Any, trial: Trial, given_by: str) -> Any:
    """Return a value as [subject, 1] or [subject, record]; `given_by` says what gives such a one.

    Raises
    ------
    ModelError
        It has another shape.
    """
    array = jnp.asarray(value, dtype=float)
    if array.ndim == 0:
        array = array[None, None]
    n, r = trial.time.shape
    if array.ndim != 2 or array.shape[0] not in (1, n) or array.shape[1] not in (1, r):
        raise ModelError(
            f"{what} has shape {array.shape}; it must be one value, or [subject, 1] or "
            f"[subject, record] as {given_by}"
        )
    return jnp.broadcast_to(array, (n, array.shape[1]))
