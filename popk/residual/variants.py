r"""How else may errors be distributed? Transformed on both sides by a power, or correlated in time.

References
----------
.. [1] Dosne AG, Bergstrand M, Karlsson MO (2016). A strategy for residual error modeling
   incorporating scedasticity of variance and distribution shape. J Pharmacokinet Pharmacodyn
   43:137-151. doi:10.1007/s10928-015-9460-y
.. [2] Karlsson MO, Beal SL, Sheiner LB (1995). Three new residual error models for population PK/PD
   analyses. J Pharmacokinet Biopharm 23:651-672. doi:10.1007/BF02353466
"""

import math
from typing import Any

from popk.priors import Fixed, Known, Prior, half_normal, known_prior
from popk.residual.errors import ResidualError
from popk.residual.transforms import BOX_COX, IDENTITY, YEO_JOHNSON, Transform


def box_cox_error(error: ResidualError, power: Known) -> ResidualError:
    r"""Return an error model whose errors are normal after Box and Cox's transformation of both sides.

    .. math:: g(y) = \frac{y^\lambda - 1}{\lambda}, \quad g(y) = \log y \text{ at } \lambda = 0,
        \qquad g(y) \sim N(g(f), s(f)^2)

    Levels are positive, so g(y) lies above -1/lambda (below it where lambda < 0): the normal
    distribution is cut there, and its density rescaled. s is on the transformed scale, a function of
    the prediction f itself.

    Parameters
    ----------
    error : ResidualError
        `additive_error`, `proportional_error`, `combined_error` or `power_error`.
    power : Distribution or Fixed
        Prior of lambda, or ``popk.fixed(0.5)``; 1 leaves the scale as it is [pure number].

    Raises
    ------
    ValueError
        A bare number, or an error model that is transformed, t-distributed or autocorrelated.

    References
    ----------
    .. [1] Box GEP, Cox DR (1964). An analysis of transformations. J R Stat Soc B 26:211-252.
       doi:10.1111/j.2517-6161.1964.tb00553.x
    .. [2] Dosne AG, Bergstrand M, Karlsson MO (2016). A strategy for residual error modeling
       incorporating scedasticity of variance and distribution shape. J Pharmacokinet Pharmacodyn
       43:137-151. doi:10.1007/s10928-015-9460-y
    """
    return _transformed("box_cox_error", error, power, BOX_COX)


def yeo_johnson_error(error: ResidualError, power: Known) -> ResidualError:
    r"""Return an error model whose errors are normal after Yeo and Johnson's transformation of both sides.

    .. math:: g(y) = \frac{(y + 1)^\lambda - 1}{\lambda} \;(y \ge 0), \qquad
        g(y) = -\frac{(1 - y)^{2 - \lambda} - 1}{2 - \lambda} \;(y < 0)

    with logarithms at lambda = 0 and 2. Levels may be of either sign. The transformation depends on
    the unit of DV, in which 1 is added. Outside of lambda from 0 to 2 the normal distribution is cut
    where g ends, and its density rescaled. s is on the transformed scale, a function of f itself.

    Parameters
    ----------
    error : ResidualError
        `additive_error`, `proportional_error`, `combined_error` or `power_error`.
    power : Distribution or Fixed
        Prior of lambda, or ``popk.fixed(0.5)``; 1 leaves the scale as it is [pure number].

    Raises
    ------
    ValueError
        A bare number, or an error model that is transformed, t-distributed or autocorrelated.

    References
    ----------
    .. [1] Yeo IK, Johnson RA (2000). A new family of power transformations to improve normality or
       symmetry. Biometrika 87:954-959. doi:10.1093/biomet/87.4.954
    """
    return _transformed("yeo_johnson_error", error, power, YEO_JOHNSON)


def autocorrelated_error(error: ResidualError, rate: Prior) -> ResidualError:
    r"""Return an error model whose errors are correlated within subjects, less with time between them.

    .. math:: \mathrm{corr}(\epsilon_j, \epsilon_k) = e^{-\kappa |t_j - t_k|}

    The first-order autoregressive process in continuous time. Levels at the same moment have
    independent errors. Neither levels below a limit nor the Laplace approximation of random effects
    can be combined with it.

    Parameters
    ----------
    error : ResidualError
        One with normal errors: `additive_error`, `proportional_error`, `combined_error`,
        `power_error` or `lognormal_error`.
    rate : float, Distribution or Fixed
        Scale of the half-normal prior of kappa, or its prior, or ``popk.fixed(...)`` [1/time].

    Raises
    ------
    ValueError
        A rate that is not positive, or errors that are t-distributed, transformed by a power, cut
        at 0 (M4) or autocorrelated already.

    References
    ----------
    .. [1] Karlsson MO, Beal SL, Sheiner LB (1995). Three new residual error models for population
       PK/PD analyses. J Pharmacokinet Biopharm 23:651-672. doi:10.1007/BF02353466
    """
    if error.autocorrelated or error.heavy_tailed or error.transform.ends or error.blq == "M4":
        raise ValueError(
            f"autocorrelated_error() was given an error model with {_says(error)}; it takes normal errors, "
            f"as in popk.autocorrelated_error(popk.combined_error(0.5, 0.2), 1.0)"
        )
    if isinstance(rate, Fixed) and not 0 < rate.value < math.inf:
        raise ValueError(f"the rate is fixed at {rate.value}; it must be positive and finite")
    return error._replace(priors={**error.priors, "rate": half_normal(rate)})


def _transformed(
    name: str, error: ResidualError, power: Any, transform: Transform
) -> ResidualError:
    if error.transform != IDENTITY or error.heavy_tailed or error.autocorrelated:
        raise ValueError(
            f"{name}() was given an error model with {_says(error)}; it takes normal errors on the "
            f"scale of the levels, as in popk.{name}(popk.additive_error(0.5), popk.fixed(0.5))"
        )
    power = known_prior("power", power, "0.5")
    if isinstance(power, Fixed) and not math.isfinite(power.value):
        raise ValueError(f"power is fixed at {power.value}; it must be finite")
    return error._replace(priors={**error.priors, "lambda": power}, transform=transform)


def _says(error: ResidualError) -> str:
    """Return what an error model has beside a standard deviation."""
    has = {
        "t-distributed errors": error.heavy_tailed,
        "autocorrelated errors": error.autocorrelated,
        "errors on the log scale": error.log,
        "a power transformation": error.transform.ends is not None,
        "errors cut at 0 (M4)": error.blq == "M4",
    }
    return ", ".join(what for what, present in has.items() if present)
