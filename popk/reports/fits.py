"""Does the model describe the levels? Goodness of fit, predictive checks, individual fits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from popk import plots
from popk.diagnostics.kinds import endpoints_of
from popk.diagnostics.residuals import predictions, residuals
from popk.diagnostics.survival import follow_up, kaplan_meier
from popk.diagnostics.vpc import vpc
from popk.model.outcomes import of_kinds
from popk.model.sites import ModelError
from popk.plots.picture import number, with_unit
from popk.reports.blocks import Block, Drawing, Finding, Words
from popk.reports.fitted import Fitted
from popk.simulation import predict

#: Simulated subjects are followed up for events at so many times.
FOLLOWED = 60
#: With more points than this nobody looks one up, and the page would grow.
MOST_POINTS = 2000
#: So many residuals beyond 1.96 sd may be expected by chance of 5% [%].
MOST_OUTSIDE = 10.0


def goodness(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on goodness of fit."""
    trial, same = fitted.trial, fitted.same
    fitted.levels  # noqa: B018 - refuses a trial of counts, categories or events alone
    data = predictions(same, trial)
    says = ("Observed levels against the population prediction (PRED, random effects of 0) and the "
            "individual prediction (IPRED), posterior medians. Points should scatter evenly about the "
            "dashed line of identity; the trend is a local linear fit.")  # fmt: skip
    blocks: list[Block | Finding] = [
        Drawing("gof", plots.observed_predicted(same, trial), "Observed against predicted levels", says,
                _said(data, ("PRED", "IPRED")))
    ]  # fmt: skip
    if fitted.wide:
        shown = {n: (data[n].values > 0) & (data["DV"].values > 0) for n in ("PRED", "IPRED")}
        blocks.append(Drawing(
            "goflog", plots.observed_predicted(same, trial, log=True),
            "Observed against predicted levels, logarithmic axes",
            "The same on logarithmic axes, where low levels are seen as well as high ones.",
            _said(data, ("PRED", "IPRED"), shown)))  # fmt: skip
    try:
        weighted = residuals(same, fitted.posterior, trial)
    except ModelError as error:  # a residual error of the user's own
        return [*blocks, Words(f"No weighted residuals: {error}.")]
    known = np.isfinite(weighted["IWRES"].values)
    shown: dict[str, np.ndarray] = dict.fromkeys(("TIME", "IWRES"), known)
    blocks.append(Drawing(
        "iwres", plots.residuals(same, fitted.posterior, trial), "Individual weighted residuals",
        "Individual weighted residuals, IWRES = (DV − IPRED) / sd, against time and against IPRED. Their "
        "trend should be flat at 0, and about 95% of them should lie between the dashed lines.",
        _said(weighted, ("TIME", "IWRES"), shown)))  # fmt: skip
    outside = 100 * float((np.abs(weighted["IWRES"].values[known]) > 1.96).mean())
    limit = f"{outside:.0f}% of individual weighted residuals are beyond 1.96 sd, where 5% are expected."
    good = outside <= MOST_OUTSIDE
    blocks.append(Finding("Residuals beyond 1.96 sd", f"{outside:.1f}%", f"about 5%, at most "
                          f"{MOST_OUTSIDE:g}%", good, "" if good else limit))  # fmt: skip
    return blocks


def _said(
    data: xr.Dataset, of: Sequence[str], shown: Mapping[str, np.ndarray] | None = None
) -> dict[int, list[str]] | None:
    """Return what is said of each point of each panel."""
    if data.sizes["observation"] > MOST_POINTS:
        return None
    unit, clock = data["DV"].attrs.get("units", ""), data["TIME"].attrs.get("units", "")
    found = {}
    for i, name in enumerate(of):
        chosen = np.flatnonzero(shown[name] if shown else np.ones(data.sizes["observation"], bool))
        one = data.isel(observation=chosen)
        extra = "IPRED" if name == "TIME" else name
        words = zip(one["ID"].values, one["TIME"].values, one["DV"].values, one[extra].values,
                    strict=True)  # fmt: skip
        end = "" if extra == "IWRES" else f" {_short(unit)}"
        found[i] = [
            f"ID {who}, {time:g} {_short(clock)}: observed {number(float(level))} {_short(unit)}, "
            f"{extra} {number(float(value))}{end}"
            for who, time, level, value in words
        ]
    return found


def _short(unit: str) -> str:
    return with_unit("", unit).strip(" ()")


