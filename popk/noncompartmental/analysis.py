"""What do the levels of a trial say without a model? `nca`, and its table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk.noncompartmental.areas import METHODS
from popk.noncompartmental.curves import curve_of, rules_of
from popk.noncompartmental.datasets import CHOSEN_FLAG, URINE_FLAG, Row, dataset_of, window
from popk.noncompartmental.flags import Limits, State, flagged
from popk.noncompartmental.parameters import Analysis, analyzed, area_until, parameters
from popk.noncompartmental.profiles import Profile, Routes, profiles_of
from popk.noncompartmental.urine import Collections, collections_of, excreted, interrupted
from popk.records.table import DataError, Problem
from popk.trial import Trial


def nca(
    trial: Trial,
    *,
    route: Routes = None,
    method: str = "lin-up/log-down",
    blq: Mapping[str, str | float] | None = None,
    slopes: Mapping[Any, Sequence[float]] | None = None,
    partial: Sequence[tuple[float, float]] = (),
    steady_state: bool = False,
    urine: pd.DataFrame | None = None,
    urine_units: Mapping[str, str] | None = None,
    DVID: int | None = None,
    CMT: int | None = None,
    min_r2: float = 0.8,
    min_span: float = 2.0,
    max_extrapolated: float = 20.0,
) -> xr.Dataset:
    r"""Return the noncompartmental parameters of each subject, and of each dosing interval with levels.

    The terminal slope is the regression of log levels on time that has the highest adjusted R2 among
    those on the last three or more points after tmax (after a bolus Cmax may be one of them, of an
    infusion none is before its end); among those within 1e-4 of it the one with the most points [1]_
    [2]_. After a single dose, or the first one, areas go to infinity; at steady state they are those of
    an interval tau; while earlier doses are still there and it is not at steady state, no AUC_inf,
    clearance, volume nor MRT exists.

    At the dose stands the level that was measured there or, before a first dose, last. Without one it is
    back-extrapolated from the first two levels after a bolus, 0 before a first dose, at steady state the
    level at the end of the interval or its lowest; else areas are not given.

    Parameters
    ----------
    trial : Trial
        Its DV are concentrations.
    route : "bolus", "extravascular" or mapping of int to these
        What doses with RATE 0 are, by compartment (CMT) if they differ; doses with a RATE are infusions.
    method : "lin-up/log-down", "linear" or "log"
        The trapezoidal rule: the logarithmic one nowhere, where levels fall, or also where they rise.
    blq : mapping, optional
        What a level below the limit of quantification (or of 0) counts as ``"before"`` the first
        quantified one of a profile (by default ``"zero"``), in the ``"middle"`` (``"drop"``) and
        ``"after"`` the last (``"drop"``): "zero", "half" of the limit, "drop", or a level. None of them
        enters the terminal slope or AUC_last; those after the last enter AUC_all.
    slopes : mapping, optional
        For an ID, or an ID and the number of the dose, which points make the terminal slope: a first and
        last time since the dose, or three or more times [time].
    partial : sequence of (float, float)
        From when to when since the dose further areas are wanted, ``AUC_0_12`` for (0, 12) [time].
    steady_state : bool
        Whether the last dose of each subject is at steady state; doses with SS are in any case.
    urine : DataFrame, optional
        Collections, with columns ID, START, END (as TIME), and AMOUNT or VOLUME and CONC.
    urine_units : mapping, optional
        The units of these three; by default those of ``urine.attrs["units"]``.
    DVID, CMT : int, optional
        Which levels, where the trial has several kinds.
    min_r2, min_span, max_extrapolated : float
        An adjusted R2 or a span [half-lives] below, or an extrapolated part [%] above it is flagged
        [3]_ [4]_.

    Returns
    -------
    Dataset
        Parameters (subject), or (subject, interval) where a subject has several intervals with levels,
        NaN where one is not defined; units and names in ``attrs``. ``dose_number``, ``dose_time``,
        ``dose`` and ``route``; ``flags`` (subject, flag) and ``reason``, a text. The levels themselves
        are on the axis ``point``: TIME since the dose, DV, and whether each is of the terminal slope.

    Raises
    ------
    DataError
        A subject has no dose or one that cannot be used, a level is negative, above an upper limit, or
        stands twice at one time; DV is no concentration; there are several kinds of levels; or urine
        cannot be used. All problems are listed together.
    ValueError
        An option cannot be used.

    References
    ----------
    .. [1] Gabrielsson J, Weiner D (2012). Non-compartmental analysis. Methods Mol Biol 929:377-389.
       doi:10.1007/978-1-62703-050-2_16
    .. [2] Kim H, Han S, Cho YS, Yoon SK, Bae KS (2018). Development of R packages: 'NonCompart' and
       'ncar' for noncompartmental analysis (NCA). Transl Clin Pharmacol 26:10-15.
       doi:10.12793/tcp.2018.26.1.10
    .. [3] European Medicines Agency (2010). Guideline on the investigation of bioequivalence.
       CPMP/EWP/QWP/1401/98 Rev. 1.
    .. [4] Denney W, Duvvuri S, Buckeridge C (2015). Simple, automatic noncompartmental analysis: the
       PKNCA R package. J Pharmacokinet Pharmacodyn 42(S1):S65. doi:10.1007/s10928-015-9432-2

    Examples
    --------
    >>> import popk
    >>> found = popk.nca(popk.read_nonmem("data/theophylline.csv"), route="extravascular")
    >>> found["half_life"].sel(subject="1").item().__round__(3)
    14.304
    """
    rules, limits = rules_of(blq), Limits(min_r2, min_span, max_extrapolated)
    refuse_options(method, limits, partial)
    counted, level, limit = levels_of(trial, DVID, CMT)
    followed = profiles_of(trial, counted, route, steady_state)
    chosen = _chosen(slopes, followed)
    collected = {} if urine is None else collections_of(urine, urine_units, trial)
    factor = float(trial.concentration_factor)
    rows = []
    for one, profiles in followed.items():
        for profile in profiles:
            at = profile.observation
            curve = curve_of(profile, level[None, at], limit[at], rules)
            points = chosen.get((one, profile.number), chosen.get(one))
            a = analyzed(profile, curve, method, factor, points)
            rows.append(_row(a, limits, partial, collected.get(one), points is not None))
    _accumulate(rows)
    data = dataset_of(trial, rows, partial, (level, limit))
    data.attrs = {
        "method": method,
        "blq": ", ".join(f"{place}: {rule}" for place, rule in rules.items()),
        **limits._asdict(),
        "trial": trial.host.name,
    }
    return data


def refuse_options(method: str, limits: Limits, partial: Sequence[Sequence[float]]) -> None:
    """Refuse options that cannot be used."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    if not (limits.min_r2 <= 1 and limits.min_span >= 0 and 0 <= limits.max_extrapolated <= 100):
        raise ValueError(
            f"min_r2 is {limits.min_r2:g}, min_span {limits.min_span:g}, max_extrapolated "
            f"{limits.max_extrapolated:g}; give at most 1, at least 0, and a percentage"
        )
    for ends in partial:
        if len(ends) != 2 or not 0 <= ends[0] < ends[1] < np.inf:
            raise ValueError(
                f"partial has {tuple(ends)}; give a start of 0 or later and a later end"
            )


