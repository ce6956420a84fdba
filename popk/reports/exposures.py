"""Who is exposed to how much? Exposure of the subjects by group, and beside noncompartmental values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk import plots
from popk.diagnostics.exposure_checks import exposure_check
from popk.diagnostics.exposures import exposure, exposure_grid
from popk.diagnostics.influence import MAX_CATEGORIES
from popk.diagnostics.subgroups import exposure_by
from popk.model.sites import ModelError
from popk.plots.picture import number, with_unit
from popk.reports.blocks import Block, Drawing, Finding, Table, Words
from popk.reports.equations import asked_structures
from popk.reports.fitted import Fitted
from popk.simulation import predict

#: Bands that are in use where a covariate bears one of these names and units [1]_ [2]_: creatinine
#: clearance by the stages of kidney disease, and age by the borders of children and the elderly.
BANDS = {
    ("CRCL", "mL/min"): (30.0, 60.0, 90.0), ("EGFR", "mL/min"): (30.0, 60.0, 90.0),
    ("AGE", "year"): (18.0, 65.0),
}  # fmt: skip
#: So many covariates are shown; more are not read.
MOST_COVARIATES = 8
#: A group of fewer says nothing of a group.
SMALLEST = 3
#: A statistic is shown that at least this part of the subjects has.
LEAST_SUBJECTS = 0.5
SHOWN = ("AUC", "Cmax", "Ctrough")


def exposed(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on exposure by group.

    References
    ----------
    .. [1] FDA (2024). Guidance for industry: pharmacokinetics in patients with impaired renal function.
    .. [2] ICH (1993). E7: studies in support of special populations: geriatrics.
    """
    fitted.levels  # noqa: B018 - refuses a trial of counts, categories or events alone
    if len(fitted.sites.named("level")) > 1:
        raise ModelError("the model observes several kinds of levels; exposure is of one: call "
                         "popk.exposure for each")  # fmt: skip
    grid = exposure_grid(fitted.trial, points=60)
    simulated = predict(fitted.model, fitted.posterior, grid, seed=fitted.seed, draws=fitted.draws)
    found = exposure(simulated, grid)
    kinds = sorted(set(map(str, found["area"].values)))
    whole = [n for n in SHOWN if n in found and bool(np.isfinite(found[n]).all())]
    found = found[[n for n in whole if n != "AUC" or len(kinds) == 1]]
    groups, frames = {}, []
    overall = exposure_by(found, fitted.trial)
    groups["All subjects"] = _rows(overall)
    frames.append(_plain(overall, ""))
    for name in fitted.trial.host.covariates[:MOST_COVARIATES]:
        edges = _edges(fitted, name)
        if edges is None:
            continue
        table = exposure_by(found, fitted.trial, name, edges=edges or None)
        unit = with_unit("", fitted.trial.units[name]).strip(" ()")
        heading = (
            f"By {name}{f' ({unit})' if unit else ''}, compared with {table.attrs['reference']}"
        )
        groups[heading] = _rows(table)
        frames.append(_plain(table, name))
    columns = ["Quantity", "Group", "Subjects", "Estimate", "90% interval", "Between subjects, CV%",
               "Ratio", "90% interval of the ratio"]  # fmt: skip
    says = ("Exposure after each subject's last dose, from the model's own curves: geometric means of the "
            "doses that were given, not of one dose for all. A group that got other doses has another "
            "exposure for that reason alone.")  # fmt: skip
    area = {"AUC_tau": "AUC is that of the dosing interval.", "AUC_inf": "AUC is that to infinity."}
    says += f" {area[kinds[0]]}" if len(kinds) == 1 else (
        " AUC is not shown: of some subjects it would be that of a dosing interval, of others that to "
        "infinity.")  # fmt: skip
    frame = pd.concat(frames).set_index(["covariate", "group", "quantity"])
    return [Words(says), Table("exposure", columns, groups, frame, wordy=(0, 1))]


def _edges(fitted: Fitted, name: str) -> Sequence[float] | None:
    """Return the bands of a covariate, none of a category; None where there is nothing to compare."""
    first = fitted.trial.host.frame.groupby("ID", sort=False)[name].first().to_numpy(dtype=float)
    known = first[np.isfinite(first)]
    if len(known) < len(first) or np.unique(known).size < 2:
        return None
    if name in fitted.trial.host.levels or np.unique(known).size <= MAX_CATEGORIES:
        return ()
    usual = BANDS.get((name, fitted.trial.units[name]), ())
    inside = [e for e in usual if _enough(known, e)]
    if inside:
        return inside
    tertiles = [float(f"{x:.3g}") for x in np.quantile(known, [1 / 3, 2 / 3])]
    edges = tertiles if len(known) >= 18 else [float(f"{np.median(known):.3g}")]
    return [e for e in dict.fromkeys(edges) if _enough(known, e)] or None


