"""What is believed of this patient now? `Twin`: one person's own posterior, updated as records arrive.

For each of the posterior's population draws the patient's random effects are found by a Laplace
approximation, sampled around it, and weighted by the exact density over the proposal's. Weights run
over all (population draw, individual draw) pairs, so that the patient's levels reweight the
population draws too. Where a few draws carry most of the weight, sequential Monte Carlo takes its
place, and where that fails the No-U-Turn sampler.

References
----------
.. [1] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.inference.laplace import individual_layout
from popk.model.manner import Manner, manner_of
from popk.model.sites import Model, ModelError, Sites, describe
from popk.patients import doubts
from popk.patients.arrivals import RECORD, Arrival, Ledger, Rows, opened, received
from popk.patients.belief import Belief, Problem, arrays_of, values_at
from popk.patients.doubts import TwinWarning
from popk.patients.exposure import exposure
from popk.patients.forecasts import forecast, kinds_of, output_of
from popk.patients.regimen import Regimen, replaced, up_to_now
from popk.patients.starting import Shared, believed, check_options, population_of
from popk.patients.surprise import newest_level, surprise_of, without_level
from popk.trial import Trial

#: Whose lines a warning does not name.
_HERE = (str(Path(__file__).parents[1]), dataclasses.__file__)


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
    method : "auto", "laplace", "smc" or "nuts"
        How the posterior is found. "auto": Laplace proposals with importance weights; where Pareto k
        is above 0.7, or levels have no information each for itself (events),
        sequential Monte Carlo; where its two runs disagree, or the population's draws are used up,
        the No-U-Turn sampler on a normal approximation of the population. The twin's `method` is the
        one that was taken.
    flatten : float
        A power, above 0 and at most 1, on the prior of the patient's random effects: less than 1 lets
        the levels count for more in somebody unlike the population [2]_.

    Attributes
    ----------
    pareto_k : float
        Of the weights: below 0.7 they can be trusted. NaN where there are none (SMC, NUTS).
    ess : float
        Their effective sample size, of 8 draws for each population draw; of SMC how many particles
        differ, of NUTS that of the chains.
    log_evidence : float
        The log-probability of the patient's levels under the population; NaN of NUTS.

    Raises
    ------
    ModelError
        The patient is not one subject, the posterior lacks a site of the model, a column has another
        unit than in the trial that was fitted, an option is none of those above, or the patient
        cannot be predicted: then where and why.

    Warns
    -----
    TwinWarning
        The draws cannot be trusted; a covariate lies outside the fitted range; levels of the patient
        are in the trial that was fitted; or a level stands before every dose.

    References
    ----------
    .. [2] Hughes JH, Keizer RJ (2021). A hybrid machine learning/pharmacokinetic approach outperforms
       maximum a posteriori Bayesian estimation by selectively flattening model priors. CPT
       Pharmacometrics Syst Pharmacol 10:1150-1160. doi:10.1002/psp4.12684

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
    method: str = "auto"
    flatten: float = 1.0
    pareto_k: float = dataclasses.field(init=False)
    ess: float = dataclasses.field(init=False)
    log_evidence: float = dataclasses.field(init=False)
    _shared: Shared = dataclasses.field(default_factory=Shared)
    _asked: str = dataclasses.field(init=False)
    _sites: Sites = dataclasses.field(init=False)
    _manner: Manner = dataclasses.field(init=False)
    _belief: Belief = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Infer the patient's random effects."""
        if len(self.patient.ids) != 1:
            raise ModelError(
                f"a twin is of one patient; the trial has {len(self.patient.ids)}: choose "
                f"one, trial['{self.patient.ids[0]}']"
            )
        check_options(self.method, self.flatten)
        keep_compiled()
        describe(self.model, self.patient)  # its records are outcomes of the model's endpoints
        manner = manner_of(self.model, self.patient)
        arrays = arrays_of(self.patient, not manner.chained)
        sites = describe(self.model, arrays)
        shared = self._shared
        population = shared.population or population_of(
            self.posterior, sites, self.patient, self.population_draws, self.flatten
        )
        belief = shared.belief or believed(
            Problem(self.model, individual_layout(self.model, arrays), arrays, population),
            sites, manner, self.patient, seed=self.seed, method=self.method,
        )  # fmt: skip
        self.__dict__.update(
            _asked=self.method, _sites=sites, _manner=manner, _belief=belief,
            _shared=shared._replace(population=population, belief=None),
            method=belief.method, pareto_k=belief.pareto_k, ess=belief.ess,
            log_evidence=belief.log_evidence,
        )  # fmt: skip
        self._warn()

    def _warn(self) -> None:
        """Say what makes the twin unreliable, each sentence once in the course of its updates."""
        says = doubts.outside(self.posterior, self.patient)
        says += doubts.used_twice(self.posterior, self.patient)
        if len(doubts.before_doses(self.patient)):
            values = self._values(self.patient, 0)
            if "IPRED" in values:
                says += doubts.unexplained(self.patient, values["IPRED"][:, 0])
        new = [text for text in says if text not in self._shared.told]
        self.__dict__["_shared"] = self._shared._replace(told=self._shared.told | {*says})
        if self._belief.doubt:
            new.append(
                f"the draws of ID {self.id} cannot be trusted ({self.method}): {self._belief.doubt}. The "
                f"patient may be unlike the population, or the model wrong for these records; refit the "
                f"population with them"
            )
        for text in new:
            warnings.warn(TwinWarning(text), skip_file_prefixes=_HERE)

    @property
    def id(self) -> str:
        """Return the patient's ID."""
        return self.patient.ids[0]

    @property
    def log(self) -> tuple[Arrival, ...]:
        """Return what became of each record that arrived by `update`, in order of arrival."""
        return self._shared.ledger.log if self._shared.ledger else ()

    @property
    def records(self) -> pd.DataFrame:
        """Return the records that count, with their ids (RECORD)."""
        frame = (self._shared.ledger or opened(self.patient)).frame
        return frame[[RECORD, *(c for c in self.patient.to_dataframe())]].reset_index(drop=True)

    @property
    def applicability(self) -> pd.DataFrame:
        """Return the patient's covariates beside their range in the trial that was fitted."""
        return doubts.applicability(self.posterior, self.patient)

    def update(
        self,
        records: Rows = (),
        *,
        retract: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
        now: float | None = None,
    ) -> "Twin":
        """Return a new twin that knows further records as well; this one is unchanged.

        All records are inferred from together, so that any order of arrival gives the same twin.

        Parameters
        ----------
        records : Trial, DataFrame or sequence of dict
            In NONMEM's columns and the units of the twin's own (converted where a Trial, or `units`,
            has others); an ID may be left out. ``RECORD`` is a stable id of a record, by default made
            from its contents and ID: a second record of one id is ignored where it says the same, and
            else corrects the first. ``RECORDED_AT`` (ISO 8601, or a number) is when it was recorded:
            the newest stands, whatever arrived last. ``RETRACTED`` 1 takes a record back. At equal
            times rows keep the order of their table; a level alone stands before a dose of its time.
        retract : sequence of str
            Ids of records to take back.
        units : mapping of column to unit, optional
        now : float, optional
            The present [unit of TIME]: a level later than that is refused.

        Raises
        ------
        DataError
            Another patient's ID, a level of the future or below 0, a unit that cannot be converted, an
            unknown id in `retract`, or what `read_nonmem` refuses. The twin's `log` names what was
            late, a duplicate, corrected or retracted.
        """
        ledger = self._shared.ledger or opened(self.patient)
        patient, ledger = received(
            self.patient, ledger, records, retract=retract, units=units, now=now
        )
        return self._with(patient, ledger)

    def _with(self, patient: Trial, ledger: Ledger | None = None) -> "Twin":
        """Return the twin of other records of the patient."""
        same = patient.host.fingerprint == self.patient.host.fingerprint
        shared = self._shared._replace(
            ledger=ledger or self._shared.ledger, belief=self._belief if same else None
        )
        return dataclasses.replace(self, patient=patient, method=self._asked, _shared=shared)

    def forecast(self, times: Iterable[float], *, seed: int = 2) -> xr.Dataset:
        """Return what will be seen at some times, under the doses that the patient's records hold.

        Parameters
        ----------
        times : iterable of float
            In the unit and on the clock of the patient's TIME; past times are fine. At the time of a
            dose it is the trough.
        seed : int
            Of the residual errors.

        Returns
        -------
        Dataset
            IPRED, the patient's own concentration, and DV, a level as it would be measured,
            (sample, time) in the unit of DV: draws of equal weight, so that
            ``forecast.quantile([0.05, 0.5, 0.95], "sample")`` is the median and 90% interval. Of a
            model with several kinds of levels IPRED_metabolite and DV_metabolite as well.

        Raises
        ------
        ValueError
            No times, or one that is not finite.
        """
        return self._forecast(self.patient, times, seed)

    def what_if(
        self, regimen: Regimen | Sequence[Regimen], times: Iterable[float], *, seed: int = 2
    ) -> xr.Dataset:
        """Return what would be seen if the doses to come were others.

        Parameters
        ----------
        regimen : Regimen, or sequence of Regimen
            Takes the place of all doses from its start on.
        times : iterable of float
        seed : int
            Of the residual errors.

        Returns
        -------
        Dataset
            As of `forecast`, whose errors it raises.

        Raises
        ------
        ValueError
            No regimen, or one that begins before the patient's last occasion.
        """
        return self._forecast(replaced(self.patient, regimen), times, seed)

    def _forecast(self, patient: Trial, times: Iterable[float], seed: int) -> xr.Dataset:
        wanted = np.asarray(list(times), dtype=float)
        if not wanted.size or not np.isfinite(wanted).all():
            raise ValueError(f"times are {wanted.tolist()}; give at least one finite time")
        kinds = kinds_of(self._manner.asked, patient)
        found = forecast(patient, wanted, kinds, lambda trial: self._values(trial, seed))
        return found.assign_attrs(ID=self.id, pareto_k=self.pareto_k)

    def exposure(
        self,
        interval: tuple[float, float],
        regimen: Regimen | Sequence[Regimen] | None = None,
        *,
        output: str | None = None,
    ) -> xr.Dataset:
        """Return the exposure over an interval, under known doses or a regimen.

        Parameters
        ----------
        interval : tuple of float
            Its begin and end [unit of TIME].
        regimen : Regimen, or sequence of Regimen, optional
            Takes the place of all doses from its start on.
        output : str, optional
            Which concentration, where the model observes several kinds of levels.

        Returns
        -------
        Dataset
            For each draw (sample): AUC [DV * TIME], by quadrature with a relative error below 1e-6 of
            smooth concentrations; Cmax, Tmax and Cmin among 34 points between two doses; Ctrough at the
            end, before a dose that is given then; and Cavg.

        Raises
        ------
        ValueError
            The interval is none, or holds too many doses.
        ModelError
            The model has no such output.
        """
        name = output_of(self._sites.all, output)
        patient = self.patient if regimen is None else replaced(self.patient, regimen)
        return exposure(patient, interval, lambda trial: self._values(trial, 0)[name][:, 0])

    @cached_property
    def surprise(self) -> float:
        """Return how surprising the newest level is: a two-sided p-value from the belief before it.

        Twice the smaller of the probabilities of a level as low or lower, and as high or higher,
        given the records without it; of one below the limit of quantification, how probable that was.

        Raises
        ------
        ModelError
            The patient has no level, or the model several kinds.
        """
        newest = newest_level(self.patient)
        if newest is None or "IPRED" not in self._sites.all:
            raise ModelError(
                f"ID {self.id} has no level that could surprise, or levels of several kinds"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TwinWarning)
            before = self._with(without_level(self.patient, newest))
        return surprise_of(self.patient, newest, before._values(before.patient, 3)["DV"])

    @property
    def parameters(self) -> xr.Dataset:
        """Return draws of equal weight of the individual parameters, as they are after the last record.

        One variable (sample) for each parameter, under its name.
        """
        whole = up_to_now(self.patient)
        values, last = self._values(whole, 0), whole.n_records - 1
        columns = {n: values[n].reshape(len(values[n]), -1) for n in self._sites.transforms}
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
        classes = self._sites.classes
        if not classes:
            raise ModelError("the model has no classes of subjects; give it a popk.mixture")
        probable = self._belief.draws["class_probability"].mean(0)[0, 0]
        return xr.DataArray(probable, dims="class", coords={"class": list(classes)})

    def _values(self, trial: Trial, seed: int) -> dict[str, np.ndarray]:
        """Return the values of all sites on a trial of this patient, for each kept draw."""
        return values_at(self.model, trial, self._belief, seed, below=not self._manner.chained)

    def __repr__(self) -> str:
        """Return the patient, how many levels are known, and the parameters."""
        found = self.parameters
        how = f"Pareto k {self.pareto_k:.2f}, " if self.method == "laplace" else f"{self.method}, "
        lines = [
            f"Twin of ID {self.id}: {int(self.patient.observations.measured.sum())} levels, "
            f"{how}effective sample size {self.ess:.0f}"
        ]
        for name, draws in found.items():
            low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
            lines.append(f"  {name} {middle:.3g} ({low:.3g} to {high:.3g})")
        return "\n".join(lines)
