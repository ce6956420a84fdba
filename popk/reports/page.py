"""How is a fit written up? One page of HTML that needs nothing beside it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from popk import plots
from popk.diagnostics.kinds import are_levels, endpoints_of
from popk.diagnostics.survival import follow_up, kaplan_meier
from popk.diagnostics.vpc import vpc
from popk.inference.compilation import keep_compiled
from popk.inference.convergence import (
    DIVERGING_ONCE_IN,
    MAX_PARETO_K,
    MAX_RHAT,
    MIN_ESS,
    Convergence,
    convergence,
)
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, ModelError, describe
from popk.plots.picture import number
from popk.reports import text
from popk.reports.curves import with_curves
from popk.reports.svg import inline
from popk.simulation import predict
from popk.trial import Trial

#: So many posterior draws are predicted from: `predict` works in batches of 32, and what is left
#: over is compiled a second time.
DRAWS = 320
#: Individual fits are shown of so many subjects: more panels are not looked at one by one.
MOST_PANELS = 60
#: Levels of which the middle 90% span more than this factor are shown on logarithmic axes.
WIDE = 15.0
#: Simulated subjects are followed up for events at so many times.
FOLLOWED = 60

Figures = dict[str, tuple[Figure, str]]


def report(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    path: str | Path,
    *,
    seed: int = 1,
    draws: int = DRAWS,
) -> Path:
    """Write one self-contained HTML page of a fit, and return where it is.

    The verdict comes first; then data, model, parameters, goodness of fit, visual predictive check,
    individual fits, chains, and how to reproduce it all. The page loads nothing from elsewhere and
    follows the reader's light or dark setting; printed, it is light.

    Parameters
    ----------
    model : Callable
        The model that was fitted.
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial that it was fitted to.
    path : str or Path
        The file to write; it appears complete or not at all. Missing folders are made.
    seed : int
        Of the predictions.
    draws : int
        How many posterior draws are predicted from.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ModelError
        The posterior was not made with this model or lacks a subject of the trial.
    ValueError
        The posterior has no population parameters.

    Examples
    --------
    >>> popk.report(theophylline, posterior, trial, "theophylline.html")  # doctest: +SKIP
    """
    keep_compiled()
    found = convergence(posterior)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.jinja").render(
        title=text.title(model, posterior),
        subtitle=text.subtitle(posterior, trial),
        verdict=_verdict(found, posterior, model, trial),
        data=text.data(trial, describe(model, trial).endpoints),
        model=text.model(model, posterior),
        parameters=text.parameters(posterior, trial),
        figures=_figures(model, posterior, trial, seed, draws),
        origin=text.origin(model, posterior, trial, Path(path).name, seed=seed, draws=draws),
    )
    return _written(page, Path(path))


def _written(page: str, path: Path) -> Path:
    """Write a file beside its place and rename it: nobody ever reads half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        Path(beside).chmod(0o644)  # mkstemp gives a file to its maker alone
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path


def _verdict(
    found: Convergence, posterior: xr.DataTree, model: Model, trial: Trial
) -> dict[str, Any]:
    """Return what stands on top: whether the posterior may be used, and what to do if not."""
    stats = posterior["sample_stats"].dataset
    chains, draws = stats.sizes["chain"], stats.sizes["draw"]
    strange = text.differences(posterior, model, trial)
    facts = [("Method", str(posterior.attrs.get("method", "nuts")), "")]
    facts += _of_weights(found) if found.pareto_k is not None else [
        ("Worst R-hat", f"{found.rhat:.3f}", f"at most {MAX_RHAT}"),
        ("Lowest bulk ESS", number(found.ess_bulk), f"at least {MIN_ESS}"),
        ("Lowest tail ESS", number(found.ess_tail), f"at least {MIN_ESS}"),
        ("Divergent transitions", f"{found.divergences:,} of {chains * draws:,}",
         f"at most 1 in {DIVERGING_ONCE_IN:,}"),
    ]  # fmt: skip
    facts.append(("Chains × draws", f"{chains} × {draws:,}", ""))
    return {
        "converged": found.converged,
        "weighted": found.pareto_k is not None,
        "strange": strange,
        "problems": [_sentence(problem) for problem in [*found.problems(), *strange]],
        "facts": facts,
    }


def _of_weights(found: Convergence) -> list[tuple[str, str, str]]:
    return [
        ("Pareto k of the weights", f"{found.pareto_k:.2f}", f"at most {MAX_PARETO_K}"),
        ("Effective sample size", number(found.ess_bulk), f"at least {MIN_ESS}"),
    ]


