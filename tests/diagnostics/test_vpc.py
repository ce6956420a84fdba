"""The numbers of a visual predictive check, each against a computation that shares no code."""

import numpy as np
import pandas as pd
import pytest

import popk
from popk.diagnostics.bins import sampling_times
from tests.predictions import predictions_of

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
NOMINAL = (0.5, 1.0, 2.0, 4.0, 8.0, 24.0)


def trial_at(times: np.ndarray, levels: np.ndarray, **columns: np.ndarray) -> popk.Trial:
    """Return a trial of subjects with one dose each, and levels [subject, time]."""
    subjects, count = levels.shape
    when = np.broadcast_to(times, levels.shape)
    frames = []
    for i in range(subjects):
        own = pd.DataFrame({"TIME": when[i], "DV": levels[i], "EVID": 0, "AMT": 0.0, "MDV": 0})
        own = own.assign(**{name: values[i] for name, values in columns.items()})
        dose = pd.DataFrame({"TIME": [0.0], "EVID": 1, "AMT": 100.0, "MDV": 1})
        frames.append(pd.concat([dose, own]).assign(ID=str(i + 1)))
    frame = pd.concat(frames, ignore_index=True)
    if "BLQ" in frame:
        frame["BLQ"] = frame["BLQ"].fillna(0)
    assert len(frame) == subjects * (count + 1)
    return popk.read_nonmem(frame, units=UNITS, covariates=())


@pytest.fixture
def levels() -> np.ndarray:
    return np.random.default_rng(0).lognormal(1.0, 0.4, (20, len(NOMINAL)))


@pytest.fixture
def trial(levels) -> popk.Trial:
    return trial_at(np.array(NOMINAL), levels)


@pytest.fixture
def drawn(levels) -> np.ndarray:
    """50 simulated trials, [sample, observation]."""
    return np.random.default_rng(1).lognormal(1.0, 0.4, (50, levels.size))


# Percentiles


def test_percentiles_are_those_of_each_bin_observed_and_in_each_simulated_trial(
    trial, levels, drawn
):
    check = popk.vpc(predictions_of(trial, drawn), trial, percentiles=(10, 50, 90), interval=0.8)
    assert check.sizes["bin"] == len(NOMINAL)
    for b in range(len(NOMINAL)):
        at = slice(b, None, len(NOMINAL))
        for p in (10, 50, 90):
            cell = check.sel(percentile=p).isel(bin=b)
            assert float(cell["observed"]) == pytest.approx(np.quantile(levels[:, b], p / 100))
            each = [np.quantile(one[at], p / 100) for one in drawn]
            assert float(cell["median"]) == pytest.approx(np.quantile(each, 0.5))
            assert float(cell["lower"]) == pytest.approx(np.quantile(each, 0.1))
            assert float(cell["upper"]) == pytest.approx(np.quantile(each, 0.9))


def test_it_carries_units_counts_centers_and_the_levels_themselves(trial, levels, drawn):
    check = popk.vpc(predictions_of(trial, drawn), trial)
    assert check["observed"].attrs["units"] == check["DV"].attrs["units"] == "mg/L"
    assert check["center"].attrs["units"] == check["TIME"].attrs["units"] == "h"
    assert check["levels"].values.tolist() == [20] * len(NOMINAL)
    assert check["center"].values.tolist() == list(NOMINAL)
    np.testing.assert_allclose(check["DV"], levels.ravel())
    np.testing.assert_allclose(check["TIME"], np.tile(NOMINAL, 20))
    assert check.attrs["replicates"] == 50
    assert check.attrs["levels_left_out"] == 0


