"""What is a run folder? The posterior, the model's source and the trial, with every file hashed.

A folder appears complete or not at all: it is written beside its place and renamed.
"""

import contextlib
import glob
import hashlib
import importlib.util
import inspect
import io
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from popk.records.provenance import sha256
from popk.trial import Trial, read_nonmem

Model = Callable[[Trial], Any]

_HEADER = """import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk


"""


#: What stands after the name of a run folder while it is written, and while it is replaced.
_STAGING, _OLD = "staging-", ".old"


class RunError(ValueError):
    """A run folder or a model file that cannot be read or written."""


class Run:
    """A run folder that was opened with `open_run`.

    Parameters
    ----------
    path : Path
        The folder.
    info : dict
        ``run.json``: hashes, versions, seed, settings, units, convergence.
    """

    def __init__(self, path: Path, info: dict[str, Any]):
        self.path, self.info = path, info

    @cached_property
    def posterior(self) -> xr.DataTree:
        """Return the posterior, as `popk.fit` returned it."""
        with xr.open_datatree(self.path / "posterior.nc", engine="h5netcdf") as tree:
            return tree.load()

    @cached_property
    def model(self) -> Model:
        """Return the model function, from the source that was kept."""
        return load_model(self.path / "model.py", self.info["model"])

    @cached_property
    def trial(self) -> Trial:
        """Return the trial that was fitted."""
        given = self.info["trial"]
        frame = read_nonmem(
            self.path / "trial.csv", units=given["units"], covariates=given["covariates"]
        ).to_dataframe()
        frame.attrs = {
            "levels": given["levels"],
            "units": given["units"],
            "covariates": given["covariates"],
            "name": given["name"],
        }
        return read_nonmem(frame)

    def __repr__(self) -> str:
        """Return what was fitted to what."""
        return f"Run({str(self.path)!r}: {self.info['model']} on {self.info['trial']['name']})"


