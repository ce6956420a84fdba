"""Saturable, induced, recycled, collected: against the equations written out, and closed forms."""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import lambertw

from popk.structural.compartments import TWO_COMPARTMENT_ORAL
from popk.structural.kinetics import (
    autoinduction,
    effect_compartment,
    enterohepatic,
    michaelis_menten,
    parent_metabolite,
    urine_collection,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")


# What the tests of every library of systems stand on


def scalars(values):
    """Return values by name as the attributes of one object, arrays without axes."""
    return SimpleNamespace(**{name: jnp.asarray(value) for name, value in values.items()})


@functools.cache
def field(system):
    """Return the compiled rates of change, in the order of the compartments, of (t, y, p)."""

    def rates(t, y, p):
        A = SimpleNamespace(**dict(zip(system.compartments, y, strict=True)))
        found = system.rhs(t, A, SimpleNamespace(**p))
        return jnp.stack([found[name] for name in system.compartments])

    return jax.jit(rates)


def rates_at(system, y, t=0.0, **p):
    """Return the rates of change at the amounts y."""
    p = {name: jnp.asarray(float(value)) for name, value in p.items()}
    return np.asarray(field(system)(jnp.asarray(t), jnp.asarray(y, dtype=float), p))


def start(system, p, **dose):
    """Return the amounts at time 0: the initial ones and a dose."""
    held = {**dict.fromkeys(system.compartments, 0.0), **system.initial(scalars(p))}
    return np.array([float(held[name]) + dose.get(name, 0.0) for name in system.compartments])


def trajectory(system, p, times, **dose):
    """Return the amounts of each compartment at some times after a dose, by name."""
    arrays = {name: jnp.asarray(float(value)) for name, value in p.items()}
    rates = field(system)
    solution = solve_ivp(
        lambda t, y: np.asarray(rates(t, y, arrays)), (0.0, max(times)), start(system, p, **dose),
        method="LSODA", t_eval=times, rtol=1e-11, atol=1e-12,
    )  # fmt: skip
    assert solution.success
    return SimpleNamespace(**dict(zip(system.compartments, solution.y, strict=True)))


def random_values(names, seed=20261124, n=20):
    """Return n sets of values between 0.05 and 0.95, by name: fractions may be among them."""
    rng = np.random.default_rng(seed)
    return [dict(zip(names, rng.uniform(0.05, 0.95, len(names)), strict=True)) for _ in range(n)]


def transcribed(system, equations):
    """Compare a right-hand side with its equations written out, at random amounts."""
    amounts = random_values(system.compartments, seed=1)
    for A, p in zip(amounts, random_values(system.parameters), strict=True):
        expected = equations(0.3, SimpleNamespace(**A), SimpleNamespace(**p))
        found = rates_at(system, list(A.values()), t=0.3, **p)
        np.testing.assert_allclose(
            found, [expected[name] for name in system.compartments], rtol=1e-12, atol=1e-14
        )


class Reading(dict):
    """Values that note which of them were read."""

    def __init__(self, values):
        super().__init__(values)
        self.read = set()

    def __getattr__(self, name):
        self.read.add(name)
        return self[name]


def keeps_the_contract(system):
    """Check the shape of a system: names, what it reads, its baseline and its gradients."""
    p = random_values(system.parameters)[0]
    reading = Reading({name: jnp.asarray(value) for name, value in p.items()})
    A = scalars(dict.fromkeys(system.compartments, 1.0))
    rates = system.rhs(jnp.asarray(1.0), A, reading)
    initial = system.initial(reading)
    assert set(rates) == set(system.compartments)
    assert reading.read == set(system.parameters)
    assert set(initial) <= set(system.compartments)
    assert system.dosed in system.compartments
    assert len(set(system.parameters)) == len(system.parameters)
    for value in (*rates.values(), *initial.values()):
        assert value.shape == ()
        assert value.dtype == jnp.float64
    gradients_are_finite(system, p)


def gradients_are_finite(system, p):
    """Check values and gradients before the first dose, empty, and where a solver overshot."""
    arrays = {name: jnp.asarray(value) for name, value in p.items()}
    slopes = jax.jit(jax.jacrev(field(system), argnums=(1, 2)))
    baseline = start(system, p)
    for y in (baseline, 0 * baseline, baseline - 1e-12):
        where = jnp.asarray(0.0), jnp.asarray(y)
        values = (field(system)(*where, arrays), slopes(*where, arrays))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values)), y


