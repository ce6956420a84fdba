"""What stands in a report, and in which order? Each section a function of the fit; nothing is hidden.

A section that cannot be made says why in one sentence, and the limitations repeat it: a reader must not
take silence for approval.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from popk.diagnostics.summary import kind, summary
from popk.plots.picture import number
from popk.reports import text
from popk.reports.blocks import (
    Block,
    Finding,
    Heading,
    Points,
    Report,
    Section,
    Source,
    Table,
    Words,
)
from popk.reports.checks import covariates, prediction, sensitivity
from popk.reports.deviations import effects, prediction_errors
from popk.reports.disposition import data
from popk.reports.equations import individual_equations, residual_equations, structure_equations
from popk.reports.estimates import chains, parameters, priors, verdict_facts
from popk.reports.exposures import exposed, noncompartmental
from popk.reports.fits import goodness, individuals, predictive
from popk.reports.fitted import Fitted
from popk.reports.origin import origin

Say = Callable[[str], None]


def model(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on the model: its words, equations and source."""
    blocks: list[Block | Finding] = [Words(p) for p in text.paragraphs(fitted.model)]
    parts = {
        "Structure": structure_equations,
        "Individuals": individual_equations,
        "Measurements": residual_equations,
    }
    for heading, made in parts.items():
        blocks += [Heading(heading), *made(fitted)]
    return [*blocks, Heading("Source"), Source(text.source_of(fitted.model, fitted.posterior))]


#: Sections in the reader's order. What they find goes to the summary before and the limitations after.
SECTIONS: tuple[tuple[str, str, Callable[[Fitted], Sequence[Block | Finding]]], ...] = (
    ("data", "Data", data),
    ("model", "Model", model),
    ("priors", "Priors", priors),
    ("parameters", "Parameters", parameters),
    ("convergence", "Convergence", chains),
    ("goodness", "Goodness of fit", goodness),
    ("vpc", "Visual predictive check", predictive),
    ("npde", "Prediction distribution errors", prediction_errors),
    ("effects", "Random effects", effects),
    ("covariates", "Effects of covariates", covariates),
    ("exposure", "Exposure by group", exposed),
    ("nca", "Noncompartmental check", noncompartmental),
    ("individual", "Individual fits", individuals),
    ("sensitivity", "Sensitivity to priors", sensitivity),
    ("prediction", "Prediction error", prediction),
    ("origin", "Reproduction", origin),
)


def contents(fitted: Fitted, without: Collection[str] = (), say: Say = lambda _: None) -> Report:
    """Return the whole report of a fit.

    Parameters
    ----------
    fitted : Fitted
    without : collection of str
        Keys of sections to leave out.
    say : Callable
        Told what is being made.

    Raises
    ------
    ValueError
        `without` names no section, or the posterior has no population parameters.
    """
    known = [key for key, *_ in SECTIONS]
    if strange := [w for w in without if w not in known]:
        raise ValueError(f"without names {', '.join(strange)}; the sections are {', '.join(known)}")
    found = fitted.verdict  # before all else: without population parameters there is no report
    made: list[Section] = []
    for i, (key, title, function) in enumerate(SECTIONS, start=1):
        say(f"section {i} of {len(SECTIONS)}: {title.lower()}")
        left_out = "it was left out on request" if key in without else ""
        made.append(_section(key, title, function, fitted, left_out))
    strange = text.differences(fitted.posterior, fitted.model, fitted.trial)
    facts = verdict_facts(found, fitted)
    first, last = _summary(fitted, made), _limitations(made, [*found.problems(), *strange])
    problems = [_sentence(p) for p in [*found.problems(), *strange]]
    verdict, advice = _verdict(found.converged, found.pareto_k is not None, bool(strange))
    if not problems:
        advice += _glance(made)
    return Report(
        text.title(fitted.model, fitted.posterior), text.subtitle(fitted.posterior, fitted.trial),
        verdict, not problems, advice, problems, facts, [first, *made[:-1], last, made[-1]],
    )  # fmt: skip


def _section(
    key: str,
    title: str,
    function: Callable[[Fitted], Sequence[Block | Finding]],
    fitted: Fitted,
    missing: str,
) -> Section:
    """Return a section, or why it is missing."""
    start, found = time.perf_counter(), []
    if not missing:
        try:
            found = list(function(fitted))
        except ValueError as error:  # what popk refuses
            missing = str(error).strip() or type(error).__name__
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the rest is still true
            first = str(error).strip().split("\n")[0]
            missing = f"its computation failed ({type(error).__name__}: {first})"
    return Section(
        key, title, [b for b in found if not isinstance(b, Finding)],
        [b for b in found if isinstance(b, Finding)], missing.rstrip("."),
        time.perf_counter() - start,
    )  # fmt: skip