def open_run(path: str | Path) -> Run:
    """Return a run folder, every file in it checked against its hash.

    Parameters
    ----------
    path : path
        The folder that `popk fit` or `save_run` made.

    Raises
    ------
    RunError
        It is no run folder, a file is missing, or a file is not the one that was written.

    Examples
    --------
    >>> run = popk.open_run("runs/theophylline")  # doctest: +SKIP
    """
    folder = Path(path)
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        files = info["files"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise RunError(
            f"{path} is no run folder: run.json is missing or unreadable; "
            f"make one with popk fit MODEL DATA --out {path}"
        ) from error
    for name, recorded in files.items():
        file = folder / name
        if not file.is_file():
            raise RunError(f"{file} is missing; fit again, or restore it")
        if sha256(file.read_bytes()) != recorded:
            raise RunError(
                f"{file} is not the file that the fit wrote (its SHA-256 differs); fit again, "
                f"or restore it"
            )
    return Run(folder, info)


def save_run(
    path: str | Path, model: Model, posterior: xr.DataTree, trial: Trial, *, overwrite: bool = False
) -> Run:
    """Write a run folder and return it opened.

    Parameters
    ----------
    path : path
        The folder to make; its parents are made too.
    model, posterior, trial
        What was fitted. The model's source must be readable, and needs nothing but its own file.
    overwrite : bool
        Whether an existing run folder is replaced.

    Raises
    ------
    RunError
        The folder exists or cannot be written, or the model's source cannot be had.
    """
    with staged_run(path, overwrite=overwrite) as folder:
        write_run(folder, model, posterior, trial)
    return open_run(path)


@contextlib.contextmanager
def staged_run(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder that takes the place of `path` when all went well, and goes if not.

    What a killed process left there goes too, and an old run that it was about to replace comes back.

    Raises
    ------
    RunError
        The folder exists (without `overwrite`), is no run folder, cannot be written, or another process
        is writing it.
    """
    final = Path(path)
    _clear(final)
    if final.exists() and not overwrite:
        raise RunError(f"{final} exists; choose another folder, or replace it with --overwrite")
    if final.exists() and not (final / "run.json").is_file():
        raise RunError(f"{final} is no run folder, so it is not overwritten; choose another folder")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.{_STAGING}", dir=final.parent))
    except OSError as error:
        raise RunError(
            f"{final} cannot be written: {error.strerror}; choose another folder"
        ) from error
    lock = _locked(staging)
    try:
        yield staging
        staging.chmod(0o755)
        if final.exists():
            old = staging.with_name(staging.name + _OLD)
            final.rename(old)
            staging.rename(final)
            shutil.rmtree(old)
        else:
            staging.rename(final)
    except OSError as error:
        raise RunError(f"{final} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _clear(final: Path) -> None:
    """Remove what a killed process left beside a run folder; refuse where one is alive."""
    beside = sorted(final.parent.glob(f".{glob.escape(final.name)}.{_STAGING}*"))
    for staging in [p for p in beside if p.suffix != _OLD and sys.platform != "win32"]:
        lock = _locked(staging)
        if lock is None and staging.exists():
            raise RunError(
                f"{final} is being written by another process; wait until that has ended"
            )
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)
    for old in [p for p in beside if p.suffix == _OLD]:
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renamings
            old.rename(final)


def _locked(folder: Path) -> int | None:
    """Return a lock of a folder, which the system takes back when the process ends; None if it is held."""
    if sys.platform == "win32":
        return None
    import fcntl  # there is none on Windows

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def checkpoint_beside(path: str | Path) -> Path:
    """Return the hidden folder in which a fit keeps how far it is, beside the run folder it will make."""
    final = Path(path)
    return final.with_name(f".{final.name}.checkpoint")


def write_run(
    folder: Path,
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of a run into a folder, ``run.json`` last.

    Parameters
    ----------
    more : mapping, optional
        What else ``run.json`` should say: the verdict on convergence, the command.
    """
    # By way of memory: where the disk is full HDF5 takes the whole process with it.
    buffer = io.BytesIO()
    posterior.to_netcdf(buffer, engine="h5netcdf")
    (folder / "posterior.nc").write_bytes(buffer.getvalue())
    (folder / "model.py").write_text(_source(model), encoding="utf-8")
    name = getattr(model, "__name__", "model")
    load_model(folder / "model.py", name)  # a model that cannot be read back is worth nothing
    frame = trial.to_dataframe()
    frame.to_csv(folder / "trial.csv", index=False, na_rep=".")
    files = ("posterior.nc", "model.py", "trial.csv")
    info = {
        **{
            k: json.loads(v) if k in ("settings", "versions") else v
            for k, v in posterior.attrs.items()
            if k != "model_source"
        },
        "model": name,
        "trial": {
            "name": trial.host.name,
            "sha256": trial.host.fingerprint,
            "units": trial.units,
            "covariates": list(trial.host.covariates),
            "levels": trial.host.levels,
        },
        **(more or {}),
        "files": {file: sha256((folder / file).read_bytes()) for file in files},
    }
    text = json.dumps(info, indent=2, default=_plain)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")
    for file in (*files, "run.json"):
        _flush(folder / file)


def verdict_of(convergence: Any) -> dict[str, Any]:
    """Return a verdict on convergence as ``run.json`` has it; what is no number is null there."""
    facts = {n: None if x != x else x for n, x in convergence._asdict().items()}
    return {**facts, "converged": convergence.converged}


def load_model(path: str | Path, name: str | None = None) -> Model:
    """Return the model of a Python file: its one public function whose sole required argument is `trial`.

    Parameters
    ----------
    path : path
    name : str, optional
        Which function, where a file has several.

    Raises
    ------
    RunError
        There is no such file, running it raises, or it has no such function or more than one.
    """
    file = Path(path)
    if not file.is_file():
        raise RunError(f"there is no model file {file}; check the path")
    content = file.read_bytes()
    module_name = f"popk_model_{file.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise RunError(f"{file} is no Python file; a model file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that inspect finds its source and text
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        at = f" at line {lines[-1]}" if lines else ""
        raise RunError(f"{file}{at} raised {type(error).__name__}: {error}") from error
    found = {n: f for n, f in vars(module).items() if _is_model(n, f, module_name)}
    if name is not None:
        found = {n: f for n, f in found.items() if n == name}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise RunError(
            f"{file} has {len(found)} model functions ({', '.join(found)}); a model file has "
            f"one: begin the names of the others with an underscore"
        )
    raise RunError(
        f"{file} has no model function: define one whose only required argument is `trial`"
    )


def _is_model(name: str, value: Any, module: str) -> bool:
    if name.startswith("_") or not inspect.isfunction(value) or value.__module__ != module:
        return False
    required = [
        p.name
        for p in inspect.signature(value).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return required == ["trial"]


def _source(model: Model) -> str:
    """Return the text of a model's file, or of the function under the usual imports in a notebook."""
    try:
        file = inspect.getsourcefile(model)
        source = inspect.getsource(model)
    except (OSError, TypeError) as error:
        raise RunError(
            "the model's source cannot be read; define it in a file or a notebook cell"
        ) from error
    module = inspect.getmodule(model)
    named = getattr(model, "__name__", "")
    if file and module and module.__name__ != "__main__":
        models = [n for n, f in vars(module).items() if _is_model(n, f, module.__name__)]
        if models == [named]:
            return Path(file).read_text(encoding="utf-8")
    return _HEADER + inspect.cleandoc("\n" + source) + "\n"


def _plain(value: Any) -> Any:
    """Return a NumPy value as JSON knows it."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
