"""Conditional residuals, effects, influence and identifiability, where closed forms know the answer."""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

import popk
from tests.diagnostics.people import BETWEEN, NOISE, drawn_levels, of_mu, people, people_trial
from tests.trials import trial

OMEGA = np.array([0.8, 0.3])
MIXED = np.array([[1.0, 0.5], [0.5, 1.0]])
SIGMA, TIMES = 0.4, np.array([0.0, 1.0, 2.0, 4.0])


def lines(trial):
    """Levels on a straight line of each person, with a correlated intercept and slope."""
    A = numpyro.sample("A_pop", dist.Normal(5.0, 2.0))
    B = numpyro.sample("B_pop", dist.Normal(1.0, 2.0))
    p = popk.individual(trial, transform="normal", omega={"A": 1.0, "B": 1.0}, A=A, B=B)
    popk.observe(trial, p.A + p.B * trial.time, popk.additive_error(1.0))


def logarithms(trial):
    """Levels that are log-normal around a log-normal person: linear on the log scale."""
    A = numpyro.sample("A_pop", popk.lognormal(5.0, cv=0.5))
    p = popk.individual(trial, correlated=False, A=A)
    popk.observe(trial, p.A + 0 * trial.time, popk.lognormal_error(1.0))


def of_lines(levels):
    rows = [f"{i} {t} 0 {y:.12g}" for i, own in enumerate(levels, 1)
            for t, y in zip(TIMES, own, strict=True)]  # fmt: skip
    return trial("\n".join(["ID TIME EVID DV", *rows]))


def posterior_at(count=4, **values):
    """Return a posterior that knows the population exactly."""
    data = {}
    for name, value in values.items():
        value = np.asarray(value, dtype=float)
        dims = ("chain", "draw", *("parameter", "parameter2")[: value.ndim])
        data[name] = (dims, np.broadcast_to(value, (1, count, *value.shape)))
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data)})


KNOWN = posterior_at(A_pop=5, B_pop=1, omega_A=OMEGA[0], omega_B=OMEGA[1], corr=MIXED,
                     sigma_additive=SIGMA)  # fmt: skip
DESIGN = np.stack([np.ones(4), TIMES], 1)
MEAN = DESIGN @ [5.0, 1.0]
COVARIANCE = DESIGN @ (MIXED * np.outer(OMEGA, OMEGA)) @ DESIGN.T + SIGMA**2 * np.eye(4)


def root(covariance):
    values, along = np.linalg.eigh(covariance)
    return along @ np.diag(values**-0.5) @ along.T


@pytest.fixture(scope="module")
def line_levels():
    return np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, size=250).round(6)


# Conditional weighted residuals


def test_of_a_linear_model_they_are_the_levels_by_the_root_of_their_covariance(line_levels):
    found = popk.cwres(lines, KNOWN, of_lines(line_levels))
    expected = (line_levels - MEAN) @ root(COVARIANCE)
    np.testing.assert_allclose(found["CWRES"], expected.ravel(), atol=1e-6)
    np.testing.assert_allclose(found["PRED"], np.tile(MEAN, 250))
    np.testing.assert_allclose(found["DV"], line_levels.ravel())


def test_of_a_right_model_they_are_standard_normal_and_uncorrelated(line_levels):
    z = popk.cwres(lines, KNOWN, of_lines(line_levels))["CWRES"].values.reshape(-1, 4)
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(z.T)[np.triu_indices(4, 1)]).max() < 3.5 / np.sqrt(250)


def test_modes_are_those_of_the_closed_form(line_levels):
    found = popk.cwres(lines, KNOWN, of_lines(line_levels))
    between = MIXED * np.outer(OMEGA, OMEGA)
    modes = (line_levels - MEAN) @ np.linalg.inv(COVARIANCE) @ DESIGN @ between
    np.testing.assert_allclose(found["eta"], modes, atol=1e-6)
    alone = (line_levels - MEAN - modes @ DESIGN.T) / SIGMA
    np.testing.assert_allclose(found["CIWRES"], alone.ravel(), atol=1e-5)


def test_a_log_normal_error_has_residuals_of_logarithms():
    levels = np.exp(np.random.default_rng(1).normal(1.5, 0.5, size=(5, 4))).round(6)
    known = posterior_at(A_pop=5, omega_A=0.5, sigma_log=0.2)
    found = popk.cwres(logarithms, known, of_lines(levels))
    covariance = 0.25 * np.ones((4, 4)) + 0.04 * np.eye(4)
    expected = (np.log(levels) - np.log(5)) @ root(covariance)
    np.testing.assert_allclose(found["CWRES"], expected.ravel(), atol=1e-6)


