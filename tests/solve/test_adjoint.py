"""How do the amounts after each event follow a walk's operands?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.solve.clocks import Solver, walk
from popk.solve.legs import Legs
from tests.solve.walks import lanes_of, legs_of, michaelis_menten

pytestmark = pytest.mark.usefixtures("strict_promotion")

METHODS = pytest.mark.parametrize("method", ["explicit", "implicit"])
LANES = 3
WEIGHTS = jnp.asarray(np.random.default_rng(7).normal(size=(LANES, 7, 2)))
LEGS = legs_of(
    [0.5, 0.5, 2.0, 5.0, 5.0, 7.5, 9.0, 12.0], 2,
    jump={0: (50, 0), 3: (10, 20)}, switch={1: (0, 10), 3: (0, -4)},
    keep={4: (1, 0)}, hold=[5], on={4: (1, 0)},
)  # fmt: skip


def rhs(t, A, p, v):
    """Return rates that are non-linear, coupled, and change with time and from leg to leg."""
    depot, central = A
    absorbed = p["KA"] * depot * (1 + 0.2 * jnp.sin(t))
    eliminated = v["VMAX"] * central / (p["KM"] + central + 0.01 * p["K"] @ A)
    return jnp.stack([-absorbed, absorbed - eliminated])


def operands():
    """Return everything that a derivative is taken in, for each lane a little different."""
    spread = 1 + 0.1 * jnp.arange(float(LANES))
    one = {
        "initial": jnp.asarray([3.0, 1.0]), "start": LEGS.start, "duration": LEGS.duration,
        "jump": LEGS.jump, "switch": LEGS.switch, "KA": jnp.asarray(1.2), "KM": jnp.asarray(2.0),
        "K": jnp.asarray([0.5, 1.5]), "VMAX": jnp.linspace(5.0, 8.0, 7),
    }  # fmt: skip
    return jax.tree.map(
        lambda x: x * spread.reshape(-1, *(1,) * (x.ndim - 1)), lanes_of(one, LANES)
    )


def score(method, x, legs=LEGS):
    """Return a sum over all amounts, so that no derivative is left out."""
    moved = {name: x[name] for name in ("start", "duration", "jump", "switch")}
    options = Solver(method, rtol=1e-11, atol=1e-12, max_steps=20_000)
    lanes: Legs = lanes_of(legs, LANES)._replace(**moved)
    p = {name: x[name] for name in ("KA", "KM", "K")}
    amounts, _ = walk(rhs, x["initial"], lanes, p, {"VMAX": x["VMAX"]}, options)
    return (WEIGHTS * amounts).sum()


@functools.cache
def programs(method):
    """Return the compiled score, its gradient, and its derivative along a direction."""
    value = functools.partial(score, method)
    return (
        jax.jit(value),
        jax.jit(jax.grad(value)),
        jax.jit(lambda x, d: jax.jvp(value, (x,), (d,))[1]),
    )


def direction(x, seed):
    leaves, tree = jax.tree.flatten(x)
    draw = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(draw.normal(size=leaf.shape)) for leaf in leaves])


@METHODS
def test_forward_and_reverse_are_the_same_to_the_last_digits(method):
    x = operands()
    _, grad, along = programs(method)
    reverse = grad(x)
    for seed in range(3):
        d = direction(x, seed)
        expected = sum(
            jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (reverse, d)), strict=True)
        )
        np.testing.assert_allclose(along(x, d), expected, rtol=1e-12)


@METHODS
@pytest.mark.parametrize("name", list(operands()))
def test_derivatives_are_those_of_central_differences(method, name):
    x = operands()
    value, grad, _ = programs(method)
    d = direction(x, 5)[name]
    if name == "duration":
        d = jnp.where(x[name] > 0, d, 0)  # to either side
    step = 1e-5

    def moved(by):
        return value({**x, name: x[name] + by * d})

    numeric = (moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(grad(x)[name], d), numeric, rtol=2e-7, atol=1e-7)


@METHODS
def test_the_derivative_in_a_duration_of_none_is_the_rate_times_what_follows(method):
    """The first leg takes no time: one-sided differences, of the second order."""
    x = operands()
    value, grad, along = programs(method)
    d = jnp.zeros((LANES, 7)).at[:, 0].set(1.0)
    step = 1e-5

    def moved(by):
        return value({**x, "duration": x["duration"] + by * d})

    numeric = (-3 * moved(0.0) + 4 * moved(step) - moved(2 * step)) / (2 * step)
    np.testing.assert_allclose(grad(x)["duration"][:, 0].sum(), numeric, rtol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, x)
    np.testing.assert_allclose(along(x, {**zero, "duration": d}), numeric, rtol=1e-6)


def test_the_derivative_in_an_event_time_is_that_of_the_closed_form():
    """A dose D at time s leaves D exp(-k (T - s)) at T: k times that is its derivative in s."""
    k, T = jnp.asarray([0.3]), 10.0

    def last(s):
        legs = legs_of([0.0, 0.0, T], 1, jump={0: (100.0,)})
        legs = legs._replace(start=jnp.stack([s - s, s]), duration=jnp.stack([s, T - s]))
        return walk(
            lambda t, A, k, v: -k * A, jnp.zeros((1, 1)), lanes_of(legs, 1), k, {},
            Solver(rtol=1e-11, atol=1e-12),
        )[0][0, -1, 0]  # fmt: skip

    s = jnp.asarray(4.0)
    expected = 0.3 * 100 * np.exp(-0.3 * 6)
    np.testing.assert_allclose(jax.grad(last)(s), expected, rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(last)(s), expected, rtol=1e-9)


def test_derivatives_hold_over_many_rounds_of_turns():
    """Some hundred steps: A' = cos(w t) A, so that A = exp(sin(w t) / w)."""

    def last(x):
        legs = legs_of([0.0, 7.0], 1)
        return walk(
            lambda t, A, w, v: A * jnp.cos(w * t), jnp.ones((1, 1)), lanes_of(legs, 1), x, {},
            Solver(rtol=1e-12, atol=1e-12),
        )[0][0, -1, 0]  # fmt: skip

    w = jnp.asarray([30.0])
    value = np.exp(np.sin(210.0) / 30)
    slope = value * (7 * np.cos(210.0) / 30 - np.sin(210.0) / 900)
    np.testing.assert_allclose(last(w), value, rtol=1e-10)
    np.testing.assert_allclose(jax.grad(last)(w), [slope], rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(last)(w), [slope], rtol=1e-9)


