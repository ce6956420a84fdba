"""Direct, indirect, cell-forming and tumor responses to a concentration."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from popk.structural.effects import (
    emax,
    hill,
    indirect_response,
    myelosuppression,
    sigmoid_emax,
    tumor_growth_inhibition,
    tumor_resistance,
)
from tests.structural.test_kinetics import (
    absorbed_and_distributed,
    keeps_the_contract,
    options,
    random_values,
    rates_at,
    start,
    trajectory,
    transcribed,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

MODELS = ("I", "II", "III", "IV")
INDIRECT = {
    f"{model}{' sigmoid' * sigmoid}": indirect_response(model, depot=False, sigmoid=sigmoid)
    for model in MODELS
    for sigmoid in (False, True)
}
FULL = {
    model: indirect_response(model, depot=True, peripheral=True, sigmoid=True) for model in MODELS
}
BLOOD = options(myelosuppression, saturable=(False, True))
TUMOR = {**options(tumor_growth_inhibition), **options(tumor_resistance)}
SYSTEMS = {**INDIRECT, **{f"{name} full": FULL[name] for name in FULL}, **BLOOD, **TUMOR}
SIMEONI, CLARET = TUMOR["tumor_growth_inhibition "], TUMOR["tumor_resistance "]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_reads_its_parameters_and_has_finite_gradients(name):
    keeps_the_contract(SYSTEMS[name])


def test_the_response_comes_after_the_drug():
    drug = ("depot", "central", "peripheral1")
    assert FULL["I"].compartments == (*drug, "response")
    assert BLOOD["myelosuppression depot peripheral"].compartments == (
        *drug, "prol", "transit1", "transit2", "transit3", "circ",
    )  # fmt: skip
    assert SIMEONI.compartments[1:] == ("proliferating", "damaged1", "damaged2", "damaged3")
    assert (FULL["I"].dosed, SIMEONI.dosed) == ("depot", "central")


# Direct effects


def test_half_the_greatest_effect_is_at_the_same_concentration_whatever_the_exponent():
    C = jnp.asarray([0.0, 2.0, 1e12])
    np.testing.assert_allclose(emax(C, 10.0, 2.0, 3.0), [3.0, 8.0, 13.0], rtol=1e-11)
    for GAMMA in (0.5, 1.0, 3.0):
        found = sigmoid_emax(C[:2], -4.0, 2.0, GAMMA, 6.0)
        np.testing.assert_allclose(found, [6.0, 4.0], rtol=1e-14)


def test_the_hill_function_keeps_its_digits_at_any_concentration():
    rng = np.random.default_rng(3)
    cases = np.exp(rng.normal(0, [3.0, 1.0, 1.0], size=(100, 3)))
    cases[:4] = [(1e-200, 1.0, 1.0), (1e200, 1.0, 20.0), (1e-30, 1e5, 6.0), (5.0, 4.9, 300.0)]

    def exact(C, C50, GAMMA):
        with mpmath.workdps(40):
            return float(1 / (1 + (mpmath.mpf(C50) / mpmath.mpf(C)) ** mpmath.mpf(GAMMA)))

    found = hill(*jnp.asarray(cases.T))
    np.testing.assert_allclose(found, [exact(*case) for case in cases], rtol=1e-12, atol=1e-300)


def test_an_exponent_of_1_is_the_plain_emax_function_and_its_slopes():
    C = jnp.asarray([0.0, 1e-9, 0.4, 2.0, 50.0])

    def slopes(f):
        return jax.vmap(jax.grad(f, argnums=(0, 1, 2)), (0, None, None))(C, *jnp.asarray([3.0, 2]))

    plain, one = slopes(emax), slopes(lambda C, E, EC50: sigmoid_emax(C, E, EC50, 1.0))
    np.testing.assert_allclose(one, plain, rtol=1e-12, atol=1e-300)
    assert plain[0][0] == 1.5  # EMAX / EC50


@pytest.mark.parametrize("GAMMA", [0.3, 1.0, 2.5])
def test_without_drug_there_is_no_effect_and_every_slope_is_finite(GAMMA):
    slopes = jax.vmap(jax.grad(hill, argnums=(0, 1, 2)), (0, None, None))
    for C in (jnp.asarray([0.0]), jnp.asarray([-1e-9])):
        assert abs(hill(C, 2.0, GAMMA)[0]) <= 5e-10
        for slope in slopes(C, jnp.asarray(2.0), jnp.asarray(GAMMA)):
            assert np.isfinite(slope).all()
    assert hill(jnp.asarray([0.0]), 2.0, GAMMA)[0] == 0


def test_the_slopes_of_the_hill_function_are_central_differences():
    x, h = jnp.asarray([0.7, 1.3, 2.2]), 1e-6
    found = jax.grad(lambda x: hill(*x))(x)
    for i in range(3):
        difference = (hill(*x.at[i].add(h)) - hill(*x.at[i].add(-h))) / (2 * h)
        assert found[i] == pytest.approx(float(difference), rel=1e-8)


# The equations


def indirect(model):
    def equations(t, A, p):
        C = A.central / p.V1
        if model in ("I", "II"):
            factor = 1 - p.IMAX * C**p.GAMMA / (p.IC50**p.GAMMA + C**p.GAMMA)
        else:
            factor = 1 + p.EMAX * C**p.GAMMA / (p.EC50**p.GAMMA + C**p.GAMMA)
        production, loss = (factor, 1) if model in ("I", "III") else (1, factor)
        return {
            **absorbed_and_distributed(A, p, p.CL * C),
            "response": p.KIN * production - p.KOUT * loss * A.response,
        }

    return equations


def cells(effect):
    def equations(t, A, p):
        C, k = A.central / p.V1, 4 / p.MTT
        return {
            **absorbed_and_distributed(A, p, p.CL * C),
            "prol": k * A.prol * (1 - effect(C, p)) * (p.CIRC0 / A.circ) ** p.GAMMA - k * A.prol,
            "transit1": k * A.prol - k * A.transit1,
            "transit2": k * A.transit1 - k * A.transit2,
            "transit3": k * A.transit2 - k * A.transit3,
            "circ": k * A.transit3 - k * A.circ,
        }

    return equations


def simeoni(t, A, p):
    C = A.central / p.V1
    w = A.proliferating + A.damaged1 + A.damaged2 + A.damaged3
    growth = p.LAMBDA0 * A.proliferating / (1 + (p.LAMBDA0 / p.LAMBDA1 * w) ** 20) ** (1 / 20)
    return {
        **absorbed_and_distributed(A, p, p.CL * C),
        "proliferating": growth - p.K2 * C * A.proliferating,
        "damaged1": p.K2 * C * A.proliferating - p.K1 * A.damaged1,
        "damaged2": p.K1 * A.damaged1 - p.K1 * A.damaged2,
        "damaged3": p.K1 * A.damaged2 - p.K1 * A.damaged3,
    }


def claret(t, A, p):
    C = A.central / p.V1
    shrinking = p.KD * np.exp(-p.LAMBDA * t) * C * A.tumor
    return {**absorbed_and_distributed(A, p, p.CL * C), "tumor": p.KL * A.tumor - shrinking}


@pytest.mark.parametrize(
    ("system", "equations"),
    [
        *((FULL[model], indirect(model)) for model in MODELS),
        (BLOOD["myelosuppression depot peripheral"], cells(lambda C, p: p.SLOPE * C)),
        (
            BLOOD["myelosuppression depot peripheral saturable"],
            cells(lambda C, p: p.EMAX * C / (p.EC50 + C)),
        ),
        (TUMOR["tumor_growth_inhibition depot peripheral"], simeoni),
        (TUMOR["tumor_resistance depot peripheral"], claret),
    ],
    ids=[*MODELS, "cells", "cells saturable", "simeoni", "claret"],
)
def test_a_right_hand_side_is_its_equations_written_out(system, equations):
    transcribed(system, equations)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in TUMOR])
def test_the_baseline_is_stationary(name):
    system = SYSTEMS[name]
    for p in random_values(system.parameters, n=5):
        np.testing.assert_allclose(rates_at(system, start(system, p), **p), 0.0, atol=1e-15)


# Indirect responses


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("GAMMA", [1.0, 2.5])
def test_under_a_constant_concentration_the_response_goes_to_its_new_level(model, GAMMA):
    effect = {"IMAX": 0.8, "IC50": 2.0} if model in ("I", "II") else {"EMAX": 3.0, "EC50": 2.0}
    p = {"CL": 0.0, "V": 10.0, "KIN": 6.0, "KOUT": 0.3, **effect, "GAMMA": GAMMA}
    times = np.array([0.5, 3.0, 12.0, 200.0])
    found = trajectory(INDIRECT[f"{model} sigmoid"], p, times, central=30.0).response
    fraction = 3.0**GAMMA / (2.0**GAMMA + 3.0**GAMMA)
    factor = {"I": 1 - 0.8 * fraction, "III": 1 + 3 * fraction}.get(model, 1.0)
    loss = 0.3 * {"II": 1 - 0.8 * fraction, "IV": 1 + 3 * fraction}.get(model, 1.0)
    level = 6.0 * factor / loss
    expected = level + (20.0 - level) * np.exp(-loss * times)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_after_the_drug_the_response_returns_to_its_baseline():
    p = {"CL": 5.0, "V": 10.0, "KIN": 6.0, "KOUT": 0.3, "EMAX": 3.0, "EC50": 2.0}
    found = trajectory(INDIRECT["III"], p, [5.0, 200.0], central=300.0).response
    assert found[0] > 40
    assert found[1] == pytest.approx(20.0, rel=1e-6)


# Myelosuppression


#: A cytotoxic drug: 10^9 neutrophils/L, hours; every number of a usual size.
CYTOTOXIC = {"CIRC0": 5.05, "MTT": 88.7, "GAMMA": 0.161, "SLOPE": 8.58, "CL": 20.0, "V": 40.0}


def test_neutrophils_fall_to_a_nadir_rebound_and_return():
    system, times = BLOOD["myelosuppression "], np.linspace(0, 4000, 4001)
    found = trajectory(system, CYTOTOXIC, times, central=100.0)
    equations = cells(lambda C, p: 8.58 * C)
    p = SimpleNamespace(**CYTOTOXIC, V1=40.0, V2=1.0, Q=0.0, KA=0.0)
    names = (*system.compartments, "depot", "peripheral1")

    def written_out(t, y):
        rates = equations(t, SimpleNamespace(**dict(zip(names, y, strict=True))), p)
        return [rates[name] for name in names]

    expected = solve_ivp(
        written_out, (0, 4000), [100.0, *[5.05] * 5, 0, 0], method="DOP853", t_eval=times,
        rtol=1e-10, atol=1e-12,
    ).y[system.compartments.index("circ")]  # fmt: skip
    np.testing.assert_allclose(found.circ, expected, rtol=1e-7)
    nadir, peak = np.argmin(found.circ), np.argmax(found.circ)
    assert 5 * 24 < nadir < 10 * 24
    assert found.circ[nadir] < 0.5 * 5.05
    assert nadir < peak < 40 * 24
    assert found.circ[peak] > 1.02 * 5.05
    assert found.circ[-1] == pytest.approx(5.05, rel=1e-4)


def test_under_a_constant_effect_the_feedback_makes_up_for_it():
    p = {**CYTOTOXIC, "CL": 0.0, "SLOPE": 0.01}
    found = trajectory(BLOOD["myelosuppression "], p, [20_000.0], central=400.0)
    assert found.circ[-1] == pytest.approx(5.05 * (1 - 0.01 * 10.0) ** (1 / 0.161), rel=1e-6)


def test_blood_that_a_solver_emptied_has_a_finite_feedback():
    rates = rates_at(BLOOD["myelosuppression "], [0.0, 1.0, 0.0, 0.0, 0.0, -1e-3], **CYTOTOXIC)
    k = 4 / 88.7
    assert rates[1] == pytest.approx(k * (1e6**0.161 - 1), rel=1e-12)


# Tumors


SLOW = {"LAMBDA0": 0.3, "LAMBDA1": 0.8, "K1": 0.6, "K2": 0.05, "W0": 0.05, "CL": 0.0, "V": 1.0}


def test_an_untreated_tumor_grows_exponentially_and_then_linearly():
    bend = np.log(0.8 / 0.3 / 0.05) / 0.3
    early, late = np.array([1.0, 5.0, 0.7 * bend]), np.array([2.0, 3.0, 6.0]) * bend
    found = trajectory(SIMEONI, SLOW, np.concatenate([early, late]), central=0.0).proliferating
    np.testing.assert_allclose(found[:3], 0.05 * np.exp(0.3 * early), rtol=1e-5)
    np.testing.assert_allclose(np.diff(found[3:]) / np.diff(late), 0.8, rtol=1e-6)
    straight = 0.8 / 0.3 + 0.8 * (late - bend)  # psi without bound
    np.testing.assert_allclose(found[3:], straight, rtol=0.01)


def test_the_growth_of_a_tumor_is_right_at_the_bend_and_at_any_size():
    at = [rates_at(SIMEONI, [0.0, w, 0.0, 0.0, 0.0], **SLOW)[1] for w in (1e-300, 8 / 3, 1e90)]
    np.testing.assert_allclose(at, [0.3e-300, 0.8 * 2 ** (-1 / 20), 0.8], rtol=1e-12)


def test_a_tumor_stops_growing_at_the_concentration_lambda0_over_k2():
    for C, sign in ((5.9, 1.0), (6.0, 0.0), (6.1, -1.0)):
        growth = rates_at(SIMEONI, [C, 0.01, 0.0, 0.0, 0.0], **SLOW)[1]
        assert growth == pytest.approx(0.01 * (0.3 - 0.05 * C), abs=1e-15)
        assert np.sign(round(growth, 12)) == sign


def test_damaged_cells_are_lost_only_at_the_end_of_their_chain():
    y = [4.0, 1.0, 0.4, 0.3, 0.2]
    rates = rates_at(SIMEONI, y, **SLOW)
    untreated = rates_at(SIMEONI, [0.0, *y[1:]], **SLOW)[1]
    assert rates[1:].sum() == pytest.approx(untreated - 0.6 * 0.2, rel=1e-12)


def test_a_tumor_under_a_constant_exposure_shrinks_until_it_is_resistant():
    p = {"CL": 0.0, "V": 2.0, "KL": 0.02, "KD": 0.05, "LAMBDA": 0.04, "W0": 80.0}
    times = np.array([5.0, 20.0, 60.0, 150.0])
    found = trajectory(CLARET, p, times, central=8.0).tumor
    dose = 0.05 * 4.0 * (1 - np.exp(-0.04 * times)) / 0.04
    np.testing.assert_allclose(found, 80 * np.exp(0.02 * times - dose), rtol=1e-8)
    assert found[1] < found[0] < 80
    assert found[3] > found[2]