def levels_of(
    trial: Trial, DVID: int | None, CMT: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which observations count, their levels (NaN below the limit) and their limits (else 0).

    Raises
    ------
    DataError
        DV is no concentration, there are several kinds of levels or none, or one cannot be used.
    """
    o, where = trial.observations, trial.host.name
    if not trial.design.concentrations:
        says = f"DV is in {trial.units['DV']} and AMT in {trial.units['AMT']}; an analysis needs levels in "
        raise DataError(where, [Problem("DV", f"{says}amounts per volume, such as mg/L")])
    kind, compartment = np.asarray(o.kind), np.asarray(o.compartment)
    own = np.ones(len(kind), dtype=bool) if DVID is None else kind == DVID
    own &= True if CMT is None else compartment == CMT
    counted = np.asarray(o.measured) & own
    kinds = sorted(set(zip(compartment[counted].tolist(), kind[counted].tolist(), strict=True)))
    if len(kinds) != 1:
        have = ", ".join(f"CMT {c} DVID {k}" for c, k in kinds) or "none of these"
        says = f"levels are of {len(kinds)} kinds ({have}); say DVID= or CMT= for one that is there"
        raise DataError(where, [Problem("DV", says)])
    rows: Any = trial.host.frame[trial.host.frame["EVID"].eq(0)]
    found = []
    for bad, says in (
        (
            counted & np.asarray(o.above),
            "it is only known to be above {ULOQ:g}; set MDV 1 to leave it out",
        ),
        (
            counted & np.asarray(o.exact) & (np.asarray(o.value) < 0),
            "DV is {DV:g}; no level is negative",
        ),
    ):
        for row in rows[bad].to_dict("records"):
            text = says.format(**row)
            found.append(Problem("DV", text, row["ROW"], row["ID"], f"{row['TIME']:.10g}"))
    if found:
        raise DataError(where, found)
    level = np.where(o.below, np.nan, o.value)
    return counted, level, np.where(o.below, o.limit, 0.0)


def _chosen(
    slopes: Mapping[Any, Sequence[float]] | None, followed: Mapping[str, list[Profile]]
) -> dict[Any, tuple[float, ...]]:
    """Return the points of terminal slopes, by ID or by ID and dose."""
    found = {}
    for key, times in (slopes or {}).items():
        one, number = (str(key[0]), key[1]) if isinstance(key, tuple) else (str(key), None)
        if one not in followed or (number and number not in [p.number for p in followed[one]]):
            raise ValueError(
                f"slopes names {key!r}; there is no such subject or no levels after that dose"
            )
        given = tuple(float(t) for t in times)
        if len(given) < 2 or not np.isfinite(given).all() or (np.diff(given) <= 0).any():
            raise ValueError(
                f"slopes has {given} for {key!r}; give a first and last time, or three times or more, rising"
            )
        found[one if number is None else (one, number)] = given
    return found


def _row(
    a: Analysis,
    limits: Limits,
    partial: Sequence[tuple[float, float]],
    urine: Collections | None,
    chosen: bool,
) -> Row:
    """Return one profile's parameters, all numbers, and reasons."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {**parameters(a), **excreted(a, urine)}
        for start, end in partial:
            found[window(start, end)] = area_until(a, end)[0] - area_until(a, start)[0]
    values = {name: float(x[0]) for name, x in found.items()}
    curve, profile = a.curve, a.profile
    predose = float(curve.level[0, 0]) if profile.before.any() and not profile.jumps else 0.0
    reasons = flagged(State(a, values, limits, predose))
    if chosen:
        reasons[CHOSEN_FLAG] = "the points of the terminal slope were chosen"
    if interrupted(profile, urine):
        reasons[URINE_FLAG] = "urine is missing between collections: Ae, fe and CLr are too low"
    return Row(a, values, reasons)


def _accumulate(rows: list[Row]) -> None:
    """Set AUC_tau of each later dose against that of the first, for the same dose and interval."""
    first: dict[str, Row] = {}
    for row in rows:
        profile = row.a.profile
        if not profile.carried and not profile.steady:
            first[profile.id] = row
            continue
        start = first.get(profile.id)
        if start is None or not np.isclose(start.values.get("tau", np.nan), profile.tau):
            continue
        doses = start.a.profile.dose.amount / profile.dose.amount
        row.values["accumulation"] = row.values["AUC_tau"] / start.values["AUC_tau"] * doses
