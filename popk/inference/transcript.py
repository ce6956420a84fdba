"""What does a model say, word by word? Its priors, people, structure and levels, for another engine.

The model runs once, with a placeholder for everything that another engine is to compute by itself:
each sampled value, each individual parameter, the structure's prediction. What is left, the
arithmetic in between, is a jaxpr.
"""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import ShapedArray
from jax.extend import core
from numpyro.primitives import Messenger

from popk.model.recording import answering
from popk.model.sites import Model, ModelError, Sites, beside_levels, describe
from popk.residual import Residual, ResidualError
from popk.trial import Trial

#: How individual parameters may follow from their random effects.
TRANSFORMS = ("log", "normal", "logit between 0 and 1")

_STRUCTURES = ("one_compartment", "two_compartment", "three_compartment")
_ERRORS = (
    {"additive"}, {"proportional"}, {"additive", "proportional"}, {"intercept", "slope"}, {"log"},
)  # fmt: skip


class Prior(NamedTuple):
    """The prior of a population site.

    Attributes
    ----------
    family : str
        The name of NumPyro's distribution.
    shape : tuple of int
        Of the site.
    given : dict of str to int
        The distribution's parameters, each by its place among the arithmetic's outputs.
    """

    family: str
    shape: tuple[int, ...]
    given: dict[str, int]


class People(NamedTuple):
    """How individual parameters follow from population ones.

    Attributes
    ----------
    transforms : dict of str to str
        The scale h of each parameter's random effect.
    typical, omega : dict of str to int
        h(TV) of each [subject], and its standard deviation, by their places.
    blocks : dict of str to tuple of str
        The site of each correlation matrix, and the parameters that it is of.
    """

    transforms: dict[str, str]
    typical: dict[str, int]
    omega: dict[str, int]
    blocks: dict[str, tuple[str, ...]]


class Asked(NamedTuple):
    """The structure that the model calls.

    Attributes
    ----------
    name : str
        "one_compartment", "two_compartment" or "three_compartment".
    parameters : dict of str to int
        CL, V and so on, by their places.
    F, lag : dict of str to int
        Those of each compartment that has one.
    """

    name: str
    parameters: dict[str, int]
    F: dict[str, int]
    lag: dict[str, int]


class Transcript(NamedTuple):
    """What a model says.

    Attributes
    ----------
    sites : Sites
    priors : dict of str to Prior
        In the model's order.
    people : People or None
        None where nobody differs.
    structure : Asked
    error : ResidualError
    sigmas : dict of str to int
        The values of the error's parameters, by their places.
    values : dict of str to int
        What the model records beside, fixed values among it.
    arithmetic : ClosedJaxpr
        Its outputs are the values that all places point to.
    """

    sites: Sites
    priors: dict[str, Prior]
    people: People | None
    structure: Asked
    error: ResidualError
    sigmas: dict[str, int]
    values: dict[str, int]
    arithmetic: Any


#: Stands in the arithmetic for what is computed elsewhere; ``name`` says for what.
PLACEHOLDER = core.Primitive("placeholder")
PLACEHOLDER.def_abstract_eval(lambda *, name, shape: ShapedArray(shape, jnp.dtype(float)))


def transcribe(model: Model, trial: Trial) -> Transcript:
    """Return what a model says of a trial.

    Parameters
    ----------
    model : Callable
    trial : Trial

    Raises
    ------
    ModelError
        The model says something that is not of the standard families, see `popk.pymc_model`.
    """
    sites = describe(model, trial)
    if sites.classes:
        refuse("a mixture", "leave out popk.mixture(...)")
    if sites.levels:
        refuse("variability between groups", "leave out groups=")
    listener = _Listener(trial, sites)

    def run() -> list[Any]:
        with listener, answering(listener.answer):
            model(trial.arrays())
        return listener.outputs

    arithmetic = jax.make_jaxpr(run)()
    return listener.transcript(arithmetic)


