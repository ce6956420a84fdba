"""What does a model sample? Its sites by kind, their axes, and their values under given ones."""

import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from popk.model.levels import levels_of
from popk.model.outcomes import Outcomes, check_outcomes
from popk.priors import Fixed
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
    "iov",
    "candidate",
    "class",
    "compartment",
    "output",
    "regimen",
    "target",
)

#: Names that popk keeps for sites of its own.
RESERVED = (
    "eta",
    "eta_coordinate",
    "kappa",
    "corr",
    "IPRED",
    "DV",
    "log_likelihood",
    "class_probability",
    "class_considered",
    "class_weight",
    "subject_class",
    "class",
)

#: Axes inside a site.
_INNER = {"eta": ("parameter",), "corr": ("parameter", "parameter2")}


class ModelError(ValueError):
    """A model that cannot be used with a trial, or values that do not fit a model.

    Parameters
    ----------
    says : str
        What is wrong and what to do.
    rows : mapping of column to value, optional
        What the records have in common that it concerns.
    """

    def __init__(self, says: str, rows: Mapping[str, float] | None = None):
        super().__init__(says)
        self.rows = rows


class Site(NamedTuple):
    """One named value of a model.

    Attributes
    ----------
    kind : str
        "population", "individual" (inside the `subject` plate: a random effect, typically 0),
        "latent" (there too, but no effect: a class, a missing covariate), "level" (inside
        `observation`) or "deterministic".
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
        The individual parameters that have a random effect, in the order of `eta`.
    transforms : dict of str to str
        All individual parameters, and the scale of each one's random effect: "log", ...
    iov : dict of str to tuple of str
        The parameters that vary between occasions, for each site that holds how.
    unseen : dict of str to str
        The sites of levels of which the trial has none, and what they ask for: ``DVID 3 CMT 2``.
    classes : tuple of str
        The classes of a mixture that subjects may be of.
    levels : dict of str to tuple of float
        The groups of subjects that there are, for each column that has random effects above the subject.
    endpoints : dict of str to Outcomes
        The sites of levels that are outcomes of an endpoint.
    """

    all: dict[str, Site]
    parameters: tuple[str, ...]
    transforms: dict[str, str]
    iov: dict[str, tuple[str, ...]]
    unseen: dict[str, str]
    endpoints: Mapping[str, Outcomes] = MappingProxyType({})
    classes: tuple[str, ...] = ()
    levels: Mapping[str, tuple[float, ...]] = MappingProxyType({})

    @property
    def outcomes(self) -> list[tuple[int, int]]:
        """Return the kinds of levels (CMT, DVID) that are outcomes of an endpoint."""
        return [kind for endpoint in self.endpoints.values() for kind in endpoint.kinds]

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
    DataError
        A DV is no outcome of the endpoint that the model observes there.
    """
    leaves, structure = jax.tree.flatten(trial.arrays())
    shapes = tuple((np.shape(x), np.result_type(x)) for x in leaves)
    try:
        found, columns = _described(model, structure, shapes)
    except ModelError as error:
        where = _first_row(trial, error.rows) if error.rows and trial.source else ""
        if not where:
            raise
        raise ModelError(f"{where}{error}", error.rows) from error
    if trial.source:
        for column in columns:
            _check_occasions(trial, column)
        for column, levels in found.levels.items():
            _check_levels_of(trial, column, levels)
        check_outcomes(trial, found.endpoints)
    return found


def _check_levels_of(trial: Trial, column: str, levels: tuple[float, ...]) -> None:
    """Refuse a group that the model does not know."""
    frame = trial.host.frame
    other = frame[~frame[column].isin(levels)]
    if len(other):
        row = other.iloc[0]
        raise ModelError(
            f"{_place(trial, row)}{column} is {row[column]:g}, and the model knows "
            f"{', '.join(f'{x:g}' for x in levels)}; add it to levels={{'{column}': ...}} and fit again"
        )


def _check_occasions(trial: Trial, column: str) -> None:
    """Refuse two occasions of one subject that bear one number."""
    frame = trial.host.frame
    begins = frame[frame[["ID", column]].ne(frame[["ID", column]].shift()).any(axis=1)]
    again = begins[begins.duplicated(["ID", column])]
    if len(again):
        row = again.iloc[0]
        raise ModelError(
            f"{_place(trial, row)}occasion {column} {row[column]:g} begins a second "
            f"time; give each occasion of a subject its own number"
        )


def _first_row(trial: Trial, rows: Mapping[str, float]) -> str:
    """Return the first record of which something is true, as errors name it."""
    frame = trial.host.frame
    alike = np.all([frame[name].abs() == abs(value) for name, value in rows.items()], axis=0)
    if not alike.any():
        return ""
    return _place(trial, frame[alike].iloc[0])


def _place(trial: Trial, row: Any) -> str:
    """Return a record as errors begin with it."""
    return f"{trial.host.name} row {row['ROW']}  ID {row['ID']}  TIME {row['TIME']:g}: "


@lru_cache(maxsize=256)
def _described(
    model: Model, structure: Any, leaves: tuple[Any, ...]
) -> tuple[Sites, tuple[str, ...]]:
    """Return a model's sites, and the columns that number its occasions."""
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
    trial = jax.tree.unflatten(structure, shapes)
    said = {n: m.get("infer", {}) for n, m in seen.items()}
    occasions = {n: infer for n, infer in said.items() if "iov" in infer}
    observed = {n: infer for n, infer in said.items() if "kinds" in infer}
    _check_levels(observed, trial)
    levels = {infer["column"]: infer["levels"] for infer in said.values() if "levels" in infer}
    for column in levels:
        check_name(column)
    found = Sites(
        all=_named(seen, occasions),
        parameters=said.get("eta", {}).get("parameters", ()),
        transforms=said.get("eta", {}).get("transforms", {}),
        iov={n: infer["iov"] for n, infer in occasions.items()},
        unseen={n: asks["asked"] for n, asks in observed.items() if not asks["kinds"]},
        endpoints={n: asks["endpoint"] for n, asks in observed.items() if "endpoint" in asks},
        classes=next((asks["classes"] for asks in observed.values() if "classes" in asks), ()),
        levels=levels,
    )
    if found.classes:
        _check_classes(found)
        shape = (trial.n_subjects, 1, len(found.classes))
        found.all["class_probability"] = Site("latent", ("subject", "class"), shape)
    return found, tuple(infer["column"] for infer in occasions.values())


