"""popk: Bayesian population pharmacokinetics, from a trial's records to individual twins."""

import importlib
import os
from typing import TYPE_CHECKING, Any

import jax

if "JAX_ENABLE_X64" not in os.environ:  # the one import-time effect: single precision loses digits
    jax.config.update("jax_enable_x64", True)

if TYPE_CHECKING:
    from popk import covariates, plots, systems, testing
    from popk.advice.alarms import false_alarm_rate
    from popk.advice.dosing import Dose, optimal_dose
    from popk.advice.recommending import Advice, costs, recommend
    from popk.advice.rules import Rule, limit
    from popk.advice.sampling import Sampling, next_sample
    from popk.advice.targets import (
        Target,
        auc,
        auc_above,
        peak,
        peak_above,
        response,
        time_above,
        time_in_window,
        trough,
        trough_above,
    )
    from popk.advice.waiting import time_until_below
    from popk.advice.watching import Watch, watch
    from popk.batches.batch import run_batch
    from popk.batches.jobs import BatchError
    from popk.diagnostics.calibration import calibrate
    from popk.diagnostics.categories import vpc_categories
    from popk.diagnostics.comparison import compare
    from popk.diagnostics.cwres import cwres
    from popk.diagnostics.effects import random_effects
    from popk.diagnostics.engines import compare_engines
    from popk.diagnostics.estimates import estimates
    from popk.diagnostics.exposure_checks import exposure_check
    from popk.diagnostics.exposures import exposure, exposure_grid
    from popk.diagnostics.global_sensitivity import global_sensitivity
    from popk.diagnostics.identifiability import identifiability
    from popk.diagnostics.influence import covariate_effects
    from popk.diagnostics.learning import prior_shift
    from popk.diagnostics.npde import npde
    from popk.diagnostics.pit import pit
    from popk.diagnostics.prediction import prediction_error
    from popk.diagnostics.residuals import residuals
    from popk.diagnostics.selection import selection
    from popk.diagnostics.sensitivity import prior_sensitivity
    from popk.diagnostics.stepwise import scm
    from popk.diagnostics.subgroups import exposure_by
    from popk.diagnostics.subject_influence import subject_influence
    from popk.diagnostics.subjects_left_out import LeftOutWarning, loso
    from popk.diagnostics.summary import summary
    from popk.diagnostics.survival import follow_up, kaplan_meier
    from popk.diagnostics.vpc import vpc
    from popk.endpoints import (
        binary,
        constant_hazard,
        gompertz_hazard,
        log_logistic_hazard,
        negative_binomial,
        ordered_categories,
        poisson,
        time_to_event,
        weibull_hazard,
        zero_inflated,
    )
    from popk.inference.convergence import Convergence, ConvergenceWarning, convergence
    from popk.inference.explanation import explain
    from popk.inference.fit import fit
    from popk.inference.modes import map_estimate
    from popk.inference.objective import objective
    from popk.inference.pymc_models import pymc_model
    from popk.memory.store import TwinStore
    from popk.memory.writing import StoreError
    from popk.model.absorption import inverse_gaussian, route, transit, weibull, zero_order
    from popk.model.individual import individual
    from popk.model.missing import covariate_model
    from popk.model.mixtures import mixture
    from popk.model.parts import observe
    from popk.model.selection import candidate_effects, horseshoe
    from popk.model.sites import ModelError
    from popk.model.structures import (
        concentration,
        one_compartment,
        three_compartment,
        two_compartment,
    )
    from popk.model.systems import linear, ode
    from popk.noncompartmental import nca, nca_table
    from popk.patients.averaging import average
    from popk.patients.cohort import twins
    from popk.patients.doubts import TwinWarning
    from popk.patients.regimen import Regimen
    from popk.patients.stream import Stream
    from popk.patients.twin import Twin
    from popk.priors import fixed, lognormal, prior, prior_from
    from popk.records.table import DataError
    from popk.reports.report import report
    from popk.residual import (
        additive_error,
        autocorrelated_error,
        box_cox_error,
        combined_error,
        lognormal_error,
        power_error,
        proportional_error,
        yeo_johnson_error,
    )
    from popk.runs import Run, RunError, open_run, save_run
    from popk.simulation import predict, predict_at, prior_draws
    from popk.testing.gradients import check_gradient
    from popk.trial import Trial, read_nonmem, replace_blq
    from popk.units import UnitError
    from popk.variability import box_cox, logit_between

