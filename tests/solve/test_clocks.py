"""What are the amounts after each event, where they must be integrated in small steps?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from popk.solve.clocks import Solver, walk
from tests.solve.walks import binding, by_scipy, lanes_of, legs_of, michaelis_menten

pytestmark = pytest.mark.usefixtures("strict_promotion")

METHODS = pytest.mark.parametrize("method", ["explicit", "implicit"])
TIGHT = Solver(rtol=1e-11, atol=1e-12, max_steps=20_000)

K = np.asarray([[-1.1, 0.0, 0.0], [1.1, -0.5, 0.2], [0.0, 0.3, -0.2]])
TIMES = [0.0, 0.0, 2.0, 5.0, 5.0, 7.5, 9.0, 12.0]
LINEAR = legs_of(
    TIMES, 3,
    jump={0: (100, 0, 0), 4: (0, 20, 0)},
    switch={1: (0, 10, 0), 3: (0, -10, 0), 4: (0, 4, 1)},
    keep={3: (1, 0, 0)}, hold=[5],
    on={4: (1, 1, 0)},
)  # fmt: skip


def linear(t, A, p, _):
    return p["K"] @ A


def exact(legs, initial):
    """Return the amounts after each event of a linear system, by exponentials of matrices."""
    amounts, inflow, after = np.asarray(initial), np.zeros(3), []
    for e in range(len(legs.duration)):
        on = np.diag(legs.on[e])
        block = np.zeros((4, 4))
        block[:3, :3], block[:3, 3] = on @ K @ on, on @ inflow
        amounts = (scipy.linalg.expm(block * float(legs.duration[e])) @ [*(on @ amounts), 1])[:3]
        amounts = legs.keep[e] * amounts + legs.jump[e]
        inflow = legs.hold[e] * inflow + legs.switch[e]
        after.append(amounts)
    return np.stack(after)


@METHODS
def test_a_linear_system_with_every_kind_of_event_is_walked_as_its_exponential_says(method):
    """Boluses, infusions, a reset, a compartment off, infusions cancelled, two events at one time."""
    initial = jnp.asarray([[0.0, 0.0, 0.0], [5.0, 1.0, 2.0]])
    found, status = jax.jit(
        lambda *a: walk(linear, *a, {}, TIGHT._replace(method=method))
    )(initial, lanes_of(LINEAR, 2), {"K": lanes_of(K, 2)})  # fmt: skip
    np.testing.assert_array_equal(status, 0)
    for lane in range(2):
        np.testing.assert_allclose(found[lane], exact(LINEAR, initial[lane]), rtol=1e-9, atol=1e-9)


def test_compartments_that_are_all_on_are_walked_as_where_none_is_ever_off():
    everywhere = LINEAR._replace(on=jnp.ones_like(LINEAR.on))
    initial, p = jnp.asarray([[5.0, 1.0, 2.0]]), {"K": lanes_of(K, 1)}
    found = [
        walk(linear, initial, lanes_of(legs, 1), p, {}, Solver())[0]
        for legs in (everywhere, everywhere._replace(on=None))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-13)


@METHODS
def test_rates_that_change_with_time_know_the_time(method):
    """A' = A cos t from t = 1."""
    legs = legs_of([1.0, 2.5, 2.5, 6.0], 1)
    found, _ = walk(
        lambda t, A, c, v: A * jnp.cos(t), jnp.asarray([[2.0]]), lanes_of(legs, 1), {}, {},
        TIGHT._replace(method=method),
    )  # fmt: skip
    expected = 2 * np.exp(np.sin([2.5, 2.5, 6.0]) - np.sin(1.0))
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-10)


def test_what_varies_holds_during_the_leg_that_ends_at_its_event():
    legs, rate = legs_of([0.0, 1.0, 3.0], 1), jnp.asarray([[0.5, 2.0]])
    found, _ = walk(
        lambda t, A, c, v: -v["k"] * A * c[0][0], jnp.asarray([[1.0]]), lanes_of(legs, 1),
        [jnp.asarray([[1.0]])], {"k": rate}, TIGHT,
    )  # fmt: skip
    np.testing.assert_allclose(found[0, :, 0], np.exp([-0.5, -4.5]), rtol=1e-10)


