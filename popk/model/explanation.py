"""Which solver does each structure of a model take, and why?"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax
from numpyro import handlers

from popk.model.sites import Model, describe
from popk.trial import Trial


class Tier(NamedTuple):
    """How one structure of a model is solved.

    Attributes
    ----------
    structure : str
        The compartments.
    tier : str
        "closed form", "linear system, ..." or "ODE solver, ...".
    why : str
        Why this one.
    """

    structure: str
    tier: str
    why: str


_asked: ContextVar[list[Tier] | None] = ContextVar("tiers", default=None)


@contextmanager
def _explaining() -> Iterator[list[Tier]]:
    """Collect the tiers that structures take while a model is traced."""
    found: list[Tier] = []
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)


def explained(structure: str, tier: str, why: str) -> None:
    """Say how a structure is solved, to whoever asks."""
    found = _asked.get()
    if found is not None:
        found.append(Tier(structure, tier, why))


def tiers(model: Model, trial: Trial) -> list[Tier]:
    """Return how each structure of a model is solved on a trial; nothing is computed.

    Parameters
    ----------
    model : Callable
    trial : Trial

    Raises
    ------
    ModelError
        The model cannot be used with the trial.
    """
    describe(model, trial)
    seeded = handlers.seed(model, jax.random.key(0))
    with _explaining() as found:
        jax.eval_shape(
            lambda arrays: handlers.trace(seeded).get_trace(arrays) and None, trial.arrays()
        )
    return found
