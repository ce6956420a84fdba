"""The table of estimates says what the draws say."""

import arviz as az
import numpy as np
import pytest
import xarray as xr

import popk
from popk.diagnostics.summary import kind

SHAPE = (4, 250)


def posterior_of(draws: dict[str, np.ndarray], **more: object) -> xr.DataTree:
    """Return a posterior of scalar parameters, each [chain, draw], and of ready DataArrays."""
    scalars = {name: (("chain", "draw"), values) for name, values in draws.items()}
    group = xr.Dataset({**scalars, **more})  # type: ignore[dict-item]
    group.attrs["fixed"] = []
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros(SHAPE, dtype=bool))})
    return xr.DataTree.from_dict({"posterior": group, "sample_stats": stats})


def normal(seed: int, mean: float, sd: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, SHAPE)


def with_random_effects(eta: np.ndarray, **draws: np.ndarray) -> xr.DataTree:
    """Return a posterior with eta [chain, draw, subject, parameter] of CL and V."""
    names = xr.DataArray(["CL", "V"], dims="parameter")
    dims = ("chain", "draw", "subject", "parameter")
    return posterior_of(draws, eta=xr.DataArray(eta, dims=dims, coords={"parameter": names}))


def test_the_estimate_and_its_interval_are_quantiles_of_all_draws():
    draws = np.random.default_rng(0).lognormal(1.0, 0.5, SHAPE)
    row = popk.summary(posterior_of({"CL_pop": draws})).loc["CL_pop"]
    expected = np.quantile(draws.ravel(), [0.5, 0.05, 0.95])
    np.testing.assert_allclose(row[["median", "lower", "upper"]].astype(float), expected)


def test_another_interval_is_equal_tailed_too():
    draws = normal(1, 5.0, 2.0)
    table = popk.summary(posterior_of({"CL_pop": draws}), interval=0.5)
    assert table.loc["CL_pop", "lower"] == pytest.approx(np.quantile(draws, 0.25))
    assert table.loc["CL_pop", "upper"] == pytest.approx(np.quantile(draws, 0.75))
    assert table.attrs["interval"] == 0.5


def test_the_cv_of_an_omega_is_that_of_a_log_normal_parameter():
    omega = np.abs(normal(2, 0.6, 0.05))
    table = popk.summary(posterior_of({"omega_CL": omega}))
    middle = np.median(omega)
    assert table.loc["omega_CL", "CV%"] == pytest.approx(100 * np.sqrt(np.exp(middle**2) - 1))
    people = np.random.default_rng(3).lognormal(0.0, middle, 2_000_000)
    assert table.loc["omega_CL", "CV%"] == pytest.approx(
        100 * people.std() / people.mean(), rel=0.01
    )


def test_the_cv_of_a_residual_error_is_given_where_there_is_one():
    draws = {
        f"sigma_{n}": np.abs(normal(4, 0.3, 0.01)) for n in ("proportional", "log", "additive")
    }
    table, middle = popk.summary(posterior_of(draws)), np.median(draws["sigma_log"])
    assert table.loc["sigma_proportional", "CV%"] == pytest.approx(100 * middle)
    assert table.loc["sigma_log", "CV%"] == pytest.approx(100 * np.sqrt(np.expm1(middle**2)))
    assert np.isnan(table.loc["sigma_additive", "CV%"])


def test_the_rse_is_the_posterior_sd_over_the_mean_and_a_correlation_has_none():
    effect = normal(5, -2.0, 0.5)
    corr = np.tile(np.eye(2), (*SHAPE, 1, 1))
    corr[..., 0, 1] = corr[..., 1, 0] = normal(6, 0.0, 0.2)
    coords = {"parameter": ["CL", "V"], "parameter2": ["CL", "V"]}
    array = xr.DataArray(corr, dims=("chain", "draw", "parameter", "parameter2"), coords=coords)
    table = popk.summary(posterior_of({"V_low_apgar": effect}, corr=array))
    expected = 100 * effect.std(ddof=1) / abs(effect.mean())
    assert table.loc["V_low_apgar", "RSE%"] == pytest.approx(expected)
    assert np.isnan(table.loc["corr[CL, V]", "RSE%"])


