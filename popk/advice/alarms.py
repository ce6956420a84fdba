"""How often is an alarm false, or missed? Of simulated patients with the same doses and samples."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from popk.advice.certainty import wilson
from popk.advice.rules import Rule
from popk.advice.watching import crossings, present
from popk.model.sites import ModelError
from popk.patients.cohort import twins
from popk.patients.courses import Course
from popk.patients.doubts import TwinWarning
from popk.patients.exposure import asked
from popk.patients.regimen import Regimen, replaced
from popk.patients.twin import Twin
from popk.simulation import predict
from popk.trial import Trial

_DRAWS = 500  # of each simulated patient's twin
_LEAST = 10  # patients


def false_alarm_rate(
    twin: Twin,
    rules: Rule | Sequence[Rule],
    horizon: float,
    *,
    now: float | None = None,
    regimen: Regimen | Sequence[Regimen] | None = None,
    patients: int = 200,
    seed: int = 5,
) -> pd.DataFrame:
    """Return how often alarms are false or missed, in patients simulated from the population.

    Each has the twin's doses, times of levels and covariates, random effects and population values of
    a draw of the posterior, and levels with residual error; whether their own concentration crosses
    the limit is known. Their twins are inferred from their levels alone.

    Parameters
    ----------
    twin : Twin
        Of the patient whose records are the design; their levels do not count.
    rules : Rule, or sequence of Rule
    horizon : float
        [unit of TIME]
    now : float, optional
        As of `popk.watch`; levels after it are not used.
    regimen : Regimen, or sequence of Regimen, optional
        The doses to come.
    patients : int
        How many are simulated.
    seed : int

    Returns
    -------
    DataFrame
        A row for each rule: ``false_alarm``, the share alarmed of those who do not cross the limit
        within the horizon; ``missed``, the share not alarmed of those who do; ``false_among_alarms``,
        the share of alarms that were false; each with Wilson's 95% interval, ``_low`` and ``_high``,
        NaN where there are no such patients; and how many ``cross``, of ``patients``.

    Raises
    ------
    ValueError
        The horizon is not positive, or there are too few patients.
    ModelError
        The model has a mixture, events or autocorrelated errors, or several kinds of levels.
    """
    several = [rules] if isinstance(rules, Rule) else list(rules)
    if not (horizon > 0 and np.isfinite(horizon)) or patients < _LEAST or not several:
        raise ValueError(
            f"horizon is {horizon} and patients {patients}; the first must be positive, the second at "
            f"least {_LEAST}, and there must be a rule"
        )
    if "IPRED" not in twin._sites.all or any(rule.output for rule in several):
        raise ModelError("false_alarm_rate knows models with one kind of levels only")
    begin = present(twin.patient) if now is None else float(now)
    plan = twin.patient if regimen is None else replaced(twin.patient, regimen)
    truly, people = _simulated(twin, plan, several, (begin, begin + horizon), patients, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TwinWarning)
        many = twins(
            twin.model, twin.posterior, people, seed=seed,
            population_draws=twin.population_draws, draws=_DRAWS,
        )  # fmt: skip
        alarmed = np.array(
            [
                [np.isfinite(c.times).mean() >= c.rule.probability
                 for c in crossings(many[i], people[i], several, begin, horizon)]
                for i in people.ids
            ]
        )  # fmt: skip
    rows = [_rates(truly[:, k], alarmed[:, k]) for k in range(len(several))]
    return pd.DataFrame(rows, index=pd.Index([rule.name for rule in several], name="rule"))


def _simulated(
    twin: Twin,
    plan: Trial,
    rules: Sequence[Rule],
    window: tuple[float, float],
    count: int,
    seed: int,
) -> tuple[np.ndarray, Trial]:
    """Return whether each simulated patient crosses each limit [patient, rule], and their records."""
    grid, whole, points = asked(plan, window)
    known = twin.posterior["posterior"].sizes
    found = predict(
        twin.model, twin.posterior, whole, seed=seed, new_subjects=True,
        draws=min(count, known["chain"] * known["draw"]),
    )["posterior_predictive"]  # fmt: skip
    ipred, level = np.asarray(found["IPRED"]), np.asarray(found["DV"])
    frame = whole.host.frame
    place = frame["EVID"].eq(0).cumsum().to_numpy() - 1
    course = Course(grid.time, grid.weight, ipred[:, place[points]])
    truly = np.stack([np.isfinite(rule.crossed(course)) for rule in rules], axis=1)
    kept = np.ones(len(frame), dtype=bool)
    kept[points] = False
    own = frame[kept].reset_index(drop=True)
    seen = (own["EVID"].eq(0) & own["MDV"].eq(0)).to_numpy()
    later = seen & own["TIME"].gt(window[0]).to_numpy()
    own.loc[later, ["DV", "MDV", "BLQ", "ALQ"]] = [np.nan, 1, 0, 0]
    seen = seen & ~later
    parts = [
        _person(own, seen, level[i, place[np.flatnonzero(kept)[seen]]], str(i + 1))
        for i in range(len(level))
    ]
    table = pd.concat(parts, ignore_index=True).astype(
        {n: t for n, t in plan.host.frame.dtypes.items() if n != "ROW"}
    )
    source = plan.host._replace(frame=table)
    return truly, dataclasses.replace(plan, source=source).replaced(table)


def _person(own: pd.DataFrame, seen: np.ndarray, levels: np.ndarray, id: str) -> pd.DataFrame:
    """Return the records of one simulated patient; a level below a limit is known as that."""
    frame = own.assign(ID=id)
    below = levels < np.nan_to_num(frame.loc[seen, "LLOQ"].to_numpy(), nan=-np.inf)
    frame.loc[seen, "DV"] = np.where(below, np.nan, levels)
    frame.loc[seen, "BLQ"] = below.astype(int)
    frame.loc[seen, "ALQ"] = 0
    return frame


def _rates(truly: np.ndarray, alarmed: np.ndarray) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, among, wrong in (
        ("false_alarm", ~truly, alarmed),
        ("missed", truly, ~alarmed),
        ("false_among_alarms", alarmed, ~truly),
    ):
        size = int(among.sum())
        share = float(wrong[among].mean()) if size else np.nan
        low, high = wilson(share, size) if size else (np.nan, np.nan)
        row |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return row | {"cross": int(truly.sum()), "patients": len(truly)}
