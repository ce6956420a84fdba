r"""How fast does a dose arrive? Input rates per unit dose, as functions of the time since it.

Each input has a `rate` [1/time], for the equations of the compartment that it enters, and the
fraction `absorbed` by a time, its integral. Before the dose and at it (t <= 0) both are 0, and so
are their derivatives. Bioavailability is the caller's to multiply with.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import erfcx, gammainc, gammaln, ndtr
from jaxtyping import Array, Bool, Float

Values = Float[Array, "*#r"]

_LOG_SQRT_2PI = math.log(2 * math.pi) / 2
_ARRIVED = 7.0  # exp(-exp(7)) is 0 in double precision


class Input(NamedTuple):
    """The course of a dose's arrival.

    Attributes
    ----------
    rate : Callable
        ``rate(t, **parameters)``, the fraction of the dose that arrives per time [1/time].
    absorbed : Callable
        ``absorbed(t, **parameters)``, the fraction that has arrived.
    parameters : tuple of str
        The names that both take beside the time since the dose.
    """

    rate: Callable[..., Values]
    absorbed: Callable[..., Values]
    parameters: tuple[str, ...]


def _since(t: Values) -> tuple[Bool[Array, "*#r"], Values]:
    """Return where the dose has been given, and times that are positive everywhere."""
    given = t > 0
    # A value on the unused side that is safe to differentiate: where(NaN) leaks into gradients.
    return given, jnp.where(given, t, 1.0)


def transit_rate(t: Values, N: Values, MTT: Values) -> Values:
    r"""Return the input rate at the end of a chain of transit compartments.

    .. math:: \frac{k_{tr} (k_{tr} t)^n e^{-k_{tr} t}}{\Gamma(n + 1)}, \qquad k_{tr} = (n + 1) / MTT

    In logarithms, so that neither the power nor the gamma function overflows.

    Parameters
    ----------
    t : Float[Array, "*#r"]
        Time since the dose [time].
    N : Float[Array, "*#r"]
        Number of transit compartments before the absorption compartment: any positive real.
    MTT : Float[Array, "*#r"]
        Mean transit time [time].

    References
    ----------
    .. [1] Savic RM, Jonker DM, Kerbusch T, Karlsson MO (2007). Implementation of a transit
       compartment model for describing drug absorption in pharmacokinetic studies. J Pharmacokinet
       Pharmacodyn 34:711-726. doi:10.1007/s10928-007-9066-0
    """
    given, t = _since(t)
    ktr = (N + 1) / MTT
    x = ktr * t
    return jnp.where(given, ktr * jnp.exp(N * jnp.log(x) - x - gammaln(N + 1)), 0.0)


def transit_absorbed(t: Values, N: Values, MTT: Values) -> Values:
    r"""Return the fraction that has left a chain of transit compartments.

    .. math:: \gamma(n + 1, k_{tr} t) / \Gamma(n + 1), \qquad k_{tr} = (n + 1) / MTT

    Parameters
    ----------
    t : Float[Array, "*#r"]
        Time since the dose [time].
    N : Float[Array, "*#r"]
        Number of transit compartments before the absorption compartment: any positive real.
    MTT : Float[Array, "*#r"]
        Mean transit time [time].

    References
    ----------
    .. [1] Savic RM, Jonker DM, Kerbusch T, Karlsson MO (2007). Implementation of a transit
       compartment model for describing drug absorption in pharmacokinetic studies. J Pharmacokinet
       Pharmacodyn 34:711-726. doi:10.1007/s10928-007-9066-0
    """
    given, t = _since(t)
    return jnp.where(given, gammainc(N + 1, (N + 1) / MTT * t), 0.0)


def weibull_rate(t: Values, SCALE: Values, SHAPE: Values) -> Values:
    r"""Return the input rate of Weibull absorption.

    .. math:: \frac{\beta}{\alpha} (t / \alpha)^{\beta - 1} e^{-(t / \alpha)^\beta}

    With a shape below 1 the rate grows beyond any bound towards t = 0, yet its integral is finite:
    the formula holds at every t > 0, however small, and the rate at t = 0 itself is 0 and not
    infinite. A solver that starts at the dose loses a little of it: adaptive Tsit5 at tolerances of
    1e-8 loses 6e-7 of the dose for a shape of 0.9, 2e-6 for 0.4; fixed steps lose far more. To lose
    nothing, begin a little later with `weibull_absorbed` in place.

    Parameters
    ----------
    t : Float[Array, "*#r"]
        Time since the dose [time].
    SCALE : Float[Array, "*#r"]
        alpha: when 1 - 1/e, 63%, of the dose has arrived [time].
    SHAPE : Float[Array, "*#r"]
        beta: 1 is first-order absorption, above 1 the course is sigmoid.

    References
    ----------
    .. [1] Piotrovskii VK (1987). The use of Weibull distribution to describe the in vivo absorption
       kinetics. J Pharmacokinet Biopharm 15:681-686. doi:10.1007/BF01068420
    """
    given, t = _since(t)
    z = _logarithm(t, SCALE, SHAPE)
    return jnp.where(given, SHAPE / t * jnp.exp(z - jnp.exp(z)), 0.0)


def weibull_absorbed(t: Values, SCALE: Values, SHAPE: Values) -> Values:
    r"""Return the fraction that has arrived by Weibull absorption.

    .. math:: 1 - e^{-(t / \alpha)^\beta}

    Parameters
    ----------
    t : Float[Array, "*#r"]
        Time since the dose [time].
    SCALE : Float[Array, "*#r"]
        alpha: when 1 - 1/e, 63%, of the dose has arrived [time].
    SHAPE : Float[Array, "*#r"]
        beta: 1 is first-order absorption, above 1 the course is sigmoid.

    References
    ----------
    .. [1] Piotrovskii VK (1987). The use of Weibull distribution to describe the in vivo absorption
       kinetics. J Pharmacokinet Biopharm 15:681-686. doi:10.1007/BF01068420
    """
    given, t = _since(t)
    return jnp.where(given, -jnp.expm1(-jnp.exp(_logarithm(t, SCALE, SHAPE))), 0.0)


def _logarithm(t: Values, SCALE: Values, SHAPE: Values) -> Values:
    """Return log((t / SCALE)**SHAPE), bounded where all is absorbed: inf times 0 is NaN."""
    return jnp.minimum(SHAPE * jnp.log(t / SCALE), _ARRIVED)


def inverse_gaussian_rate(t: Values, MAT: Values, CV2: Values) -> Values:
    r"""Return the input rate of inverse Gaussian absorption.

    .. math:: \sqrt{\frac{MAT}{2 \pi\, CV^2\, t^3}} \exp\left(-\frac{(t - MAT)^2}{2\, CV^2\, MAT\, t}\right)

    Parameters
    ----------
    t : Float[Array, "*#r"]
        Time since the dose [time].
    MAT : Float[Array, "*#r"]
        Mean absorption time [time].
    CV2 : Float[Array, "*#r"]
        Squared coefficient of variation of the absorption time.

    References
    ----------
    .. [1] Weiss M (1996). A novel extravascular input function for the assessment of drug
       absorption in bioavailability studies. Pharm Res 13:1547-1553. doi:10.1023/A:1016039931663
    .. [2] Freijer JI, Post TM, Ploeger BA, DeJongh J, Danhof M (2007). Application of the
       convection-dispersion equation to modelling oral drug absorption. Bull Math Biol 69:181-195.
       doi:10.1007/s11538-006-9122-8
    """
    given, x = _arriving(t, MAT)
    exponent = -((x - 1) ** 2) / (2 * CV2 * x)
    rate = jnp.exp(exponent - _LOG_SQRT_2PI - 0.5 * jnp.log(CV2) - 1.5 * jnp.log(x)) / MAT
    return jnp.where(given, rate, 0.0)


def inverse_gaussian_absorbed(t: Values, MAT: Values, CV2: Values) -> Values:
    r"""Return the fraction that has arrived by inverse Gaussian absorption.

    .. math::
        \Phi(a) + e^{2 / CV^2} \Phi(-b) = \Phi(a) + \tfrac12 e^{-a^2 / 2}
        \,\text{erfcx}(b / \sqrt 2), \qquad a, b = \frac{x \mp 1}{\sqrt{CV^2 x}},\; x = t / MAT

    In the first form the factors of the second term overflow and underflow where CV2 is small.

    Parameters
    ----------
    t : Float[Array, "*#r"]
        Time since the dose [time].
    MAT : Float[Array, "*#r"]
        Mean absorption time [time].
    CV2 : Float[Array, "*#r"]
        Squared coefficient of variation of the absorption time.

    References
    ----------
    .. [1] Weiss M (1996). A novel extravascular input function for the assessment of drug
       absorption in bioavailability studies. Pharm Res 13:1547-1553. doi:10.1023/A:1016039931663
    """
    given, x = _arriving(t, MAT)
    spread = jnp.sqrt(CV2 * x)
    a, b = (x - 1) / spread, (x + 1) / spread
    return jnp.where(given, ndtr(a) + jnp.exp(-(a**2) / 2) * erfcx(b / math.sqrt(2)) / 2, 0.0)


def _arriving(t: Values, MAT: Values) -> tuple[Bool[Array, "*#r"], Values]:
    """Return where an inverse Gaussian input can have begun, and the time over MAT, safe elsewhere."""
    x = t / MAT
    given = x > 1e-30  # below, exp(-1 / (2 CV2 x)) is 0 for any CV2, and 0 times 1 / x**2 is NaN
    return given, jnp.where(given, x, 1.0)


TRANSIT = Input(transit_rate, transit_absorbed, ("N", "MTT"))
WEIBULL = Input(weibull_rate, weibull_absorbed, ("SCALE", "SHAPE"))
INVERSE_GAUSSIAN = Input(inverse_gaussian_rate, inverse_gaussian_absorbed, ("MAT", "CV2"))
