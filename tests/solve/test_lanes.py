"""How is a loop over many lanes differentiated, and mapped into more lanes?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.solve.lanes import evaluate

pytestmark = pytest.mark.usefixtures("strict_promotion")

lanes_seen = []


class Powers:
    """x to the power of k by multiplying k times, in all lanes at once; and k."""

    def value(self, x, k):
        lanes_seen.append(x.shape[0])

        def turn(carry):
            i, y = carry
            return i + 1, jnp.where((i < k)[:, None], y * x, y)

        return [jax.lax.while_loop(lambda c: (c[0] < k).any(), turn, (0, jnp.ones_like(x)))[1], k]

    def record(self, x, k):
        lower = self.value(x, k - 1)[0]
        return [*self.value(x, k), lower]

    def push(self, which, known, tangents):
        assert which == (0,)
        _, k, again, lower = known
        assert again.shape == k.shape
        return k[:, None].astype(float) * lower * tangents[0]

    def pull(self, which, known, cotangent):
        return [self.push(which, known, [cotangent])]


X, TURNS = jnp.asarray([[1.5, 2.0], [0.5, 3.0], [1.1, 0.7]]), jnp.asarray([1, 4, 2])


def powers(x, k=TURNS):
    return evaluate(Powers(), x, k)[0]


def expected(x, k=TURNS):
    return x ** k[:, None].astype(float)


def test_results_are_those_of_the_loop_with_and_without_jit():
    np.testing.assert_allclose(powers(X), expected(X), rtol=1e-15)
    np.testing.assert_allclose(jax.jit(powers)(X), expected(X), rtol=1e-15)
    np.testing.assert_array_equal(evaluate(Powers(), X, TURNS)[1], TURNS)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_derivatives_are_those_of_the_closed_form(derivative):
    found = jax.jit(derivative(powers))(X)
    np.testing.assert_allclose(found, derivative(expected)(X), rtol=1e-14)


def test_a_mapped_axis_becomes_further_lanes():
    many = jnp.stack([X, 2 * X, X + 1, 3 * X])
    lanes_seen.clear()
    found = jax.jit(jax.vmap(powers))(many)
    assert set(lanes_seen) == {12}
    np.testing.assert_allclose(found, jax.vmap(expected)(many), rtol=1e-14)


def test_maps_nest_and_leave_alone_what_they_do_not_map():
    scale = jnp.linspace(0.5, 2.0, 6).reshape(2, 3)
    lanes_seen.clear()
    found = jax.vmap(jax.vmap(lambda s: powers(s * X), out_axes=1))(scale)
    assert set(lanes_seen) == {18}
    assert found.shape == (2, 3, 3, 2)
    np.testing.assert_allclose(found[1, :, 2], expected(scale[1, 2] * X), rtol=1e-14)


def test_an_axis_is_mapped_wherever_it_is():
    many = jnp.stack([X, 2 * X], axis=-1)
    found = jax.vmap(powers, in_axes=-1, out_axes=1)(many)
    np.testing.assert_allclose(found[:, 1], expected(2 * X), rtol=1e-14)


def test_gradients_of_maps_and_maps_of_gradients_agree():
    many = jnp.stack([X, 2 * X])
    mapped = jax.vmap(jax.grad(lambda x: powers(x).sum()))(many)
    np.testing.assert_allclose(
        mapped, jax.grad(lambda x: jax.vmap(powers)(x).sum())(many), rtol=1e-14
    )
    np.testing.assert_allclose(mapped[1], jax.grad(lambda x: expected(x).sum())(2 * X), rtol=1e-13)


def test_gradients_go_through_scan_and_checkpoint():
    def chain(x):
        return jax.lax.scan(lambda y, _: (jnp.sqrt(powers(y)), None), x, length=2)[0].sum()

    by_hand = jax.grad(lambda x: jnp.sqrt(expected(jnp.sqrt(expected(x)))).sum())(X)
    np.testing.assert_allclose(jax.jit(jax.grad(chain))(X), by_hand, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(chain))(X), by_hand, rtol=1e-13)


def test_what_is_linear_stays_so():
    _, tangent = jax.linearize(powers, X)
    np.testing.assert_allclose(tangent(3 * X), jax.jvp(powers, (X,), (3 * X,))[1], rtol=1e-14)
    np.testing.assert_allclose(jax.jacfwd(tangent)(X), jax.jacrev(tangent)(X), rtol=1e-14)


def test_second_derivatives_are_refused_with_a_sentence():
    for twice in (
        jax.grad(lambda x: jax.grad(lambda x: powers(x).sum())(x).sum()),
        jax.jacfwd(jax.jacrev(powers)),
        jax.hessian(powers),
    ):
        with pytest.raises(NotImplementedError, match="differentiated twice"):
            twice(X)


def test_first_derivatives_stand_beside_values_that_are_held():
    def loss(x):
        slope = jax.jacfwd(powers)(jax.lax.stop_gradient(x))
        return (powers(x) * slope.sum((2, 3))).sum()

    slope = jax.jacfwd(expected)(X).sum((2, 3))
    by_hand = jax.grad(lambda x: (expected(x) * slope).sum())(X)
    np.testing.assert_allclose(jax.grad(loss)(X), by_hand, rtol=1e-14)
