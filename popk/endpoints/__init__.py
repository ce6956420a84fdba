"""What else is observed, beside levels? Events, categories and counts, and hazards of events."""

from popk.endpoints.categories import binary, ordered_categories
from popk.endpoints.counts import negative_binomial, poisson, zero_inflated
from popk.endpoints.endpoint import PARAMETERS, Endpoint, distribution_of
from popk.endpoints.events import time_to_event
from popk.endpoints.hazards import (
    Hazard,
    constant_hazard,
    gompertz_hazard,
    log_logistic_hazard,
    weibull_hazard,
)
from popk.endpoints.outcomes import Outcome
from popk.endpoints.risk import FALL, Events, Risk

__all__ = [
    "FALL",
    "PARAMETERS",
    "Endpoint",
    "Events",
    "Hazard",
    "Outcome",
    "Risk",
    "binary",
    "constant_hazard",
    "distribution_of",
    "gompertz_hazard",
    "log_logistic_hazard",
    "negative_binomial",
    "ordered_categories",
    "poisson",
    "time_to_event",
    "weibull_hazard",
    "zero_inflated",
]
