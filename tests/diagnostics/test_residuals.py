"""Predictions and residuals, level by level."""

import numpy as np
import pytest
import xarray as xr

import popk
from popk.diagnostics.residuals import predictions, residuals, trend
from tests.diagnostics.test_vpc import NOMINAL, trial_at
from tests.predictions import predictions_of

RNG = np.random.default_rng(0)
LEVELS = RNG.lognormal(1.0, 0.4, (8, len(NOMINAL)))
IPRED = RNG.lognormal(1.0, 0.3, (40, LEVELS.size))
PRED = RNG.lognormal(1.0, 0.1, (40, LEVELS.size))


def posterior_with(**sigmas: float) -> xr.DataTree:
    draws = {n: (("chain", "draw"), np.full((2, 10), s)) for n, s in sigmas.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(draws)})


def same(trial: popk.Trial, ipred: np.ndarray = IPRED) -> xr.DataTree:
    return predictions_of(trial, ipred, ipred=ipred, pred=PRED, new_subjects=False)


@pytest.fixture
def trial() -> popk.Trial:
    return trial_at(np.array(NOMINAL), LEVELS)


def test_predictions_are_posterior_medians_beside_the_level(trial):
    data = predictions(same(trial), trial)
    np.testing.assert_allclose(data["IPRED"], np.median(IPRED, axis=0))
    np.testing.assert_allclose(data["PRED"], np.median(PRED, axis=0))
    np.testing.assert_allclose(data["DV"], LEVELS.ravel())
    assert data["DV"].attrs["units"] == data["IPRED"].attrs["units"] == "mg/L"


def test_levels_below_the_limit_have_no_residual():
    below = (LEVELS < 2).astype(int)
    trial = trial_at(np.array(NOMINAL), LEVELS, BLQ=below, LLOQ=np.full(LEVELS.shape, 2.0))
    np.testing.assert_allclose(predictions(same(trial), trial)["DV"], LEVELS[LEVELS >= 2])


@pytest.mark.parametrize(
    ("sigmas", "expected"),
    [
        ({"sigma_additive": 0.5}, lambda y, f: (y - f) / 0.5),
        ({"sigma_proportional": 0.2}, lambda y, f: (y - f) / (0.2 * f)),
        (
            {"sigma_additive": 0.5, "sigma_proportional": 0.2},
            lambda y, f: (y - f) / np.sqrt(0.25 + 0.04 * f**2),
        ),
        ({"sigma_log": 0.3}, lambda y, f: (np.log(y) - np.log(f)) / 0.3),
        ({"sigma_intercept": 0.5, "sigma_slope": 0.2}, lambda y, f: (y - f) / (0.5 + 0.2 * f)),
        ({"sigma_coefficient": 0.4, "sigma_exponent": 0.6}, lambda y, f: (y - f) / (0.4 * f**0.6)),
    ],
)
def test_iwres_is_the_distance_in_residual_standard_deviations(trial, sigmas, expected):
    data = residuals(same(trial), posterior_with(**sigmas), trial)
    np.testing.assert_allclose(data["IWRES"], expected(LEVELS.ravel(), np.median(IPRED, axis=0)))


def test_a_subject_s_own_scale_multiplies_the_standard_deviation(trial):
    posterior = posterior_with(sigma_additive=0.5)
    scale = np.linspace(0.5, 2.0, len(trial.ids))
    drawn = np.broadcast_to(scale, (2, 10, len(scale)))
    posterior["posterior"]["error_scale"] = xr.DataArray(drawn, dims=("chain", "draw", "subject"))
    data = residuals(same(trial), posterior, trial)
    expected = (LEVELS - np.median(IPRED, axis=0).reshape(LEVELS.shape)) / (0.5 * scale[:, None])
    np.testing.assert_allclose(data["IWRES"], expected.ravel())


@pytest.mark.parametrize("sigma", ["sigma_proportional", "sigma_log"])
def test_a_prediction_of_zero_has_no_proportional_residual(trial, sigma):
    data = residuals(same(trial, np.zeros_like(IPRED)), posterior_with(**{sigma: 0.2}), trial)
    assert np.isnan(data["IWRES"]).all()


def test_a_residual_error_of_ones_own_is_refused(trial):
    with pytest.raises(popk.ModelError, match="the posterior has sigma_power; IWRES needs"):
        residuals(same(trial), posterior_with(sigma_power=0.3), trial)


def test_new_subjects_have_no_residuals(trial):
    with pytest.raises(popk.ModelError, match="with new_subjects=False"):
        predictions(predictions_of(trial, IPRED), trial)


def test_the_trend_of_a_line_is_the_line():
    x = RNG.uniform(0, 10, 50)
    at, middle = trend(x, 3 - 2 * x)
    np.testing.assert_allclose(middle, 3 - 2 * at, atol=1e-9)
    assert (at[0], at[-1]) == (x.min(), x.max())


def test_the_trend_follows_a_bend_and_not_the_noise():
    x = np.linspace(0, 10, 400)
    at, middle = trend(x, np.abs(x - 5) + RNG.normal(0, 0.3, 400), span=0.2)
    assert np.abs(middle - np.abs(at - 5)).max() < 0.5


def test_a_trend_needs_levels_at_more_than_one_place():
    assert trend(np.ones(20), np.ones(20))[0].size == 0
    assert trend(np.arange(3.0), np.arange(3.0))[0].size == 0
