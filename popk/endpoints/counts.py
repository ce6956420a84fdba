r"""Which counts are there? Poisson, negative binomial, and either with more zeros.

References
----------
.. [1] Plan EL (2014). Modeling and simulation of count data. CPT Pharmacometrics Syst Pharmacol
   3:e129. doi:10.1038/psp.2014.27
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from numpyro.distributions import constraints

from popk.endpoints.endpoint import NEVER_BELOW, Endpoint, own_rule
from popk.endpoints.outcomes import NEGLIGIBLE, Law, Values
from popk.priors import Fixed, Known, Prior, half_normal, known_prior

#: Below this, powers of dispersion times count take the place of gamma functions of huge numbers.
_CLOSE = 1e-3

_RULES = (
    own_rule(
        "a count is a whole number",
        "DV is {DV}; a count must be a whole number, 0 or more: correct it, or set MDV 1 where "
        "nothing was counted",
        lambda f: f["DV"].lt(0) | f["DV"].ne(f["DV"].round()),
    ),
    NEVER_BELOW,
)


def poisson() -> Endpoint:
    r"""Return the endpoint of counts y whose mean f is the prediction, with the variance f.

    .. math:: P(y) = \frac{f^y e^{-f}}{y!}

    f is the mean count of the record: a rate per day times the days that were counted.

    References
    ----------
    .. [1] Plan EL (2014). Modeling and simulation of count data. CPT Pharmacometrics Syst Pharmacol
       3:e129. doi:10.1038/psp.2014.27
    """
    law = Law(_poisson_mass, _poisson_draw, _poisson_information, constraints.nonnegative_integer)
    return Endpoint("counts", {}, _RULES, law)


def negative_binomial(dispersion: Prior) -> Endpoint:
    r"""Return the endpoint of counts y with mean f, the prediction, and variance :math:`f + \alpha f^2`.

    .. math:: P(y) = \frac{\Gamma(y + 1/\alpha)}{y!\,\Gamma(1/\alpha)}
        \frac{(\alpha f)^y}{(1 + \alpha f)^{y + 1/\alpha}}

    It samples the site ``dispersion``. At alpha = 0 counts have a Poisson distribution.

    Parameters
    ----------
    dispersion : float, Distribution or Fixed
        Scale of the half-normal prior of alpha, or its prior, or ``popk.fixed(...)`` [pure number].

    Raises
    ------
    ValueError
        A value or prior that cannot be.

    References
    ----------
    .. [1] Cameron AC, Trivedi PK (1986). Econometric models based on count data: comparisons and
       applications of some estimators and tests. J Appl Econom 1:29-53. doi:10.1002/jae.3950010104
    """
    if isinstance(dispersion, Fixed) and not 0 < dispersion.value < math.inf:
        raise ValueError(
            f"the dispersion is fixed at {dispersion.value}; it must be positive and finite: counts "
            f"without any are popk.poisson()"
        )
    law = Law(
        _negative_binomial_mass,
        _negative_binomial_draw,
        _negative_binomial_information,
        constraints.nonnegative_integer,
    )
    return Endpoint("counts", {"dispersion": half_normal(dispersion)}, _RULES, law)


def zero_inflated(endpoint: Endpoint, zeros: Known) -> Endpoint:
    r"""Return an endpoint of counts with a further share of zeros.

    .. math:: P'(0) = \pi + (1 - \pi) P(0), \qquad P'(y) = (1 - \pi) P(y)

    The prediction remains the mean f of P: that of the counts themselves is :math:`(1 - \pi) f`. It
    samples the site ``zeros``.

    Parameters
    ----------
    endpoint : Endpoint
        `poisson` or `negative_binomial`.
    zeros : Distribution or Fixed
        Prior of pi, as ``dist.Beta(1, 3)``, or ``popk.fixed(0.2)`` [fraction].

    Raises
    ------
    ValueError
        Another endpoint, a bare number, or a share that is not between 0 and 1.

    References
    ----------
    .. [1] Lambert D (1992). Zero-inflated Poisson regression, with an application to defects in
       manufacturing. Technometrics 34:1-14. doi:10.2307/1269547
    """
    law = endpoint.law
    if endpoint.name != "counts" or "zeros" in endpoint.priors or not isinstance(law, Law):
        raise ValueError(
            "zero_inflated() takes counts without further zeros, as in "
            "popk.zero_inflated(popk.poisson(), popk.fixed(0.2))"
        )
    prior = known_prior("zeros", zeros, "0.2")
    if isinstance(prior, Fixed) and not 0 <= prior.value < 1:
        raise ValueError(
            f"zeros are fixed at {prior.value}; the share must be 0 or more, and below 1"
        )
    return endpoint._replace(priors={**endpoint.priors, "zeros": prior}, law=_inflated(law))


def _rate(f: Any) -> Any:
    # A solver may leave a mean of 0 just below it; one that is truly negative gives no number.
    return jnp.where(f >= -NEGLIGIBLE, jnp.maximum(f, 0.0), jnp.nan)


def _times_log(y: Any, mean: Any) -> Any:
    return jnp.where(y > 0, y * jnp.log(jnp.where(y > 0, mean, 1.0)), 0.0)


def _inverse(mean: Any) -> Any:
    # Where nothing can be counted nothing is learned.
    return jnp.where(mean > 0, 1 / jnp.where(mean > 0, mean, 1.0), jnp.where(mean == 0, 0.0, mean))


def _poisson_mass(y: Any, f: Any, values: Values) -> Any:
    mean = _rate(f)
    return _times_log(y, mean) - mean - gammaln(y + 1)


def _poisson_draw(key: Any, f: Any, values: Values) -> Any:
    mean = _rate(f)
    drawn = jax.random.poisson(key, jnp.where(jnp.isnan(mean), 1.0, mean))
    return jnp.where(jnp.isnan(mean), jnp.nan, drawn.astype(jnp.result_type(float)))


def _poisson_information(f: Any, values: Values) -> Any:
    return _inverse(_rate(f))


def _dispersion(values: Values) -> Any:
    alpha = values["dispersion"]
    return jnp.where(alpha >= 0, alpha, jnp.nan)


def _negative_binomial_mass(y: Any, f: Any, values: Values) -> Any:
    mean, alpha = _rate(f), _dispersion(values)
    grown = y * jnp.log1p(alpha * mean) + mean * _log1p_over(alpha * mean)
    return _times_log(y, mean) + _rising(y, alpha) - gammaln(y + 1) - grown


def _negative_binomial_draw(key: Any, f: Any, values: Values) -> Any:
    mean, alpha = _rate(f), _dispersion(values)
    key_mixed, key_counted = jax.random.split(key)
    shape = 1 / jnp.maximum(alpha, 1e-12)
    mixed = jax.random.gamma(key_mixed, shape, jnp.shape(mean)) / shape
    return _poisson_draw(key_counted, mean * mixed, values)


def _negative_binomial_information(f: Any, values: Values) -> Any:
    mean = _rate(f)
    return _inverse(mean) / (1 + _dispersion(values) * mean)


def _log1p_over(x: Any) -> Any:
    """Return log(1 + x) / x, which is 1 at 0, where the quotient has no derivatives."""
    close = x < _CLOSE
    small, large = jnp.where(close, x, 0.0), jnp.where(close, 1.0, x)
    series = 1 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4 - small * (1 / 5 - small / 6))))
    return jnp.where(close, series, jnp.log1p(large) / large)


def _rising(y: Any, alpha: Any) -> Any:
    r"""Return :math:`\sum_{k<y} \log(1 + \alpha k)`, a difference of gamma functions."""
    close = alpha * y < _CLOSE
    a, n = jnp.where(close, alpha, 0.0), y - 1
    first, second = n * (n + 1) / 2, n * (n + 1) * (2 * n + 1) / 6
    fourth = second * (3 * n**2 + 3 * n - 1) / 5
    series = a * (first - a * (second / 2 - a * (first**2 / 3 - a * fourth / 4)))
    r = 1 / jnp.where(close, 1.0, alpha)
    return jnp.where(close, series, gammaln(y + r) - gammaln(r) - y * jnp.log(r))


def _inflated(law: Law) -> Law:
    """Return a law with a further share of zeros."""

    def log_mass(y: Any, f: Any, values: Values) -> Any:
        share, counted = values["zeros"], law.log_mass(y, f, values)
        zero = jnp.log(share + (1 - share) * jnp.exp(jnp.where(y > 0, -1.0, counted)))
        return jnp.where(y > 0, jnp.log1p(-share) + counted, zero)

    def draw(key: Any, f: Any, values: Values) -> Any:
        key_zero, key_counted = jax.random.split(key)
        none = jax.random.uniform(key_zero, jnp.shape(f)) < values["zeros"]
        return jnp.where(none, 0.0, law.draw(key_counted, f, values))

    def information(f: Any, values: Values) -> Any:
        # The variance of the score: zeros tell less, since some of them are no counts.
        def at_zero(f: Any) -> Any:
            return law.log_mass(jnp.zeros_like(f), f, values)

        share = values["zeros"]
        log_zero, score = jax.jvp(at_zero, (f,), (jnp.ones_like(f),))
        zero = jnp.exp(log_zero)
        total = share + (1 - share) * zero
        seen = law.information(f, values) - zero * score**2
        found = (1 - share) * (seen + (1 - share) * (zero * score) ** 2 / total)
        return jnp.where(_rate(f) == 0, 0.0, found)

    return Law(log_mass, draw, information, law.support)
