"""Will harm come? `watch`: how probable it is that limits are crossed, when, and what would prevent it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popk.advice.certainty import certainty_of
from popk.advice.rules import CLEARED, HELD, QUIET, RAISED, Rule
from popk.advice.windows import DECIDES
from popk.patients.courses import courses, doubts_of
from popk.patients.regimen import Regimen, replaced, written_out
from popk.patients.twin import Twin
from popk.trial import Trial

_LESS = (0.9, 0.8, 0.75, 0.67, 0.5, 0.33, 0.25, 0.0)
_MORE = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Watch:
    """What may be crossed within a horizon; a clinician decides what follows.

    Attributes
    ----------
    table : DataFrame
        A row for each rule: ``probability`` of a crossing with its 95% Monte Carlo interval, ``_low``
        and ``_high``; ``time``, the earliest at which that probability has reached the rule's, NaN
        where it does not [unit of TIME]; ``state``: quiet, raised, held or cleared; ``change``: by
        what the doses to come would be multiplied so that the probability falls below the clearing
        one, NaN where there is no alarm or no such multiple; and ``probability_after`` it.
    texts : tuple of str
        The same in sentences.
    states : dict of str to str
        By the names of rules, for `previous` of the next watch.
    now, horizon : float
        [unit of TIME]
    warnings : tuple of str
        Why the twin should be doubted.
    """

    table: pd.DataFrame
    texts: tuple[str, ...]
    states: dict[str, str]
    now: float
    horizon: float
    warnings: tuple[str, ...]

    @property
    def alarms(self) -> pd.DataFrame:
        """Return the rows of rules whose alarm stands."""
        return self.table.loc[self.table["state"].isin([RAISED, HELD])]

    def __repr__(self) -> str:
        """Return each rule in a sentence, what speaks against it, and who decides."""
        return "\n".join([*self.texts, *(f"Warning: {text}" for text in self.warnings), DECIDES])


class Crossing(NamedTuple):
    """Draws' first crossings of one rule [sample], infinite where there is none [unit of TIME]."""

    rule: Rule
    times: np.ndarray


def watch(
    twin: Twin,
    rules: Rule | Sequence[Rule],
    horizon: float,
    *,
    now: float | None = None,
    regimen: Regimen | Sequence[Regimen] | None = None,
    previous: Watch | Mapping[str, str] | None = None,
    steps: Sequence[float] | None = None,
    false_alarms: pd.DataFrame | None = None,
) -> Watch:
    """Return how probable it is that limits are crossed within a horizon, and what would prevent it.

    Parameters
    ----------
    twin : Twin
    rules : Rule, or sequence of Rule
        `popk.limit`.
    horizon : float
        How far to look ahead [unit of TIME].
    now : float, optional
        Where the horizon begins: by default at the last level, or at the last record where there is
        none [unit of TIME].
    regimen : Regimen, or sequence of Regimen, optional
        The doses to come; by default those that the records hold.
    previous : Watch or mapping of name to state, optional
        The last watch: an alarm that stands is cleared only below the clearing probability.
    steps : sequence of float, optional
        Multiples of the doses to come that may be suggested: the one nearest 1 is that brings the
        probability below the clearing one. By default 0.9 to 0 (none) above a limit, 1.1 to 4 below one.
    false_alarms : DataFrame, optional
        What `popk.false_alarm_rate` says of these rules: the alarms' sentences then tell it.

    Returns
    -------
    Watch

    Raises
    ------
    ValueError
        The horizon is not positive, two rules have one name, a step is negative, or a previous state is
        none.
    ModelError
        The model has no such output.

    Examples
    --------
    >>> popk.watch(twin, popk.limit(above=20, probability=0.2), horizon=24)  # doctest: +SKIP
    """
    several = [rules] if isinstance(rules, Rule) else list(rules)
    names = [rule.name for rule in several]
    if not (horizon > 0 and np.isfinite(horizon)) or not names or len({*names}) < len(names):
        raise ValueError(
            f"horizon is {horizon} and the rules are {', '.join(names) or 'none'}; give a positive time, "
            f"and rules of different names"
        )
    if steps is not None and not all(s >= 0 and np.isfinite(s) for s in steps):
        raise ValueError(f"steps are {list(steps)}; none may be negative")
    known = previous.states if isinstance(previous, Watch) else dict(previous or {})
    begin = present(twin.patient) if now is None else float(now)
    patient = twin.patient if regimen is None else replaced(twin.patient, regimen)
    certainty, found = certainty_of(twin), {}
    for crossing in crossings(twin, patient, several, begin, horizon):
        rule, times = crossing
        share = certainty.share(np.isfinite(times))
        state = rule.state(share.value, known.get(rule.name, QUIET))
        change, after = np.nan, np.nan
        if state in (RAISED, HELD):
            change, after = _change(twin, patient, rule, (begin, horizon), steps)
        found[rule.name] = {
            "probability": share.value, "probability_low": share.low, "probability_high": share.high,
            "time": _earliest(times, rule.probability), "state": state, "change": change,
            "probability_after": after,
        }  # fmt: skip
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("rule")
    texts = [_sentence(rule, found[rule.name], twin, horizon, false_alarms) for rule in several]
    states = {name: row["state"] for name, row in found.items()}
    return Watch(table, tuple(texts), states, begin, float(horizon), doubts_of(twin))


