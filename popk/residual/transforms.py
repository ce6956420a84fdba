r"""On which scale are errors symmetric? Transformations g of levels, of one shape lambda or none.

With errors on the transformed scale, :math:`g(y) = g(f) + s(f)\,\epsilon`, the density of the level
itself has the factor :math:`g'(y)`.

References
----------
.. [1] Box GEP, Cox DR (1964). An analysis of transformations. J R Stat Soc B 26:211-252.
   doi:10.1111/j.2517-6161.1964.tb00553.x
.. [2] Yeo IK, Johnson RA (2000). A new family of power transformations to improve normality or
   symmetry. Biometrika 87:954-959. doi:10.1093/biomet/87.4.954
"""

from collections.abc import Callable
from math import factorial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from popk.trial import Array

Values = Float[Array, "..."]
Shape = Float[Array, ""] | float | Any  # NumPyro types what it samples as anything

#: Where an end lies that no level reaches: its square is still finite in single precision.
FAR = 1e15

_CLOSE, _TERMS = 0.2, 11  # below 0.2 the twelfth term is less than 1e-16 of the first


class Transform(NamedTuple):
    """An increasing transformation g of levels, as functions of values and the shape lambda.

    Attributes
    ----------
    forward : Callable
        g(y).
    log_slope : Callable
        log g'(y).
    inverse : Callable
        The level y at g(y).
    ends : Callable or None
        ``ends(shape)`` are the least and greatest values of g; None where they are infinite.
    positive : bool
        Whether only positive levels have a g(y).
    """

    forward: Callable[[Values, Shape], Values]
    log_slope: Callable[[Values, Shape], Values]
    inverse: Callable[[Values, Shape], Values]
    ends: Callable[[Shape], tuple[Values, Values]] | None = None
    positive: bool = False


def _growth(x: Values) -> Values:
    # (exp(x) - 1) / x near 0, where the quotient has no derivatives.
    total = jnp.full_like(x, 1 / factorial(_TERMS))
    for k in range(_TERMS - 1, 0, -1):
        total = total * x + 1 / factorial(k)
    return total


def _box_cox(y: Values, shape: Shape) -> Values:
    log = jnp.log(y)
    x = shape * log
    close = jnp.abs(x) < _CLOSE
    over = jnp.where(close, 1.0, shape)
    small, large = jnp.where(close, x, 0.0), jnp.where(close, 0.0, x)
    return jnp.where(close, log * _growth(small), jnp.expm1(large) / over)


def _box_cox_inverse(z: Values, shape: Shape) -> Values:
    over = jnp.where(shape == 0, 1.0, shape)
    return jnp.exp(jnp.where(shape == 0, z, jnp.log1p(over * z) / over))


def _box_cox_ends(shape: Shape) -> tuple[Values, Values]:
    end = -1 / jnp.where(jnp.abs(shape) < 1 / FAR, 1 / FAR, shape)
    return jnp.where(shape > 0, end, -FAR), jnp.where(shape < 0, end, FAR)


def _yeo_johnson(y: Values, shape: Shape) -> Values:
    # Each side sees 0 in place of the other's values: a power of a negative number is NaN.
    above, below = jnp.where(y < 0, 0.0, y), jnp.where(y < 0, -y, 0.0)
    return jnp.where(y < 0, -_box_cox(1 + below, 2 - shape), _box_cox(1 + above, shape))


def _yeo_johnson_inverse(z: Values, shape: Shape) -> Values:
    above, below = jnp.where(z < 0, 0.0, z), jnp.where(z < 0, -z, 0.0)
    low, high = _box_cox_inverse(below, 2 - shape), _box_cox_inverse(above, shape)
    return jnp.where(z < 0, 1 - low, high - 1)


def _yeo_johnson_ends(shape: Shape) -> tuple[Values, Values]:
    return -_box_cox_ends(2 - shape)[1], _box_cox_ends(shape)[1]


#: Errors of the level itself.
IDENTITY = Transform(lambda y, _: y, lambda y, _: jnp.zeros_like(y), lambda z, _: z)

#: Errors of its logarithm.
LOG = Transform(
    lambda y, _: jnp.log(y), lambda y, _: -jnp.log(y), lambda z, _: jnp.exp(z), positive=True
)

#: Box and Cox's powers (see `popk.residual.errors.box_cox_error`).
BOX_COX = Transform(
    _box_cox,
    lambda y, shape: (shape - 1) * jnp.log(y),
    _box_cox_inverse,
    _box_cox_ends,
    positive=True,
)

#: Yeo and Johnson's powers (see `popk.residual.errors.yeo_johnson_error`).
YEO_JOHNSON = Transform(
    _yeo_johnson,
    lambda y, shape: (shape - 1) * jnp.sign(y) * jnp.log1p(jnp.abs(y)),
    _yeo_johnson_inverse,
    _yeo_johnson_ends,
)
