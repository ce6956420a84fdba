"""Closed forms of models of one to three compartments, against the exponential of their matrix."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from popk.structural.compartments import (
    ONE_COMPARTMENT,
    ONE_COMPARTMENT_ORAL,
    THREE_COMPARTMENT,
    THREE_COMPARTMENT_ORAL,
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


def three_compartment(CL, V1, Q2, V2, Q3, V3):
    return [
        [-(CL + Q2 + Q3) / V1, Q2 / V2, Q3 / V3],
        [Q2 / V1, -Q2 / V2, 0],
        [Q3 / V1, 0, -Q3 / V3],
    ]


def three_compartment_oral(*x):
    *bolus, KA = x
    given = [[0, *row] for row in three_compartment(*bolus)]
    given[0][0] = KA
    return [[-KA, 0, 0, 0], *given]


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
    "three compartments": (
        THREE_COMPARTMENT,
        three_compartment,
        ("CL", "V1", "Q2", "V2", "Q3", "V3"),
    ),
    "three compartments oral": (
        THREE_COMPARTMENT_ORAL,
        three_compartment_oral,
        ("CL", "V1", "Q2", "V2", "Q3", "V3", "KA"),
    ),
}
every_structure = pytest.mark.parametrize("name", STRUCTURES)


def rates(name, x):
    """Return M for parameters x = (CL, V, ...)."""
    return jnp.stack([jnp.stack([jnp.asarray(e, dtype=float) for e in row])
                      for row in STRUCTURES[name][1](*x)])  # fmt: skip


def flips(x, rates):
    """Return parameters whose depot empties at one of the rates, or very nearly."""
    return [(*x, KA) for k in rates for KA in (k, k * (1 + 1e-9), k * (1 - 1e-7))]


def ties():
    """Return parameters at which rate constants are equal, or nearly."""
    two, three = (3.0, 10.0, 2.0, 15.0), (3.0, 10.0, 2.0, 15.0, 0.4, 40.0)
    # Equal peripherals; one that hardly exchanges; both, and it empties at the rate of another.
    alike = [(*three[:4], 0.4, 3.0), (*three[:4], 1e-7, 40.0), (*three[:4], 2e-7, 1.5e-6)]
    beta, alpha = rates_of(two_compartment(*two))
    return {
        "one compartment oral": flips((3.0, 10.0), [0.3]),
        "two compartments oral": flips(two, [alpha, beta, 2.0 / 15.0]),
        "three compartments": alike,
        "three compartments oral": [
            *flips(three, [*rates_of(three_compartment(*three)), 2.0 / 15.0]),
            *[(*x, KA) for x in alike for KA in (0.7, 2.0 / 15.0)],
        ],
    }


def rates_of(M):
    return np.sort(-np.linalg.eigvals(np.array(M)).real)


@functools.cache
def cases(name):
    """Return 200 random intervals and parameters (t, x), and those where rate constants are equal."""
    rng = np.random.default_rng(20261123)
    n = len(STRUCTURES[name][2])
    x = np.exp(rng.normal(0, 1, size=(200, n))) * 3
    t = np.exp(rng.normal(0, 2, size=200))
    equal = np.array(ties().get(name, []))
    if equal.size:
        x = np.concatenate([x, equal, equal, equal])
        t = np.concatenate([t, np.repeat([0.5, 5.0, 50.0], len(equal))])
    return jnp.asarray(t), jnp.asarray(x)


def propagator(name, t, x):
    structure, _, names = STRUCTURES[name]
    return structure.propagator(t, **dict(zip(names, x, strict=True)))


def exact(name, t, x):
    """Return P and Q with 50 digits: the series of a short interval, doubled until it is t long."""
    with mpmath.workdps(50):
        M = mpmath.matrix(STRUCTURES[name][1](*map(mpmath.mpf, x)))
        doublings = max(0, math.ceil(mpmath.log(mpmath.mnorm(M, 1) * t + 1, 2)) + 4)
        step = mpmath.mpf(t) / 2**doublings
        term = mpmath.eye(M.rows) * step
        Q = term
        for n in range(2, 26):
            term = term * M * (step / n)
            Q = Q + term
        P = mpmath.eye(M.rows) + M * Q
        for _ in range(doublings):
            P, Q = P * P, Q + P * Q
        return np.array(P.tolist(), dtype=float), np.array(Q.tolist(), dtype=float)


@functools.cache
def propagators(name):
    return jax.jit(jax.vmap(functools.partial(propagator, name)))


@every_structure
def test_a_closed_form_is_the_exponential_of_the_rate_matrix(name):
    t, x = cases(name)
    P, Q = propagators(name)(t, x)
    for i in [*range(0, 200, 8), *range(200, len(t), 2)]:
        expected = exact(name, float(t[i]), np.asarray(x[i]).tolist())
        np.testing.assert_allclose((P[i], Q[i]), expected, rtol=1e-12, atol=1e-290)


def test_three_compartments_are_exact_at_all_parameters_that_people_have():
    name, n = "three compartments oral", 40
    rng = np.random.default_rng(7)
    limits = [(0.01, 50.0), (1.0, 500.0)] * 3 + [(0.05, 5.0)]
    x = np.exp([rng.uniform(*np.log(limit), size=n) for limit in limits]).T
    t = np.exp(rng.uniform(np.log(1e-3), np.log(1e4), size=n))
    P, Q = propagators(name)(*map(jnp.asarray, (t, x)))
    for i in range(n):
        expected = exact(name, t[i], x[i].tolist())
        np.testing.assert_allclose((P[i], Q[i]), expected, rtol=1e-11, atol=1e-290)


@every_structure
def test_the_rate_matrix_is_that_of_the_equations(name):
    structure, _, names = STRUCTURES[name]
    _, x = cases(name)
    found = structure.rates(**dict(zip(names, x[3], strict=True)))
    np.testing.assert_allclose(found, rates(name, x[3]), rtol=1e-15)


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


@pytest.mark.parametrize(
    "name",
    [
        "one compartment oral",
        "two compartments oral",
        pytest.param("three compartments oral", marks=pytest.mark.slow),
    ],
)
def test_the_second_derivative_at_flip_flop_is_finite_and_continuous(name):
    t = jnp.asarray(5.0)
    central = 1
    slope = jax.grad(lambda logs: propagator(name, t, jnp.exp(logs))[0][central, 0])

    def curvature(logs):  # its row of KA, the parameter that ties
        return jax.jvp(slope, (logs,), (jnp.zeros_like(logs).at[-1].set(1.0),))[1]

    logs = jnp.log(jnp.asarray(ties()[name]))
    at, near = map(jax.jit(jax.vmap(curvature)), (logs, logs.at[:, -1].add(1e-7)))
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
    assert THREE_COMPARTMENT.compartments == ("central", "peripheral1", "peripheral2")
    assert THREE_COMPARTMENT_ORAL.compartments == ("depot", "central", "peripheral1", "peripheral2")
