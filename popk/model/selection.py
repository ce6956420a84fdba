"""Which of many covariates matter? Their effects under a prior that shrinks most of them away."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from popk.model.sites import ModelError, by_subject, check_name
from popk.trial import Array, Trial


def horseshoe(
    trial: Trial,
    parameter: str,
    candidates: Mapping[str, Any],
    *,
    expected: float = 1.0,
    slab: float = 0.5,
    sd: float = 0.3,
) -> Float[Array, "s r"] | Any:
    r"""Return the log of the factor that many candidate covariates change a parameter by.

    .. math:: \sum_j \beta_j x_j, \quad \beta_j \sim N(0, \tau^2 \tilde\lambda_j^2), \quad
        \tilde\lambda_j^2 = \frac{c^2 \lambda_j^2}{c^2 + \tau^2 \lambda_j^2}, \quad
        \lambda_j \sim C^+(0, 1), \quad \tau \sim C^+(0, \tau_0)

    the regularized horseshoe [1]_: small effects are shrunk to nearly nothing, large ones stay, within
    a slab of scale c. With D candidates of which p are expected to matter and n subjects,
    :math:`\tau_0 = \frac{p}{D - p} \frac{\sigma}{\sqrt{n}}`. Samples ``CL_global``, ``CL_local``,
    ``CL_slab`` and ``CL_raw``, and records each coefficient as ``CL_AAG``.

    Parameters
    ----------
    trial : Trial
    parameter : str
        Whose effects these are: the beginning of the sites' names.
    candidates : mapping of str to Float[Array, "subject 1"] or [subject, record]
        The covariates, each centered and divided by about its standard deviation, by numbers of the
        model's own: those of another trial would mean something else.
    expected : float
        How many are expected to matter.
    slab : float
        Scale of the coefficients that matter [log of a factor, for each standard deviation].
    sd : float
        The standard deviation of the individual parameter on the log scale, roughly.

    Raises
    ------
    ModelError
        There are no more candidates than are expected to matter, one has a wrong shape or a name that
        is taken, or a number is not positive.

    Examples
    --------
    >>> CL = CL * jnp.exp(popk.horseshoe(trial, "CL", {"AAG": (AAG - 1) / 0.4, "AGE": (AGE - 67) / 9}))
    ... # doctest: +SKIP

    References
    ----------
    .. [1] Piironen J, Vehtari A (2017). Sparsity information and regularization in the horseshoe and
       other shrinkage priors. Electron J Stat 11:5018-5051. doi:10.1214/17-EJS1337SI
    """
    count = len(candidates)
    if not (0 < expected < count and slab > 0 and sd > 0):
        raise ModelError(
            f"horseshoe() was given {count} candidates, expected={expected}, slab={slab} and sd={sd}; all "
            f"must be positive, and expected less than the number of candidates"
        )
    x = _columns(trial, parameter, candidates)
    least = expected / (count - expected) * sd / trial.n_subjects**0.5
    tau: Any = numpyro.sample(f"{parameter}_global", dist.HalfCauchy(least))
    # An inverse gamma of shape 2 makes the slab a t distribution of 4 degrees of freedom [1].
    c2: Any = numpyro.sample(f"{parameter}_slab", dist.InverseGamma(2.0, 2.0 * slab**2))
    with numpyro.plate(f"candidate_{parameter}", count):
        local: Any = numpyro.sample(f"{parameter}_local", dist.HalfCauchy(1.0))
        raw: Any = numpyro.sample(f"{parameter}_raw", dist.Normal(0.0, 1.0))
    scale = tau * local * jnp.sqrt(c2 / (c2 + (tau * local) ** 2))
    beta = raw * scale
    for i, name in enumerate(candidates):
        numpyro.deterministic(f"{parameter}_{name}", beta[i])
    return (x * beta).sum(-1)


def candidate_effects(
    trial: Trial, parameter: str, candidates: Mapping[str, Any], *, sd: float = 0.5
) -> Float[Array, "s r"] | Any:
    r"""Return the log of the factor that candidate covariates change a parameter by, one by one.

    .. math:: \sum_j \beta_j x_j, \quad \beta_j \sim N(0, s^2)

    independently. Samples each coefficient as ``CL_AAG``, which `popk.scm` holds at 0 or estimates;
    `horseshoe` takes the same candidates.

    Parameters
    ----------
    trial : Trial
    parameter : str
        Whose effects these are: the beginning of the sites' names.
    candidates : mapping of str to Float[Array, "subject 1"] or [subject, record]
        The covariates, each centered and divided by about its standard deviation, by numbers of the
        model's own.
    sd : float
        s [log of a factor, for each standard deviation of a covariate].

    Raises
    ------
    ModelError
        There is no candidate, one has a wrong shape or a name that is taken, or `sd` is not positive.

    Examples
    --------
    >>> effect = popk.candidate_effects(trial, "CL", {"AAG": (AAG - 1) / 0.4, "AGE": (AGE - 67) / 9})
    ... # doctest: +SKIP
    >>> p = popk.individual(trial, CL=CL * jnp.exp(effect), V=V)  # doctest: +SKIP
    """
    if not (candidates and sd > 0):
        raise ModelError(
            f"candidate_effects() was given {len(candidates)} candidates and sd={sd}; give at least "
            f"one, and a positive sd"
        )
    x = _columns(trial, parameter, candidates)
    prior = dist.Normal(0.0, sd)
    beta: Any = jnp.stack([numpyro.sample(f"{parameter}_{name}", prior) for name in candidates])
    return (x * beta).sum(-1)


def _columns(trial: Trial, parameter: str, candidates: Mapping[str, Any]) -> Float[Array, "s r c"]:
    """Return candidates on a new last axis."""
    for name in candidates:
        check_name(f"{parameter}_{name}")
    columns = [by_subject(f"candidate {n}", x, trial, "trial.covariate() gives")
               for n, x in candidates.items()]  # fmt: skip
    return jnp.stack(jnp.broadcast_arrays(*columns), -1)
