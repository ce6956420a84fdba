"""What would be observed? Predictions for given values, or for every posterior draw."""

import numpy as np
import pytest
import xarray as xr

import popk
from popk import simulation
from popk.model.sites import describe
from popk.simulation import posterior_values
from tests.trials import trial

TYPICAL = {"CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5}


def textbook(dose, CL, V, KA, t):
    """Return the concentration after one oral dose, by Bateman's function."""
    k = CL / V
    return dose / V * KA / (KA - k) * (np.exp(-k * t) - np.exp(-KA * t))


# --- predict_at ---


def test_theophylline_s_first_subject_follows_the_textbook_formula(
    theophylline_model, theophylline
):
    found = popk.predict_at(theophylline_model, theophylline, TYPICAL).sel(subject="1")
    size = 79.6 / 70
    expected = textbook(319.992, 2.8 * size**0.75, 32 * size, 1.5, found["TIME"])
    assert found.sizes == {"record": 12}
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_random_effects_that_are_given_move_their_subject_alone(theophylline_model, theophylline):
    eta = np.zeros((12, 3))
    eta[0] = [0.2, -0.1, 0.3]
    found = popk.predict_at(theophylline_model, theophylline, {**TYPICAL, "eta": eta})
    at_0 = popk.predict_at(theophylline_model, theophylline, TYPICAL)
    size = 79.6 / 70
    CL, V, KA = 2.8 * size**0.75 * np.exp(0.2), 32 * size * np.exp(-0.1), 1.5 * np.exp(0.3)
    t = found["TIME"].sel(subject="1")
    np.testing.assert_allclose(found[0], textbook(319.992, CL, V, KA, t), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found[1:], at_0[1:])


def test_a_prediction_has_its_axes_times_and_unit_and_nan_on_padding(
    phenobarbital_model, phenobarbital
):
    values = {"CL_pop": 0.005, "V_pop": 1.0, "V_low_apgar": 0.1}
    found = popk.predict_at(phenobarbital_model, phenobarbital, values)
    assert found.dims == ("subject", "record")
    assert found.name == "IPRED"
    assert found.attrs == {"units": "mg/L"}
    assert list(found["subject"].values) == list(phenobarbital.ids)
    np.testing.assert_array_equal(np.isnan(found), ~phenobarbital.recorded)
    np.testing.assert_array_equal(np.isnan(found["TIME"]), ~phenobarbital.recorded)


def test_spread_and_error_are_not_needed_for_a_prediction(theophylline_model, theophylline):
    plain = popk.predict_at(theophylline_model, theophylline, TYPICAL)
    full = {**TYPICAL, "omega_CL": 0.3, "sigma_additive": 0.7, "corr": np.eye(3)}
    np.testing.assert_array_equal(popk.predict_at(theophylline_model, theophylline, full), plain)


@pytest.mark.parametrize("missing", [("KA_pop",), ("CL_pop", "V_pop")])
def test_a_value_that_the_prediction_depends_on_is_asked_for_by_name(
    missing, theophylline_model, theophylline
):
    values = {name: value for name, value in TYPICAL.items() if name not in missing}
    with pytest.raises(popk.ModelError) as caught:
        popk.predict_at(theophylline_model, theophylline, values)
    assert (
        str(caught.value) == f"values lacks {', '.join(missing)}, which the prediction depends on"
    )


def test_a_value_that_the_model_does_not_sample_is_refused(theophylline_model, theophylline):
    with pytest.raises(popk.ModelError) as caught:
        popk.predict_at(theophylline_model, theophylline, {**TYPICAL, "CL": 3.0, "Q_pop": 1.0})
    assert str(caught.value) == (
        "the model does not sample CL, Q_pop; it samples CL_pop, V_pop, KA_pop, omega_CL, omega_V, "
        "omega_KA, corr, eta, sigma_additive, sigma_proportional"
    )


def test_a_value_of_another_size_is_refused(theophylline_model, theophylline):
    with pytest.raises(popk.ModelError) as caught:
        popk.predict_at(theophylline_model, theophylline, {**TYPICAL, "eta": np.zeros((2, 3))})
    assert str(caught.value) == "eta was given 6 numbers; its shape is (12, 1, 3)"


def test_a_second_prediction_compiles_nothing_anew(theophylline_model, theophylline):
    popk.predict_at(theophylline_model, theophylline, TYPICAL)
    before = simulation._ipred_compiled._cache_size()
    other = {name: 1.1 * value for name, value in TYPICAL.items()}
    popk.predict_at(theophylline_model, theophylline, other)
    popk.predict_at(theophylline_model, theophylline, {**other, "CL_pop": 3})
    assert simulation._ipred_compiled._cache_size() == before


DOSES_ONLY = "ID TIME EVID AMT DV WT\n1 0 1 320 . 70\n1 4 2 0 . 70\n1 9 2 0 . 70"


def test_records_without_a_level_are_predicted_too(theophylline_model):
    found = popk.predict_at(theophylline_model, trial(DOSES_ONLY, WT="kg"), TYPICAL)
    expected = textbook(320, 2.8, 32.0, 1.5, np.array([0, 4, 9]))
    np.testing.assert_allclose(found[0], expected, rtol=1e-12, atol=1e-14)


# --- predict ---


@pytest.fixture(scope="module")
def same(theophylline_model, theophylline_posterior, theophylline):
    return popk.predict(theophylline_model, theophylline_posterior, theophylline, seed=7, draws=60)


@pytest.fixture(scope="module")
def new(theophylline_model, theophylline_posterior, theophylline):
    return popk.predict(
        theophylline_model,
        theophylline_posterior,
        theophylline,
        seed=7,
        draws=60,
        new_subjects=True,
    )


def chosen_draws(posterior, count):
    """Return the posterior's draws that `predict` uses, on one axis of samples."""
    flat = posterior["posterior"].dataset.stack(sample=("chain", "draw"), create_index=False)
    at = np.linspace(0, flat.sizes["sample"] - 1, count).round().astype(int)
    return flat.isel(sample=at)


def test_predicted_levels_have_their_axes_coordinates_and_unit(same):
    levels = same["posterior_predictive"]
    assert set(levels.data_vars) == {"DV", "IPRED", "PRED"}
    for values in levels.data_vars.values():
        assert values.dims == ("sample", "observation")
        assert values.shape == (60, 132)
        assert values.attrs == {"units": "mg/L"}
    assert list(levels["ID"].values[:12]) == ["1"] * 11 + ["2"]
    assert levels["TIME"].values[1] == 0.25


def test_the_prediction_of_a_subject_is_that_of_its_own_draws(same, theophylline_posterior):
    draws = chosen_draws(theophylline_posterior, 60).sel(subject="3")
    levels = same["posterior_predictive"].dataset
    mine = levels.isel(observation=levels["ID"] == "3")
    dose = 319.365
    expected = [
        textbook(dose, *(float(draws[n][s]) for n in ("CL", "V", "KA")), mine["TIME"])
        for s in range(60)
    ]
    np.testing.assert_allclose(mine["IPRED"], expected, rtol=1e-9, atol=1e-12)


def test_pred_is_the_prediction_at_random_effects_of_0(same, theophylline_posterior):
    draws = chosen_draws(theophylline_posterior, 60)
    levels = same["posterior_predictive"].dataset
    mine = levels.isel(observation=levels["ID"] == "1")
    size = 79.6 / 70
    expected = [
        textbook(
            319.992,
            float(draws["CL_pop"][s]) * size**0.75,
            float(draws["V_pop"][s]) * size,
            float(draws["KA_pop"][s]),
            mine["TIME"],
        )
        for s in range(60)
    ]
    np.testing.assert_allclose(mine["PRED"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", ["same", "new"])
def test_levels_scatter_around_predictions_with_the_residual_error(
    which, theophylline_posterior, request
):
    levels = request.getfixturevalue(which)["posterior_predictive"].dataset
    draws = chosen_draws(theophylline_posterior, 60)
    spread = np.sqrt(
        draws["sigma_additive"] ** 2 + (draws["sigma_proportional"] * levels["IPRED"]) ** 2
    )
    score = ((levels["DV"] - levels["IPRED"]) / spread).to_numpy()
    assert abs(score.mean()) < 4 / np.sqrt(score.size)
    assert score.std() == pytest.approx(1, abs=4 / np.sqrt(2 * score.size))


def test_new_subjects_differ_by_omega_and_the_same_ones_by_their_posterior(
    same, new, theophylline_posterior
):
    draws = chosen_draws(theophylline_posterior, 60)
    # 12 subjects at about 24 h: the spread between people is far larger than what is left unknown of each.
    spread = {}
    for name, tree in (("same", same), ("new", new)):
        levels = tree["posterior_predictive"].dataset
        late = levels["IPRED"].isel(observation=levels["TIME"] > 20)
        spread[name] = float(np.log(late).std("sample").mean())
    assert spread["new"] > 2 * spread["same"]
    assert float(draws["omega_CL"].mean()) > 0.1


def test_new_subjects_share_the_population_of_their_draw(same, new):
    np.testing.assert_array_equal(
        new["posterior_predictive"]["PRED"], same["posterior_predictive"]["PRED"]
    )


def test_the_same_seed_gives_the_same_levels_and_another_seed_others(
    same, theophylline_model, theophylline_posterior, theophylline
):
    again, other = (
        popk.predict(theophylline_model, theophylline_posterior, theophylline, seed=seed, draws=60)
        for seed in (7, 8)
    )
    first = same["posterior_predictive"]
    np.testing.assert_array_equal(again["posterior_predictive"]["DV"], first["DV"])
    assert (other["posterior_predictive"]["DV"] != first["DV"]).all()
    np.testing.assert_array_equal(other["posterior_predictive"]["IPRED"], first["IPRED"])


def test_what_was_observed_stands_beside_what_is_predicted(same, theophylline):
    np.testing.assert_array_equal(same["observed_data"]["DV"], theophylline.observations.value)
    assert same.attrs["seed"] == 7
    assert same.attrs["new_subjects"] == 0
    assert same.attrs["time_unit"] == "h"


def test_what_was_not_measured_is_not_observed(theophylline_model, theophylline_posterior):
    text = (
        "ID TIME EVID AMT DV MDV BLQ LLOQ WT\n3 0 1 320 . 1 0 . 70\n3 4 0 0 6 0 0 . 70\n"
        "3 9 0 0 . 1 0 . 70\n3 40 0 0 . 0 1 0.5 70"
    )
    found = popk.predict(
        theophylline_model, theophylline_posterior, trial(text, WT="kg"), seed=1, draws=60
    )
    np.testing.assert_array_equal(found["observed_data"]["DV"], [6, np.nan, np.nan])
    levels = found["posterior_predictive"]["DV"]
    assert np.isfinite(levels).all()
    assert float(levels[:, 2].min()) < 0.5, (
        "a level below the limit is simulated as it would be measured"
    )


def test_a_trial_without_levels_predicts_none(theophylline_model, theophylline_posterior):
    doses = trial(DOSES_ONLY.replace("\n1 ", "\n3 "), WT="kg")
    found = popk.predict(theophylline_model, theophylline_posterior, doses, seed=1, draws=60)
    assert found["posterior_predictive"]["DV"].shape == (60, 0)


def test_part_of_the_trial_is_predicted_from_its_own_draws(
    theophylline_model, theophylline_posterior, theophylline, same
):
    some = theophylline[["3", "10"]]
    found = popk.predict(theophylline_model, theophylline_posterior, some, seed=7, draws=60)
    levels = same["posterior_predictive"].dataset
    mine = levels["IPRED"].isel(observation=np.isin(levels["ID"], ["3", "10"]))
    np.testing.assert_allclose(found["posterior_predictive"]["IPRED"], mine, rtol=1e-12, atol=1e-14)


def test_a_second_prediction_of_all_draws_compiles_nothing_anew(
    same, theophylline_model, theophylline_posterior, theophylline
):
    before = simulation._predicted._cache_size()
    popk.predict(theophylline_model, theophylline_posterior, theophylline, seed=99, draws=60)
    assert simulation._predicted._cache_size() == before


# --- which draws ---


@pytest.fixture(scope="module")
def sites(theophylline_model, theophylline):
    return describe(theophylline_model, theophylline)


@pytest.fixture(scope="module")
def drawn(sites):
    """Return a posterior whose CL_pop counts its draws: chain 0 has 0 to 9, chain 1 has 10 to 19."""
    data = {
        name: ((*("chain", "draw"), *sites.all[name].dims),
               np.zeros((2, 10, *[n for n in sites.all[name].shape if n > 1])))
        for name in sites.named("population", "individual")
    }  # fmt: skip
    data["CL_pop"] = (("chain", "draw"), np.arange(20.0).reshape(2, 10))
    data["eta"] = (("chain", "draw", "subject", "parameter"), np.zeros((2, 10, 12, 3)))
    data["eta"][1][..., :, 0] = np.arange(12)
    coords = {"subject": [str(i) for i in range(1, 13)]}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data, coords=coords)})