def test_a_level_below_the_limit_has_no_residual_and_the_others_those_without_it():
    rows = [
        "ID TIME EVID DV BLQ LLOQ",
        "1 0 0 5.5 0 1",
        "1 1 0 6.5 0 1",
        "1 2 0 . 1 1",
        "1 4 0 9 0 1",
    ]
    found = popk.cwres(lines, KNOWN, trial("\n".join(rows)))
    assert found["TIME"].values.tolist() == [0, 1, 4]
    own = [0, 1, 3]
    # The mode knows of the level below; in a linear model the residuals do not depend on the mode.
    expected = (np.array([5.5, 6.5, 9.0]) - MEAN[own]) @ root(COVARIANCE[np.ix_(own, own)])
    np.testing.assert_allclose(found["CWRES"], expected, atol=1e-6)


def heavy(trial):
    """People with errors of Student's t distribution."""
    A = numpyro.sample("A_pop", dist.Normal(5.0, 2.0))
    p = popk.individual(trial, correlated=False, omega=1.0, A=A, transform="normal")
    error = popk.additive_error(1.0, degrees=popk.fixed(4))
    popk.observe(trial, p.A + 0 * trial.time, error)


def test_errors_that_a_covariance_does_not_describe_are_refused(line_levels):
    known = posterior_at(A_pop=5, omega_A=1, sigma_additive=1, degrees=4)
    with pytest.raises(popk.ModelError, match=r"CWRES needs residual errors that are normal"):
        popk.cwres(heavy, known, of_lines(line_levels[:3]))


# Random effects


@pytest.fixture(scope="module")
def effects():
    random = np.random.default_rng(2)
    trial_of_20 = trial(
        "\n".join(["ID TIME EVID DV WT SEX", *(f"{i} 0 0 1 {50 + i} {i % 2}" for i in range(20))]),
        WT="kg", SEX="1",
    )  # fmt: skip
    eta = random.normal(size=(2, 50, 20, 2)) + np.arange(20)[:, None] * [0.1, -0.2]
    coords = {"subject": list(trial_of_20.ids), "parameter": ["CL", "V"]}
    data = xr.Dataset(
        {"eta": (("chain", "draw", "subject", "parameter"), eta),
         "omega_CL": (("chain", "draw"), random.uniform(0.9, 1.1, (2, 50)))}, coords,
    )  # fmt: skip
    tree = xr.DataTree.from_dict({"posterior": data})
    return popk.random_effects(tree, trial_of_20), eta.reshape(100, 20, 2), data, tree, trial_of_20


def test_shrinkage_is_that_of_posterior_means_against_omega(effects):
    found, eta, data, *_ = effects
    omega, spread = np.median(data["omega_CL"]), eta.mean(0)[:, 0].std(ddof=1)
    shrunk = found["shrinkage"].sel(parameter="CL")
    assert float(shrunk.sel(kind="sd")) == pytest.approx(100 * (1 - spread / omega))
    assert float(shrunk.sel(kind="variance")) == pytest.approx(100 * (1 - spread**2 / omega**2))
    assert np.isnan(found["shrinkage"].sel(parameter="V")).all()  # has no omega of its own
    within = eta.var(0, ddof=1)[:, 1].mean()
    share = 100 * within / (within + eta.mean(0)[:, 1].var(ddof=1))
    assert float(found["uncertainty"].sel(parameter="V")) == pytest.approx(share)


def test_correlations_are_those_of_the_subjects_in_each_draw(effects):
    found, eta, *_ = effects
    each = [np.corrcoef(one.T)[0, 1] for one in eta]
    cell = found.sel(parameter="CL", parameter2="V")
    assert float(cell["correlation"]) == pytest.approx(np.median(each))
    assert float(cell["correlation_lower"]) == pytest.approx(np.quantile(each, 0.05))
    assert float(cell["correlation_upper"]) == pytest.approx(np.quantile(each, 0.95))


def test_correlations_with_covariates_are_spearman_s_in_each_draw(effects):
    found, eta, _, _, people_of_20 = effects
    weight = np.array([50 + float(i) for i in people_of_20.ids])
    each = [stats.spearmanr(weight, one[:, 1])[0] for one in eta]
    cell = found.sel(covariate="WT", parameter="V")
    assert float(cell["covariate_correlation"]) == pytest.approx(np.median(each))
    assert float(cell["covariate_correlation_upper"]) == pytest.approx(np.quantile(each, 0.95))
    assert cell["covariate_value"].values.tolist() == weight.tolist()


def test_effects_of_other_people_or_of_none_are_refused(effects):
    *_, data, tree, mine = effects
    with pytest.raises(popk.ModelError, match="ID 1 is not in the posterior"):
        popk.random_effects(xr.DataTree.from_dict({"posterior": data.drop_sel(subject="1")}), mine)
    with pytest.raises(popk.ModelError, match="has no random effects eta"):
        popk.random_effects(xr.DataTree.from_dict({"posterior": data.drop_vars("eta")}), mine)
    with pytest.raises(ValueError, match="interval is 90"):
        popk.random_effects(tree, mine, interval=90)


# Influence of subjects