def options(build, **more):
    """Return a system for each combination of depot, peripheral and what more there is."""
    more = {"depot": (False, True), "peripheral": (False, True), **more}
    choices = (dict(zip(more, choice, strict=True)) for choice in itertools.product(*more.values()))
    return {
        f"{build.__name__} {' '.join(k for k, v in chosen.items() if v)}": build(**chosen)
        for chosen in choices
    }


# The systems of this room

SYSTEMS = {
    **options(michaelis_menten, linear=(False, True)),
    **options(autoinduction),
    **options(parent_metabolite),
    **options(enterohepatic),
    **options(urine_collection),
    **options(effect_compartment),
}
MM = SYSTEMS["michaelis_menten "]
MIXED = SYSTEMS["michaelis_menten depot peripheral linear"]
INDUCED = SYSTEMS["autoinduction "]
PARENT = SYSTEMS["parent_metabolite depot"]
RECYCLED = SYSTEMS["enterohepatic depot"]
URINE = SYSTEMS["urine_collection "]
EFFECT = SYSTEMS["effect_compartment "]
LINEAR = [name for name in SYSTEMS if name.split()[0] not in ("michaelis_menten", "autoinduction")]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_reads_its_parameters_and_has_finite_gradients(name):
    keeps_the_contract(SYSTEMS[name])


def test_compartments_are_numbered_as_nonmem_does():
    assert MM.compartments == ("central",)
    assert MIXED.compartments == ("depot", "central", "peripheral1")
    assert MIXED.parameters == ("CL", "VMAX", "KM", "V1", "Q", "V2", "KA")
    assert INDUCED.compartments == ("central", "enzyme")
    assert PARENT.compartments == ("depot", "central", "metabolite")
    assert RECYCLED.compartments == ("depot", "central", "bile", "gut")
    assert (MM.dosed, MIXED.dosed) == ("central", "depot")


def matrix(system, **p):
    """Return the rate matrix of a linear system."""
    empty = np.zeros(len(system.compartments))
    return np.column_stack([rates_at(system, row, **p) for row in np.eye(len(empty))])


@pytest.mark.parametrize("name", LINEAR)
def test_linear_systems_are_linear(name):
    system = SYSTEMS[name]
    jacobian = jax.jit(jax.jacfwd(field(system), argnums=1))
    for p in random_values(system.parameters, n=3):
        arrays = {key: jnp.asarray(value) for key, value in p.items()}
        for A in random_values(system.compartments, n=3):
            y = jnp.asarray(list(A.values()))
            M = jacobian(jnp.asarray(0.0), y, arrays)
            np.testing.assert_allclose(M, matrix(system, **p), rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(rates_at(system, y, **p), M @ y, rtol=1e-12, atol=1e-15)


def absorbed_and_distributed(A, p, eliminated):
    """Return the rates of a depot, a central and a peripheral compartment."""
    return {
        "depot": -p.KA * A.depot,
        "central": p.KA * A.depot
        - eliminated
        - p.Q / p.V1 * A.central
        + p.Q / p.V2 * A.peripheral1,
        "peripheral1": p.Q / p.V1 * A.central - p.Q / p.V2 * A.peripheral1,
    }


def mixed(t, A, p):
    C = A.central / p.V1
    return absorbed_and_distributed(A, p, p.VMAX * C / (p.KM + C) + p.CL * C)


def induced(t, A, p):
    C = A.central / p.V1
    return {
        **absorbed_and_distributed(A, p, p.CL * A.enzyme * C),
        "enzyme": p.KENZ * (1 + p.EMAX * C / (p.EC50 + C)) - p.KENZ * A.enzyme,
    }


def parent(t, A, p):
    C, Cm = A.central / p.V1, A.metabolite / p.VM
    rates = absorbed_and_distributed(A, p, p.CL * C)
    rates["central"] -= (1 - p.FP) * p.KA * A.depot
    formed = (1 - p.FP) * p.KA * A.depot + p.FM * p.CL * C
    return {**rates, "metabolite": formed - p.CLM * Cm}


def recycled(t, A, p):
    rates = absorbed_and_distributed(A, p, p.CL * A.central / p.V1 + p.KCB * A.central)
    rates["depot"] += p.FR * p.KG * A.gut
    bile = p.KCB * A.central - p.KBG * A.bile
    return {**rates, "bile": bile, "gut": p.KBG * A.bile - p.KG * A.gut}


def collected(t, A, p):
    C = A.central / p.V1
    return {**absorbed_and_distributed(A, p, p.CL * C), "urine": p.FE * p.CL * C}


def delayed(t, A, p):
    C = A.central / p.V1
    return {**absorbed_and_distributed(A, p, p.CL * C), "effect": p.KE0 * (C - A.effect)}


@pytest.mark.parametrize(
    ("name", "equations"),
    [
        ("michaelis_menten depot peripheral linear", mixed),
        ("autoinduction depot peripheral", induced),
        ("parent_metabolite depot peripheral", parent),
        ("enterohepatic depot peripheral", recycled),
        ("urine_collection depot peripheral", collected),
        ("effect_compartment depot peripheral", delayed),
    ],
)
def test_a_right_hand_side_is_its_equations_written_out(name, equations):
    transcribed(SYSTEMS[name], equations)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if "depot peripheral" not in name])
