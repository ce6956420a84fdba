r"""What is the probability of levels whose subject is of one of several classes, not known which?

With :math:`\pi_k` the probability of class k and :math:`S_{kj}` the log-likelihood of a subject's
first j levels in that class, the levels together have :math:`\sum_k \pi_k e^{S_{kn}}`. Level by level
that is the chain

.. math:: \log p(y_j \mid y_1 \dots y_{j-1}) =
    \log \sum_k \pi_k e^{S_{kj}} - \log \sum_k \pi_k e^{S_{k,j-1}}

References
----------
.. [1] McLachlan G, Peel D (2000). Finite Mixture Models. Wiley. doi:10.1002/0471721182
.. [2] Carlsson KC, Savic RM, Hooker AC, Karlsson MO (2009). Modeling subpopulations with the $MIXTURE
   subroutine in NONMEM: finding the individual probability of belonging to a subpopulation for the
   use in model analysis and improved decision making. AAPS J 11:148-154.
   doi:10.1208/s12248-009-9093-4
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Float

from popk.residual.levels import Level, Residual
from popk.trial import Array


class Mixed(dist.Distribution):
    """The distribution of levels whose subject's class is summed out.

    Parameters
    ----------
    classes : sequence of Residual
        The levels' distribution in each class, of the same kind of levels.
    log_weights : Float[Array, "subject class"]
        The log-probability of each class before these levels.
    extent : tuple of int
        Of the grid of records, (subject, record).
    """

    pytree_data_fields = ("classes", "log_weights")
    pytree_aux_fields = ("extent",)

    def __init__(
        self,
        classes: Sequence[Residual],
        log_weights: Float[Array, "s k"],
        extent: tuple[int, ...],
    ):
        self.classes, self.log_weights, self.extent = tuple(classes), log_weights, extent
        super().__init__(batch_shape=classes[0].batch_shape)

    @property
    def own(self) -> Any:
        """Return the levels that are of this kind."""
        return self.classes[0].own

    @property
    def support(self) -> Any:
        """Return where levels lie."""
        return self.classes[0].support

    @property
    def ipred(self) -> Level:
        """Return each level's prediction, the mean over the classes that its subject may be of."""
        return (self._probability() * self.predictions).sum(0)

    @property
    def predictions(self) -> Float[Array, "k o"]:
        """Return the prediction in each class."""
        return jnp.stack([one.ipred for one in self.classes])

    def log_prob(self, value: Any, intermediates: Any = None) -> Level:
        """Return each level's log-likelihood given those of its subject before it."""
        o, each = self.classes[0].observations, self._by_class(value)
        grid = jnp.zeros((len(self.classes), *self.extent)).at[:, o.subject, o.record].add(each)
        so_far = jnp.cumsum(grid, -1)
        before = jnp.pad(so_far[..., :-1], [(0, 0), (0, 0), (1, 0)])
        weights = self.log_weights.T[..., None]
        level = logsumexp(weights + so_far, axis=0) - logsumexp(weights + before, axis=0)
        # What fills the axis up stands at the place of a subject's first record, and says nothing.
        return jnp.where(o.measured, level[o.subject, o.record], 0.0)

    def log_posterior(self, value: Level) -> Float[Array, "s k"]:
        """Return the log-probability of each class after these levels."""
        subject = self.classes[0].observations.subject
        total = jnp.zeros(self.log_weights.shape).at[subject].add(self._by_class(value).T)
        return jax.nn.log_softmax(self.log_weights + total, axis=-1)

    def information(self) -> Float[Array, "k o"]:
        """Return the expected information of each level in each class, by how likely that is."""
        return self._probability() * jnp.stack([one.information() for one in self.classes])

    def curvature(self) -> Float[Array, "k o"]:
        """Return the observed curvature of each level in each class, by how likely that is."""
        return self._probability() * jnp.stack([one.curvature() for one in self.classes])

    def _by_class(self, value: Level) -> Float[Array, "k o"]:
        return jnp.stack([one.log_prob(value) for one in self.classes])

    def _probability(self) -> Float[Array, "k o"]:
        o = self.classes[0].observations
        return jnp.exp(self.log_posterior(o.value))[o.subject].T
