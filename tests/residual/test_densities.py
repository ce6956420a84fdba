"""How likely is a level? Densities, probabilities and information of the less common error models."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import popk
from popk.residual import (
    ResidualError,
    box_cox_error,
    lognormal_error,
    power_error,
    yeo_johnson_error,
)
from tests.residual.observed import levels

F = 1.3  # the prediction
LIMIT = 0.9


class Case(NamedTuple):
    """An error model with values, and the distribution of z = g(y) as SciPy has it."""

    error: ResidualError
    sigmas: dict[str, float]
    of_z: Callable
    g: Callable = lambda y: y
    slope: Callable = np.ones_like
    positive: bool = False


def cut(center, spread, low=-np.inf, high=np.inf):
    return stats.truncnorm((low - center) / spread, (high - center) / spread, center, spread)


def power(error, sigmas, shape, spread, transform="box_cox_error"):
    """Return the case of an error model after a transformation of both sides."""
    sigmas = {**sigmas, "lambda": shape}
    low, high = -np.inf, np.inf
    if transform == "box_cox_error":
        low, high = (-1 / shape, high) if shape > 0 else (low, -1 / shape)
        of_z = cut(special.boxcox(F, shape), spread, low, high)
        known = box_cox_error(error, popk.fixed(shape))
        return Case(
            known,
            sigmas,
            of_z,
            lambda y: special.boxcox(y, shape),
            lambda y: y ** (shape - 1),
            True,
        )
    high = -1 / shape if shape < 0 else high
    low = 1 / (2 - shape) if shape > 2 else low
    of_z = cut(stats.yeojohnson(np.array([F]), shape)[0], spread, low, high)
    known = yeo_johnson_error(error, popk.fixed(shape))
    return Case(
        known,
        sigmas,
        of_z,
        lambda y: stats.yeojohnson(np.asarray(y), shape),
        lambda y: (1 + np.abs(y)) ** (np.sign(y) * (shape - 1)),
    )


B_C = {"coefficient": 0.4, "exponent": 0.6}
T = popk.fixed(4.0)
CASES = {
    "standard deviations add": Case(
        popk.combined_error(1, 1, convention="sd"),
        {"intercept": 0.3, "slope": 0.2},
        stats.norm(F, 0.3 + 0.2 * F),
    ),
    "power": Case(power_error(1, 1), B_C, stats.norm(F, 0.4 * F**0.6)),
    "t": Case(
        popk.combined_error(1, 1, degrees=T),
        {"additive": 0.3, "proportional": 0.2, "degrees": 4.0},
        stats.t(4, F, np.hypot(0.3, 0.2 * F)),
    ),
    "t, sd changing": Case(
        power_error(1, 1, degrees=T), {**B_C, "degrees": 4.0}, stats.t(4, F, 0.4 * F**0.6)
    ),
    "log t": Case(
        lognormal_error(1, degrees=T),
        {"log": 0.3, "degrees": 4.0},
        stats.t(4, np.log(F), 0.3),
        np.log,
        lambda y: 1 / y,
        True,
    ),
    "M4": Case(
        popk.combined_error(1, 1, blq="M4"),
        {"additive": 0.6, "proportional": 0.5},
        cut(F, np.hypot(0.6, 0.5 * F), 0),
        positive=True,
    ),
    "Box-Cox": power(popk.additive_error(1), {"additive": 0.8}, 0.5, 0.8),
    "Box-Cox, sd changing": power(power_error(1, 1), B_C, -0.4, 0.4 * F**0.6),
    "Box-Cox, nearly log": power(popk.additive_error(1), {"additive": 0.3}, 1e-7, 0.3),
    "Yeo-Johnson": power(popk.additive_error(1), {"additive": 0.8}, 0.5, 0.8, "yeo_johnson_error"),
    "Yeo-Johnson, cut above": power(
        power_error(1, 1), B_C, -0.5, 0.4 * F**0.6, "yeo_johnson_error"
    ),
    "Yeo-Johnson, cut below": power(
        popk.additive_error(1), {"additive": 0.8}, 2.5, 0.8, "yeo_johnson_error"
    ),
}
every_case = pytest.mark.parametrize("name", CASES)

# Levels on a grid that is fine near 0 and the prediction, and reaches far: y = exp(+-u) or +-sinh(u).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(600)


def grid(case):
    # Two halves: where levels change sign, Yeo and Johnson's slope has a kink.
    u, weights = 25 * (_NODES + 1), 25 * _WEIGHTS
    if case.positive:
        y = np.exp(np.concatenate([-u[::-1], u]))
        return y, y * np.concatenate([weights[::-1], weights])
    y, weights = np.sinh(u), weights * np.cosh(u)
    return np.concatenate([-y[::-1], y]), np.concatenate([weights[::-1], weights])


@cache
def computed(name):
    """Return log-densities and scores on the grid, the log-probability below, and information."""
    case = CASES[name]
    y = jnp.asarray(grid(case)[0])

    @jax.jit
    def everything(f, below):
        def total(f):
            found = levels(case.error, case.sigmas, f, censored=False).log_prob(y)
            return found.sum(), found

        score, found = jax.grad(total, has_aux=True)(f)
        under = levels(case.error, case.sigmas, f[:1], below=True, limit=below).log_prob(y[:1])
        one = levels(case.error, case.sigmas, f[:1], censored=False)
        return found, score, under[0], one.information()[0]

    return [np.asarray(x) for x in everything(jnp.full(len(y), F), LIMIT)]


@every_case
def test_a_level_has_the_density_of_its_error_model(name):
    case, y = CASES[name], grid(CASES[name])[0]
    density = case.of_z.pdf(case.g(y)) * case.slope(y)
    np.testing.assert_allclose(np.exp(computed(name)[0]), density, rtol=1e-7, atol=1e-12)


@every_case
def test_densities_integrate_to_1(name):
    total = (grid(CASES[name])[1] * np.exp(computed(name)[0])).sum()
    assert total == pytest.approx(1, abs=1e-6)


@every_case
def test_a_level_below_the_limit_has_the_probability_of_being_below_it(name):
    expected = CASES[name].of_z.logcdf(CASES[name].g(LIMIT))
    assert float(computed(name)[2]) == pytest.approx(float(expected), rel=1e-8)


@every_case
def test_information_is_the_mean_square_of_the_score(name):
    found, score, _, information = computed(name)
    # Far out the density is 0 and the score may not be a number.
    terms = np.where(found > -600, np.exp(found) * score**2, 0)
    assert float(information) == pytest.approx((grid(CASES[name])[1] * terms).sum(), rel=1e-6)


@pytest.mark.parametrize("name", ["t", "log t", "M4", "Box-Cox", "Yeo-Johnson"])
def test_sampled_levels_have_the_quantiles_of_their_error_model(name):
    case = CASES[name]
    y = levels(case.error, case.sigmas, [F]).sample(jax.random.key(2), (20_000,))[:, 0]
    below = case.of_z.cdf(case.g(np.asarray(y)))
    assert stats.kstest(below, "uniform").pvalue > 0.01
