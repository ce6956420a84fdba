"""What makes a noncompartmental parameter unreliable, or impossible? Flags as data, with their reasons.

References
----------
.. [1] European Medicines Agency (2010). Guideline on the investigation of bioequivalence.
   CPMP/EWP/QWP/1401/98 Rev. 1. AUC to the last level covers at least 80% of the whole, and no level
   before the dose exceeds 5% of Cmax.
.. [2] Denney W, Duvvuri S, Buckeridge C (2015). Simple, automatic noncompartmental analysis: the PKNCA R
   package. J Pharmacokinet Pharmacodyn 42(S1):S65. doi:10.1007/s10928-015-9432-2
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from popk.noncompartmental.parameters import Analysis
from popk.noncompartmental.slope import LEAST_POINTS

#: A level before the first dose beyond this part of Cmax is more than a trace [1]_.
TRACE = 0.05


class Limits(NamedTuple):
    """From where on a terminal slope, and what follows from it, is flagged.

    Attributes
    ----------
    min_r2 : float
        Of the adjusted R2.
    min_span : float
        Of the points of the slope [half-lives].
    max_extrapolated : float
        Of the part of an AUC that is not measured [%].
    """

    min_r2: float
    min_span: float
    max_extrapolated: float


class State(NamedTuple):
    """What flags are decided by: a profile taken apart, its parameters, and the limits."""

    a: Analysis
    values: Mapping[str, float]
    limits: Limits
    predose: float

    def above(self, name: str) -> bool:
        """Return whether a percentage is above what may be extrapolated."""
        return self.values.get(name, 0.0) > self.limits.max_extrapolated


class Flag(NamedTuple):
    """One flag.

    Attributes
    ----------
    name : str
    holds : Callable[[State], bool]
    says : str
        The reason; names in braces are values.
    """

    name: str
    holds: Callable[[State], bool]
    says: str


def _quantified(s: State) -> bool:
    return bool(s.a.curve.quantified.any())


def _no_slope(s: State) -> bool:
    return _quantified(s) and not s.a.slope.points[0]


def _first_is_highest(s: State) -> bool:
    later = s.a.curve.time[s.a.curve.quantified[0]]
    later = later[later > 0]
    oral = s.a.profile.dose.route == "extravascular" and not s.a.profile.steady
    return oral and later.size > 0 and bool(s.values["tmax"] == later[0])


FLAGS = (
    Flag(
        "no_levels", lambda s: not _quantified(s), "no level is above the limit of quantification"
    ),
    Flag(
        "one_level",
        lambda s: s.a.curve.quantified.sum() == 1,
        "only one level is above the limit of quantification: no AUC",
    ),
    Flag(
        "few_points",
        lambda s: _no_slope(s) and s.a.slope.candidates[0] < LEAST_POINTS,
        "only {candidates} of the 3 levels that a terminal slope needs: no lambda_z, nor what it leads to",
    ),
    Flag(
        "no_fall",
        lambda s: _no_slope(s) and s.a.slope.candidates[0] >= LEAST_POINTS,
        "the last levels do not fall: no lambda_z, nor what follows from it",
    ),
    Flag(
        "poor_fit",
        lambda s: s.values["R2_adjusted"] < s.limits.min_r2,
        "adjusted R2 of the terminal slope is {R2_adjusted:.3g}, below {min_r2:g}",
    ),
    Flag(
        "short_span",
        lambda s: s.values["span"] < s.limits.min_span,
        "the terminal slope spans {span:.3g} half-lives, fewer than {min_span:g}",
    ),
    Flag(
        "extrapolated",
        lambda s: s.above("AUC_extrapolated"),
        "{AUC_extrapolated:.3g}% of AUC_inf is extrapolated, more than {max_extrapolated:g}%",
    ),
    Flag(
        "back_extrapolated",
        lambda s: s.above("AUC_back_extrapolated"),
        "{AUC_back_extrapolated:.3g}% of AUC_inf is before the first level, more than {max_extrapolated:g}%",
    ),
    Flag(
        "tau_extrapolated",
        lambda s: s.above("AUC_tau_extrapolated"),
        "{AUC_tau_extrapolated:.3g}% of AUC_tau is extrapolated, more than {max_extrapolated:g}%",
    ),
    Flag(
        "predose",
        lambda s: (
            not s.a.profile.carried
            and not s.a.profile.steady
            and s.predose > TRACE * s.values["Cmax"]
        ),
        "the level before the first dose is {predose:.3g}% of Cmax, more than 5%",
    ),
    Flag(
        "carried",
        lambda s: s.a.profile.carried and not s.a.profile.steady,
        "earlier doses are still there, not at steady state: no AUC_inf, CL, Vz nor MRT",
    ),
    Flag(
        "no_start",
        lambda s: _quantified(s) and not s.a.curve.began[0],
        "no level at the dose, with earlier doses still there: no AUC",
    ),
    Flag(
        "first_is_highest",
        lambda s: _quantified(s) and _first_is_highest(s),
        "the first level is the highest, so that Cmax may have been missed",
    ),
)


def flagged(state: State) -> dict[str, str]:
    """Return the reason for each flag that holds, in the order of `FLAGS`."""
    words = {
        **state.values,
        **state.limits._asdict(),
        "candidates": int(state.a.slope.candidates[0]),
        "predose": 100 * state.predose / state.values["Cmax"],
    }
    return {flag.name: flag.says.format(**words) for flag in FLAGS if flag.holds(state)}
