"""What a right-hand side is found to be, before any data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.structural.tracing import (
    constant_input,
    depends_on_time,
    is_affine,
    is_defective,
    is_linear,
    rate_matrix,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

N = 3
P = {"k": jnp.asarray(0.7), "CL": jnp.asarray(2.0), "V": jnp.asarray(20.0), "K": jnp.eye(N)}


def two_compartments(t, A, p):
    concentration = A[0] / p["V"]
    return jnp.stack(
        [-p["CL"] * concentration, p["CL"] * concentration - p["k"] * A[1], jnp.sum(A)]
    )


def loop(t, A, p):
    return jax.lax.fori_loop(0, 2, lambda i, y: y.at[i + 1].add(p["k"] * A[i]), -p["k"] * A)


def chosen(t, A, p):
    return jax.lax.cond(p["k"] > 0, lambda A: A, lambda A: 2 * A, A)


def stacked(t, A, p):
    return jax.lax.scan(lambda carry, a: (carry + a, carry - p["k"] * a), A[0], A)[1]


#: Right-hand sides that are linear, though some look otherwise.
LINEAR = {
    "a rate times the amounts": lambda t, A, p: -p["k"] * A,
    "with a constant input": lambda t, A, p: 1.0 - p["k"] * A,
    "clearances, volumes and sums": two_compartments,
    "a matrix": lambda t, A, p: p["K"] @ A,
    "a product of indices": lambda t, A, p: jnp.einsum("ij,j->i", p["K"], A),
    "a dot product": lambda t, A, p: jnp.full(N, jnp.dot(A, jnp.full_like(A, 2.0))),
    "differences and concatenation": lambda t, A, p: jnp.concatenate([jnp.diff(A), A[:1]]),
    "nothing": lambda t, A, p: 0 * A,
    "a condition on a parameter": lambda t, A, p: jnp.where(p["k"] > 0, A, -A),
    "a choice by a parameter": chosen,
    "a loop over compartments": loop,
    "a scan over compartments": stacked,
    "a function of its own": lambda t, A, p: jax.jit(lambda A: p["k"] * A)(A),
    "a solution of equations": lambda t, A, p: jnp.linalg.solve(p["K"] + 1.0, A),
    "what is thrown away": lambda t, A, p: (jnp.exp(A), -A)[1],
    "an index from the end": lambda t, A, p: A.at[-1].set(A[0]),
    "a shift": lambda t, A, p: jnp.roll(A, 1) - A,
    "each compartment by itself": lambda t, A, p: jax.vmap(lambda a: -p["k"] * a)(A),
    "a non-linear function of parameters": lambda t, A, p: -jnp.exp(p["k"] ** 2) * A,
}

#: Right-hand sides that are not, though the Jacobian of some does not depend on the amounts.
NOT_LINEAR = {
    "a square": lambda t, A, p: A**2,
    "a product of amounts": lambda t, A, p: A[0] * A,
    "saturation": lambda t, A, p: -p["V"] * A / (p["k"] + A),
    "a condition on an amount": lambda t, A, p: jnp.where(A > 0, A, 0.0),
    "the larger one": lambda t, A, p: jnp.maximum(A, 0.0),
    "a magnitude": lambda t, A, p: jnp.abs(A),
    "a bound": lambda t, A, p: jnp.clip(A, 0.0, 1.0),
    "a rectifier": lambda t, A, p: jax.nn.relu(A),
    "an order": lambda t, A, p: jnp.sort(A),
    "an input that an amount switches": lambda t, A, p: jnp.where(A > 1, 5.0, 0.0) - A,
    "the same inside a function": lambda t, A, p: (
        jax.jit(lambda A: jnp.where(A > 1, 5.0, 0.0))(A) - A
    ),
    "the same inside a scan": lambda t, A, p: jax.lax.scan(
        lambda c, _: (c + jnp.where(c > 3, 1.0, 0.0), None), A, length=2
    )[0],
    "a rounding": lambda t, A, p: jnp.floor(A) - A,
    "a whole number": lambda t, A, p: A.astype(int).astype(float),
    "the place of the largest": lambda t, A, p: jnp.zeros(N).at[jnp.argmax(A)].set(1.0),
    "a derivative that is withheld": lambda t, A, p: jax.lax.stop_gradient(A) - A,
    "a choice by an amount": lambda t, A, p: jax.lax.cond(
        A[0] > 0, lambda A: A, lambda A: 2 * A, A
    ),
    "a loop until an amount is reached": lambda t, A, p: jax.lax.while_loop(
        lambda A: A[0] < 3, lambda A: A + 1, A
    ),
}

#: Linear at any time, with coefficients or an input that change.
AT_ANY_TIME = {
    "a rate that falls": lambda t, A, p: -jnp.exp(-t) * A,
    "an input that ends": lambda t, A, p: jnp.where(t > 5, 0.0, 1.0) - A,
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_systems_are_known(name):
    assert is_linear(LINEAR[name], N, P)


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_other_systems_are_not_taken_for_linear(name):
    assert not is_affine(NOT_LINEAR[name], N, P)
    assert not is_linear(NOT_LINEAR[name], N, P)


@pytest.mark.parametrize("name", AT_ANY_TIME)
def test_a_system_that_changes_in_time_is_linear_at_any_time_only(name):
    assert is_affine(AT_ANY_TIME[name], N, P)
    assert depends_on_time(AT_ANY_TIME[name], N, P)
    assert not is_linear(AT_ANY_TIME[name], N, P)


def test_a_linear_system_is_its_matrix_and_its_input():
    def rhs(t, A, p):
        return two_compartments(t, A, p) + jnp.asarray([3.0, 0.0, p["V"]])

    t, A = jnp.asarray(0.0), jnp.asarray([1.0, -2.0, 3.0])
    M, r = rate_matrix(rhs, N)(t, P), constant_input(rhs, N)(t, P)
    np.testing.assert_allclose(M, [[-0.1, 0, 0], [0.1, -0.7, 0], [1, 1, 1]], rtol=1e-15)
    np.testing.assert_array_equal(r, [3.0, 0.0, 20.0])
    np.testing.assert_allclose(M @ A + r, rhs(t, A, P), rtol=1e-15)


def test_a_matrix_can_be_differentiated_in_the_parameters():
    slope = jax.grad(lambda CL: rate_matrix(two_compartments, N)(0.0, {**P, "CL": CL})[1, 0])
    assert float(slope(jnp.asarray(2.0))) == pytest.approx(1 / 20)


#: Ways in which a right-hand side meets values that are not known yet.
TRACED = {
    "compiled": jax.jit,
    "differentiated": jax.grad,
    "for many": lambda f: lambda k: jax.vmap(f)(k[None]).sum(),
    "all of them": lambda f: lambda k: jax.jit(jax.vmap(jax.grad(f)))(k[None]).sum(),
}


@pytest.mark.parametrize("how", TRACED)
def test_traced_parameters_and_closures_are_no_obstacle(how):
    found = []

    def model(k):
        p = {"k": k}
        found.append(is_linear(lambda t, A, p: -k * p["k"] * A, N, p))
        found.append(not is_linear(lambda t, A, p: -k * p["k"] * A**2, N, p))
        found.append(not is_defective(lambda p: jnp.diag(p["k"] * jnp.arange(1.0, N + 1)), p))
        found.append(is_defective(lambda p: jnp.diag(k * jnp.arange(1.0, N + 1)), p))  # in doubt
        return rate_matrix(lambda t, A, p: -k * p["k"] * A, N)(0.0, p).sum()

    assert float(TRACED[how](model)(jnp.asarray(0.5))) != 0
    assert found
    assert all(found)


def test_a_number_of_python_is_a_parameter_too():
    assert is_linear(lambda t, A, p: -p["k"] * A, N, {"k": 0.3})
    assert not is_defective(lambda p: jnp.diag(p["k"] * jnp.arange(1.0, 4.0)), {"k": 0.3})


def chain(p):
    return p["k"] * (jnp.eye(6, k=-1) - jnp.eye(6))


def chain_of_many(p):
    return jnp.diag(-p["k"]) + jnp.diag(p["k"][:-1], k=-1)


def collectors(p):
    return jnp.zeros((4, 4)).at[0, 0].set(-p["k"]).at[1:, 0].set(p["k"] / 3)


def whole_body(p):
    organs = jnp.arange(2, 6)
    M = jnp.zeros((6, 6)).at[organs, 0].set(p["flow"]).at[organs, organs].set(-p["flow"] / p["Kp"])
    M = M.at[1, organs].set(p["flow"] / p["Kp"]).at[0, 0].set(-p["flow"].sum())
    return M.at[0, 1].set(p["flow"].sum()).at[1, 1].set(-p["flow"].sum()).at[2, 2].add(-p["CL"])


MANY = {"k": jnp.ones(6), "flow": jnp.ones(4), "Kp": jnp.ones(4), "CL": jnp.asarray(1.0)}


def test_a_chain_with_one_rate_constant_is_defective():
    assert is_defective(chain, P)
    assert is_defective(lambda p: jnp.eye(6, k=-1) - jnp.eye(6), {})


@pytest.mark.parametrize("rates", [chain_of_many, collectors, whole_body])
def test_systems_with_eigenvectors_enough_are_not_defective(rates):
    p = P if rates is collectors else MANY
    assert not is_defective(rates, p)


def test_parameters_that_may_be_equal_now_do_not_make_a_system_defective():
    assert not is_defective(chain_of_many, {"k": jnp.full(6, 0.4)})


def test_a_matrix_that_is_never_finite_is_called_defective():
    assert is_defective(lambda p: jnp.full((2, 2), jnp.nan) * p["k"], P)
    assert is_defective(lambda p: jnp.log(-p["k"]) * jnp.eye(2), P)


def test_a_probe_does_not_read_the_parameters():
    assert is_defective(chain, {"k": jnp.asarray(np.nan)})
    assert not is_defective(chain_of_many, {"k": jnp.full(6, np.nan)}, seed=4)