def _verdict(converged: bool, weighted: bool, strange: bool) -> tuple[str, str]:
    """Return the verdict in a line, and what follows from it."""
    if converged and not strange:
        says = "The weights can be trusted" if weighted else "The chains converged"
        by = "weights" if weighted else "sampler"
        return says, (
            f"The posterior may be used, as far as the {by} can tell. Whether the model describes the "
            f"data is for the checks and figures below to show."
        )
    if converged:
        says = "The weights can be trusted" if weighted else "The chains converged"
        return "This is not what was fitted", (
            f"{says}, but the figures below do not belong to them. What is wrong, and what to do next:"
        )
    says = "The weights cannot be trusted" if weighted else "The chains did not converge"
    return says, "Do not use the estimates below yet. What is wrong, and what to do next:"


def _glance(made: Sequence[Section]) -> str:
    """Return how many checks found something, and which."""
    judged = [f for s in made for f in s.findings if f.good is not None]
    look = [f.check[:1].lower() + f.check[1:] for f in judged if not f.good]
    if not look:
        return f" All {len(judged)} checks at a glance are as wanted."
    return f" {len(look)} of {len(judged)} checks at a glance want a look: {', '.join(look)}."


def _sentence(problem: str) -> str:
    """Return a problem with a capital and a full stop, which would mar an option such as draws=."""
    return problem[:1].upper() + problem[1:] + ("" if problem.endswith((".", "=")) else ".")


def _summary(fitted: Fitted, made: Sequence[Section]) -> Section:
    """Return the first section: what was found, in two tables."""
    findings = [f for s in made for f in s.findings if f.good is not None]
    rows = [[f.check, f.value, f.wanted, "as wanted" if f.good else "look"] for f in findings]
    frame = pd.DataFrame(
        [(f.check, f.value, f.wanted, bool(f.good)) for f in findings],
        columns=["check", "found", "wanted", "good"],
    ).set_index("check")
    blocks: list[Block] = [Heading("Key estimates"), _key(fitted)]
    if not fitted.verdict.converged:
        blocks[0] = Heading("Key estimates: not to be used, the fit cannot be trusted")
    if rows:
        blocks += [Heading("Checks at a glance"),
                   Table("checks", ["Check", "Found", "Wanted", "Verdict"], {"": rows}, frame,
                         wordy=(0, 1, 2, 3), code=False)]  # fmt: skip
    if missing := [s.title.lower() for s in made if s.missing]:
        blocks.append(Words(f"Not in this report: {', '.join(missing)}; each section says why."))
    return Section("summary", "Summary", blocks)


def _key(fitted: Fitted) -> Table:
    """Return typical values with how much people differ."""
    table: Any = summary(fitted.posterior)
    beside = text.remarks(str(fitted.posterior.attrs.get("model_source", "")))
    rows, plain = [], []
    for name in [n for n in table.index if kind(n) in ("typical", "effect")][:14]:
        row, parameter = table.loc[name], name.removesuffix("_pop")
        spread = table["CV%"].get(f"omega_{parameter}", np.nan)
        cells = [name, beside.get(name, ""), number(row["median"])]
        cells += [f"{number(row['lower'])} to {number(row['upper'])}", number(spread)]
        rows.append(cells)
        plain.append((name, row["median"], row["lower"], row["upper"], spread))
    columns = ["parameter", "median", "lower", "upper", "IIV CV%"]
    frame = pd.DataFrame(plain, columns=columns).set_index("parameter")
    interval = f"{100 * table.attrs['interval']:g}% interval"
    heads = ["Parameter", "Unit or meaning", "Median", interval, "Between subjects, CV%"]
    return Table("key_estimates", heads, {"": rows}, frame, wordy=(0, 1))


def _limitations(made: Sequence[Section], problems: Sequence[str]) -> Section:
    """Return what a reader must not conclude, from what was found and what could not be looked at."""
    said = [_sentence(p) for p in problems]
    said += [f.limit for s in made for f in s.findings if f.limit]
    said += [f"Not checked: {s.title.lower()}, because {s.missing.split(chr(10))[0]}."
             for s in made if s.missing]  # fmt: skip
    if not said:
        said = ["The checks above found nothing to warn of. That does not make the model true."]
    last = ("This report judges the fit it was given. It does not say whether another model describes the "
            "data better (popk compare), nor whether assays, doses and times in the table are "
            "right.")  # fmt: skip
    blocks = [Points(said), Words(last)]
    return Section("limitations", "Limitations", blocks)
