"""Prediction distribution errors and coverage, where the model is known to be right or wrong."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import popk
from popk.diagnostics.npde import normal_quantiles, npde_percentiles
from popk.diagnostics.ranks import ranked, ranked_among_themselves
from tests.diagnostics.test_vpc import NOMINAL, trial_at
from tests.predictions import predictions_of

SUBJECTS, TIMES = 12, np.array(NOMINAL)


def simulate(count, random, *, CL=0.3, noise=0.3, subjects=SUBJECTS):
    """Return levels [sample, observation] of people with log-normal CL, and errors that add."""
    eta = 0.3 * random.normal(size=(count, subjects, 1))
    f = 10 * np.exp(-CL * np.exp(eta) * TIMES)
    return (f + noise * random.normal(size=f.shape)).reshape(count, -1)


def one(levels, drawn, **columns: Any):
    trial = trial_at(TIMES, levels.reshape(-1, len(TIMES)), **columns)
    return predictions_of(trial, drawn), trial


def global_p(levels, drawn, **columns):
    return float(popk.npde(*one(levels, drawn, **columns))["p_value"].sel(test="global"))


# Against a computation by hand


def test_npde_are_ranks_of_levels_decorrelated_by_the_simulated_ones():
    random = np.random.default_rng(1)
    drawn = simulate(400, random)
    levels = simulate(1, random)[0]
    errors = popk.npde(*one(levels, drawn))["npde"].values
    for i in range(SUBJECTS):
        own = slice(6 * i, 6 * i + 6)
        lower = np.linalg.cholesky(np.cov(drawn[:, own].T))
        z = np.linalg.inv(lower) @ (levels[own] - drawn[:, own].mean(0))
        z_drawn = np.linalg.inv(lower) @ (drawn[:, own] - drawn[:, own].mean(0)).T
        less = (z_drawn < z[:, None]).sum(1)
        # The rank among 400 is known, its place between two of them is drawn.
        low, high = less / 401, (less + 1) / 401
        p = stats.norm.cdf(errors[own])
        assert ((low <= p) & (p <= high)).all()


def test_the_tests_are_scipy_s():
    random = np.random.default_rng(2)
    found = popk.npde(*one(simulate(1, random)[0], simulate(300, random)))
    z: Any = found["npde"].values
    p: dict[Any, Any] = found["p_value"].to_series().to_dict()
    assert p["mean, t"] == pytest.approx(stats.ttest_1samp(z, 0)[1])
    assert p["mean, Wilcoxon"] == pytest.approx(stats.wilcoxon(z)[1])
    assert p["normality"] == pytest.approx(stats.shapiro(z)[1])
    tail = stats.chi2.cdf((z.size - 1) * z.var(ddof=1), z.size - 1)
    assert p["variance"] == pytest.approx(2 * min(tail, 1 - tail))
    assert p["global"] == pytest.approx(
        min(1, 3 * min(p[n] for n in ("mean, Wilcoxon", "variance", "normality")))
    )
    assert float(found["mean_se"]) == pytest.approx(z.std(ddof=1) / np.sqrt(z.size))


# Of a right model


def replicated(count, seed, **censored):
    random = np.random.default_rng(seed)
    drawn = simulate(600, random)
    return [popk.npde(*one(y, drawn, **censored), seed=i) for i, y in
            enumerate(simulate(count, random))]  # fmt: skip


def test_npde_of_the_model_itself_have_mean_0_and_variance_1_and_are_uncorrelated():
    found = np.stack([e["npde"].values for e in replicated(12, 3)])
    assert found.mean() == pytest.approx(0, abs=3 / np.sqrt(found.size))
    # 600 draws of 6 levels make the variance too large by 1%.
    assert found.var() == pytest.approx(1.01, abs=3 * np.sqrt(2 / found.size))
    each = found.reshape(-1, len(TIMES))
    off = np.corrcoef(each.T)[np.triu_indices(6, 1)]
    assert np.abs(off).max() < 4 / np.sqrt(len(each))


def test_npd_of_the_model_itself_are_correlated_within_subjects():
    found = np.stack([e["npd"].values for e in replicated(5, 4)]).reshape(-1, len(TIMES))
    assert np.corrcoef(found.T)[2, 3] > 0.7


@pytest.mark.slow
def test_the_global_test_rejects_a_right_model_as_often_as_it_says():
    p = np.array([float(e["p_value"].sel(test="global")) for e in replicated(200, 5)])
    assert 0.02 <= (p < 0.05).mean() <= 0.09


@pytest.mark.slow
def test_it_does_so_for_theophylline(theophylline_model, theophylline):
    values = {"CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5, "omega_CL": 0.3, "omega_V": 0.2,
              "omega_KA": 0.5, "sigma_additive": 0.3, "sigma_proportional": 0.1}  # fmt: skip
    drawn: Any = _levels_at(theophylline_model, theophylline, values, 1200)
    tree = predictions_of(theophylline, drawn[:1000])
    rejected = []
    for i, y in enumerate(drawn[1000:]):
        frame = theophylline.to_dataframe()
        frame.loc[frame["EVID"] == 0, "DV"] = y
        mine = theophylline.replaced(frame)
        p = popk.npde(tree, mine, seed=i)["p_value"]
        rejected.append(float(p.sel(test="global")) < 0.05)
    assert 0.02 <= np.mean(rejected) <= 0.09


def _levels_at(model, trial, values, count) -> Any:
    """Return levels that a model simulates at given population values, of new subjects each time."""
    import xarray as xr

    from popk.model.sites import describe

    sites = describe(model, trial)
    known = {**values, "corr": np.eye(3)}
    group = {}
    for name in sites.named("population"):
        value = np.asarray(known[name], dtype=float)
        dims = ("chain", "draw", *("parameter", "parameter2")[: value.ndim])
        group[name] = (dims, np.broadcast_to(value, (1, count, *value.shape)))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(group)})
    drawn = popk.predict(model, tree, trial, seed=1, new_subjects=True)
    return np.asarray(drawn["posterior_predictive"].dataset["DV"])


# Of a wrong model


@pytest.mark.parametrize("wrong", [{"CL": 0.15}, {"noise": 0.9}, {"noise": 0.1}])
def test_a_wrong_model_is_found(wrong):
    random = np.random.default_rng(6)
    drawn = simulate(400, random, subjects=40, **wrong)
    assert all(global_p(y, drawn) < 0.01 for y in simulate(2, random, subjects=40))


def test_half_the_clearance_predicts_levels_that_are_too_high():
    random = np.random.default_rng(7)
    found = popk.npde(*one(simulate(1, random)[0], simulate(400, random, CL=0.15)))
    assert float(found["mean"]) < -0.3


# Below the limit


def limited(levels, limit):
    grid = levels.reshape(-1, len(TIMES))
    below = (grid < limit).astype(int)
    return {"BLQ": below, "LLOQ": np.full(grid.shape, limit)}


def test_levels_below_the_limit_stand_uniformly_below_its_probability():
    random = np.random.default_rng(8)
    drawn, limit = simulate(500, random), 1.0
    places, hidden = [], []
    for i, y in enumerate(simulate(8, random)):
        tree, trial = one(y, drawn, **limited(y, limit))
        found = popk.npde(tree, trial, seed=i)
        below = found["censored"].values == 1
        p_below = (drawn < limit).mean(0)[below]
        p = stats.norm.cdf(found["npd"].values[below])
        assert (p <= p_below + 1 / 501).all()
        places.extend(p / (p_below + 1 / 501))
        hidden.append(below.mean())
        assert np.isnan(found["DV"].values[below]).all()
    assert 0.2 < np.mean(hidden) < 0.5
    assert stats.kstest(places, "uniform").pvalue > 0.01


def test_npde_of_a_censored_trial_are_normal_where_the_model_is_right():
    random = np.random.default_rng(9)
    drawn, found = simulate(600, random), []
    for i, y in enumerate(simulate(12, random)):
        found.append(popk.npde(*one(y, drawn, **limited(y, 1.0)), seed=i)["npde"].values)
    z = np.concatenate(found)
    assert z.mean() == pytest.approx(0, abs=3 / np.sqrt(z.size))
    assert z.var() == pytest.approx(1.01, abs=3 * np.sqrt(2 / z.size))


# What cannot be used


def test_too_few_simulated_trials_are_refused():
    random = np.random.default_rng(10)
    levels = simulate(1, random)[0]
    with pytest.raises(popk.ModelError, match="there are 100 simulated trials; predict at least"):
        popk.npde(*one(levels, simulate(100, random)))
    many = np.tile(levels.reshape(12, 6), (1, 3))
    trial = trial_at(np.arange(1.0, 19.0), many)
    with pytest.raises(popk.ModelError, match=r"a subject with 18 levels, .* at least 360"):
        popk.npde(predictions_of(trial, random.normal(size=(300, many.size))), trial)


def test_levels_that_are_linearly_dependent_are_refused():
    random = np.random.default_rng(11)
    drawn = np.repeat(random.normal(size=(300, 12)), 6, axis=1)
    with pytest.raises(popk.ModelError, match="simulated levels of ID 1 are linearly dependent"):
        popk.npde(*one(drawn[0], drawn))


def test_a_level_that_is_predicted_without_spread_has_no_npde():
    random = np.random.default_rng(12)
    drawn, levels = simulate(300, random), simulate(1, random)[0]
    drawn[:, 0] = 0.0
    found = popk.npde(*one(levels, drawn))
    assert np.flatnonzero(np.isnan(found["npde"])).tolist() == [0]
    assert found.attrs["without_spread"] == 1


# Ranks


def test_ranks_among_ties_are_uniform():
    random = np.random.default_rng(13)
    drawn = random.poisson(1.0, size=(200, 3000)).astype(float)
    assert stats.kstest(ranked(drawn[0], drawn[1:], random), "uniform").pvalue > 0.01


def test_draws_rank_among_themselves_as_scipy_ranks_them():
    random = np.random.default_rng(14)
    drawn = random.normal(size=(50, 3))
    found = np.floor(50 * ranked_among_themselves(drawn, random)) + 1
    np.testing.assert_array_equal(found, stats.rankdata(drawn, axis=0))


# Bands


def test_the_band_of_a_percentile_holds_it_as_often_as_it_says():
    random = np.random.default_rng(15)
    errors = popk.npde(*one(simulate(1, random)[0], simulate(300, random)))
    inside = []
    for _ in range(60):
        mine = errors.assign(npde=("observation", random.normal(size=errors.sizes["observation"])))
        band = npde_percentiles(mine, bins=[0, 3, 30])
        inside.append((band["lower"] <= band["observed"]) & (band["observed"] <= band["upper"]))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.06)


def test_the_median_of_one_normal_value_is_0_and_its_interval_the_normal_one():
    middle, low, high = normal_quantiles(1, 0.9)
    assert (middle[0], low[0], high[0]) == pytest.approx((0, -1.6449, 1.6449), abs=1e-4)


# Coverage


def test_coverage_is_the_part_of_levels_between_the_quantiles_of_the_simulated_ones():
    random = np.random.default_rng(16)
    levels, drawn = simulate(1, random, subjects=40)[0], simulate(999, random, subjects=40)
    found = popk.pit(*one(levels, drawn), intervals=(0.5, 0.9))
    for c in (0.5, 0.9):
        low, high = np.quantile(drawn, [0.5 - c / 2, 0.5 + c / 2], axis=0)
        within = (low <= levels) & (levels <= high)
        assert float(found["coverage"].sel(interval=c)) == pytest.approx(within.mean(), abs=0.01)
        each = within.reshape(-1, len(TIMES)).mean(1)
        own = found["subject_coverage"].sel(interval=c).values
        assert np.abs(own - each).max() < 0.17  # a level on the edge may fall to either side
    assert found["levels"].values.tolist() == [6] * 40


def test_pit_of_the_model_itself_is_uniform_and_its_p_value_too():
    random = np.random.default_rng(17)
    drawn, values, p = simulate(300, random), [], []
    for i, y in enumerate(simulate(20, random)):
        found = popk.pit(*one(y, drawn, **limited(y, 1.0)), seed=i)
        values.append(found["pit"].values)
        p.append(float(found["p_value"]))
        assert (found["coverage_lower"] <= found["coverage_upper"]).all()
    # One level a subject: levels of one subject are not independent.
    first = np.stack(values).reshape(-1, len(TIMES))[:, 0]
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_intervals_that_are_too_narrow_cover_too_little():
    random = np.random.default_rng(18)
    found = popk.pit(*one(simulate(1, random)[0], simulate(300, random, noise=0.05)))
    assert float(found["coverage"].sel(interval=0.9)) < float(found["coverage_lower"][1])


def test_an_interval_that_is_no_probability_is_refused():
    random = np.random.default_rng(19)
    with pytest.raises(ValueError, match=r"intervals are \(90,\)"):
        popk.pit(*one(simulate(1, random)[0], simulate(300, random)), intervals=(90,))
