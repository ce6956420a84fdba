"""Which levels of a profile are joined, and what stands at its dose? Levels below the limit by rule.

References
----------
.. [1] Beal SL (2001). Ways to fit a PK model with some data below the quantification limit.
   J Pharmacokinet Pharmacodyn 28:481-504. doi:10.1023/A:1012299115260
.. [2] Gabrielsson J, Weiner D (2012). Non-compartmental analysis. Methods Mol Biol 929:377-389.
   doi:10.1007/978-1-62703-050-2_16
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from popk.noncompartmental.profiles import EARLY, Profile

#: What a level below the limit of quantification counts as, by where it stands in the profile.
BLQ = {"before": "zero", "middle": "drop", "after": "drop"}
#: An interval ends at its tau within this part of it.
NEAR = 1e-6


class Curve(NamedTuple):
    """Several profiles at the same times, as they are joined.

    Attributes
    ----------
    time : Float[ndarray, "point"]
        Since the dose [time]; the first is 0, whether or not there is a level.
    level : Float[ndarray, "draw point"]
        Levels, those below the limit as the rule has them [concentration].
    quantified : Bool[ndarray, "draw point"]
        Which are levels of their own, above the limit, after the dose or at it.
    joined : Bool[ndarray, "draw point"]
        Which are joined by trapezoids, up to the last quantified one.
    trailing : Bool[ndarray, "draw point"]
        Which come after the last quantified one and count by the rule.
    began : Bool[ndarray, "draw"]
        Whether something stands at the dose.
    C0 : Float[ndarray, "draw"]
        What stands there [concentration].
    first : Int[ndarray, "draw"]
        The place of the first quantified level.
    last : Int[ndarray, "draw"]
        The place of the last quantified level; 0 where none is.
    """

    time: np.ndarray
    level: np.ndarray
    quantified: np.ndarray
    joined: np.ndarray
    trailing: np.ndarray
    began: np.ndarray
    C0: np.ndarray
    first: np.ndarray
    last: np.ndarray


def rules_of(given: Mapping[str, str | float] | None) -> dict[str, str | float]:
    """Return the rule for levels below the limit, complete.

    Raises
    ------
    ValueError
        A place or a rule is unknown.
    """
    rules = {**BLQ, **(given or {})}
    if set(rules) != set(BLQ):
        strange = ", ".join(sorted(set(rules) - set(BLQ)))
        raise ValueError(
            f"blq names {strange}; it says what levels 'before', in the 'middle' and 'after' count as"
        )
    for place, rule in rules.items():
        number = not isinstance(rule, str) and not isinstance(rule, bool) and 0 <= rule < np.inf
        if rule not in ("zero", "drop", "half") and not number:
            raise ValueError(
                f"blq has {rule!r} for {place!r}; use 'zero', 'drop', 'half' (of the limit) or a level"
            )
    return rules


def curve_of(
    profile: Profile,
    level: np.ndarray,
    limit: np.ndarray,
    blq: Mapping[str, str | float],
) -> Curve:
    """Return levels as they are joined.

    Parameters
    ----------
    profile : Profile
    level : Float[ndarray, "draw point"]
        Levels at the profile's points; NaN where one is only known to be below the limit
        [concentration].
    limit : Float[ndarray, "point"]
        The limit of quantification of each; 0 where there is none.
    blq : mapping
        As `rules_of` returns it.
    """
    if not len(profile.time):  # a dose without a level: as one before it that was not quantified
        profile = profile._replace(time=np.zeros(1), before=np.ones(1, dtype=bool))
        level, limit = np.full((len(level), 1), np.nan), np.zeros(1)
    after = ~profile.before if profile.jumps else np.ones_like(profile.before)
    known = np.nan_to_num(level, nan=-1.0)
    counts = after & (known > 0) & (known >= limit)
    place = np.arange(len(profile.time))
    some = counts.any(axis=1)
    first = np.where(some, counts.argmax(axis=1), len(place))[:, None]
    last = np.where(some, len(place) - 1 - counts[:, ::-1].argmax(axis=1), -1)[:, None]
    value, kept = known * counts, counts.copy()
    for where, here in (
        ("before", place < first),
        ("middle", (place > first) & (place < last)),
        ("after", (place > last) & some[:, None]),
    ):
        rule, these = blq[where], here & ~counts & after
        if rule == "drop":
            continue
        instead = limit / 2 if rule == "half" else 0.0 if rule == "zero" else float(rule)
        value, kept = np.where(these, instead, value), kept | these
    value, kept, counts, time, shift = _with_start(profile, value, kept, counts)
    first, last = (np.where(some, x[:, 0] + shift, 0) for x in (first, last))
    began, start = _start(profile, time, value, kept, counts)
    value[:, 0] = np.where(began, start, 0.0)
    upto = np.arange(len(time)) <= last[:, None]
    kept[:, 0] = began
    if profile.before.any() and not profile.carried and not profile.steady:
        counts[:, 0] = False  # what was there before the first dose is none of its levels
    return Curve(time, value, counts, kept & upto, kept & ~upto, began, start, first, last)


def _with_start(
    profile: Profile, value: np.ndarray, kept: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the points with one at the dose in the first place, added where there is none."""
    time = profile.time
    if len(time) and time[0] == 0:
        return value, kept, counts, time, 0
    blank = np.zeros((len(value), 1))
    value, kept, counts = (
        np.concatenate([blank.astype(x.dtype), x], axis=1) for x in (value, kept, counts)
    )
    return value, kept, counts, np.concatenate([[0.0], time]), 1


def _start(
    profile: Profile, time: np.ndarray, value: np.ndarray, kept: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether there is a level at the dose, and what it is [draw].

    Measured, if it was; of a bolus back-extrapolated; 0 of a dose into nothing; at steady state the level
    at the end of the interval, or else the lowest of it; and nothing where earlier doses are still there.
    """
    measured, level = kept[:, 0], value[:, 0]
    if profile.jumps:
        back = back_extrapolated(time, value, counts)
        return (measured & (level > 0)) | np.isfinite(back), np.where(
            counts[:, 0], level, np.where(np.isfinite(back), back, 0.0)
        )
    if not profile.carried and not profile.steady:
        return np.ones_like(measured), np.where(measured, level, 0.0)
    if profile.steady and len(time) > 1:
        within = counts & (time <= profile.tau * (1 + NEAR))
        ends = within & (time >= profile.tau * (1 - EARLY))
        lowest = np.where(within, value, np.inf).min(axis=1)
        end = value[np.arange(len(value)), len(time) - 1 - ends[:, ::-1].argmax(axis=1)]
        trough = np.where(ends.any(axis=1), end, lowest)
        known = measured | np.isfinite(trough)
        return known, np.where(measured, level, np.where(np.isfinite(trough), trough, 0.0))
    return measured, np.where(measured, level, np.nan)


def back_extrapolated(time: np.ndarray, level: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the level at time 0 on the line through the logarithms of the first two levels [2]_ [draw].

    Where the second is not lower, the first level is taken; NaN where none was quantified.
    """
    rows = np.arange(len(level))
    one = counts.argmax(axis=1)
    later = counts & (np.arange(len(time)) > one[:, None])
    two = later.argmax(axis=1)
    c1 = np.where(counts.any(axis=1), level[rows, one], np.nan)
    c2 = np.where(later.any(axis=1), level[rows, two], np.nan)
    falls = later.any(axis=1) & (c2 < c1)
    length = np.where(falls, time[two] - time[one], 1.0)
    k = np.log(np.where(falls, c1 / c2, 1.0)) / length
    return c1 * np.exp(k * time[one])
