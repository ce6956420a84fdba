"""What solves a few linear equations for each of many lanes?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.structural.elimination import WRITTEN_OUT, factors, solve

pytestmark = pytest.mark.usefixtures("strict_promotion")


def solved(M, b):
    matrix = tuple(tuple(row) for row in M)
    return jnp.stack(solve(matrix, factors(jax.lax.stop_gradient(matrix)), tuple(b)))


def example(n, seed=1):
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.normal(size=(n, n))), jnp.asarray(draw.normal(size=n))


@pytest.mark.parametrize("n", [1, 2, 3, 5, WRITTEN_OUT + 1])
def test_equations_are_solved_as_numpy_solves_them(n):
    M, b = example(n)
    np.testing.assert_allclose(solved(M, b), np.linalg.solve(M, b), rtol=1e-11)


def test_rows_are_exchanged_where_a_pivot_is_zero_or_tiny():
    M = jnp.asarray([[0.0, 1.0, 2.0], [1e-20, 1.0, 0.0], [3.0, 0.0, 1.0]])
    b = jnp.asarray([1.0, 2.0, 3.0])
    np.testing.assert_allclose(solved(M, b), np.linalg.solve(M, b), rtol=1e-14)


@pytest.mark.parametrize("n", [3, WRITTEN_OUT + 1])
def test_derivatives_are_those_of_the_inverse(n):
    M, b = example(n)
    weights = jnp.arange(1.0, n + 1)
    of_M, of_b = jax.grad(lambda M, b: weights @ solved(M, b), (0, 1))(M, b)
    adjoint = np.linalg.solve(np.asarray(M).T, weights)
    np.testing.assert_allclose(of_b, adjoint, rtol=1e-11)
    np.testing.assert_allclose(of_M, -np.outer(adjoint, np.linalg.solve(M, b)), rtol=1e-11)
    forward = jax.jacfwd(lambda M: weights @ solved(M, b))(M)
    np.testing.assert_allclose(forward, of_M, rtol=1e-11)


def test_each_lane_has_its_own_pivots():
    pairs = [example(3, seed) for seed in range(20)]
    M, b = (jnp.stack(x) for x in zip(*pairs, strict=True))
    found = jax.jit(jax.vmap(solved))(M, b)
    np.testing.assert_allclose(found, np.linalg.solve(M, b[..., None])[..., 0], rtol=1e-10)
