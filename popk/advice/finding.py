"""At which dose is a target attained, or the expected loss least? The search, before limits and tablets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from popk.advice.recommending import Loss, Outcome, outcome
from popk.advice.scaling import Scaling
from popk.advice.targets import Target

_GRID = 25  # doses of a first look, on the logarithmic scale
_FINE = 40  # and of a second, between the best one's neighbors
_ROUNDS = 100  # of bisection, which ends at rounding error


class Aim(NamedTuple):
    """What a dose is to do.

    Attributes
    ----------
    target : Target
    risk : Target or None
    loss : Costs, Callable or None
    probability : float or None
        With which the target is to be attained; None where the expected loss is to be least.
    """

    target: Target
    risk: Target | None
    loss: Loss | None
    probability: float | None

    def outcome(self, curves: Scaling, dose: float) -> Outcome:
        """Return what each draw comes to at a dose."""
        return outcome(curves.at(dose), self.target, self.risk, self.loss)

    def margin(self, curves: Scaling, dose: float) -> float:
        """Return by how much the target is attained with the probability; negative where it is not."""
        value = self.target.value(curves.at(dose)[self.target.output])
        ends = [value - self.target.low] if self.target.low is not None else []
        ends += [self.target.high - value] if self.target.high is not None else []
        return float(np.quantile(np.min(ends, axis=0), 1 - (self.probability or 0.5)))


def found(aim: Aim, curves: Scaling, low: float, high: float) -> float:
    """Return the dose that attains a target with a probability, or whose expected loss is least.

    Parameters
    ----------
    aim : Aim
    curves : Scaling
    low, high : float
        Between which doses are looked for [unit of AMT].

    Returns
    -------
    float
        0 where no dose is needed, or none is low enough; infinite where none is high enough.
    """
    if aim.probability is None:
        return _least_loss(aim, curves, low, high)
    own = per_draw(aim.target, curves)
    if own is None:
        return _at_margin(lambda dose: aim.margin(curves, dose), low, high)
    share = aim.probability if aim.target.high is None else 1 - aim.probability
    return quantile(own, share)


def quantile(doses: np.ndarray, share: float) -> float:
    """Return a quantile of doses, some of which may be infinite."""
    finite = np.where(np.isfinite(doses), doses, np.finfo(float).max)
    q = float(np.quantile(finite, share))
    return q if q < 1e300 else np.inf


def per_draw(target: Target, curves: Scaling) -> np.ndarray | None:
    """Return the dose at which each draw reaches the target's limit; None where that is not one dose.

    It is one where concentrations grow linearly with the dose, the target has one limit, and its number
    grows with the concentration.
    """
    window = target.window[1] is not None
    if not curves.linear or window or (target.low is None) == (target.high is None):
        return None
    none, each = curves.none[target.output], curves.each[target.output]
    if (each.value < 0).any():
        return None
    limit = target.low if target.low is not None else target.high
    size = len(each.value)

    def reaches(doses: np.ndarray) -> np.ndarray:
        return target.value(none._replace(value=none.value + doses[:, None] * each.value)) >= limit

    zero = np.zeros(size)
    unit = target.value(each)
    if target.quantity != "time" and not none.value.any():  # in proportion: no search
        with np.errstate(divide="ignore"):
            return np.where(unit > 0, limit / np.where(unit > 0, unit, 1.0), np.inf)
    low, high = zero, np.full(size, 1e12 * max(1.0, float(limit or 0.0)))
    never, always = ~reaches(high), reaches(zero)
    for _ in range(_ROUNDS):
        middle = np.where(low > 0, np.sqrt(low * high), high * 1e-6)
        above = reaches(middle)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
        low = np.where(high < 1e-12, high, low)
    return np.where(always, 0.0, np.where(never, np.inf, high))


def _at_margin(margin: Callable[[float], float], low: float, high: float) -> float:
    """Return the least dose that attains; where low doses attain too, the largest of them."""
    doses = np.geomspace(low, high, _GRID)
    ends: list[float] = []
    for dose in doses:
        ends.append(margin(float(dose)))
        if (ends[-1] >= 0) != (ends[0] >= 0):
            between = np.log(doses[len(ends) - 2 : len(ends)])
            edge: Any = brentq(lambda x: margin(float(np.exp(x))), *between, xtol=1e-7)
            return float(np.exp(edge))
    return np.inf


def _least_loss(aim: Aim, curves: Scaling, low: float, high: float) -> float:
    """Return the middle of the doses whose expected loss is least."""

    def best(doses: np.ndarray) -> tuple[int, int]:
        losses = np.array([aim.outcome(curves, float(d)).loss.mean() for d in doses])
        least = np.flatnonzero(losses <= losses.min() + 1e-12)
        return int(least[0]), int(least[-1])

    doses = np.geomspace(low, high, _GRID)
    for count in (_FINE, _FINE):
        first, last = best(doses)
        doses = np.geomspace(doses[max(first - 1, 0)], doses[min(last + 1, len(doses) - 1)], count)
    first, last = best(doses)
    if doses[last] >= high * (1 - 1e-9) and first != last:
        return float(doses[first])  # as good, and less
    return float(np.sqrt(doses[first] * doses[last]))
