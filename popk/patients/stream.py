r"""What does a sensor say of a patient, point by point? `Stream`, at the same cost for each reading.

Each reading multiplies the weights of the twin's draws by its density given the levels before it,

.. math:: w_i \leftarrow w_i\, p(y_n \mid y_{n-1}, \theta_i, u_i)

which needs the doses and the last level alone, however many readings there were. Where the smoothed
weights can no longer be trusted the twin is inferred again from all records [1]_.

References
----------
.. [1] Chopin N (2002). A sequential particle filter method for static models. Biometrika 89:539-552.
   doi:10.1093/biomet/89.3.539
.. [2] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from scipy.special import logsumexp

from popk.inference.importance import resampled, smoothed
from popk.inference.laplace import traced
from popk.model.levels import foreseen_of, levels_of
from popk.model.sites import ModelError
from popk.patients.arrivals import Rows, opened, received
from popk.patients.belief import MAX_PARETO_K, arrays_of
from popk.patients.twin import Twin
from popk.trial import Trial

#: With fewer draws' worth of weight than this share of them the twin is inferred again.
_LEAST = 0.25


class Reading(NamedTuple):
    """What was expected where a level arrived, and how it changed what is believed.

    Attributes
    ----------
    time : float
        [unit of TIME]
    level : float
        DV; NaN of a record that is no level.
    low, middle, high : float
        The 5%, 50% and 95% quantiles of what was expected to be measured, given all levels before.
    surprise : float
        The two-sided p-value of the level among these, to 1 in 1,000.
    pareto_k, ess : float
        Of the weights after it.
    inferred : bool
        Whether the twin was inferred again from all records.
    """

    time: float
    level: float
    low: float
    middle: float
    high: float
    surprise: float
    pareto_k: float
    ess: float
    inferred: bool


class _Told(NamedTuple):
    """A record that waits for the next inference."""

    row: Any
    level: bool
    units: tuple[tuple[str, str], ...]


class Stream:
    """A twin that takes in the readings of a sensor one by one.

    Parameters
    ----------
    twin : Twin
        Of the patient so far, with doses; it stays as it is. Errors of readings that lie minutes apart
        are rarely independent: give the model `popk.autocorrelated_error`.

    Raises
    ------
    ModelError
        The model has a mixture, events, or correlated errors of two kinds of levels.

    Examples
    --------
    >>> stream = popk.Stream(twin)  # doctest: +SKIP
    >>> stream.add({"TIME": 12.1, "DV": 4.2, "WT": 70}).surprise  # doctest: +SKIP
    >>> stream.twin.forecast([24.0])  # doctest: +SKIP
    """

    def __init__(self, twin: Twin):
        if twin._sites.classes:
            raise ModelError("a stream of a model with a mixture is not known; use Twin.update")
        self._begin(twin)

    def _begin(self, twin: Twin) -> None:
        """Start anew from a twin of all records."""
        self._inferred, self._waiting = twin, []
        self._current: Twin | None = twin
        self._logs = np.zeros(len(twin._belief.vector))
        self._pareto_k, self._ess = twin.pareto_k, float(len(self._logs))
        self._tail = tail_of(twin.patient)
        self._seed = twin.patient.n_records

    @property
    def twin(self) -> Twin:
        """Return the patient's twin after all records so far, of draws of equal weight."""
        if self._current is None:
            self._current = self._weighed()
        return self._current

    def add(
        self,
        records: Rows | Mapping[str, Any],
        *,
        units: Mapping[str, str] | None = None,
        now: float | None = None,
    ) -> list[Reading]:
        """Take in further records, each by itself, and return what each said.

        Levels and doses that come in order cost the same however many came before; a record that is
        late, corrected or retracted, and the first of an occasion, has the twin inferred again.

        Parameters
        ----------
        records, units, now
            As of `Twin.update`; one record may be given alone, as a dict.

        Returns
        -------
        list of Reading
            One for each record.

        Raises
        ------
        DataError
            As of `Twin.update`; the records before the refused one have been taken in.
        """
        return [self._take(row, units, now) for row in _one_by_one(records)]

    def _take(self, row: Any, units: Any, now: float | None) -> Reading:
        """Take in one record."""
        before = self._tail
        tail, ledger = received(before, opened(before), row, units=units, now=now)
        self._current = None
        arrival = ledger.log[-1] if ledger.log else None
        time = np.nan if arrival is None else float(arrival.time)
        if arrival is not None and arrival.kind == "duplicate":
            return self._reading(time, np.nan, np.full(1, np.nan), inferred=False)
        measured = int(_levels(tail.host.frame).sum()) > int(_levels(before.host.frame).sum())
        self._waiting.append(_Told(row, measured, tuple((units or {}).items())))
        if not self._in_order(tail, arrival):
            self._infer()
            return self._reading(time, np.nan, np.full(1, np.nan), inferred=True)
        drawn, level = np.full(1, np.nan), np.nan
        if measured:
            newest = np.flatnonzero(_levels(tail.host.frame))[-1]
            level = float(tail.host.frame["DV"].iloc[newest])
            drawn = self._weigh(tail, int(newest))
        inferred = self._pareto_k > MAX_PARETO_K or self._ess < _LEAST * len(self._logs)
        found = self._reading(time, level, drawn, inferred=inferred)
        self._tail = tail_of(tail)
        if inferred:
            self._infer()
        return found

    def _in_order(self, tail: Trial, arrival: Any) -> bool:
        """Return whether a record is not before any level, and of an occasion that is known."""
        before = self._tail
        levels = before.host.frame[_levels(before.host.frame)]["TIME"]
        return (
            arrival is not None
            and arrival.kind in ("new", "late")
            and len(tail.host.frame) == len(before.host.frame) + 1
            and arrival.time >= max(levels, default=-np.inf)
            and tail.design.occasions == before.design.occasions
        )

    def _weigh(self, tail: Trial, row: int) -> np.ndarray:
        """Weigh the draws by the level of one row, and return what each expected there."""
        twin, belief = self._inferred, self._inferred._belief
        at = int(tail.host.frame["EVID"].eq(0)[:row].sum())
        self._seed += 1
        keys = jax.random.split(jax.random.key(self._seed), len(self._logs))
        arrays = arrays_of(tail, not twin._manner.chained)
        logs, drawn = _met(
            twin.model, belief.plan, arrays, (belief.draws, belief.vector, keys), at=np.asarray(at)
        )
        expected = resampled(_normalized(self._logs), len(self._logs), jax.random.key(self._seed))
        self._logs = self._logs + np.where(np.isnan(logs), -np.inf, logs)
        if not np.isfinite(self._logs).any():
            self._pareto_k, self._ess = np.inf, 0.0
        else:
            weights, self._pareto_k = smoothed(self._logs)
            self._ess = float(1 / np.sum(weights**2))
        return np.asarray(drawn)[expected]

    def _infer(self) -> None:
        """Infer the twin again from all records."""
        self._begin(_updated(self._inferred, self._waiting, again=True))

    def _weighed(self) -> Twin:
        """Return the twin whose draws are resampled by their weights."""
        belief = self._inferred._belief
        weights = smoothed(self._logs)[0] if np.ptp(self._logs) else _normalized(self._logs)
        which = resampled(weights, len(weights), jax.random.key(self._seed))
        gained = float(logsumexp(self._logs) - np.log(len(self._logs)))
        found = belief._replace(
            draws={n: x[which] for n, x in belief.draws.items()},
            vector=np.asarray(belief.vector)[which],
            pareto_k=max(belief.pareto_k, self._pareto_k),
            ess=min(belief.ess, self._ess),
            log_evidence=belief.log_evidence + gained,
        )
        return _updated(self._inferred, self._waiting, again=False, belief=found)

    def _reading(self, time: float, level: float, drawn: np.ndarray, *, inferred: bool) -> Reading:
        low, middle, high = map(float, np.quantile(drawn, [0.05, 0.5, 0.95]))
        tails = float(np.mean(drawn <= level)), float(np.mean(drawn >= level))
        surprise = min(1.0, 2 * min(tails)) if np.isfinite(level) else np.nan
        return Reading(
            time, level, low, middle, high, surprise, self._pareto_k, self._ess, inferred
        )

    def __repr__(self) -> str:
        """Return how many records wait since the last inference."""
        return (
            f"Stream of ID {self._inferred.id}: {len(self._waiting)} records since it was inferred"
        )


