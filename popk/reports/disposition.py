"""What became of the data? Every record of the file, in the likelihood or why not; covariates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from popk.model.outcomes import Outcomes
from popk.plots.picture import number, with_unit
from popk.reports.blocks import Block, Drawing, Facts, Finding, Heading, Table, Words
from popk.reports.fitted import Fitted
from popk.reports.flow import Step, flow
from popk.trial import Trial

#: Above this part of levels below the limit of quantification the report warns of it [%].
MUCH_BELOW = 10.0


def disposition(trial: Trial) -> pd.DataFrame:
    """Return what became of each record of a trial's table.

    Parameters
    ----------
    trial : Trial

    Returns
    -------
    DataFrame
        Indexed by step: ``records`` and ``subjects`` who have any such record. "in the table" is the
        sum of doses, of other events, of observations without a level and of levels; these are the sum
        of quantified ones and of those beyond either limit.
    """
    f: Any = trial.host.frame
    observed = f["EVID"].eq(0) & f["MDV"].eq(0)
    beyond = f["BLQ"].eq(1) | f["ALQ"].eq(1)
    steps = {
        "in the table": f["EVID"].notna(),
        "doses": f["EVID"].isin([1, 4]),
        "other events": f["EVID"].isin([2, 3]),
        "observations without a level": f["EVID"].eq(0) & ~f["MDV"].eq(0),
        "levels": observed,
        "quantified": observed & ~beyond,
        "below the limit": observed & f["BLQ"].eq(1),
        "above the limit": observed & f["ALQ"].eq(1),
    }
    rows = {
        n: {"records": int(x.sum()), "subjects": f["ID"][x].nunique()} for n, x in steps.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")


def data(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on the data."""
    trial = fitted.trial
    table: Any = disposition(trial)
    silent = trial.n_subjects - int(table["subjects"]["levels"])
    blocks: list[Block | Finding] = [
        Drawing("flow", flow(_steps(table, trial)), "Flow of records from the table to the likelihood",
                "Every record of the table, and what it is to the fit. "
                "Levels beyond a limit of quantification stay in the likelihood, as the probability of "
                "being there."),
        Words(_excluded(table, silent)),
        _dispositions(table),
        Heading(f"Counts of {trial.host.name}"),
        Facts(counts(trial, fitted.sites.endpoints)),
        Heading("Covariates at the first record"),
        *_covariates(trial),
        Finding("Data", f"{trial.n_subjects:,} subjects, {table['records']['levels']:,} levels"),
    ]  # fmt: skip
    return [*blocks, *_findings(fitted, table, silent)]


def _steps(table: Any, trial: Trial) -> list[Step]:
    n, who = table["records"], table["subjects"]
    asides = [
        f"{n['doses']:,} dose records",
        f"{n['other events']:,} covariate or reset records (EVID 2, 3)",
        f"{n['observations without a level']:,} observations without a level (MDV 1)",
    ]
    beyond = [f"{n['below the limit']:,} below the limit of quantification"]
    beyond += [f"{n['above the limit']:,} above the upper limit"] if n["above the limit"] else []
    file = trial.host.name if len(trial.host.name) < 44 else f"…{trial.host.name[-43:]}"
    return [
        Step(f"{file}\n{n['in the table']:,} records of {who['in the table']:,} subjects", asides),
        Step(f"{n['levels']:,} levels of {who['levels']:,} subjects", beyond),
        Step(f"{n['quantified']:,} quantified levels of {who['quantified']:,} subjects"),
    ]


def _excluded(table: Any, silent: int) -> str:
    without = int(table["records"]["observations without a level"])
    said = (f"{without:,} observations are marked as having no level (MDV 1) by whoever made the table, "
            f"which gives no reason: they are predicted and teach the fit nothing."
            if without else "No observation is marked as excluded (MDV 1).")  # fmt: skip
    who = f" {silent:,} subjects have no level at all and teach the fit nothing." if silent else ""
    return ("popk leaves out no record of its own accord: a table with a problem is refused as a whole. "
            f"What was left out before the table was made, it cannot know. {said}{who}")  # fmt: skip


def _dispositions(table: Any) -> Table:
    why = {
        "in the table": "all rows", "doses": "EVID 1, 4", "other events": "EVID 2, 3",
        "observations without a level": "EVID 0, MDV 1: predicted, not in the likelihood",
        "levels": "EVID 0, MDV 0: in the likelihood", "quantified": "by their density",
        "below the limit": "by the probability of being below", "above the limit": "and above",
    }  # fmt: skip
    rows = [[n, f"{r:,}", f"{s:,}", why[n]] for n, r, s in table.itertuples()]
    return Table("disposition", ["Records", "Number", "Subjects", "What they are"], {"": rows}, table,
                 wordy=(0, 3), code=False)  # fmt: skip


def _findings(fitted: Fitted, table: Any, silent: int) -> list[Finding]:
    found, n = [], table["records"]
    share = 100 * n["below the limit"] / max(n["levels"], 1)
    if n["below the limit"]:
        limit = (f"{share:.0f}% of levels are below the limit of quantification; what the model says "
                 f"there rests on its residual error.")  # fmt: skip
        found.append(Finding("Levels below the limit", f"{share:.1f}%", f"at most {MUCH_BELOW:g}%",
                             bool(share <= MUCH_BELOW), limit if share > MUCH_BELOW else ""))  # fmt: skip
    if silent:
        found.append(Finding("Subjects without a level", f"{silent:,}", "0", False,
                             f"{silent} subjects have no level."))  # fmt: skip
    frame = fitted.trial.host.frame
    for name in fitted.trial.host.covariates:
        first = frame.groupby("ID", sort=False)[name].first()
        without = int(frame.groupby("ID", sort=False)[name].count().eq(0).sum())
        if without:
            says = (f"{name} is missing in {without} of {len(first)} subjects; what the model does "
                    f"about it is in its source.")  # fmt: skip
            found.append(Finding(f"Missing {name}", f"{without} subjects", "0", False, says))
    if ranges := _ranges(fitted.trial):
        says = f"The fit knows subjects with {ranges} only: beyond, it is extrapolation."
        found.append(Finding("Covariates fitted", ranges, limit=says))
    return found


