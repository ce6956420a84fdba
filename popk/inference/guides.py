r"""What is a posterior like, in a form that can be drawn from? Guides for variational inference.

A guide turns standard normal numbers into a whitened position (zero mean and unit covariance where the
posterior is normal). Mean-field takes each number by itself. The flow turns the population's numbers by
coupling layers [1]_, a triangular matrix and a sinh-arcsinh transformation [2]_; each subject's numbers
by one triangular matrix and one sinh-arcsinh transformation of its own, whose location and scale follow
the population's values,

.. math:: w_0 = f(z_0), \qquad w_i = a_i + A_i h(w_0) + L_i(h(w_0))\, s_i(z_i)

with features h that all subjects share. No subject depends on another one but through the population, as
in the model: the numbers to learn grow in proportion to subjects, not to their square.

References
----------
.. [1] Dinh L, Sohl-Dickstein J, Bengio S (2017). Density estimation using Real NVP. ICLR.
   arXiv:1605.08803.
.. [2] Jones MC, Pewsey A (2009). Sinh-arcsinh distributions. Biometrika 96:761-780.
   doi:10.1093/biomet/asp053
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.inference.adaptation import Metric
from popk.inference.density import Layout, Vector

FAMILIES = ("flow", "mean-field")
_LAYERS = 4  # couplings: each half of the population's numbers is turned twice
_HIDDEN = 16  # units of a coupling's network
_FEATURES = 8  # that subjects share beside the population's values themselves
#: Scales are at most e^3 times as large or small anywhere: far draws stay finite.
_LARGEST = 3.0

#: What came out, and the log of the Jacobian determinant of the way there.
Turned = tuple[Float[Array, "*n"], Float[Array, "*m"]]


class Diagonal(NamedTuple):
    """Each number by itself, shifted and scaled.

    Attributes
    ----------
    shift, log_scale : Float[Array, "*n k"]
    """

    shift: Float[Array, "*n"]
    log_scale: Float[Array, "*n"]

    @classmethod
    def begin(cls, shape: tuple[int, ...]) -> "Diagonal":
        """Return the identity."""
        return cls(jnp.zeros(shape), jnp.zeros(shape))

    def forward(self, z: Float[Array, "*n"], given: Any = None) -> Turned:
        """Return the whitened numbers of standard normal ones; nothing is given."""
        return self.shift + jnp.exp(self.log_scale) * z, self.log_scale.sum(-1)

    def inverse(self, white: Float[Array, "*n"], given: Any = None) -> Turned:
        """Return the standard normal numbers of whitened ones, and the slope of `forward` there."""
        return (white - self.shift) * jnp.exp(-self.log_scale), self.log_scale.sum(-1)


class Shape(NamedTuple):
    r"""The sinh-arcsinh transformation :math:`\sinh((\sinh^{-1} z + \epsilon) / \delta)` of each number.

    Attributes
    ----------
    skewness : Float[Array, "*n"]
        :math:`\epsilon`
    log_tail : Float[Array, "*n"]
        :math:`\log \delta`; below 0 tails are heavier than normal ones.
    """

    skewness: Float[Array, "*n"]
    log_tail: Float[Array, "*n"]

    @classmethod
    def begin(cls, shape: tuple[int, ...]) -> "Shape":
        """Return the identity."""
        return cls(jnp.zeros(shape), jnp.zeros(shape))

    def forward(self, z: Float[Array, "*n"]) -> Turned:
        """Return the transformed numbers."""
        angle = (jnp.arcsinh(z) + self.skewness) * jnp.exp(-self.log_tail)
        return jnp.sinh(angle), self._slope(z, angle)

    def inverse(self, x: Float[Array, "*n"]) -> Turned:
        """Return the numbers that are transformed into these, and the slope of `forward` there."""
        angle = jnp.arcsinh(x)
        z = jnp.sinh(angle * jnp.exp(self.log_tail) - self.skewness)
        return z, self._slope(z, angle)

    def _slope(self, z, angle):
        slope = jnp.log(jnp.cosh(angle)) - self.log_tail - 0.5 * jnp.log1p(z**2)
        return slope.sum(-1)


class Couplings(NamedTuple):
    """Layers that shift and scale one half of the numbers by what the other half says.

    Attributes
    ----------
    weights, bias : Float[Array, "layer p h"], Float[Array, "layer h"]
        Of the hidden units.
    out, offset : Float[Array, "layer h q"], Float[Array, "layer q"]
        Of the log scales and shifts; zero at first.
    """

    weights: Float[Array, "*l p h"]
    bias: Float[Array, "*l h"]
    out: Float[Array, "*l h q"]
    offset: Float[Array, "*l q"]

    @classmethod
    def begin(cls, size: int, key: Any) -> "Couplings":
        """Return the identity, its hidden units drawn at random."""
        weights = jax.random.normal(key, (_LAYERS, size, _HIDDEN)) / max(size, 1) ** 0.5
        zeros = jnp.zeros((_LAYERS, _HIDDEN, 2 * size))
        return cls(weights, jnp.zeros((_LAYERS, _HIDDEN)), zeros, jnp.zeros((_LAYERS, 2 * size)))

    def forward(self, x: Float[Array, " p"]) -> Turned:
        """Return the numbers after all layers."""

        def turned(x, layer):
            log_scale, shift = _says(x, *layer)
            return x * jnp.exp(log_scale) + shift, log_scale.sum()

        x, slopes = jax.lax.scan(turned, x, (self, jnp.arange(_LAYERS)))
        return x, slopes.sum()

    def inverse(self, x: Float[Array, " p"]) -> Turned:
        """Return the numbers before all layers, and the slope of `forward` there."""

        def back(x, layer):
            log_scale, shift = _says(x, *layer)
            return (x - shift) * jnp.exp(-log_scale), log_scale.sum()

        x, slopes = jax.lax.scan(back, x, (self, jnp.arange(_LAYERS)), reverse=True)
        return x, slopes.sum()


def _says(x, own, number):
    """Return the log scales and shifts of a layer: 0 for the half that it leaves as it is."""
    kept = (jnp.arange(len(x)) + number) % 2
    hidden = jnp.tanh((kept * x) @ own.weights + own.bias)
    log_scale, shift = jnp.split(hidden @ own.out + own.offset, 2)
    return (1 - kept) * _bounded(log_scale), (1 - kept) * shift


class Population(NamedTuple):
    """The flow of the population's numbers.

    Attributes
    ----------
    couplings : Couplings
    affine : Diagonal
    lower : Float[Array, "p p"]
        Of which what lies below the diagonal is added to the scale's matrix.
    shape : Shape
    """

    couplings: Couplings
    affine: Diagonal
    lower: Float[Array, "p p"]
    shape: Shape

    @classmethod
    def begin(cls, size: int, key: Any) -> "Population":
        """Return the identity."""
        return cls(
            Couplings.begin(size, key), Diagonal.begin((size,)), jnp.zeros((size, size)),
            Shape.begin((size,)),
        )  # fmt: skip

    def forward(self, z: Float[Array, " p"], given: Any = None) -> Turned:
        """Return the whitened numbers of standard normal ones; nothing is given."""
        x, first = self.couplings.forward(z)
        x = self.affine.shift + _matrix(self.affine.log_scale, self.lower) @ x
        x, last = self.shape.forward(x)
        return x, first + self.affine.log_scale.sum() + last

    def inverse(self, white: Float[Array, " p"], given: Any = None) -> Turned:
        """Return the standard normal numbers of whitened ones, and the slope of `forward` there."""
        x, last = self.shape.inverse(white)
        matrix = _matrix(self.affine.log_scale, self.lower)
        x = jax.scipy.linalg.solve_triangular(matrix, x - self.affine.shift, lower=True)
        x, first = self.couplings.inverse(x)
        return x, first + self.affine.log_scale.sum() + last


class Individual(NamedTuple):
    """The flow of each subject's numbers, given the population's.

    Attributes
    ----------
    weights, bias : Float[Array, "p h"], Float[Array, "h"]
        Of the features that subjects share.
    affine : Diagonal
        Locations and log scales [subject, k] where the features are 0.
    slopes, log_scale_slopes : Float[Array, "subject k f"]
        How they follow the features.
    lower : Float[Array, "subject k k"]
    shape : Shape
    """

    weights: Float[Array, "p h"]
    bias: Float[Array, " h"]
    affine: Diagonal
    slopes: Float[Array, "s k f"]
    log_scale_slopes: Float[Array, "s k f"]
    lower: Float[Array, "s k k"]
    shape: Shape

    @classmethod
    def begin(cls, plan: Layout, key: Any) -> "Individual":
        """Return the identity, its features drawn at random."""
        p, k = plan.n_population, plan.n_individual
        size = (plan.n_subjects, k)
        none = jnp.zeros((*size, p + _FEATURES))
        return cls(
            jax.random.normal(key, (p, _FEATURES)) / max(p, 1) ** 0.5, jnp.zeros(_FEATURES),
            Diagonal.begin(size), none, none, jnp.zeros((*size, k)), Shape.begin(size),
        )  # fmt: skip

    def forward(self, z: Float[Array, "s k"], given: Float[Array, " p"]) -> Turned:
        """Return each subject's whitened numbers of standard normal ones, the population's given."""
        location, log_scale = self._at(given)
        x, slope = self.shape.forward(z)
        # Written out: k is small, and XLA has no fast product of many small matrices.
        x = (_matrix(log_scale, self.lower) * x[:, None, :]).sum(-1)
        return location + x, slope + log_scale.sum(-1)

    def inverse(self, white: Float[Array, "s k"], given: Float[Array, " p"]) -> Turned:
        """Return each subject's standard normal numbers, and the slope of `forward` there."""
        location, log_scale = self._at(given)
        matrix, left = _matrix(log_scale, self.lower), white - location
        columns: list[Any] = []
        for j in range(white.shape[-1]):  # forward substitution, all subjects abreast
            known = sum((matrix[:, j, i] * x for i, x in enumerate(columns)), jnp.zeros(()))
            columns.append((left[:, j] - known) / matrix[:, j, j])
        x = jnp.stack(columns, -1) if columns else white
        z, slope = self.shape.inverse(x)
        return z, slope + log_scale.sum(-1)

    def _at(self, given):
        h = jnp.concatenate([given, jnp.tanh(given @ self.weights + self.bias)])
        location = self.affine.shift + self.slopes @ h
        return location, _bounded(self.affine.log_scale + self.log_scale_slopes @ h)


