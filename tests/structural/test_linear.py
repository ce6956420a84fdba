"""The linear tier, against 50 digits and against finite differences."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from popk.structural.linear import along, carry, exponential, grow, ladder, modes, propagator

pytestmark = pytest.mark.usefixtures("strict_promotion")

N = 8
LONGEST = 60.0


def whole_body(rng, slow=1e-3, fast=1e3):
    """Return the rates of blood that passes the lung and returns through organs [1/h]."""
    M = np.zeros((N, N))
    organs = range(3, N)

    def flow(to, origin, rate):
        M[to, origin] += rate
        M[origin, origin] -= rate

    def rate():
        return np.exp(rng.uniform(np.log(slow), np.log(fast)))

    flow(2, 1, rate())  # venous to lung to arterial
    flow(0, 2, rate())
    for organ in organs:
        flow(organ, 0, rate())
        flow(1, organ, rate())
    M[3, 3] -= rate()  # the liver eliminates
    return M


def chain(k):
    """Return a chain of transit compartments with one rate constant: a single eigenvector."""
    return k * (np.eye(N, k=-1) - np.eye(N))


def collecting():
    """Return two compartments that exchange, one that they empty into, and others not reached."""
    M = np.zeros((N, N))
    M[0, 0], M[1, 0], M[0, 1], M[1, 1], M[2, 1], M[3, 0] = -1.1, 0.6, 0.2, -0.7, 0.5, 0.5
    return M


RNG = np.random.default_rng(20261123)
BODIES = [whole_body(RNG) for _ in range(3)]
CHAINS = [chain(0.4), chain(30.0)]
MATRICES = {
    **{f"body {i}": M for i, M in enumerate(BODIES)},
    **{f"chain {M[1, 0]}": M for M in CHAINS},
}
MATRICES |= {"collecting": collecting(), "nothing moves": np.zeros((N, N))}
every_matrix = pytest.mark.parametrize("name", MATRICES)
LENGTHS = (0.0, 1e-3, 0.7, LONGEST)


@functools.cache
def exact(name, t):
    """Return P and Q with 50 digits: the series of a short interval, doubled until it is t long."""
    with mpmath.workdps(50):
        M = mpmath.matrix(MATRICES[name].tolist())
        doublings = max(0, math.ceil(mpmath.log(mpmath.mnorm(M, 1) * t + 1, 2)) + 4)
        step = mpmath.mpf(t) / 2**doublings
        Q = term = mpmath.eye(N) * step
        for n in range(2, 26):
            term = term * M * (step / n)
            Q = Q + term
        P = mpmath.eye(N) + M * Q
        for _ in range(doublings):
            P, Q = P * P, Q + P * Q
        return np.array(P.tolist(), dtype=float), np.array(Q.tolist(), dtype=float)


def by_modes(M, t):
    return propagator(modes(M), t)


def by_ladder(M, t):
    return along(ladder(M, jnp.asarray(LONGEST)), t)


def by_carrying(M, t):
    rungs = ladder(M, jnp.asarray(LONGEST))
    none = jnp.zeros(N)
    columns = functools.partial(jax.vmap, in_axes=1, out_axes=1)
    P = columns(lambda A: carry(rungs, t, A))(jnp.eye(N))
    return P, columns(lambda r: carry(rungs, t, none, r))(jnp.eye(N))


ROADS = {f.__name__: f for f in (by_modes, exponential, by_ladder, by_carrying)}
every_road = pytest.mark.parametrize("road", ROADS)
robust_roads = pytest.mark.parametrize("road", [road for road in ROADS if road != "by_modes"])


@functools.cache
def propagators(road):
    """Return the function of M and all lengths, compiled once."""
    return jax.jit(jax.vmap(ROADS[road], in_axes=(None, 0)))


def moved(road, name):
    return propagators(road)(jnp.asarray(MATRICES[name]), jnp.asarray(LENGTHS))


@every_matrix
@robust_roads
def test_every_road_is_the_exponential_of_the_rate_matrix(road, name):
    P, Q = moved(road, name)
    for i, t in enumerate(LENGTHS):
        for found, expected in zip((P[i], Q[i]), exact(name, t), strict=True):
            norm = np.abs(MATRICES[name]).sum(axis=0).max() * t
            tolerance = 1e-15 * (10 + norm)  # squaring doubles a relative error
            assert tolerance < 2e-10
            smallest = 1e-13 * np.abs(expected).max(axis=0, keepdims=True)
            assert (np.abs(found - expected) <= tolerance * np.abs(expected) + smallest).all()


@pytest.mark.parametrize("name", [name for name in MATRICES if "chain" not in name])
def test_modes_give_the_exponential_to_eleven_digits_of_a_dose(name):
    P, Q = moved("by_modes", name)
    for i, t in enumerate(LENGTHS):
        for found, expected in zip((P[i], Q[i]), exact(name, t), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in MATRICES if "chain" in name])
def test_modes_of_a_chain_with_one_rate_constant_are_refused(name):
    P, Q = moved("by_modes", name)
    assert np.isnan(P).all()
    assert np.isnan(Q).all()


def weighted(road, weights):
    def reading(logs, t, pattern):
        M = pattern * jnp.exp(logs)
        P, Q = ROADS[road](M, t)
        return (weights * P).sum() + (weights * Q).sum() / (1.0 + t)

    return reading


@functools.cache
def slopes(road):
    """Return value and gradient in the logarithm of each rate, and in t."""
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(N, N)))
    reading = weighted(road, weights)
    return jax.jit(reading), jax.jit(jax.grad(reading, argnums=(0, 1)))


@every_road
@pytest.mark.parametrize("name", ["mild body", "chain 0.4", "collecting"])
def test_derivatives_are_central_differences(road, name):
    if road == "by_modes" and "chain" in name:
        pytest.skip("a chain has no modes")
    mild = whole_body(np.random.default_rng(8), slow=0.05, fast=5.0)
    M = mild if name == "mild body" else MATRICES[name]
    pattern, logs = jnp.sign(jnp.asarray(M)), jnp.log(jnp.asarray(np.where(M == 0, 1.0, np.abs(M))))
    t, h = jnp.asarray(1.7), 1e-4
    value, gradient = slopes(road)
    in_logs, in_t = gradient(logs, t, pattern)
    assert np.isfinite(in_logs).all()

    def difference(f):
        return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    for i, j in [(0, 0), (1, 1), (1, 0), (3, 3)]:
        expected = difference(lambda d, at=(i, j): value(logs.at[at].add(d), t, pattern))
        np.testing.assert_allclose(in_logs[i, j], expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(in_t, difference(lambda d: value(logs, t + d, pattern)), rtol=1e-8)


def test_roads_agree_on_the_second_derivative():
    M = jnp.asarray(whole_body(np.random.default_rng(8), slow=0.05, fast=5.0))
    along_M = M * jnp.asarray(np.random.default_rng(9).uniform(0.5, 1.5, size=(N, N)))
    t = jnp.asarray(1.7)

    def curvature(road):
        return jax.jit(jax.jacfwd(jax.jacfwd(lambda s: ROADS[road](M + s * along_M, t)[0])))(0.0)

    np.testing.assert_allclose(
        curvature("by_modes"), curvature("exponential"), rtol=1e-9, atol=1e-12
    )


def test_modal_coordinates_move_amounts():
    M, t = jnp.asarray(MATRICES["body 1"]), jnp.asarray(0.3)
    amounts, inflow = jnp.arange(1.0, N + 1), jnp.arange(N, 0.0, -1.0)

    @jax.jit
    def in_modes():
        found = modes(M)
        e, s = grow(found.values, t)
        z = e * (found.inverse @ amounts.astype(complex))
        z = z + s * (found.inverse @ inflow.astype(complex))
        return (found.vectors @ z).real

    P, Q = exact("body 1", 0.3)
    np.testing.assert_allclose(in_modes(), P @ amounts + Q @ inflow, rtol=1e-10)


def test_growth_is_safe_where_an_eigenvalue_is_zero_or_small():
    values = np.array([0.0, -1e-300, -1e-9, -0.1, -0.25, -3.0, -800.0, -0.3 + 2.0j, 1e-12j])
    t = jnp.asarray(1.9)
    e, s = jax.jit(grow)(jnp.asarray(values), t)
    with mpmath.workdps(50):
        for i, value in enumerate(values):
            x = mpmath.mpc(value) * mpmath.mpf(1.9)
            whole = mpmath.mpf(1.9) * (mpmath.expm1(x) / x if x else 1)
            assert abs(complex(e[i]) - complex(mpmath.exp(x))) <= 1e-15
            assert abs(complex(s[i]) / complex(whole) - 1) <= 2e-15
    slope = jax.jit(jax.grad(lambda values: grow(values, t)[1].real.sum(), holomorphic=False))
    assert np.isfinite(slope(jnp.asarray(values))).all()


def test_the_derivative_of_growth_at_a_zero_eigenvalue_is_half_a_square():
    t = jnp.asarray(1.9)
    slope = jax.grad(lambda value: grow(value.astype(complex)[None], t)[1].real.sum())
    assert slope(jnp.asarray(0.0)) == pytest.approx(1.9**2 / 2, rel=1e-15)


def test_equal_eigenvalues_that_stay_equal_have_right_derivatives():
    # Two compartments that only collect: eigenvalue 0 twice, whatever the rates.
    def collected(road, k):
        M = jnp.zeros((N, N)).at[0, 0].set(-k).at[1, 0].set(0.3 * k).at[2, 0].set(0.7 * k)
        return ROADS[road](M, jnp.asarray(2.0))[0][1, 0]

    k = jnp.asarray(0.8)
    for road in ("by_modes", "exponential"):
        slope = jax.jit(jax.grad(functools.partial(collected, road)))(k)
        assert slope == pytest.approx(0.3 * 2.0 * np.exp(-1.6), rel=1e-12)


@pytest.mark.parametrize("road", ["by_ladder", "by_carrying"])
def test_an_interval_beyond_the_longest_is_nan(road):
    P, _ = propagators(road)(jnp.asarray(MATRICES["body 0"]), jnp.asarray(LENGTHS) * 2.1)
    assert np.isfinite(P[:3]).all()
    assert np.isnan(P[3]).any()


def test_a_ladder_of_no_length_moves_nothing():
    rungs = ladder(jnp.asarray(chain(3.0)), jnp.asarray(0.0))
    P, Q = along(rungs, jnp.asarray(0.0))
    np.testing.assert_array_equal(P, np.eye(N))
    np.testing.assert_array_equal(Q, np.zeros((N, N)))


def test_a_rate_that_is_too_fast_for_the_interval_is_nan():
    P, _ = exponential(jnp.asarray(chain(1e6)), jnp.asarray(1e3))
    assert np.isnan(P).all()


def test_what_grows_does_not_overflow_on_the_ladder():
    M = jnp.asarray(np.diag(np.full(N, 0.5)))

    def grown(k):
        return along(ladder(k * M, jnp.asarray(20.0)), jnp.asarray(8.0))[0][0, 0]

    value, slope = jax.value_and_grad(grown)(jnp.asarray(1.0))
    assert value == pytest.approx(np.exp(4.0), rel=1e-13)
    assert slope == pytest.approx(4.0 * np.exp(4.0), rel=1e-13)