def test_shrinkage_compares_the_spread_of_individual_estimates_with_omega():
    means = np.array([[-0.3, 0.1], [0.0, -0.1], [0.3, 0.0]])  # sd 0.3 and 0.1
    noise = np.random.default_rng(7).normal(0, 0.05, (*SHAPE, 3, 2))
    eta = means + noise - noise.mean((0, 1))
    omega = {"omega_CL": np.full(SHAPE, 0.4), "omega_V": np.full(SHAPE, 0.1)}
    table = popk.summary(with_random_effects(eta, **omega))
    assert table.loc["omega_CL", "shrinkage%"] == pytest.approx(25.0)
    assert table.loc["omega_V", "shrinkage%"] == pytest.approx(0.0, abs=1e-9)


def test_one_subject_has_no_shrinkage():
    eta = np.zeros((*SHAPE, 1, 2))
    table = popk.summary(with_random_effects(eta, omega_CL=np.abs(normal(8, 0.3, 0.1))))
    assert np.isnan(table.loc["omega_CL", "shrinkage%"])


def test_parameters_stand_by_kind_and_in_the_order_of_the_model():
    names = ("sigma_additive", "omega_V", "omega_CL", "V_pop", "CL_pop", "beta")
    eta = np.random.default_rng(9).normal(size=(*SHAPE, 3, 2))
    table = popk.summary(with_random_effects(eta, **{n: normal(9, 1.0, 0.1) for n in names}))
    assert list(table.index) == ["CL_pop", "V_pop", "beta", "omega_CL", "omega_V", "sigma_additive"]
    assert [kind(n) for n in table.index] == [
        "typical",
        "typical",
        "effect",
        "omega",
        "omega",
        "sigma",
    ]


def test_what_is_fixed_is_no_estimate():
    posterior = posterior_of(
        {"CL_pop": normal(10, 1.0, 0.1), "sigma_additive": np.full(SHAPE, 0.5)}
    )
    posterior["posterior"].attrs["fixed"] = ["sigma_additive"]
    assert list(popk.summary(posterior).index) == ["CL_pop"]


def test_chains_that_disagree_show_in_r_hat_and_ess():
    draws = normal(11, 0.0, 1.0) + np.arange(4)[:, None] * 3
    row = popk.summary(posterior_of({"CL_pop": draws})).loc["CL_pop"]
    assert row["R-hat"] == pytest.approx(float(az.rhat(draws)))
    assert row["R-hat"] > 1.5
    assert row["ESS bulk"] < 20


def test_a_chain_that_never_moved_has_no_r_hat():
    assert np.isnan(popk.summary(posterior_of({"CL_pop": np.ones(SHAPE)})).loc["CL_pop", "R-hat"])


def test_the_worst_of_the_table_is_the_verdict_of_convergence(theophylline_posterior):
    table, verdict = popk.summary(theophylline_posterior), popk.convergence(theophylline_posterior)
    rhat, bulk, tail = (table[name].to_numpy() for name in ("R-hat", "ESS bulk", "ESS tail"))
    assert rhat.max() == pytest.approx(verdict.rhat)
    assert bulk.min() == pytest.approx(verdict.ess_bulk)
    assert tail.min() == pytest.approx(verdict.ess_tail)
    assert list(table.index[:3]) == ["CL_pop", "V_pop", "KA_pop"]


@pytest.mark.parametrize("interval", [0.0, 1.0, 90])
def test_an_interval_is_a_probability(interval):
    with pytest.raises(ValueError, match=r"give a probability such as 0\.9"):
        popk.summary(posterior_of({"CL_pop": normal(12, 1.0, 0.1)}), interval=interval)


def test_a_posterior_without_population_parameters_is_refused():
    with pytest.raises(ValueError, match="no population parameters"):
        popk.summary(posterior_of({}))


def test_a_cv_is_given_for_log_normal_parameters_alone():
    spread = np.abs(normal(11, 0.5, 0.02))
    posterior = posterior_of({"omega_F": spread, "omega_CL": spread, "gamma_CL_PERIOD": spread})
    posterior["posterior"].attrs["transforms"] = '{"F": "logit", "CL": "log"}'
    table = popk.summary(posterior)
    assert list(table.index) == ["omega_F", "omega_CL", "gamma_CL_PERIOD"]
    expected = 100 * np.sqrt(np.exp(np.median(spread) ** 2) - 1)
    np.testing.assert_allclose(table["CV%"], [np.nan, expected, expected])
