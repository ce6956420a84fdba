r"""What is the probability of a level, measured or known only to lie somewhere?

A level y with individual prediction f has :math:`g(y) = g(f) + s(f)\,\epsilon`. A level that is only
known to be below a limit L contributes :math:`P(y < L)` (method M3), or :math:`P(y < L \mid y > 0)`
where all levels are positive (M4).

References
----------
.. [1] Beal SL (2001). Ways to fit a PK model with some data below the quantification limit.
   J Pharmacokinet Pharmacodyn 28:481-504. doi:10.1023/A:1012299115260
.. [2] Ahn JE, Karlsson MO, Dunne A, Ludden TM (2008). Likelihood based approaches to handling data
   below the quantification limit using NONMEM VI. J Pharmacokinet Pharmacodyn 35:401-421.
   doi:10.1007/s10928-008-9094-4
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Bool, Float
from numpyro.distributions import constraints

from popk.residual.autocorrelation import Links, correlated, links
from popk.residual.errors import ResidualError
from popk.residual.standardized import (
    information,
    log_between,
    log_cdf,
    log_density,
    truncated_information,
)
from popk.residual.transforms import FAR
from popk.trial import Array, Observations

Level = Float[Array, " o"]
Sigmas = Mapping[str, Float[Array, "..."]]


class Residual(dist.Distribution):
    """The distribution of levels given their individual predictions.

    `log_prob` counts a level that is only known to lie somewhere as the probability of lying there,
    and leaves out what was not measured; `sample` gives plain levels.

    Parameters
    ----------
    ipred : Float[Array, "observation"]
        Individual predictions [unit of DV].
    sigmas : mapping of str to Float[Array, ""]
        The values of the error model's priors.
    error : ResidualError
    observations : Observations
    own : Bool[Array, "observation"]
        The levels that are of this kind; the others do not count.
    censored : bool
        Whether any level may be below its limit.
    scale : Float[Array, "subject 1"], optional
        What each subject's standard deviation is multiplied by, positive: inter-individual
        variability of the residual error, sampled by the model [pure number].
    time : Float[Array, "subject record"], optional
        When each record was taken, needed by autocorrelated errors [unit of TIME].
    above : bool
        Whether any level may be above its upper limit, or between two limits.

    Raises
    ------
    ValueError
        Autocorrelated errors without `time` or with levels that may be censored, or a scale of
        another shape.

    References
    ----------
    .. [1] Karlsson MO, Beal SL, Sheiner LB (1995). Three new residual error models for population
       PK/PD analyses. J Pharmacokinet Biopharm 23:651-672. doi:10.1007/BF02353466
    """

    pytree_data_fields = ("ipred", "sigmas", "observations", "own", "scale", "time")
    pytree_aux_fields = ("error", "censored", "above")

    def __init__(
        self,
        ipred: Level,
        sigmas: Sigmas,
        error: ResidualError,
        observations: Observations,
        own: Bool[Array, " o"],
        censored: bool = True,
        *,
        scale: Float[Array, "..."] | None = None,
        time: Float[Array, "s r"] | None = None,
        above: bool = False,
    ):
        if scale is not None and (jnp.ndim(scale) != 2 or jnp.shape(scale)[1] != 1):
            raise ValueError(
                f"scale has the shape {jnp.shape(scale)}; it needs one value a subject, [subject, 1]"
            )
        if error.autocorrelated and time is None:
            raise ValueError("autocorrelated errors need the time of each record; give time=")
        if error.autocorrelated and (censored or above):
            raise ValueError(
                "autocorrelated errors were combined with levels that may lie below or above a limit; "
                "leave those levels out (MDV 1), or take the error model without autocorrelated_error()"
            )
        self.ipred, self.sigmas, self.error, self.observations = ipred, sigmas, error, observations
        self.own, self.censored, self.scale, self.time = own, censored, scale, time
        self.above = above
        super().__init__(batch_shape=jnp.shape(ipred))

    @property
    def support(self) -> Any:
        """Return where levels lie."""
        positive = self.error.transform.positive or self.error.blq == "M4"
        return constraints.positive if positive else constraints.real

    @property
    def plain(self) -> bool:
        """Return whether standardized errors are standard normal, each for itself."""
        return not (self._cut or self.error.heavy_tailed or self.error.autocorrelated)

    @property
    def exact(self) -> Bool[Array, " o"]:
        """Return the levels that count with a value of their own."""
        return self._counts() & ~self._inexact()

    def deviates(self, value: Any) -> Level:
        """Return standardized errors z of levels; 0 where nothing is predicted."""
        nothing = self._nothing()
        center, spread = self._center_spread(jnp.where(nothing, 1.0, self.ipred))
        y = jnp.where(nothing | ~self.own, 1.0, value)
        z = (self.error.transform.forward(y, self._shape) - center) / spread
        return jnp.where(nothing, 0.0, z)

    def parts(self) -> tuple[Level, Level, Level]:
        r"""Return g(y) - g(f), s(f) and a constant c of each level with normal errors.

        Its log-likelihood is :math:`-(g(y) - g(f))^2 / (2 s^2) - \ln s + c`; the three are 0, 1 and 0
        where it does not count.
        """
        counts, y = self._counts(), jnp.where(self._counts(), self.observations.value, 1.0)
        center, spread = self._center_spread(self._safe_ipred())
        g = self.error.transform
        error = g.forward(y, self._shape) - center
        constant = g.log_slope(y, self._shape) - 0.5 * jnp.log(2 * jnp.pi)
        each = (error, 0.0), (spread, 1.0), (constant, 0.0)
        error, spread, constant = (jnp.where(counts, x, blank) for x, blank in each)
        return error, spread, constant

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Return levels as they would be measured without a limit of quantification."""
        return self.at(self._noise(key, sample_shape + self.batch_shape))

    def sample_next(self, key: Any) -> Level:
        """Return levels as they would be measured, each by somebody who knows those before it."""
        if not self.error.autocorrelated:
            return self.sample(key)
        counts = self._counts()
        y = jnp.where(counts, self.observations.value, 1.0)
        z, width = self._deviates_given_before(self._safe_ipred(), y)
        g, noise = self.error.transform, jax.random.normal(key, self.batch_shape)
        return g.inverse(g.forward(y, self._shape) + width * (noise - z), self._shape)

    def at(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the levels of some standardized errors."""
        center, spread = self._center_spread(self.ipred)
        nothing = self._nothing()
        noise = jnp.where(nothing, 0.0, noise)
        # Where nothing is predicted nothing is measured: a logarithm or a cut would be no number there.
        y = self.error.transform.inverse(
            jnp.where(nothing, 0.0, center) + spread * noise, self._shape
        )
        return jnp.where(nothing, 0.0, y)

    def log_prob(self, value: Any, intermediates: Any = None) -> Level:
        """Return each level's log-likelihood: 0 if not measured, P(y < limit) if below it.

        With autocorrelated errors, that of each level given those of its subject before it.
        """
        return self._log_prob(self._safe_ipred(), value)

    def information(self) -> Level:
        r"""Return each level's expected information on its prediction, :math:`-E\,\partial^2/\partial f^2`.

        For normal errors :math:`(g'(f)^2 + 2 s'(f)^2) / s(f)^2`, for t-distributed ones
        :math:`((\nu + 1) g'(f)^2 + 2 \nu s'(f)^2) / ((\nu + 3) s(f)^2)`, for normal ones that are cut
        the variance of the score; for a level that is only known to lie somewhere, whose outcome is
        all that is known, the observed information.

        Raises
        ------
        ValueError
            Errors are autocorrelated: a level's information then depends on the other levels.
        """
        self._refuse_correlation()
        f = self._safe_ipred()
        (_, spread), (center1, spread1) = jax.jvp(self._center_spread, (f,), (jnp.ones_like(f),))
        slopes = center1 / spread, spread1 / spread
        if self._cut:
            seen = truncated_information(*slopes, *self._ends(f))
        else:
            seen = information(*slopes, self._degrees)
        if self.censored or self.above:
            observed = jnp.maximum(self.curvature(), 0.0)
            seen = jnp.where(self._inexact(), observed, seen)
        return jnp.where(self._counts(), seen, 0.0)

    def gauss_newton(self) -> tuple[Level, Level, Level]:
        r"""Return predictions, the expected information on each, and its observed curvature.

        Of autocorrelated errors the predictions are of two kinds, both known once the levels before are:
        where each level is expected then, and the logarithm of its standard deviation,

        .. math:: g(y_j) \sim N(m_j, w_j^2), \quad
            m_j = g(f_j) + \rho_j s_j \frac{g(y_{j-1}) - g(f_{j-1})}{s_{j-1}}, \quad
            w_j = s_j \sqrt{1 - \rho_j^2}

        with the expected information :math:`w_j^{-2}` on the one and 2 on the other.
        """
        if not self.error.autocorrelated:
            return self.ipred, self.information(), self.curvature()
        counts = self._counts()
        y = jnp.where(counts, self.observations.value, 1.0)
        z, width = self._deviates_given_before(self._safe_ipred(), y)
        expected = self.error.transform.forward(y, self._shape) - width * z
        precise = width**-2
        each = (
            (expected, jnp.log(width)),
            (precise, jnp.full_like(width, 2.0)),
            (precise, 2 * z**2),
        )
        found = (jnp.concatenate([jnp.where(counts, x, 0.0) for x in two]) for two in each)
        prediction, information, curvature = found
        return prediction, information, curvature

    def curvature(self) -> Level:
        r"""Return each level's observed curvature, :math:`-\partial^2 \log p / \partial f^2` (any sign).

        Raises
        ------
        ValueError
            Errors are autocorrelated: a level's curvature then depends on the other levels.
        """
        self._refuse_correlation()
        o, f = self.observations, self._safe_ipred()
        slope = jax.grad(lambda x: self._log_prob(x, o.value).sum())
        return jnp.where(self._counts(), -jax.jvp(slope, (f,), (jnp.ones_like(f),))[1], 0.0)

    @property
    def _shape(self) -> Any:
        return self.sigmas.get("lambda", 1.0)

    @property
    def _degrees(self) -> Any:
        # The gamma function of a negative number is a number: degrees below 0 must not be.
        degrees = self.sigmas.get("degrees")
        return None if degrees is None else jnp.where(degrees > 0, degrees, jnp.nan)

    @property
    def _cut(self) -> bool:
        return self.error.transform.ends is not None or self.error.blq == "M4"

    def _refuse_correlation(self) -> None:
        if self.error.autocorrelated:
            raise ValueError(
                "autocorrelated errors have no information level by level, which the Laplace "
                "approximation of random effects needs; take the error model without autocorrelated_error()"
            )

    def _nothing(self) -> Bool[Array, " o"]:
        f, error = self.ipred, self.error
        return (f == 0) & (error.transform.positive | (error.spread(f, **self.sigmas) == 0))

    def _counts(self) -> Bool[Array, " o"]:
        # Where nothing is predicted and the error vanishes too, a level is below any limit for certain.
        o = self.observations
        certain = o.below & self._nothing()
        if self.above:
            certain = certain & ~o.above
        return self.own & o.measured & ~certain

    def _inexact(self) -> Bool[Array, " o"]:
        o = self.observations
        below = o.below if self.censored else jnp.zeros(self.batch_shape, dtype=bool)
        return below | o.above if self.above else below

    def _safe_ipred(self) -> Level:
        # What does not count must not make a NaN gradient either: before the first dose f is 0.
        return jnp.where(self._counts(), self.ipred, 1.0)

    def _center_spread(self, f: Level) -> tuple[Level, Level]:
        """Return where errors are centered and their spread, on the transformed scale."""
        # A prediction that a solver puts just below 0 has no negative standard deviation.
        spread = jnp.abs(self.error.spread(f, **self.sigmas))
        if self.scale is not None:
            scale = jnp.asarray(self.scale)[self.observations.subject, 0]
            spread = spread * jnp.where(scale > 0, scale, jnp.nan)
        return self.error.transform.forward(f, self._shape), spread

    def _ends(self, f: Level) -> tuple[Level, Level]:
        """Return between what standardized errors lie where the normal distribution is cut."""
        g = self.error.transform
        low, high = g.ends(self._shape) if g.ends else (jnp.asarray(-FAR), jnp.asarray(FAR))
        if self.error.blq == "M4" and not g.positive:
            low = jnp.maximum(low, g.forward(jnp.zeros_like(f), self._shape))
        center, spread = self._center_spread(f)
        return (low - center) / spread, (high - center) / spread

    def _links(self, counts: Bool[Array, " o"]) -> Links:
        o, time = self.observations, jnp.asarray(self.time)
        return links(self.sigmas["rate"], o.subject, time[o.subject, o.record], counts)

    def _noise(self, key: Any, shape: tuple[int, ...]) -> Any:
        dtype = jnp.result_type(float)
        if self._cut:
            low, high = self._ends(self.ipred)
            return jax.random.truncated_normal(key, low, high, shape, dtype)
        if self.error.heavy_tailed:
            return jax.random.t(key, self._degrees, shape, dtype)
        noise = jax.random.normal(key, shape, dtype)
        return correlated(noise, self._links(self.own)) if self.error.autocorrelated else noise

    def _log_prob(self, f: Level, value: Level) -> Level:
        g, counts, inexact = self.error.transform, self._counts(), self._inexact()
        # What is recorded in place of a level that is not known must not make a NaN gradient.
        y = jnp.where(counts & ~inexact, value, 1.0)
        z, width = self._deviates_given_before(f, y)
        level = log_density(z, self._degrees) - jnp.log(width) + g.log_slope(y, self._shape)
        if g.positive or self.error.blq == "M4":
            level = jnp.where(y > 0, level, -jnp.inf)
        if self.censored or self.above:
            level = jnp.where(inexact, self._log_within(f), level)
        if self._cut:
            level = level - log_between(*self._ends(f))
        return jnp.where(counts, level, 0.0)

    def _deviates_given_before(self, f: Level, y: Level) -> tuple[Level, Level]:
        """Return standardized errors of levels given those before them, and their spread then."""
        center, spread = self._center_spread(f)
        z = (self.error.transform.forward(y, self._shape) - center) / spread
        if not self.error.autocorrelated:
            return z, spread
        tied = self._links(self._counts())
        root = jnp.sqrt(tied.variance)
        return (z - tied.correlation * z[tied.before]) / root, spread * root

    def _log_within(self, f: Level) -> Level:
        """Return the log-probability of being below the limit, above the upper one, or both."""
        o = self.observations
        center, spread = self._center_spread(f)

        def standardized(where: Any, edge: Any) -> Level:
            y = jnp.where(where, edge, 1.0)
            return (self.error.transform.forward(y, self._shape) - center) / spread

        low, high = standardized(o.above, o.upper), standardized(o.below, o.limit)
        if self._cut:
            start, end = self._ends(f)
            low, high = jnp.where(o.above, low, start), jnp.where(o.below, high, end)
            return log_between(low, high)
        below = log_cdf(high, self._degrees)
        if not self.above:
            return below
        above = log_cdf(-low, self._degrees)
        both = o.above & o.below
        within = log_between(jnp.where(both, low, -1.0), jnp.where(both, high, 1.0), self._degrees)
        return jnp.where(both, within, jnp.where(o.above, above, below))
