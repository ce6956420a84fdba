r"""What is a regimen to attain, and what is harm? Targets and risks as values.

Each is a number that a draw of the concentration over a window has (its trough, its area, ...), and a
range for it. Concentrations are the patient's own (IPRED), without residual error, in the unit of the
trial's DV, times in that of its TIME.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from popk.patients.courses import Course


@dataclasses.dataclass(frozen=True)
class Target:
    """A range that a number of each draw's concentration is to be in; of a risk, one that does harm.

    `popk.trough`, `popk.peak`, `popk.auc`, `popk.time_above`, `popk.time_in_window`, `popk.response`
    and their kin make one.

    Attributes
    ----------
    quantity : str
        "trough", "peak", "auc", "average", "lowest" or "time".
    low, high : float or None
        The ends of the range, both inside it; of "time" shares of the window.
    output : str or None
        Which output of the model, where it has several.
    interval : float or None
        Of "auc": the time that the area refers to [TIME]; the window itself where it is None.
    window : tuple of float or None
        Of "time": between which concentrations, an end None where there is none.
    """

    quantity: str
    low: float | None
    high: float | None
    output: str | None = None
    interval: float | None = None
    window: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        """Refuse a range that is none."""
        _refuse_range(self.low, self.high, self.quantity)
        if self.output is None and min(self.low or 0.0, self.high or 0.0) < 0:
            raise ValueError(
                f"the {self.quantity} has the limits {self.low} and {self.high}; "
                f"a concentration is not negative"
            )
        if self.interval is not None and not (self.interval > 0 and np.isfinite(self.interval)):
            raise ValueError(f"interval is {self.interval}; it must be a positive time")

    def value(self, course: Course) -> np.ndarray:
        """Return the number of each draw [sample]."""
        return _QUANTITIES[self.quantity](self, course)

    def met(self, value: np.ndarray) -> np.ndarray:
        """Return whether numbers lie in the range."""
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return (value >= low) & (value <= high)

    def unit(self, units: dict[str, str]) -> str:
        """Return the unit of the number, from those of a trial's columns."""
        if self.quantity == "time":
            return "share of the interval"
        return f"{units['DV']} * {units['TIME']}" if self.quantity == "auc" else units["DV"]

    def says(self, units: dict[str, str]) -> str:
        """Return the target in words."""
        name = self.quantity if self.output is None else f"{self.quantity} of {self.output}"
        if self.quantity == "auc":
            per = "the interval" if self.interval is None else f"{self.interval:g} {units['TIME']}"
            name = f"{name.replace('auc', 'AUC')} over {per}"
        if self.quantity == "time":
            return f"{_ranged(*self.window, units['DV'])} for {_ranged(self.low, self.high)} of the time"
        return f"{name} {_ranged(self.low, self.high, self.unit(units))}"


def trough(
    low: float | None = None, high: float | None = None, *, output: str | None = None
) -> Target:
    """Return the target of a concentration just before the next dose.

    Parameters
    ----------
    low, high : float, optional
        The range [unit of DV]; None at an end that does not matter.
    output : str, optional
        Which output of the model, where it has several.

    Raises
    ------
    ValueError
        The range is none, or has no end at all.

    Examples
    --------
    >>> trough(5, 15).says({"DV": "mg/L", "TIME": "h"})
    'trough 5 to 15 mg/L'
    """
    return Target("trough", low, high, output)


def peak(
    low: float | None = None, high: float | None = None, *, output: str | None = None
) -> Target:
    """Return the target of the highest concentration of the interval; parameters as of `trough`.

    Parameters
    ----------
    low, high : float, optional
        The range [unit of DV].
    output : str, optional
    """
    return Target("peak", low, high, output)


def auc(
    low: float | None = None,
    high: float | None = None,
    *,
    interval: float | None = None,
    output: str | None = None,
) -> Target:
    """Return the target of an area under the concentration.

    Parameters
    ----------
    low, high : float, optional
        The range [DV * TIME].
    interval : float, optional
        The time that the area refers to [unit of TIME]: with 24, the area of the window times 24 over
        its length, so that ``auc(400, 600, interval=24)`` is a daily area whatever the regimen's own
        interval. By default the area of the window itself.
    output : str, optional
    """
    return Target("auc", low, high, output, interval)


def time_above(mic: float, fraction: float = 0.5, *, output: str | None = None) -> Target:
    """Return the target of a concentration that is above a limit for a share of the interval.

    Parameters
    ----------
    mic : float
        The limit, such as a minimum inhibitory concentration [unit of DV].
    fraction : float
        The least share of the interval, above 0 and at most 1.
    output : str, optional

    Raises
    ------
    ValueError
        The limit is not positive, or the fraction is none.
    """
    return time_in_window(mic, None, fraction, output=output)


