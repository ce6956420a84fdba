"""Sensitivity to prior and likelihood is that of posteriors known in closed form."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import norm

import popk
from popk.diagnostics.sensitivity import hyperpriors
from popk.model.sites import describe
from tests.trials import trial

NOISE = 2.0
LEVELS = np.array([4.1, 5.3, 3.2, 6.0])
TRIAL = trial("ID TIME EVID DV\n" + "\n".join(f"1 {t} 0 {y}" for t, y in enumerate(LEVELS)))
DRAWS = 4000


def believed(mean, sd):
    """Return a model of levels around a mean with a normal prior."""

    def model(trial):
        """Levels around one mean."""
        mu = numpyro.sample("mu", dist.Normal(mean, sd))
        numpyro.sample("free", dist.Normal(0.0, 1.0))
        popk.observe(trial, mu + 0 * trial.time, popk.additive_error(popk.fixed(NOISE)))

    return model


def normal(mean, sd, prior=1.0, likelihood=1.0):
    """Return the posterior of the mean where prior and likelihood are raised to powers."""
    precisions = prior / sd**2, likelihood * len(LEVELS) / NOISE**2
    middle = (precisions[0] * mean + precisions[1] * LEVELS.mean()) / sum(precisions)
    return norm(middle, sum(precisions) ** -0.5)


def posterior_of(mean, sd):
    """Return evenly spread draws of the exact posterior, `free` being the prior's."""
    draw = np.random.default_rng(0)
    at = (np.arange(DRAWS) + 0.5) / DRAWS
    mu = draw.permutation(normal(mean, sd).ppf(at)).reshape(2, -1)
    free = draw.permutation(norm.ppf(at)).reshape(2, -1)
    levels = norm.logpdf(LEVELS, mu[..., None], NOISE)
    leading = ("chain", "draw")
    coords = {"chain": [0, 1], "draw": np.arange(DRAWS // 2)}
    return xr.DataTree.from_dict({
        "posterior": xr.Dataset({"mu": (leading, mu), "free": (leading, free)}, coords=coords),
        "log_likelihood": xr.Dataset({"DV": ((*leading, "observation"), levels)}, coords=coords),
    })  # fmt: skip


def distance(p, q):
    """Return the cumulative Jensen-Shannon distance of two distributions, by the trapezoid rule.

    Kallioinen et al. (2024), the larger of that of x and of -x, between the outermost draws of p.
    """
    x = np.linspace(p.ppf(0.5 / DRAWS), p.ppf(1 - 0.5 / DRAWS), 20001)
    found = []
    for a, b in ((p.cdf(x), q.cdf(x)), (p.sf(x)[::-1], q.sf(x)[::-1])):
        middle = (a + b) / 2
        one, two = (np.trapezoid(c * np.log2(c / middle), x) for c in (a, b))
        gap = np.trapezoid(b - a, x) / (2 * np.log(2))
        total = np.trapezoid(a + b, x)
        found.append(np.sqrt(((one + gap) + (two - gap)) / total))
    return max(found)


def expected(mean, sd, **powered):
    """Return the sensitivity by distances from the posteriors at powers of 0.99 and 1.01."""
    (what,) = powered
    return np.mean([
        distance(normal(mean, sd), normal(mean, sd, **{what: alpha})) / abs(np.log2(alpha))
        for alpha in (0.99, 1.01)
    ])  # fmt: skip


CASES = {
    "-": (5.0, 10.0),
    "prior-data conflict": (0.0, 1.0),
    "strong prior / weak likelihood": (4.6, 0.12),
}


@pytest.mark.parametrize("diagnosis", CASES)
def test_sensitivities_are_those_of_the_exact_posteriors(diagnosis):
    mean, sd = CASES[diagnosis]
    table = popk.prior_sensitivity(believed(mean, sd), posterior_of(mean, sd), TRIAL)
    row = table.loc["mu"]
    assert row["prior"] == pytest.approx(expected(mean, sd, prior=1), rel=0.01, abs=0.003)
    assert row["likelihood"] == pytest.approx(expected(mean, sd, likelihood=1), rel=0.01, abs=0.003)
    assert row["diagnosis"] == diagnosis


def test_a_parameter_that_no_level_concerns_hangs_on_its_prior_alone():
    table = popk.prior_sensitivity(believed(5.0, 10.0), posterior_of(5.0, 10.0), TRIAL)
    assert table.loc["free", "diagnosis"] == "strong prior / weak likelihood"


def test_the_prior_of_one_site_can_be_asked_about():
    model, posterior = believed(0.0, 1.0), posterior_of(0.0, 1.0)
    every = popk.prior_sensitivity(model, posterior, TRIAL)
    other = popk.prior_sensitivity(model, posterior, TRIAL, priors=["free"])
    assert every.loc["mu", "prior"] > 0.05 > other.loc["mu", "prior"]
    with pytest.raises(popk.ModelError, match="priors names tau; the model has priors of mu, free"):
        popk.prior_sensitivity(model, posterior, TRIAL, priors=["tau"])
    with pytest.raises(popk.ModelError, match="priors names nothing"):
        popk.prior_sensitivity(model, posterior, TRIAL, priors=[])


def test_powers_lie_on_either_side_of_1():
    with pytest.raises(ValueError, match=r"alphas are \(1.0, 1.2\)"):
        popk.prior_sensitivity(believed(0.0, 1.0), posterior_of(0.0, 1.0), TRIAL, alphas=(1.0, 1.2))


def test_distributions_of_random_effects_are_no_priors():
    def model(trial):
        """Levels that vary between people, occasions and sites."""
        mu = numpyro.sample("mu", dist.Normal(5.0, 1.0))
        p = popk.individual(
            trial, OWN=mu, transform="normal", omega={"OWN": 1.0}, iov={"OCC": {"OWN": 1.0}},
            groups={"SITE": {"OWN": 1.0}}, levels={"SITE": (1, 2)},
        )  # fmt: skip
        popk.observe(trial, p.OWN + 0 * trial.time, popk.additive_error(popk.fixed(NOISE)))

    several = trial(
        "ID TIME EVID DV OCC SITE\n1 0 0 4.1 1 1\n1 1 0 4.0 2 1\n2 0 0 3.9 1 2\n2 1 0 5.0 2 2",
        OCC="1", SITE="1",
    )  # fmt: skip
    found = hyperpriors(model, several, describe(model, several))
    assert set(found) == {"mu", "omega_OWN", "gamma_OWN", "tau_OWN_SITE"}
