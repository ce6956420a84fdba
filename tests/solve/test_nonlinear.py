"""What are the amounts at each record of a population, where they must be integrated in small steps?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from popk.solve.clocks import Solver
from popk.solve.nonlinear import BROKEN, DONE, STEPS, UNSETTLED, integrate
from popk.solve.schedule import Dosing
from popk.trial import Design
from tests.histories import N_RECORDS, ROW, arrays, events_of

pytestmark = pytest.mark.usefixtures("strict_promotion")

NAMES = ("depot", "central", "urine")
P = {"VMAX": 20.0, "KM": 30.0, "KA": 0.8}
DEPOT, CENTRAL, URINE = range(3)


def enzyme(t, A, p):
    """Return the rates of change of a drug that an enzyme eliminates, all of it into the urine."""
    absorbed = p["KA"] * A[DEPOT]
    eliminated = p["VMAX"] * A[CENTRAL] / (p["KM"] + A[CENTRAL])
    return jnp.stack([-absorbed, absorbed - eliminated, eliminated])


def growing(t, A, p):
    """Return rates of change that lead to infinity in a time 1 / (a A)."""
    return jnp.stack([0.0 * A[0], p["a"] * A[1] ** 2, 0.0 * A[2]])


@functools.cache
def program(rhs, design, max_steps=None):
    def run(p, events, dosing):
        found = integrate(
            rhs, NAMES, "depot", p, events, N_RECORDS,
            design=design, dosing=dosing, options=Solver("explicit", 1e-10, 1e-11, max_steps),
        )  # fmt: skip
        return found.amounts, found.status

    return jax.jit(run)


DESIGN = Design(infusions=True, resets=True, doses=4, steady=2, overlap=2)
PLAIN = DESIGN._replace(steady=0)


LANES = 5  # in every call, so that each program compiles once


def stacked(histories):
    each = [events_of(rows) for rows in histories]
    return jax.tree.map(lambda *x: jnp.stack(x), *each, *each[:1] * (LANES - len(each)))


def solved(histories, *, rhs=enzyme, p=P, lag=0.0, design=DESIGN, max_steps=None):
    """Return the amounts [subject, record, compartment] and the status of several subjects."""
    n, dosing = len(histories), Dosing(lag={"depot": jnp.full((1, 1), lag)})
    values = {k: np.resize(np.asarray(v, dtype=float), (LANES, 1)) for k, v in p.items()}
    amounts, status = program(rhs, design, max_steps)(arrays(values), stacked(histories), dosing)
    return np.asarray(amounts)[:n], status.tolist()[:n]


def by_scipy(start, t, p=P, inflow=(0.0, 0.0, 0.0)):
    def rate(t, A):
        return np.asarray(enzyme(t, A, p)) + inflow

    return solve_ivp(rate, (0, t), start, rtol=1e-11, atol=1e-12, method="DOP853").y[:, -1]


def dose(time=0.0, amount=100.0, **other):
    return {**ROW, "TIME": time, "EVID": 1, "AMT": amount, "CMT": 2, **other}


def level(time):
    return {**ROW, "TIME": time}


# --- by scipy ---


def test_amounts_are_those_of_another_solver():
    histories = [
        [dose(CMT=1), level(3.0)],
        [dose(RATE=25.0), level(3.0)],
        [dose(), dose(3.0, 50.0, EVID=4), level(5.0)],
        [dose(ADDL=1, II=4.0), level(5.0)],
    ]  # fmt: skip
    amounts, status = solved(histories)
    assert status == [DONE] * 4
    np.testing.assert_allclose(amounts[0, 1], by_scipy([100, 0, 0], 3.0), rtol=1e-8)
    np.testing.assert_allclose(
        amounts[1, 1, 1:], by_scipy([0, 0, 0], 3.0, inflow=(0, 25, 0))[1:], rtol=1e-8
    )
    np.testing.assert_allclose(amounts[2, 2, 1:], by_scipy([0, 50, 0], 2.0)[1:], rtol=1e-8)
    before = by_scipy([0, 100, 0], 4.0)
    after = by_scipy(before + np.array([0, 100, 0]), 1.0)
    np.testing.assert_allclose(amounts[3, 1, 1:], after[1:], rtol=1e-8)


def test_each_subject_has_its_own_parameters_and_its_own_clock():
    fast = {**P, "VMAX": np.array([5.0, 20.0, 80.0])}
    rows = [[dose(time), level(time + 4.0)] for time in (-3.0, 0.0, 100.0)]
    amounts, _ = solved(rows, p=fast)
    for i, VMAX in enumerate(fast["VMAX"]):
        expected = by_scipy([0, 100, 0], 4.0, {**P, "VMAX": VMAX})
        np.testing.assert_allclose(amounts[i, 1, 1:], expected[1:], rtol=1e-8)


# --- steady states ---


STEADY = [
    dose(SS=1, II=12.0),
    dose(SS=1, II=12.0, CMT=1),
    dose(SS=1, II=12.0, RATE=25.0),
    dose(SS=1, II=12.0, RATE=6.0),  # the infusion of 16.7 overlaps with the one before
    dose(SS=1, amount=0.0, RATE=15.0),
]


def before(row, p=P, many=20):
    """Return the amounts that many doses leave, just before the next one."""
    amounts = np.zeros(3)
    if not row["AMT"]:
        return by_scipy(amounts, 900.0, p, (0, row["RATE"], 0))
    length = row["AMT"] / row["RATE"] if row["RATE"] else 0.0
    whole, rest = divmod(length, row["II"])
    unit = np.eye(3)[row["CMT"] - 1]
    for _ in range(many):
        if not row["RATE"]:
            amounts = by_scipy(amounts + row["AMT"] * unit, row["II"], p)
        else:
            amounts = by_scipy(amounts, rest, p, (whole + 1) * row["RATE"] * unit)
            amounts = by_scipy(amounts, row["II"] - rest, p, whole * row["RATE"] * unit)
    return amounts


def test_a_steady_state_is_what_many_doses_leave():
    amounts, status = solved([[row, level(2.0)] for row in STEADY])
    assert status == [DONE] * len(STEADY)
    for found, row in zip(amounts, STEADY, strict=True):
        given = 0 if row["RATE"] else row["AMT"] * np.eye(3)[row["CMT"] - 1]
        expected = before(row) + given
        np.testing.assert_allclose(found[0, :2], expected[:2], rtol=1e-7, atol=1e-9)


def test_urine_which_nothing_leaves_is_empty_at_steady_state_and_collects_from_then_on():
    amounts, _ = solved([[row, level(2.0)] for row in STEADY])
    np.testing.assert_array_equal(amounts[:, 0, URINE], 0)
    assert (amounts[:, 1, URINE] > 0).all()


@pytest.mark.parametrize("lag", [2.0, 15.0])
def test_a_lagged_steady_state_is_that_without_a_lag_seen_later_in_the_interval(lag):
    row = dose(SS=1, II=12.0, CMT=1)
    amounts, status = solved([[row, level(lag % 12 + 1.0)]] * 2, lag=lag)
    assert status == [DONE, DONE]
    seen = by_scipy(before(row) + np.array([100, 0, 0]), 12.0 - lag % 12)
    np.testing.assert_allclose(amounts[0, 0, :2], seen[:2], rtol=1e-7)
    arrived = by_scipy(by_scipy(seen, lag % 12) + np.array([100, 0, 0]), 1.0)
    np.testing.assert_allclose(amounts[0, 1, :2], arrived[:2], rtol=1e-7)


def test_a_dose_above_what_can_be_eliminated_has_no_steady_state():
    rows = [[dose(amount=amount, SS=1, II=12.0), level(2.0)] for amount in (100.0, 200.0, 300.0)]
    amounts, status = solved(rows)
    assert status == [DONE, DONE, UNSETTLED], "VMAX takes 240 in 12 hours"
    assert np.isfinite(amounts[:2]).all()
    assert np.isnan(amounts[2]).all()
    np.testing.assert_allclose(
        amounts[1, 0, CENTRAL], before(rows[1][0], many=300)[1] + 200, rtol=1e-5
    )


@pytest.mark.slow
def test_the_gradient_of_a_steady_state_is_a_central_difference():
    rows = [dose(SS=1, II=12.0, CMT=1), dose(SS=1, II=12.0, RATE=6.0, CMT=1)]
    events = jax.tree.map(lambda *x: jnp.stack(x), *[events_of([row, level(2.0)]) for row in rows])
    design = Design(infusions=True, resets=True, steady=1, overlap=2)

    def alone(t, A, p):
        return -p["VMAX"] * A / (p["KM"] + A)

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def total(x):
        p = {"VMAX": jnp.broadcast_to(x[0], (2, 1)), "KM": jnp.broadcast_to(x[1], (2, 1))}
        found = integrate(
            alone, ("central",), "central", p, events, N_RECORDS, design=design,
            dosing=Dosing(F={"central": x[2:, None]}), options=Solver("explicit", 1e-11, 1e-12),
        )  # fmt: skip
        return found.amounts[:, :2].sum()

    x = np.array([20.0, 30.0, 0.9, 1.1])
    steps = 1e-3 * x
    sides = np.array([1.0, -1.0, 2.0, -2.0])[:, None, None] * np.diag(steps)
    values, slopes = total(jnp.asarray(np.concatenate([x[None], (x + sides).reshape(-1, 4)])))
    near, far = np.asarray(values[1:]).reshape(2, 2, 4)
    expected = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * steps)
    np.testing.assert_allclose(slopes[0], expected, rtol=1e-6)


# --- failures ---


def test_a_subject_that_needs_more_steps_than_allowed_is_nan_and_says_so():
    rows = [[dose(), level(0.01)], [dose(), level(500.0)]]
    amounts, status = solved(rows, design=PLAIN, max_steps=100)
    assert status == [DONE, STEPS]
    assert np.isfinite(amounts[0]).all()
    assert np.isnan(amounts[1]).all()


def test_a_subject_that_goes_to_infinity_is_nan_and_says_so():
    rows = [[dose(), level(0.05)], [dose(), level(0.5)]]  # infinite at 1 / (0.1 * 100) = 0.1
    amounts, status = solved(rows, rhs=growing, p={"a": 0.1}, design=PLAIN)
    assert status[0] == DONE
    assert status[1] in (BROKEN, STEPS)
    np.testing.assert_allclose(amounts[0, 1, CENTRAL], 100 / (1 - 0.1 * 100 * 0.05), rtol=1e-8)
    assert np.isnan(amounts[1]).all()


def test_a_subject_whose_dose_has_a_negative_lag_is_nan():
    amounts, _ = solved(
        [[dose(CMT=1), level(3.0)], [dose(CMT=2), level(3.0)]], lag=-1.0, design=PLAIN
    )
    assert np.isnan(amounts[0]).all()
    assert np.isfinite(amounts[1]).all()