def _sentence(problem: str) -> str:
    """Return a problem with a capital and a full stop, which would mar an option such as draws=."""
    return problem[:1].upper() + problem[1:] + ("" if problem.endswith((".", "=")) else ".")


def _figures(
    model: Model, posterior: xr.DataTree, trial: Trial, seed: int, draws: int
) -> dict[str, Any]:
    """Return the page's pictures, and the numbers that their captions name."""
    options: dict[str, Any] = {"seed": seed, "draws": draws}
    same = predict(model, posterior, trial, **options)
    some = trial if trial.n_subjects <= MOST_PANELS else trial[trial.ids[:MOST_PANELS]]
    facts: dict[str, Any] = {"no_levels": "", "no_residuals": ""}
    figures: Figures = {}
    try:
        are_levels(same, trial)
        figures, facts = _of_levels(model, posterior, trial, some, same=same, **options)
    except ModelError as error:  # counts, categories or events alone
        facts["no_levels"] = str(error)
    figures |= {
        **_of_events(model, posterior, trial, endpoints_of(same), **options),
        "trace": (plots.trace(posterior), "Traces of the population parameters"),
        "forest": (plots.forest(posterior), "Intervals of the population parameters"),
    }
    return {
        "svg": {name: inline(figure, name, says) for name, (figure, says) in figures.items()},
        "panels": some.n_subjects,
        "subjects": trial.n_subjects,
        **facts,
    }


def _of_levels(
    model: Model, posterior: xr.DataTree, trial: Trial, some: Trial,
    *, same: xr.DataTree, seed: int, draws: int,
) -> tuple[Figures, dict[str, Any]]:  # fmt: skip
    """Return the pictures of levels, and the numbers that their captions name."""
    new = predict(model, posterior, trial, new_subjects=True, seed=seed, draws=draws)
    count = posterior["posterior"].sizes["chain"] * posterior["posterior"].sizes["draw"]
    # More draws make the bands' edges smooth; whole batches, see DRAWS.
    many = max(min(3 * draws, count) // 32 * 32, 1)
    curves = predict(model, posterior, with_curves(some), seed=seed, draws=many)
    log = _wide(trial, are_levels(same, trial))
    check, corrected = vpc(new, trial), vpc(new, trial, prediction_corrected=True)
    figures = {
        "gof": (plots.observed_predicted(same, trial), "Observed against predicted levels"),
        "vpc": (plots.vpc(check, log=log), "Visual predictive check"),
        "pcvpc": (plots.vpc(corrected, log=log), "Prediction-corrected visual predictive check"),
        "fits": (plots.individual_fits(curves, some, log=log), "Individual fits"),
    }
    if log:
        again = plots.observed_predicted(same, trial, log=True)
        figures["goflog"] = (again, "Observed against predicted levels, logarithmic axes")
    no_residuals = ""
    try:
        weighted = plots.residuals(same, posterior, trial)
        figures["iwres"] = (weighted, "Individual weighted residuals")
    except ModelError as error:  # a residual error of the user's own
        no_residuals = str(error)
    return figures, {
        "no_levels": "",
        "no_residuals": no_residuals,
        "bins": check.sizes["bin"],
        "replicates": check.attrs["replicates"],
        "left_out": check.attrs["levels_left_out"],
    }


def _of_events(
    model: Model, posterior: xr.DataTree, trial: Trial, endpoints: Mapping[str, Any],
    *, seed: int, draws: int,
) -> Figures:  # fmt: skip
    """Return a picture of each kind of events."""
    figures: Figures = {}
    o = trial.observations
    for name, endpoint in endpoints.items():
        own = of_kinds(trial, endpoint["kinds"]) & np.asarray(o.measured)
        if endpoint["name"] != "events" or not own.any():
            continue
        cmt, dvid = endpoint["kinds"][0]
        end = float(np.asarray(trial.time)[np.asarray(o.subject), np.asarray(o.record)][own].max())
        followed = follow_up(trial, np.linspace(0, end, FOLLOWED + 1)[1:], DVID=dvid, CMT=cmt)
        new = predict(model, posterior, followed, new_subjects=True, seed=seed, draws=draws)
        check = kaplan_meier(new, trial, output=name)
        says = f"Kaplan-Meier curve{f' of {name}' if name else ''}"
        figures[f"km{name}"] = (plots.kaplan_meier(check), says)
    return figures


def _wide(trial: Trial, levels: np.ndarray) -> bool:
    o = trial.observations
    level = np.asarray(o.value[levels & o.exact & (o.value > 0)])
    low, high = np.quantile(level, [0.05, 0.95]) if level.size else (1.0, 1.0)
    return bool(high > WIDE * low)
