"""How does it look? Matplotlib figures, which are returned and never shown."""

from popk.plots.calibration import calibration
from popk.plots.goodness import individual_fits, observed_predicted, residuals
from popk.plots.influence import covariate_forest
from popk.plots.noncompartmental import exposure_check, nca
from popk.plots.predictive import vpc
from popk.plots.sampling import forest, trace
from popk.plots.survival import kaplan_meier

__all__ = [
    "calibration", "covariate_forest", "exposure_check", "forest", "individual_fits", "kaplan_meier",
    "nca", "observed_predicted", "residuals", "trace", "vpc",
]  # fmt: skip
