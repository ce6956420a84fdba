"""How is a right-hand side computed without arrays of compartments?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.structural.scalars import array_of, run, written_out

pytestmark = pytest.mark.usefixtures("strict_promotion")

A, K = jnp.asarray([0.3, 1.2, 2.5]), jnp.arange(9.0).reshape(3, 3) / 7


def scalar_by_scalar(function, *rest):
    """Return a function of A computed scalar by scalar, and its program."""
    program = jax.make_jaxpr(function)(A, *rest)

    def computed(A, *rest):
        (found,) = run(program.jaxpr, program.consts, [array_of(tuple(A), A.shape), *rest])
        return jnp.stack(list(written_out(found).ravel())).reshape(found.shape)

    return computed


def unpacked(A, K):
    a, b, c = A
    return jnp.stack([-a * K[0, 1], a - b / (1 + b), jnp.exp(-c)])


def matrices(A, K):
    return K @ A + A @ K + (A @ A) * jnp.ones(3)


def put_together(A, K):
    return (
        jnp.concatenate([A[1:], A[:1]])[::-1] + jnp.array([A[0], 2.0, A[2]]) + jnp.hstack(tuple(A))
    )


def chosen(A, K):
    return jnp.where(A > 1, A**1.5, jnp.maximum(A, 0.5)) + jnp.clip(A, 0.4, 2.0)


def written_into(A, K):
    return jnp.zeros(3).at[1].set(A[0] * A[1]).at[jnp.asarray([0, 2])].add(A[2])


def custom(A, K):
    return jax.nn.softplus(A) + jax.nn.sigmoid(A).sum() + jax.nn.relu(A - 1)


def reduced(A, K):
    table = A[:, None] * K
    return table.sum(0) + table.max(1) + table.reshape(-1)[:3] + table.T[0] + A.prod() + A.min()


def looped(A, K):
    return jax.lax.fori_loop(0, 3, lambda _, x: x + 0.1 * jnp.sin(x), A)


def network(A, K):
    hidden = jnp.tanh(jnp.linspace(-1.0, 1.0, 60).reshape(20, 3) @ A)
    return jnp.linspace(0.0, 1.0, 60).reshape(3, 20) @ hidden


PROGRAMS = [
    unpacked,
    matrices,
    put_together,
    chosen,
    written_into,
    custom,
    reduced,
    looped,
    network,
]


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_a_program_gives_what_it_gives_on_arrays(function):
    computed = scalar_by_scalar(function, K)
    np.testing.assert_allclose(jax.jit(computed)(A, K), function(A, K), rtol=1e-14)
    found = jax.jit(jax.jacrev(computed, (0, 1)))(A, K)
    expected = jax.jacrev(function, (0, 1))(A, K)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-13, atol=1e-15)


def test_nothing_is_stacked_or_padded_where_arrays_are_small():
    program = str(
        jax.make_jaxpr(jax.grad(lambda A, K: scalar_by_scalar(unpacked, K)(A, K)[1]))(A, K)
    )
    inside = program.replace("f64[3]", "", 1)  # the argument
    assert "concatenate" not in inside
    assert "dot_general" not in inside


def test_what_a_program_closes_over_keeps_its_dtype():
    counts = np.asarray([1, 2, 3], dtype=np.int32)

    def function(A, K):
        return A * counts.astype(float) + jnp.asarray(counts).sum().astype(float)

    np.testing.assert_array_equal(scalar_by_scalar(function, K)(A, K), function(A, K))
