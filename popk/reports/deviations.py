"""Are levels and people as the model says they are distributed? Prediction errors and random effects."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popk import plots
from popk.diagnostics.effects import random_effects
from popk.diagnostics.npde import npde
from popk.plots.picture import number
from popk.reports.blocks import Block, Drawing, Finding, Table
from popk.reports.fitted import Fitted
from popk.simulation import predict

#: Simulated trials for each level of the subject with most levels, and the most that are made.
EACH, MOST = 20, 3200
#: A right model is called wrong this often.
LEVEL = 0.05
#: With more covariates than this the figure of random effects against them is no longer read.
MOST_COVARIATES = 6


def prediction_errors(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on normalized prediction distribution errors."""
    fitted.levels  # noqa: B018 - refuses a trial of counts, categories or events alone
    found = npde(_simulated(fitted), fitted.trial, seed=fitted.seed)
    says = ("Normalized prediction distribution errors: where each level stands among simulated ones of "
            "the same subject, made independent, as a normal deviate. Of a right model they are standard "
            "normal: on the line, in the bands, without trend (Comets et al. 2008, "
            "doi:10.1016/j.cmpb.2007.12.002).")  # fmt: skip
    tests = [str(t) for t in found["test"].values]
    frame = pd.DataFrame({"statistic": found["statistic"].values, "p_value": found["p_value"].values},
                         index=pd.Index(tests, name="test"))  # fmt: skip
    rows = [[t, number(float(r.statistic)), _p(r.p_value)] for t, r in frame.iterrows()]
    p = float(frame.loc["global", "p_value"])
    mean, spread = float(found["mean"]), float(found["variance"])
    limit = (f"Levels are not distributed as the model says (npde: mean {mean:.2f}, variance {spread:.2f}, "
             f"global p {_p(p)}).".replace("-", "−"))  # fmt: skip
    good = p >= LEVEL
    value = f"mean {mean:.2f}, variance {spread:.2f}, p {_p(p)}".replace("-", "−")
    return [
        Drawing("npde", plots.npde(found), "Normalized prediction distribution errors", says),
        Table("npde", ["Test", "Statistic", "p-value"], {"": rows}, frame, code=False),
        Finding("Distribution of levels (NPDE)", value, f"0, 1, p at least {LEVEL:g}", good,
                "" if good else limit),
    ]  # fmt: skip


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _simulated(fitted: Fitted) -> xr.DataTree:
    """Return simulated trials, more of them where subjects have many levels."""
    o = fitted.trial.observations
    most = int(np.bincount(np.asarray(o.subject)[np.asarray(o.measured)]).max())
    sizes = fitted.posterior["posterior"].sizes
    wanted = min(-(-max(EACH * most, 200) // 32) * 32, MOST, sizes["chain"] * sizes["draw"])
    if wanted <= fitted.draws:
        return fitted.new
    return predict(fitted.model, fitted.posterior, fitted.trial, new_subjects=True, seed=fitted.seed,
                   draws=wanted)  # fmt: skip


def effects(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on random effects."""
    found = random_effects(_thinned(fitted), fitted.trial)
    blocks: list[Block | Finding] = [
        Drawing("eta", plots.eta_distributions(found), "Distributions of random effects",
                "Posterior draws of all subjects' random effects (bars) and the distribution that the model "
                "states (dashed); ticks: the posterior mean of each subject. The bars should follow the "
                "line; means that crowd around 0 are shrunk."),
    ]  # fmt: skip
    known = "covariate" in found.coords and found.sizes["covariate"]
    if not known:
        return blocks
    shown = found
    if found.sizes["covariate"] > MOST_COVARIATES:
        every: Any = np.abs(found["covariate_correlation"])
        strength = every.max("parameter").fillna(0)
        order = np.argsort(-strength.values)[:MOST_COVARIATES]
        shown = found.isel(covariate=np.sort(order))
    few = (f" Of {found.sizes['covariate']} covariates the {MOST_COVARIATES} most correlated ones."
           if shown is not found else "")  # fmt: skip
    blocks.append(Drawing(
        "etacov", plots.eta_covariates(shown), "Random effects against covariates",
        f"Random effects against covariates: a trend is an effect of the covariate that the model "
        f"lacks.{few}"))  # fmt: skip
    low, high = found["covariate_correlation_lower"], found["covariate_correlation_upper"]
    left = [(str(c), str(p)) for c in found["covariate"].values for p in found["parameter"].values
            if float(low.sel(covariate=c, parameter=p)) > 0
            or float(high.sel(covariate=c, parameter=p)) < 0]  # fmt: skip
    pairs = ", ".join(f"{p} with {c}" for c, p in left[:6]) + (", …" if len(left) > 6 else "")
    limit = f"Random effects go with covariates, which the model may lack: {pairs}." if left else ""
    of = found.sizes["covariate"] * found.sizes["parameter"]
    blocks.append(Finding("Random effects that go with a covariate", f"{len(left)} of {of} pairs",
                          "none", not left, limit))  # fmt: skip
    return blocks


def _thinned(fitted: Fitted) -> xr.DataTree:
    """Return a posterior of no more draws than a histogram shows."""
    sizes = fitted.posterior["posterior"].sizes
    step = max(1, sizes["chain"] * sizes["draw"] // 4000)
    if step == 1:
        return fitted.posterior
    kept = fitted.posterior.copy()
    kept["posterior"] = kept["posterior"].dataset.isel(draw=slice(None, None, step))
    return kept
