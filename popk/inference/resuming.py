"""How does a fit that was killed go on? From a checkpoint beside the run folder that it will make."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from popk.inference.checkpoint import CheckpointError
from popk.inference.fit import METHODS, fit
from popk.model.sites import Model
from popk.runs import checkpoint_beside
from popk.trial import Trial

_LOG = logging.getLogger(__name__)


def resumed_fit(path: Path, model: Model, trial: Trial, options: Mapping[str, Any]) -> xr.DataTree:
    """Return the posterior by a fit that goes on where the same one was stopped.

    A checkpoint of another fit, or one that cannot be read, is set aside, and the fit starts anew.

    Parameters
    ----------
    path : Path
        The run folder that will be made; the checkpoint is beside it, hidden.
    model, trial
        See `popk.fit`.
    options : mapping
        What `popk.fit` is told. A method that knows no checkpoint does without.
    """
    method = METHODS.get(options.get("method", "nuts"))
    if method is None or "checkpoint" not in method.options:
        return fit(model, trial, **options)
    folder = checkpoint_beside(path)
    try:
        return fit(model, trial, **options, checkpoint=folder)
    except CheckpointError as error:
        aside = _aside(folder)
        _LOG.warning(
            "the fit starts anew: %s held a checkpoint %s, which is now %s; delete that if nothing is to "
            "go on from it", folder, error.why, aside,
        )  # fmt: skip
    return fit(model, trial, **options, checkpoint=folder)


def _aside(folder: Path) -> Path:
    """Return where a checkpoint is, after it was moved out of the way."""
    names = (folder.with_name(f"{folder.name}-{i}") for i in range(1, 10**6))
    aside = next(name for name in names if not name.exists())
    folder.rename(aside)
    return aside
