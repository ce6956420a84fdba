"""Closed forms of the one- and two-compartment models, against the exponential of their matrix."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from popk.structural.compartments import (
    ONE_COMPARTMENT,
    ONE_COMPARTMENT_ORAL,
    TWO_COMPARTMENT,
    TWO_COMPARTMENT_ORAL,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")


def one_compartment(CL, V):
    return [[-CL / V]]


def one_compartment_oral(CL, V, KA):
    return [[-KA, 0], [KA, -CL / V]]


def two_compartment(CL, V1, Q, V2):
    return [[-(CL + Q) / V1, Q / V2], [Q / V1, -Q / V2]]


def two_compartment_oral(CL, V1, Q, V2, KA):
    return [[-KA, 0, 0], [KA, -(CL + Q) / V1, Q / V2], [0, Q / V1, -Q / V2]]


#: Each structure with the matrix M of A' = M A + r, written from the model's equations.
STRUCTURES = {
    "one compartment": (ONE_COMPARTMENT, one_compartment, ("CL", "V")),
    "one compartment oral": (ONE_COMPARTMENT_ORAL, one_compartment_oral, ("CL", "V", "KA")),
    "two compartments": (TWO_COMPARTMENT, two_compartment, ("CL", "V1", "Q", "V2")),
    "two compartments oral": (
        TWO_COMPARTMENT_ORAL,
        two_compartment_oral,
        ("CL", "V1", "Q", "V2", "KA"),
    ),
}
every_structure = pytest.mark.parametrize("name", STRUCTURES)


def rates(name, x):
    """Return M for parameters x = (CL, V, ...)."""
    return jnp.stack([jnp.stack([jnp.asarray(e, dtype=float) for e in row])
                      for row in STRUCTURES[name][1](*x)])  # fmt: skip


def ties():
    """Return the absorption rates at which a depot flips over: k, and the two rates of disposition."""
    CL, V1, Q, V2 = 3.0, 10.0, 2.0, 15.0
    beta, alpha = np.sort(-np.linalg.eigvals(np.array(two_compartment(CL, V1, Q, V2))).real)
    one = [(CL, V1, KA) for KA in (CL / V1, CL / V1 * (1 + 1e-9), CL / V1 * (1 - 1e-7))]
    two = [
        (CL, V1, Q, V2, KA) for KA in (alpha, beta, alpha * (1 + 1e-9), beta * (1 - 1e-7), Q / V2)
    ]
    return {"one compartment oral": one, "two compartments oral": two}


@functools.cache
def cases(name):
    """Return 200 random intervals and parameters (t, x), and those where rate constants are equal."""
    rng = np.random.default_rng(20261123)
    n = len(STRUCTURES[name][2])
    x = np.exp(rng.normal(0, 1, size=(200, n))) * 3
    t = np.exp(rng.normal(0, 2, size=200))
    flips = np.array(ties().get(name, []))
    if flips.size:
        x = np.concatenate([x, flips, flips, flips])
        t = np.concatenate([t, np.repeat([0.5, 5.0, 50.0], len(flips))])
    return jnp.asarray(t), jnp.asarray(x)


def propagator(name, t, x):
    structure, _, names = STRUCTURES[name]
    return structure.propagator(t, **dict(zip(names, x, strict=True)))


def exact(name, t, x):
    """Return P and Q as blocks of exp([[M, I], [0, 0]] t), with 60 digits."""
    with mpmath.workdps(60):
        M = mpmath.matrix(STRUCTURES[name][1](*map(mpmath.mpf, x)))
        n = M.rows
        both = mpmath.zeros(2 * n)
        both[:n, :n], both[:n, n:] = M, mpmath.eye(n)
        whole = mpmath.expm(both * mpmath.mpf(t), method="taylor")
        blocks = np.array(whole.tolist(), dtype=float)
    return blocks[:n, :n], blocks[:n, n:]


@functools.cache
def propagators(name):
    return jax.jit(jax.vmap(functools.partial(propagator, name)))


@every_structure
def test_a_closed_form_is_the_exponential_of_the_rate_matrix(name):
    t, x = cases(name)
    P, Q = propagators(name)(t, x)
    for i in [*range(0, 200, 5), *range(200, len(t))]:
        expected = exact(name, float(t[i]), np.asarray(x[i]).tolist())
        np.testing.assert_allclose((P[i], Q[i]), expected, rtol=1e-12, atol=1e-290)


@every_structure
def test_an_interval_of_no_length_changes_nothing(name):
    t, x = cases(name)
    P, Q = propagators(name)(0 * t, x)
    np.testing.assert_array_equal(P, np.broadcast_to(np.eye(P.shape[-1]), P.shape))
    np.testing.assert_array_equal(Q, np.zeros(Q.shape))


@every_structure
def test_two_intervals_in_a_row_are_one_of_both_lengths(name):
    t, x = cases(name)
    s = t[::-1]
    (Ps, Qs), (Pt, Qt) = propagators(name)(s, x), propagators(name)(t, x)
    P, Q = propagators(name)(s + t, x)
    np.testing.assert_allclose(Pt @ Ps, P, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(Pt @ Qs + Qt, Q, rtol=1e-10, atol=1e-15)


@every_structure
def test_what_was_given_is_still_there_or_was_eliminated(name):
    structure, _, names = STRUCTURES[name]
    t, x = cases(name)
    central = structure.compartments.index("central")
    k = x[:, names.index("CL")] / x[:, 1]
    P, Q = propagators(name)(t, x)
    eliminated = k[:, None] * Q[:, central]  # the integral of CL C over the interval, per unit dose
    np.testing.assert_allclose(P.sum(axis=1) + eliminated, 1.0, rtol=1e-13)


@every_structure
def test_amounts_are_never_negative(name):
    t, x = cases(name)
    P, Q = propagators(name)(t, x)
    assert (np.asarray(P) >= 0).all()
    assert (np.asarray(Q) >= -1e-16 * np.asarray(t)[:, None, None]).all()


@every_structure
def test_the_derivatives_in_time_are_those_of_the_model(name):
    t, x = cases(name)

    def moving(t, x):
        return jax.jvp(lambda t: propagator(name, t, x), (t,), (jnp.ones_like(t),))

    (P, _), (dP, dQ) = jax.jit(jax.vmap(moving))(t, x)
    M = jax.vmap(functools.partial(rates, name))(x)
    scale = np.abs(np.asarray(M)).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(dQ, P, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(dP / scale, M @ P / scale, rtol=1e-10, atol=1e-14)


@every_structure
def test_gradients_are_central_differences_at_ties_too(name):
    t, x = cases(name)
    rng = np.random.default_rng(5)
    n = len(STRUCTURES[name][0].compartments)
    weights = jnp.asarray(rng.normal(size=(2, n, n)))

    def reading(t, logs):
        P, Q = propagator(name, t, jnp.exp(logs))
        return (weights[0] * P + weights[1] * Q / (1 + t)).sum()

    logs = jnp.log(x)
    gradient = np.asarray(jax.jit(jax.vmap(jax.grad(reading, argnums=1)))(t, logs))
    assert np.isfinite(gradient).all()
    value = jax.jit(jax.vmap(reading))
    h = 1e-4
    for i in range(x.shape[1]):
        up, down, far_up, far_down = (
            value(t, logs.at[:, i].add(step * h)) for step in (1, -1, 2, -2)
        )
        difference = (8 * (up - down) - (far_up - far_down)) / (12 * h)
        np.testing.assert_allclose(gradient[:, i], difference, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["one compartment oral", "two compartments oral"])
def test_the_second_derivative_at_flip_flop_is_finite_and_continuous(name):
    t = jnp.asarray(5.0)
    central = 1
    curvature = jax.jit(jax.hessian(lambda x: propagator(name, t, x)[0][central, 0]))
    for tie in ties()[name]:
        at, near = (np.asarray(curvature(jnp.asarray(tie) * jnp.asarray([1.0] * (len(tie) - 1) + [d])))
                    for d in (1.0, 1 + 1e-7))  # fmt: skip
        assert np.isfinite(at).all()
        np.testing.assert_allclose(at, near, rtol=1e-5, atol=1e-8)


def test_one_compartment_oral_is_the_textbook_formula():
    CL, V, KA, t = 2.8, 32.0, 1.5, 3.0
    k = CL / V
    P, _ = ONE_COMPARTMENT_ORAL.propagator(*map(jnp.asarray, (t, CL, V, KA)))
    expected = KA / (KA - k) * (np.exp(-k * t) - np.exp(-KA * t))
    assert P[1, 0] == pytest.approx(expected, rel=1e-14)


def test_compartments_are_numbered_as_nonmem_does():
    assert ONE_COMPARTMENT.compartments == ("central",)
    assert ONE_COMPARTMENT_ORAL.compartments == ("depot", "central")
    assert TWO_COMPARTMENT.compartments == ("central", "peripheral1")
    assert TWO_COMPARTMENT_ORAL.compartments == ("depot", "central", "peripheral1")
