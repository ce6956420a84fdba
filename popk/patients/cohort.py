"""What is believed of thousands of patients now? `twins`, of all subjects of a trial in one program."""

import dataclasses
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.inference.density import Layout
from popk.inference.laplace import individualized, subject_layout
from popk.inference.many import Weighted, weighted_together
from popk.model.manner import manner_of
from popk.model.sites import Model, ModelError, describe, values_of
from popk.patients.belief import MAX_PARETO_K, Belief
from popk.patients.doubts import TwinWarning
from popk.patients.regimen import up_to_now
from popk.patients.starting import Shared
from popk.patients.twin import Twin
from popk.simulation import posterior_values
from popk.trial import Trial

_CHUNK = 1024  # patients in one call of the compiled program


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Twins:
    """The posteriors of many patients; ``twins["3"]`` is one of them as a `Twin`.

    Attributes
    ----------
    dataset : Dataset
        Draws of equal weight of each individual parameter after the last record (patient, draw), and
        pareto_k, ess and log_evidence (patient).
    trial : Trial
        Their records.
    """

    dataset: xr.Dataset
    trial: Trial
    _model: Model
    _posterior: xr.DataTree
    _population: dict[str, Any]
    _plan: Layout
    _found: Weighted
    _seed: int

    def __getitem__(self, id: str | int) -> Twin:
        """Return the twin of one patient: of the draws that are here where their weights can be trusted.

        Where Pareto k is above 0.7 the twin is inferred by itself, in the way that `Twin` finds.

        Raises
        ------
        KeyError
            The trial has no such patient.
        """
        patient = self.trial[str(id)]
        size = len(next(iter(self._population.values())))
        belief = _belief(self._plan, self._population, self._found, self.trial.ids.index(str(id)))
        shared = Shared(self._population, belief=None if belief.doubt else belief)
        return Twin(self._model, self._posterior, patient, self._seed, size, _shared=shared)

    def levels(self, *, seed: int = 2) -> xr.Dataset:
        """Return what is expected at each record that is a level, measured or not (MDV 1).

        Parameters
        ----------
        seed : int
            Of the residual errors.

        Returns
        -------
        Dataset
            IPRED and DV (patient, draw, level) in the unit of DV, and TIME (patient, level); NaN where a
            patient has fewer levels than others.
        """
        stacked = self.trial.by_subject()
        key = jax.random.key(seed)
        values = _expected(self._model, self._plan, stacked, self._population, self._found, key)
        rows = self.trial.host.frame
        rows = rows[rows["EVID"].eq(0)]
        count = rows.groupby("ID", sort=False).size().reindex(self.trial.ids, fill_value=0)
        known = np.arange(values["DV"].shape[-1]) < count.to_numpy()[:, None]
        times = np.full(known.shape, np.nan)
        times[known] = rows["TIME"]
        dims = ("patient", "draw", "level")
        data = {n: (dims, np.where(known[:, None], x, np.nan)) for n, x in values.items()}
        coords = {"patient": list(self.trial.ids), "TIME": (("patient", "level"), times)}
        return xr.Dataset(data, coords=coords)

    def __repr__(self) -> str:
        """Return how many patients there are, and of how many the weights cannot be trusted."""
        poor = int((self.dataset["pareto_k"] > MAX_PARETO_K).sum())
        return f"Twins of {self.trial.n_subjects} patients, Pareto k above {MAX_PARETO_K} in {poor}"


def twins(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    seed: int = 1,
    population_draws: int = 1000,
    individual_draws: int = 2,
    draws: int = 500,
) -> Twins:
    """Return the posteriors of all subjects of a trial, each from its own records alone.

    Parameters
    ----------
    model : Callable
        The model that the population was fitted with.
    posterior : DataTree
        The population's posterior.
    trial : Trial
        The patients' records; none of them may be in the trial that was fitted.
    seed : int
    population_draws : int
        How many of the posterior's draws to use, spread evenly.
    individual_draws : int
        How many draws of each patient's random effects there are for each of these; even.
    draws : int
        How many draws of equal weight are kept of each patient.

    Returns
    -------
    Twins

    Raises
    ------
    ModelError
        The model has a mixture, or levels that have no information each for itself: make a `Twin` of
        each patient. Or a count is wrong, or a patient's levels are impossible under every draw.

    Warns
    -----
    TwinWarning
        Pareto k of some patients is above 0.7: their draws in `dataset` cannot be trusted, and
        ``twins[id]`` infers them anew.

    Examples
    --------
    >>> many = popk.twins(theophylline, posterior, trial)  # doctest: +SKIP
    >>> many.dataset["CL"].median("draw")  # doctest: +SKIP
    >>> many["3"].forecast([24.0])  # doctest: +SKIP
    """
    if individual_draws < 2 or individual_draws % 2 or draws < 1 or population_draws < 1:
        raise ModelError(
            f"individual_draws is {individual_draws}, draws {draws} and population_draws "
            f"{population_draws}; the first must be even, and all positive"
        )
    keep_compiled()
    sites = describe(model, trial)
    if sites.classes or not manner_of(model, trial).apart:
        raise ModelError(
            "the model has a mixture, or levels without information each for itself (autocorrelated "
            "errors, events); make a popk.Twin of each patient"
        )
    first = describe(model, trial[trial.ids[0]].padded())
    population = posterior_values(
        posterior, first, trial, new_subjects=True, draws=population_draws
    )
    plan, key = subject_layout(model, trial), jax.random.key(seed)
    parts = []
    for (stacked, count), (now, _) in zip(_chunks(trial), _chunks(up_to_now(trial)), strict=True):
        found = weighted_together(
            model, plan, stacked, population, key, each=individual_draws, kept=draws
        )
        values = _parameters(model, plan, tuple(sites.transforms), now, population, found)
        parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], (found, values)))
    found, values = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    _judge(trial, found)
    return Twins(
        _dataset(trial, found, values), trial, model, posterior, population, plan, found, seed
    )  # fmt: skip


