"""What is a prior in PyMC? NumPyro's distributions, one by one."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pymc as pm

from popk.inference.transcript import Prior, refuse


class Family(NamedTuple):
    """PyMC's counterpart of a family of distributions.

    Attributes
    ----------
    make : Callable
        A PyMC distribution.
    names : dict of str to str
        PyMC's name of each parameter of NumPyro's.
    """

    make: Callable[..., Any]
    names: dict[str, str]


#: By the name of NumPyro's distribution.
FAMILIES: Mapping[str, Family] = {
    "Beta": Family(pm.Beta, {"concentration1": "alpha", "concentration0": "beta"}),
    "Cauchy": Family(pm.Cauchy, {"loc": "alpha", "scale": "beta"}),
    "Exponential": Family(pm.Exponential, {"rate": "lam"}),
    "Gamma": Family(pm.Gamma, {"concentration": "alpha", "rate": "beta"}),
    "HalfCauchy": Family(pm.HalfCauchy, {"scale": "beta"}),
    "HalfNormal": Family(pm.HalfNormal, {"scale": "sigma"}),
    "InverseGamma": Family(pm.InverseGamma, {"concentration": "alpha", "rate": "beta"}),
    "Laplace": Family(pm.Laplace, {"loc": "mu", "scale": "b"}),
    "Logistic": Family(pm.Logistic, {"loc": "mu", "scale": "s"}),
    "LogNormal": Family(pm.LogNormal, {"loc": "mu", "scale": "sigma"}),
    "Normal": Family(pm.Normal, {"loc": "mu", "scale": "sigma"}),
    "StudentT": Family(pm.StudentT, {"df": "nu", "loc": "mu", "scale": "sigma"}),
    "TruncatedNormal": Family(
        pm.TruncatedNormal, {"loc": "mu", "scale": "sigma", "low": "lower", "high": "upper"}
    ),
    "Uniform": Family(pm.Uniform, {"low": "lower", "high": "upper"}),
    "Weibull": Family(pm.Weibull, {"concentration": "alpha", "scale": "beta"}),
}


def sampled(name: str, prior: Prior, given: Mapping[str, Any], dims: tuple[str, ...]) -> Any:
    """Return a population value that PyMC samples, inside of a PyMC model.

    Parameters
    ----------
    name : str
    prior : Prior
    given : mapping of str to TensorVariable
        The values of the prior's parameters, by NumPyro's names.
    dims : tuple of str
        Its axes.

    Raises
    ------
    ModelError
        PyMC has no such distribution here.
    """
    if prior.family not in FAMILIES:
        refuse(
            f"the prior of {name}, a {prior.family}",
            f"it knows {', '.join(FAMILIES)}, and LKJ for correlations",
        )
    make, names = FAMILIES[prior.family]
    return make(name, **{names[n]: value for n, value in given.items()}, dims=dims or None)


def correlations(name: str, size: int, concentration: Any, dims: tuple[str, ...]) -> Any:
    """Return the Cholesky factor of a correlation matrix with an LKJ prior, inside of a PyMC model.

    The factor is sampled, ``corr_cholesky``, and the matrix recorded, ``corr``.

    Parameters
    ----------
    name : str
        Of the matrix.
    size : int
        How many rows it has.
    concentration : float
    dims : tuple of str
        Its axes.
    """
    factor: Any = pm.LKJCorr(f"{name}_cholesky", n=size, eta=concentration)
    pm.Deterministic(name, factor @ factor.T, dims=dims)
    return factor