def tail_of(patient: Trial) -> Trial:
    """Return what the next level depends on: doses, changes of covariates, and the last levels.

    A level that is followed by another of its kind counts no more; where its row bears the first or
    last value of a covariate it stays, as a record of no event (EVID 2).
    """
    frame = patient.host.frame
    levels = _levels(frame)
    latest = levels & ~frame[levels].duplicated(["CMT", "DVID"], keep="last").reindex(
        frame.index, fill_value=True
    )
    own = frame[[*patient.host.covariates]]
    changed = (own.ne(own.shift()) & ~(own.isna() & own.shift().isna())).any(axis=1)
    edge = changed | changed.shift(-1, fill_value=True)
    passive = frame["EVID"].eq(0) & ~latest
    kept = frame[~passive | edge].copy()
    blank = {"EVID": 2, "MDV": 1, "DV": np.nan, "BLQ": 0, "LLOQ": np.nan, "ALQ": 0, "ULOQ": np.nan}
    kept.loc[passive[kept.index], list(blank)] = list(blank.values())
    return patient.replaced(kept.astype(frame.dtypes).reset_index(drop=True))


def _levels(frame: pd.DataFrame) -> Any:
    """Return which records are levels that were measured."""
    return frame["EVID"].eq(0) & frame["MDV"].eq(0)


