"""Which covariates does the likelihood ask for? On a trial whose answer is known."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from scipy import stats

import popk
from popk.inference.maximum import Maximum

COVARIATES = ("WT", "SEX", "AGE", "NA", "CRP")
UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", **dict.fromkeys(COVARIATES, "1")}
EFFECTS = {"WT": 0.25, "SEX": -0.3}  # of standardized covariates on log CL; the others have none


def model(trial):
    """One compartment; any of five covariates may change CL."""
    CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.5))
    V = numpyro.sample("V_pop", popk.lognormal(40.0, cv=0.5))
    effect = popk.candidate_effects(trial, "CL", {n: trial.covariate(n) for n in COVARIATES})
    p = popk.individual(trial, CL=CL * jnp.exp(effect))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=V), popk.proportional_error(0.2))


@pytest.fixture(scope="module")
def trial():
    rng, count, times = np.random.default_rng(5), 60, np.array([1.0, 4.0, 12.0])
    covariates = {n: rng.normal(size=count) for n in COVARIATES}
    covariates["SEX"] = np.where(np.arange(count) % 2, 0.5, -0.5)
    log = sum(b * covariates[n] for n, b in EFFECTS.items())
    CL = 5 * np.exp(log + 0.2 * rng.normal(size=count))
    levels = 100 / 40 * np.exp(-CL[:, None] / 40 * times) * (1 + 0.1 * rng.normal(size=(count, 3)))
    rows = [
        {"ID": str(i), "TIME": t, "EVID": e, "AMT": 100.0 * e, "DV": y, "MDV": e}
        | {n: x[i] for n, x in covariates.items()}
        for i in range(count)
        for t, e, y in [(0.0, 1, np.nan), *zip(times, [0] * 3, levels[i], strict=True)]
    ]
    return popk.read_nonmem(pd.DataFrame(rows), covariates=COVARIATES, units=UNITS)


@pytest.fixture(scope="module")
def table(trial):
    return popk.scm(model, trial, [f"CL_{n}" for n in COVARIATES])


def test_the_true_covariates_are_found_and_noise_is_left_out(table):
    assert sorted(table.attrs["selected"]) == ["CL_SEX", "CL_WT"]
    values = table.attrs["values"]
    assert [values[f"CL_{n}"] for n in ("AGE", "NA", "CRP")] == [0.0, 0.0, 0.0]
    assert values["CL_WT"] == pytest.approx(0.25, abs=3 * 0.2 / np.sqrt(60))
    assert values["CL_SEX"] == pytest.approx(-0.3, abs=3 * 0.4 / np.sqrt(60))
    assert values["CL_pop"] == pytest.approx(5, rel=3 * 0.2 / np.sqrt(60))


def test_each_step_takes_the_effect_with_the_smallest_p_value(table):
    forward = table[table["direction"].eq("forward")]
    for _, step in forward.groupby("step"):
        taken = step[step["kept"]]
        assert len(taken) == (step["p"].min() < 0.05)
        assert (taken["p"] == step["p"].min()).all()
    assert list(forward["step"].unique()) == [1, 2, 3]  # two are taken, the third step takes none
    assert forward.groupby("step").size().tolist() == [5, 4, 3]


def test_p_values_are_those_of_likelihood_ratios(table):
    tested = table[table["step"] > 0]
    fall = tested["dOFV"].where(tested["direction"].eq("backward"), -tested["dOFV"])
    np.testing.assert_allclose(tested["p"], stats.chi2.sf(fall, tested["df"]), rtol=1e-6)
    # A model with one effect more is never less likely.
    assert (fall > -1e-3).all()
    assert stats.chi2.isf(0.05, 1) == pytest.approx(3.84, abs=0.005)


def test_the_objective_is_that_of_the_model_with_the_effects_that_are_in(table, trial):
    last = table.iloc[-1]
    final = popk.map_estimate(model, trial, table.attrs["values"])["objective"].sum()
    base = table[table["kept"] & table["direction"].eq("forward")].iloc[-1]
    assert float(final) == pytest.approx(base["OFV"], abs=1e-5)
    assert last["OFV"] - last["dOFV"] == pytest.approx(base["OFV"], abs=1e-9)


def test_what_a_lax_inclusion_lets_in_a_strict_elimination_leaves_out(trial):
    names = {"sex": ["CL_SEX"], "size": ["CL_WT"], "noise": ["CL_AGE", "CL_NA", "CL_CRP"]}
    table = popk.scm(model, trial, names, forward=0.9999, backward=0.01)
    assert table[table["direction"].eq("forward") & table["kept"]]["effect"].tolist()[2] == "noise"
    assert set(table[table["effect"].eq("noise")]["df"]) == {3}
    assert sorted(table.attrs["selected"]) == ["sex", "size"]
    (out,) = table.index[table["direction"].eq("backward") & ~table["kept"]]
    assert table.loc[out, "effect"] == "noise"


def test_horseshoe_s_and_candidates_names_are_the_same_and_each_has_its_own_prior(trial):
    sites = popk.prior_draws(model, trial, seed=1, draws=500)["prior"]
    assert {f"CL_{n}" for n in COVARIATES} < set(sites.data_vars)
    assert float(sites["CL_WT"].std()) == pytest.approx(0.5, abs=0.06)  # 4 sd / sqrt(2 n)


def test_a_search_that_ended_early_is_told_of(trial, monkeypatch):
    unfinished = lambda found, begin, mask: Maximum(begin, 100.0, 0.5)  # noqa: E731
    monkeypatch.setattr("popk.diagnostics.stepwise.maximize", unfinished)
    with pytest.warns(popk.ConvergenceWarning) as caught:
        table = popk.scm(model, trial, ["CL_WT"])
    assert [str(w.message).split(" ended")[0] for w in caught] == [
        "the search with no effect", "the search with CL_WT"
    ]  # fmt: skip
    assert table["p"].iloc[1] == 1.0  # no fall at all
    assert table.attrs["selected"] == []


def bounded(trial):
    CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.5))
    numpyro.sample("CL_two", dist.Normal(0, 1).expand([2]).to_event(1))
    p = popk.individual(trial, CL=CL)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=40), popk.proportional_error(0.2))


@pytest.mark.parametrize(
    ("effects", "options", "says"),
    [
        (["CL_BMI"], {}, "CL_BMI cannot be held at 0"),
        (["CL_two"], {}, "CL_two cannot be held at 0"),
        (["CL_pop"], {}, "CL_pop cannot be held at 0"),
        ([], {}, "effects is empty or names a parameter twice"),
        ({"a": [], "b": []}, {}, "effects is empty or names a parameter twice"),
        (["CL_pop"], {"forward": 0}, "forward=0 and backward=0.01 must lie between 0 and 1"),
    ],
)
def test_effects_that_cannot_be_tested_are_refused(effects, options, says, trial):
    with pytest.raises(popk.ModelError, match=says):
        popk.scm(bounded, trial, effects, **options)


def test_candidates_that_make_no_effect_are_refused(trial):
    with pytest.raises(popk.ModelError, match=r"0 candidates and sd=0\.5"):
        popk.candidate_effects(trial, "CL", {})
    with pytest.raises(popk.ModelError, match="1 candidates and sd=0"):
        popk.candidate_effects(trial, "CL", {"WT": 1.0}, sd=0)
