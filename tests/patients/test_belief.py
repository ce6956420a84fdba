"""Ways to one patient's posterior: they agree, and follow each other where one fails."""

import jax
import numpy as np
import numpyro
import pytest
import xarray as xr
from scipy import integrate, stats

import popk
from popk.inference.importance import smoothed
from popk.inference.many import pareto_smoothed
from tests.patients.models import OMEGA, records

TIMES, LEVELS = [1.0, 6.0, 12.0], [9.5, 5.2, 2.4]
ERROR = popk.proportional_error(popk.fixed(0.1))


def one_effect(trial):
    """CL alone varies: its posterior is an integral over one number."""
    p = popk.individual(trial, CL=5.0, omega=OMEGA)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=50.0), ERROR)


def tree(**values):
    """Return draws of a population as a posterior."""
    data = {n: (("chain", "draw"), np.asarray(x)[None]) for n, x in values.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data)})


def nothing():
    """A population of which all is known."""
    return tree(nothing=np.ones(250))


def density(eta, levels=LEVELS):
    """Return p(levels, eta) of `one_effect`."""
    f = 10 * np.exp(-0.1 * np.exp(eta) * np.array(TIMES))
    return stats.norm.pdf(eta, 0, 0.3) * stats.norm.pdf(levels, f, 0.1 * f).prod()


@pytest.fixture(scope="module")
def twins():
    patient = records(TIMES, LEVELS)
    return {
        m: popk.Twin(one_effect, nothing(), patient, method=m) for m in ("laplace", "smc", "nuts")
    }


@pytest.mark.parametrize("method", ["laplace", "smc", "nuts"])
def test_each_way_gives_the_posterior_by_quadrature(twins, method):
    twin = twins[method]
    mean, sd = moments(density)
    total = integrate.quad(density, -1.5, 1.5)[0]
    eta = np.log(twin.parameters["CL"].values / 5)
    assert twin.method == method
    assert abs(eta.mean() - mean) < 0.12 * sd  # four standard errors of 1,000 draws
    assert eta.std() == pytest.approx(sd, rel=0.1)
    if method != "nuts":
        assert twin.log_evidence == pytest.approx(np.log(total), abs=0.1)


def test_a_flattened_prior_is_wider():
    found = popk.Twin(bolus_with_sampled_omega, sampled(), records([], []), flatten=0.25)
    normal = popk.Twin(bolus_with_sampled_omega, sampled(), records([], []))
    wide, narrow = (np.log(t.parameters["CL"]).std() for t in (found, normal))
    assert float(wide) == pytest.approx(0.6, rel=0.06)
    assert float(narrow) == pytest.approx(0.3, rel=0.06)


def bolus_with_sampled_omega(trial):
    p = popk.individual(trial, CL=5.0, omega=0.5)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=50.0), ERROR)


def sampled():
    return tree(omega_CL=np.full(250, 0.3))


def test_an_omega_that_is_known_cannot_be_flattened():
    with pytest.raises(popk.ModelError, match="and omega_CL is not sampled"):
        popk.Twin(one_effect, nothing(), records([], []), flatten=0.5)


def test_an_unknown_method_is_refused():
    with pytest.raises(popk.ModelError, match="method is 'map'"):
        popk.Twin(one_effect, nothing(), records([], []), method="map")


def test_smoothed_weights_are_those_of_arviz():
    for spread in (0.5, 1.0, 2.0):
        logs = spread * np.random.default_rng(0).standard_normal(4000)
        expected, k = smoothed(logs)
        found, own = jax.jit(pareto_smoothed)(logs)
        assert float(own) == pytest.approx(k, abs=0.02)
        np.testing.assert_allclose(found, expected, atol=0.05 * expected.max())


def test_an_average_weighs_models_by_their_marginal_likelihoods(twins):
    slower = popk.Twin(half_as_fast, nothing(), records(TIMES, LEVELS))
    found = popk.average({"right": twins["laplace"], "slow": slower})
    other = integrate.quad(lambda x: slow_density(x), -1.5, 1.5)[0]
    total = integrate.quad(density, -1, 1)[0]
    assert found.weights["right"] == pytest.approx(total / (total + other), abs=0.02)
    assert found.forecast([3.0])["DV"].shape == (2000, 1)


def half_as_fast(trial):
    p = popk.individual(trial, CL=4.0, omega=OMEGA)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=50.0), ERROR)


def slow_density(eta):
    return (
        density(eta + np.log(0.8))
        / stats.norm.pdf(eta + np.log(0.8), 0, 0.3)
        * stats.norm.pdf(eta, 0, 0.3)
    )


def test_models_of_different_levels_are_not_averaged(twins):
    other = popk.Twin(one_effect, nothing(), records(TIMES[:2], LEVELS[:2]))
    with pytest.raises(popk.ModelError, match="the twins know different levels"):
        popk.average({"one": twins["laplace"], "other": other})


@pytest.mark.parametrize("method", ["laplace", "smc"])
def test_autocorrelated_errors_are_a_chain(method):
    """The posterior by quadrature, from the likelihood of an AR(1) chain of errors."""
    twin = popk.Twin(chained, nothing(), records(TIMES, LEVELS), method=method)

    def posterior(eta):
        z = (np.array(LEVELS) - 10 * np.exp(-0.1 * np.exp(eta) * np.array(TIMES))) / 0.5
        rho = np.exp(-0.2 * np.diff(TIMES))
        chain = stats.norm.pdf(z[1:], rho * z[:-1], (1 - rho**2) ** 0.5).prod() * stats.norm.pdf(
            z[0]
        )
        return stats.norm.pdf(eta, 0, 0.3) * chain

    mean, sd = moments(posterior)
    eta = np.log(twin.parameters["CL"].values / 5)
    assert abs(eta.mean() - mean) < 0.12 * sd
    assert eta.std() == pytest.approx(sd, rel=0.1)


def chained(trial):
    p = popk.individual(trial, CL=5.0, omega=OMEGA)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    error = popk.autocorrelated_error(popk.additive_error(popk.fixed(0.5)), popk.fixed(0.2))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=50.0), error)


def moments(posterior):
    """Return mean and standard deviation of a density of one number, unnormalized."""
    total = integrate.quad(posterior, -1.5, 1.5)[0]
    mean = integrate.quad(lambda x: x * posterior(x), -1.5, 1.5)[0] / total
    return mean, (
        integrate.quad(lambda x: (x - mean) ** 2 * posterior(x), -1.5, 1.5)[0] / total
    ) ** 0.5


def test_a_level_below_the_limit_is_known_to_be_low():
    """M3: after a level below 1 mg/L at 12 h clearance is known to be above the typical 5 L/h."""
    patient = records([12.0], [np.nan], BLQ=[0, 1], LLOQ=[np.nan, 1.0])
    twin = popk.Twin(one_effect, nothing(), patient)
    eta = np.log(twin.parameters["CL"].values / 5)

    def posterior(x):
        f = 10 * np.exp(-1.2 * np.exp(x))
        return stats.norm.pdf(x, 0, 0.3) * stats.norm.cdf(1.0, f, 0.1 * f)

    total = integrate.quad(posterior, -1.5, 1.5)[0]
    assert eta.mean() == pytest.approx(moments(posterior)[0], abs=0.02)
    assert twin.surprise == pytest.approx(total, abs=0.03)