def _ranges(trial: Trial) -> str:
    """Return the range of each continuous covariate, in words."""
    found = []
    for name in trial.host.covariates:
        values = trial.host.frame[name].dropna().to_numpy()
        if values.size and name not in trial.host.levels and np.unique(values).size > 5:
            low, _, high = _range(values)
            found.append(f"{name} {low} to {high} {_unit(trial.units[name])}".strip())
    return ", ".join(found)


def counts(trial: Trial, endpoints: Mapping[str, Outcomes] | None = None) -> list[tuple[str, str]]:
    """Return the trial in counts and ranges.

    Parameters
    ----------
    trial : Trial
    endpoints : mapping of site to Outcomes, optional
        The sites of what is no level.
    """
    units, column = trial.units, {n: c.to_numpy() for n, c in trial.host.frame.items()}
    found = [(str(k).capitalize(), _count(v)) for k, v in trial.summary().items()]
    dosed = np.isin(column["EVID"], [1, 4])
    if dosed.any():
        found.append(("Amount of a dose", _spread(column["AMT"][dosed], units["AMT"])))
        infused = int((column["RATE"][dosed] > 0).sum())
        found.append(("Infusions", f"{infused:,} of {int(dosed.sum()):,} dose records"))
    seen = (column["EVID"] == 0) & (column["MDV"] == 0)
    seen &= (column["BLQ"] == 0) & (column["ALQ"] == 0)
    outcome = np.zeros_like(seen)
    for name, endpoint in (endpoints or {}).items():
        own = seen & np.isin(column["DVID"], [k for _, k in endpoint.kinds])
        own &= np.isin(np.abs(column["CMT"]), [c for c, _ in endpoint.kinds])
        outcome |= own
        found.append((f"{endpoint.name.capitalize()} ({name})", _outcomes(column["DV"][own])))
    if (seen & ~outcome).any() or not outcome.any():
        found.append(("Level (DV)", _spread(column["DV"][seen & ~outcome], units["DV"])))
    return found


def _covariates(trial: Trial) -> list[Block]:
    """Return the table of covariates at each subject's first record."""
    column = {n: c.to_numpy() for n, c in trial.host.frame.items()}
    begins = ~trial.host.frame["ID"].duplicated().to_numpy()
    rows, plain = [], []
    for name in trial.host.covariates:
        values = column[name][begins]
        known = ~np.isnan(values)
        middle, others = described(values[known], trial.host.levels.get(name, {}))
        varies = "yes" if trial.covariate(name, missing=0).shape[1] > 1 else "no"
        rows.append([name, _unit(trial.units[name]), middle, others, f"{(~known).sum():,}", varies])
        quantiles = np.quantile(values[known], [0, 0.5, 1]) if known.any() else [np.nan] * 3
        plain.append({"covariate": name, "unit": trial.units[name], "minimum": quantiles[0],
                      "median": quantiles[1], "maximum": quantiles[2], "missing": int((~known).sum()),
                      "time-varying": varies})  # fmt: skip
    if not rows:
        return [Words("None.")]
    columns = ["Covariate", "Unit", "Median", "Range or counts", "Missing", "Time-varying"]
    frame = pd.DataFrame(plain).set_index("covariate")
    return [Table("covariates", columns, {"": rows}, frame, wordy=(0, 1, 3, 5))]


def _outcomes(values: np.ndarray) -> str:
    """Return how often there was each outcome; of many, their range."""
    known, times = np.unique(values, return_counts=True)
    if known.size > 10:
        return _spread(values, "")
    return ", ".join(f"{v:g}: {n:,}" for v, n in zip(known, times, strict=True)) or "none"


def _count(value: Any) -> str:
    """Return a count as one writes it: 1,490, and "11" where it goes from 11 to 11."""
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    low, _, high = str(value).partition(" to ")
    return low if low == high else str(value)


def _unit(unit: str) -> str:
    """Return a unit as figures write it, nothing for a pure number."""
    return with_unit("", unit).strip(" ()")


def _range(values: np.ndarray) -> list[str]:
    """Return the lowest, middle and highest value, as short as they can be written."""
    texts = [number(float(v)) for v in np.quantile(values, [0, 0.5, 1])]
    return [t.rstrip("0").rstrip(".") if "." in t and "×" not in t else t for t in texts]


def _spread(values: np.ndarray, unit: str) -> str:
    if values.size == 0:
        return "none"
    low, middle, high = _range(values)
    return (
        f"{low} {_unit(unit)}"
        if low == high
        else f"median {middle} {_unit(unit)} ({low} to {high})"
    )


def described(values: np.ndarray, levels: Mapping[str, str]) -> tuple[str, str]:
    """Return a covariate's median and range, or the count of each category."""
    if not values.size:
        return "", "none known"
    if not levels:
        low, middle, high = _range(values)
        return middle, f"{low} to {high}"
    codes, many = np.unique(values, return_counts=True)
    named = [levels.get(f"{code:g}", f"{code:g}") for code in codes]
    return "", ", ".join(f"{name} {count}" for name, count in zip(named, many, strict=True))
