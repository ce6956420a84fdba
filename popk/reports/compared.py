"""Which of several models? One report: verdicts, differences, parameters and checks side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from popk import plots
from popk.diagnostics.summary import KINDS, kind, summary
from popk.diagnostics.vpc import vpc
from popk.plots.picture import number
from popk.reports import text
from popk.reports.blocks import (
    Block,
    Drawing,
    Facts,
    Heading,
    Report,
    Section,
    Source,
    Table,
    Words,
)
from popk.reports.contents import Say
from popk.reports.estimates import HEADINGS, verdict_facts
from popk.reports.fitted import Fitted

#: Below this difference, or twice its standard error, models are not told apart (Sivula et al. 2025).
LEAST = 4.0


def comparison(runs: Mapping[str, Any], table: pd.DataFrame, say: Say = lambda _: None) -> Report:
    """Return the report of several models of the same levels.

    Parameters
    ----------
    runs : mapping of str to Run
        As `popk.open_run` returns them.
    table : DataFrame
        As `popk.compare` returns it for them.
    say : Callable
        Told what is being made.
    """
    fits = {n: Fitted(runs[n].model, runs[n].posterior, runs[n].trial) for n in table.index}
    named: dict[str, tuple[str, Callable[[], Sequence[Block]]]] = {
        "verdicts": ("Verdicts", lambda: _verdicts(fits)),
        "differences": ("Differences in prediction", lambda: _differences(table)),
        "parameters": ("Parameters side by side", lambda: _parameters(fits)),
        "vpc": ("Visual predictive checks", lambda: _checks(fits)),
        "models": ("Models", lambda: _models(fits)),
    }
    sections = []
    for i, (key, (title, made)) in enumerate(named.items(), start=1):
        say(f"section {i} of {len(named)}: {title.lower()}")
        sections.append(Section(key, title, made()))
    bad = {n: f.verdict.problems() for n, f in fits.items() if not f.verdict.converged}
    problems = [
        f"{n}: {p}" + ("" if p.endswith((".", "=")) else ".") for n, own in bad.items() for p in own
    ]
    verdict, advice = _best(table, sorted(bad))
    first = next(iter(fits.values()))
    return Report(
        f"Comparison of {len(fits)} models", text.subtitle_of(first.trial), verdict, not bad, advice,
        problems, [], sections,
    )  # fmt: skip


def _best(table: pd.DataFrame, bad: Sequence[str]) -> tuple[str, str]:
    """Return which model predicts best, in a line, and how sure that is."""
    if bad:
        return (
            f"{len(bad)} of {len(table)} models did not converge: {', '.join(bad)}",
            "Do not choose by the differences below yet: those of a fit that did not converge mean nothing.",
        )
    best, second = table.index[:2]
    gap, error = abs(float(table.loc[second, "elpd_diff"])), float(table.loc[second, "dse"])
    if gap < LEAST or gap < 2 * error:
        return "The best models cannot be told apart", (
            f"{best} predicts subjects left out best, by {number(gap)} ± {number(error)} (elpd) over "
            f"{second}: too little to choose by. Take the simpler one, or the one that makes more sense."
        )
    return f"{best} predicts best", (
        f"It predicts subjects left out better than {second}, the next, by {number(gap)} ± "
        f"{number(error)} (elpd). Whether it describes the data is for its own report to show."
    )


def _verdicts(fits: Mapping[str, Fitted]) -> list[Block]:
    facts = {n: verdict_facts(f.verdict, f) for n, f in fits.items()}
    heads = list(dict.fromkeys(h for own in facts.values() for h, *_ in own))
    rows, plain = [], {}
    for name, own in facts.items():
        by = {h: value for h, value, _ in own}
        verdict = "converged" if fits[name].verdict.converged else "NOT CONVERGED"
        rows.append([name, verdict, *(by.get(h, "–") for h in heads)])
        plain[name] = {"converged": fits[name].verdict.converged, **by}
    frame = pd.DataFrame.from_dict(plain, orient="index").rename_axis("model")
    return [Table("verdicts", ["Model", "Verdict", *heads], {"": rows}, frame, wordy=(0, 1))]


def _differences(table: Any) -> list[Block]:
    rows = [
        [n, f"{int(r['rank'])}", number(float(r["elpd_diff"])), number(float(r["dse"])),
         number(float(r["elpd"])), number(float(r["se"])), number(float(r["p"])), f"{r['weight']:.2f}",
         "yes" if r["converged"] else "NO", _careful(r)]
        for n, r in table.iterrows()
    ]  # fmt: skip
    columns = ["Model", "Rank", "Difference to the best", "Its SE", "elpd", "SE", "Effective parameters",
               "Weight", "Converged", "Careful"]  # fmt: skip
    notes = [
        ("elpd", "expected log predictive density of subjects left out, random effects integrated out: "
                 "higher is better (Vehtari et al. 2017, doi:10.1007/s11222-016-9696-4)."),
        ("Difference", f"below about {LEAST:g}, or two of its standard errors, it does not tell models "
                       "apart (Sivula et al. 2025, doi:10.48550/arXiv.2008.10296)."),
        ("Careful", "subjects whom weights cannot leave out (Pareto k above the limit): the difference is "
                    "then approximate, and popk compare --refit fits again without them."),
        ("Weight", "of the best mixture of all models' predictions (stacking)."),
    ]  # fmt: skip
    return [Table("differences", columns, {"": rows}, table.rename_axis("model"), wordy=(0, 8, 9),
                  notes=notes)]  # fmt: skip


def _careful(row: Any) -> str:
    """Return what ArviZ says of a model's estimate, nothing where it says nothing."""
    return "; ".join(str(row[n]) for n in ("diag_elpd", "diag_diff") if str(row.get(n, "")).strip())


