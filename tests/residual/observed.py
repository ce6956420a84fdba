"""Levels as the tests of this room give them, and their distribution."""

import jax.numpy as jnp

from popk.residual import Residual
from popk.trial import Observations


def observations(
    n,
    measured=True,
    below=False,
    limit=1.0,
    above=False,
    upper=1.0,
    value=1.0,
    subject=0,
    record=None,
):
    """Return n levels of which each may be given by one value for all or one for each."""

    def full(x, dtype):
        return jnp.broadcast_to(jnp.asarray(x, dtype=dtype), (n,))

    return Observations(
        subject=full(subject, int),
        record=full(jnp.arange(n) if record is None else record, int),
        value=full(value, float),
        measured=full(measured, bool),
        below=full(below, bool),
        limit=full(limit, float),
        above=full(above, bool),
        upper=full(upper, float),
        compartment=full(0, int),
        kind=full(0, int),
    )


def levels(error, sigmas, f, *, own=True, censored=True, options=None, **given):
    """Return the distribution of levels around predictions f, with all values of `error` given."""
    f = jnp.asarray(f, dtype=float)
    values = {k: jnp.asarray(v, dtype=float) for k, v in sigmas.items()}
    own = jnp.broadcast_to(jnp.asarray(own), (len(f),))
    seen = observations(len(f), **given)
    return Residual(f, values, error, seen, own, censored, **(options or {}))
