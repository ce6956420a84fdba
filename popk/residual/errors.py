r"""Which residual error models are there? Standard deviations, distributions and scales of errors.

A level y with individual prediction f has :math:`g(y) = g(f) + s(f)\,\epsilon`, where g is the
identity, the logarithm or a power, s the model's standard deviation and epsilon normal, of Student's
t distribution, or correlated in time.

References
----------
.. [1] Dosne AG, Bergstrand M, Karlsson MO (2016). A strategy for residual error modeling
   incorporating scedasticity of variance and distribution shape. J Pharmacokinet Pharmacodyn
   43:137-151. doi:10.1007/s10928-015-9460-y
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from popk.priors import Fixed, Known, Prior, half_normal, known_prior
from popk.residual.transforms import IDENTITY, LOG, Transform

Method = Literal["M3", "M4"]


class ResidualError(NamedTuple):
    """A residual error model: priors of its parameters, and how they make a distribution.

    Attributes
    ----------
    priors : dict of str to Distribution or Fixed
        The prior of each ``sigma_...``; of ``degrees``, ``lambda`` and ``rate`` where it has them.
    spread : Callable
        ``spread(f, **sigmas)`` is the standard deviation at a prediction f, on the scale on which
        errors are symmetric; for a t distribution its scale.
    transform : Transform
        That scale.
    blq : "M3" or "M4"
        Whether levels are taken to be positive (M4).
    """

    priors: dict[str, Known]
    spread: Callable[..., Any]
    transform: Transform = IDENTITY
    blq: Method = "M3"

    @property
    def log(self) -> bool:
        """Return whether errors are symmetric on the log scale."""
        return self.transform == LOG

    @property
    def heavy_tailed(self) -> bool:
        """Return whether errors have a t distribution."""
        return "degrees" in self.priors

    @property
    def autocorrelated(self) -> bool:
        """Return whether errors of successive levels are correlated."""
        return "rate" in self.priors


def additive_error(
    additive: Prior, *, degrees: Known | None = None, blq: Method = "M3"
) -> ResidualError:
    r"""Return :math:`s(f) = a`.

    Parameters
    ----------
    additive : float, Distribution or Fixed
        Scale of the half-normal prior of a, or its prior, or ``popk.fixed(a)`` [unit of DV].
    degrees : Distribution or Fixed, optional
        Prior of the degrees of freedom of t-distributed errors, or ``popk.fixed(4)``; normal without.
    blq : "M3" or "M4"
        What a level below its limit L contributes: P(y < L), or P(y < L | y > 0), where all levels
        are positive.

    Raises
    ------
    ValueError
        A value or prior that cannot be, or t-distributed errors with M4.
    """
    return _model({"additive": _sd(additive)}, _additive, degrees=degrees, blq=blq)


def proportional_error(
    proportional: Prior, *, degrees: Known | None = None, blq: Method = "M3"
) -> ResidualError:
    r"""Return :math:`s(f) = b f`.

    Parameters
    ----------
    proportional : float, Distribution or Fixed
        Scale of the half-normal prior of b, or its prior, or ``popk.fixed(b)`` [fraction].
    degrees : Distribution or Fixed, optional
        Prior of the degrees of freedom of t-distributed errors, or ``popk.fixed(4)``; normal without.
    blq : "M3" or "M4"
        What a level below its limit L contributes: P(y < L), or P(y < L | y > 0), where all levels
        are positive.

    Raises
    ------
    ValueError
        A value or prior that cannot be, or t-distributed errors with M4.
    """
    return _model({"proportional": _sd(proportional)}, _proportional, degrees=degrees, blq=blq)


def combined_error(
    additive: Prior,
    proportional: Prior,
    *,
    convention: Literal["variance", "sd"] = "variance",
    degrees: Known | None = None,
    blq: Method = "M3",
) -> ResidualError:
    r"""Return :math:`s(f) = \sqrt{a^2 + b^2 f^2}`, or :math:`s(f) = a + b f`.

    Variances add in the first (NONMEM's usual one, Monolix's combined2), standard deviations in the
    second (combined1). The sites of the second are named ``intercept`` and ``slope``: its values are
    not to be read as those of the first.

    Parameters
    ----------
    additive, proportional : float, Distribution or Fixed
        Scales of the half-normal priors of a [unit of DV] and b [fraction], or their priors,
        or ``popk.fixed(...)``.
    convention : "variance" or "sd"
        What adds.
    degrees : Distribution or Fixed, optional
        Prior of the degrees of freedom of t-distributed errors, or ``popk.fixed(4)``; normal without.
    blq : "M3" or "M4"
        What a level below its limit L contributes: P(y < L), or P(y < L | y > 0), where all levels
        are positive.

    Raises
    ------
    ValueError
        A value or prior that cannot be, another convention, or t-distributed errors with M4.

    References
    ----------
    .. [1] Proost JH (2017). Combined proportional and additive residual error models in population
       pharmacokinetic modelling. Eur J Pharm Sci 109:S78-S82. doi:10.1016/j.ejps.2017.05.021
    """
    a, b = _sd(additive), _sd(proportional)
    if convention == "variance":
        return _model({"additive": a, "proportional": b}, _variances, degrees=degrees, blq=blq)
    if convention == "sd":
        return _model({"intercept": a, "slope": b}, _line, degrees=degrees, blq=blq)
    raise ValueError(
        f"convention is {convention!r}; write 'variance' where variances add, "
        f"'sd' where standard deviations do"
    )


def power_error(
    coefficient: Prior, exponent: Prior, *, degrees: Known | None = None, blq: Method = "M3"
) -> ResidualError:
    r"""Return :math:`s(f) = b f^c`.

    Additive at c = 0, proportional at c = 1; with `box_cox_error` the dynamic transform-both-sides model.

    Parameters
    ----------
    coefficient : float, Distribution or Fixed
        Scale of the half-normal prior of b, or its prior, or ``popk.fixed(b)``
        [unit of DV ** (1 - c)].
    exponent : float, Distribution or Fixed
        The same of c [pure number].
    degrees : Distribution or Fixed, optional
        Prior of the degrees of freedom of t-distributed errors, or ``popk.fixed(4)``; normal without.
    blq : "M3" or "M4"
        What a level below its limit L contributes: P(y < L), or P(y < L | y > 0), where all levels
        are positive.

    Raises
    ------
    ValueError
        A value or prior that cannot be, or t-distributed errors with M4.

    References
    ----------
    .. [1] Dosne AG, Bergstrand M, Karlsson MO (2016). A strategy for residual error modeling
       incorporating scedasticity of variance and distribution shape. J Pharmacokinet Pharmacodyn
       43:137-151. doi:10.1007/s10928-015-9460-y
    """
    priors = {"coefficient": _sd(coefficient), "exponent": _sd(exponent)}
    return _model(priors, _power, degrees=degrees, blq=blq)


def lognormal_error(sigma: Prior, *, degrees: Known | None = None) -> ResidualError:
    r"""Return :math:`\log y \sim N(\log f, \sigma^2)`.

    Parameters
    ----------
    sigma : float, Distribution or Fixed
        Scale of the half-normal prior of the log-scale standard deviation, or its prior, or
        ``popk.fixed(...)``.
    degrees : Distribution or Fixed, optional
        Prior of the degrees of freedom of errors that are t-distributed on the log scale, or
        ``popk.fixed(4)``; normal without.

    Raises
    ------
    ValueError
        A value or prior that cannot be.
    """
    return _model({"log": _sd(sigma)}, _logarithmic, degrees=degrees)._replace(transform=LOG)


def _additive(f: Any, *, additive: Any, **_: Any) -> Any:
    return additive * jnp.ones_like(f)


def _proportional(f: Any, *, proportional: Any, **_: Any) -> Any:
    return proportional * f


def _variances(f: Any, *, additive: Any, proportional: Any, **_: Any) -> Any:
    return jnp.sqrt(additive**2 + (proportional * f) ** 2)


def _line(f: Any, *, intercept: Any, slope: Any, **_: Any) -> Any:
    return intercept + slope * jnp.abs(f)


def _power(f: Any, *, coefficient: Any, exponent: Any, **_: Any) -> Any:
    # The slope of a power below 1 is infinite at 0, where its product with 0 would be NaN.
    nothing = jnp.equal(f, 0)
    size = jnp.where(nothing, 1.0, jnp.abs(f)) ** exponent
    return coefficient * jnp.where(nothing, jnp.where(jnp.equal(exponent, 0), 1.0, 0.0), size)


def _logarithmic(f: Any, *, log: Any, **_: Any) -> Any:
    return log * jnp.ones_like(f)


def _model(
    priors: dict[str, Known],
    spread: Callable[..., Any],
    *,
    degrees: Any,
    blq: str = "M3",
) -> ResidualError:
    if blq not in ("M3", "M4"):
        raise ValueError(f"blq is {blq!r}; write 'M3', or 'M4' where all levels are positive")
    if degrees is None:
        return ResidualError(priors, spread, blq=blq)
    if blq == "M4":
        raise ValueError("t-distributed errors were given blq='M4'; take M3, or leave out degrees=")
    degrees = known_prior("degrees", degrees, "4")
    if isinstance(degrees, Fixed) and not 0 < degrees.value < math.inf:
        raise ValueError(
            f"degrees are fixed at {degrees.value}; they must be positive and finite: normal errors "
            f"are those of a model without degrees="
        )
    return ResidualError({**priors, "degrees": degrees}, spread)


def _sd(prior: Prior) -> Known:
    if isinstance(prior, Fixed) and not 0 <= prior.value < math.inf:
        raise ValueError(f"a value is fixed at {prior.value}; it must be 0 or more, and finite")
    return half_normal(prior)