#: The public surface: each name and the room that it lives in, imported when it is first used.
_ROOMS = {
    "Advice": "advice.recommending",
    "BatchError": "batches.jobs",
    "Convergence": "inference.convergence",
    "ConvergenceWarning": "inference.convergence",
    "DataError": "records.table",
    "Dose": "advice.dosing",
    "LeftOutWarning": "diagnostics.subjects_left_out",
    "ModelError": "model.sites",
    "Regimen": "patients.regimen",
    "Rule": "advice.rules",
    "Run": "runs",
    "RunError": "runs",
    "Sampling": "advice.sampling",
    "StoreError": "memory.writing",
    "Target": "advice.targets",
    "Trial": "trial",
    "Stream": "patients.stream",
    "Twin": "patients.twin",
    "TwinStore": "memory.store",
    "TwinWarning": "patients.doubts",
    "UnitError": "units",
    "Watch": "advice.watching",
    "additive_error": "residual",
    "auc": "advice.targets",
    "auc_above": "advice.targets",
    "autocorrelated_error": "residual",
    "average": "patients.averaging",
    "binary": "endpoints",
    "box_cox": "variability",
    "box_cox_error": "residual",
    "calibrate": "diagnostics.calibration",
    "candidate_effects": "model.selection",
    "check_gradient": "testing.gradients",
    "combined_error": "residual",
    "compare": "diagnostics.comparison",
    "compare_engines": "diagnostics.engines",
    "concentration": "model.structures",
    "constant_hazard": "endpoints",
    "convergence": "inference.convergence",
    "costs": "advice.recommending",
    "covariate_effects": "diagnostics.influence",
    "covariate_model": "model.missing",
    "cwres": "diagnostics.cwres",
    "estimates": "diagnostics.estimates",
    "explain": "inference.explanation",
    "exposure": "diagnostics.exposures",
    "exposure_by": "diagnostics.subgroups",
    "exposure_check": "diagnostics.exposure_checks",
    "exposure_grid": "diagnostics.exposures",
    "false_alarm_rate": "advice.alarms",
    "fit": "inference.fit",
    "fixed": "priors",
    "follow_up": "diagnostics.survival",
    "global_sensitivity": "diagnostics.global_sensitivity",
    "gompertz_hazard": "endpoints",
    "horseshoe": "model.selection",
    "identifiability": "diagnostics.identifiability",
    "individual": "model.individual",
    "inverse_gaussian": "model.absorption",
    "kaplan_meier": "diagnostics.survival",
    "limit": "advice.rules",
    "linear": "model.systems",
    "log_logistic_hazard": "endpoints",
    "logit_between": "variability",
    "lognormal": "priors",
    "lognormal_error": "residual",
    "loso": "diagnostics.subjects_left_out",
    "map_estimate": "inference.modes",
    "mixture": "model.mixtures",
    "nca": "noncompartmental",
    "nca_table": "noncompartmental",
    "negative_binomial": "endpoints",
    "npde": "diagnostics.npde",
    "next_sample": "advice.sampling",
    "objective": "inference.objective",
    "observe": "model.parts",
    "ode": "model.systems",
    "one_compartment": "model.structures",
    "open_run": "runs",
    "optimal_dose": "advice.dosing",
    "ordered_categories": "endpoints",
    "pit": "diagnostics.pit",
    "peak": "advice.targets",
    "peak_above": "advice.targets",
    "poisson": "endpoints",
    "power_error": "residual",
    "predict": "simulation",
    "predict_at": "simulation",
    "prediction_error": "diagnostics.prediction",
    "prior": "priors",
    "prior_draws": "simulation",
    "prior_from": "priors",
    "prior_sensitivity": "diagnostics.sensitivity",
    "prior_shift": "diagnostics.learning",
    "proportional_error": "residual",
    "pymc_model": "inference.pymc_models",
    "random_effects": "diagnostics.effects",
    "read_nonmem": "trial",
    "recommend": "advice.recommending",
    "replace_blq": "trial",
    "report": "reports.report",
    "residuals": "diagnostics.residuals",
    "response": "advice.targets",
    "route": "model.absorption",
    "run_batch": "batches.batch",
    "save_run": "runs",
    "scm": "diagnostics.stepwise",
    "selection": "diagnostics.selection",
    "subject_influence": "diagnostics.subject_influence",
    "summary": "diagnostics.summary",
    "three_compartment": "model.structures",
    "time_above": "advice.targets",
    "time_in_window": "advice.targets",
    "time_to_event": "endpoints",
    "time_until_below": "advice.waiting",
    "transit": "model.absorption",
    "trough": "advice.targets",
    "trough_above": "advice.targets",
    "twins": "patients.cohort",
    "two_compartment": "model.structures",
    "vpc": "diagnostics.vpc",
    "vpc_categories": "diagnostics.categories",
    "watch": "advice.watching",
    "weibull": "model.absorption",
    "weibull_hazard": "endpoints",
    "yeo_johnson_error": "residual",
    "zero_inflated": "endpoints",
    "zero_order": "model.absorption",
}

