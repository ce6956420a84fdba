"""When does each occasion of a subject begin, and what holds at its records?"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.reasons import refusing
from popk.trial import Trial


def between_starts(trial: Trial, column: str) -> Float[Array, "s o"]:
    """Return the time since the occasion before began [unit of TIME], 0 of the first and of none.

    Parameters
    ----------
    trial : Trial
    column : str
        A covariate that numbers occasions; NaN where one begins before the end of the one before.
    """
    occasion, count = trial.occasions(column)
    rows = jnp.arange(occasion.shape[0])[:, None]
    none = jnp.full((occasion.shape[0], count), jnp.inf)
    starts = none.at[rows, occasion].min(jnp.where(trial.recorded, trial.time, jnp.inf))
    ends = (-none).at[rows, occasion].max(jnp.where(trial.recorded, trial.time, -jnp.inf))[:, :-1]
    known = jnp.isfinite(starts[:, 1:])
    since = jnp.where(known, starts[:, 1:], 0.0)
    late = jnp.where(known, ends - since, 0.0)
    refusing(
        lambda found: (
            f"an occasion of {column} begins {found} before the end of the one before: a drift needs "
            f"occasions on one clock; give TIME without restarts, or take iov="
        ),
        late,
        late <= 0,
    )
    passed = jnp.where(known, since - starts[:, :-1], 0.0)
    return jnp.pad(jnp.where(late <= 0, passed, jnp.nan), [(0, 0), (1, 0)])


def at_records(
    trial: Trial, column: str, effects: Float[Array, "s o p"], own: tuple[str, ...]
) -> dict[str, Any]:
    """Return the effects of each record's occasion, by parameter [subject, record]."""
    occasion, _ = trial.occasions(column)
    here = jnp.take_along_axis(effects, occasion[..., None], axis=1)
    return {n: here[..., i] for i, n in enumerate(own)}
