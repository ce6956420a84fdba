"""Which dose? `optimal_dose`: the one that attains a target, within what can and may be given."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popk.advice.certainty import certainty_of
from popk.advice.finding import Aim, found
from popk.advice.recommending import Costs, Loss, in_words, outputs_of, row_of
from popk.advice.scaling import scaling
from popk.advice.strengths import available, nearest
from popk.advice.targets import Target
from popk.advice.windows import DECIDES, FIRST, STEADY, At, Limits, named
from popk.patients.courses import doubts_of, next_dose_of
from popk.patients.regimen import Regimen
from popk.patients.twin import Twin

_SPAN = 1e3  # doses are looked for up to so many times the usual one, and down to it
_MOST = 60  # available doses that are compared by their loss


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Dose:
    """A dose that attains a target, for a clinician to judge.

    Attributes
    ----------
    regimens : tuple of Regimen
        What would be given: the loading dose, where one was asked for, and the maintenance doses.
    table : DataFrame
        A row for each interval that was considered, and one for the loading dose: ``dose``;
        ``exact``, before limits and rounding; ``held``, by which limit; and the columns of
        `Advice.table`.
    texts : tuple of str
        What was sought, and what could not be attained.
    warnings : tuple of str
        Why the twin should be doubted.
    units : dict of str to str
    """

    regimens: tuple[Regimen, ...]
    table: pd.DataFrame
    texts: tuple[str, ...]
    warnings: tuple[str, ...]
    units: dict[str, str]

    def __repr__(self) -> str:
        """Return the dose, what is to be expected of it, and who decides."""
        columns = [
            c for c in ("dose", "exact", "held", "attained", "harm", "loss") if c in self.table
        ]
        write: Any = lambda x: f"{x:.4g}"  # noqa: E731  # pandas declares a text and takes a function
        table = self.table[columns].to_string(float_format=write, na_rep="")
        warned = [f"Warning: {text}" for text in self.warnings]
        return "\n".join([named(self.regimens, self.units), table, *self.texts, *warned, DECIDES])


class _Form(NamedTuple):
    """How doses are given, whatever their size."""

    duration: float | None
    rate: float | None
    compartment: int
    start: float | None
    doses: int

    def regimen(self, twin: Twin, dose: float, interval: float | None, count: int) -> Regimen:
        start = next_dose_of(twin, interval) if self.start is None else self.start
        return Regimen(
            dose=dose, interval=interval, count=count if interval else 1, start=start,
            duration=self.duration, rate=self.rate, compartment=self.compartment,
        )  # fmt: skip


class _Given(NamedTuple):
    """What can be given: doses, and up to where."""

    limits: Limits
    strengths: float | Sequence[float] | None
    tablets: int
    duration: float | None

    def cap(self) -> tuple[float, str]:
        """Return the largest dose, and what limits it."""
        dose, rate = self.limits
        caps = [(dose, "max_dose")] if dose is not None else []
        if rate is not None and self.duration is not None:
            caps.append((rate * self.duration, "max_rate"))
        return min(caps, default=(np.inf, ""))


def optimal_dose(
    twin: Twin,
    target: Target,
    risk: Target | None = None,
    *,
    interval: float | Sequence[float] | None = None,
    probability: float | None = None,
    loss: Loss | None = None,
    at: At = STEADY,
    strengths: float | Sequence[float] | None = None,
    tablets: int = 4,
    max_dose: float | None = None,
    max_rate: float | None = None,
    duration: float | None = None,
    rate: float | None = None,
    compartment: int = 0,
    start: float | None = None,
    count: int = 10,
    loading: bool = False,
) -> Dose:
    r"""Return the dose that attains a target, or whose expected loss is least; a clinician decides.

    With a target of one limit L, whose number is :math:`x_i(D)` in draw i, and neither risk nor loss,
    it is the least dose with :math:`P(x(D) \ge L) \ge p` (the largest with
    :math:`P(x(D) \le L) \ge p`): the p-quantile (the (1 - p)-quantile) over draws of the dose at which
    :math:`x_i(D) = L`. For a linear model that dose is exact in each draw; else it is found by bracketing.
    Otherwise it is the dose with the least expected loss.

    Parameters
    ----------
    twin : Twin
    target : Target
    risk : Target, optional
    interval : float or sequence of float, optional
        Between doses [unit of TIME], or those to choose among: the one that attains the target with the
        least dose per time, or whose loss is least. Needed unless `at` is a begin and an end.
    probability : float, optional
        Of attaining a target of one limit; 0.9 by default.
    loss : Costs or Callable, optional
        As of `popk.recommend`.
    at : "steady state", "last interval", "first interval" or tuple of float
        As of `popk.recommend`.
    strengths : float or sequence of float, optional
        A step, multiples of which can be given, or the strengths of tablets [unit of AMT].
    tablets : int
        How many tablets a dose has at most.
    max_dose : float, optional
        The largest single dose [unit of AMT]. A dose beyond it is held there, and that is said.
    max_rate : float, optional
        The fastest infusion [AMT/TIME]; the dose is held where `duration` makes it faster.
    duration, rate : float, optional
        Of infusions [unit of TIME], [AMT/TIME].
    compartment : int
        CMT of the doses.
    start : float, optional
        When the first is given; by default an interval after the last dose, or at the last record.
    count : int
        How many maintenance doses the returned regimen has.
    loading : bool
        Whether to find a first dose of its own, which attains the target over the first interval.

    Returns
    -------
    Dose

    Raises
    ------
    ValueError
        A number is none, an infusion is faster than `max_rate`, no dose is needed or none attains the
        target, or no available dose is within the limits.

    References
    ----------
    .. [1] Leven C, Coste A, Mané C (2022). Free and open-source posologyr software for Bayesian dose
       individualization. Pharmaceutics 14:442. doi:10.3390/pharmaceutics14020442

    Examples
    --------
    >>> popk.optimal_dose(
    ...     twin, popk.auc(400), interval=[8, 12], probability=0.9, strengths=250, max_dose=2000
    ... )  # doctest: +SKIP
    """
    given = _Given(Limits(max_dose, max_rate), strengths, tablets, duration)
    form = _Form(duration, rate, compartment, start, count)
    aim = Aim(target, risk, loss, _probability(target, risk, loss, probability))
    _refuse(given, form, aim, twin.patient.units)
    intervals = _intervals(interval)
    rows = [_best(twin, aim, form, given, every, at) for every in intervals]
    chosen = intervals[_chosen(rows, intervals, aim)]
    row = rows[intervals.index(chosen)]
    names: list[Any] = [
        f"every {i:g} {twin.patient.units['TIME']}" if i else "once" for i in intervals
    ]
    regimens = [form.regimen(twin, row["dose"], chosen, count)]
    if loading:
        first = _best(twin, aim, form, given, chosen, FIRST)
        rows, names = [*rows, first], [*names, "loading"]
        begin = regimens[0].start
        regimens = [
            dataclasses.replace(regimens[0], dose=first["dose"], count=1),
            dataclasses.replace(regimens[0], start=begin + (chosen or 0.0)),
        ]
    table = pd.DataFrame(rows, index=pd.Index(names, name="interval"))
    says = _says(aim, rows, names, at, twin)
    return Dose(tuple(regimens), table, says, doubts_of(twin), twin.patient.units)


def _intervals(asked: Any) -> list[float | None]:
    """Return the intervals to choose among; one that is None where doses are given once."""
    if asked is None or np.ndim(asked) == 0:
        return [asked]
    if not len(asked):
        raise ValueError("interval is empty; give one, or several")
    return list(asked)


def _probability(
    target: Target, risk: Target | None, loss: Loss | None, asked: float | None
) -> float | None:
    """Return with which probability the target is to be attained; None where the loss decides."""
    by_loss = None not in (target.low, target.high) or risk is not None or loss is not None
    if asked is None:
        return None if by_loss else 0.9
    if not 0 < asked < 1:
        raise ValueError(f"probability is {asked}; it must be between 0 and 1")
    if by_loss:
        raise ValueError(
            "probability is of a target of one limit, without risk or loss; leave it out: the expected "
            "loss decides (popk.costs says what it weighs)"
        )
    return asked


def _refuse(given: _Given, form: _Form, aim: Aim, units: dict[str, str]) -> None:
    given.limits.check()
    in_words(aim.loss)
    fastest = given.limits.max_rate
    if fastest is None:
        return
    if form.duration is None and form.rate is None:
        raise ValueError("max_rate is of infusions; give their duration, or their rate")
    if form.rate is not None and form.rate > fastest:
        unit = f"{units['AMT']}/{units['TIME']}"
        raise ValueError(
            f"rate is {form.rate:g} {unit}, faster than max_rate, {fastest:g} {unit}; "
            f"give a lower one"
        )


def _best(
    twin: Twin, aim: Aim, form: _Form, given: _Given, interval: float | None, at: At
) -> dict[str, Any]:
    """Return the best dose at one interval, and what comes of it."""
    outputs = outputs_of(aim.target, aim.risk)
    cap, limit = given.cap()
    usual = _usual(twin, cap)
    count = 1 if at == FIRST else form.doses
    curves = scaling(
        twin, lambda dose: form.regimen(twin, dose, interval, count), at, outputs, usual
    )
    exact = found(aim, curves, usual / _SPAN, min(cap, usual * _SPAN))
    _refuse_none(exact, cap, aim, twin.patient.units)
    held = limit if exact > cap or (aim.probability is None and exact >= 0.999 * cap) else ""
    doses = available(given.strengths, min(cap, max(2 * min(exact, cap), usual)), given.tablets)
    if doses is not None and not len(doses):
        raise ValueError(
            f"no available dose is within {limit or 'the limits'}; give other strengths"
        )
    dose = min(exact, cap)
    if doses is not None:
        dose = _rounded(aim, curves, dose, doses)
    outcome = aim.outcome(curves, dose)
    row = row_of(outcome, certainty_of(twin), aim.risk is not None)
    return {"dose": dose, "exact": exact, "held": held, **row}


def _usual(twin: Twin, cap: float) -> float:
    """Return a dose of the usual size: the patient's last one, or the largest that may be given."""
    frame = twin.patient.host.frame
    doses = frame["AMT"][frame["EVID"].isin([1, 4]) & frame["AMT"].gt(0)]
    own = float(doses.iloc[-1]) if len(doses) else 100.0
    return min(own, cap)


