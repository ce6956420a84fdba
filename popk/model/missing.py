"""What is believed of a covariate that some subjects lack? It is sampled, never filled in."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from popk.model.sites import ModelError, check_name
from popk.trial import Array, Trial


def covariate_model(
    trial: Trial, name: str, distribution: dist.Distribution
) -> Float[Array, "s 1"]:
    r"""Return a covariate whose missing values are sampled with everything else.

    Known values are observations of the distribution, and teach its parameters; missing ones are
    latent, ``WT_missing`` (subject), and what the subject's levels say of them counts, too:

    .. math:: p(x_{miss}, \eta, \theta \mid y, x_{obs}) \propto p(y \mid x, \eta, \theta)\,p(x \mid \theta)
        \,p(\eta \mid \theta)\,p(\theta)

    which is unbiased where values are missing at random [1]_. The complete covariate is recorded under
    its own name.

    Parameters
    ----------
    trial : Trial
        Read with ``missing=["WT"]``; of one that has all values, these are returned.
    name : str
        The covariate, constant in each subject.
    distribution : Distribution
        Continuous, of one number or of [subject, 1], so that it may depend on other covariates:
        ``dist.LogNormal(jnp.log(70), 0.2)``, or with parameters that are sampled.

    Raises
    ------
    ModelError
        The distribution is discrete or of another shape, or the covariate changes within subjects.

    Notes
    -----
    A missing class (a genotype) cannot be sampled by gradients: sum it out with `popk.mixture`, whose
    probabilities are 0 or 1 where it is known, ``trial.covariate("PM", missing=share)``.

    Examples
    --------
    >>> WT = popk.covariate_model(trial, "WT", dist.LogNormal(WT_mean, WT_sd))  # doctest: +SKIP

    References
    ----------
    .. [1] Little RJA, Rubin DB (2019). Statistical Analysis with Missing Data, 3rd ed. Wiley.
       doi:10.1002/9781119482260
    """
    check_name(name)
    support: Any = distribution.support
    if support.is_discrete:
        raise ModelError(
            f"{name} was given a discrete distribution, which cannot be sampled by its gradient; sum it "
            f"out: popk.mixture, with trial.covariate('{name}', missing=...) as a probability"
        )
    values = trial.covariate(name, missing=jnp.nan)
    if values.shape[-1] != 1:
        raise ModelError(
            f"{name} changes within subjects; covariate_model() is of one value for each subject"
        )
    shape = (trial.n_subjects, 1)
    if distribution.event_shape or distribution.batch_shape not in ((), shape):
        raise ModelError(
            f"the distribution of {name} has the shape {distribution.shape()}; it must be of one number "
            f"or of [subject, 1], {shape}"
        )
    unknown = jnp.isnan(values)
    with numpyro.plate("subject", trial.n_subjects, dim=-2):
        drawn: Any = numpyro.sample(
            f"{name}_missing", distribution.expand(shape), infer={"covariate": name}
        )
        # Where a value is unknown its place holds one of the support, which does not count.
        known = jnp.where(unknown, jnp.asarray(drawn), values)
        log_density = jnp.where(unknown, 0.0, distribution.log_prob(known))
        numpyro.factor(f"{name}_known", log_density)
        complete: Any = numpyro.deterministic(name, known)
    return complete
