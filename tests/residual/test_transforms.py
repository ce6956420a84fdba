"""On which scale are errors symmetric?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from popk.residual.transforms import BOX_COX, IDENTITY, LOG, YEO_JOHNSON

POSITIVE = np.array([1e-3, 0.2, 0.97, 1.0, 1.02, 5.0, 300.0])
EITHER = np.concatenate([-POSITIVE[::-1], [0.0], POSITIVE])
SHAPES = [-1.5, -0.3, 0.0, 1e-9, 0.02, 0.5, 1.0, 2.0, 2.5]


@pytest.mark.parametrize("shape", SHAPES)
def test_box_and_coxs_transformation_is_scipys(shape):
    found = BOX_COX.forward(jnp.asarray(POSITIVE), jnp.asarray(shape))
    np.testing.assert_allclose(found, special.boxcox(POSITIVE, shape), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_yeo_and_johnsons_transformation_is_scipys(shape):
    found = YEO_JOHNSON.forward(jnp.asarray(EITHER), jnp.asarray(shape))
    np.testing.assert_allclose(found, stats.yeojohnson(EITHER, shape), rtol=1e-8, atol=1e-15)


CASES = [
    (g, y, s) for g, y in ((BOX_COX, POSITIVE), (YEO_JOHNSON, EITHER)) for s in (-0.3, 0.0, 0.5)
]


@pytest.mark.parametrize(
    ("g", "y", "shape"), [*CASES, (LOG, POSITIVE, 1.0), (IDENTITY, EITHER, 1.0)]
)
def test_the_slope_is_that_of_the_transformation_and_the_inverse_undoes_it(g, y, shape):
    y, shape = jnp.asarray(y), jnp.asarray(shape)
    z, slope = jax.jvp(lambda y: g.forward(y, shape), (y,), (jnp.ones_like(y),))
    np.testing.assert_allclose(g.log_slope(y, shape), jnp.log(slope), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(g.inverse(z, shape), y, rtol=1e-9, atol=1e-12)


def test_at_shape_0_slope_and_curvature_in_the_shape_are_those_of_the_series():
    # (exp(s L) - 1) / s = L + s L^2 / 2 + s^2 L^3 / 6 + ..., with L = log y.
    log = np.log(POSITIVE)

    def forward(shape):
        return BOX_COX.forward(jnp.asarray(POSITIVE), shape)

    np.testing.assert_allclose(jax.jacfwd(forward)(0.0), log**2 / 2, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(forward))(0.0), log**3 / 3, rtol=1e-12)


@pytest.mark.parametrize(
    ("g", "shape", "low", "high"),
    [
        (BOX_COX, 0.5, -2, 1e15),
        (BOX_COX, 0.0, -1e15, 1e15),
        (BOX_COX, -0.5, -1e15, 2),
        (YEO_JOHNSON, 1.0, -1e15, 1e15),
        (YEO_JOHNSON, -0.5, -1e15, 2),
        (YEO_JOHNSON, 2.5, -2, 1e15),
    ],
)
def test_a_power_ends_where_no_level_reaches(g, shape, low, high):
    np.testing.assert_allclose(g.ends(jnp.asarray(shape)), [low, high], rtol=1e-15)