def _enough(known: np.ndarray, edge: float) -> bool:
    return bool(min((known < edge).sum(), (known >= edge).sum()) >= SMALLEST)


def _rows(table: Any) -> list[list[str]]:
    found = []
    for (quantity, group), row in table.iterrows():
        unit = with_unit("", row["unit"]).strip(" ()")
        alone = not np.isfinite(row["ratio"]) or row["ratio_lower"] == row["ratio_upper"]
        cells = [f"{quantity} ({unit})" if unit else quantity, group, f"{int(row['subjects']):,}"]
        cells += [number(row["estimate"]), f"{number(row['lower'])} to {number(row['upper'])}"]
        cells.append(f"{row['CV%']:.0f}" if np.isfinite(row["CV%"]) else "–")
        cells += ["" if alone else f"{row['ratio']:.2f}"]
        cells += ["" if alone else f"{row['ratio_lower']:.2f} to {row['ratio_upper']:.2f}"]
        found.append(cells)
    return found


def _plain(table: pd.DataFrame, covariate: str) -> pd.DataFrame:
    plain = table.reset_index()
    plain.columns = ["quantity", "group", *plain.columns[2:]]
    return plain.assign(covariate=covariate, group=plain["group"].astype(str))


def noncompartmental(fitted: Fitted) -> list[Block | Finding]:
    """Return the section that compares noncompartmental values with those of simulated levels."""
    fitted.levels  # noqa: B018 - as above
    if len(fitted.sites.named("level")) > 1:
        raise ModelError(
            "the model observes several kinds of levels; call popk.exposure_check for each"
        )
    check = exposure_check(fitted.same, fitted.trial, route=_route(fitted))
    check = _common(check)
    says = ("Noncompartmental statistics of the observed levels (points) on those of simulated levels of "
            "the same subjects (lines: 90% interval, tick: median). Most points should lie on their lines; "
            "at the right the posterior predictive p-values, near 0 or 1 where the model cannot bring "
            "forth what was seen.")  # fmt: skip
    figure = plots.exposure_check(check)
    values = check["p_value_summary"].sel(summary="median")
    every: Any = values.to_dataframe()
    frame = every[["p_value_summary"]].rename(columns={"p_value_summary": "p_value"})
    off = [str(n) for n, p in zip(values["statistic"].values, values.values, strict=True)
           if np.isfinite(p) and not 0.025 <= p <= 0.975]  # fmt: skip
    known = int(np.isfinite(values).sum())
    limit = (
        f"The model does not bring forth the observed median of {', '.join(off)}." if off else ""
    )
    rows = [[str(n), f"{p:.2f}"] for n, p in frame["p_value"].items() if np.isfinite(p)]
    return [
        Drawing("exposure", figure, "Observed noncompartmental statistics on simulated ones", says),
        Table("noncompartmental_check", ["Statistic", "p-value of the median"], {"": rows}, frame),
        Finding("Noncompartmental medians (p-values)", f"{known - len(off)} of {known} as simulated",
                "all between 0.025 and 0.975", not off, limit),
    ]  # fmt: skip


def _common(check: xr.Dataset) -> xr.Dataset:
    """Return the statistics that most subjects have.

    Raises
    ------
    ModelError
        There is none.
    """
    known: Any = np.isfinite(check["observed"])
    has = known.any("interval") if "interval" in known.dims else known
    often = has.mean("subject") >= LEAST_SUBJECTS
    if not bool(often.any()):
        raise ModelError("most subjects have too few levels after a dose for any noncompartmental "
                         "statistic")  # fmt: skip
    return check.sel(statistic=check["statistic"].values[often.values])


def _route(fitted: Fitted) -> str:
    """Return what doses with RATE 0 are: by mouth where the model has an absorption."""
    asked = asked_structures(fitted)
    oral = any(a.get("KA") is not None or a.get("absorption") is not None for _, a in asked)
    return "extravascular" if oral else "bolus"