def test_derivatives_hold_where_a_fast_compartment_stays_empty():
    """An infusion beside an empty depot: steps for the slow amounts alone would be 50 times too long."""
    k, KA, T = 1e-3, 1.15, 3000.0
    legs = legs_of([0.0, 0.0, T], 2, switch={0: (0, 10)})

    def last(p, depot):
        initial = jnp.stack([depot, depot * 0])[None]

        def rates(t, A, p, v):
            return jnp.stack([-p[1] * A[0], p[1] * A[0] - p[0] * A[1]])

        amounts, _ = walk(rates, initial, lanes_of(legs, 1), p[None], {}, Solver())
        return amounts[0, -1, 1]

    at = jnp.asarray([k, KA]), jnp.asarray(0.0)
    slope = 10 * (T * np.exp(-k * T) / k - (1 - np.exp(-k * T)) / k**2)
    absorbed = KA / (KA - k) * (np.exp(-k * T) - np.exp(-KA * T))
    for derivative in (jax.grad(last, (0, 1)), jax.jacfwd(last, (0, 1))):
        in_rates, in_depot = derivative(*at)
        np.testing.assert_allclose(in_rates, [slope, 0.0], rtol=1e-6)
        np.testing.assert_allclose(in_depot, absorbed, rtol=1e-5)


DOSES = legs_of([0.0, 0.0, 3.0, 12.0, 24.0], 2, jump={0: (100, 0), 2: (100, 0)})
ENZYME = {"VMAX": 15.0, "KM": 2.0, "V": 20.0, "KA": 1.0}


def enzymes(p, lanes=2):
    """Return the amounts after each event of some lanes with parameters in common."""
    return walk(
        michaelis_menten,
        jnp.zeros((lanes, 2)),
        lanes_of(DOSES, lanes),
        lanes_of(p, lanes),
        {},
        Solver(),
    )[0]


def test_values_that_a_right_hand_side_closes_over_have_derivatives():
    def closed_over(w, p):
        def rate(t, A, p, v):
            return michaelis_menten(t, A, p, v) - 0.1 * jnp.tanh(w @ A) + 0 * w.shape[0]

        return walk(rate, jnp.zeros((2, 2)), lanes_of(DOSES, 2), p, {}, Solver())[0].sum()

    def handed_over(w, p):
        def rate(t, A, pw, v):
            return michaelis_menten(t, A, pw[0], v) - 0.1 * jnp.tanh(pw[1] @ A)

        handed = p, lanes_of(w, 2)
        return walk(rate, jnp.zeros((2, 2)), lanes_of(DOSES, 2), handed, {}, Solver())[0].sum()

    w = jnp.asarray([[0.1, 0.2], [0.3, -0.1]])
    p = lanes_of(jax.tree.map(jnp.asarray, ENZYME), 2)
    expected = jax.jit(jax.grad(handed_over, (0, 1)))(w, p)
    found = jax.jit(jax.grad(closed_over, (0, 1)))(w, p)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    many = jnp.stack([w, 2 * w])
    mapped = jax.jit(jax.vmap(jax.grad(closed_over), (0, None)))(many, p)
    np.testing.assert_allclose(mapped[0], expected[0], rtol=1e-11)


