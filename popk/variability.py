"""How do people differ? The distribution of random effects, and the coordinates they are sampled in."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import expit, gammaln, logit, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from numpyro.primitives import Messenger

Effects = Float[Array, "*s p"]
Values = Float[Array, "..."]


class Transform(NamedTuple):
    """How an individual parameter follows from its typical value and a random effect.

    Attributes
    ----------
    name : str
    center : Callable
        ``center(typical)`` is the typical value on the scale of the random effect.
    value : Callable
        ``value(center, eta)`` is the individual parameter.
    omega : bool
        Whether a standard deviation of half a unit on that scale is a sensible guess in any model.
    within : tuple of float
        Between which typical values lie, neither of the two included.
    """

    name: str
    center: Callable[[Any], Any]
    value: Callable[[Any, Any], Any]
    omega: bool = True
    within: tuple[float, float] = (0.0, math.inf)


def logit_between(low: float = 0.0, high: float = 1.0) -> Transform:
    r"""Return :math:`P = l + (h - l)\,\mathrm{expit}(\mathrm{logit}\frac{TV - l}{h - l} + \eta)`.

    Parameters
    ----------
    low, high : float
        Between which the parameter lies, in its unit.

    Raises
    ------
    ValueError
        `high` is not above `low`.

    Examples
    --------
    >>> t = logit_between(0, 1)
    >>> float(t.value(t.center(0.5), 0.0))
    0.5
    """
    if not high > low:
        raise ValueError(f"logit_between({low}, {high}): the second number must be the larger one")
    wide = high - low
    return Transform(
        f"logit between {low:g} and {high:g}",
        lambda typical: logit((typical - low) / wide),
        lambda center, eta: low + wide * expit(center + eta),
        within=(low, high),
    )


def box_cox(shape: Any) -> Transform:
    r"""Return :math:`P = TV \exp\left(\frac{e^{\lambda \eta} - 1}{\lambda}\right)`: a skewed random effect.

    With shape 0 it is log-normal; above 0 its upper tail is the longer one, below 0 the lower.

    Parameters
    ----------
    shape : Float[Array, ""]
        :math:`\lambda`, often sampled by the model: ``numpyro.sample("shape_CL", dist.Normal(0, 0.5))``.

    References
    ----------
    .. [1] Petersson KJF, Hanze E, Savic RM, Karlsson MO (2009). Semiparametric distributions with
       estimated shape parameters. Pharm Res 26:2174-2185. doi:10.1007/s11095-009-9931-1
    """

    def skewed(eta: Any) -> Any:
        x = shape * eta
        small = jnp.abs(x) < 1e-5  # there the quotient loses digits, and has none at 0
        far = jnp.expm1(x) / jnp.where(small, 1.0, shape)
        return jnp.where(small, eta * (1 + x / 2), far)

    return Transform("Box-Cox", jnp.log, lambda center, eta: jnp.exp(center + skewed(eta)))


#: The transforms that have a name of their own.
TRANSFORMS = {
    "log": Transform("log", jnp.log, lambda center, eta: jnp.exp(center + eta)),
    "normal": Transform(
        "normal",
        lambda t: t,
        lambda center, eta: center + eta,
        omega=False,
        within=(-math.inf, math.inf),
    ),
    "logit": logit_between(),
    "probit": Transform(
        "probit", ndtri, lambda center, eta: norm.cdf(center + eta), within=(0.0, 1.0)
    ),
}


def random_effects(
    omega: Float[Array, " p"], corr: Float[Array, "p p"] | None, degrees: Any = None
) -> dist.Distribution:
    r"""Return :math:`\eta \sim N(0, \Omega)` with :math:`\Omega_{jk} = \omega_j\,\omega_k\,\rho_{jk}`.

    Parameters
    ----------
    omega : Float[Array, "parameter"]
        Standard deviations of the random effects (for log-normal parameters on the log scale).
    corr : Float[Array, "parameter parameter2"], optional
        Their correlations; None for independent ones.
    degrees : Float[Array, ""], optional
        Degrees of freedom of a multivariate t distribution, whose scale omega then is; None: normal.
    """
    lower = jnp.eye(omega.shape[0]) if corr is None else jnp.linalg.cholesky(corr)
    lower = omega[:, None] * lower
    center = jnp.zeros_like(omega)
    return _Normal(center, lower) if degrees is None else _StudentT(center, lower, degrees)


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
        return self.standard(_deviates(self.lower, value - self.loc)) - _log_volume(self.lower)

    def standard(self, z: Any) -> Array:
        """Return the log-density of each standard deviate."""
        return -0.5 * (z * z).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


class _StudentT(dist.MultivariateStudentT):
    """The same with the tails of Student's t."""

    pytree_data_fields = ("lower", "degrees")

    def __init__(self, loc: Array, lower: Float[Array, "p p"], degrees: Any):
        self.lower, self.degrees = lower, degrees
        super().__init__(degrees, loc, scale_tril=lower)

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Return the log-density of each value."""
        return self.standard(_deviates(self.lower, value - self.loc)) - _log_volume(self.lower)

    def standard(self, z: Any) -> Array:
        """Return the log-density of each standard deviate."""
        p, nu = z.shape[-1], self.degrees
        norm = gammaln(nu / 2) - gammaln((nu + p) / 2) + p / 2 * jnp.log(nu * math.pi)
        return -(nu + p) / 2 * jnp.log1p((z * z).sum(-1) / nu) - norm


def _log_volume(lower: Float[Array, "p p"]) -> Float[Array, ""]:
    return jnp.log(jnp.diagonal(lower)).sum()


def _deviates(lower: Float[Array, "p p"], x: Effects) -> Effects:
    """Return z, where x = L z."""
    inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(lower.shape[0]), lower=True)
    return _applied(inverse, x)


def _applied(matrix: Float[Array, "p p"], x: Effects) -> Effects:
    """Return a small matrix times each vector."""
    return x @ matrix.T


def cv_percent(omega: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the CV% of a log-normal parameter, :math:`100\sqrt{e^{\omega^2} - 1}`."""
    return 100 * jnp.sqrt(jnp.expm1(omega**2))


