"""What do real trials say of covariates? Long fits of the models that ask."""

import warnings

import numpy as np
import pytest

import popk
from tests.conftest import trial_of
from tests.designs import model_file


def fitted(name, data, **settings):
    """Return a model, its trial and a posterior."""
    file = model_file(name)
    trial = trial_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        model = getattr(file, name)
        return file, trial, popk.fit(model, trial, seed=1, progress=False, **settings)


@pytest.mark.slow
def test_newborns_clear_and_hold_phenobarbital_in_proportion_to_their_weight():
    file, trial, posterior = fitted(
        "phenobarbital_covariates", "phenobarbital", chains=4, warmup=300, draws=300,
        target_accept=0.9,
    )  # fmt: skip
    assert popk.convergence(posterior).rhat < 1.05
    table = popk.summary(posterior)
    for name in ("CL_WT", "V_WT"):
        assert table.loc[name, "lower"] < 1 < table.loc[name, "upper"]
        assert table.loc[name, "lower"] > 0.7
    # Grasela and Donn: 0.0047 L/h/kg, 0.96 L/kg, 13% more volume at an Apgar score below 5
    assert table.loc["CL_pop", "median"] == pytest.approx(0.0047 * 1.3, rel=0.1)
    assert table.loc["V_pop", "median"] == pytest.approx(0.96 * 1.3, rel=0.1)
    effects = popk.covariate_effects(
        file.phenobarbital_covariates, posterior, trial, scenarios={"low": {"APGR": 4}}
    ).isel(scenario=0)
    assert (
        float(effects["lower"].sel(quantity="V")) < 1.13 < float(effects["upper"].sel(quantity="V"))
    )


@pytest.mark.slow
def test_glycoprotein_and_renal_function_are_what_the_horseshoe_finds_of_quinidine():
    file, trial, posterior = fitted(
        "quinidine_covariates", "quinidine", chains=2, warmup=250, draws=200, target_accept=0.8,
        max_depth=5,
    )  # fmt: skip
    candidates = {n: np.asarray(of(trial.covariate)) for n, of in file.CANDIDATES.items()}
    found = popk.selection(posterior, "CL", candidates)
    assert list(found.index[:2]) == ["AAG", "CRCL"]
    assert found["explained"].iloc[1] > 0.8
    assert (found["sure"].iloc[:2] > 0.99).all()
    assert found.loc["AAG", "median"] / 0.45 == pytest.approx(
        -0.502, abs=0.06
    )  # log CL for each g/L
    assert found.loc["CRCL", "median"] == pytest.approx(0.171, abs=0.04)
    rest = found.drop(index=["AAG", "CRCL", "HF"])
    assert (rest["lower"] < 0).all()
    assert (rest["upper"] > 0).mean() >= 7 / 8
