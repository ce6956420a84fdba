"""Of which kind is this person? Subpopulations, the class of each subject summed out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from jax.scipy.special import logsumexp
from jaxtyping import Float

from popk.model.sites import ModelError, by_subject
from popk.residual import Mixed
from popk.trial import Array, Trial

#: How far the probabilities of all classes may be from 1: rounding, no more.
ROUNDING = 1e-6


class Classes:
    """One prediction for each class of a mixture; `popk.observe` takes it.

    Parameters
    ----------
    mixture : Mixture
    predictions : mapping of str to Float[Array, "subject record"]
    """

    def __init__(self, mixture: "Mixture", predictions: Mapping[str, Any]):
        self.mixture, self.predictions = mixture, predictions


class Mixture:
    """The classes of a trial's subjects, see `mixture`.

    Parameters
    ----------
    trial : Trial
    names : tuple of str
        Of the classes.
    log_weights : Float[Array, "subject class"]
        The log-probability of each class; `observe` adds what the levels say.
    """

    def __init__(self, trial: Trial, names: tuple[str, ...], log_weights: Float[Array, "s k"]):
        # A twin asks for one class at a time: it puts 0 for the others here.
        considered: Any = numpyro.deterministic("class_considered", jnp.ones((1, len(names))))
        self.trial, self.names = trial, names
        self.log_weights = log_weights + jnp.log(considered)
        # Levels tell how probable they are given the classes that there are: 0 in a fit.
        numpyro.factor("class_weight", logsumexp(self.log_weights, axis=-1).sum())
        # Where levels are simulated each subject is of one class; where they are given, of none yet.
        self._drawn = None if trial.given else _drawn(trial, log_weights)

    def __call__(self, **predictions: Any) -> Any:
        """Return what to observe, from what is predicted in each class.

        Parameters
        ----------
        **predictions : Float[Array, "subject record"]
            Under the names of the classes; any other quantity of a subject as well, where levels are
            simulated.

        Raises
        ------
        ModelError
            The names are not those of the classes.
        """
        if set(predictions) != set(self.names):
            raise ModelError(
                f"the mixture was given {', '.join(predictions) or 'nothing'}; it needs one prediction "
                f"for each of its classes, {', '.join(self.names)}"
            )
        ordered = {name: predictions[name] for name in self.names}
        if self._drawn is None:
            return Classes(self, ordered)
        stacked = jnp.stack(jnp.broadcast_arrays(*ordered.values()), -1)
        return jnp.take_along_axis(stacked, self._drawn[:, :, None], -1)[..., 0]

    def learn(self, levels: Mixed, values: Float[Array, " o"]) -> None:
        """Add to the log-probabilities what levels say."""
        self.log_weights = levels.log_posterior(values)

    def mean(self, predictions: Sequence[Float[Array, "s r"]]) -> Float[Array, "s r"]:
        """Return the mean of the classes' predictions, by how probable each class is."""
        return (jnp.exp(self.log_weights).T[..., None] * jnp.stack(predictions)).sum(0)


def _drawn(trial: Trial, log_weights: Float[Array, "s k"]) -> Any:
    """Return the class of each subject [subject, 1], by its probabilities as they are known."""
    with numpyro.plate("subject", trial.n_subjects, dim=-2):
        known: Any = numpyro.deterministic("class_probability", jnp.exp(log_weights)[:, None])
        classes: Any = dist.Categorical(probs=known)
        return numpyro.sample("subject_class", classes)


def mixture(trial: Trial, probabilities: Mapping[str, Any]) -> Mixture:
    r"""Return classes that subjects may be of, such as poor and extensive metabolizers.

    The class of a subject is never sampled in a fit: the likelihood of all its levels is the mean of
    those in each class, :math:`p(y_i) = \sum_k \pi_k \int p(y_i \mid k, \eta_k)\,p(\eta_k)\,d\eta_k`,
    with random effects of its own in each class: ``popk.individual(trial, classes=mix, ...)``. (Were
    they common to the classes, those of one class would keep a chain from ever trying the other.) The
    posterior holds ``class_probability`` (subject, class), what each draw makes of the levels;
    `popk.predict` draws a class from it, or for a new person from the probabilities here.

    Parameters
    ----------
    trial : Trial
    probabilities : mapping of str to float, Float[Array, "subject 1"] or scalar
        Each class and its probability; all together 1. Where one changes by subject (with a genotype,
        say), it is one value for each.

    Returns
    -------
    Mixture
        Called with the prediction in each class, ``mix(slow=..., fast=...)``, it returns what
        `popk.observe` takes. Several kinds of levels are observed with the same mixture.

    Raises
    ------
    ModelError
        There are fewer than two classes, a name or a shape is wrong, or known probabilities are
        negative or do not add up to 1. Ones that a model computes have a log-density of NaN then.

    Notes
    -----
    Classes are told apart by their predictions alone, so a model must say which is which: give the
    clearance of one as that of the other times a factor whose prior lies above 1 [1]_.

    Examples
    --------
    >>> share = numpyro.sample("SLOW_pop", dist.Beta(2, 2))  # doctest: +SKIP
    >>> mix = popk.mixture(trial, {"fast": 1 - share, "slow": share})  # doctest: +SKIP
    >>> of = popk.individual(trial, classes=mix, CL={"fast": CL, "slow": CL / ratio}, V=V)
    ... # doctest: +SKIP
    >>> fast, slow = (popk.one_compartment(trial, CL=p.CL, V=p.V) for p in (of.fast, of.slow))
    ... # doctest: +SKIP
    >>> popk.observe(trial, mix(fast=fast, slow=slow), popk.proportional_error(0.3))
    ... # doctest: +SKIP

    References
    ----------
    .. [1] Stephens M (2000). Dealing with label switching in mixture models. J R Stat Soc B
       62:795-809. doi:10.1111/1467-9868.00265
    """
    names = tuple(probabilities)
    if len(names) < 2 or not all(isinstance(n, str) and n.isidentifier() for n in names):
        raise ModelError(
            f"mixture() was given the classes {', '.join(map(str, names)) or 'none'}; it needs at least "
            f"two, each named as a Python argument is: {{'fast': 1 - share, 'slow': share}}"
        )
    columns = [
        by_subject(f"the probability of {n}", p, trial, "a covariate is") for n, p in probabilities.items()
    ]  # fmt: skip
    if any(c.shape[1] != 1 for c in columns):
        raise ModelError(
            "a class is for a subject as a whole, but a probability changes within subjects; "
            "give [subject, 1]"
        )
    pi = jnp.concatenate(columns, 1)
    possible = (pi >= 0).all(-1) & (jnp.abs(pi.sum(-1) - 1) < ROUNDING)
    if not isinstance(possible, Tracer) and not possible.all():
        raise ModelError(
            f"the probabilities of {', '.join(names)} add up to {float(pi.sum(-1)[~possible][0]):g}, or one "
            f"is negative; they must add up to 1"
        )
    return Mixture(trial, names, jnp.log(jnp.where(possible[:, None], pi, jnp.nan)))
