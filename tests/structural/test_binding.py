"""Target-mediated drug disposition: in full, approximated, and without a target."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from popk.structural.binding import (
    free_concentration,
    tmdd,
    tmdd_michaelis_menten,
    tmdd_quasi_equilibrium,
    tmdd_quasi_steady_state,
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

FOLLOWED = {**options(tmdd), **options(tmdd_quasi_steady_state), **options(tmdd_quasi_equilibrium)}
SYSTEMS = {**FOLLOWED, **options(tmdd_michaelis_menten)}
FULL, QSS, QE, MM = (
    SYSTEMS[f"{name} "]
    for name in ("tmdd", "tmdd_quasi_steady_state", "tmdd_quasi_equilibrium", "tmdd_michaelis_menten")
)  # fmt: skip

#: An antibody of nanomoles and days: clearances 0.2 L/day, a target of 2 nmol/L.
ANTIBODY = {"CL": 0.2, "V": 3.0, "KINT": 0.4, "KDEG": 1.5, "KSYN": 3.0}
DAYS = np.array([0.5, 2.0, 7.0, 14.0, 28.0])


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_reads_its_parameters_and_has_finite_gradients(name):
    keeps_the_contract(SYSTEMS[name])


def test_compartments_are_numbered_as_nonmem_does():
    drug = ("depot", "central", "peripheral1")
    assert SYSTEMS["tmdd depot peripheral"].compartments == (*drug, "receptor", "complex")
    assert QSS.compartments == ("central", "receptor")
    assert MM.compartments == ("central",)
    assert SYSTEMS["tmdd depot "[:-1]].dosed == "depot"


# The free concentration


def exactly_free(total, receptor, K):
    """Return the root of the quadratic with 60 digits."""
    with mpmath.workdps(60):
        total, receptor, K = map(mpmath.mpf, (total, receptor, K))
        b = total - receptor - K
        return float((b + mpmath.sqrt(b**2 + 4 * K * total)) / 2)


def test_the_free_concentration_keeps_its_digits_where_hardly_any_is_free():
    rng = np.random.default_rng(7)
    cases = np.exp(rng.normal(0, 6, size=(300, 3)))
    found = np.asarray(free_concentration(*jnp.asarray(cases.T)))
    expected = np.array([exactly_free(*case) for case in cases])
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert free_concentration(*map(jnp.asarray, (1e-9, 1e6, 1e-3))) == pytest.approx(
        1e-18, rel=1e-8
    )


def test_ligand_is_free_or_bound():
    total, receptor, K = (jnp.asarray(x) for x in ([0.0, 0.5, 2.0, 40.0], [2.0] * 4, [0.1] * 4))
    C = np.asarray(free_concentration(total, receptor, K))
    np.testing.assert_allclose(C + 2.0 * C / (0.1 + C), total, rtol=1e-13)
    assert C[0] == 0


def test_the_slope_of_the_free_concentration_is_that_of_the_isotherm():
    slope = jax.vmap(jax.grad(free_concentration, argnums=(0, 1, 2)))
    total = jnp.asarray([0.0, 1e-8, 1.0, 2.1, 2.1 + 1e-9, 50.0])  # 2.1: where the forms change
    receptor, K = jnp.full(6, 2.0), jnp.full(6, 0.1)
    C = np.asarray(free_concentration(total, receptor, K))
    along = 1 / (1 + 2.0 * 0.1 / (0.1 + C) ** 2)
    expected = along, -along * C / (0.1 + C), along * 2.0 * C / (0.1 + C) ** 2
    np.testing.assert_allclose(slope(total, receptor, K), expected, rtol=1e-10, atol=1e-16)


def test_without_a_target_all_ligand_is_free():
    total = jnp.asarray([0.0, 1e-5, 3.0, 1e5])
    zero, K = jnp.zeros(4), jnp.full(4, 0.1)
    np.testing.assert_allclose(free_concentration(total, zero, K), total, rtol=1e-13)


# The equations


def full(t, A, p):
    C = A.central / p.V1
    bound = p.KON * C * A.receptor - p.KOFF * A.complex
    return {
        **absorbed_and_distributed(A, p, p.CL * C + p.V1 * bound),
        "receptor": p.KSYN - p.KDEG * A.receptor - bound,
        "complex": bound - p.KINT * A.complex,
    }


def quasi(t, A, p):
    total, K = A.central / p.V1, p.KSS
    b = total - A.receptor - K
    C = (b + np.sqrt(b * b + 4 * K * total)) / 2
    RC = A.receptor * C / (K + C)
    distributed = p.Q * (C - A.peripheral1 / p.V2)
    return {
        "depot": -p.KA * A.depot,
        "central": p.KA * A.depot - p.CL * C - distributed - p.V1 * p.KINT * RC,
        "peripheral1": distributed,
        "receptor": p.KSYN - p.KDEG * (A.receptor - RC) - p.KINT * RC,
    }


@pytest.mark.parametrize(
    ("name", "equations"),
    [("tmdd depot peripheral", full), ("tmdd_quasi_steady_state depot peripheral", quasi)],
)
def test_a_right_hand_side_is_its_equations_written_out(name, equations):
    transcribed(SYSTEMS[name], equations)


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_baseline_is_stationary(name):
    system = FOLLOWED[name]
    for p in random_values(system.parameters, n=5):
        y = start(system, p)
        assert y[system.compartments.index("receptor")] == pytest.approx(p["KSYN"] / p["KDEG"])
        np.testing.assert_allclose(rates_at(system, y, **p), 0.0, atol=1e-15)


@pytest.mark.parametrize("name", ["tmdd depot peripheral", "tmdd "])
def test_ligand_and_target_are_lost_only_by_clearance_and_internalization(name):
    system = SYSTEMS[name]
    volume = "V1" if "peripheral1" in system.compartments else "V"
    for p in random_values(system.parameters, n=5):
        A = dict(zip(system.compartments, np.linspace(0.3, 0.9, 5), strict=False))
        rates = dict(zip(system.compartments, rates_at(system, list(A.values()), **p), strict=True))
        V, internalized = p[volume], p["KINT"] * A["complex"]
        ligand = sum(rates[c] for c in system.compartments[:-2]) + V * rates["complex"]
        assert ligand == pytest.approx(-p["CL"] * A["central"] / V - V * internalized, rel=1e-12)
        target = rates["receptor"] + rates["complex"]
        expected = p["KSYN"] - p["KDEG"] * A["receptor"] - internalized
        assert target == pytest.approx(expected, rel=1e-12)


# What each is in a limit


def test_quasi_steady_state_with_the_same_constant_is_quasi_equilibrium():
    for name in ("", "depot", "peripheral", "depot peripheral"):
        steady, equal = (
            SYSTEMS[f"tmdd_quasi_{kind} {name}"] for kind in ("steady_state", "equilibrium")
        )
        for p in random_values((*steady.parameters, "KD"), n=3):
            p["KD"] = p["KSS"]
            y = np.linspace(0.2, 0.8, len(steady.compartments))
            ours, theirs = (
                rates_at(s, y, **{key: p[key] for key in s.parameters}) for s in (steady, equal)
            )
            np.testing.assert_array_equal(ours, theirs)


def test_the_full_model_comes_to_quasi_steady_state_as_binding_becomes_fast():
    KSS = 0.5
    approximate = trajectory(QSS, {**ANTIBODY, "KSS": KSS}, DAYS, central=60.0)
    errors = []
    for KON in (1e2, 1e3, 1e4):
        p = {**ANTIBODY, "KON": KON, "KOFF": KON * KSS - ANTIBODY["KINT"]}
        found = trajectory(FULL, p, DAYS, central=60.0)
        total = found.central + 3.0 * found.complex
        receptor = found.receptor + found.complex
        errors.append([
            np.abs(total / approximate.central - 1).max(),
            np.abs(receptor / approximate.receptor - 1).max(),
        ])  # fmt: skip
    np.testing.assert_allclose(np.divide(errors[0], errors[1]), 10.0, rtol=0.1)
    np.testing.assert_allclose(np.divide(errors[1], errors[2]), 10.0, rtol=0.1)
    assert np.max(errors[2]) < 1e-4


@pytest.mark.parametrize("system", [FULL, QSS, QE], ids=["full", "QSS", "QE"])
def test_without_a_target_elimination_is_linear(system):
    p = {**ANTIBODY, "KSYN": 0.0, "KSS": 0.5, "KD": 0.5, "KON": 3.0, "KOFF": 1.0}
    p = {name: p[name] for name in system.parameters}
    found = trajectory(system, p, DAYS, central=60.0)
    np.testing.assert_allclose(found.central, 60 * np.exp(-0.2 / 3.0 * DAYS), rtol=1e-8)
    np.testing.assert_array_equal(found.receptor, 0.0)


def test_a_target_that_is_internalized_as_fast_as_it_is_lost_stays_at_its_total():
    p = {**ANTIBODY, "KINT": 1.5, "KSS": 0.5}
    np.testing.assert_allclose(trajectory(QSS, p, DAYS, central=60.0).receptor, 2.0, rtol=1e-12)
    p = {**ANTIBODY, "KINT": 1.5, "KON": 3.0, "KOFF": 1.0}
    found = trajectory(FULL, p, DAYS, central=60.0)
    np.testing.assert_allclose(found.receptor + found.complex, 2.0, rtol=1e-9)


def test_few_targets_make_saturable_elimination():
    """A total that stays at R0: VMAX = KINT R0 V. One that settles at once: VMAX = KSYN V."""
    times = DAYS[:2]  # the ligand outnumbers its target
    for few, KINT, KM in ((1e-5, 1.5, 0.5), (1e-5, 0.4, 0.5 * 1.5 / 0.4)):
        p = {**ANTIBODY, "KINT": KINT / few, "KDEG": 1.5 / few, "KSS": 0.5}
        R0 = 3.0 / p["KDEG"]
        VMAX = p["KINT"] * R0 * 3.0 if KINT == 1.5 else 3.0 * 3.0
        steady = trajectory(QSS, p, times, central=60.0).central
        saturable = {"CL": 0.2, "V": 3.0, "VMAX": VMAX, "KM": KM}
        found = trajectory(MM, saturable, times, central=60.0).central
        np.testing.assert_allclose(steady, found, rtol=3 * R0)
        assert abs(found[-1] / (60 * np.exp(-0.2 / 3 * times[-1])) - 1) > 0.2  # it is not linear


def test_a_large_dose_saturates_the_target():
    """What the target takes is at most KSYN V in the long run, whatever the dose."""
    found = trajectory(QSS, {**ANTIBODY, "KSS": 1e-4}, [0.0, 100.0], central=1e6)
    assert found.receptor[-1] == pytest.approx(3.0 / 0.4, rel=1e-6)  # all bound: KSYN / KINT
    k, taken = 0.2 / 3.0, 3.0 * 3.0  # A' = -k A - KSYN V
    level = (1e6 + taken / k) * np.exp(-k * 100) - taken / k
    assert found.central[-1] == pytest.approx(level, rel=0.05)