class Guide(NamedTuple):
    """A distribution of whitened positions.

    Attributes
    ----------
    population : Population or Diagonal
    individual : Individual or Diagonal
        Given the population's whitened numbers.
    """

    population: Any
    individual: Any

    @classmethod
    def begin(cls, family: str, plan: Layout, key: Any) -> "Guide":
        """Return the standard normal distribution, as a member of a family of `FAMILIES`."""
        if family == "mean-field":
            shape = (plan.n_subjects, plan.n_individual)
            return cls(Diagonal.begin((plan.n_population,)), Diagonal.begin(shape))
        common, each = jax.random.split(key)
        return cls(Population.begin(plan.n_population, common), Individual.begin(plan, each))

    def forward(self, plan: Layout, z: Float[Array, " d"]) -> Turned:
        """Return the whitened position of standard normal numbers."""
        common, each = plan.blocks(z)
        common, first = self.population.forward(common)
        each, second = self.individual.forward(each, common)
        return jnp.concatenate([common, each.ravel()]), first + second.sum()

    def inverse(self, plan: Layout, white: Float[Array, " d"]) -> Turned:
        """Return the standard normal numbers of a whitened position, and the slope of `forward`."""
        common, each = plan.blocks(white)
        z_common, first = self.population.inverse(common)
        z_each, second = self.individual.inverse(each, common)
        return jnp.concatenate([z_common, z_each.ravel()]), first + second.sum()


class Frame(NamedTuple):
    """Where a guide begins: position = center + metric.color(white)."""

    center: Vector
    metric: Metric

    def position(self, plan: Layout, white: Vector) -> Vector:
        """Return the position of a whitened one."""
        return self.center + self.metric.color(plan, white)

    def log_volume(self) -> Any:
        """Return the log of the Jacobian determinant."""
        return sum(jnp.log(jnp.diagonal(part, axis1=-2, axis2=-1)).sum() for part in self.metric)


class Placed(NamedTuple):
    """A guide, and where it began."""

    frame: Frame
    guide: Guide


def log_normal(z: Float[Array, " d"]) -> Float[Array, ""]:
    """Return the log-density of standard normal numbers."""
    return -0.5 * (z @ z + z.size * jnp.log(2 * jnp.pi))


def _bounded(log_scale):
    return _LARGEST * jnp.tanh(log_scale / _LARGEST)


def _matrix(log_scale, lower):
    """Return lower triangular matrices by the logs of their diagonals and what lies below."""
    return jnp.tril(lower, -1) + jnp.exp(log_scale)[..., None] * jnp.eye(log_scale.shape[-1])