DOSES = legs_of(
    [0.0, 0.0, 3.0, 12.0, 12.5, 24.0, 30.0], 2,
    jump={0: (100, 0), 2: (100, 0)}, switch={3: (0, 10), 4: (0, -10)},
)  # fmt: skip
ENZYME = {"VMAX": 15.0, "KM": 2.0, "V": 20.0, "KA": 1.0}


@METHODS
def test_michaelis_menten_elimination_is_walked_as_scipy_walks_it(method):
    expected = by_scipy(
        michaelis_menten, np.zeros(2), DOSES, ENZYME, method="DOP853", rtol=1e-12, atol=1e-12
    )
    found, _ = walk(
        michaelis_menten, jnp.zeros((1, 2)), lanes_of(DOSES, 1), lanes_of(ENZYME, 1), {},
        TIGHT._replace(method=method),
    )  # fmt: skip
    np.testing.assert_allclose(found[0], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("rtol", "within"), [(1e-4, 2e-3), (1e-7, 3e-6), (1e-10, 3e-9)])
def test_errors_follow_the_tolerance(rtol, within):
    """Of amounts up to 100, whose errors of some steps add up."""
    options = Solver(rtol=rtol, atol=1e-2 * rtol, max_steps=20_000)
    arguments = jnp.zeros((1, 2)), lanes_of(DOSES, 1), lanes_of(ENZYME, 1), {}
    found, _ = walk(michaelis_menten, *arguments, options)
    accurate, _ = walk(michaelis_menten, *arguments, TIGHT._replace(rtol=1e-13))
    assert np.abs(found - accurate).max() < within


BINDING = {"kon": 10.0, "koff": 0.1, "kel": 0.05, "ksyn": 0.5, "kdeg": 0.1, "kint": 0.02}


def test_stiff_binding_is_walked_as_scipy_walks_it():
    legs = legs_of([0.0, 0.0, 1.0, 100.0, 100.0, 500.0], 3, jump={0: (100, 0, 0), 3: (50, 0, 0)})
    initial = np.asarray([0.0, 5.0, 0.0])
    expected = by_scipy(binding, initial, legs, BINDING, method="Radau", rtol=1e-10, atol=1e-12)
    found, status = walk(
        binding, jnp.asarray(initial)[None], lanes_of(legs, 1), lanes_of(BINDING, 1), {},
        Solver("implicit", rtol=1e-9, atol=1e-11),
    )  # fmt: skip
    np.testing.assert_array_equal(status, 0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-9)


def test_van_der_pols_oscillator_is_walked_as_scipy_walks_it():
    def oscillator(t, A, mu, _):
        x, y = A
        return jnp.stack([y, mu * ((1 - x * x) * y) - x])

    legs, initial, mu = legs_of([0.0, 400.0, 1000.0], 2), np.asarray([2.0, 0.0]), 1000.0
    expected = by_scipy(oscillator, initial, legs, mu, method="Radau", rtol=1e-11, atol=1e-13)
    found, status = walk(
        oscillator, jnp.asarray(initial)[None], lanes_of(legs, 1), jnp.asarray([mu]), {},
        Solver("implicit", rtol=1e-8, atol=1e-10),
    )  # fmt: skip
    np.testing.assert_array_equal(status, 0)
    np.testing.assert_allclose(found[0], expected, rtol=2e-6)


# Lanes


def draws(lanes, seed=1):
    """Return parameters of many lanes."""
    normal = np.random.default_rng(seed).normal
    return {k: jnp.asarray(v * np.exp(0.4 * normal(size=lanes))) for k, v in ENZYME.items()}


@functools.cache
def enzymes(bucket):
    """Return the compiled walk of many lanes, so many to a loop."""
    options = Solver(bucket=bucket)
    return jax.jit(
        lambda legs, p: walk(michaelis_menten, jnp.zeros((len(p["V"]), 2)), legs, p, {}, options)
    )


