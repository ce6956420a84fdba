"""Doses that attain a target: closed forms, limits, strengths, and models that are not linear."""

import numpy as np
import numpyro
import pytest

import popk
from popk.advice.finding import Aim, found
from popk.advice.scaling import Scaling
from popk.advice.strengths import available
from popk.patients.courses import Course
from tests.patients.models import population, records


def test_the_dose_for_an_area_is_a_quantile_of_clearance_times_it(twin, draws):
    dose = popk.optimal_dose(twin, popk.auc(100), interval=12, probability=0.8)
    assert dose.regimens[0].dose == pytest.approx(np.quantile(draws[0], 0.8) * 100, rel=1e-12)
    upper = popk.optimal_dose(twin, popk.auc(None, 100), interval=12, probability=0.8)
    assert upper.regimens[0].dose == pytest.approx(np.quantile(draws[0], 0.2) * 100, rel=1e-12)


def test_a_first_dose_counts_the_drug_that_is_left(twin, draws):
    _, V, k = draws
    dose = popk.optimal_dose(
        twin, popk.trough(5), interval=12, probability=0.9, at="first interval", start=12.0
    )
    left = 500 / V * np.exp(-k * 24)
    own = (5 - left) * V * np.exp(k * 12)
    assert dose.regimens[0].dose == pytest.approx(np.quantile(own, 0.9), rel=1e-9)


def test_time_above_a_limit_is_solved_draw_by_draw(twin, draws):
    _, V, k = draws
    dose = popk.optimal_dose(
        twin,
        popk.time_above(4, 0.5),
        interval=12,
        probability=0.9,
        at=(2000.0, 2012.0),
        start=2000.0,
    )
    assert dose.regimens[0].dose == pytest.approx(np.quantile(4 * V * np.exp(6 * k), 0.9), rel=1e-6)


def test_two_limits_give_the_dose_with_the_least_expected_loss(twin, draws):
    dose = popk.optimal_dose(twin, popk.trough(3, 8), interval=12)
    _, V, k = draws
    trough = 1 / V / np.expm1(12 * k)
    attained = [np.mean((d * trough >= 3) & (d * trough <= 8)) for d in np.arange(100, 1500, 5)]
    assert dose.table["attained"].iloc[0] >= max(attained) - 0.002


def test_a_dose_beyond_a_limit_is_held_there_and_that_is_said(twin):
    held = popk.optimal_dose(twin, popk.trough(5), interval=12, max_dose=500, strengths=50)
    assert held.regimens[0].dose == 500
    assert held.table["held"].iloc[0] == "max_dose"
    assert "held at max_dose, 500 mg; " in repr(held)
    assert "a clinician decides" in repr(held)
    slow = popk.optimal_dose(twin, popk.trough(5), interval=12, duration=2.0, max_rate=100)
    assert slow.regimens[0].dose == 200
    assert slow.table["held"].iloc[0] == "max_rate"


def test_doses_are_rounded_to_what_can_be_given_and_still_attain(twin):
    exact = popk.optimal_dose(twin, popk.trough(3), interval=12).table["exact"].iloc[0]
    tablets = popk.optimal_dose(twin, popk.trough(3), interval=12, strengths=[100, 250])
    assert tablets.regimens[0].dose == min(d for d in (300, 350, 400, 450, 500) if d >= exact)
    assert tablets.table["attained"].iloc[0] >= 0.9
    most = popk.optimal_dose(twin, popk.trough(None, 8), interval=12, strengths=50)
    assert most.regimens[0].dose <= most.table["exact"].iloc[0]


def test_a_loading_dose_and_the_interval_that_needs_least(twin):
    dose = popk.optimal_dose(
        twin, popk.trough(3), interval=[8, 12], probability=0.9, loading=True, count=4
    )
    first, then = dose.regimens
    assert (first.interval, then.interval) == (8, 8)
    assert then.start == first.start + 8
    assert list(dose.table.index) == ["every 8 h", "every 12 h", "loading"]
    assert dose.table["attained"].to_numpy() == pytest.approx(0.9, abs=1e-3)


def test_strengths_are_sums_of_tablets_or_multiples_of_a_step():
    np.testing.assert_array_equal(available([100, 250], 600, 2), [100, 200, 250, 350, 500])
    np.testing.assert_array_equal(available(200, 650, 4), [200, 400, 600])
    assert available(None, 600, 4) is None


def test_a_saturable_model_is_found_by_bracketing():
    time, k = np.array([0.0, 1.0]), np.linspace(0.5, 2.0, 301)

    def at(dose):  # grows faster than the dose
        value = k * dose**1.5
        return {None: Course(time, time, np.stack([value, value], 1))}

    dose = found(Aim(popk.trough(10), None, None, 0.9), Scaling(at, False, {}, {}), 1e-2, 1e3)
    assert dose == pytest.approx((10 / np.quantile(k, 0.1)) ** (2 / 3), rel=1e-6)
    upper = found(
        Aim(popk.trough(None, 10), None, None, 0.9), Scaling(at, False, {}, {}), 1e-2, 1e3
    )
    assert upper == pytest.approx((10 / np.quantile(k, 0.9)) ** (2 / 3), rel=1e-6)


@pytest.mark.slow
def test_a_dose_of_saturable_elimination_attains_its_target():
    def saturable(trial):
        VM = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.2))
        p = popk.individual(trial, VMAX=10 * VM, omega=popk.fixed(0.2), correlated=False)
        system = popk.systems.michaelis_menten(depot=False, peripheral=False, linear=False)
        amounts = popk.ode(trial, system, {"VMAX": p.VMAX, "KM": 5.0, "V": 50.0})
        error = popk.proportional_error(popk.fixed(0.1))
        popk.observe(trial, popk.concentration(trial, amounts.central, 50.0), error)

    person = popk.Twin(saturable, population(50), records([2.0], [8.5]), population_draws=50)
    dose = popk.optimal_dose(person, popk.trough(2), interval=12, probability=0.9)
    assert dose.table["attained"].iloc[0] == pytest.approx(0.9, abs=2e-3)


def test_the_time_to_a_limit_is_the_formula_s(twin, draws):
    _, V, k = draws
    found = popk.time_until_below(twin, 0.5)
    np.testing.assert_allclose(found.values, np.log(500 / V / 0.5) / k, rtol=1e-9)
    assert found.attrs["units"] == "h"


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (popk.trough(3), {"probability": 1.2}, "probability is 1.2"),
        (popk.trough(3, 8), {"probability": 0.9}, "of a target of one limit"),
        (popk.trough(3), {"max_rate": 100}, "give their duration, or their rate"),
        (popk.trough(3), {"max_rate": 100, "rate": 200}, "faster than max_rate, 100 mg/h"),
        (popk.trough(3), {"strengths": [-1]}, "all positive"),
        (
            popk.trough(3),
            {"strengths": 500, "max_dose": 100},
            "no available dose is within max_dose",
        ),
        (popk.trough(0.01), {"at": (12.0, 24.0), "start": 12.0}, "attained without a dose"),
        (popk.trough(None, 0.01), {"at": (12.0, 24.0), "start": 12.0}, "no dose is low enough"),
        (popk.trough(3), {"interval": None}, "no interval to be judged over"),
    ],
)
def test_what_no_dose_can_do_is_refused(twin, target, options, says):
    with pytest.raises(ValueError, match=says):
        popk.optimal_dose(twin, target, **{"interval": 12, **options})


def test_a_limit_that_is_none_is_refused(twin):
    with pytest.raises(ValueError, match="limit is 0"):
        popk.time_until_below(twin, 0)