@pytest.mark.slow
def test_gradients_of_many_draws_are_those_of_a_loop():
    p = jax.tree.map(lambda v: v * jnp.asarray([0.8, 1.0, 1.5]), ENZYME)
    grad = jax.jit(jax.grad(lambda p: enzymes(p).sum()))
    found = jax.jit(jax.vmap(grad))(p)
    for i in range(3):
        one = grad(jax.tree.map(lambda x, i=i: x[i], p))
        for name, value in one.items():
            np.testing.assert_allclose(found[name][i], value, rtol=1e-11)


@pytest.mark.slow
def test_gradients_in_buckets_are_those_of_one_loop():
    p = jax.tree.map(lambda v: v * jnp.linspace(0.5, 1.5, 21), ENZYME)

    def loss(p, bucket):
        return walk(
            michaelis_menten, jnp.zeros((21, 2)), lanes_of(DOSES, 21), p, {}, Solver(bucket=bucket)
        )[0].sum()

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    small, large = grad(p, 8), grad(p, 64)
    for name, value in small.items():
        np.testing.assert_allclose(value, large[name], rtol=1e-11)
    tangents = {name: jnp.ones_like(value) for name, value in p.items()}
    along = jax.jit(lambda p: jax.jvp(lambda p: loss(p, 8), (p,), (tangents,))[1])(p)
    np.testing.assert_allclose(along, sum(map(jnp.sum, small.values())), rtol=1e-11)


@pytest.mark.slow
def test_gradients_are_taken_inside_a_scan_and_nothing_is_traced_again():
    traces = []

    @jax.jit
    def descend(p):
        traces.append(1)

        def step(p, _):
            grad = jax.grad(lambda p: (enzymes(p)[..., 1] ** 2).mean())(p)
            return jax.tree.map(lambda x, g: x - 1e-4 * g, p, grad), grad["VMAX"]

        return jax.lax.scan(step, p, length=3)

    p = jax.tree.map(jnp.asarray, ENZYME)
    _, slopes = descend(p)
    by_hand = jax.grad(lambda p: (enzymes(p)[..., 1] ** 2).mean())(p)["VMAX"]
    np.testing.assert_allclose(slopes[0], by_hand, rtol=1e-12)
    assert slopes[1] != slopes[0]
    descend(jax.tree.map(lambda x: 1.1 * x, p))
    assert len(traces) == 1


def test_a_lane_that_failed_has_no_plausible_gradient():
    def last(k, guard):
        amounts, status = walk(
            lambda t, A, k, v: k * A * A, jnp.ones((2, 1)), lanes_of(legs_of([0.0, 2.0], 1), 2), k,
            {}, Solver(rtol=1e-9),
        )  # fmt: skip
        ends = amounts[:, -1, 0]
        return (jnp.where(status == 0, ends, 0.0) if guard else ends).sum()

    k = jnp.asarray([0.2, 1.0])  # 1 / (1 - k t): the second one is infinite at 1
    slope = 2 / (1 - 0.4) ** 2
    for derivative in (jax.grad, jax.jacfwd):
        open_, guarded = (
            jax.jit(derivative(functools.partial(last, guard=g)))(k) for g in (False, True)
        )
        np.testing.assert_allclose(guarded, [slope, 0], rtol=1e-6)
        assert np.isnan(open_[1])
    np.testing.assert_allclose(jax.grad(last)(k, False)[0], slope, rtol=1e-6)


def test_second_derivatives_are_refused_with_a_sentence():
    def loss(x):
        return enzymes({**ENZYME, "VMAX": x}).sum()

    with pytest.raises(NotImplementedError, match="differentiated twice"):
        jax.grad(jax.grad(loss))(jnp.asarray(15.0))


def test_masks_have_no_derivative():
    x = operands()
    grad = jax.grad(lambda keep: score("explicit", x, LEGS._replace(keep=keep)))(LEGS.keep)
    np.testing.assert_array_equal(grad, 0)
