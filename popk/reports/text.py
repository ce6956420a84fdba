"""What does the page say? Its words and tables, made from a model, a posterior and a trial."""

import inspect
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup, escape

from popk.diagnostics.summary import kind, scale_of, summary
from popk.inference.draws import model_source
from popk.model.outcomes import Outcomes
from popk.model.sites import Model
from popk.plots.picture import number, with_unit
from popk.trial import Trial

Rows = list[tuple[str, str]]

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


def title(model: Model, posterior: xr.DataTree) -> str:
    """Return the first sentence of the model's docstring, or its name."""
    doc = (inspect.getdoc(model) or "").strip().split("\n\n")[0].replace("\n", " ")
    return doc.rstrip(".") or str(posterior.attrs.get("model", "Population model"))


def subtitle(posterior: xr.DataTree, trial: Trial) -> str:
    """Return what was fitted to what, and when."""
    levels = int(np.sum(trial.observations.measured))
    made = str(posterior.attrs.get("created_at", ""))[:10]
    name = posterior.attrs.get("model")
    parts = [
        f"Model {name}" if name else "", f"data {Path(trial.host.name).name}",
        f"{trial.n_subjects:,} subjects", f"{levels:,} levels", made,
    ]  # fmt: skip
    return " · ".join(part for part in parts if part)


def differences(posterior: xr.DataTree, model: Model, trial: Trial) -> list[str]:
    """Return how the trial or the model differ from those that were fitted."""
    found = []
    observed = posterior["observed_data"].dataset
    o = trial.observations
    measured = np.asarray(o.measured)
    level = np.asarray(o.value)[measured]
    if level.shape != observed["DV"].shape or not np.allclose(level, observed["DV"].values):
        found.append("the levels of this trial are not those that the posterior was fitted to: "
                     "report the trial of the fit, or fit again")  # fmt: skip
    fitted = str(posterior.attrs.get("model_source", "")).strip()
    if fitted and textwrap.dedent(fitted) != textwrap.dedent(model_source(model)).strip():
        found.append("the source of this model is not that of the fit, which is shown below: "
                     "report the model of the fit, or fit again")  # fmt: skip
    return found


def data(trial: Trial, endpoints: Mapping[str, Outcomes] | None = None) -> dict[str, Any]:
    """Return the trial in tables: counts, and covariates at the first record.

    Parameters
    ----------
    trial : Trial
    endpoints : mapping of site to Outcomes, optional
        The sites of what is no level.
    """
    units, column = trial.units, {n: c.to_numpy() for n, c in trial.host.frame.items()}
    counts = [(str(k).capitalize(), _count(v)) for k, v in trial.summary().items()]
    dosed = np.isin(column["EVID"], [1, 4])
    if dosed.any():
        counts.append(("Amount of a dose", _spread(column["AMT"][dosed], units["AMT"])))
        infused = int((column["RATE"][dosed] > 0).sum())
        counts.append(("Infusions", f"{infused:,} of {int(dosed.sum()):,} dose records"))
    seen = (column["EVID"] == 0) & (column["MDV"] == 0)
    seen &= (column["BLQ"] == 0) & (column["ALQ"] == 0)
    outcome = np.zeros_like(seen)
    for name, endpoint in (endpoints or {}).items():
        own = seen & np.isin(column["DVID"], [k for _, k in endpoint.kinds])
        own &= np.isin(np.abs(column["CMT"]), [c for c, _ in endpoint.kinds])
        outcome |= own
        counts.append((f"{endpoint.name.capitalize()} ({name})", _outcomes(column["DV"][own])))
    if (seen & ~outcome).any() or not outcome.any():
        counts.append(("Level (DV)", _spread(column["DV"][seen & ~outcome], units["DV"])))
    begins = ~trial.host.frame["ID"].duplicated().to_numpy()
    covariates = []
    for name in trial.host.covariates:
        values = column[name][begins]
        known = ~np.isnan(values)
        middle, others = _described(values[known], trial.host.levels.get(name, {}))
        described = middle, others + ("" if known.all() else f", missing {(~known).sum()}")
        varies = "yes" if trial.covariate(name, missing=0).shape[1] > 1 else "no"
        covariates.append((name, _unit(units[name]), *described, varies))
    return {"file": trial.host.name, "counts": counts, "covariates": covariates}


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


