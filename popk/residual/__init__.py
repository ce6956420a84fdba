"""How do measurements differ? Residual error models, and levels known only to lie somewhere."""

from popk.residual.errors import (
    ResidualError,
    additive_error,
    combined_error,
    lognormal_error,
    power_error,
    proportional_error,
)
from popk.residual.levels import Level, Residual, Sigmas
from popk.residual.mixtures import Mixed
from popk.residual.pairs import Paired
from popk.residual.variants import autocorrelated_error, box_cox_error, yeo_johnson_error

__all__ = [
    "Level",
    "Mixed",
    "Paired",
    "Residual",
    "ResidualError",
    "Sigmas",
    "additive_error",
    "autocorrelated_error",
    "box_cox_error",
    "combined_error",
    "lognormal_error",
    "power_error",
    "proportional_error",
    "yeo_johnson_error",
]
