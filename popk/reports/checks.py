"""What do further checks say? Sensitivity to priors, prediction error, covariates and exposure."""

from typing import Any

import numpy as np

from popk import plots
from popk.diagnostics.identifiability import identifiability
from popk.diagnostics.influence import covariate_effects
from popk.diagnostics.prediction import prediction_error
from popk.diagnostics.sensitivity import FINE, THRESHOLD, prior_sensitivity
from popk.inference.convergence import population_draws
from popk.model.sites import ModelError
from popk.plots.picture import number, with_unit
from popk.reports.blocks import Block, Drawing, Finding, Table, Words
from popk.reports.fitted import Fitted

#: Sensitivity is a distance between weighted draws: below so many it is mostly noise.
FEWEST = 400
#: A geometric mean fold error up to 2 is what pharmacokinetic predictions are commonly held to.
MOST_FOLD = 2.0
#: Draws of ratios between typical subjects; two digits of their quantiles need no more.
RATIO_DRAWS = 640
#: Draws that subjects are left out of by weights; whole batches.
PREDICTED = 640


def sensitivity(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on sensitivity to priors."""
    fitted.group("log_likelihood", "which tells how much the levels say against the priors; popk.fit "
                                   "records it")  # fmt: skip
    draws = next(iter(population_draws(fitted.posterior).values())).size
    if draws < FEWEST:
        raise ModelError(
            f"the posterior has {draws} draws, and a sensitivity needs at least {FEWEST}"
        )
    table: Any = prior_sensitivity(fitted.model, fitted.posterior, fitted.trial)
    rows = [[n, *(f"{x:.3f}" for x in (r.prior, r.likelihood)), r.diagnosis]
            for n, r in table.iterrows()]  # fmt: skip
    says = [f"{n} ({d})" for n, d in table["diagnosis"].items() if d != FINE]
    limit = f"The posterior hangs on the prior of {', '.join(says)}." if says else ""
    value = f"{len(says)} of {len(table)} parameters sensitive" if says else "none sensitive"
    notes = [
        ("Prior, likelihood", f"how fast the posterior moves away from itself when either is raised to a "
                              f"power near 1; above {THRESHOLD:g} it is called sensitive (Kallioinen et "
                              f"al. 2024, doi:10.1007/s11222-023-10366-5)."),
        ("Diagnosis", "both above: prior and data disagree; the prior alone: it decides, the data say "
                      "little."),
    ]  # fmt: skip
    columns = ["Parameter", "Prior", "Likelihood", "Diagnosis"]
    weak = list(
        identifiability(fitted.model, fitted.posterior, fitted.trial, seed=fitted.seed)["says"]
    )
    return [
        Table("sensitivity", columns, {"": rows}, table, wordy=(0, 3), notes=notes),
        Words(" ".join(map(_full, weak)) if weak else "Nothing in the posterior speaks against "
              "identifiability, which proves none."),
        Finding("Sensitivity to priors", value, "none", not says, limit),
        Finding("Warnings of identifiability", f"{len(weak)}", "0", not weak,
                " ".join(map(_full, weak))),
    ]  # fmt: skip


def _full(says: str) -> str:
    """Return a sentence with a capital and a full stop."""
    return says[:1].upper() + says[1:] + ("" if says.endswith(".") else ".")


def prediction(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on prediction error."""
    table: Any = prediction_error(fitted.model, fitted.posterior, fitted.trial, external=fitted.external,
                             draws=PREDICTED, individual_draws=32, seed=fitted.seed)  # fmt: skip
    unit = with_unit("", table.attrs["unit"]).strip(" ()")
    within = next(c for c in table if str(c).startswith("within"))
    rows = [
        [n, f"{int(r['levels']):,}", *(number(r[c]) for c in ("bias", "RMSE")),
         *(f"{r[c]:.0f}".replace("-", "−") for c in ("bias%", "RMSE%", within)), f"{r['GMFE']:.2f}"]
        for n, r in table.iterrows()
    ]  # fmt: skip
    columns = ["Prediction", "Levels", f"Bias ({unit})", f"RMSE ({unit})", "Bias %", "RMSE %",
               f"{within.capitalize()} (% of levels)", "GMFE"]  # fmt: skip
    who = ("each subject left out of the fit in turn, by weights"
           if fitted.external is None
           else f"the {fitted.external.n_subjects:,} subjects of {fitted.external.host.name}, unknown to "
                f"the fit")  # fmt: skip
    notes = [
        ("PRED, IPRED", "before any level of the subject is known; with the subject's own levels known, the "
                 "population not learned from them."),
        ("Bias, RMSE", "mean of prediction less level, and root of the mean square (Sheiner and Beal 1981, "
                       "doi:10.1007/BF01060893); in percent of the level where it is positive."),
        ("GMFE", "geometric mean fold error: 1 is exact, 2 is off by a factor of 2 on average."),
    ]  # fmt: skip
    blocks: list[Block | Finding] = [
        Words(f"Predictions of {who}."),
        Table("prediction_error", columns, {"": rows}, table, notes=notes),
    ]
    return [*blocks, *_errors_found(table, internal=fitted.external is None)]


def _errors_found(table: Any, *, internal: bool) -> list[Finding]:
    """Return what prediction errors say."""
    fold, doubtful = float(table.loc["PRED", "GMFE"]), table.attrs["doubtful"]
    limit = (f"Levels of a new subject are predicted with a mean fold error of {fold:.1f} before any is "
             f"measured." if not fold <= MOST_FOLD else "")  # fmt: skip
    found = [Finding("Fold error of a new subject (PRED)", f"{fold:.2f}", f"at most {MOST_FOLD:g}",
                          bool(fold <= MOST_FOLD), limit)]  # fmt: skip
    if doubtful:
        some = ", ".join(doubtful[:5]) + (", …" if len(doubtful) > 5 else "")
        says = (f"Leaving out ID {some} changes the posterior too much for weights (Pareto k above 0.7): "
                f"their prediction errors are approximate.")  # fmt: skip
        found.append(
            Finding("Subjects weights cannot leave out", f"{len(doubtful)}", "0", False, says)
        )
    if internal:
        found.append(Finding("External data", "none given", limit="No external data were predicted: all "
                              "checks are of the trial of the fit."))  # fmt: skip
    return found


def covariates(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on covariates."""
    if not fitted.trial.host.covariates:
        raise ModelError("the trial has no covariates")
    effects = covariate_effects(fitted.model, fitted.posterior, fitted.trial, draws=RATIO_DRAWS)
    shown = [q for q in effects["quantity"].values
             if bool((np.abs(effects["ratio"].sel(quantity=q) - 1) > 1e-9).any())]  # fmt: skip
    effects = effects.sel(quantity=shown)
    low, high = effects.attrs["zone"]
    figure = plots.covariate_forest(effects)
    says = (f"What a covariate's 5th or 95th percentile, or another category, does to a parameter of a "
            f"typical subject, as a ratio to the reference. Inside the shaded zone ({low:g} to {high:g}) a "
            f"difference is commonly taken not to matter; the number at the right is the probability of "
            f"lying there. A ratio without an interval is one that the model fixes.")  # fmt: skip
    frame: Any = effects[["median", "lower", "upper", "inside"]].to_dataframe()
    rows = [
        [str(q), str(s), *(number(float(r[c])) for c in ("median", "lower", "upper")),
         f"{100 * r['inside']:.0f}%"]
        for (q, s), r in frame.iterrows()
    ]  # fmt: skip
    columns = ["Parameter", "Subject", "Ratio", "Lower", "Upper", "In the zone"]
    outside = frame[(frame["lower"] > high) | (frame["upper"] < low)]
    some = ", ".join(f"{q} at {s}" for q, s in list(outside.index)[:4])
    value = f"{len(outside)} of {len(frame)} ratios outside {low:g} to {high:g}"
    return [
        Drawing("covariate_forest", figure, "Effects of covariates on parameters", says),
        Table("covariate_effects", columns, {"": rows}, frame.reset_index().set_index("quantity"),
              wordy=(0, 1)),
        Finding("Covariates that matter", f"{value}{f': {some}' if some else ''}"),
    ]  # fmt: skip
