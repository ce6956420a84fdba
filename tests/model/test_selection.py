"""Which of many covariates matter? A horseshoe over many, and the few that explain what it found."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import popk
from tests.model.sites import refusal, sampled, trace_of
from tests.trials import trial

TWO = """
ID TIME EVID AMT DV WT CRCL
1  0    1    100 .  70 90
1  1    0    0   5  70 80
2  0    1    50  .  35 50
2  3    0    0   2  35 50
"""


@pytest.fixture(scope="module")
def two():
    return trial(TWO, WT="kg", CRCL="mL/min")


def effects(two, **options):
    of = two.covariate
    candidates = {
        "WT": (of("WT") - 50) / 20,
        "CRCL": (of("CRCL") - 70) / 20,
        "SEX": jnp.ones((2, 1)),
    }
    return popk.horseshoe(two, "CL", candidates, **options)


def test_the_effect_is_the_sum_of_coefficients_times_candidates(two):
    given = {"CL_global": 0.1, "CL_slab": 0.25, "CL_local": jnp.asarray([1.0, 50.0, 0.01]),
             "CL_raw": jnp.asarray([1.0, -2.0, 3.0])}  # fmt: skip
    trace, found = trace_of(lambda: effects(two), **given)
    assert sampled(trace) == ["CL_global", "CL_slab", "CL_local", "CL_raw"]
    free = 0.1 * np.array([1.0, 50.0, 0.01])
    beta = np.array([1.0, -2.0, 3.0]) * free * np.sqrt(0.25 / (0.25 + free**2))
    np.testing.assert_allclose([trace[f"CL_{n}"]["value"] for n in ("WT", "CRCL", "SEX")], beta)
    x = np.array([[[1, 1, 1], [1, 0.5, 1]], [[-0.75, -1, 1], [-0.75, -1, 1]]])
    np.testing.assert_allclose(found, x @ beta, rtol=1e-12)
    assert abs(beta[1] / -2.0) < 0.5  # within the slab
    assert abs(beta[2]) < 0.01  # shrunk to nearly nothing


def test_the_global_scale_is_that_of_the_number_expected(two):
    trace, _ = trace_of(lambda: effects(two, expected=2, sd=0.4))
    assert trace["CL_global"]["fn"].scale == pytest.approx(2 / (3 - 2) * 0.4 / np.sqrt(2))


@pytest.mark.parametrize("options", [{"expected": 3}, {"expected": 0}, {"slab": -1}, {"sd": 0}])
def test_numbers_that_make_no_prior_are_refused(options, two):
    assert "all must be positive, and expected less than the number of candidates" in refusal(
        lambda: effects(two, **options)
    )


RNG = np.random.default_rng(0)
X = {name: RNG.normal(size=200) for name in ("A", "B", "C", "D")}


def posterior_of(means):
    draws = {
        f"CL_{n}": (("chain", "draw"), RNG.normal(m, 0.01, (2, 300))) for n, m in means.items()
    }
    return xr.DataTree.from_dict({"posterior": xr.Dataset(draws)})


def test_candidates_come_in_the_order_in_which_they_explain_the_whole():
    table = popk.selection(posterior_of({"A": 0.0, "B": -0.5, "C": 0.25, "D": 0.0}), "CL", X)
    assert list(table.index[:2]) == ["B", "C"]
    np.testing.assert_allclose(table["explained"].iloc[:2], [0.8, 1.0], atol=0.03)
    assert table.loc["B", "median"] == pytest.approx(-0.5, abs=0.01)
    assert table.loc["B", "sure"] == 1.0
    assert table.loc["A", "sure"] < 0.7


def test_a_candidate_that_repeats_another_adds_nothing():
    twin = {**X, "D": 2 * X["B"]}
    table = popk.selection(posterior_of({"A": 0.0, "B": -0.3, "C": 0.3, "D": -0.1}), "CL", twin)
    assert table["explained"].iloc[1] == pytest.approx(1.0, abs=0.01)
    assert {*table.index[2:]} == {"A", next(n for n in ("B", "D") if n not in table.index[:2])}


def test_what_cannot_be_selected_from_is_refused():
    posterior = posterior_of({"A": 0.1, "B": 0.2})
    with pytest.raises(popk.ModelError, match="the posterior lacks CL_C, CL_D"):
        popk.selection(posterior, "CL", X)
    with pytest.raises(popk.ModelError, match="candidate A has shape"):
        popk.selection(posterior, "CL", {"A": 1.0, "B": X["B"]})
    with pytest.raises(popk.ModelError, match="no candidate of CL varies"):
        popk.selection(posterior, "CL", {"A": np.ones(5), "B": np.zeros(5)})
