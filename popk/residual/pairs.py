r"""How are the errors of two kinds of levels correlated, measured in one sample?

With standardized errors :math:`z = (g(y) - g(f)) / s(f)` of two kinds of levels of one subject at one
time,

.. math:: z_2 \mid z_1 \sim N(\rho z_1, 1 - \rho^2)

which is NONMEM's L2 data item with two epsilons.

References
----------
.. [1] Beal SL, Sheiner LB, Boeckmann AJ, Bauer RJ (1989-2020). NONMEM 7.5 Users Guides. ICON Development
   Solutions, part IV, L2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Bool, Float

from popk.residual.levels import Level, Residual
from popk.trial import Array


class Paired(dist.Distribution):
    """The distribution of levels given those of another kind that were measured in the same samples.

    Parameters
    ----------
    second, first : Residual
        Of these levels, and of the others.
    given : Float[Array, "observation"]
        The values of the others.
    time : Float[Array, "observation"]
        When each level was measured [unit of TIME].
    correlation : Float[Array, ""]
        rho, between -1 and 1.

    Raises
    ------
    ValueError
        Errors are not normal on their scale, or are autocorrelated.
    """

    pytree_data_fields = ("second", "first", "given", "time", "correlation")

    def __init__(
        self, second: Residual, first: Residual, given: Level, time: Level,
        correlation: Float[Array, ""] | Any,
    ):  # fmt: skip
        for levels in (second, first):
            if not levels.plain:
                raise ValueError(
                    "correlated errors of two kinds of levels must be normal on their scale, not t-"
                    "distributed, cut (M4, Box-Cox) or autocorrelated; take another error model"
                )
        self.second, self.first, self.given, self.time = second, first, given, time
        self.correlation = correlation
        super().__init__(batch_shape=second.batch_shape)

    @property
    def own(self) -> Any:
        """Return the levels that are of this kind."""
        return self.second.own

    @property
    def ipred(self) -> Level:
        """Return the individual predictions."""
        return self.second.ipred

    @property
    def support(self) -> Any:
        """Return where levels lie."""
        return self.second.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Return levels as they would be measured, given those of the other kind."""
        z1, paired = self._partners(self.first.own)
        noise = jax.random.normal(key, sample_shape + self.batch_shape, jnp.result_type(float))
        tied = self.correlation * z1 + jnp.sqrt(1 - self.correlation**2) * noise
        return self.second.at(jnp.where(paired, tied, noise))

    def log_prob(self, value: Any, intermediates: Any = None) -> Level:
        """Return each level's log-likelihood given the one of the other kind in its sample.

        A level that is only known to lie below or above a limit has the likelihood it has alone.
        """
        z1, paired = self._partners(self.first.exact)
        paired = paired & self.second.exact
        z2 = jnp.where(paired, self.second.deviates(value), 0.0)
        rest = 1 - self.correlation**2
        tied = -0.5 * ((z2 - self.correlation * z1) ** 2 / rest - z2**2 + jnp.log(rest))
        return self.second.log_prob(value) + jnp.where(paired, tied, 0.0)

    def information(self) -> Level:
        """Raise: the information of a level depends on the prediction of the other kind."""
        raise ValueError(
            "correlated errors of two kinds of levels have no information level by level, which the "
            "Laplace approximation of random effects needs; leave out correlated="
        )

    def curvature(self) -> Level:
        """Raise, as `information`."""
        return self.information()

    def _partners(self, counts: Bool[Array, " o"]) -> tuple[Level, Bool[Array, " o"]]:
        """Return z of the other kind's level in the same sample, and whether there is one."""
        subject = jnp.asarray(self.second.observations.subject)
        places = jnp.arange(subject.shape[0])
        starts = (jnp.diff(subject, prepend=-1) != 0) | (jnp.diff(self.time, prepend=jnp.nan) != 0)
        sample = jnp.cumsum(starts)
        found = jnp.full(subject.shape[0] + 1, -1).at[jnp.where(counts, sample, 0)].max(places)
        partner = jnp.where(sample > 0, found[sample], -1)
        paired = self.own & (partner >= 0) & counts[partner]
        z1 = jnp.where(counts, self.first.deviates(self.given), 0.0)
        return jnp.where(paired, z1[partner], 0.0), paired
