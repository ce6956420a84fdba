"""Are derivatives of the amounts what differences say, in every tier?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.structural.compartments import TWO_COMPARTMENT_ORAL
from tests.histories import (
    ANYTHING,
    N_RECORDS,
    NAMES,
    TWO,
    amounts_of,
    events_of,
)
from tests.trials import table

pytestmark = pytest.mark.usefixtures("strict_promotion")


def told(*rows):
    """Return a table of rows TIME EVID AMT RATE CMT SS II ADDL; the last ones may be left out."""
    header = "TIME EVID AMT RATE CMT SS II ADDL DV MDV"
    full = [" ".join([*row.split(), *["0"] * (8 - len(row.split())), ".", "1"]) for row in rows]
    return "\n".join([header, *full])


HISTORIES = {
    "bolus": told("0 1 100 0 2", "0 0", "1 0", "9 0"),
    "oral": told("0 1 100 0 1", "0 0", "1.5 0", "9 0"),
    "infusion": told("0 1 100 25 2", "0 0", "2 0", "9 0"),
    "slow release": told("0 1 100 25 1", "3 0", "7 0", "9 0"),
    "modeled rate": told("0 1 100 -1 2", "2 0", "9 0"),
    "modeled duration": told("0 1 100 -2 1", "1.5 0", "9 0"),
    "further doses": told("0 1 100 0 1 0 6 2", "0 1 50 40 2 0 6 2", "8 0", "15 0"),
    "reset": told("0 1 100 25 1", "3 3", "4 1 80 0 1", "9 0"),
    "reset and dose": told("0 1 100 25 2", "3 4 80 50 2", "4 0", "9 0"),
    "SS 1": told("0 0", "1 1 100 0 1 1 6 1", "2 0", "9 0"),
    "SS 2": told("0 1 100 0 2", "1 1 50 0 1 2 8", "2 1 50 20 2 2 6", "3 0", "9 0"),
    "SS of an infusion": told("0 1 100 25 2 1 6", "3 0", "7 0"),
    "SS of an infusion that overlaps": told("0 1 100 10 2 1 6 1", "3 0", "7 0"),
    "SS of a modeled duration": told("0 1 100 -2 1 1 2.7", "1 0", "7 0"),
    "SS of a modeled rate": told("0 1 100 -1 2 1 3.5", "1 0", "7 0"),
    "SS of a constant infusion": told("0 1 0 10 2 1", "1 1 0 -1 1 2", "3 0", "7 0"),
    "reset at SS": told("0 1 50 0 1", "2 4 100 0 2 1 2", "3 3", "7 0"),
}

KA_TIES = {"ordinary": 0.8, "flip-flop": "alpha", "slow": 0.01}
ARGUMENTS = (
    *TWO, *(f"{what} {name}" for what in ("F", "lag", "R", "D", "initial") for name in NAMES[:2]),
)  # fmt: skip
LAGS = [i for i, name in enumerate(ARGUMENTS) if name.startswith("lag")]


def reading(tier, x, events, weights):
    """Return a weighted sum of all amounts at all records, for values in the order of ARGUMENTS."""
    values = iter(x[:, None])
    p = {name: next(values) for name in TWO}
    dosing = {
        what: {name: next(values) for name in NAMES[:2]}
        for what in ("F", "lag", "R", "D", "initial")
    }
    out = amounts_of(tier, TWO_COMPARTMENT_ORAL, p, events, ANYTHING, dosing)
    return (out * weights).sum()


@functools.cache
def gradient_of(tier):
    return jax.jit(jax.grad(functools.partial(reading, tier)))


#: Readings at many points, by the closed form: its differences are those that every tier has to match.
readings = jax.jit(jax.vmap(functools.partial(reading, "closed form"), (0, None, None)))


def alpha_of(CL, V1, Q, V2):
    total = CL / V1 + Q / V1 + Q / V2
    return (total + np.sqrt(total**2 - 4 * CL * Q / V1 / V2)) / 2


def point(KA, lag):
    """Return values in the order of ARGUMENTS."""
    disposition = (2.0, 10.0, 3.0, 30.0)
    KA = alpha_of(*disposition) if KA_TIES[KA] == "alpha" else KA_TIES[KA]
    return np.array([*disposition, KA, 0.9, 0.8, lag, 1.3 * lag, 30.0, 13.0, 3.3, 2.2, 4.0, 6.0])


def weighted(history):
    """Return the events of a history, and a weight of each amount at each record."""
    frame = table(HISTORIES[history])
    weights = np.zeros((N_RECORDS, 3))
    weights[: len(frame)] = np.random.default_rng(3).normal(size=(len(frame), 3))
    return events_of(frame), jnp.asarray(weights)


def differences(x, args):
    """Return central differences of fourth order in each argument."""
    steps = 1e-4 * np.where(x == 0, 1.0, x)
    sides = np.array([1.0, -1.0, 2.0, -2.0])[:, None, None] * np.diag(steps)
    values = readings(jnp.asarray((x + sides).reshape(-1, len(x))), *args)
    near, far = np.asarray(values).reshape(2, 2, len(x))
    return (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * steps)


def agree(tier, history, lag, KA):
    x, args = point(KA, lag), weighted(history)
    found, expected = np.asarray(gradient_of(tier)(jnp.asarray(x), *args)), differences(x, args)
    assert np.isfinite(found).all()
    # At a lag of 0 a record stands at the moment of a dose: the reading itself jumps there.
    smooth = [i for i in range(len(x)) if lag or i not in LAGS]
    np.testing.assert_allclose(found[smooth], expected[smooth], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("KA", KA_TIES)
@pytest.mark.parametrize("lag", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("history", HISTORIES)
def test_gradients_of_the_closed_form_are_central_differences(history, lag, KA):
    agree("closed form", history, lag, KA)


@pytest.mark.parametrize("KA", ["ordinary", "slow"])  # not where two eigenvalues are equal
@pytest.mark.parametrize("lag", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("history", HISTORIES)
def test_gradients_by_eigenvectors_are_central_differences(history, lag, KA):
    agree("eigenvectors", history, lag, KA)


@pytest.mark.slow
@pytest.mark.parametrize(("lag", "KA"), [(0.0, "ordinary"), (0.3, "flip-flop"), (2.5, "slow")])
@pytest.mark.parametrize("history", HISTORIES)
def test_gradients_of_the_ode_solver_are_central_differences(history, lag, KA):
    agree("ODE", history, lag, KA)


@pytest.mark.parametrize(
    "tier", ["closed form", "eigenvectors", pytest.param("ODE", marks=pytest.mark.slow)]
)
def test_a_gradient_is_finite_where_a_lagged_dose_arrives_at_the_time_of_a_record(tier):
    for history in HISTORIES:
        x = point("ordinary", 0.0)
        x[LAGS] = 1.0, 3.0
        found = gradient_of(tier)(jnp.asarray(x), *weighted(history))
        assert np.isfinite(found).all(), history