def _described(values: np.ndarray, levels: dict[str, str]) -> tuple[str, str]:
    """Return a covariate's median and range, or the count of each category."""
    if not levels:
        low, middle, high = _range(values)
        return middle, f"{low} to {high}"
    codes, counts = np.unique(values, return_counts=True)
    named = [levels.get(f"{code:g}", f"{code:g}") for code in codes]
    return "", ", ".join(f"{name} {count}" for name, count in zip(named, counts, strict=True))


def model(function: Model, posterior: xr.DataTree) -> dict[str, Any]:
    """Return the model in words: its file's docstring, and its source as it was fitted."""
    module = getattr(function, "__globals__", {})
    said = module.get("__doc__") if module.get("__name__") != "__main__" else None
    paragraphs = [
        _linked(" ".join(p.split())) for p in re.split(r"\n\s*\n", said or "") if p.strip()
    ]
    return {"paragraphs": paragraphs, "source": _colored(source_of(function, posterior))}


def source_of(function: Model, posterior: xr.DataTree) -> str:
    """Return the model's source as it was fitted."""
    source = str(posterior.attrs.get("model_source") or model_source(function))
    return textwrap.dedent(source).strip()


def _linked(paragraph: str) -> Markup:
    """Return a paragraph whose DOIs are links."""
    doi = r"doi:(10\.\d+/[^\s]*[^\s.,;)])"
    return Markup(re.sub(doi, r'<a href="https://doi.org/\1">doi:\1</a>', str(escape(paragraph))))


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    try:
        return list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):  # a lambda's source, or none
        return []


def _colored(source: str) -> Markup:
    """Return Python source with its comments and strings marked."""
    starts = np.cumsum([0, *(len(line) + 1 for line in source.split("\n"))])
    kinds = {tokenize.COMMENT: "c", tokenize.STRING: "s"}
    html, at = Markup(), 0
    for token in [t for t in _tokens(source) if t.type in kinds]:
        start = int(starts[token.start[0] - 1]) + token.start[1]
        end = int(starts[token.end[0] - 1]) + token.end[1]
        html += escape(source[at:start])
        html += Markup('<span class="{}">{}</span>').format(kinds[token.type], source[start:end])
        at = end
    return html + escape(source[at:])


def remarks(source: str) -> dict[str, str]:
    """Return the comment beside each ``sample("NAME", ...)`` of a model: by custom, the unit.

    Examples
    --------
    >>> remarks('CL = numpyro.sample("CL_pop", prior)  # L/h at 70 kg')
    {'CL_pop': 'L/h at 70 kg'}
    """
    comments = {
        t.start[0]: t.string.lstrip("# ") for t in _tokens(source) if t.type == tokenize.COMMENT
    }
    found = {}
    for i, line in enumerate(source.split("\n"), start=1):
        site = re.search(r"sample\(\s*f?[\"'](\w+)[\"']", line)
        if site and i in comments:
            found[site[1]] = comments[i]
    return found


def parameters(posterior: xr.DataTree, trial: Trial) -> dict[str, Any]:
    """Return the table of parameters, in groups, and what is fixed."""
    table = summary(posterior)
    beside = remarks(str(posterior.attrs.get("model_source", "")))
    groups: dict[str, list[list[str]]] = {}
    for name, *numbers, rhat, bulk, tail in table.itertuples(name=None):
        cells = [name, beside.get(name) or _meaning(name, trial, posterior), *map(number, numbers)]
        cells += [f"{rhat:.3f}" if rhat == rhat else "", number(bulk), number(tail)]
        groups.setdefault(HEADINGS[kind(name)], []).append(cells)
    dataset = posterior["posterior"].dataset
    names = [str(n) for n in np.atleast_1d(dataset.attrs.get("fixed", [])) if str(n) in dataset]
    fixed = [(n, number(float(dataset[n].values.flat[0]))) for n in names]
    return {"groups": groups, "fixed": fixed, "interval": f"{100 * table.attrs['interval']:g}%"}


