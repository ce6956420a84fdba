"""Which of these regimens? `recommend`: of each how probable target and harm are, for a clinician."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from popk.advice.certainty import Certainty, Estimate, certainty_of
from popk.advice.targets import Target
from popk.advice.windows import DECIDES, STEADY, At, Candidate, Limits, judged, named
from popk.patients.courses import Course, courses, doubts_of
from popk.patients.twin import Twin

_BAND = (0.05, 0.5, 0.95)


class Costs(NamedTuple):
    """What each draw that goes wrong costs; `popk.costs` makes one.

    Attributes
    ----------
    below, above, harm : float
        Of a draw below the target, above it, and of one with harm.
    """

    below: float = 1.0
    above: float = 1.0
    harm: float = 1.0

    def __call__(self, target: Target, value: np.ndarray, harm: np.ndarray) -> np.ndarray:
        """Return the loss of each draw."""
        low = np.zeros(len(value)) if target.low is None else value < target.low
        high = np.zeros(len(value)) if target.high is None else value > target.high
        return self.below * low + self.above * high + self.harm * harm

    @property
    def says(self) -> str:
        """Return the loss in words."""
        return (
            f"{self.below:g} where a draw is below the target, {self.above:g} where above it, and "
            f"{self.harm:g} more where there is harm"
        )


Loss = Costs | Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def costs(*, below: float = 1.0, above: float = 1.0, harm: float = 1.0) -> Costs:
    """Return a loss: what each draw costs that misses the target, or comes to harm.

    Parameters
    ----------
    below, above : float
        Of a draw below the target, and above it; not negative.
    harm : float
        Of a draw that does harm, in addition.

    Raises
    ------
    ValueError
        A cost is negative.

    Examples
    --------
    >>> costs(harm=5).says
    '1 where a draw is below the target, 1 where above it, and 5 more where there is harm'
    """
    if not min(below, above, harm) >= 0 or not np.isfinite([below, above, harm]).all():
        raise ValueError(f"costs are {below}, {above} and {harm}; none may be negative")
    return Costs(below, above, harm)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Advice:
    """What to expect of each of some regimens, in the order in which they were given; it decides nothing.

    Attributes
    ----------
    table : DataFrame
        A row for each regimen. ``attained``: the probability of the target; ``harm``: that of the risk
        (NaN where none was asked about); ``loss``: the expected loss; each with its 95% Monte Carlo
        interval, ``_low`` and ``_high``. ``value``, ``value_low``, ``value_high``: the median and 90%
        interval of the target's number.
    draws : Dataset
        Of each regimen (regimen, sample): ``value``, ``attained``, ``harm`` and ``loss``.
    curves : dict of str to DataFrame
        Of each regimen the time since the window's begin and the 5%, 50% and 95% quantiles of the
        concentration.
    target, risk : Target and Target or None
    texts : dict of str to str
        In words: the patient, what is judged, and the loss.
    warnings : tuple of str
        Why the twin should be doubted; empty where nothing speaks against it.
    units : dict of str to str
        Of TIME, AMT and DV.
    """

    table: pd.DataFrame
    draws: xr.Dataset
    curves: dict[str, pd.DataFrame]
    target: Target
    risk: Target | None
    texts: dict[str, str]
    warnings: tuple[str, ...]
    units: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """Return what the table means, and what speaks against it."""
        texts = [self.texts[n] for n in ("patient", "target", "risk", "loss") if self.texts.get(n)]
        return [*texts, *(f"Warning: {text}" for text in self.warnings), DECIDES]

    def _shown(self) -> pd.DataFrame:
        t: Any = self.table
        shown = pd.DataFrame(index=t.index)
        unit = self.target.unit(self.units)
        shown[f"{self.target.quantity} [{unit}]"] = [
            f"{m:.3g} ({a:.3g} to {b:.3g})"
            for a, m, b in zip(t["value_low"], t["value"], t["value_high"], strict=True)
        ]
        for name, title in (("attained", "target"), ("harm", "harm"), ("loss", "loss")):
            if t[name].notna().any():
                shown[title] = [
                    f"{m:.3f} ({a:.3f} to {b:.3f})"
                    for m, a, b in zip(t[name], t[f"{name}_low"], t[f"{name}_high"], strict=True)
                ]
        return shown

    def __repr__(self) -> str:
        """Return the table with its meaning."""
        return "\n".join([self.lines[0], self._shown().to_string(), *self.lines[1:]])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{line}</li>" for line in map(_escaped, self.lines[1:]))
        first, table = _escaped(self.lines[0]), self._shown().to_html()
        return f"<p>{first}</p>{table}<ul>{items}</ul>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def recommend(
    twin: Twin,
    regimens: Sequence[Candidate] | Mapping[str, Candidate],
    target: Target,
    risk: Target | None = None,
    *,
    loss: Loss | None = None,
    at: At = STEADY,
    sort: str | None = None,
    max_dose: float | None = None,
    max_rate: float | None = None,
) -> Advice:
    """Return what to expect of some regimens for one patient: attainment, harm and loss.

    Probabilities are over all of the twin's draws, the population's uncertainty included. Nothing is
    ranked unless asked for, and nothing is chosen: a clinician decides.

    Parameters
    ----------
    twin : Twin
    regimens : sequence of Regimen, or mapping of name to Regimen
        The candidates; one may be a sequence of regimens, such as a loading dose and what follows.
    target : Target
        `popk.trough`, `popk.peak`, `popk.auc`, `popk.time_above`, `popk.time_in_window` or
        `popk.response`; of concentrations without residual error.
    risk : Target, optional
        What does harm where it comes true: `popk.peak_above`, `popk.auc_above`, `popk.trough_above`, or
        any other target.
    loss : Costs or Callable, optional
        `popk.costs`, by default 1 for missing the target and 1 for harm; or a function of each draw's
        value (sample), whether it attains the target, and whether it does harm, that returns the loss
        (sample), and whose docstring says what it weighs.
    at : "steady state", "last interval", "first interval" or tuple of float
        The window of time that is judged: an interval of the regimen, or a begin and an end on the
        clock of the patient's TIME.
    sort : str, optional
        A column of the table to sort by; by default the order is that of the candidates.
    max_dose : float, optional
        The largest single dose that may be given [unit of AMT].
    max_rate : float, optional
        The fastest infusion [AMT/TIME].

    Returns
    -------
    Advice

    Raises
    ------
    ValueError
        A regimen is beyond a limit, or has no interval to be judged over; there is none, or two have
        one name; the loss does not say what it weighs, or `sort` is no column.
    ModelError
        The model has no such output, or a regimen cannot be predicted.

    Examples
    --------
    >>> advice = popk.recommend(
    ...     twin, [popk.Regimen(dose=d, interval=12) for d in (200, 300)],
    ...     target=popk.trough(5, 15), risk=popk.peak_above(20),
    ... )  # doctest: +SKIP
    """
    limits, units = Limits(max_dose, max_rate), twin.patient.units
    limits.check()
    candidates = _candidates(regimens, units)
    says = _loss_words(loss)
    for candidate in candidates.values():
        limits.refuse(candidate, units)
    certainty, outputs = certainty_of(twin), _outputs(target, risk)
    rows, draws, curves = {}, {}, {}
    for name, candidate in candidates.items():
        patient, window = judged(twin, candidate, at)
        found = courses(twin, patient, window, outputs)
        draws[name] = outcome(found, target, risk, loss)
        rows[name] = _row(draws[name], certainty, risk is not None)
        curves[name] = _curve(found[target.output])
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("regimen")
    if sort is not None:
        if sort not in table:
            raise ValueError(f"sort is {sort!r}; the table has {', '.join(table)}")
        table = table.sort_values(sort, kind="stable")
    names = list(table.index)
    dims = ("regimen", "sample")
    together = {n: (dims, np.stack([getattr(draws[r], n) for r in names])) for n in Outcome._fields}
    return Advice(
        table, xr.Dataset(together, coords={"regimen": names}), {n: curves[n] for n in names},
        target, risk, _texts(twin, target, risk, says, at), doubts_of(twin), units,
    )  # fmt: skip


class Outcome(NamedTuple):
    """What each draw of one regimen comes to [sample].

    Attributes
    ----------
    value : Float[ndarray, "sample"]
        The target's number.
    attained, harm : Bool[ndarray, "sample"]
    loss : Float[ndarray, "sample"]
    """

    value: np.ndarray
    attained: np.ndarray
    harm: np.ndarray
    loss: np.ndarray


def outcome(
    found: Mapping[str | None, Course], target: Target, risk: Target | None, loss: Loss | None
) -> Outcome:
    """Return what each draw comes to.

    Raises
    ------
    ValueError
        A loss does not return one number a draw.
    """
    value = target.value(found[target.output])
    attained = target.met(value)
    harm = np.zeros(len(value), dtype=bool)
    if risk is not None:
        harm = risk.met(risk.value(found[risk.output]))
    weigh = Costs() if loss is None else loss
    each = weigh(target, value, harm) if isinstance(weigh, Costs) else weigh(value, attained, harm)
    lost = np.asarray(each, dtype=float)
    if lost.shape != value.shape or not np.isfinite(lost).all():
        raise ValueError(
            f"the loss returned {lost.shape}, or no numbers; it must return one number for each draw, "
            f"{value.shape}"
        )
    return Outcome(value, attained, harm, lost)


def _outputs(target: Target, risk: Target | None) -> list[str | None]:
    return list(dict.fromkeys([target.output, *([] if risk is None else [risk.output])]))


def _candidates(
    regimens: Sequence[Candidate] | Mapping[str, Candidate], units: Mapping[str, str]
) -> dict[str, Candidate]:
    """Return the candidates by name; refuse none, and two of one name."""
    if isinstance(regimens, Mapping):
        found = {str(name): one for name, one in regimens.items()}
    else:
        names = [named(one, units) for one in regimens]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(
                f"two regimens are {twice[0]}; name them: recommend(twin, {{'name': regimen, ...}})"
            )
        found = dict(zip(names, regimens, strict=True))
    if not found:
        raise ValueError("there are no regimens; give at least one popk.Regimen")
    return found


def _loss_words(loss: Loss | None) -> str:
    weigh = Costs() if loss is None else loss
    if isinstance(weigh, Costs):
        return weigh.says
    if not weigh.__doc__:
        raise ValueError("the loss has no docstring; say there in one line what it weighs")
    return weigh.__doc__.strip().splitlines()[0]


def _row(found: Outcome, certainty: Certainty, risky: bool) -> dict[str, float]:
    low, median, high = np.quantile(found.value, _BAND)
    harm = certainty.share(found.harm) if risky else Estimate(np.nan, np.nan, np.nan)
    estimates = {
        "attained": certainty.share(found.attained),
        "harm": harm,
        "loss": certainty.mean(found.loss),
    }
    row = {}
    for name, one in estimates.items():
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return row | {"value": median, "value_low": low, "value_high": high}


def _curve(course: Course) -> pd.DataFrame:
    quantiles = np.quantile(course.value, _BAND, axis=0)
    return pd.DataFrame(
        {
            "time": course.time - course.time[0],
            **dict(zip(("low", "median", "high"), quantiles, strict=True)),
        }
    )


def _texts(twin: Twin, target: Target, risk: Target | None, says: str, at: At) -> dict[str, str]:
    units = twin.patient.units
    when = at if isinstance(at, str) else f"{at[0]:g} to {at[1]:g} {units['TIME']}"
    return {
        "patient": f"ID {twin.id}, at {when}: concentrations without residual error; medians with 90% "
        f"intervals, probabilities with 95% Monte Carlo intervals",
        "target": f"Target: {target.says(units)}",
        "risk": "" if risk is None else f"Harm: {risk.says(units)}",
        "loss": f"Loss of each draw: {says}; the mean is shown",
    }