def test_a_lane_is_walked_alike_alone_among_others_and_in_buckets():
    legs, p = lanes_of(DOSES, 21), draws(21)
    together, _ = enzymes(64)(legs, p)
    np.testing.assert_allclose(enzymes(8)(legs, p)[0], together, rtol=1e-12)
    for lane in (0, 20):
        alone = jax.tree.map(lambda x, i=lane: x[i : i + 1], (legs, p))
        np.testing.assert_allclose(enzymes(64)(*alone)[0][0], together[lane], rtol=1e-12)


def test_mapped_walks_are_those_of_a_loop():
    p = jax.tree.map(lambda x: x.reshape(2, 3, 2), draws(12))
    legs = lanes_of(DOSES, 2)
    found, status = jax.jit(jax.vmap(jax.vmap(lambda p: enzymes(64)(legs, p))))(p)
    assert found.shape == (2, 3, 2, 6, 2)
    assert status.shape == (2, 3, 2)
    one = jax.tree.map(lambda x: x[1, 2], p)
    np.testing.assert_allclose(found[1, 2], enzymes(64)(legs, one)[0], rtol=1e-12)


def test_legs_of_no_duration_do_not_ask_for_rates_that_an_empty_compartment_has_not():
    """The derivative of a square root is infinite at 0, where the first dose arrives."""
    legs = legs_of([0.0, 0.0, 1.0], 1, jump={0: (4.0,)})

    def last(k):
        return walk(
            lambda t, A, k, v: -k * jnp.sqrt(A), jnp.zeros((1, 1)), lanes_of(legs, 1), k, {}, TIGHT
        )[0][0, -1, 0]

    k = jnp.asarray([1.0])
    np.testing.assert_allclose(last(k), (2 - 0.5) ** 2, rtol=1e-9)  # (sqrt 4 - k t / 2)^2
    np.testing.assert_allclose(jax.grad(last)(k), [-1.5], rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(last)(k), [-1.5], rtol=1e-8)


# Failures


def test_a_lane_that_reaches_the_step_limit_is_nan_and_says_so():
    p = {**ENZYME, "KA": 1.0}
    lanes = {k: jnp.asarray([v, v]) for k, v in p.items()} | {"KA": jnp.asarray([1.0, 1e4])}
    found, status = walk(
        michaelis_menten, jnp.zeros((2, 2)), lanes_of(DOSES, 2), lanes, {}, Solver(max_steps=400)
    )
    np.testing.assert_array_equal(status, [0, 1])
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_one_step_more_is_enough_where_one_less_is_not():
    legs = lanes_of(legs_of([0.0, 0.0, 0.0, 0.0], 1, jump={0: (1.0,)}), 1)

    def status(limit):
        return walk(lambda t, A, c, v: -A, jnp.ones((1, 1)), legs, {}, {}, Solver(max_steps=limit))[
            1
        ]

    assert status(3) == 0
    assert status(2) == 1


@METHODS
def test_amounts_that_grow_beyond_all_bounds_are_nan_and_say_so(method):
    """A' = A^2 from 1 is 1 / (1 - t): infinite at 1. Before, it is exact."""
    legs = lanes_of(legs_of([0.0, 0.5, 2.0], 1), 2)
    found, status = walk(
        lambda t, A, k, v: k * A * A, jnp.ones((2, 1)), legs, jnp.asarray([1.0, 0.2]), {},
        Solver(method),
    )  # fmt: skip
    assert status[0] in (1, 2)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1, :, 0], [1 / 0.9, 1 / 0.6], rtol=1e-6)


def test_parameters_that_are_no_numbers_fail_at_once_and_harm_no_other_lane():
    p = draws(3)
    p["KA"] = p["KA"].at[1].set(jnp.nan)
    found, status = enzymes(64)(lanes_of(DOSES, 3), p)
    np.testing.assert_array_equal(status, [0, 2, 0])
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[jnp.asarray([0, 2])]).all()


def test_no_events_give_no_amounts():
    none = jax.tree.map(lambda x: x[:0], DOSES)
    found, status = walk(
        michaelis_menten, jnp.zeros((2, 2)), lanes_of(none, 2), draws(2), {}, Solver()
    )
    assert found.shape == (2, 0, 2)
    np.testing.assert_array_equal(status, 0)
