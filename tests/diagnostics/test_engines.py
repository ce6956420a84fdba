"""Do two engines find the same posterior? The table of their differences."""

import numpy as np
import pytest
import xarray as xr

import popk
from tests.conftest import model_of, trial_of

TRIAL = trial_of("theophylline")


def posterior(shift=0.0, seed=1):
    """Return a posterior of one parameter, normal with mean `shift`."""
    x = shift + np.random.default_rng(seed).standard_normal((4, 1000))
    return xr.DataTree.from_dict({"posterior": xr.Dataset({"CL_pop": (("chain", "draw"), x)})})


def compared(first, second):
    return popk.compare_engines(
        model_of("theophylline"), TRIAL, seed=1, posteriors={"nuts": first, "pymc": second}
    )


def test_differences_are_in_units_of_what_monte_carlo_error_lets_expect(capsys):
    table = compared(posterior(0.1, seed=1), posterior(0.0, seed=2))
    row = table.loc["CL_pop"]
    error = np.hypot(row["nuts", "MCSE of mean"], row["pymc", "MCSE of mean"])
    assert error == pytest.approx(np.sqrt(2 / 4000), rel=0.1)  # independent draws
    apart = row["nuts", "mean"] - row["pymc", "mean"]
    assert row["difference", "mean"] == pytest.approx(apart / error)
    assert row["difference", "mean"] == pytest.approx(0.1 / np.sqrt(2 / 4000), abs=3)
    assert abs(row["difference", "sd"]) < 4
    assert row["nuts", "R-hat"] == pytest.approx(1, abs=0.01)
    assert "of the mean of CL_pop" in capsys.readouterr().out


@pytest.mark.parametrize(
    "engines", [("nuts",), ("nuts", "nuts"), ("nuts", "stan"), ("nuts", "pymc", "nutpie")]
)
def test_other_than_two_engines_are_refused(engines):
    with pytest.raises(ValueError, match="give two different ones of nuts"):
        popk.compare_engines(model_of("theophylline"), TRIAL, seed=1, engines=engines)


def test_posteriors_of_two_models_are_refused():
    other = posterior()
    other["posterior"] = other["posterior"].dataset.rename(CL_pop="V_pop")
    with pytest.raises(ValueError, match="two fits of one model"):
        compared(posterior(), other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")
def test_pymc_finds_the_posterior_of_theophylline():
    model, records = model_of("theophylline"), trial_of("theophylline")
    table = popk.compare_engines(
        model, records, seed=1, chains=4, warmup=500, draws=1000, target_accept=0.9, progress=False
    )
    # Of 22 numbers that are nearly standard normal one lies beyond 4 in 700 runs.
    assert table["difference"].abs().to_numpy().max() < 4
    for engine in ("nuts", "pymc"):
        assert table[engine]["R-hat"].max() < 1.02
