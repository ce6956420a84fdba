"""What is to be fitted? Jobs, as ``jobs.toml`` has them."""

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from popk.inference.fit import METHODS, fit
from popk.records.provenance import sha256

#: What a job may be, and what counts its parts.
KINDS = {"fit": "", "bootstrap": "replicates", "cross-validation": "folds"}
_READING = ("units", "columns", "covariates", "missing")
_OPTIONS = tuple(
    name
    for name in inspect.signature(fit).parameters
    if name not in ("model", "trial", "seed", "checkpoint", "progress")
)
_KEYS = (
    "name", "model", "data", "seed", "kind", "replicates", "folds", "report", *_READING, *_OPTIONS,
)  # fmt: skip
_TYPES = {
    "name": str, "model": str, "data": str, "kind": str, "method": str, "report": bool,
    "replicates": int, "folds": int, "units": Mapping, "columns": Mapping, "covariates": list,
    "missing": list,
}  # fmt: skip


class BatchError(ValueError):
    """Jobs that cannot be understood."""


class Job(NamedTuple):
    """One job, which ends in one run folder.

    Attributes
    ----------
    name : str
        Of the run folder.
    model, data : str
        Files.
    seed : int
    kind : str
        Of `KINDS`.
    parts : int
        How many replicates or folds there are beside the fit to all subjects.
    options : dict
        What `popk.fit` is told.
    reading : dict
        What `popk.read_nonmem` is told.
    report : bool
        Whether ``report.html`` is written as well.
    """

    name: str
    model: str
    data: str
    seed: int
    kind: str
    parts: int
    options: dict[str, Any]
    reading: dict[str, Any]
    report: bool

    def inputs(self) -> dict[str, Any]:
        """Return what the result depends on: hashes of files, seed and options.

        Raises
        ------
        BatchError
            There is no such model or data file.
        """
        files = {"model": Path(self.model), "data": Path(self.data)}
        for name, file in files.items():
            if not file.is_file():
                raise BatchError(f"there is no {name} file {file}; check the path")
        beside = files["data"].with_suffix(".toml")
        if beside.is_file():
            files["description"] = beside
        named = ("name", "report", *files)  # wherever they lie
        rest = {n: x for n, x in self._asdict().items() if n not in named}
        return {**rest, **{n: sha256(file.read_bytes()) for n, file in files.items()}}


def jobs_of(source: str | Path | Mapping[str, Any]) -> list[Job]:
    """Return the jobs of a TOML file, or of what it would hold.

    Parameters
    ----------
    source : path or mapping
        ``[defaults]`` and one ``[[job]]`` each; see `run_batch`. Paths in a file are relative to it.

    Raises
    ------
    BatchError
        Something in it cannot be understood; all problems are listed together.
    """
    if isinstance(source, Mapping):
        said, home, where = source, Path(), "the jobs"
    else:
        said, home, where = _read(Path(source)), Path(source).parent, str(source)
    listed = said.get("job")
    strange = [name for name in said if name not in ("defaults", "job")]
    if strange or not isinstance(listed, list) or not listed:
        raise BatchError(
            f"{where}: {', '.join(strange) or 'no job'}; write one [[job]] table for each job, and what is "
            f"common to them under [defaults]"
        )
    defaults, problems, jobs = said.get("defaults", {}), [], []
    for place, own in enumerate(listed, 1):
        told = {**defaults, **own}
        name = told.get("name", f"number {place}")
        if found := list(_problems(told)):
            problems += [f"job {name}: {one}" for one in found]
        else:
            jobs += _spread(told, home)
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"job {name}: there are {names.count(name)} of this name" for name in twice]
    if problems:
        raise BatchError("\n  ".join([f"{len(problems)} problems in {where}", *problems]))
    return jobs


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BatchError(f"{file} cannot be read as TOML: {error}") from error


def _problems(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a job."""
    for key in [key for key in told if key not in _KEYS]:
        yield f"{key} is no key of a job; it knows {', '.join(_KEYS)}"
    for key in [key for key in ("name", "model", "data") if key not in told]:
        yield f"{key} is missing"
    for key, kind in _TYPES.items():
        if key in told and not isinstance(told[key], kind):
            yield f"{key} is {told[key]!r}; give a {kind.__name__.lower()}"
    seeds = told.get("seed", 1)
    seeds = seeds if isinstance(seeds, list) else [seeds]
    if not seeds or any(type(seed) is not int for seed in seeds):
        yield f"seed is {told['seed']!r}; give an integer, or a list of them"
    if not re.fullmatch(r"\w[\w.-]*", str(told.get("name", "x"))):
        yield "its name is that of a run folder: letters, digits, - and _ alone"
    if (method := told.get("method", "nuts")) not in METHODS:
        yield f"method is {method!r}; it must be one of {', '.join(METHODS)}"
    kind = told.get("kind", "fit")
    if kind not in KINDS:
        yield f"kind is {kind!r}; it must be one of {', '.join(KINDS)}"
        return
    for other, count in KINDS.items():
        if kind != other and count in told:
            yield f"{count} means nothing to kind = {kind!r}"
    count = KINDS[kind]
    if count and not (type(told.get(count)) is int and told[count] >= 2):
        yield f"kind = {kind!r} needs {count}, an integer of at least 2"


def _spread(told: Mapping[str, Any], home: Path) -> list[Job]:
    """Return the jobs of one table: one for each of its seeds."""
    seeds, kind = told.get("seed", 1), told.get("kind", "fit")
    several = isinstance(seeds, list)
    return [
        Job(
            name=f"{told['name']}-seed{seed}" if several else told["name"],
            model=str((home / told["model"]).resolve()),
            data=str((home / told["data"]).resolve()),
            seed=seed,
            kind=kind,
            parts=int(told.get(KINDS[kind], 0)),
            options={n: told[n] for n in _OPTIONS if n in told},
            reading={n: told[n] for n in _READING if n in told},
            report=told.get("report", False),
        )
        for seed in (seeds if several else [seeds])
    ]
