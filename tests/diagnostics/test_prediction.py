"""Prediction errors are Sheiner and Beal's, in subjects that the population has not learned from."""

import numpy as np
import pytest

import popk
from popk.diagnostics.prediction import errors, weighted_median


def test_errors_are_those_by_hand():
    found = errors(np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 2.0]))
    assert found["bias"] == pytest.approx(-1 / 3)
    assert found["RMSE"] == pytest.approx(np.sqrt(5 / 3))
    assert found["bias%"] == pytest.approx(100 * (1 + 0 - 0.5) / 3)
    assert found["RMSE%"] == pytest.approx(100 * np.sqrt(1.25 / 3))
    assert found["within 30%"] == pytest.approx(100 / 3)
    assert found["GMFE"] == pytest.approx(2 ** (2 / 3))


def test_levels_of_0_have_no_relative_error():
    found = errors(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert found["bias"] == 0.5
    assert found["bias%"] == 0
    assert found["GMFE"] == 1


def test_a_median_of_weighted_draws_follows_the_weights():
    values = np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    assert weighted_median(values, np.array([0.6, 0.2, 0.2])).tolist() == [3.0, 1.0]
    assert weighted_median(values, np.full(3, 1 / 3)).tolist() == [2.0, 2.0]


@pytest.fixture(scope="module")
def tables(theophylline_model, theophylline_posterior, theophylline):
    given = (theophylline_model, theophylline_posterior, theophylline)
    few = {"draws": 128, "individual_draws": 8}
    return (
        popk.prediction_error(*given, **few),
        popk.prediction_error(*given, external=theophylline, **few),
    )


@pytest.mark.slow
def test_a_subject_s_own_levels_help_and_leaving_it_out_hurts(tables):
    left_out, known = tables
    assert list(left_out.index) == ["PRED", "IPRED"]
    assert left_out["levels"].tolist() == [132, 132]
    assert left_out.loc["IPRED", "RMSE"] < 0.6 * left_out.loc["PRED", "RMSE"]
    assert left_out.loc["PRED", "RMSE"] > known.loc["PRED", "RMSE"]
    assert left_out.attrs["of"] == "left out"
    assert left_out.attrs["relative"] == 123  # nine levels are 0


@pytest.mark.slow
def test_external_subjects_that_are_those_of_the_fit_have_its_errors(
    tables, theophylline_model, theophylline_posterior, theophylline
):
    same = popk.predict(theophylline_model, theophylline_posterior, theophylline, seed=1, draws=128)
    group = same["posterior_predictive"].dataset
    level = np.asarray(theophylline.observations.value)
    for name in ("PRED", "IPRED"):
        fit = errors(level, group[name].median("sample").values)
        assert tables[1].loc[name, "RMSE"] == pytest.approx(fit["RMSE"], rel=0.05)


def test_what_makes_no_sense_is_refused(theophylline_model, theophylline_posterior, theophylline):
    with pytest.raises(ValueError, match="within is 0, draws 992"):
        popk.prediction_error(theophylline_model, theophylline_posterior, theophylline, within=0)
