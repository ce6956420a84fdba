r"""What do the levels after one dose say? Noncompartmental parameters of many draws at once.

With :math:`\lambda_z` the terminal slope, T the duration of an infusion and D the dose [1]_,

.. math::
   AUC_\infty = AUC_{last} + C_{last}/\lambda_z, \qquad
   AUMC_\infty = AUMC_{last} + t_{last} C_{last}/\lambda_z + C_{last}/\lambda_z^2

   MRT = AUMC_\infty/AUC_\infty - T/2, \qquad CL = D/AUC_\infty, \qquad V_z = CL/\lambda_z, \qquad
   V_{ss} = CL \cdot MRT

and at steady state, where each interval :math:`\tau` is like the one before [2]_ [3]_,

.. math::
   CL = D/AUC_\tau, \qquad
   MRT = \left(AUMC_\tau + \tau\, AUC_{\tau \to \infty}\right)/AUC_\tau - T/2

References
----------
.. [1] Gibaldi M, Perrier D (1982). Pharmacokinetics, 2nd ed. Marcel Dekker. doi:10.1201/b14095
.. [2] Smith IL, Schentag JJ (1984). Noncompartmental determination of the steady-state volume of
   distribution during multiple dosing. J Pharm Sci 73:281-282. doi:10.1002/jps.2600730241
.. [3] Gabrielsson J, Weiner D (2012). Non-compartmental analysis. Methods Mol Biol 929:377-389.
   doi:10.1007/978-1-62703-050-2_16
"""

from typing import NamedTuple

import numpy as np

from popk.noncompartmental.areas import Areas, areas, between, trapezoids
from popk.noncompartmental.curves import NEAR, Curve
from popk.noncompartmental.profiles import EARLY, Profile
from popk.noncompartmental.slope import Slope, terminal_slope

Values = dict[str, np.ndarray]

#: From one level no area is known.
LEAST_LEVELS = 2


