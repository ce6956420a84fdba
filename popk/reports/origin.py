"""How is the fit made again? Commands, hashes, settings and versions."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

from popk.model.sites import Model
from popk.plots.picture import number
from popk.reports.blocks import Block, Facts, Finding, Heading, Source, Words
from popk.reports.fitted import Fitted

Rows = list[tuple[str, str]]


def origin(fitted: Fitted) -> list[Block | Finding]:
    """Return the section on reproduction."""
    command = str(fitted.posterior.attrs.get("command", ""))
    long = (
        "command",
        "model_source",
        "mode",
        "standard_errors",
    )  # shown elsewhere, or by popk.estimates
    attrs = {str(k): v for k, v in fitted.posterior.attrs.items() if k not in long}
    settings, versions = (json.loads(attrs.pop(k, "{}")) for k in ("settings", "versions"))
    if "units" in attrs:
        attrs["units"] = ", ".join(f"{k} [{v}]" for k, v in json.loads(attrs["units"]).items())
    if "wall_time_s" in attrs:
        attrs["wall_time"] = f"{number(float(attrs.pop('wall_time_s')))} s"
    facts = [
        (k.replace("_", " ").replace("sha256", "SHA-256"), _plain(v)) for k, v in attrs.items()
    ]
    facts.append(("predictions of this report", f"seed {fitted.seed}, {fitted.draws} draws"))
    blocks: list[Block | Finding] = []
    if "trial_sha256" not in attrs:
        says = "The posterior does not say what it was made from: no hashes, versions or settings."
        blocks += [
            Words(says),
            Finding("Origin", "not recorded", "hashes and versions", False, says),
        ]
        facts.append(("trial SHA-256 of this report", fitted.trial.host.fingerprint))
    for name, says in _commands(fitted, settings, command):
        blocks += [Heading(name), Source(says, command=True)]
    blocks += [Heading("Made from"), Facts(facts)]
    if settings:
        blocks += [Heading("Settings"),
                   Facts([(k.replace("_", " "), _plain(v)) for k, v in settings.items()])]  # fmt: skip
    if versions:
        blocks += [Heading("Versions"), Facts([(k, str(v)) for k, v in versions.items()])]
    return blocks


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _commands(fitted: Fitted, settings: dict[str, Any], command: str) -> Rows:
    """Return the commands that make the fit again, in the shell and in Python."""
    posterior, seed, draws = fitted.posterior, fitted.seed, fitted.draws
    attrs, name = posterior.attrs, str(posterior.attrs.get("model", "model"))
    used, given, start = dict(settings), settings.get("centering", []), attrs.get("seed", 1)
    if (method := attrs.get("method", "nuts")) != "nuts":
        used = {"method": str(method), **used}
    alike = len(set(given)) < 2
    if given:
        of = [str(parameter) for parameter in posterior["posterior"].dataset["parameter"].values]
        used["centering"] = given[0] if alike else dict(zip(of, given, strict=True))
    options = "".join(f"    {k}={v!r},\n" for k, v in used.items())
    python = (
        f"trial = popk.read_nonmem({attrs.get('trial', '')!r})\n"
        f"posterior = popk.fit(\n    {name}, trial, seed={start},\n{options})\n"
        f"popk.report({name}, posterior, trial, 'report.html', seed={seed}, draws={draws})"
    )
    if command:
        return [("Shell, as it was given", command), ("Python", python)]
    file = _file_of(fitted.model)
    if file is None or not alike:  # the shell takes one centering for all
        return [("Python", python)]
    known = {k: v for k, v in used.items() if k != "max_depth" and v is not None}
    flags = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in known.items())
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
