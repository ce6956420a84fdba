"""How is a fit written up? A report that stands alone: a page, paper, a document, tables."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.model.sites import Model
from popk.reports.blocks import Report
from popk.reports.contents import contents
from popk.reports.document import docx
from popk.reports.fitted import DRAWS, Fitted
from popk.reports.page import html
from popk.reports.paper import pdf
from popk.reports.tables import zipped
from popk.trial import Trial

#: How each format is written, by the suffix of its file.
FORMATS: dict[str, Callable[[Report], bytes]] = {
    ".html": lambda report: html(report).encode("utf-8"),
    ".pdf": pdf,
    ".docx": docx,
    ".zip": zipped,
}
#: What formats are also called.
_ALSO = {"csv": ".zip"}


def report(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    path: str | Path,
    *,
    formats: Sequence[str] = (),
    without: Sequence[str] = (),
    external: Trial | None = None,
    seed: int = 1,
    draws: int = DRAWS,
    progress: bool = False,
) -> Path:
    """Write a fit up, and return where.

    The verdict comes first; then what was found at a glance, the data's disposition, the model's
    equations and source, priors, parameters, convergence, goodness of fit, predictive checks, effects
    of covariates, individual fits, sensitivity to priors, prediction error, limitations, and how to
    reproduce it all. A section that cannot be made says why in a sentence.

    Parameters
    ----------
    model : Callable
        The model that was fitted.
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial that it was fitted to.
    path : str or Path
        The file to write; its suffix says how: ``.html``, a page that loads nothing from elsewhere and
        follows the reader's light or dark; ``.pdf`` and ``.docx`` (with ``popk[report]``); ``.zip``, all
        tables as CSV with all digits. It appears complete or not at all. Missing folders are made.
    formats : sequence of str
        Further formats, written beside it under the same name: "html", "pdf", "docx", "csv".
    without : sequence of str
        Sections to leave out, such as "sensitivity" and "prediction", the slowest ones; the report says
        so.
    external : Trial, optional
        Subjects that the fit does not know, whose levels are predicted in the section on prediction
        error.
    seed : int
        Of the predictions.
    draws : int
        How many posterior draws are predicted from.
    progress : bool
        Whether to print which section is being made.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        The posterior has no population parameters, a format or section is unknown, or a format needs a
        package that is not installed.

    Examples
    --------
    >>> popk.report(theophylline, posterior, trial, "theophylline.html")  # doctest: +SKIP
    """
    paths = [Path(path), *(Path(path).with_suffix(_suffix(f)) for f in formats)]
    keep_compiled()
    fitted = Fitted(model, posterior, trial, seed=seed, draws=draws, external=external)
    return write(paths, lambda say: contents(fitted, without, say), progress=progress)


def write(paths: Sequence[Path], made: Callable[[Any], Report], *, progress: bool = False) -> Path:
    """Write a report in each format that a path asks for, and return the first path.

    Parameters
    ----------
    paths : sequence of Path
    made : Callable
        ``made(say)`` returns the report, telling ``say`` what it is at.
    progress : bool

    Raises
    ------
    ValueError
        A suffix is none of a format.
    KeyboardInterrupt
        It was interrupted; it says what was being made, and no file is left half written.
    """
    for one in paths:
        if one.suffix.lower() not in FORMATS:
            raise ValueError(
                f"{one} ends in {one.suffix!r}, which is no format of a report; end it in one of "
                f"{', '.join(FORMATS)}"
            )
    at = ""

    def say(what: str) -> None:
        nonlocal at
        at = what
        if progress:
            print(f"report: {what}", flush=True)

    try:
        found = made(say)
        for one in dict.fromkeys(paths):
            say(f"writing {one}")
            _written(FORMATS[one.suffix.lower()](found), one)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the report was interrupted at {at}; no file is half written"
        ) from None
    return paths[0]


def _suffix(name: str) -> str:
    """Return the suffix of a format."""
    suffix = _ALSO.get(name.lower(), f".{name.lower().lstrip('.')}")
    if suffix not in FORMATS:
        known = ", ".join([*(s[1:] for s in FORMATS if s != ".zip"), *_ALSO])
        raise ValueError(f"{name!r} is no format of a report; give some of {known}")
    return suffix


def suffixes(names: Sequence[str]) -> list[str]:
    """Return the suffixes of formats.

    Raises
    ------
    ValueError
        There is no such format.
    """
    return [_suffix(n) for n in names]


def _written(content: bytes, path: Path) -> Path:
    """Write a file beside its place and rename it: nobody ever reads half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(beside).chmod(0o644)  # mkstemp gives a file to its maker alone
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path