def test_data_of_the_model_itself_lie_in_90_percent_of_its_intervals(trial):
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(20):
        own = rng.lognormal(1.0, 0.4, (20, len(NOMINAL)))
        drawn = rng.lognormal(1.0, 0.4, (200, own.size))
        mine = trial_at(np.array(NOMINAL), own)
        check = popk.vpc(predictions_of(mine, drawn), mine)
        inside.append((check["lower"] <= check["observed"]) & (check["observed"] <= check["upper"]))
    # 20 trials, 6 bins, 3 percentiles: 360 cells, of which a bin's three are correlated.
    assert np.mean(inside) == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / 120))


# What counts


def test_levels_that_were_not_measured_do_not_count(levels, drawn):
    unmeasured = np.zeros(levels.shape, dtype=int)
    unmeasured[:3, 2] = 1
    trial = trial_at(np.array(NOMINAL), levels, MDV=unmeasured)
    check = popk.vpc(predictions_of(trial, drawn), trial)
    assert check["levels"].values.tolist() == [20, 20, 17, 20, 20, 20]
    expected = np.quantile(levels[3:, 2], 0.5)
    assert float(check["observed"].sel(percentile=50).isel(bin=2)) == pytest.approx(expected)
    each = [np.median(one[2::6][3:]) for one in drawn]
    assert float(check["median"].sel(percentile=50).isel(bin=2)) == pytest.approx(np.median(each))


def test_simulated_levels_are_censored_where_observed_ones_were(levels, drawn):
    limit = 2.0
    below = (levels < limit).astype(int)
    lloq = np.where(below == 1, limit, np.nan)  # the limit stands on the levels below it alone
    trial = trial_at(np.array(NOMINAL), levels, BLQ=below, LLOQ=lloq)
    check = popk.vpc(predictions_of(trial, drawn), trial)
    assert check.attrs["levels_left_out"] == below.sum()
    for b in range(len(NOMINAL)):
        own = levels[:, b][levels[:, b] >= limit]
        cell = check.sel(percentile=5).isel(bin=b)
        assert float(cell["observed"]) == pytest.approx(np.quantile(own, 0.05))
        each = [np.quantile(x[x >= limit], 0.05) for x in (one[b::6] for one in drawn)]
        assert float(cell["median"]) == pytest.approx(np.median(each))


def test_a_bin_where_no_simulated_level_is_quantified_is_not_a_number(levels):
    lloq = np.full(levels.shape, 0.01)
    trial = trial_at(np.array(NOMINAL), levels, LLOQ=lloq)
    drawn = np.full((30, levels.size), 0.001)
    check = popk.vpc(predictions_of(trial, drawn), trial)
    assert np.isnan(check["median"]).all()
    assert np.isfinite(check["observed"]).all()


# Prediction correction


def test_prediction_correction_brings_levels_to_the_typical_prediction_of_their_bin(
    trial, levels, drawn
):
    pred = np.random.default_rng(3).uniform(1.0, 5.0, drawn.shape)
    check = popk.vpc(predictions_of(trial, drawn, pred=pred), trial, prediction_corrected=True)
    for b in range(len(NOMINAL)):
        known = np.median(pred, axis=0)[b::6]
        own = levels[:, b] * np.median(known) / known
        cell = check.sel(percentile=95).isel(bin=b)
        assert float(cell["observed"]) == pytest.approx(np.quantile(own, 0.95))
        each = [
            np.quantile(y[b::6] * np.median(f[b::6]) / f[b::6], 0.95)
            for y, f in zip(drawn, pred, strict=True)
        ]
        assert float(cell["median"]) == pytest.approx(np.median(each))


def test_a_prediction_of_zero_is_left_uncorrected(trial, levels, drawn):
    pred = np.zeros(drawn.shape)
    check = popk.vpc(predictions_of(trial, drawn, pred=pred), trial, prediction_corrected=True)
    np.testing.assert_allclose(check["DV"], levels.ravel())


# Bins


def test_theophylline_has_11_sampling_times_of_12_levels_each(theophylline):
    o = theophylline.observations
    time = np.asarray(theophylline.time)[np.asarray(o.subject), np.asarray(o.record)]
    edges = sampling_times(time)
    assert len(edges) == 12
    assert np.histogram(time, edges)[0].tolist() == [12] * 11