def predictive(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on predictive checks, of levels and of events."""
    blocks: list[Block | Finding] = []
    try:
        fitted.levels  # noqa: B018 - as above
        blocks += _levels(fitted)
    except ModelError as error:
        blocks.append(Words(f"None of levels: {error}."))
    return blocks + _events(fitted)


def _levels(fitted: Fitted) -> list[Block | Finding]:
    check = vpc(fitted.new, fitted.trial)
    corrected = vpc(fitted.new, fitted.trial, prediction_corrected=True)
    left_out = int(check.attrs["levels_left_out"])
    hidden = (
        f" {left_out:,} levels below the limit of quantification are left out, and so are simulated ones."
        if left_out
        else ""
    )
    says = (f"Levels in {check.sizes['bin']} bins of time (ticks along the top) against "
            f"{check.attrs['replicates']} simulated trials of new subjects. Each observed percentile "
            f"(line) should stay within the 90% interval of the same simulated percentile (band)."
            f"{hidden}")  # fmt: skip
    blocks: list[Block | Finding] = [
        Drawing("vpc", plots.vpc(check, log=fitted.wide), "Visual predictive check", says, _points(check)),
        Drawing("pcvpc", plots.vpc(corrected, log=fitted.wide),
                "Prediction-corrected visual predictive check",
                "The same, prediction-corrected: each level is brought to the typical prediction of its "
                "bin, which takes out what doses and covariates explain (Bergstrand et al. 2011, "
                "doi:10.1208/s12248-011-9255-z).", _points(corrected)),
    ]  # fmt: skip
    inside = (corrected["observed"] >= corrected["lower"]) & (
        corrected["observed"] <= corrected["upper"]
    )
    known = np.isfinite(corrected["observed"].values)
    hits, of = int(inside.values[known].sum()), int(known.sum())
    good = hits >= 0.8 * of
    limit = (f"Of {of} observed percentiles in the prediction-corrected check, {of - hits} are outside "
             f"their band, where about {0.1 * of:.0f} are expected.")  # fmt: skip
    blocks.append(Finding("Percentiles in their band (VPC)", f"{hits} of {of}",
                          f"about 90%, at least {int(np.ceil(0.8 * of))}", good,
                          "" if good else limit))  # fmt: skip
    return blocks


def _points(check: xr.Dataset) -> dict[int, list[str]] | None:
    if check.sizes["observation"] > MOST_POINTS:
        return None
    unit, clock = (_short(check[n].attrs.get("units", "")) for n in ("DV", "TIME"))
    words = zip(check["ID"].values, check["TIME"].values, check["DV"].values, strict=True)
    return {0: [f"ID {who}, {time:g} {clock}: {number(float(x))} {unit}" for who, time, x in words]}


def _events(fitted: Fitted) -> list[Block | Finding]:
    """Return a picture of each kind of events."""
    trial, found = fitted.trial, []
    o = trial.observations
    for name, endpoint in endpoints_of(fitted.same).items():
        own = of_kinds(trial, endpoint["kinds"]) & np.asarray(o.measured)
        if endpoint["name"] != "events" or not own.any():
            continue
        found.append(_kaplan_meier(fitted, name, endpoint["kinds"][0], own))
    return found


def _kaplan_meier(fitted: Fitted, name: str, kind: Any, own: np.ndarray) -> Drawing:
    trial, o = fitted.trial, fitted.trial.observations
    cmt, dvid = kind
    end = float(np.asarray(trial.time)[np.asarray(o.subject), np.asarray(o.record)][own].max())
    followed = follow_up(trial, np.linspace(0, end, FOLLOWED + 1)[1:], DVID=dvid, CMT=cmt)
    new = predict(fitted.model, fitted.posterior, followed, new_subjects=True, seed=fitted.seed,
                  draws=fitted.draws)  # fmt: skip
    check = kaplan_meier(new, trial, output=name)
    return Drawing(
        f"km{name}", plots.kaplan_meier(check), f"Kaplan-Meier curve{f' of {name}' if name else ''}",
        "Subjects without an event (steps; thin: 95% confidence limits; ticks: censored) against the "
        "curves of simulated trials of new subjects (band: 5th to 95th percentile). The observed curve "
        "should stay within the band (Holford 2013, doi:10.1038/psp.2013.18).")  # fmt: skip


def individuals(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on individual fits."""
    fitted.levels  # noqa: B018 - as above
    some, all_of_them = fitted.some.n_subjects, fitted.trial.n_subjects
    few = f" The first {some} of {all_of_them} subjects." if some < all_of_them else ""
    says = ("Levels of each subject (circles) with the individual prediction IPRED (solid; dark band: 90% "
            "credible interval), the 90% interval of a new level (light band), and the population "
            f"prediction PRED for the subject's doses and covariates (dashed).{few}")  # fmt: skip
    figure = plots.individual_fits(fitted.curves, fitted.some, log=fitted.wide)
    return [Drawing("fits", figure, "Individual fits", says)]