def _refuse_none(exact: float, cap: float, aim: Aim, units: dict[str, str]) -> None:
    """Refuse where no dose is the answer."""
    text = aim.target.says(units)
    if exact <= 0:
        why = (
            "it is attained without a dose" if aim.target.high is None else "no dose is low enough"
        )
        raise ValueError(f"there is no dose for {text} with probability {aim.probability}: {why}")
    if not np.isfinite(exact) and not np.isfinite(cap):
        raise ValueError(
            f"no dose attains {text} with probability {aim.probability}; give a lower probability, "
            f"another target or interval, or max_dose to see what that attains"
        )


def _rounded(aim: Aim, curves: Any, dose: float, doses: np.ndarray) -> float:
    """Return an available dose: one that attains the target still, or has the least expected loss."""
    if aim.probability is not None:
        near = [one for one in nearest(doses, dose) if one is not None]
        shares = [float(aim.outcome(curves, one).attained.mean()) for one in near]
        # Of a share that interpolation between two draws gave, a draw may be missing.
        enough = [s >= aim.probability - 1.5 / len(curves_draws(curves, near[0])) for s in shares]
        if not any(enough):
            return near[int(np.argmax(shares))]
        return min(
            (one for one, ok in zip(near, enough, strict=True) if ok), key=lambda x: abs(x - dose)
        )
    order = np.argsort(np.abs(np.log(doses / dose)))[:_MOST]
    losses = [float(aim.outcome(curves, float(doses[i])).loss.mean()) for i in order]
    return float(doses[order[int(np.argmin(losses))]])  # the nearest of equals


