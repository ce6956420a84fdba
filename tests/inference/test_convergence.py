"""Did the chains converge? A verdict on the population parameters, and what to do next."""

import numpy as np
import pytest
import xarray as xr

import popk
from popk.inference.convergence import Convergence, population_draws

CHAINS, DRAWS = 4, 500


def posterior(values=None, divergences=0, **other):
    """Return a posterior of independent normal draws, with other sites in addition."""
    rng = np.random.default_rng(1)
    sites = {"CL_pop": rng.normal(size=(CHAINS, DRAWS)) if values is None else values, **other}
    data = {
        name: value if isinstance(value, tuple) else (("chain", "draw"), value)
        for name, value in sites.items()
    }
    diverging = np.zeros((CHAINS, DRAWS), dtype=bool)
    diverging.flat[:divergences] = True
    return xr.DataTree.from_dict({
        "posterior": xr.Dataset(data, coords={"parameter": ["CL", "V"], "parameter2": ["CL", "V"]}),
        "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), diverging)}),
    })  # fmt: skip


def autocorrelated(rho):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(CHAINS, DRAWS))
    for i in range(1, DRAWS):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
    return x


def test_independent_draws_have_converged():
    verdict = popk.convergence(posterior())
    assert verdict.converged
    assert verdict.problems() == []
    assert verdict.rhat < 1.01
    assert verdict.ess_bulk == pytest.approx(CHAINS * DRAWS, rel=0.15)
    assert verdict.divergences == 0


def test_chains_that_disagree_have_not_and_the_parameter_is_named():
    apart = np.random.default_rng(3).normal(size=(CHAINS, DRAWS)) + np.arange(CHAINS)[:, None]
    verdict = popk.convergence(posterior(V_pop=apart))
    assert not verdict.converged
    assert verdict.worst == "V_pop"
    assert verdict.rhat > 1.3
    assert verdict.problems()[0] == (
        f"R-hat of V_pop is {verdict.rhat:.3f} (at most 1.01): the chains disagree; plot "
        f"popk.plots.trace, tighten vague priors, or raise warmup="
    )


def test_a_short_effective_sample_is_named_with_the_way_to_lengthen_it():
    verdict = Convergence(1.005, 250.4, 390.0, "omega_KA", 0)
    assert not verdict.converged
    assert verdict.problems() == [
        "the lowest effective sample size is bulk 250, tail 390 (at least 400): raise draws= or "
        "chains="
    ]


def test_the_parameter_with_the_lowest_ess_is_named_where_all_r_hats_are_fine():
    slow = autocorrelated(0.5)
    verdict = popk.convergence(posterior(omega_CL=slow))
    assert verdict.rhat < 1.01
    assert verdict.worst == "omega_CL"
    assert verdict.ess_bulk == pytest.approx(CHAINS * DRAWS / 3, rel=0.3)


def test_divergences_are_counted_with_what_to_change():
    verdict = popk.convergence(posterior(divergences=7))
    assert (verdict.divergences, verdict.transitions) == (7, CHAINS * DRAWS)
    assert not verdict.converged
    assert verdict.problems()[0].startswith(
        "7 divergent transitions of 2,000 (at most one in 1,000): raise target_accept="
    )


@pytest.mark.parametrize(
    ("divergences", "converged", "said"),
    [(0, True, "no divergence"), (1, True, "1 divergent transition of 2,000"),
     (2, True, "2 divergent transitions of 2,000"), (3, False, "3 divergent transitions of 2,000")],
)  # fmt: skip
def test_more_than_one_divergence_in_a_thousand_transitions_is_too_many(
    divergences, converged, said
):
    verdict = popk.convergence(posterior(divergences=divergences))
    assert verdict.converged is converged
    assert verdict.diverging == said


def test_a_chain_that_never_moved_is_no_converged_one():
    verdict = popk.convergence(posterior(np.full((CHAINS, DRAWS), 2.0)))
    assert np.isnan(verdict.rhat)
    assert not verdict.converged
    assert verdict.worst == "CL_pop"
    assert "R-hat of CL_pop is nan" in verdict.problems()[0]


@pytest.mark.parametrize(
    ("rhat", "ess", "fine"), [(1.01, 400, True), (1.0101, 400, False), (1.01, 399.9, False)]
)
def test_the_limits_are_an_r_hat_of_1_01_and_an_ess_of_400(rhat, ess, fine):
    assert Convergence(rhat, ess, 1000, "CL_pop", 0).converged is fine
    assert Convergence(rhat, 1000, ess, "CL_pop", 0).converged is fine