def _named(seen: Mapping[str, Any], occasions: Mapping[str, Any]) -> dict[str, Site]:
    """Return the sites of a trace, refusing names that are kept for something else."""
    sites = {}
    stray = {"eta_coordinate", "log_likelihood", "kappa"} - {*occasions}
    for name, message in seen.items():
        if message["type"] not in ("sample", "deterministic") or name == "class_considered":
            continue
        if beside_levels(message):
            continue
        check_name(name)
        if name in stray or (name == "eta" and "parameters" not in message["infer"]):
            raise ModelError(_reserved(name))
        sites[name] = _site(name, message)
    return sites


def beside_levels(message: Mapping[str, Any]) -> bool:
    """Return whether a site is observed but no level: a known covariate, or a model's own factor."""
    return bool(message.get("is_observed")) and "kinds" not in message["infer"]


def _check_classes(sites: Sites) -> None:
    """Refuse random effects that are common to the classes of a mixture."""
    if sites.parameters and sites.all["eta"].dims != ("subject", "class", "parameter"):
        raise ModelError(
            "the model has a mixture, and random effects that are common to its classes; give each class "
            "its own: popk.individual(trial, classes=mix, ...)"
        )


def _check_levels(observed: Mapping[str, Any], trial: Trial) -> None:
    """Refuse a model that does not observe each level once."""
    if not observed:
        raise ModelError("the model observes no levels; end it with popk.observe(trial, ...)")
    times = Counter(kind for asks in observed.values() for kind in asks["kinds"])
    wrong = [k for k in trial.design.observed if times[k] != 1]
    if wrong:
        cmt, dvid = wrong[0]
        raise ModelError(
            f"levels with CMT {cmt} and DVID {dvid} are observed {times[wrong[0]]} times; each must be "
            f"observed by one popk.observe(): add one, or say CMT= or DVID= in those that overlap",
            rows={"CMT": cmt, "DVID": dvid, "EVID": 0},
        )


def _reserved(name: str) -> str:
    return f"the name {name!r} is kept for a site of popk's own; choose another one"


def _raised(model: Model, error: Exception) -> str:
    """Return a sentence on an error that a model raised, with the line of the model."""
    file = getattr(getattr(model, "__code__", None), "co_filename", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    at = f" at {file} line {lines[-1]}" if lines else ""
    first = str(error).strip().split("\n")[0]
    if "`class_considered` duplicated" in first:
        return "the model has two mixtures; give one popk.mixture a class for each combination"
    return (
        f"the model {getattr(model, '__name__', model)} raised {type(error).__name__}{at}: {first}"
    )


def _site(name: str, message: dict[str, Any]) -> Site:
    plates = {frame.dim: frame.name for frame in message["cond_indep_stack"]}
    shape = tuple(np.shape(message["value"]))
    if message["type"] == "deterministic":
        # `corr` made of blocks has the inner axes of one that is sampled whole.
        kind, events = "deterministic", len(_INNER.get(name, ()))
    else:
        kind = (
            "level"
            if "observation" in plates.values()
            else "latent"
            if "covariate" in message["infer"]
            else "individual"
            if "subject" in plates.values()
            else "population"
        )
        events = message["fn"].event_dim
    if name == "IPRED" or name.startswith("IPRED_"):
        return Site(kind, ("observation",), shape)
    batch = shape[: len(shape) - events]
    dims: list[str] = []
    for i, size in enumerate(batch):
        axis = plates.get(i - len(batch))
        if axis is None and i == len(batch) - 1 and "subject" in plates.values():
            axis = "record" if size > 1 else ""
        dims.append(f"{name}_dim_{i}" if axis is None else axis)
    iov = message.get("infer", {}).get("iov") and (name.replace("kappa", "iov", 1),)
    inner = iov or _INNER.get(name, tuple(f"{name}_dim_{i + len(batch)}" for i in range(events)))
    return Site(kind, tuple(d for d in (*dims, *inner) if d), shape)


def values_of(model: Model, arrays: Trial, given: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return the values of all sites, those not given being sampled; for use under jit and vmap.

    ``DV`` are levels of every kind as they would be measured, and ``prediction`` what they vary around.
    """
    substituted = handlers.substitute(handlers.seed(model, key), data=dict(given))
    trace = handlers.trace(substituted).get_trace(arrays.unobserved())
    kept = ("sample", "deterministic")
    values = {
        n: s["value"] for n, s in trace.items() if s["type"] in kept and not s.get("is_observed")
    }
    together = levels_of(trace)
    return {**values, "DV": together.value, "prediction": together.ipred}


def known_or_sampled(name: str, prior: dist.Distribution | Fixed) -> Any:
    """Return a value from its prior, or one that is known."""
    if isinstance(prior, Fixed):
        return numpyro.deterministic(name, jnp.asarray(float(prior.value)))
    return numpyro.sample(name, prior)


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