class Centering(NamedTuple):
    """How random effects are sampled.

    Attributes
    ----------
    fraction : Float[Array, "parameter"] or [subject, 1, parameter]
        c, from 0 (not centred) to 1 (centred).
    scale : Float[Array, "parameter"]
        s, standard deviations as they are expected: it is from there that they widen or narrow
        coordinates that are neither.
    """

    fraction: Float[Array, "*s p"]
    scale: Float[Array, " p"]


class _Coordinate(dist.Distribution):
    """The distribution of the coordinates of `Coordinates`."""

    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("effects", "typical", "centering")

    def __init__(self, effects: Any, typical: Array, centering: Centering):
        self.effects, self.typical, self.centering = effects, typical, centering
        shape = jnp.broadcast_shapes(jnp.shape(typical), jnp.shape(centering.fraction))
        super().__init__(shape[:-1], shape[-1:])

    @property
    def _widths(self) -> Effects:
        c, s = self.centering
        return s * (jnp.diagonal(self.effects.lower) / s) ** c

    def deviates(self, u: Any) -> Array:
        """Return the standard deviates z of coordinates."""
        lower, c = self.effects.lower, jnp.broadcast_to(self.centering.fraction, u.shape)
        widths = jnp.broadcast_to(self._widths, u.shape)
        found: list[Any] = []
        for j in range(u.shape[-1]):  # written out: few steps, each of all subjects abreast
            before = sum((lower[j, k] * z for k, z in enumerate(found)), self.typical[..., j])
            found.append((u[..., j] - c[..., j] * before) / widths[..., j])
        return jnp.stack(found, -1)

    def at(self, z: Any) -> Array:
        """Return the coordinates of standard deviates."""
        strict = _applied(jnp.tril(self.effects.lower, -1), z)
        return self.centering.fraction * (self.typical + strict) + self._widths * z

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Return the log-density of each subject's coordinates."""
        return self.effects.standard(self.deviates(value)) - jnp.log(self._widths).sum(-1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws."""
        eta = self.effects.sample(key, (*sample_shape, *self.batch_shape))
        return self.at(_deviates(self.effects.lower, eta))

    @property
    def mean(self) -> Array:
        """Return the coordinates of typical subjects."""
        return self.at(jnp.zeros(self.shape()))

    @property
    def variance(self) -> Array:
        """Return about how far subjects are from it, squared."""
        return jnp.broadcast_to(self._widths, self.shape()) ** 2


class Coordinates(Messenger):
    r"""Sample `eta` through coordinates between the individual parameter and a standard deviate.

    With L the Cholesky factor of Omega and z standard normal, :math:`\eta = L z`, and

    .. math:: u_j = c_j\,(\mu_j + \textstyle\sum_{k<j} L_{jk} z_k) + s_j (L_{jj} / s_j)^{c_j} z_j

    With c = 1 the individual parameter :math:`\mu + \eta` itself is sampled (centred), with c = 0
    the deviate s z (not centred), in between a mixture, each effect given the ones before it. The model
    is unchanged: `eta` stays its site.

    Parameters
    ----------
    fn : Callable
        The model; its `eta` site carries the typical values at ``infer["typical"]``.
    centering : Centering
        c and s.

    References
    ----------
    .. [1] Papaspiliopoulos O, Roberts GO, Skold M (2007). A general framework for the
       parametrization of hierarchical models. Stat Sci 22:59-73. doi:10.1214/088342307000000014
    .. [2] Gorinova MI, Moore D, Hoffman MD (2020). Automatic reparameterisation of
       probabilistic programs. ICML, PMLR 119:3648-3657.
    """

    def __init__(self, fn: Any = None, *, centering: Centering):
        self.centering = centering
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put the coordinates' site in the place of `eta`'s, and of those of occasions and groups."""
        if msg["type"] != "sample" or "typical" not in msg["infer"]:
            return
        if msg["name"] != "eta":
            self._half_way(msg)
            return
        coordinate = _coordinate(msg, self.centering)
        u: Any = numpyro.sample("eta_coordinate", coordinate)
        msg["value"] = _applied(coordinate.effects.lower, coordinate.deviates(u))
        msg["type"] = "deterministic"

    def _half_way(self, msg: dict[str, Any]) -> None:
        r"""Sample :math:`u = \kappa / \gamma^{1/2}`: half way between centred and not."""
        root, name = _root(msg), f"{msg['name']}_coordinate"
        msg["value"] = root * numpyro.sample(
            name, dist.Normal(0, root).to_event(msg["fn"].event_dim)
        )
        msg["type"] = "deterministic"


class Located(Messenger):
    """Note the coordinates of random effects whose values are given: `Coordinates` the other way.

    Parameters
    ----------
    fn : Callable
        The model, its random effects substituted.
    centering : Centering, optional
        None where the model has no `eta`, or it stays as it stands.
    found : dict of str to Array
        Is filled with the values of all sites, by the names that `Coordinates` samples,
        unconstrained; and with ``eta_scale``, how far each effect varies given those before it.
    """

    def __init__(self, fn: Any, *, centering: Centering | None, found: dict[str, Any]):
        self.centering, self.found = centering, found
        super().__init__(fn)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Note where a site is."""
        if msg["type"] != "sample" or msg.get("is_observed"):
            return
        name, value = msg["name"], msg["value"]
        if "typical" not in msg["infer"] or self.centering is None:
            self.found[name] = dist.biject_to(msg["fn"].support).inv(value)
            return
        if name == "eta":
            coordinate = _coordinate(msg, self.centering)
            lower = coordinate.effects.lower
            self.found["eta_scale"] = jnp.diagonal(lower)
            value = coordinate.at(_deviates(lower, value))
        else:
            value = value / _root(msg)
        self.found[f"{name}_coordinate"] = value


def _coordinate(msg: dict[str, Any], centering: Centering) -> _Coordinate:
    """Return the coordinates of the random effects of a site."""
    fn: Any = msg["fn"]
    while not isinstance(fn, _Normal | _StudentT):  # under the plate's expansion
        fn = fn.base_dist
    return _Coordinate(fn, msg["infer"]["typical"], centering)


def _root(msg: dict[str, Any]) -> Any:
    """Return the root of the standard deviations of a site's random effects."""
    fn: Any = msg["fn"]
    while not isinstance(fn, dist.Normal):
        fn = fn.base_dist
    return jnp.sqrt(jnp.asarray(fn.scale))
