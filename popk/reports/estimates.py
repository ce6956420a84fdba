"""What was believed, and what is known now? Priors, parameters and whether the chains agree."""

from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from numpyro import handlers

from popk import plots
from popk.diagnostics.learning import prior_shift
from popk.diagnostics.summary import kind, scale_of, summary
from popk.inference.convergence import (
    DIVERGING_ONCE_IN,
    MAX_PARETO_K,
    MAX_RHAT,
    MIN_ESS,
    Convergence,
    population_draws,
)
from popk.plots.picture import number, with_unit
from popk.reports.blocks import Block, Drawing, Facts, Finding, Table, Words
from popk.reports.fitted import Fitted
from popk.reports.text import remarks
from popk.trial import Trial

HEADINGS = {
    "typical": "Typical values",
    "effect": "Other effects",
    "omega": "Inter-individual variability",
    "gamma": "Inter-occasion variability",
    "tau": "Variability between groups",
    "corr": "Correlations of random effects",
    "sigma": "Residual error",
    "endpoint": "Endpoints",
}
#: Above it diagnostics of individual estimates mislead (Savic and Karlsson 2009) [%].
MUCH_SHRINKAGE = 30.0
#: A posterior at least this much narrower than its prior has learned from the data.
LEARNED = 0.5


def priors(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on priors: each as the model states it, and how far the posterior left it."""
    words = prior_words(fitted)
    shift = prior_shift(fitted.prior, fitted.posterior)
    shift = shift.loc[[n for n in summary(fitted.posterior).index if n in shift.index]]
    draws = population_draws(_as_posterior(fitted.prior["prior"].dataset))
    groups: dict[str, list[list[str]]] = {}
    plain = {}
    for name in shift.index:
        low, high = np.quantile(draws[name], [0.05, 0.95])
        row = shift.loc[name]
        site = words.get(name) or words.get(name.split("[")[0], "given other values")
        said = [name, site, f"{number(low)} to {number(high)}", number(row["posterior"])]
        said += [number(row["shift"]), number(row["contraction"])]
        groups.setdefault(HEADINGS[kind(name)], []).append(said)
        plain[name] = {"prior": site, "lower": low, "upper": high, **row.drop("prior")}
    frame = pd.DataFrame.from_dict(plain, orient="index").rename_axis("parameter")
    notes = [
        ("5% to 95%", "of the prior, from draws of it."),
        ("Shift", "how many prior standard deviations the posterior median is from the prior's."),
        ("Contraction", "1 less the ratio of variances: near 1 the data say all, near 0 nothing, below "
                        "0 prior and data disagree."),
    ]  # fmt: skip
    columns = ["Parameter", "Prior", "5% to 95%", "Posterior median", "Shift", "Contraction"]
    weak = [n for n in shift.index if shift["contraction"][n] < LEARNED]
    blocks: list[Block | Finding] = [
        Table("priors", columns, groups, frame, wordy=(0, 1), notes=notes),
        Drawing("learned", plots.prior_posterior(fitted.prior, fitted.posterior),
                "Densities of parameters before and after the data",
                "The prior (dashed) and the posterior (filled) of each parameter, in its own unit. A "
                "posterior like its prior has learned nothing from the data; one at the prior's edge "
                "disagrees with it."),
    ]  # fmt: skip
    if weak:
        says = f"The data say little beyond the prior of {', '.join(weak)} (contraction below {LEARNED:g})."
        blocks.append(Finding("Learned from the data", f"all but {len(weak)} of {len(shift)}",
                              "all", False, says))  # fmt: skip
    else:
        blocks.append(Finding("Learned from the data", f"all {len(shift)} parameters", "all", True))
    return blocks


def _as_posterior(dataset: xr.Dataset) -> xr.DataTree:
    return xr.DataTree.from_dict({"posterior": dataset})


def prior_words(fitted: Fitted) -> dict[str, str]:
    """Return the prior of each population site in words."""
    seen: dict[str, str] = {}

    def run(arrays: Trial) -> None:
        trace = handlers.trace(handlers.seed(fitted.model, jax.random.key(0))).get_trace(arrays)
        for name in fitted.sites.named("population"):
            seen[name] = described_prior(trace[name]["fn"])

    jax.eval_shape(run, fitted.trial.arrays())
    return seen


def described_prior(prior: Any) -> str:
    """Return a prior as one says it.

    Examples
    --------
    >>> import popk
    >>> described_prior(popk.lognormal(2.8, cv=0.5)), described_prior(dist.Normal(0.0, 0.5))
    ('log-normal, median 2.80, CV 50%', 'normal, mean 0, sd 0.500')
    """
    try:
        return _known(prior)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return f"{type(prior).__name__}, given other values"


def _known(prior: Any) -> str:
    of: Any = prior  # whose numbers NumPyro types as anything
    if isinstance(prior, dist.LogNormal):
        cv = 100 * np.sqrt(np.expm1(float(of.scale) ** 2))
        return f"log-normal, median {number(float(np.exp(of.loc)))}, CV {cv:.3g}%"
    if isinstance(prior, dist.Normal):
        return f"normal, mean {number(float(of.loc))}, sd {number(float(of.scale))}"
    if isinstance(prior, dist.HalfNormal):
        return f"half-normal, scale {number(float(of.scale))}"
    if isinstance(prior, dist.LKJ | dist.LKJCholesky):
        return f"LKJ, concentration {number(float(of.concentration))}"
    if isinstance(prior, dist.Uniform):
        return f"uniform, {number(float(of.low))} to {number(float(of.high))}"
    given: dict[str, Any] = {n: getattr(of, n, None) for n in of.arg_constraints}
    args = ", ".join(f"{n} {number(float(x))}" for n, x in given.items() if np.size(x) == 1)
    return f"{type(prior).__name__}{f', {args}' if args else ''}"


def parameters(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on parameters."""
    posterior = fitted.posterior
    table = summary(posterior)
    beside = remarks(str(posterior.attrs.get("model_source", "")))
    groups: dict[str, list[list[str]]] = {}
    for name, *numbers, rhat, bulk, tail in table.itertuples(name=None):
        cells = [name, beside.get(name) or _meaning(name, fitted), *map(number, numbers)]
        cells += [f"{rhat:.3f}" if rhat == rhat else "", number(bulk), number(tail)]
        groups.setdefault(HEADINGS[kind(name)], []).append(cells)
    columns = ["Parameter", "Unit or meaning", "Median", "Lower", "Upper", "CV%", "RSE%",
               "Shrinkage%", "R-hat", "ESS bulk", "ESS tail"]  # fmt: skip
    interval = f"{100 * table.attrs['interval']:g}%"
    blocks: list[Block | Finding] = []
    if not fitted.verdict.converged:
        blocks.append(Words("Not to be used: the posterior that these numbers come from is not to be "
                            "trusted; see the top of the report."))  # fmt: skip
    blocks.append(Table("parameters", columns, groups, table, wordy=(0, 1),
                        notes=_notes(interval, fitted.verdict.pareto_k is not None)))  # fmt: skip
    dataset = posterior["posterior"].dataset
    names = [str(n) for n in np.atleast_1d(dataset.attrs.get("fixed", [])) if str(n) in dataset]
    if names:
        said = [f"{n} = {number(float(dataset[n].values.flat[0]))}" for n in names]
        blocks.append(Words(f"Fixed, not estimated: {', '.join(said)}."))
    blocks.append(Drawing(
        "forest", plots.forest(posterior), "Intervals of the population parameters",
        "Posterior medians (circles), 50% (thick) and 90% (thin) intervals. What should be known well "
        "has a short line."))  # fmt: skip
    return [*blocks, *_shrunk(table)]


def _shrunk(table: Any) -> list[Finding]:
    """Return what shrinkage there is."""
    shrunk = table["shrinkage%"].dropna()
    if shrunk.empty:
        return []
    much = [
        f"{n.removeprefix('omega_')} ({x:.0f}%)" for n, x in shrunk.items() if x > MUCH_SHRINKAGE
    ]
    says = (f"Shrinkage of {', '.join(much)} is above {MUCH_SHRINKAGE:g}%: individual estimates lean on "
            f"the population, and figures of them can mislead." if much else "")  # fmt: skip
    worst = str(shrunk.idxmax()).removeprefix("omega_")
    return [Finding("Highest shrinkage", f"{shrunk.max():.0f}% ({worst})",
                    f"at most {MUCH_SHRINKAGE:g}%", not much, says)]  # fmt: skip


def _notes(interval: str, weighted: bool) -> list[tuple[str, str]]:
    ess = (
        "effective sample size of the weights: how many independent draws all of them are worth. Draws "
        "that were weighted have no R-hat."
        if weighted
        else "effective sample size: how many independent draws the chains are worth, for the middle "
        "(bulk) and for the 5% and 95% quantiles (tail)."
    )
    return [
        ("Median, lower, upper", f"of the posterior; the {interval} equal-tailed credible interval. Units "
                                 "are as the model's comments give them."),
        ("CV%", "coefficient of variation: 100 √(exp(ω²) − 1) of a log-normal individual parameter, "
                "100 σ of a proportional error."),
        ("RSE%", "relative standard error: 100 × posterior sd / |posterior mean|. Not given for "
                 "correlations."),
        ("Shrinkage%", "100 (1 − sd of the subjects' posterior mean η / ω). Above about 30, individual "
                       "estimates lean on the population, and diagnostics based on them mislead (Savic "
                       "and Karlsson 2009, doi:10.1208/s12248-009-9133-0)."),
        ("R-hat", "rank-normalized split R-hat: how far the chains differ; 1 if they agree (Vehtari et "
                  "al. 2021, doi:10.1214/20-BA1221)."),
        ("ESS", ess),
    ]  # fmt: skip


def _meaning(name: str, fitted: Fitted) -> str:
    """Return what a parameter of popk's own is, with its unit."""
    if scale := scale_of(name, fitted.posterior):
        return f"SD, {scale} scale"
    if name.startswith("corr["):
        return "of " + name[5:-1].replace(", ", " and ")
    known = {
        "sigma_additive": f"SD, {with_unit('', fitted.trial.units['DV']).strip(' ()')}",
        "sigma_proportional": "SD, fraction of IPRED",
        "sigma_log": "SD, log scale",
        "dispersion": "(variance - mean) / mean²",
        "zeros": "share of further zeros",
        "cutpoint": "lowest cutpoint, logit",
        "step": "to the next cutpoint, logit",
    }
    return next((says for begin, says in known.items() if name.startswith(begin)), "")


def chains(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on convergence: numbers, and the chains."""
    found = fitted.verdict
    weighted = found.pareto_k is not None
    facts = verdict_facts(found, fitted)
    blocks: list[Block | Finding] = [
        Facts([(n, f"{x} ({limit})" if limit else x) for n, x, limit in facts])
    ]
    if "sample_stats" not in fitted.posterior.children:
        blocks.append(Words("The posterior has no sampler statistics: whether transitions diverged is "
                            "not known."))  # fmt: skip
        blocks.append(Finding("Divergent transitions", "not known", "none", None,
                              "Divergences could not be counted: the posterior has no sampler "
                              "statistics."))  # fmt: skip
    says = (
        "Draws of each population parameter, of equal weight and in no order. A value that returns again "
        "and again carried much of the weight."
        if weighted
        else "Draws of each population parameter after warm-up, one color a chain. Chains that agree lie "
        "on one another, without trend. Ticks along the bottom are divergent transitions."
    )
    blocks.append(Drawing("trace", plots.trace(fitted.posterior), "Traces of the population parameters",
                          says))  # fmt: skip
    if found.divergences and found.converged:
        share = f"{found.divergences:,} of {found.transitions:,} transitions diverged"
        blocks.append(Finding("Divergent transitions", share, "none", None,
                              f"{share}, too few to matter but not none."))  # fmt: skip
    return blocks


def verdict_facts(found: Convergence, fitted: Fitted) -> list[tuple[str, str, str]]:
    """Return the numbers of a verdict: what, how much, and how much it may be."""
    sizes = fitted.posterior["posterior"].sizes
    chains, draws = sizes["chain"], sizes["draw"]
    facts = [("Method", str(fitted.posterior.attrs.get("method", "nuts")), "")]
    if found.pareto_k is not None:
        facts += [
            ("Pareto k of the weights", f"{found.pareto_k:.2f}", f"at most {MAX_PARETO_K}"),
            ("Effective sample size", number(found.ess_bulk), f"at least {MIN_ESS}"),
        ]
    else:
        facts += [
            ("Worst R-hat", f"{found.rhat:.3f}", f"at most {MAX_RHAT}"),
            ("Lowest bulk ESS", number(found.ess_bulk), f"at least {MIN_ESS}"),
            ("Lowest tail ESS", number(found.ess_tail), f"at least {MIN_ESS}"),
        ]
        known = found.transitions > 0
        diverging = f"{found.divergences:,} of {found.transitions:,}" if known else "not known"
        facts.append(("Divergent transitions", diverging, f"at most 1 in {DIVERGING_ONCE_IN:,}"))
    return [*facts, ("Chains × draws", f"{chains} × {draws:,}", "")]
