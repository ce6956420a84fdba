r"""What is the probability of an event, once or again and again, given its hazard?

With hazard h and cumulative hazard H, a record j that comes after the record j - 1 of its subject
contributes

.. math:: \log L_j = d_j \log h(t_j) - [H(t_j) - H(t_{j-1})]

with d = 1 at an event and 0 where none was seen since the last record. The sum over the records of
a subject is the log-likelihood of a time to event, and of repeated events that follow a Poisson
process.

References
----------
.. [1] Kalbfleisch JD, Prentice RL (2002). The Statistical Analysis of Failure Time Data, 2nd
   edition. doi:10.1002/9781118032985
.. [2] Andersen PK, Gill RD (1982). Cox's regression model for counting processes: a large sample
   study. Ann Stat 10:1100-1120. doi:10.1214/aos/1176345976
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Bool, Float
from numpyro.distributions import constraints

from popk.endpoints.outcomes import Outcomes
from popk.trial import Array, Observations

#: A cumulative hazard falls where it goes down by more than this part of itself and 1: a solver's
#: noise may be as much.
FALL = 1e-6


class Risk(NamedTuple):
    """How events come about.

    Attributes
    ----------
    cumulative_hazard : Float[Array, "subject record"]
        H at every record, 0 where the subject comes to be at risk.
    repeated : bool
        Whether events come again.
    interval : bool
        Whether an event is only known to lie between two records.
    """

    cumulative_hazard: Any
    repeated: bool = False
    interval: bool = False


class Events(dist.Distribution):
    """The distribution of event indicators: 1 at an event, 0 where there was none.

    Parameters
    ----------
    ipred : Float[Array, "observation"]
        Individual hazards h [1/time].
    risk : Risk
    observations : Observations
    own : Bool[Array, "observation"]
        The records of this kind; the others do not count.
    subjects : int
        How many there are.
    present : bool
        Whether any record is of this kind.
    """

    pytree_data_fields = ("ipred", "risk", "observations", "own")
    pytree_aux_fields = ("subjects", "present")

    def __init__(
        self,
        ipred: Outcomes,
        risk: Risk,
        observations: Observations,
        own: Bool[Array, " o"],
        *,
        subjects: int,
        present: bool = True,
    ):
        self.ipred, self.risk, self.observations, self.own = ipred, risk, observations, own
        self.subjects, self.present = subjects, present
        super().__init__(batch_shape=jnp.shape(ipred))

    @property
    def support(self) -> Any:
        """Return where outcomes lie."""
        return constraints.boolean

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        r"""Return event indicators, 1 at the first record at or after each event.

        A first event comes where H reaches a draw of the standard exponential distribution, one a
        subject; of repeated ones, at least one lies between two records with probability
        :math:`1 - e^{-\Delta H}`. Records with MDV 1 are followed up too.
        """
        total, start = self._between(self.own)
        if self.risk.repeated:
            drawn = jax.random.exponential(key, sample_shape + self.batch_shape)
            seen = drawn <= total - start
        else:
            drawn = jax.random.exponential(key, (*sample_shape, self.subjects))
            reached = drawn[..., jnp.asarray(self.observations.subject)]
            seen = (start < reached) & (reached <= total)
        unknown = jnp.isnan(self._passed(self.own))
        return jnp.where(self.own & unknown, jnp.nan, jnp.where(self.own & seen, 1.0, 0.0))

    def log_prob(self, value: Any, intermediates: Any = None) -> Outcomes:
        """Return each record's log-likelihood given the subject's records before it.

        NaN where the cumulative hazard falls, or a hazard is negative.
        """
        counts = self.own & self.observations.measured
        passed, event = self._passed(counts), counts & (jnp.asarray(value) == 1)
        if self.risk.interval:
            some = jnp.where(event, passed, 1.0)
            return jnp.where(event, log1mexp(some), jnp.where(counts, -passed, 0.0))
        h = jnp.where(event, self.ipred, 1.0)
        return jnp.where(event, jnp.log(h), 0.0) - jnp.where(counts, passed, 0.0)

    def information(self) -> Outcomes:
        """Return zeros where there is no record of this kind.

        Raises
        ------
        ValueError
            There is one: its likelihood depends on two predictions, h and H.
        """
        if self.present:
            raise ValueError(
                "the time of an event has no information on one prediction alone, which the Laplace "
                "approximation of random effects needs; leave out the records of events (their DVID "
                "or CMT), or fit with popk.fit"
            )
        return jnp.zeros(self.batch_shape)

    def curvature(self) -> Outcomes:
        """Return zeros, or raise, as `information`."""
        return self.information()

    def _between(self, which: Bool[Array, " o"]) -> tuple[Outcomes, Outcomes]:
        """Return H at each of some records, and at the one before it of the same subject."""
        o = self.observations
        subject = jnp.asarray(o.subject)
        total = jnp.asarray(self.risk.cumulative_hazard)[subject, o.record]
        places = jnp.arange(subject.shape[0])
        last = jax.lax.cummax(jnp.where(which, places, -1))
        found = jnp.concatenate([jnp.full(1, -1, dtype=last.dtype), last[:-1]])
        before = jnp.maximum(found, 0)
        again = which & (found >= 0) & (subject[before] == subject)
        total = jnp.where(which, total, 0.0)
        return total, jnp.where(again, total[before], 0.0)

    def _passed(self, which: Bool[Array, " o"]) -> Outcomes:
        """Return by how much H grew since the record before; NaN where it fell."""
        total, start = self._between(which)
        grown = total - start
        fell = grown < -FALL * (1 + jnp.abs(start))
        return jnp.where(fell, jnp.nan, jnp.maximum(grown, 0.0))


def log1mexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return :math:`\log(1 - e^{-x})` for x above 0.

    References
    ----------
    .. [1] Maechler M (2012). Accurately computing log(1 - exp(-|a|)). Vignette of the R package Rmpfr.
    """
    small = x < jnp.log(2.0)
    near, far = jnp.where(small, x, 1.0), jnp.where(small, 1.0, x)
    return jnp.where(small, jnp.log(-jnp.expm1(-near)), jnp.log1p(-jnp.exp(-far)))