__all__ = [
    "Advice", "BatchError", "Convergence", "ConvergenceWarning", "DataError", "Dose",
    "LeftOutWarning", "ModelError", "Regimen", "Rule", "Run", "RunError", "Sampling",
    "StoreError", "Stream", "Target", "Trial", "Twin", "TwinStore", "TwinWarning", "UnitError", "Watch",
    "additive_error", "auc", "auc_above", "autocorrelated_error", "average", "binary",
    "box_cox", "box_cox_error", "calibrate", "candidate_effects", "check_gradient",
    "combined_error", "compare", "compare_engines", "concentration", "constant_hazard",
    "convergence", "costs", "covariate_effects", "covariate_model", "covariates", "cwres",
    "estimates", "explain", "exposure", "exposure_by", "exposure_check", "exposure_grid",
    "false_alarm_rate", "fit", "fixed", "follow_up", "global_sensitivity", "gompertz_hazard",
    "horseshoe", "identifiability", "individual", "inverse_gaussian", "kaplan_meier", "limit",
    "linear", "log_logistic_hazard", "logit_between", "lognormal", "lognormal_error", "loso",
    "map_estimate", "mixture", "nca", "nca_table", "negative_binomial", "next_sample", "npde",
    "objective", "observe", "ode", "one_compartment", "open_run", "optimal_dose",
    "ordered_categories", "peak", "peak_above", "pit", "plots", "poisson", "power_error",
    "predict", "predict_at", "prediction_error", "prior", "prior_draws", "prior_from",
    "prior_sensitivity", "prior_shift", "proportional_error", "pymc_model", "random_effects",
    "read_nonmem", "recommend", "replace_blq", "report", "residuals", "response", "route",
    "run_batch", "save_run", "scm", "selection", "subject_influence", "summary", "systems",
    "testing", "three_compartment", "time_above", "time_in_window", "time_to_event",
    "time_until_below", "transit", "trough", "trough_above", "twins", "two_compartment", "vpc",
    "vpc_categories", "watch", "weibull", "weibull_hazard", "yeo_johnson_error",
    "zero_inflated", "zero_order",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Return a public name, imported from its room on first use."""
    if name in ("covariates", "plots", "systems", "testing"):
        return importlib.import_module(f"popk.{name}")
    if name not in _ROOMS:
        raise AttributeError(f"module 'popk' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"popk.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
