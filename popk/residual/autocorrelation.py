r"""How are errors of successive levels correlated? By time alone, :math:`e^{-\kappa \Delta t}`.

References
----------
.. [1] Karlsson MO, Beal SL, Sheiner LB (1995). Three new residual error models for population PK/PD
   analyses. J Pharmacokinet Biopharm 23:651-672. doi:10.1007/BF02353466
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from popk.trial import Array


class Links(NamedTuple):
    """What ties each standardized error to the one before it.

    Attributes
    ----------
    before : Int[Array, "observation"]
        The place of the last level of the same subject and kind.
    correlation : Float[Array, "observation"]
        With the error there; 0 where there is none.
    variance : Float[Array, "observation"]
        What is left of a variance of 1 when the error there is known.
    """

    before: Int[Array, " o"]
    correlation: Float[Array, " o"]
    variance: Float[Array, " o"]


def links(
    rate: Any, subject: Int[Array, " o"], times: Float[Array, " o"], counts: Bool[Array, " o"]
) -> Links:
    r"""Return what ties successive errors together.

    .. math:: \rho_j = e^{-\kappa (t_j - t_{j-1})}, \qquad
        \epsilon_j \mid \epsilon_{j-1} \sim N(\rho_j \epsilon_{j-1}, 1 - \rho_j^2)

    A level no later than the one before it, a replicate or one on a clock that began anew, has an
    independent error: at a correlation of 1 it would have no density.

    Parameters
    ----------
    rate : Float[Array, ""]
        kappa [1/time].
    subject : Int[Array, "observation"]
        Each level's subject, all levels of one subject standing together in order.
    times : Float[Array, "observation"]
        When each was taken [time].
    counts : Bool[Array, "observation"]
        Which levels are of this kind, and count.

    References
    ----------
    .. [1] Karlsson MO, Beal SL, Sheiner LB (1995). Three new residual error models for population
       PK/PD analyses. J Pharmacokinet Biopharm 23:651-672. doi:10.1007/BF02353466
    """
    subject, times = jnp.asarray(subject), jnp.asarray(times)
    places = jnp.arange(subject.shape[0])
    last = jax.lax.cummax(jnp.where(counts, places, -1))
    found = jnp.concatenate([jnp.full(1, -1, dtype=last.dtype), last[:-1]])
    before = jnp.maximum(found, 0)
    passed = times - times[before]
    tied = counts & (found >= 0) & (subject[before] == subject) & (passed > 0)
    passed = jnp.where(tied, passed, 1.0)
    correlation = jnp.where(tied, jnp.exp(-rate * passed), 0.0)
    return Links(before, correlation, jnp.where(tied, -jnp.expm1(-2 * rate * passed), 1.0))


def correlated(noise: Float[Array, "*s o"], tied: Links) -> Float[Array, "*s o"]:
    r"""Return standardized errors made of independent ones.

    .. math:: \epsilon_j = \rho_j \epsilon_{j-1} + \sqrt{1 - \rho_j^2}\, w_j

    Parameters
    ----------
    noise : Float[Array, "... observation"]
        w, standard normal.
    tied : Links
    """
    error, weight, before = noise * jnp.sqrt(tied.variance), tied.correlation, tied.before
    # Each round doubles how far back an error reaches: the logarithm of their number is enough.
    for _ in range(noise.shape[-1].bit_length()):
        error = error + weight * error[..., before]
        weight, before = weight * weight[before], before[before]
    return error
