r"""Which hazards have a closed form? With their integrals: constant, Weibull, Gompertz, log-logistic.

Nobody is at risk before time 0: hazards are 0 there, as are their integrals. What multiplies a hazard
(a drug effect, a covariate) multiplies its integral too where it is constant in each subject; a hazard
that follows a concentration has its integral from a compartment of `ode`.

References
----------
.. [1] Kalbfleisch JD, Prentice RL (2002). The Statistical Analysis of Failure Time Data, 2nd
   edition, section 2.2. doi:10.1002/9781118032985
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from popk.trial import Array

Each = Float[Array, "..."] | float | Any


class Hazard(NamedTuple):
    """A hazard and its integral from time 0.

    Attributes
    ----------
    h : Float[Array, "subject record"]
        [1/time].
    H : Float[Array, "subject record"]
        [pure number].
    """

    h: Any
    H: Any


def constant_hazard(time: Each, RATE: Each, *, effect: Each = 1.0) -> Hazard:
    r"""Return the hazard of exponential times: :math:`h = \lambda,\ H = \lambda t`.

    Parameters
    ----------
    time : Float[Array, "subject record"]
        Since the subject came to be at risk, as ``trial.time`` [time].
    RATE : Float[Array, "subject 1"] or float
        lambda [1/time].
    effect : Float[Array, "subject 1"] or float
        What multiplies the hazard, constant in each subject [pure number].

    Raises
    ------
    ValueError
        The effect or a parameter changes from record to record.

    References
    ----------
    .. [1] Kalbfleisch JD, Prentice RL (2002). The Statistical Analysis of Failure Time Data, 2nd
       edition, section 2.2. doi:10.1002/9781118032985
    """
    t = _times(time, RATE, effect)
    return Hazard(jnp.where(jnp.asarray(time) < 0, 0.0, RATE * effect), RATE * effect * t)


def weibull_hazard(time: Each, SCALE: Each, SHAPE: Each, *, effect: Each = 1.0) -> Hazard:
    r"""Return the hazard of Weibull times, rising where the shape k is above 1 and falling below.

    .. math:: h(t) = \frac{k}{\lambda} \left(\frac{t}{\lambda}\right)^{k-1}, \qquad
        H(t) = \left(\frac{t}{\lambda}\right)^k

    Parameters
    ----------
    time : Float[Array, "subject record"]
        Since the subject came to be at risk, as ``trial.time`` [time]; at 0 the hazard is given as 0.
    SCALE : Float[Array, "subject 1"] or float
        lambda, by which a share of 63% have had the event [time].
    SHAPE : Float[Array, "subject 1"] or float
        k [pure number].
    effect : Float[Array, "subject 1"] or float
        What multiplies the hazard, constant in each subject [pure number].

    Raises
    ------
    ValueError
        The effect or a parameter changes from record to record.

    References
    ----------
    .. [1] Weibull W (1951). A statistical distribution function of wide applicability. J Appl Mech
       18:293-297. doi:10.1115/1.4010337
    """
    t, begun = _begun(time, SCALE, SHAPE, effect)
    H = effect * (t / SCALE) ** SHAPE
    return Hazard(jnp.where(begun, SHAPE / t * H, 0.0), jnp.where(begun, H, 0.0))


def gompertz_hazard(time: Each, RATE: Each, GROWTH: Each, *, effect: Each = 1.0) -> Hazard:
    r"""Return the hazard of Gompertz times, which grows exponentially.

    .. math:: h(t) = b\,e^{a t}, \qquad H(t) = b\,\frac{e^{a t} - 1}{a}

    Parameters
    ----------
    time : Float[Array, "subject record"]
        Since the subject came to be at risk, as ``trial.time`` [time].
    RATE : Float[Array, "subject 1"] or float
        b, the hazard at time 0 [1/time].
    GROWTH : Float[Array, "subject 1"] or float
        a, of any sign; at 0 the hazard is constant [1/time].
    effect : Float[Array, "subject 1"] or float
        What multiplies the hazard, constant in each subject [pure number].

    Raises
    ------
    ValueError
        The effect or a parameter changes from record to record.

    References
    ----------
    .. [1] Gompertz B (1825). On the nature of the function expressive of the law of human mortality.
       Phil Trans R Soc 115:513-583. doi:10.1098/rstl.1825.0026
    """
    t = _times(time, RATE, GROWTH, effect)
    x = GROWTH * t
    close = jnp.abs(x) < 1e-3
    small, large = jnp.where(close, x, 0.0), jnp.where(close, 1.0, x)
    growth = 1 + small / 2 * (1 + small / 3 * (1 + small / 4 * (1 + small / 5)))
    growth = jnp.where(close, growth, jnp.expm1(large) / large)
    h = jnp.where(jnp.asarray(time) < 0, 0.0, RATE * effect * jnp.exp(x))
    return Hazard(h, RATE * effect * t * growth)


def log_logistic_hazard(time: Each, SCALE: Each, SHAPE: Each, *, effect: Each = 1.0) -> Hazard:
    r"""Return the hazard of log-logistic times, which rises and falls where the shape is above 1.

    .. math:: h(t) = \frac{(\beta/\alpha) (t/\alpha)^{\beta - 1}}{1 + (t/\alpha)^\beta}, \qquad
        H(t) = \log\left[1 + \left(\frac{t}{\alpha}\right)^\beta\right]

    Parameters
    ----------
    time : Float[Array, "subject record"]
        Since the subject came to be at risk, as ``trial.time`` [time]; at 0 the hazard is given as 0.
    SCALE : Float[Array, "subject 1"] or float
        alpha, the median time to the event where the effect is 1 [time].
    SHAPE : Float[Array, "subject 1"] or float
        beta [pure number].
    effect : Float[Array, "subject 1"] or float
        What multiplies the hazard, constant in each subject [pure number].

    Raises
    ------
    ValueError
        The effect or a parameter changes from record to record.

    References
    ----------
    .. [1] Bennett S (1983). Log-logistic regression models for survival data. J R Stat Soc C
       32:165-171. doi:10.2307/2347295
    """
    t, begun = _begun(time, SCALE, SHAPE, effect)
    grown = (t / SCALE) ** SHAPE
    h, H = effect * SHAPE / t * grown / (1 + grown), effect * jnp.log1p(grown)
    return Hazard(jnp.where(begun, h, 0.0), jnp.where(begun, H, 0.0))


def _times(time: Any, *constants: Any) -> Any:
    """Return times at risk, 0 before time 0; refuse what is not constant in each subject."""
    for value in constants:
        if jnp.ndim(value) == 2 and jnp.shape(value)[1] > 1:
            raise ValueError(
                f"a value of shape {jnp.shape(value)} changes from record to record, where the integral "
                f"of a hazard has no closed form; take it from a compartment of popk.ode whose rate "
                f"is the hazard"
            )
    return jnp.maximum(jnp.asarray(time, dtype=float), 0.0)


def _begun(time: Any, *constants: Any) -> tuple[Any, Any]:
    """Return times with 1 in the place of those up to 0, and which are above 0."""
    t = _times(time, *constants)
    return jnp.where(t > 0, t, 1.0), t > 0