def time_in_window(
    low: float | None, high: float | None, fraction: float = 0.5, *, output: str | None = None
) -> Target:
    """Return the target of a concentration that is between two limits for a share of the interval.

    Parameters
    ----------
    low, high : float or None
        The limits [unit of DV]; None where there is none.
    fraction : float
        The least share of the interval, above 0 and at most 1.
    output : str, optional

    Raises
    ------
    ValueError
        The limits are none, or the fraction is.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it must be above 0 and at most 1")
    _refuse_range(low, high, "concentration")
    return Target("time", fraction, None, output, window=(low, high))


def response(
    low: float | None = None, high: float | None = None, *, output: str, at: str = "end"
) -> Target:
    """Return the target of another output of the model, such as an effect.

    Parameters
    ----------
    low, high : float, optional
        The range [unit of that output].
    output : str
        As in ``popk.observe(..., output="effect")``.
    at : "end", "highest", "lowest" or "average"
        Of the interval.

    Raises
    ------
    ValueError
        The range is none, or `at` is none of those.
    """
    known = {"end": "trough", "highest": "peak", "lowest": "lowest", "average": "average"}
    if at not in known:
        raise ValueError(f"at is {at!r}; it must be one of {', '.join(known)}")
    return Target(known[at], low, high, output)


def peak_above(limit: float, *, output: str | None = None) -> Target:
    """Return the risk of a highest concentration at or above a limit [unit of DV].

    Parameters
    ----------
    limit : float
    output : str, optional
    """
    return Target("peak", limit, None, output)


def trough_above(limit: float, *, output: str | None = None) -> Target:
    """Return the risk of a concentration before the next dose at or above a limit [unit of DV].

    Parameters
    ----------
    limit : float
    output : str, optional
    """
    return Target("trough", limit, None, output)


def auc_above(limit: float, *, interval: float | None = None, output: str | None = None) -> Target:
    """Return the risk of an area at or above a limit [DV * TIME]; `interval` as of `auc`.

    Parameters
    ----------
    limit : float
    interval : float, optional
        [unit of TIME]
    output : str, optional
    """
    return Target("auc", limit, None, output, interval)


def share_between(course: Course, low: float | None, high: float | None) -> np.ndarray:
    """Return for what share of the window each draw is between two limits [sample].

    Between two points a concentration is taken to change exponentially, as it does in a terminal
    phase; linearly where it is not positive at both.
    """
    share = np.ones(len(course.value))
    if low is not None:
        share = share - _below(course, low)
    if high is not None:
        share = share - (1.0 - _below(course, high))
    return share


def _below(course: Course, limit: float) -> np.ndarray:
    """Return for what share of the window each draw is below a limit [sample]."""
    before, after = course.value[:, :-1], course.value[:, 1:]
    part = crossing(before, after, limit)
    inside = np.where(before < limit, part, 1.0 - part)
    inside = np.where((before < limit) == (after < limit), before < limit, inside)
    steps = np.diff(course.time)
    return inside @ steps / steps.sum()


def crossing(before: np.ndarray, after: np.ndarray, limit: float) -> np.ndarray:
    """Return at which part of the way from one value to the next a limit lies; 0 to 1."""
    positive = (before > 0) & (after > 0) & (limit > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(positive, limit / before, 1.0)) / np.log(
            np.where(positive, after / before, 1.0)
        )
        straight = (limit - before) / (after - before)
    part = np.where(positive, logs, straight)
    return np.clip(np.nan_to_num(part, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)


def highest(course: Course) -> np.ndarray:
    """Return the highest value of each draw, of the parabola through the highest point and its neighbors."""
    t, y = course.time, course.value
    top = y.argmax(1)
    rows, found = np.arange(len(y)), y.max(1)
    inner = (top > 0) & (top < y.shape[1] - 1)
    i = np.clip(top, 1, y.shape[1] - 2)
    left, right = t[i] - t[i - 1], t[i + 1] - t[i]
    inner &= (left > 0) & (right > 0)  # no dose stands between them
    left, right = np.where(inner, left, 1.0), np.where(inner, right, 1.0)
    down, up = y[rows, i] - y[rows, i - 1], y[rows, i + 1] - y[rows, i]
    curve = (up / right - down / left) / (left + right)
    slope = (up / right * left + down / left * right) / (left + right)
    more = np.where(inner & (curve < 0), slope**2 / np.where(curve < 0, -4 * curve, 1.0), 0.0)
    return found + more


def _refuse_range(low: float | None, high: float | None, name: str) -> None:
    for end, value in (("low", low), ("high", high)):
        if value is not None and not np.isfinite(value):
            raise ValueError(f"{end} of the {name} is {value}; give a number, or None")
    if low is None and high is None:
        raise ValueError(f"the {name} has no limit; give low, high or both")
    if low is not None and high is not None and not low < high:
        raise ValueError(
            f"low of the {name} is {low:g} and high {high:g}; low must be the lower one"
        )


def _ranged(low: float | None, high: float | None, unit: str = "") -> str:
    unit = f" {unit}" if unit else ""
    if low is None:
        return f"at most {high:g}{unit}"
    return f"at least {low:g}{unit}" if high is None else f"{low:g} to {high:g}{unit}"


def _area(target: Target, course: Course) -> np.ndarray:
    length = course.time[-1] - course.time[0]
    return course.value @ course.weight * ((target.interval or length) / length)


_QUANTITIES: dict[str, Callable[[Target, Course], np.ndarray]] = {
    "trough": lambda _, course: course.value[:, -1],
    "peak": lambda _, course: highest(course),
    "lowest": lambda _, course: course.value.min(1),
    "average": lambda _, course: course.value @ course.weight / (course.time[-1] - course.time[0]),
    "auc": _area,
    "time": lambda target, course: share_between(course, *target.window),
}
