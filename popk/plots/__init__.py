"""How does it look? Matplotlib figures, which are returned and never shown."""

from popk.plots.advice import advice
from popk.plots.calibration import calibration
from popk.plots.effects import eta_correlation, eta_covariates, eta_distributions
from popk.plots.errors import coverage, cwres, npde
from popk.plots.goodness import individual_fits, observed_predicted, residuals
from popk.plots.influence import covariate_forest
from popk.plots.learning import prior_posterior, subject_influence
from popk.plots.noncompartmental import exposure_check, nca
from popk.plots.patients import twin
from popk.plots.predictive import vpc, vpc_categories
from popk.plots.sampling import forest, trace
from popk.plots.survival import kaplan_meier

__all__ = [
    "advice", "calibration", "covariate_forest", "coverage", "cwres", "eta_correlation",
    "eta_covariates", "eta_distributions", "exposure_check", "forest", "individual_fits",
    "kaplan_meier", "nca", "npde", "observed_predicted", "prior_posterior", "residuals",
    "subject_influence", "trace", "twin", "vpc", "vpc_categories",
]  # fmt: skip
