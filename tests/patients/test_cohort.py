"""Many patients at once: each posterior is the twin's own, and intervals cover what they say."""

import numpy as np
import pandas as pd
import pytest

import popk


def four_records(trial):
    table = trial.to_dataframe()
    attrs = table.attrs
    table = table.groupby("ID", sort=False).head(4)
    table.attrs = attrs
    return popk.read_nonmem(table)


@pytest.fixture(scope="module")
def many(theophylline_model, theophylline_posterior, theophylline):
    with pytest.warns(popk.TwinWarning, match=r"Pareto k of \d+ patients is above 0.7"):
        return popk.twins(theophylline_model, theophylline_posterior, four_records(theophylline))


def test_each_is_the_twin_of_its_patient(many, theophylline_model, theophylline_others_posterior):
    alone = popk.Twin(theophylline_model, theophylline_others_posterior, many.trial["3"])
    for name in ("CL", "V", "KA"):
        a, b = (np.log(x) for x in (many.dataset[name].sel(patient="3"), alone.parameters[name]))
        assert abs(float(a.mean() - b.mean())) < 0.15 * float(b.std())
        assert float(a.std()) == pytest.approx(float(b.std()), rel=0.15)
    found = float(many.dataset["log_evidence"].sel(patient="3"))
    assert found == pytest.approx(alone.log_evidence, abs=0.1)


@pytest.mark.filterwarnings("ignore:.*they count twice:popk.patients.doubts.TwinWarning")
def test_a_patient_is_had_without_inferring_again(many):
    twin = many["3"]
    np.testing.assert_array_equal(twin.parameters["CL"], many.dataset["CL"].sel(patient="3"))
    assert twin.pareto_k == float(many.dataset["pareto_k"].sel(patient="3"))


@pytest.mark.filterwarnings("ignore:.*they count twice:popk.patients.doubts.TwinWarning")
def test_a_patient_whose_weights_fail_is_inferred_in_another_way(many):
    poor = many.dataset["patient"][many.dataset["pareto_k"] > 0.7].values[0]
    twin = many[poor]
    assert twin.method in ("smc", "nuts") or twin.pareto_k < 0.7


def test_counts_that_are_none_are_refused(many, theophylline_model, theophylline_posterior):
    with pytest.raises(popk.ModelError, match="individual_draws is 3"):
        popk.twins(theophylline_model, theophylline_posterior, many.trial, individual_draws=3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Pareto k of:popk.patients.doubts.TwinWarning")
def test_90_percent_intervals_cover_90_percent_of_levels_to_come(
    theophylline_model, theophylline_posterior, theophylline
):
    """500 patients drawn from the posterior itself, after 0, 1, 2 and 3 levels."""
    count, times = 500, [1.0, 3.0, 8.0, 24.0]
    rng = np.random.default_rng(5)
    rows = [{"EVID": 1, "TIME": 0.0, "AMT": 320.0}]
    rows += [{"EVID": 0, "TIME": t, "AMT": 0.0} for t in times]
    people = [
        pd.DataFrame(rows).assign(ID=i + 1, WT=rng.uniform(55, 86), DV=1.0) for i in range(count)
    ]
    frame = pd.concat(people, ignore_index=True)
    options = {"covariates": ["WT"], "units": theophylline.units}
    given = theophylline_model, theophylline_posterior
    simulated = popk.predict(
        *given, popk.read_nonmem(frame, **options), seed=11, new_subjects=True, draws=400
    )["posterior_predictive"]["DV"].values
    each = simulated.reshape(len(simulated), count, len(times))
    drawn = np.maximum(each[np.arange(count) % len(each), np.arange(count)], 1e-3)
    frame.loc[frame["EVID"] == 0, "DV"] = drawn.ravel()
    for known in range(4):
        told = frame.assign(
            MDV=(frame["EVID"].eq(1) | (frame.groupby("ID").cumcount() > known)) * 1
        )
        many = popk.twins(*given, popk.read_nonmem(told, **options), population_draws=400)
        low, high = many.levels()["DV"][:, :, known].quantile([0.05, 0.95], "draw").values
        inside = (low <= drawn[:, known]) & (drawn[:, known] <= high)
        assert inside.mean() == pytest.approx(0.9, abs=0.03)