def _parameters(fits: Mapping[str, Fitted]) -> list[Block]:
    tables: dict[str, Any] = {n: summary(f.posterior) for n, f in fits.items()}
    names = list(dict.fromkeys(p for t in tables.values() for p in t.index))
    names.sort(key=lambda n: KINDS.index(kind(n)))
    groups: dict[str, list[list[str]]] = {}
    for name in names:
        cells = [name]
        for table in tables.values():
            if name not in table.index:
                cells.append("–")
                continue
            row = table.loc[name]
            middle, low, high = (number(row[c]) for c in ("median", "lower", "upper"))
            cells.append(f"{middle} ({low} to {high})")
        groups.setdefault(HEADINGS[kind(name)], []).append(cells)
    frame = pd.concat({n: t[["median", "lower", "upper"]] for n, t in tables.items()}, axis=1)
    frame.columns = [f"{model} {what}" for model, what in frame.columns]
    note = [
        ("Cells", "posterior median and 90% interval; – where the model has no such parameter.")
    ]
    return [Table("parameters", ["Parameter", *tables], groups, frame.reindex(names), notes=note)]


def _checks(fits: Mapping[str, Fitted]) -> list[Block]:
    found: list[Block] = [
        Words("Prediction-corrected checks on the same levels. Each observed percentile (line) should stay "
              "within the band of its color.")
    ]  # fmt: skip
    for i, (name, fitted) in enumerate(fits.items()):
        try:
            check = vpc(fitted.new, fitted.trial, prediction_corrected=True)
        except ValueError as error:  # no levels, or a model whose trial cannot be simulated
            found.append(Words(f"{name}: no predictive check: {error}."))
            continue
        figure = plots.vpc(check, log=fitted.wide)
        found.append(Drawing(f"vpc{i}", figure, f"Predictive check of {name}", name, half=True))
    return found


def _models(fits: Mapping[str, Fitted]) -> list[Block]:
    found: list[Block] = []
    for name, fitted in fits.items():
        attrs = fitted.posterior.attrs
        known = {k: str(attrs[k]) for k in ("model_sha256", "trial_sha256", "seed", "created_at")
                 if k in attrs}  # fmt: skip
        found += [Heading(name), Source(text.source_of(fitted.model, fitted.posterior))]
        found.append(Facts([(k.replace("sha256", "SHA-256").replace("_", " "), v)
                            for k, v in known.items()]))  # fmt: skip
    return found
