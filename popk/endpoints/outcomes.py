"""What is the probability of an outcome, a count or a category, given its prediction?"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Bool, Float

from popk.trial import Array, Observations

Outcomes = Float[Array, " o"]
Values = Mapping[str, Float[Array, "..."]]

#: So far below 0 a solver may leave a mean count that is 0.
NEGLIGIBLE = 1e-9


class Law(NamedTuple):
    """How outcomes are distributed about their predictions f, record by record.

    Attributes
    ----------
    log_mass : Callable
        ``log_mass(y, f, values)`` is the log-probability of the outcome y.
    draw : Callable
        ``draw(key, f, values)`` gives outcomes in the shape of f.
    information : Callable
        ``information(f, values)`` is the expected information on f.
    support : Constraint
        Where outcomes lie.
    """

    log_mass: Callable[[Any, Any, Values], Any]
    draw: Callable[[Any, Any, Values], Any]
    information: Callable[[Any, Values], Any]
    support: Any


class Outcome(dist.Distribution):
    """The distribution of outcomes that are independent given their predictions.

    Parameters
    ----------
    ipred : Float[Array, "observation"]
        Individual predictions: mean counts, or logits.
    values : mapping of str to Float[Array, ""]
        The values of the endpoint's priors.
    law : Law
    observations : Observations
    own : Bool[Array, "observation"]
        The records of this kind; the others do not count.
    """

    pytree_data_fields = ("ipred", "values", "observations", "own")
    pytree_aux_fields = ("law",)

    def __init__(
        self,
        ipred: Outcomes,
        values: Values,
        law: Law,
        observations: Observations,
        own: Bool[Array, " o"],
    ):
        self.ipred, self.values, self.law = ipred, values, law
        self.observations, self.own = observations, own
        super().__init__(batch_shape=jnp.shape(ipred))

    @property
    def support(self) -> Any:
        """Return where outcomes lie."""
        return self.law.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Return outcomes; NaN where there is no prediction."""
        f = jnp.broadcast_to(jnp.where(self.own, self.ipred, 1.0), sample_shape + self.batch_shape)
        drawn = self.law.draw(key, jnp.where(jnp.isnan(f), 1.0, f), self.values)
        return jnp.where(jnp.isnan(f), jnp.nan, drawn.astype(jnp.result_type(float)))

    def log_prob(self, value: Any, intermediates: Any = None) -> Outcomes:
        """Return each outcome's log-probability, 0 where it was not observed."""
        return self._log_prob(self._safe_ipred(), value)

    def information(self) -> Outcomes:
        r"""Return the expected information on each prediction, :math:`-E\,\partial^2/\partial f^2`."""
        seen = self.law.information(self._safe_ipred(), self.values)
        return jnp.where(self._counts(), seen, 0.0)

    def curvature(self) -> Outcomes:
        r"""Return each outcome's observed curvature, :math:`-\partial^2 \log p / \partial f^2`."""
        o, f = self.observations, self._safe_ipred()
        slope = jax.grad(lambda x: self._log_prob(x, jnp.asarray(o.value)).sum())
        return jnp.where(self._counts(), -jax.jvp(slope, (f,), (jnp.ones_like(f),))[1], 0.0)

    def _counts(self) -> Bool[Array, " o"]:
        return self.own & self.observations.measured

    def _safe_ipred(self) -> Outcomes:
        # What does not count must not make a NaN gradient either.
        return jnp.where(self._counts(), self.ipred, 1.0)

    def _log_prob(self, f: Outcomes, value: Any) -> Outcomes:
        counts = self._counts()
        # Levels of other kinds are no whole numbers.
        y = jnp.where(counts, value, 1.0)
        return jnp.where(counts, self.law.log_mass(y, f, self.values), 0.0)