def test_without_a_depot_or_a_peripheral_compartment_the_rest_is_the_same(name):
    system = SYSTEMS[name]
    full = SYSTEMS[f"{name.split()[0]} depot peripheral{' linear' * ('linear' in name)}"]
    for p in random_values((*full.parameters, "V"), n=3):
        p["V"] = p["V1"]
        if "peripheral1" not in system.compartments:
            p["Q"] = 0.0  # nothing is distributed
        A = dict(zip(full.compartments, [0.7, 0.5, 0.4, 0.3, 0.2], strict=False))
        if "depot" not in system.compartments:
            A["depot"] = 0.0
        whole = dict(zip(full.compartments, rates_at(full, list(A.values()), **p), strict=True))
        if "depot" not in system.compartments:
            whole["central"] += whole["depot"]  # what the gut gives back
        part = rates_at(
            system,
            [A[c] for c in system.compartments],
            **{key: p[key] for key in system.parameters},
        )
        expected = [whole[c] for c in system.compartments]
        np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-15)


# Saturable elimination


def test_saturable_elimination_of_a_bolus_is_the_lambert_function():
    p = {"VMAX": 5.0, "KM": 2.0, "V": 10.0}
    times = np.array([1.0, 10.0, 40.0, 100.0])
    found = trajectory(MM, p, times, central=200.0).central
    C0, x = 20.0, np.exp((20.0 - 5.0 * times / 10.0) / 2.0)
    expected = 10.0 * 2.0 * lambertw(C0 / 2.0 * x).real
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_saturable_elimination_at_low_levels_is_linear():
    times = np.array([0.5, 2.0, 8.0, 24.0])
    p = {"VMAX": 1.5e9, "KM": 1e9, "CL": 1.5, "V1": 20.0, "Q": 3.0, "V2": 30.0, "KA": 0.8}
    found = trajectory(MIXED, p, times, depot=100.0)
    linear = {"CL": 3.0, "V1": 20.0, "Q": 3.0, "V2": 30.0, "KA": 0.8}
    P = [TWO_COMPARTMENT_ORAL.propagator(*map(jnp.asarray, (t, *linear.values()))) for t in times]
    expected = 100 * np.array([propagator[:, 0] for propagator, _ in P]).T
    np.testing.assert_allclose(found.central, expected[1], rtol=1e-7)
    np.testing.assert_allclose(found.peripheral1, expected[2], rtol=1e-7)


def test_saturable_elimination_at_high_levels_does_not_depend_on_the_amount():
    p = {"VMAX": 5.0, "KM": 1e-6, "V": 10.0}
    found = trajectory(MM, p, [4.0, 8.0, 16.0], central=100.0).central
    np.testing.assert_allclose(found, [80.0, 60.0, 20.0], rtol=1e-5)


# Autoinduction


def test_half_of_the_induction_is_there_after_the_half_life_of_the_enzyme():
    """Rifampicin (Smythe 2012): KENZ 0.00369/h is a half-life of 7.8 days, EMAX 1.04."""
    p = {"CL": 0.0, "KENZ": 0.00369, "EMAX": 1.04, "EC50": 0.0705, "V": 50.0}
    half = np.log(2) / 0.00369
    assert half / 24 == pytest.approx(7.8, abs=0.05)
    found = trajectory(INDUCED, p, [half, 2 * half, 40 * half], central=450.0)
    top = 1 + 1.04 * 9 / (0.0705 + 9)  # without clearance the concentration stays at 9 mg/L
    expected = [1 + (top - 1) * 0.5, 1 + (top - 1) * 0.75, top]
    np.testing.assert_allclose(found.enzyme, expected, rtol=1e-8)


def test_an_enzyme_that_is_fully_induced_multiplies_the_clearance():
    p = {"CL": 10.0, "KENZ": 0.1, "EMAX": 1.0, "EC50": 1.0, "V": 50.0}
    rates = rates_at(INDUCED, [150.0, 1.75], **p)  # 3 mg/L: 1 + 1 * 3 / 4
    np.testing.assert_allclose(rates, [-10.0 * 1.75 * 3.0, 0.0], atol=1e-14)