def _meaning(name: str, trial: Trial, posterior: xr.DataTree) -> str:
    """Return what a parameter of popk's own is, with its unit."""
    if scale := scale_of(name, posterior):
        return f"SD, {scale} scale"
    if name.startswith("corr["):
        return "of " + name[5:-1].replace(", ", " and ")
    known = {
        "sigma_additive": f"SD, {_unit(trial.units['DV'])}",
        "sigma_proportional": "SD, fraction of IPRED",
        "sigma_log": "SD, log scale",
        "dispersion": "(variance - mean) / mean²",
        "zeros": "share of further zeros",
        "cutpoint": "lowest cutpoint, logit",
        "step": "to the next cutpoint, logit",
    }
    return next((says for begin, says in known.items() if name.startswith(begin)), "")


def origin(
    function: Model, posterior: xr.DataTree, trial: Trial, page: str, *, seed: int, draws: int
) -> dict[str, Any]:
    """Return how to make the fit and the page again: facts, settings, versions and commands."""
    long = ("model_source", "mode", "standard_errors")  # shown elsewhere, or by popk.estimates
    attrs = {str(k): v for k, v in posterior.attrs.items() if k not in long}
    settings, versions = (json.loads(attrs.pop(k, "{}")) for k in ("settings", "versions"))
    if "wall_time_s" in attrs:
        attrs["wall_time"] = f"{number(float(attrs.pop('wall_time_s')))} s"
    facts = [
        (k.replace("_", " ").replace("sha256", "SHA-256"), _plain(v)) for k, v in attrs.items()
    ]
    facts.append(("predictions of this page", f"seed {seed}, {draws} draws"))
    return {
        "facts": facts,
        "settings": [(k.replace("_", " "), _plain(v)) for k, v in settings.items()],
        "versions": [(k, str(v)) for k, v in versions.items()],
        "commands": _commands(function, posterior, page, settings, seed=seed, draws=draws),
    }


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _commands(
    function: Model,
    posterior: xr.DataTree,
    page: str,
    settings: dict[str, Any],
    *,
    seed: int,
    draws: int,
) -> Rows:
    """Return the commands that make the fit again, in the shell and in Python."""
    attrs, name = posterior.attrs, str(posterior.attrs.get("model", "model"))
    used, given, start = dict(settings), settings.get("centering", []), attrs.get("seed", 1)
    if (method := attrs.get("method", "nuts")) != "nuts":
        used = {"method": str(method), **used}
    alike = len(set(given)) < 2
    if given:
        of = [str(parameter) for parameter in posterior["posterior"].dataset["parameter"].values]
        used["centering"] = given[0] if alike else dict(zip(of, given, strict=True))
    options = ", ".join(f"{k}={v!r}" for k, v in used.items())
    python = (
        f"trial = popk.read_nonmem({attrs.get('trial', '')!r})\n"
        f"posterior = popk.fit(\n    {name}, trial, seed={start},\n    {options},\n)\n"
        f"popk.report({name}, posterior, trial, {page!r}, seed={seed}, draws={draws})"
    )
    file = _file_of(function)
    if file is None or not alike:  # the shell takes one centering for all
        return [("Python", python)]
    flags = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in used.items() if k != "max_depth")
    shell = (
        f"popk fit {file} {attrs.get('trial', '')} --out runs/{name} \\\n    --seed {start} {flags}"
    )
    return [("Shell", shell), ("Python", python)]


def _file_of(function: Model) -> str | None:
    """Return the model's file as one would name it from here, None if it has none."""
    try:
        path = Path(inspect.getsourcefile(function) or "")
    except TypeError:
        return None
    if path.suffix != ".py" or not path.is_file():
        return None
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name
