"""How do people's characteristics change a parameter? Size, age, kidney, liver and genes."""

from popk.covariates.effects import categorical, emax, exponential, linear, piecewise, power
from popk.covariates.genotype import (
    Genotype,
    Phenotypes,
    monotone,
    phenotype,
    phenotype_levels,
    phenotypes,
)
from popk.covariates.hepatic import (
    albi_grade,
    albi_score,
    by_class,
    child_pugh_class,
    child_pugh_score,
    nci_odwg_class,
)
from popk.covariates.maturation import (
    asymptotic,
    normal_filtration_rate,
    post_menstrual_age,
    renal_maturation,
    sigmoid,
    size_and_maturation,
)
from popk.covariates.renal import ckd_epi_2021, cockcroft_gault, deindexed, schwartz_2009
from popk.covariates.size import (
    allometry,
    body_mass_index,
    body_surface_area,
    fat_free_mass,
    lean_body_weight,
)

__all__ = [
    "Genotype", "Phenotypes", "albi_grade", "albi_score", "allometry", "asymptotic",
    "body_mass_index", "body_surface_area", "by_class", "categorical", "child_pugh_class",
    "child_pugh_score", "ckd_epi_2021", "cockcroft_gault", "deindexed", "emax", "exponential",
    "fat_free_mass", "lean_body_weight", "linear", "monotone", "nci_odwg_class",
    "normal_filtration_rate", "phenotype", "phenotype_levels", "phenotypes", "piecewise",
    "post_menstrual_age", "power", "renal_maturation", "schwartz_2009", "sigmoid",
    "size_and_maturation",
]  # fmt: skip