def _updated(twin: Twin, waiting: list[Any], *, again: bool, belief: Any = None) -> Twin:
    """Return a twin that knows further records, inferred again or of a given belief."""
    patient, ledger = twin.patient, twin._shared.ledger or opened(twin.patient)
    for (_, units), told in groupby(waiting, lambda one: (one.level, one.units)):
        rows = _together([one.row for one in told])
        for row in rows:
            patient, ledger = received(patient, ledger, row, units=dict(units))
    if again:
        return twin._with(patient, ledger)
    shared = twin._shared._replace(ledger=ledger, belief=belief)
    return dataclasses.replace(twin, patient=patient, method=twin._asked, _shared=shared)


def _one_by_one(records: Rows | Mapping[str, Any]) -> Iterable[Any]:
    if isinstance(records, Mapping):
        return [[records]]
    if isinstance(records, Trial):
        return [records.replaced(records.host.frame.iloc[[i]].reset_index(drop=True))
                for i in range(len(records.host.frame))]  # fmt: skip
    if isinstance(records, pd.DataFrame):
        return [records.iloc[[i]] for i in range(len(records))]
    return [[row] for row in records]


def _together(rows: list[Any]) -> list[Any]:
    """Return tables of one record as one table, where they are records as dicts."""
    if any(not isinstance(row, list) for row in rows):
        return rows
    return [[one for row in rows for one in row]]


def _normalized(logs: np.ndarray) -> np.ndarray:
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


@partial(jax.jit, static_argnames=("model", "plan"))
def _met(model, plan, arrays, particles, *, at):
    """Return each draw's log-density of one level, and a level as it expected it."""

    def one(x):
        population, vector, key = x
        trace, _ = traced(model, plan, arrays, population, vector)
        return levels_of(trace).log_prob[at], foreseen_of(trace, key)[at]

    return jax.lax.map(one, particles, batch_size=250)