@pytest.mark.parametrize("jitter", [0.0, 0.02])
def test_sampling_times_are_found_again_when_they_were_kept_and_when_they_were_not(jitter):
    nominal = np.array([0.25, 0.5, 1, 2, 4, 8, 12, 24])
    time = nominal * np.random.default_rng(4).normal(1, jitter, (15, 8))
    edges = sampling_times(time.ravel())
    assert len(edges) == 9
    assert ((edges[:-1] <= time.min(0)) & (time.max(0) <= edges[1:])).all()


def test_times_without_clusters_are_split_into_quantiles():
    time = np.random.default_rng(5).uniform(0, 100, 200)
    counts = np.histogram(time, sampling_times(time))[0]
    assert counts.tolist() == [20] * 10


def test_a_number_of_bins_gives_quantiles_and_edges_give_edges(trial, drawn):
    simulated = predictions_of(trial, drawn)
    assert popk.vpc(simulated, trial, bins=3)["levels"].values.tolist() == [40, 40, 40]
    check = popk.vpc(simulated, trial, bins=[0, 1, 8])  # 8 is in the last bin, 24 outside
    assert check["levels"].values.tolist() == [20, 80]
    assert check["left"].values.tolist() == [0, 1]
    assert check["right"].values.tolist() == [1, 8]
    assert check.attrs["levels_left_out"] == 20
    assert (check["bin_of"].values[5::6] == -1).all()


@pytest.mark.parametrize(
    ("bins", "says"),
    [
        (0, "give at least 1"),
        (7, "the levels stand at 6 times"),
        ([3.0], "at least two increasing edges"),
        ([3.0, 1.0], "at least two increasing edges"),
        ([0, 2.5, 3.5, 30], "the bin from 2.5 to 3.5 h has no levels; widen it"),
    ],
)
def test_bins_that_cannot_be_used_are_refused(trial, drawn, bins, says):
    with pytest.raises(ValueError, match=says):
        popk.vpc(predictions_of(trial, drawn), trial, bins=bins)


# Wrong input


def test_predictions_of_another_trial_are_refused(trial, levels, drawn):
    later = trial_at(np.array(NOMINAL) + 0.1, levels)
    with pytest.raises(popk.ModelError, match="at other times or of other subjects"):
        popk.vpc(predictions_of(later, drawn), trial)
    with pytest.raises(popk.ModelError, match="are of 114 records"):
        popk.vpc(predictions_of(trial.without("1"), drawn[:, 6:]), trial)


def test_predictions_of_the_same_people_are_refused(trial, drawn):
    with pytest.raises(popk.ModelError, match="with new_subjects=True"):
        popk.vpc(predictions_of(trial, drawn, new_subjects=False), trial)


def test_too_few_simulated_trials_are_refused(trial, drawn):
    with pytest.raises(popk.ModelError, match="there are 10 simulated trials"):
        popk.vpc(predictions_of(trial, drawn[:10]), trial)


def test_predictions_that_failed_are_not_passed_over(trial, drawn):
    drawn[3, :30] = np.nan
    with pytest.raises(popk.ModelError, match="no finite prediction of 25% of the levels"):
        popk.vpc(predictions_of(trial, drawn), trial)


@pytest.mark.parametrize("percentiles", [(), (50, 5), (5, 101)])
def test_percentiles_increase_from_0_to_100(trial, drawn, percentiles):
    with pytest.raises(ValueError, match="give increasing numbers from 0 to 100"):
        popk.vpc(predictions_of(trial, drawn), trial, percentiles=percentiles)


