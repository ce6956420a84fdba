r"""Which categories are there? Two, or several that are ordered, by the logit of their probability.

References
----------
.. [1] McCullagh P (1980). Regression models for ordinal data. J R Stat Soc B 42:109-127.
   doi:10.1111/j.2517-6161.1980.tb01109.x
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import log_sigmoid, sigmoid
from numpyro.distributions import constraints

from popk.endpoints.endpoint import NEVER_BELOW, Endpoint, own_rule
from popk.endpoints.outcomes import Law, Values
from popk.endpoints.risk import log1mexp
from popk.priors import Fixed, Known, Prior, half_normal, known_prior


def binary() -> Endpoint:
    r"""Return the endpoint of outcomes 0 and 1, the prediction f being the logit of P(DV = 1).

    .. math:: P(1) = \frac{1}{1 + e^{-f}}

    References
    ----------
    .. [1] McCullagh P, Nelder JA (1989). Generalized Linear Models, 2nd edition, chapter 4.
       doi:10.1007/978-1-4899-3242-6
    """
    rule = own_rule(
        "a binary outcome is 0 or 1",
        "DV is {DV}; a binary outcome must be 0 or 1: correct it, or set MDV 1 where it is unknown",
        lambda f: ~f["DV"].isin([0, 1]),
    )
    law = Law(_binary_mass, _binary_draw, _binary_information, constraints.boolean)
    return Endpoint("binary", {}, (rule, NEVER_BELOW), law, signed=True)


def ordered_categories(
    n: int, first: Known, steps: Prior | Sequence[Prior] | None = None
) -> Endpoint:
    r"""Return the endpoint of ordered categories 0 to n - 1 with proportional odds.

    .. math:: P(y \le k) = \frac{1}{1 + e^{-(c_k - f)}}, \qquad c_0 < c_1 < \dots < c_{n-2}

    A higher prediction f makes higher categories more probable, with one odds ratio at each cutpoint
    c. Cutpoints are in order by construction: the first one is the site ``cutpoint_1``, and each further
    one lies above it by positive steps, the sites ``step_2`` and so on. Where f has an intercept of
    its own the first cutpoint must be fixed, as at 0: the data tell their difference alone.

    Parameters
    ----------
    n : int
        The number of categories, 2 or more.
    first : Distribution or Fixed
        Prior of the first cutpoint, as ``dist.Normal(0, 2)``, or ``popk.fixed(0)`` [logit].
    steps : float, Distribution or Fixed, or a sequence of n - 2 of them
        Scale of the half-normal prior of each step, or its prior, or ``popk.fixed(...)`` [logit];
        not needed where n is 2.

    Raises
    ------
    ValueError
        Fewer than two categories, a bare number in the place of the first cutpoint's prior, steps that
        are missing, too many or too few, or one that is not positive.

    References
    ----------
    .. [1] McCullagh P (1980). Regression models for ordinal data. J R Stat Soc B 42:109-127.
       doi:10.1111/j.2517-6161.1980.tb01109.x
    """
    if n < 2:
        raise ValueError(f"there are {n} categories; give 2 or more")
    priors = {"cutpoint_1": known_prior("first", first, "0"), **_steps(n, steps)}
    rule = own_rule(
        "a category is one of those there are",
        f"DV is {{DV}}; the categories are 0 to {n - 1}: number them from 0, give their number n, or set "
        f"MDV 1 where it is unknown",
        lambda f: ~f["DV"].isin(range(n)),
    )
    functions = (_ordered_mass, _ordered_draw, _ordered_information)
    mass, draw, information = (partial(function, n) for function in functions)
    law = Law(mass, draw, information, constraints.integer_interval(0, n - 1))
    return Endpoint("categories", priors, (rule, NEVER_BELOW), law, signed=True)


def _steps(n: int, steps: Any) -> dict[str, Known]:
    """Return the prior of each step between cutpoints."""
    # A Fixed is a tuple, but one value.
    one = isinstance(steps, float | int | Fixed | dist.Distribution)
    given = [steps] * (n - 2) if one else list(steps or ())
    if len(given) != n - 2:
        raise ValueError(
            f"{n} categories have {n - 2} steps between their cutpoints, but {len(given)} were given; "
            f"give one prior for all of them, or {n - 2}"
        )
    priors = [half_normal(step) for step in given]
    for prior in priors:
        if isinstance(prior, Fixed) and not 0 < prior.value < math.inf:
            raise ValueError(f"a step is fixed at {prior.value}; it must be positive and finite")
    return {f"step_{i}": prior for i, prior in enumerate(priors, start=2)}


def _binary_mass(y: Any, f: Any, values: Values) -> Any:
    return log_sigmoid(jnp.where(y > 0, f, -f))


def _binary_draw(key: Any, f: Any, values: Values) -> Any:
    return jax.random.bernoulli(key, sigmoid(f))


def _binary_information(f: Any, values: Values) -> Any:
    return sigmoid(f) * sigmoid(-f)


def _cutpoints(n: int, values: Values) -> Any:
    steps = [values[f"step_{i}"] for i in range(2, n)]
    # A step that is not positive would give a probability below 0.
    known = [jnp.where(jnp.asarray(step) > 0, step, jnp.nan) for step in steps]
    return jnp.cumsum(jnp.stack([jnp.asarray(values["cutpoint_1"], dtype=float), *known]))


def _ordered_mass(n: int, y: Any, f: Any, values: Values) -> Any:
    cutpoints, k = _cutpoints(n, values), jnp.asarray(y).astype(int)
    lowest, highest = k <= 0, k >= n - 1
    low = cutpoints[jnp.clip(k - 1, 0, n - 2)]
    high = cutpoints[jnp.clip(k, 0, n - 2)]
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) loses no digits where both are near 0 or 1.
    width = jnp.where(lowest | highest, 1.0, high - low)
    inside = jnp.where(lowest | highest, 0.0, log1mexp(width))
    below = jnp.where(highest, 0.0, log_sigmoid(high - f))
    return inside + below + jnp.where(lowest, 0.0, log_sigmoid(f - low))


def _ordered_draw(n: int, key: Any, f: Any, values: Values) -> Any:
    latent = f + jax.random.logistic(key, jnp.shape(f))
    return (latent[..., None] > _cutpoints(n, values)).sum(-1)


def _ordered_information(n: int, f: Any, values: Values) -> Any:
    def masses(f: Any) -> Any:
        return jnp.exp(
            jnp.stack([_ordered_mass(n, jnp.full_like(f, k), f, values) for k in range(n)])
        )

    mass, slope = jax.jvp(masses, (f,), (jnp.ones_like(f),))
    seen = mass > 0
    return jnp.where(seen, slope**2 / jnp.where(seen, mass, 1.0), 0.0).sum(0)