def curves_draws(curves: Any, dose: float) -> np.ndarray:
    """Return the draws of the first output at a dose [sample, point]."""
    return next(iter(curves.at(dose).values())).value


def _chosen(rows: list[dict[str, Any]], intervals: Sequence[Any], aim: Aim) -> int:
    """Return the row to be given."""

    def order(i: int) -> tuple[float, float]:
        per_time = rows[i]["dose"] / (intervals[i] or 1.0)
        if aim.probability is None:
            return rows[i]["loss"], per_time
        short = max(0.0, aim.probability - rows[i]["attained"])
        return (short if short > 2e-3 else 0.0), per_time

    return min(range(len(rows)), key=order)


def _says(
    aim: Aim, rows: list[dict[str, Any]], names: list[Any], at: At, twin: Twin
) -> tuple[str, ...]:
    units = twin.patient.units
    when = at if isinstance(at, str) else f"{at[0]:g} to {at[1]:g} {units['TIME']}"
    how = (
        f"with probability {aim.probability:g}"
        if aim.probability is not None
        else f"with the least expected loss ({in_words(aim.loss or Costs())})"
    )
    says = [f"Target of ID {twin.id}: {aim.target.says(units)}, {how}, at {when}"]
    if aim.risk is not None:
        says.append(f"Harm: {aim.risk.says(units)}")
    for name, row in zip(names, rows, strict=True):
        text = f"{row['dose']:g} {units['AMT']}"
        if row["held"]:
            wanted = f"; {row['exact']:.4g} {units['AMT']} was sought" if aim.probability else ""
            says.append(f"{name}: held at {row['held']}, {text}{wanted}")
        if aim.probability is not None and row["attained"] < aim.probability - 2e-3:
            says.append(
                f"{name}: {text} attains the target with probability {row['attained']:.3f} only"
            )
    return tuple(says)
