"""In what manner are levels observed? Which records they are, and whether each speaks for itself."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro import handlers

from popk.model.sites import Model
from popk.trial import Trial


class Manner(NamedTuple):
    """How a model observes its levels.

    Attributes
    ----------
    asked : dict of str to str
        The sites of levels, and what each asks for: ``DVID 3 CMT 2``.
    apart : bool
        Whether each level has information on its own prediction, whatever the others are, as the
        Laplace approximation needs.
    chained : bool
        Whether errors are autocorrelated, which censored levels cannot be.
    """

    asked: dict[str, str]
    apart: bool
    chained: bool


def manner_of(model: Model, trial: Trial) -> Manner:
    """Return how a model that `describe` knows observes the levels of a trial; nothing is computed.

    Parameters
    ----------
    model : Callable
    trial : Trial
    """
    leaves, structure = jax.tree.flatten(trial.arrays())
    return _manner(model, structure, tuple((np.shape(x), np.result_type(x)) for x in leaves))


@lru_cache(maxsize=256)
def _manner(model: Model, structure: Any, leaves: tuple[Any, ...]) -> Manner:
    found: list[Manner] = []

    def run(arrays: Trial) -> None:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(arrays)
        levels = {n: site for n, site in trace.items() if "kinds" in site.get("infer", {})}
        each = [site["fn"] for site in levels.values()]
        asked = {n: site["infer"]["asked"] for n, site in levels.items()}
        found.append(Manner(asked, all(map(_apart, each)), any(map(_chained, each))))

    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in leaves]
    jax.eval_shape(run, jax.tree.unflatten(structure, shapes))
    return found[0]


def _apart(levels: Any) -> bool:
    try:
        levels.gauss_newton() if hasattr(levels, "gauss_newton") else levels.information()
    except ValueError:
        return False
    return True


def _chained(levels: Any) -> bool:
    one = getattr(levels, "classes", (levels,))[0]
    return bool(getattr(getattr(one, "error", None), "autocorrelated", False))