def posterior_of_people(levels, draws=4000):
    """Return exact posterior draws of mu, with the levels that they are of."""
    mine = people_trial(levels)
    mean, variance = of_mu(levels)
    mu = mean + np.sqrt(variance) * np.random.default_rng(3).normal(size=(1, draws))
    o = mine.observations
    observed = xr.Dataset({"DV": ("observation", np.asarray(o.value))},
                          {"ID": ("observation", np.asarray(mine.ids)[o.subject])})  # fmt: skip
    tree = xr.DataTree.from_dict({
        "posterior": xr.Dataset({"mu": (("chain", "draw"), mu)}), "observed_data": observed,
    })  # fmt: skip
    return tree, mine


def test_a_subject_s_influence_is_that_of_the_closed_form():
    levels = drawn_levels(12)
    levels[4] = levels[4] + 2.0
    tree, mine = posterior_of_people(levels)
    found = popk.subject_influence(people, tree, mine, draws=4000)
    mean, variance = of_mu(levels)
    for i in range(12):
        without, wider = of_mu(levels[:i] + levels[i + 1 :])
        cell = found.sel(subject=str(i + 1), parameter="mu")
        # Of 4,000 draws, Monte Carlo errors of 0.02 sd, and more where weights vary.
        assert float(cell["shift"]) == pytest.approx((mean - without) / variance**0.5, abs=0.08)
        assert float(cell["spread"]) == pytest.approx((variance / wider) ** 0.5, abs=0.05)
    assert int(np.abs(found["shift"].values).argmax()) == 4
    assert (found["pareto_k"] < found.attrs["good_k"]).all()
    assert BETWEEN > NOISE


def test_levels_of_another_trial_are_refused():
    tree, _ = posterior_of_people(drawn_levels(6))
    with pytest.raises(popk.ModelError, match="was fitted to other levels"):
        popk.subject_influence(people, tree, people_trial(drawn_levels(6, seed=1)))


# Identifiability


def warned(**draws):
    from popk.diagnostics.identifiability import _at_zero, _flip_flop, _modes, _together

    values = {n: np.asarray(x, dtype=float) for n, x in draws.items()}
    return [row[:2] for check in (_together, _at_zero, _flip_flop, _modes) for row in check(values)]


def test_what_the_data_cannot_tell_is_named():
    random = np.random.default_rng(4)
    z, e = random.normal(size=(2, 2000))
    assert warned(CL_pop=z, V_pop=e) == []
    assert warned(CL_pop=z, V_pop=z + 0.1 * e) == [("CL_pop, V_pop", "together")]
    assert warned(CL_pop=z, V_pop=z + 0.5 * e) == []
    assert warned(omega_CL=np.abs(z)) == [("omega_CL", "at zero")]
    assert warned(omega_CL=1 + 0.2 * z) == []
    assert warned(CL_pop=np.where(e > 1, 6, 0) + z) == [("CL_pop", "modes")]
    own = {"CL_pop": np.exp(0.1 * z), "V_pop": np.full(2000, 1.0)}
    assert warned(**own, KA_pop=np.exp(0.1 * e)) == [("KA_pop", "flip-flop")]
    assert warned(**own, KA_pop=3 * np.exp(0.1 * e)) == []


def test_a_posterior_as_wide_as_its_prior_is_named():
    tree, mine = posterior_of_people(drawn_levels(4))
    assert popk.identifiability(people, tree, mine).empty
    prior = 10.0 + 5.0 * np.random.default_rng(5).normal(size=(1, 4000))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": (("chain", "draw"), prior)})})
    (row,) = popk.identifiability(people, tree, mine).to_dict("records")
    assert (row["parameter"], row["problem"]) == ("mu", "weak")
    assert "about as wide as its prior" in row["says"]
    # 1,000 draws of the prior have a spread that is known to 3%: a contraction to twice that.
    assert abs(row["value"]) < 0.2


# Sensitivity of a prediction


def test_first_order_indices_of_a_linear_sum_are_shares_of_its_variance():
    random = np.random.default_rng(6)
    a, b, c = random.normal(size=(3, 2, 2000))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(
        {n: (("chain", "draw"), x) for n, x in {"a": a, "b": b, "c": c}.items()})})  # fmt: skip
    found = popk.global_sensitivity(2 * a + b, tree)
    assert found.index.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found["index"], [0.8, 0.2, 0.0], atol=0.03)
    assert np.all((found["lower"] < [0.8, 0.2, 0.0]) & (found["upper"] > [0.8, 0.2, 0.0]))
    # One that a straight line does not see: the square.
    square: dict[Any, Any] = popk.global_sensitivity(a**2, tree).loc["a"].to_dict()
    assert square["index"] > 0.85  # 25 classes do not resolve the tails
    assert abs(square["correlation"]) < 0.1


@pytest.mark.parametrize("output", [np.ones(4000), np.zeros(7), np.full(4000, np.nan)])
def test_an_output_that_does_not_vary_with_the_draws_is_refused(output):
    draws = np.random.default_rng(7).normal(size=(2, 2000))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"a": (("chain", "draw"), draws)})})
    with pytest.raises(ValueError, match="give one for each of the 4000 posterior draws"):
        popk.global_sensitivity(output, tree)
