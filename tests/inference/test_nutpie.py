"""Is nutpie a choice of `fit`? The same posterior, told in the same tree."""

import sys
import warnings

import arviz as az
import numpy as np
import pytest

import popk
from tests.inference.gaussian import exact, gaussian, gaussian_trial

SHORT = {"chains": 2, "warmup": 200, "draws": 300, "progress": False}


@pytest.fixture(scope="module")
def posterior():
    """Return nutpie's fit of a model whose posterior is known."""
    pytest.importorskip("nutpie")
    return fitted()


def fitted(seed=1):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        return popk.fit(gaussian, gaussian_trial(), seed=seed, method="nutpie", **SHORT)


def test_the_tree_is_that_of_any_method(posterior):
    assert set(posterior.children) == {
        "posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data",
    }  # fmt: skip
    stats = posterior["sample_stats"].dataset
    assert set(stats.data_vars) == {
        "lp", "diverging", "energy", "acceptance_rate", "n_steps", "tree_depth", "step_size",
    }  # fmt: skip
    assert stats["diverging"].dtype == bool
    assert dict(stats.sizes) == {"chain": 2, "draw": 300}
    assert posterior.attrs["inference_library"] == posterior.attrs["method"] == "nutpie"


def test_the_posterior_is_the_exact_one(posterior):
    mean, covariance = exact(gaussian_trial())
    mu = posterior["posterior"]["mu"].to_numpy()
    error = np.sqrt(covariance[0, 0] / az.ess(mu))
    assert abs(mu.mean() - mean[0]) < 4 * error
    assert mu.std() == pytest.approx(np.sqrt(covariance[0, 0]), rel=0.2)


def test_the_same_seed_gives_the_same_draws(posterior):
    again = fitted()
    for name, values in posterior["posterior"].data_vars.items():
        np.testing.assert_array_equal(values, again["posterior"][name])


def test_chains_begin_at_different_places(posterior):
    first = posterior["posterior"]["mu"][:, 0]
    assert float(first[0]) != float(first[1])


def test_a_missing_nutpie_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "nutpie", None)
    with pytest.raises(popk.ModelError, match=r"needs the package nutpie.*popk\[nutpie\]"):
        fitted()
