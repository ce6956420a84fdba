"""How do people differ? The distribution of random effects, and the coordinates they are sampled in."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.primitives import Messenger


def random_effects(
    omega: Float[Array, " p"], corr: Float[Array, "p p"] | None
) -> dist.MultivariateNormal:
    r"""Return :math:`\eta \sim N(0, \Omega)` with :math:`\Omega_{jk} = \omega_j\,\omega_k\,\rho_{jk}`.

    Parameters
    ----------
    omega : Float[Array, "parameter"]
        Standard deviations of the random effects (for log-normal parameters on the log scale).
    corr : Float[Array, "parameter parameter2"], optional
        Their correlations; None for independent ones.
    """
    lower = jnp.eye(omega.shape[0]) if corr is None else jnp.linalg.cholesky(corr)
    return _Normal(jnp.zeros_like(omega), omega[:, None] * lower)


class _Normal(dist.MultivariateNormal):
    """Multivariate normal subjects with one small covariance matrix, whatever their means.

    Its factor is inverted once; to solve for each subject, as NumPyro does, took a third of the time of
    a log-density of 1,000 subjects.
    """

    pytree_data_fields = ("lower",)

    def __init__(self, loc: Array, lower: Float[Array, "p p"]):
        self.lower = lower
        super().__init__(loc, scale_tril=lower)

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Return the log-density of each value."""
        norm = 0.5 * self.lower.shape[0] * math.log(2 * math.pi)
        z = _deviates(self.lower, value - self.loc)
        return -0.5 * (z * z).sum(-1) - jnp.log(jnp.diagonal(self.lower)).sum() - norm


def _deviates(lower: Float[Array, "p p"], x: Float[Array, "*s p"]) -> Float[Array, "*s p"]:
    """Return z, where x = L z."""
    inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(lower.shape[0]), lower=True)
    return _applied(inverse, x)


def _applied(matrix: Float[Array, "p p"], x: Float[Array, "*s p"]) -> Float[Array, "*s p"]:
    """Return a small matrix times each vector: faster than a library's product."""
    return (x[..., None, :] * matrix).sum(-1)


def cv_percent(omega: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the CV% of a log-normal parameter, :math:`100\sqrt{e^{\omega^2} - 1}`."""
    return 100 * jnp.sqrt(jnp.expm1(omega**2))


class Coordinates(Messenger):
    r"""Sample `eta` through coordinates between the individual parameter and a standard deviate.

    With L the Cholesky factor of Omega and z standard normal, :math:`\eta = L z`, and

    .. math:: u_j = c_j\,(\mu_j + \textstyle\sum_{k<j} L_{jk} z_k) + L_{jj}^{c_j} z_j

    With c = 1 the individual parameter :math:`\mu + \eta` itself is sampled (centred), with c = 0
    the deviate z (not centred), in between a mixture, each effect given the ones before it. The model
    is unchanged: `eta` stays its site.

    Parameters
    ----------
    fn : Callable
        The model; its `eta` site carries the typical values at ``infer["typical"]``.
    centering : Float[Array, "parameter"]
        c for each random effect, 0 to 1.

    References
    ----------
    .. [1] Papaspiliopoulos O, Roberts GO, Skold M (2007). A general framework for the
       parametrization of hierarchical models. Stat Sci 22:59-73. doi:10.1214/088342307000000014
    .. [2] Gorinova MI, Moore D, Hoffman MD (2020). Automatic reparameterisation of
       probabilistic programs. ICML, PMLR 119:3648-3657.
    """

    def __init__(self, fn: Any = None, *, centering: Float[Array, " p"]):
        self.centering = centering
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put the coordinates' site in the place of `eta`'s."""
        if msg["type"] != "sample" or msg["name"] != "eta" or "typical" not in msg["infer"]:
            return
        fn: Any = msg["fn"]
        c = self.centering
        while not isinstance(fn, _Normal):  # under the plate's expansion
            fn = fn.base_dist
        lower = fn.lower
        center = c * msg["infer"]["typical"]
        scale = c[:, None] * jnp.tril(lower, -1) + jnp.diag(jnp.diagonal(lower) ** c)
        u: Any = numpyro.sample("eta_coordinate", _Normal(center, scale))
        msg["value"] = _applied(lower, _deviates(scale, u - center))
        msg["type"] = "deterministic"