def test_every_problem_is_reported():
    assert len(Convergence(1.2, 50, 60, "CL_pop", 3).problems()) == 3


# --- which numbers are judged ---


def corr():
    rng = np.random.default_rng(4)
    x = np.ones((CHAINS, DRAWS, 2, 2))
    x[..., 0, 1] = x[..., 1, 0] = rng.uniform(-1, 1, size=(CHAINS, DRAWS))
    return x


def test_a_correlation_is_judged_once_and_its_diagonal_never():
    draws = population_draws(posterior(corr=(("chain", "draw", "parameter", "parameter2"), corr())))
    assert list(draws) == ["CL_pop", "corr[CL, V]"]
    np.testing.assert_array_equal(draws["corr[CL, V]"], corr()[..., 0, 1])


def test_a_block_of_correlations_is_judged_as_a_part_of_the_matrix():
    matrix = ("chain", "draw", "parameter", "parameter2"), corr()
    block = ("chain", "draw", "corr_CL_V_dim_0", "corr_CL_V_dim_1"), corr()
    assert list(population_draws(posterior(corr=matrix, corr_CL_V=block))) == [
        "CL_pop",
        "corr[CL, V]",
    ]


def test_individual_parameters_are_not_judged():
    apart = np.broadcast_to(np.arange(CHAINS)[:, None, None], (CHAINS, DRAWS, 3)).astype(float)
    tree = posterior(CL=(("chain", "draw", "subject"), apart))
    assert list(population_draws(tree)) == ["CL_pop"]
    assert popk.convergence(tree).converged


def test_a_vector_is_judged_number_by_number_without_its_constants():
    rng = np.random.default_rng(5)
    weights = np.stack([rng.normal(size=(CHAINS, DRAWS)), np.zeros((CHAINS, DRAWS))], axis=-1)
    draws = population_draws(posterior(weights=(("chain", "draw", "weights_dim_0"), weights)))
    assert list(draws) == ["CL_pop", "weights[0]"]


def test_what_was_fixed_is_not_judged():
    tree = posterior(sigma_additive=np.full((CHAINS, DRAWS), 0.5))
    assert not popk.convergence(tree).converged
    tree["posterior"].attrs["fixed"] = ["sigma_additive"]
    assert popk.convergence(tree).converged
    tree["posterior"].attrs["fixed"] = "sigma_additive"  # what a file makes of a list of one
    assert popk.convergence(tree).converged


def test_a_posterior_without_population_parameters_is_refused():
    tree = posterior(np.zeros((CHAINS, DRAWS)))
    tree["posterior"].attrs["fixed"] = ["CL_pop"]
    with pytest.raises(ValueError, match="the posterior has no population parameters"):
        popk.convergence(tree)


def test_a_warning_of_convergence_can_be_told_from_others():
    assert issubclass(popk.ConvergenceWarning, UserWarning)


def weighted(pareto_k, ess):
    tree = posterior()
    tree.attrs = {"pareto_k": pareto_k, "importance_ess": ess}
    return popk.convergence(tree)


def test_weighted_draws_are_judged_by_pareto_k_and_by_the_weights_alone():
    verdict = weighted(0.35, 900.0)
    assert verdict.converged
    assert (verdict.ess_bulk, verdict.ess_tail, verdict.pareto_k) == (900.0, 900.0, 0.35)
    assert np.isnan(verdict.rhat)
    assert weighted(0.71, 900.0).problems() == [
        "Pareto k of the weights is 0.71 (at most 0.7): the posterior is unlike its Laplace "
        "approximation, and a few draws carry most of the weight; take method='nuts'"
    ]
    assert not weighted(np.nan, 900.0).converged
    assert weighted(0.2, 60.0).problems() == [
        "the effective sample size of the weights is 60 (at least 400): raise population_draws= and "
        "individual_draws=, or take method='nuts'"
    ]


def test_draws_of_an_engine_that_knows_no_divergences_have_none():
    tree = posterior()
    tree["sample_stats"] = xr.Dataset({"lp": (("chain", "draw"), np.zeros((CHAINS, DRAWS)))})
    assert popk.convergence(tree).divergences == 0