def _chunks(trial: Trial) -> Any:
    """Yield patients stacked, all chunks of one size, and how many of each are patients."""
    stacked = trial.by_subject()
    size = min(_CHUNK, trial.n_subjects)
    for start in range(0, trial.n_subjects, size):
        which = np.minimum(np.arange(start, start + size), trial.n_subjects - 1)
        count = min(size, trial.n_subjects - start)
        yield jax.tree.map(lambda x, w=which: np.asarray(x)[w], stacked), count


@partial(jax.jit, static_argnames=("model", "plan", "names"))
def _parameters(model, plan, names, stacked, population, found):
    """Return the individual parameters of each patient and draw, after the last record."""

    def subject(x):
        arrays, draw, vector = x
        last = arrays.recorded.sum() - 1

        def one(j, u):
            given, _ = individualized(model, plan, {n: x[j] for n, x in population.items()}, u)
            values = values_of(given, arrays, {}, jax.random.key(0))
            own = {n: values[n].reshape(-1) for n in names}
            return {n: x[jnp.minimum(last, x.shape[0] - 1)] for n, x in own.items()}

        return jax.vmap(one)(draw, vector)

    return jax.lax.map(subject, (stacked, found.draw, found.vector))


@partial(jax.jit, static_argnames=("model", "plan"))
def _expected(model, plan, stacked, population, found, key):
    """Return the prediction and a level as it would be measured, for each patient and draw."""

    def subject(x):
        arrays, draw, vector, key = x

        def one(j, u, key):
            given, _ = individualized(model, plan, {n: x[j] for n, x in population.items()}, u)
            values = values_of(given, arrays, {}, key)
            return {"IPRED": values["prediction"], "DV": values["DV"]}

        return jax.vmap(one)(draw, vector, jax.random.split(key, len(draw)))

    keys = jax.random.split(key, len(found.draw))
    return jax.lax.map(subject, (stacked, found.draw, found.vector, keys))


def _judge(trial: Trial, found: Any) -> None:
    """Refuse patients whom no draw explains, and name those whose weights cannot be trusted."""
    impossible = [
        i for i, x in zip(trial.ids, found.log_evidence, strict=True) if not np.isfinite(x)
    ]
    if impossible:
        raise ModelError(
            f"the levels of ID {', '.join(impossible[:5])} are impossible under every draw of the "
            f"population ({len(impossible)} patients); check doses and units, or leave them out"
        )
    poor = [i for i, k in zip(trial.ids, found.pareto_k, strict=True) if k > MAX_PARETO_K]
    if poor:
        warnings.warn(
            TwinWarning(
                f"Pareto k of {len(poor)} patients is above {MAX_PARETO_K} (ID {', '.join(poor[:5])}): "
                f"their draws here cannot be trusted; twins[id] infers each of them in another way"
            ),
            stacklevel=3,
        )


def _dataset(trial: Trial, found: Any, values: dict[str, Any]) -> xr.Dataset:
    data = {n: (("patient", "draw"), x) for n, x in values.items()}
    judged = {n: ("patient", getattr(found, n)) for n in ("pareto_k", "ess", "log_evidence")}
    return xr.Dataset({**data, **judged}, coords={"patient": list(trial.ids)})


def _belief(plan: Layout, population: dict[str, Any], found: Any, at: int) -> Belief:
    """Return one patient's belief, as its twin holds it."""
    draws = {n: x[found.draw[at]] for n, x in population.items()}
    k = float(found.pareto_k[at])
    doubt = "" if k <= MAX_PARETO_K else f"Pareto k is {k:.2f} (above {MAX_PARETO_K})"
    return Belief(
        "laplace", plan, draws, found.vector[at], k, float(found.ess[at]),
        float(found.log_evidence[at]), doubt,
    )  # fmt: skip