def test_the_model_s_own_predictions_make_a_check(
    theophylline_model, theophylline_posterior, theophylline
):
    simulated = popk.predict(
        theophylline_model,
        theophylline_posterior,
        theophylline,
        seed=1,
        new_subjects=True,
        draws=64,
    )
    check = popk.vpc(simulated, theophylline)
    assert check.sizes == {"percentile": 3, "bin": 11, "observation": 132}
    assert (check["lower"] <= check["median"]).all()
    assert (check["median"] <= check["upper"]).all()
    # Over 11 bins the observed median strays from its 90% interval once or so.
    middle = check.sel(percentile=50)
    inside = (middle["lower"] <= middle["observed"]) & (middle["observed"] <= middle["upper"])
    assert int(inside.sum()) >= 9


# Without bins


def test_without_bins_percentiles_are_those_of_weighted_levels(trial, levels, drawn):
    check = popk.vpc(predictions_of(trial, drawn), trial, smooth=0.5, percentiles=(20, 50))
    time = np.tile(NOMINAL, 20)
    for place in (0, 30, -1):
        at = float(check["center"][place])
        distance = np.abs(time - at)
        reach = max(np.sort(distance)[59], 1e-3 * 23.5)
        weight = np.clip(1 - (distance / (1.0001 * reach)) ** 3, 0, None) ** 3
        for p in (20, 50):
            cell = check.sel(percentile=p).isel(bin=place)
            each = [weighted_percentile(one, weight, p) for one in (levels.ravel(), *drawn)]
            assert float(cell["observed"]) == pytest.approx(each[0])
            assert float(cell["median"]) == pytest.approx(np.median(each[1:]))
            assert float(cell["upper"]) == pytest.approx(np.quantile(each[1:], 0.95))


def weighted_percentile(values, weight, percentile):
    """Return the place where the cumulative weight, counted to each value's middle, is a percentage."""
    pairs = sorted((v, w) for v, w in zip(values, weight, strict=True) if w > 0)
    total, before, places = sum(w for _, w in pairs), 0.0, []
    for _, w in pairs:
        places.append(100 * (before + w / 2) / total)
        before += w
    return np.interp(percentile, places, [v for v, _ in pairs])


def test_without_bins_a_level_that_was_not_quantified_has_no_weight(levels, drawn):
    below = (levels < 2).astype(int)
    trial = trial_at(np.array(NOMINAL), levels, BLQ=below, LLOQ=np.full(levels.shape, 2.0))
    check = popk.vpc(predictions_of(trial, drawn), trial, smooth=1.0)
    assert float(check["observed"].min()) >= 2
    assert float(check["lower"].min()) >= 2


# Below the limit


def test_the_part_below_the_limit_is_that_of_each_bin(levels, drawn):
    below = (levels < 2).astype(int)
    trial = trial_at(np.array(NOMINAL), levels, BLQ=below, LLOQ=np.full(levels.shape, 2.0))
    check = popk.vpc(predictions_of(trial, drawn), trial, blq="censor")
    for b in range(len(NOMINAL)):
        each = [(one[b::6] < 2).mean() for one in drawn]
        cell = check.isel(bin=b)
        assert float(cell["below_observed"]) == below[:, b].mean()
        assert float(cell["below_median"]) == pytest.approx(np.median(each))
        assert float(cell["below_upper"]) == pytest.approx(np.quantile(each, 0.95))
        own = np.maximum(levels[:, b], 2)
        assert float(cell["observed"].sel(percentile=50)) == pytest.approx(np.median(own))
        low = [np.quantile(np.maximum(one[b::6], 2), 0.05) for one in drawn]
        assert float(cell["median"].sel(percentile=5)) == pytest.approx(np.median(low))


def test_a_trial_without_a_limit_has_no_part_below_it(trial, drawn):
    assert "below_observed" not in popk.vpc(predictions_of(trial, drawn), trial)


# Strata


