r"""How do measurements differ? Residual error models, and levels below the limit of quantification.

A level y with individual prediction f has :math:`g(y) \sim N(g(f), s(f)^2)`, where g is the identity
(or the logarithm) and s the error model's standard deviation. A level that is only known to be
below a limit L contributes :math:`P(y < L)` (method M3).

References
----------
.. [1] Beal SL (2001). Ways to fit a PK model with some data below the quantification limit.
   J Pharmacokinet Pharmacodyn 28:481-504. doi:10.1023/A:1012299115260
.. [2] Proost JH (2017). Combined proportional and additive residual error models in population
   pharmacokinetic modelling. Eur J Pharm Sci 109:S78-S82. doi:10.1016/j.ejps.2017.05.021
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.stats import norm
from jaxtyping import Bool, Float
from numpyro.distributions import constraints

from popk.priors import Fixed, Prior, half_normal
from popk.trial import Array, Observations

Level = Float[Array, " o"]
Sigmas = Mapping[str, Float[Array, "..."]]


class ResidualError(NamedTuple):
    """A residual error model: priors of its standard deviations, and how they make one.

    Attributes
    ----------
    priors : dict of str to Distribution or Fixed
        The prior of each ``sigma_...``.
    spread : Callable
        ``spread(f, **sigmas)`` is the standard deviation at a prediction f.
    log : bool
        Whether errors are normal on the log scale.
    """

    priors: dict[str, dist.Distribution | Fixed]
    spread: Callable[..., Level]
    log: bool = False


def additive_error(additive: Prior) -> ResidualError:
    r"""Return :math:`s(f) = a`.

    Parameters
    ----------
    additive : float, Distribution or Fixed
        Scale of the half-normal prior of a, or its prior, or ``popk.fixed(a)`` [unit of DV].
    """
    return ResidualError(
        {"additive": half_normal(additive)}, lambda f, additive: additive * jnp.ones_like(f)
    )


def proportional_error(proportional: Prior) -> ResidualError:
    r"""Return :math:`s(f) = b f`.

    Parameters
    ----------
    proportional : float, Distribution or Fixed
        Scale of the half-normal prior of b, or its prior, or ``popk.fixed(b)`` [fraction].
    """
    return ResidualError(
        {"proportional": half_normal(proportional)}, lambda f, proportional: proportional * f
    )


def combined_error(additive: Prior, proportional: Prior) -> ResidualError:
    r"""Return :math:`s(f) = \sqrt{a^2 + b^2 f^2}` (variances add, NONMEM's and Monolix's combined2).

    Parameters
    ----------
    additive, proportional : float, Distribution or Fixed
        Scales of the half-normal priors of a [unit of DV] and b [fraction], or their priors,
        or ``popk.fixed(...)``.
    """
    return ResidualError(
        {"additive": half_normal(additive), "proportional": half_normal(proportional)},
        lambda f, additive, proportional: jnp.sqrt(additive**2 + (proportional * f) ** 2),
    )


def lognormal_error(sigma: Prior) -> ResidualError:
    r"""Return :math:`\log y \sim N(\log f, \sigma^2)`.

    Parameters
    ----------
    sigma : float, Distribution or Fixed
        Scale of the half-normal prior of the log-scale standard deviation, or its prior, or
        ``popk.fixed(...)``.
    """
    return ResidualError(
        {"log": half_normal(sigma)}, lambda f, log: log * jnp.ones_like(f), log=True
    )


class Residual(dist.Distribution):
    """The distribution of levels given their individual predictions.

    `log_prob` censors (M3) and leaves out what was not measured; `sample` gives plain levels.

    Parameters
    ----------
    ipred : Float[Array, "observation"]
        Individual predictions [unit of DV].
    sigmas : mapping of str to Float[Array, ""]
        The error model's standard deviations.
    error : ResidualError
    observations : Observations
    own : Bool[Array, "observation"]
        The levels that are of this kind; the others do not count.
    censored : bool
        Whether any level may be below its limit.
    """

    pytree_data_fields = ("ipred", "sigmas", "observations", "own")
    pytree_aux_fields = ("error", "censored")

    def __init__(
        self,
        ipred: Level,
        sigmas: Sigmas,
        error: ResidualError,
        observations: Observations,
        own: Bool[Array, " o"],
        censored: bool = True,
    ):
        self.ipred, self.sigmas, self.error, self.observations = ipred, sigmas, error, observations
        self.own, self.censored = own, censored
        super().__init__(batch_shape=jnp.shape(ipred))

    @property
    def support(self) -> Any:
        """Return where levels lie."""
        return constraints.positive if self.error.log else constraints.real

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Return levels as they would be measured without a limit of quantification."""
        noise = jax.random.normal(
            key, sample_shape + self.batch_shape, dtype=jnp.result_type(float)
        )
        center, spread = self._normal(self.ipred)
        y = center + spread * noise
        return jnp.exp(y) if self.error.log else y

    def log_prob(self, value: Any, intermediates: Any = None) -> Level:
        """Return each level's log-likelihood: 0 if not measured, P(y < limit) if below it."""
        return self._log_prob(self._safe_ipred(), value)

    def information(self) -> Level:
        r"""Return each level's expected information on its prediction, :math:`-E\,\partial^2/\partial f^2`.

        For normal errors :math:`(g'(f)^2 + 2 s'(f)^2) / s(f)^2`; for a level below the limit, whose
        outcome is all that is known, the observed information.
        """
        o, f = self.observations, self._safe_ipred()
        (_, spread), (center1, spread1) = jax.jvp(self._normal, (f,), (jnp.ones_like(f),))
        seen = (center1**2 + 2 * spread1**2) / spread**2
        below = jnp.maximum(self.curvature(), 0.0)
        return jnp.where(self._counts(), jnp.where(o.below, below, seen), 0.0)

    def curvature(self) -> Level:
        r"""Return each level's observed curvature, :math:`-\partial^2 \log p / \partial f^2` (any sign)."""
        o, f = self.observations, self._safe_ipred()
        slope = jax.grad(lambda x: self._log_prob(x, o.value).sum())
        return jnp.where(self._counts(), -jax.jvp(slope, (f,), (jnp.ones_like(f),))[1], 0.0)

    def _counts(self) -> Bool[Array, " o"]:
        # Where nothing is predicted and the error vanishes too, a level is below any limit for certain.
        o, f = self.observations, self.ipred
        nothing = (f == 0) & (self.error.log | (self.error.spread(f, **self.sigmas) == 0))
        return self.own & o.measured & ~(o.below & nothing)

    def _safe_ipred(self) -> Level:
        # What does not count must not make a NaN gradient either: before the first dose f is 0.
        return jnp.where(self._counts(), self.ipred, 1.0)

    def _normal(self, f: Level) -> tuple[Level, Level]:
        return jnp.log(f) if self.error.log else f, self.error.spread(f, **self.sigmas)

    def _log_prob(self, f: Level, value: Level) -> Level:
        o = self.observations
        center, spread = self._normal(f)
        if self.error.log:
            level = norm.logpdf(jnp.log(value), center, spread) - jnp.log(value)
            limit = jnp.log(o.limit)
        else:
            level, limit = norm.logpdf(value, center, spread), o.limit
        if not self.censored:
            return jnp.where(self._counts(), level, 0.0)
        below = norm.logcdf((limit - center) / spread)
        return jnp.where(self._counts(), jnp.where(o.below, below, level), 0.0)