class Analysis(NamedTuple):
    """A profile's draws, taken apart.

    Attributes
    ----------
    profile : Profile
    curve : Curve
    slope : Slope
    areas : Areas
        Up to the last quantified level.
    method : str
    factor : float
        From amounts per unit of volume to the unit of levels.
    """

    profile: Profile
    curve: Curve
    slope: Slope
    areas: Areas
    method: str
    factor: float

    @property
    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the last quantified level of each draw and its time; NaN where there is none."""
        curve = self.curve
        rows, some = np.arange(len(curve.level)), curve.quantified.any(axis=1)
        level = np.where(some, curve.level[rows, curve.last], np.nan)
        return level, np.where(some, curve.time[curve.last], np.nan)


def analyzed(
    profile: Profile,
    curve: Curve,
    method: str,
    factor: float,
    chosen: tuple[float, ...] | None = None,
) -> Analysis:
    """Return a profile taken apart.

    Parameters
    ----------
    profile : Profile
    curve : Curve
    method : str
    factor : float
        From amounts per unit of volume to the unit of levels.
    chosen : tuple of float, optional
        From when to when, or (three or more) the times, of the points of the terminal slope [time].
    """
    usable = curve.quantified.copy()
    if chosen is None:
        within = usable & ~(curve.time > profile.tau * (1 + NEAR)) if profile.steady else usable
        top = np.where(within, curve.level, -np.inf).argmax(axis=1)
        places = np.arange(len(curve.time))
        usable &= (places >= top[:, None]) if profile.jumps else (places > top[:, None])
        usable &= (
            curve.time >= profile.dose.duration
        )  # while drug runs in, levels do not fall freely
    elif len(chosen) == 2:
        usable &= (curve.time >= chosen[0]) & (curve.time <= chosen[1])
    else:
        usable &= np.isclose(curve.time[:, None], np.asarray(chosen)).any(axis=1)
    slope = terminal_slope(curve.time, curve.level, usable, chosen=chosen is not None)
    found = areas(curve.time, curve.level, curve.joined, method)
    return Analysis(profile, curve, slope, found, method, factor)


def measurable(curve: Curve) -> np.ndarray:
    """Return whether there is an area: something at the dose, and two quantified levels [draw]."""
    return curve.began & (curve.quantified.sum(axis=1) >= LEAST_LEVELS)


def parameters(a: Analysis) -> Values:
    """Return the parameters of a profile, each [draw]; NaN where one is not defined."""
    curve, slope = a.curve, a.slope
    level, time = a.last
    known = measurable(curve)
    auc, aumc = (np.where(known, x, np.nan) for x in a.areas.at(curve.last))
    predicted = np.exp(slope.intercept - slope.lambda_z * time)
    values: Values = {
        **highest(a),
        "Clast": level,
        "tlast": time,
        "AUC_last": auc,
        "AUC_all": np.where(known, _all(a, auc), np.nan),
        "AUMC_last": aumc,
        "lambda_z": slope.lambda_z,
        "half_life": np.log(2) / slope.lambda_z,
        "R2_adjusted": slope.r2_adjusted,
        "points": np.where(slope.points > 0, slope.points, np.nan),
        "span": (slope.last - slope.first) * slope.lambda_z / np.log(2),
        "slope_first": slope.first,
        "slope_last": slope.last,
        "slope_intercept": np.exp(slope.intercept),
        "Clast_predicted": predicted,
    }
    if a.profile.jumps:
        values["C0"] = np.where(curve.began, curve.C0, np.nan)
    if not a.profile.steady and not a.profile.carried:
        values |= _single(a, values)
    if np.isfinite(a.profile.tau):
        values |= _interval(a, values)
    return values


def highest(a: Analysis) -> Values:
    """Return the highest level and when it was; at steady state of one interval [draw]."""
    curve = a.curve
    counts = curve.quantified.copy()
    if a.profile.steady:
        counts &= ~(curve.time > a.profile.tau * (1 + NEAR))
    level = np.where(counts, curve.level, -np.inf)
    some, top = counts.any(axis=1), level.argmax(axis=1)
    return {
        "Cmax": np.where(some, level.max(axis=1), np.nan),
        "tmax": np.where(some, curve.time[top], np.nan),
    }


def _all(a: Analysis, auc: np.ndarray) -> np.ndarray:
    """Return the area to the last level that counts, those below the limit by their rule too."""
    curve, rows = a.curve, np.arange(len(auc))
    ends = areas(curve.time, curve.level, curve.joined | curve.trailing, a.method)
    return auc + np.where(
        curve.trailing.any(axis=1), ends.auc[:, -1] - ends.auc[rows, curve.last], 0.0
    )


def _single(a: Analysis, v: Values) -> Values:
    """Return what follows from one dose into nothing."""
    rate = a.slope.lambda_z
    total = v["AUC_last"] + v["Clast"] / rate
    predicted = v["AUC_last"] + v["Clast_predicted"] / rate
    moment = v["AUMC_last"] + v["tlast"] * v["Clast"] / rate + v["Clast"] / rate**2
    residence = moment / total - a.profile.dose.duration / 2
    clearance = a.profile.dose.amount * a.factor / total
    found = {
        "AUC_inf": total,
        "AUC_inf_predicted": predicted,
        "AUC_extrapolated": 100 * (total - v["AUC_last"]) / total,
        "AUMC_inf": moment,
        "MRT": residence,
        "CL": clearance,
        "Vz": clearance / rate,
    }
    if a.profile.jumps:
        rows = np.arange(len(total))
        found["AUC_back_extrapolated"] = np.where(
            a.curve.quantified[:, 0], 0.0, 100 * a.areas.auc[rows, a.curve.first] / total
        )
    if a.profile.intravenous:
        found["Vss"] = clearance * residence
    return found


def area_until(a: Analysis, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return AUC and AUMC from the dose to a time, and the share of AUC that is extrapolated [draw].

    Between two levels the curve is that of the trapezoid; after the last one it falls with the terminal
    slope.

    Parameters
    ----------
    a : Analysis
    end : float
        Since the dose [time].
    """
    curve, rows = a.curve, np.arange(len(a.curve.level))
    upto = curve.joined & (curve.time <= end * (1 + NEAR))
    here = upto.shape[1] - 1 - upto[:, ::-1].argmax(axis=1)
    beyond = curve.joined & (curve.time > end * (1 + NEAR))
    there = np.where(beyond.any(axis=1), beyond.argmax(axis=1), here)
    auc, aumc = a.areas.at(here)
    times, levels = (
        np.stack([x, y], axis=-1)
        for x, y in (
            (curve.time[here], curve.time[there]), (curve.level[rows, here], curve.level[rows, there])
        )
    )  # fmt: skip
    at_end = between(times, levels, end, a.method)
    times[:, 1], levels[:, 1] = end, at_end
    more, moment = trapezoids(times, levels, a.method)
    start, first, rate = times[:, 0], levels[:, 0], a.slope.lambda_z
    left = np.maximum(end - start, 0.0)
    gone = np.exp(-rate * left)
    tail = first * (1 - gone) / rate
    tail_moment = first * (start - end * gone) / rate + first * (1 - gone) / rate**2
    inner = beyond.any(axis=1) | (left <= NEAR * end)
    share = np.where(inner, 0.0, 100 * tail / (auc + tail))
    known = measurable(curve) & upto.any(axis=1)
    auc = auc + np.where(inner, np.where(left <= NEAR * end, 0.0, more), tail)
    aumc = aumc + np.where(inner, np.where(left <= NEAR * end, 0.0, moment), tail_moment)
    return tuple(np.where(known, x, np.nan) for x in (auc, aumc, share))  # type: ignore[return-value]