class _Listener(Messenger):
    """Writes down what a model says while it runs, and answers with placeholders."""

    def __init__(self, trial: Trial, sites: Sites):
        self.trial, self.sites = trial, sites
        self.outputs: list[Any] = []
        self.priors: dict[str, Prior] = {}
        self.known: dict[str, int] = {}  # the place of every site's value
        self.people: People | None = None
        self.structure: Asked | None = None
        self.prediction: Any = None
        self.levels: list[Residual] = []
        self.sigmas: dict[str, int] = {}
        super().__init__(None)

    def transcript(self, arithmetic: Any) -> Transcript:
        """Return what was heard."""
        if self.structure is None or len(self.levels) != 1:
            refuse(
                f"{len(self.levels)} kinds of levels, or none of a structure",
                "it knows one kind of levels, around the concentration of one structure",
            )
        own = {n: i for n, i in self.known.items() if self._belongs_beside(n)}
        return Transcript(self.sites, self.priors, self.people, self.structure,
                          self.levels[0].error, self.sigmas, own, arithmetic)  # fmt: skip

    def process_message(self, msg: Any) -> None:
        """Answer a site, and write down what it is."""
        if msg["type"] == "deterministic":
            self._deterministic(msg)
        elif msg["type"] == "sample" and not msg["is_observed"]:
            self._sampled(msg)
        elif msg["type"] == "sample" and beside_levels(msg):
            refuse(f"{msg['name']}, which is observed and no level", "leave it out")
        elif msg["type"] == "sample":
            self._observed(msg)

    def answer(self, name: str, trial: Trial, arguments: Mapping[str, Any]) -> Any:
        """Answer a structure, and write down what it is asked."""
        if name not in _STRUCTURES:
            refuse(f"popk.{name}()", f"it knows {', '.join(f'popk.{n}()' for n in _STRUCTURES)}")
        if self.structure is not None:
            refuse("a second structure", "it knows models of one")
        given = {n: v for n, v in arguments.items() if v is not None}
        for option in ("absorption", "R", "D", "initial"):
            if option in given:
                refuse(
                    f"{option}= of popk.{name}()",
                    "it knows boluses, first-order absorption and infusions with RATE above 0",
                )
        F, lag = (given.pop(option, {}) for option in ("F", "lag"))
        self.structure = Asked(name, *(
            {n: self._held(n, v) for n, v in values.items()} for values in (given, F, lag)
        ))  # fmt: skip
        self.prediction = _placeholder("prediction", trial.time.shape)
        return self.prediction

    def _place(self, value: Any) -> int:
        self.outputs.append(jnp.asarray(value))
        return len(self.outputs) - 1

    def _held(self, name: str, value: Any) -> int:
        """Return the place of a parameter that each subject holds [subject]."""
        array = jnp.asarray(value, dtype=float)
        n = self.trial.n_subjects
        if array.ndim == 2 and array.shape[1] > 1:
            refuse(
                f"{name}, which changes within subjects",
                "its closed forms need parameters that hold in each subject: a covariate, an occasion "
                "or a typical value that changes in time is none of it",
            )
        return self._place(jnp.broadcast_to(array.reshape(-1), (n,)))

    def _sampled(self, msg: Any) -> None:
        name, fn, infer = msg["name"], msg["fn"], msg["infer"]
        kind = self.sites.all[name].kind if name in self.sites.all else "population"
        if name == "eta":
            self._people(fn, infer)
        elif "iov" in infer:
            refuse(f"variability between occasions ({name})", "leave out iov=")
        elif kind != "population":
            refuse(f"{name}, which differs between subjects or groups", "it knows popk.individual(...) "
                   "without groups=, and no covariate that is missing")  # fmt: skip
        elif name.startswith("share_"):
            refuse(f"a shared random effect ({name})", "leave out share=")
        shape = tuple(fn.shape(tuple(msg["kwargs"].get("sample_shape", ()))))
        if name != "eta":
            self.priors[name] = self._prior(name, fn, shape)
        msg["value"] = _placeholder(name, shape)
        self.known[name] = self._place(msg["value"])

    def _prior(self, name: str, fn: Any, shape: tuple[int, ...]) -> Prior:
        fn = _plain(fn)
        family = type(fn).__name__
        given = {n: getattr(fn, n) for n in fn.arg_constraints}
        if family.endswith("TruncatedDistribution"):
            if not isinstance(fn.base_dist, dist.Normal):
                refuse(f"the prior of {name}, a truncated {type(fn.base_dist).__name__}",
                       "of truncated priors it knows TruncatedNormal")  # fmt: skip
            given |= {"loc": fn.base_dist.loc, "scale": fn.base_dist.scale}
            family = "TruncatedNormal"
        return Prior(family, shape, {n: self._place(v) for n, v in given.items()})

    def _people(self, fn: Any, infer: Mapping[str, Any]) -> None:
        """Write down how individuals differ."""
        own, transforms = infer["parameters"], infer["transforms"]
        if isinstance(_plain(fn), dist.MultivariateStudentT):
            refuse("random effects of Student's t distribution", "leave out degrees=")
        for n in own:
            if transforms[n] not in TRANSFORMS:
                refuse(f"the transform of {n}, {transforms[n]}",
                       "it knows 'log', 'normal' and 'logit'")  # fmt: skip
        typical = infer["typical"]
        found = {n: p for n, p in self.priors.items() if n == "corr" or n.startswith("corr_")}
        blocks = {n: own if n == "corr" else _block(n, own) for n in found}
        self.people = People(
            {n: transforms[n] for n in own},
            {n: self._place(typical[:, 0, i]) for i, n in enumerate(own)},
            {n: self.known[f"omega_{n}"] for n in own},
            blocks,
        )

    def _deterministic(self, msg: Any) -> None:
        name, value = msg["name"], msg["value"]
        if self.people is not None and name in self.people.transforms:
            self._held(name, value)  # refuses what changes within subjects
            msg["value"] = _placeholder(name, (self.trial.n_subjects, 1))
        elif name.startswith("IPRED"):
            if value is not self.prediction:
                refuse("a prediction that is not the concentration of popk's structure itself",
                       "observe what the structure returns")  # fmt: skip
        else:
            self.known[name] = self._place(value)

    def _observed(self, msg: Any) -> None:
        """Write down how levels vary around their prediction."""
        fn = _plain(msg["fn"])
        if not isinstance(fn, Residual):
            refuse(f"levels that are {_kind_of(fn, msg['infer'])}", "it knows residual errors")
        error, names = fn.error, set(fn.error.priors)
        if names not in _ERRORS or error.blq != "M3" or fn.scale is not None or fn.above:
            refuse(
                f"a residual error with {', '.join(error.priors)}, blq={error.blq!r}"
                f"{', scale=' if fn.scale is not None else ''}"
                f"{', levels above a limit' if fn.above else ''}",
                "it knows additive_error, proportional_error, combined_error and lognormal_error, with "
                "normal errors and levels below a limit by M3",
            )
        self.levels.append(fn)
        self.sigmas = {n: self._place(v) for n, v in fn.sigmas.items()}

    def _belongs_beside(self, name: str) -> bool:
        site = self.sites.all.get(name)
        inner = ("record", "observation")
        return (
            site is not None
            and site.kind == "deterministic"
            and name != "corr"
            and not set(site.dims) & set(inner)
        )


def _placeholder(name: str, shape: tuple[int, ...]) -> Any:
    return PLACEHOLDER.bind(name=name, shape=tuple(shape))


def _plain(fn: Any) -> Any:
    """Return a distribution without the plates it is expanded in."""
    while isinstance(fn, dist.ExpandedDistribution | dist.Independent):
        fn = fn.base_dist
    return fn


def _block(site: str, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parameters of ``corr_CL_V``, in its order; a name may hold an underscore itself."""
    rest = site.removeprefix("corr_")
    for size in range(2, len(own) + 1):
        for block in permutations(own, size):
            if "_".join(block) == rest:
                return block
    return refuse(f"{site}, which is named as a block of correlations", "give it another name")


def _kind_of(fn: Any, infer: Mapping[str, Any]) -> str:
    if "endpoint" in infer:
        return f"outcomes of an endpoint ({infer['endpoint'].name})"
    return "those of a mixture" if "classes" in infer else "correlated with others"


def refuse(what: str, known: str) -> NoReturn:
    """Raise ModelError: another engine has no counterpart of something.

    Parameters
    ----------
    what : str
        What the model has.
    known : str
        What the other engine knows, or what to do.
    """
    raise ModelError(f"popk.pymc_model() has no counterpart of {what}; {known}")