def crossings(
    twin: Twin, patient: Trial, rules: Sequence[Rule], now: float, horizon: float
) -> list[Crossing]:
    """Return when draws first cross each limit."""
    outputs = list(dict.fromkeys(rule.output for rule in rules))
    found = courses(twin, patient, (now, now + horizon), outputs)
    return [Crossing(rule, rule.crossed(found[rule.output])) for rule in rules]


def present(patient: Trial) -> float:
    """Return the time of the last level, or of the last record where there is none [unit of TIME]."""
    frame = patient.host.frame
    levels = frame["TIME"][frame["EVID"].eq(0) & frame["MDV"].eq(0)]
    return float((levels if len(levels) else frame["TIME"]).iloc[-1])


def multiplied(patient: Trial, by: float, since: float) -> Trial:
    """Return a patient's records with other doses after a time, infusions as long as before.

    Parameters
    ----------
    patient : Trial
    by : float
        What each dose is multiplied by; with 0 none is given.
    since : float
        After which doses are others [unit of TIME].
    """
    frame = written_out(patient.host.frame)
    later = frame["EVID"].isin([1, 4]) & frame["TIME"].gt(since)
    if by == 0:
        # The records remain, so that nothing else changes: they only ask for a prediction.
        frame.loc[later, ["EVID", "AMT", "RATE", "II", "SS"]] = [2, 0.0, 0.0, 0.0, 0]
        return patient.replaced(frame)
    infused = later & frame["RATE"].gt(0)
    frame["AMT"] = frame["AMT"].where(~later, frame["AMT"] * by)
    frame["RATE"] = frame["RATE"].where(~infused, frame["RATE"] * by)
    return patient.replaced(frame)


def _change(
    twin: Twin, patient: Trial, rule: Rule, span: tuple[float, float], steps: Any
) -> tuple[float, float]:
    """Return the multiple nearest 1 that clears an alarm, and the probability after it."""
    allowed = steps if steps is not None else (_LESS if rule.above is not None else _MORE)
    for by in sorted(allowed, key=lambda s: abs(np.log(max(s, 1e-9)))):
        other = multiplied(patient, float(by), span[0])
        (crossing,) = crossings(twin, other, [rule], *span)
        probability = float(np.isfinite(crossing.times).mean())
        if probability < rule.clears:
            return float(by), probability
    return np.nan, np.nan


def _earliest(times: np.ndarray, probability: float) -> float:
    """Return the earliest time by which a share of draws has crossed; NaN where there is none."""
    ordered = np.sort(times)
    first = float(ordered[int(np.ceil(probability * len(ordered))) - 1])
    return first if np.isfinite(first) else np.nan


def _sentence(
    rule: Rule, row: Mapping[str, Any], twin: Twin, horizon: float, false_alarms: Any
) -> str:
    units = twin.patient.units
    text = (
        f"{row['state']}: {rule.says(units['DV'])}: within {horizon:g} {units['TIME']} it is crossed with "
        f"probability {row['probability']:.3f} ({row['probability_low']:.3f} to "
        f"{row['probability_high']:.3f})"
    )
    if np.isfinite(row["time"]):
        text += f", {rule.probability:g} by TIME {row['time']:.4g} {units['TIME']}"
    if row["state"] in (RAISED, HELD):
        text += f"; {_suggested(row, rule)}"
    if row["state"] != CLEARED and false_alarms is not None and rule.name in false_alarms.index:
        rates = false_alarms.loc[rule.name]
        text += (
            f"; in simulated patients {rates['false_alarm']:.0%} of those who do not cross it are alarmed, "
            f"and {rates['missed']:.0%} of those who do are missed"
        )
    return text


def _suggested(row: Mapping[str, Any], rule: Rule) -> str:
    if not np.isfinite(row["change"]):
        return f"none of the steps brings that below {rule.clears:g}"
    what = "no dose" if row["change"] == 0 else f"doses multiplied by {row['change']:g}"
    return f"{what} from now on would make it {row['probability_after']:.3f}"