def test_each_stratum_has_the_check_of_its_own_levels(trial, levels, drawn):
    frame = trial.to_dataframe()
    frame["SEX"] = frame["ID"].astype(int) % 2
    mine = popk.read_nonmem(frame, units={**UNITS, "SEX": "1"}, covariates=("SEX",))
    check = popk.vpc(predictions_of(mine, drawn), mine, stratify="SEX")
    assert check["stratum"].values.tolist() == ["SEX 0"] * 6 + ["SEX 1"] * 6
    odd = [str(i + 1) for i in range(20) if (i + 1) % 2]
    of_odd = np.repeat([(i + 1) % 2 == 1 for i in range(20)], 6)
    alone = trial[odd]
    expected = popk.vpc(predictions_of(alone, drawn[:, of_odd]), alone)
    for name in ("observed", "lower", "upper"):
        np.testing.assert_allclose(check[name].values[:, 6:], expected[name].values)
    own = check.isel(observation=check["stratum_of"].values == "SEX 1")
    np.testing.assert_array_equal(own["bin_of"], expected["bin_of"] + 6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stratify": "SEX"}, "stratify is 'SEX'; give one of DVID, CMT"),
        ({"smooth": 0.3, "bins": 3}, "take one of the two"),
        ({"smooth": 30}, "give a part of the levels, such as 0.3"),
        ({"blq": "censor", "prediction_corrected": True}, "is no limit any more"),
    ],
)
def test_options_that_cannot_be_are_refused(trial, drawn, options, says):
    with pytest.raises(ValueError, match=says):
        popk.vpc(predictions_of(trial, drawn), trial, **options)


# Categories and counts


def outcomes(trial, drawn, name="categories"):
    tree = predictions_of(trial, drawn.astype(float))
    tree.attrs["endpoints"] = f'{{"": {{"name": "{name}", "kinds": [[0, 0]]}}}}'
    return tree


def test_the_part_of_each_category_is_that_of_each_bin():
    random = np.random.default_rng(7)
    seen, drawn = random.integers(0, 3, (20, 6)), random.integers(0, 3, (60, 120))
    trial = trial_at(np.array(NOMINAL), seen.astype(float))
    check = popk.vpc_categories(outcomes(trial, drawn), trial, interval=0.8)
    assert check["category"].values.tolist() == ["0", "1", "2"]
    for b in range(6):
        for c in range(3):
            each = [(one[b::6] == c).mean() for one in drawn]
            cell = check.isel(category=c, bin=b)
            assert float(cell["observed"]) == (seen[:, b] == c).mean()
            assert float(cell["lower"]) == pytest.approx(np.quantile(each, 0.1))
            assert float(cell["median"]) == pytest.approx(np.median(each))
    np.testing.assert_allclose(check["observed"].sum("category"), 1)


def test_counts_are_put_into_classes():
    random = np.random.default_rng(8)
    seen, drawn = random.poisson(2.0, (20, 6)), random.poisson(2.0, (60, 120))
    trial = trial_at(np.array(NOMINAL), seen.astype(float))
    tree = outcomes(trial, drawn, "counts")
    check = popk.vpc_categories(tree, trial, classes=(0, 1, 3))
    assert check["category"].values.tolist() == ["0", "1 to 2", "3 or more"]
    assert float(check["observed"][1, 0]) == ((seen[:, 0] == 1) | (seen[:, 0] == 2)).mean()
    assert popk.vpc_categories(tree, trial)["category"].values.tolist()[-1] == "5 or more"
    with pytest.raises(ValueError, match=r"classes are \(3, 1\)"):
        popk.vpc_categories(tree, trial, classes=(3, 1))


def test_levels_and_events_have_no_categories(trial, drawn):
    with pytest.raises(popk.ModelError, match=r"of levels popk\.vpc"):
        popk.vpc_categories(predictions_of(trial, drawn), trial)
    with pytest.raises(popk.ModelError, match=r"see popk\.kaplan_meier"):
        popk.vpc_categories(outcomes(trial, drawn, "events"), trial)