def _interval(a: Analysis, v: Values) -> Values:
    """Return what is said of one interval between doses."""
    tau, dose = a.profile.tau, a.profile.dose
    auc, aumc, share = area_until(a, tau)
    found = {"tau": np.full(len(auc), tau), "AUC_tau": auc, "AUC_tau_extrapolated": share}
    found |= {
        "Ctrough": trough(a),
        "accumulation_predicted": 1 / (1 - np.exp(-a.slope.lambda_z * tau)),
    }
    if not a.profile.steady:
        return found
    curve = a.curve
    within = curve.joined & (curve.time <= tau * (1 + NEAR))
    if a.profile.jumps:
        within[:, 0] &= curve.quantified[:, 0]
    lowest = np.where(within, curve.level, np.inf).min(axis=1)
    lowest = np.where(within.any(axis=1), lowest, np.nan)
    clearance = dose.amount * a.factor / auc
    level, time = a.last
    rest = level * np.exp(-a.slope.lambda_z * (tau - time)) / a.slope.lambda_z
    residence = (aumc + tau * rest) / auc - dose.duration / 2
    mean = auc / tau
    with np.errstate(divide="ignore"):
        swing = 100 * (v["Cmax"] - lowest) / np.where(lowest > 0, lowest, np.nan)
    found |= {
        "Cavg": mean,
        "Cmin": lowest,
        "fluctuation": 100 * (v["Cmax"] - lowest) / mean,
        "swing": swing,
        "CL": clearance,
        "Vz": clearance / a.slope.lambda_z,
        "MRT": residence,
    }
    if a.profile.intravenous:
        found["Vss"] = clearance * residence
    return found


def trough(a: Analysis) -> np.ndarray:
    """Return the level at the end of an interval, or the last one of its last twentieth [draw]."""
    curve, tau = a.curve, a.profile.tau
    near = (curve.time <= tau * (1 + NEAR)) & (curve.time >= tau * (1 - EARLY))
    ends = curve.quantified & near
    place = ends.shape[1] - 1 - ends[:, ::-1].argmax(axis=1)
    level = curve.level[np.arange(len(place)), place]
    return np.where(ends.any(axis=1), level, np.nan)
