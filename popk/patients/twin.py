"""What is believed of this patient now? `Twin`: one person's own posterior, updated as records arrive.

For each of the posterior's population draws the patient's random effects are found by a Laplace
approximation, sampled around it, and weighted by the exact density over the proposal's. Weights run
over all (population draw, individual draw) pairs, so that the patient's levels reweight the
population draws too.

References
----------
.. [1] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import dataclasses
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.inference.importance import PER_POPULATION_DRAW, resampled, smoothed, weighted
from popk.inference.laplace import individual_layout, individualized
from popk.model.failures import why_not
from popk.model.sites import Model, ModelError, describe, values_of
from popk.records.table import DataError, Problem
from popk.simulation import posterior_values
from popk.trial import ASK, Trial, read_nonmem
from popk.units import factor

#: Above this Pareto k the weights cannot be trusted (Vehtari et al. 2024).
MAX_PARETO_K = 0.7

_KEPT = 2000  # draws of equal weight that forecasts are made of
_HERE = (
    str(Path(__file__).parents[1]),
    dataclasses.__file__,
)  # whose lines a warning does not name
_ASKED = "forecast"  # the ROW of a record that asks for a prediction


class TwinWarning(UserWarning):
    """The twin's weights are dominated by a few draws: its forecasts are unreliable."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Twin:
    """One patient's posterior: immutable; an update gives a new twin.

    Parameters
    ----------
    model : Callable
        The model that the population was fitted with.
    posterior : DataTree
        The population's posterior, as `popk.fit` returns it.
    patient : Trial
        The records of one subject so far; without levels the twin is a new person with the patient's
        covariates.
    seed : int
        Of the individual draws.
    population_draws : int
        How many of the posterior's draws to use, spread evenly.

    Attributes
    ----------
    pareto_k : float
        Of the weights: below 0.7 they can be trusted.
    ess : float
        Their effective sample size, of 8 draws for each population draw.

    Raises
    ------
    ModelError
        The patient is not one subject, the posterior lacks a site of the model, a column has another
        unit than in the trial that was fitted, or the patient cannot be predicted: then where and why.

    Warns
    -----
    TwinWarning
        Pareto k is above 0.7: a few draws carry most of the weight.

    Examples
    --------
    >>> twin = popk.Twin(theophylline, posterior, trial["3"])  # doctest: +SKIP
    """

    model: Model
    posterior: xr.DataTree
    patient: Trial
    seed: int = 1
    population_draws: int = 1000
    _: dataclasses.KW_ONLY
    pareto_k: float = dataclasses.field(init=False)
    ess: float = dataclasses.field(init=False)
    _draws: dict[str, Any] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Infer the patient's random effects."""
        if len(self.patient.ids) != 1:
            raise ModelError(
                f"a twin is of one patient; the trial has {len(self.patient.ids)}: choose "
                f"one, trial['{self.patient.ids[0]}']"
            )
        keep_compiled()
        describe(self.model, self.patient)  # its records are outcomes of the model's endpoints
        arrays = self.patient.padded()
        sites = describe(self.model, arrays)
        population = posterior_values(
            self.posterior,
            sites,
            self.patient,
            new_subjects=True,
            draws=self.population_draws,
        )
        key_draw, key_keep = jax.random.split(jax.random.key(self.seed))
        keys = jax.random.split(key_draw, len(next(iter(population.values()))))
        plan = individual_layout(self.model, arrays)
        count = len(sites.classes)
        positions, log_weights = weighted(self.model, plan, arrays, population, keys, count)
        self._refuse_unknown(population, log_weights)
        weights, pareto_k = smoothed(np.asarray(log_weights).ravel())
        chosen = resampled(weights, _KEPT, key_keep)
        each = log_weights[0].size
        draws = {n: v[chosen // each] for n, v in population.items()}
        draws["vector"] = np.asarray(positions).reshape(len(weights), -1)[chosen]
        if count:  # each draw is of one class
            own = chosen % each // PER_POPULATION_DRAW
            draws["class_probability"] = np.eye(count)[own][:, None, None]
        self.__dict__.update(pareto_k=pareto_k, ess=float(1 / np.sum(weights**2)), _draws=draws)
        if not pareto_k <= MAX_PARETO_K:
            warnings.warn(
                TwinWarning(
                    f"Pareto k of ID {self.id} is {pareto_k:.2f} (above {MAX_PARETO_K}): a few draws carry "
                    f"most of the weight. The patient may be unlike the population, or the model "
                    f"wrong for these records; refit the population with them"
                ),
                skip_file_prefixes=_HERE,
            )

    def _refuse_unknown(self, population: dict[str, Any], log_weights: Any) -> None:
        """Refuse a patient whom no draw can explain, where there is a reason."""
        if np.isfinite(log_weights).any():
            return
        first = {n: x[0] for n, x in population.items()}
        if why := why_not(self.model, self.patient, first):
            raise ModelError("\n".join([f"ID {self.id} cannot be predicted", *why]))

    @property
    def id(self) -> str:
        """Return the patient's ID."""
        return self.patient.ids[0]

    def update(self, records: Trial | pd.DataFrame) -> "Twin":
        """Return a new twin that knows further records as well; this one is unchanged.

        Parameters
        ----------
        records : Trial or DataFrame
            Records of the same ID, in the units of the twin's own (converted where a Trial has
            others). They are put in time order; at equal times they come after those known.

        Raises
        ------
        DataError
            Another patient's ID, a record that the twin has already, a unit that cannot be converted,
            or what `read_nonmem` refuses.
        """
        return dataclasses.replace(self, patient=_joined(self.patient, records))

    def forecast(self, times: Iterable[float], *, seed: int = 2) -> xr.Dataset:
        """Return what will be seen at some times, under the doses that the patient's records hold.

        Parameters
        ----------
        times : iterable of float
            In the unit and on the clock of the patient's TIME; past times are fine.
        seed : int
            Of the residual errors.

        Returns
        -------
        Dataset
            IPRED, the patient's own concentration, and DV, a level as it would be measured,
            (sample, time) in the unit of DV: draws of equal weight, so that
            ``forecast.quantile([0.05, 0.5, 0.95], "sample")`` is the median and 90% interval.

        Raises
        ------
        ValueError
            No times, or one that is not finite.
        """
        wanted = np.asarray(list(times), dtype=float)
        if not wanted.size or not np.isfinite(wanted).all():
            raise ValueError(f"times are {wanted.tolist()}; give at least one finite time")
        future = _with_times(self.patient, wanted)
        rows = future.host.frame["ROW"].eq(_ASKED).to_numpy()
        values = self._values(future, seed)
        if "IPRED" not in values or any(name.startswith("IPRED_") for name in values):
            raise ModelError("the model observes several kinds of levels; a twin forecasts one")
        ipred = values["IPRED"][:, 0, np.flatnonzero(rows)]
        level = values["DV"][:, np.flatnonzero(rows[future.host.frame["EVID"].eq(0)])]
        order = np.argsort(np.argsort(wanted, kind="stable"), kind="stable")
        unit = {"units": self.patient.units["DV"]}
        data = {
            "IPRED": (("sample", "time"), ipred[:, order], unit),
            "DV": (("sample", "time"), level[:, order], unit),
        }
        return xr.Dataset(
            data,
            coords={"time": ("time", wanted, {"units": self.patient.units["TIME"]})},
            attrs={"ID": self.id, "pareto_k": self.pareto_k},
        )

    @property
    def parameters(self) -> xr.Dataset:
        """Return draws of equal weight of the individual parameters, those at the last record.

        One variable (sample) for each parameter, under its name.
        """
        values, last = self._values(self.patient, 0), self.patient.n_records - 1
        names = describe(self.model, self.patient.padded()).transforms
        columns = {n: values[n].reshape(_KEPT, -1) for n in names}
        return xr.Dataset(
            {n: ("sample", x[:, min(last, x.shape[1] - 1)]) for n, x in columns.items()},
            attrs={"ID": self.id, "pareto_k": self.pareto_k},
        )

    @property
    def class_probability(self) -> xr.DataArray:
        """Return how probable it is that the patient is of each class of the model's mixture.

        Raises
        ------
        ModelError
            The model has no mixture.
        """
        classes = describe(self.model, self.patient.padded()).classes
        if not classes:
            raise ModelError("the model has no classes of subjects; give it a popk.mixture")
        probable = self._draws["class_probability"].mean(0)[0, 0]
        return xr.DataArray(probable, dims="class", coords={"class": list(classes)})

    def _values(self, trial: Trial, seed: int) -> dict[str, np.ndarray]:
        """Return the values of all sites on a trial of this patient, for each kept draw."""
        arrays = trial.padded()
        values = _evaluated(
            self.model,
            individual_layout(self.model, arrays),
            arrays,
            self._draws,
            jax.random.split(jax.random.key(seed), _KEPT),
        )
        return {name: np.asarray(value) for name, value in values.items()}

    def __repr__(self) -> str:
        """Return the patient, how many levels are known, and the parameters."""
        found = self.parameters
        lines = [
            f"Twin of ID {self.id}: {int(self.patient.observations.measured.sum())} levels, "
            f"Pareto k {self.pareto_k:.2f}, effective sample size {self.ess:.0f}"
        ]
        for name, draws in found.items():
            low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
            lines.append(f"  {name} {middle:.3g} ({low:.3g} to {high:.3g})")
        return "\n".join(lines)


@partial(jax.jit, static_argnames=("model", "plan"))
def _evaluated(model, plan, arrays, draws, keys):
    """Return the values of all sites for each draw."""

    def one(x):
        values, key = x
        given, _ = individualized(model, plan, values, values["vector"])
        return values_of(given, arrays, {}, key)

    return jax.lax.map(one, (draws, keys), batch_size=250)


def _with_times(patient: Trial, times: np.ndarray) -> Trial:
    """Return the patient's records with one more at each time, just before any dose of that time.

    A record there has the covariates of the next one, or of the last (they hold backward).
    """
    frame = patient.host.frame
    restarts = np.flatnonzero(np.diff(frame["TIME"]) < 0)
    start = int(restarts[-1]) + 1 if restarts.size else 0
    clock = frame["TIME"].to_numpy()[start:]
    if start and times.min() < clock[0]:
        raise ValueError(
            f"time {times.min():g} lies before the last occasion of ID {patient.ids[0]}, "
            f"which begins at {clock[0]:g}"
        )
    asked = np.sort(times)
    after = start + np.searchsorted(clock, asked, side="left")
    rows = frame.iloc[np.minimum(after, len(frame) - 1)].copy()
    rows = rows.assign(**ASK, CMT=0, ROW=_ASKED, TIME=asked)
    place = np.concatenate([np.arange(len(frame)), after - 0.5])
    frame = pd.concat([frame.astype({"ROW": object}), rows]).iloc[np.argsort(place, kind="stable")]
    return patient.replaced(frame.reset_index(drop=True))


def _joined(patient: Trial, records: Trial | pd.DataFrame) -> Trial:
    """Return the trial of a patient's records and further ones."""
    if isinstance(records, pd.DataFrame):
        records = read_nonmem(
            records, units=patient.units, covariates=list(patient.host.covariates)
        )
    known = patient.host.frame
    _refuse_strangers(records, patient)
    added = _converted(records, patient)
    same = ["TIME", "EVID", "AMT", "CMT", "DV", "MDV"]
    twice = added.merge(known[same].drop_duplicates(), on=same, how="inner")
    if len(twice):
        says = "the twin has this record already; send only new ones"
        found = [
            Problem("TIME", says, row, id, f"{time:g}")
            for row, id, time in zip(twice["ROW"], twice["ID"], twice["TIME"], strict=True)
        ]
        raise DataError(records.host.name, found)
    frame = pd.concat([known, added], ignore_index=True).drop(columns="ROW")
    restarts = (np.diff(known["TIME"]) < 0).any()
    if not restarts:  # occasions with clocks of their own stay as they are
        frame = frame.sort_values("TIME", kind="stable", ignore_index=True)
    frame.attrs = patient.to_dataframe().attrs
    return read_nonmem(frame)


def _refuse_strangers(records: Trial, patient: Trial) -> None:
    others = [i for i in records.ids if i != patient.ids[0]]
    if others:
        says = (
            f"the twin is of ID {patient.ids[0]}, but the records are of ID {', '.join(others)}; "
            f"update that patient's twin"
        )
        raise DataError(records.host.name, [Problem("ID", says)])


def _converted(records: Trial, patient: Trial) -> pd.DataFrame:
    """Return records in the units of the patient's own."""
    frame, mine, theirs = records.host.frame.copy(), patient.units, records.units
    missing = [n for n in patient.host.covariates if n not in frame]
    if missing:
        raise DataError(
            records.host.name,
            [Problem(n, f"{n} is missing; the twin's records have it") for n in missing],
        )
    by = {n: factor(theirs[n], mine[n]) for n in mine if n in theirs}
    by |= {"II": by["TIME"], "RATE": by["AMT"] / by["TIME"], "LLOQ": by["DV"], "ULOQ": by["DV"]}
    for name, multiple in by.items():
        frame[name] = frame[name] * multiple
    return frame
