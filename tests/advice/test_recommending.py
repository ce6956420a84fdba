"""What to expect of each regimen: against the closed form at the twin's own draws."""

import numpy as np
import pytest

import popk
from popk.advice.certainty import Certainty, wilson

REGIMENS = [popk.Regimen(dose=d, interval=12) for d in (800, 300, 500)]


@pytest.fixture(scope="module")
def advice(twin):
    return popk.recommend(twin, REGIMENS, popk.trough(3, 8), popk.peak_above(20))


def steady(dose, draws, tau=12.0):
    """Return trough and peak of a bolus at steady state."""
    _, V, k = draws
    peak = dose / V / (1 - np.exp(-k * tau))
    return peak * np.exp(-k * tau), peak


def test_probabilities_are_those_of_the_formula_at_the_twins_draws(advice, draws):
    for regimen, (_, row) in zip(REGIMENS, advice.table.iterrows(), strict=True):
        trough, peak = steady(regimen.dose, draws)
        assert row["attained"] == np.mean((trough >= 3) & (trough <= 8))
        assert row["harm"] == np.mean(peak >= 20)
        missed = (trough < 3) | (trough > 8)
        assert row["loss"] == pytest.approx(np.mean(missed + 1.0 * (peak >= 20)))
        assert row["value"] == pytest.approx(np.median(trough), rel=1e-9)


def test_the_order_is_that_of_the_candidates_unless_another_is_asked_for(twin, advice):
    assert list(advice.table.index) == [f"{d} mg every 12 h" for d in (800, 300, 500)]
    ordered = popk.recommend(twin, REGIMENS, popk.trough(3, 8), sort="loss").table
    assert ordered.index[0] == "500 mg every 12 h"
    assert ordered["harm"].isna().all()


def test_the_output_says_the_loss_the_units_and_who_decides(advice):
    for text in (repr(advice), advice._repr_html_()):
        assert "a clinician decides" in text
        assert "trough 3 to 8 mg/L" in text
        assert "1 where a draw is below the target" in text
        assert "without residual error" in text


def test_a_loss_of_ones_own_is_said_in_its_words(twin):
    def distance(value, attained, harm):
        """How far the trough is from 5 mg/L."""
        return abs(value - 5)

    found = popk.recommend(twin, REGIMENS, popk.trough(3, 8), loss=distance)
    assert "How far the trough is from 5 mg/L." in repr(found)
    trough = found.draws["value"].values
    np.testing.assert_allclose(found.table["loss"], np.abs(trough - 5).mean(1))
    with pytest.raises(ValueError, match="the loss has no docstring"):
        popk.recommend(twin, REGIMENS, popk.trough(3, 8), loss=lambda value, ok, harm: value)


def test_the_first_interval_counts_the_drug_that_is_left(twin, draws):
    _, V, k = draws
    regimen = popk.Regimen(dose=500, interval=12, start=12)
    found = popk.recommend(twin, [regimen], popk.trough(3), at="first interval")
    expected = 500 / V * (np.exp(-k * 24) + np.exp(-k * 12))
    np.testing.assert_allclose(found.draws["value"].values[0], expected, rtol=1e-9)


def test_monte_carlo_intervals_count_the_draws_of_one_population_draw_as_one():
    rng = np.random.default_rng(1)
    one = rng.random(400) < 0.3
    alone = Certainty(np.arange(400), 400.0).share(one)
    five_times = Certainty(np.repeat(np.arange(400), 5), 2000.0).share(np.repeat(one, 5))
    np.testing.assert_allclose(alone, five_times, rtol=1e-2)
    np.testing.assert_allclose(wilson(0.5, 100), [0.4038, 0.5962], atol=1e-4)
    assert Certainty(np.arange(400), 400.0).share(np.ones(400)).low == pytest.approx(
        0.9905, abs=1e-4
    )


def test_doubts_about_the_twin_are_carried_along(twin):
    import dataclasses

    belief = twin._belief._replace(doubt="Pareto k is 0.90 (above 0.7)")
    doubtful = dataclasses.replace(twin)
    doubtful.__dict__["_belief"] = belief
    found = popk.recommend(doubtful, REGIMENS[:1], popk.trough(3, 8))
    assert "Pareto k is 0.90" in found.warnings[0]
    assert "Warning: the draws of ID 1 cannot be trusted" in repr(found)


@pytest.mark.parametrize(
    ("regimens", "options", "says"),
    [
        (REGIMENS, {"max_dose": 600}, "800 mg every 12 h is beyond max_dose, 600 mg"),
        (REGIMENS, {"max_rate": 100}, "is given at once, faster than max_rate"),
        ([popk.Regimen(dose=500, interval=12, duration=1)], {"max_rate": 100},
         "runs at 500 mg/h, faster than max_rate, 100 mg/h"),
        (REGIMENS, {"max_dose": -1}, "max_dose is -1"),
        (REGIMENS, {"sort": "price"}, "sort is 'price'"),
        (REGIMENS, {"at": "noon"}, "at is 'noon'"),
        ([popk.Regimen(dose=500)], {}, "no interval to be judged over"),
        ([REGIMENS[0], REGIMENS[0]], {}, "two regimens are 800 mg every 12 h"),
        ([], {}, "there are no regimens"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(twin, regimens, options, says):
    with pytest.raises(ValueError, match=says):
        popk.recommend(twin, regimens, popk.trough(3, 8), **options)


def test_an_output_that_the_model_lacks_is_refused(twin):
    with pytest.raises(popk.ModelError, match="the model has no such output"):
        popk.recommend(twin, REGIMENS, popk.response(1, output="effect"))


def test_advice_is_drawn_with_units(advice):
    picture = popk.plots.advice(advice)
    shown = [ax.get_xlabel() for ax in picture.axes] + [ax.get_ylabel() for ax in picture.axes]
    assert "Conc. (mg/L)" in shown
    assert "Time since the window's begin (h)" in shown
