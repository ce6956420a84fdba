"""What is fitted to what, and in whose words? Titles, the model's own text, and its source in color."""

import inspect
import io
import re
import textwrap
import tokenize
from pathlib import Path

import numpy as np
import xarray as xr
from markupsafe import Markup, escape

from popk.inference.draws import model_source
from popk.model.sites import Model
from popk.trial import Trial


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


def subtitle_of(trial: Trial) -> str:
    """Return what several models were fitted to."""
    levels = int(np.sum(trial.observations.measured))
    file = Path(trial.host.name).name
    return f"data {file} · {trial.n_subjects:,} subjects · {levels:,} levels"


def differences(posterior: xr.DataTree, model: Model, trial: Trial) -> list[str]:
    """Return how the trial or the model differ from those that were fitted."""
    found = []
    o = trial.observations
    level = np.where(o.exact, o.value, np.nan)[np.asarray(o.measured)]
    fitted_to = posterior["observed_data"].dataset if "observed_data" in posterior else {}
    then = np.asarray(fitted_to["DV"]) if "DV" in fitted_to else None
    exact = np.asarray(o.exact)[np.asarray(o.measured)]
    if then is not None and (
        level.shape != then.shape or not np.allclose(level[exact], then[exact])
    ):
        found.append("the levels of this trial are not those that the posterior was fitted to: "
                     "report the trial of the fit, or fit again")  # fmt: skip
    fitted = str(posterior.attrs.get("model_source", "")).strip()
    if fitted and textwrap.dedent(fitted) != textwrap.dedent(model_source(model)).strip():
        found.append("the source of this model is not that of the fit, which is shown below: "
                     "report the model of the fit, or fit again")  # fmt: skip
    return found


def paragraphs(function: Model) -> list[str]:
    """Return the docstring of a model's file, paragraph by paragraph; a drawn table is left to it."""
    module = getattr(function, "__globals__", {})
    said = module.get("__doc__") if module.get("__name__") != "__main__" else None
    found = [p for p in re.split(r"\n\s*\n", said or "") if p.strip() and "====" not in p]
    return [" ".join(p.split()) for p in found]


def source_of(function: Model, posterior: xr.DataTree) -> str:
    """Return the model's source as it was fitted."""
    source = str(posterior.attrs.get("model_source") or model_source(function))
    return textwrap.dedent(source).strip()


def linked(paragraph: str) -> Markup:
    """Return a paragraph whose DOIs are links."""
    doi = r"doi:(10\.\d+/[^\s]*[^\s.,;)])"
    return Markup(re.sub(doi, r'<a href="https://doi.org/\1">doi:\1</a>', str(escape(paragraph))))


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    try:
        return list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):  # a lambda's source, or none
        return []


def colored(source: str) -> Markup:
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