def test_draws_are_spread_evenly_over_chains_and_draws(drawn, sites, theophylline):
    every = posterior_values(drawn, sites, theophylline, False, None)
    np.testing.assert_array_equal(every["CL_pop"], np.arange(20))
    some = posterior_values(drawn, sites, theophylline, False, 3)
    np.testing.assert_array_equal(some["CL_pop"], [0, 10, 19])
    np.testing.assert_array_equal(
        posterior_values(drawn, sites, theophylline, False, 99)["CL_pop"], range(20)
    )


def test_individual_draws_are_those_of_the_subjects_of_the_trial(
    drawn, theophylline_model, theophylline
):
    some = theophylline[["3", "10"]]
    found = posterior_values(drawn, describe(theophylline_model, some), some, False, None)
    assert found["eta"].shape == (20, 2, 1, 3)
    np.testing.assert_array_equal(found["eta"][0, :, 0, 0], [2, 9])


def test_new_subjects_take_no_individual_draws(drawn, sites, theophylline):
    assert "eta" not in posterior_values(drawn, sites, theophylline, True, None)


def test_a_subject_that_is_not_in_the_posterior_is_refused(drawn, theophylline_model):
    stranger = trial("ID TIME EVID AMT DV WT\n99 0 1 9 . 60\n99 1 0 0 5 60", WT="kg")
    with pytest.raises(popk.ModelError) as caught:
        posterior_values(drawn, describe(theophylline_model, stranger), stranger, False, None)
    assert str(caught.value) == (
        "ID 99 is not in the posterior; predict with new_subjects=True, or make a popk.Twin"
    )