def test_without_drug_the_enzyme_stays_at_its_baseline():
    for name in ("autoinduction ", "autoinduction depot peripheral"):
        system = SYSTEMS[name]
        p = random_values(system.parameters)[0]
        np.testing.assert_array_equal(rates_at(system, start(system, p), **p), 0.0)


# Parent and metabolite


def exposures(system, p, **dose):
    """Return the integrals of all amounts over all time, of a linear system after a dose."""
    areas = np.linalg.solve(matrix(system, **p), -start(system, p, **dose))
    return SimpleNamespace(**dict(zip(system.compartments, areas, strict=True)))


def test_the_exposures_of_parent_and_metabolite_are_dose_over_clearance():
    p = {"CL": 4.0, "FM": 0.6, "CLM": 2.5, "VM": 12.0, "FP": 0.7, "V": 30.0, "KA": 0.9}
    area = exposures(PARENT, p, depot=100.0)
    assert area.central / 30.0 == pytest.approx(0.7 * 100 / 4.0, rel=1e-12)
    assert area.metabolite / 12.0 == pytest.approx((0.3 + 0.6 * 0.7) * 100 / 2.5, rel=1e-12)


def test_a_metabolite_of_a_bolus_is_the_two_exponentials():
    p = {"CL": 4.0, "FM": 0.6, "CLM": 2.5, "VM": 12.0, "V": 30.0}
    times = np.array([0.5, 3.0, 12.0, 48.0])
    found = trajectory(SYSTEMS["parent_metabolite "], p, times, central=100.0)
    k, km = 4.0 / 30.0, 2.5 / 12.0
    expected = 100 * 0.6 * k * (np.exp(-k * times) - np.exp(-km * times)) / (km - k)
    np.testing.assert_allclose(found.metabolite, expected, rtol=1e-8)


# Enterohepatic recirculation


@pytest.mark.parametrize("FR", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("depot", [True, False])
def test_recirculation_raises_the_exposure_by_what_is_reabsorbed(FR, depot):
    system = SYSTEMS["enterohepatic depot" if depot else "enterohepatic "]
    p = {"CL": 2.0, "KCB": 0.3, "KBG": 0.5, "KG": 0.8, "FR": FR, "V": 10.0, "KA": 1.1}
    p = {name: p[name] for name in system.parameters}
    area = exposures(system, p, **{system.dosed: 100.0})
    assert area.central / 10.0 == pytest.approx(100 / (2.0 + 0.3 * 10 * (1 - FR)), rel=1e-12)


def test_drug_that_is_only_recycled_is_never_lost():
    p = {"CL": 0.0, "KCB": 0.3, "KBG": 0.5, "KG": 0.8, "FR": 1.0, "V": 10.0, "KA": 1.1}
    found = trajectory(RECYCLED, p, [1.0, 10.0, 200.0], depot=100.0)
    total = sum(vars(found).values())
    np.testing.assert_allclose(total, 100.0, rtol=1e-9)
    share = np.array([1 / 1.1, 1 / 0.3, 1 / 0.5, 1 / 0.8])  # each holds its mean residence time
    ends = [getattr(found, name)[-1] for name in RECYCLED.compartments]
    np.testing.assert_allclose(ends, 100 * share / share.sum(), rtol=1e-8)


# Urine and effect


def test_the_urine_collects_the_renal_fraction_of_what_was_eliminated():
    p = {"CL": 2.0, "FE": 0.35, "V": 10.0}
    times = np.array([2.0, 8.0, 200.0])
    found = trajectory(URINE, p, times, central=100.0).urine
    np.testing.assert_allclose(found, 35 * (1 - np.exp(-0.2 * times)), rtol=1e-9)
    assert found[-1] == pytest.approx(35.0, rel=1e-9)


def test_the_site_of_effect_peaks_where_it_meets_the_plasma():
    p = {"CL": 2.0, "KE0": 0.5, "V": 10.0}
    peak = np.log(0.5 / 0.2) / (0.5 - 0.2)
    times = np.array([0.5, peak, 20.0])
    found = trajectory(EFFECT, p, times, central=100.0)
    expected = 10 * 0.5 * (np.exp(-0.2 * times) - np.exp(-0.5 * times)) / 0.3
    np.testing.assert_allclose(found.effect, expected, rtol=1e-9)
    assert found.effect[1] == pytest.approx(found.central[1] / 10.0, rel=1e-9)