def test_a_posterior_of_another_model_is_refused(drawn, indomethacin_model, indomethacin):
    with pytest.raises(popk.ModelError) as caught:
        posterior_values(
            drawn, describe(indomethacin_model, indomethacin), indomethacin, True, None
        )
    assert str(caught.value).startswith("the posterior lacks V1_pop, Q_pop, V2_pop, omega_V1")


# --- before the data ---


def test_prior_draws_are_those_of_the_model_s_priors(theophylline_model, theophylline):
    prior = popk.prior_draws(theophylline_model, theophylline, seed=1, draws=2000)["prior"]
    assert prior.sizes["draw"] == 2000
    assert {"CL_pop", "omega_KA", "corr", "sigma_additive"} <= {*prior.data_vars}
    assert "eta" not in prior
    low, middle, high = np.quantile(prior["CL_pop"], [0.25, 0.5, 0.75])
    assert middle == pytest.approx(2.8, rel=0.05)
    spread = np.sqrt(np.log(1.25)) * 0.67449  # CV 50%
    assert np.log(high / low) == pytest.approx(2 * spread, rel=0.1)


def test_a_check_of_the_prior_is_a_vpc_of_its_predictions(theophylline_model, theophylline):
    prior = popk.prior_draws(theophylline_model, theophylline, seed=1, draws=64)
    seen = popk.predict(theophylline_model, prior, theophylline, new_subjects=True, seed=2)
    assert seen["posterior_predictive"].sizes["sample"] == 64
    assert popk.vpc(seen, theophylline).sizes["bin"] > 3
    with pytest.raises(popk.ModelError, match="the posterior lacks eta"):
        popk.predict(theophylline_model, prior, theophylline, seed=2)
