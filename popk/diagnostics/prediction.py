r"""How far off is a prediction? Bias, precision and fold error in people that the fit does not know.

References
----------
.. [1] Sheiner LB, Beal SL (1981). Some suggestions for measuring predictive performance.
   J Pharmacokinet Biopharm 9:503-512. doi:10.1007/BF01060893
.. [2] Obach RS, Baxter JG, Liston TE, et al. (1997). The prediction of human pharmacokinetic parameters
   from preclinical and in vitro metabolism data. J Pharmacol Exp Ther 283:46-58.
.. [3] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

from functools import partial
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

from popk.diagnostics.kinds import outcomes_of
from popk.diagnostics.subjects_left_out import likelihoods_of_subjects
from popk.inference.compilation import keep_compiled
from popk.inference.importance import smoothed, weighted
from popk.inference.laplace import individualized, subject_layout
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, ModelError, describe, values_of
from popk.simulation import posterior_values, predict
from popk.trial import Trial

#: Above it the weights of a subject that is left out cannot be trusted [3].
MAX_PARETO_K = 0.7


def prediction_error(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    external: Trial | None = None,
    within: float = 30.0,
    draws: int = 992,
    individual_draws: int = 64,
    seed: int = 1,
) -> pd.DataFrame:
    r"""Return how far predictions of subjects that the fit does not know are from their levels.

    Over the n quantified levels y with predictions f [1]_,

    .. math:: \mathrm{bias} = \frac1n \sum (f - y), \qquad
        \mathrm{RMSE} = \sqrt{\frac1n \sum (f - y)^2}

    and over those that are positive, with f positive as well,

    .. math:: \mathrm{bias\%} = \frac{100}n \sum \frac{f - y}y, \qquad
        \mathrm{RMSE\%} = 100 \sqrt{\frac1n \sum \Big(\frac{f - y}y\Big)^2}, \qquad
        \mathrm{GMFE} = \exp\Big(\frac1n \sum |\ln f - \ln y|\Big)

    the last one the geometric mean fold error [2]_. Without `external`, each subject is left out of
    the posterior in turn by Pareto-smoothed weights :math:`\propto 1 / p(y_i \mid \theta)`, as in
    `popk.loso` [3]_: the population has learned nothing from the subject that is predicted.

    Parameters
    ----------
    model : Callable
        With random effects for each subject.
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        That of the fit.
    external : Trial, optional
        Other subjects, who are predicted in the place of those of the trial.
    within : float
        Which percentage of y a prediction is to lie within, in "within 30%".
    draws : int
        How many posterior draws to use, spread evenly.
    individual_draws : int
        How many draws of a subject's random effects there are for each of them; even.
    seed : int
        Of these.

    Returns
    -------
    DataFrame
        Rows ``PRED`` (the typical value for the subject's doses and covariates: before any level is
        known) and ``IPRED`` (the subject's own levels known, the population's values not learned from
        them), each a posterior median. Columns ``levels``, ``bias`` and ``RMSE`` [unit of DV], ``bias%``,
        ``RMSE%``, ``within 30%`` [% of levels] and ``GMFE``. ``attrs``: ``unit``, ``of`` ("left out" or
        "external"), ``relative`` (how many levels the relative columns are of), and ``doubtful``, the
        subjects whose Pareto k is above 0.7.

    Raises
    ------
    ModelError
        As `popk.loso` does; or the trial has no quantified level, or an external one of a model with
        classes.
    ValueError
        `within` is not positive, or there are too few draws.

    Examples
    --------
    >>> popk.prediction_error(model, posterior, trial).loc["PRED", "GMFE"]  # doctest: +SKIP
    """
    if not within > 0 or draws < 100 or individual_draws < 2 or individual_draws % 2:
        raise ValueError(
            f"within is {within}, draws {draws} and individual_draws {individual_draws}; they must be "
            f"positive, at least 100, and an even number of at least 2"
        )
    keep_compiled()
    options = (draws, individual_draws, seed)
    doubtful: list[str] = []
    if external is None:
        found, doubtful = _left_out(model, posterior, trial, options)
    else:
        found = _external(model, posterior, external, options)
    of = trial if external is None else external
    levels = np.asarray(of.observations.exact) & ~of_kinds(of, found.pop("outcomes"))
    if not levels.any():
        raise ModelError(f"{of.host.name} has no quantified level to compare a prediction with")
    observed = np.asarray(of.observations.value)[levels]
    rows = {name: errors(observed, f[levels], within) for name, f in found.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("prediction")
    table = table.astype({"levels": int})
    table.attrs = {
        "unit": of.units["DV"], "of": "left out" if external is None else "external",
        "relative": int((observed > 0).sum()), "doubtful": doubtful,
    }  # fmt: skip
    return table


def errors(observed: np.ndarray, predicted: np.ndarray, within: float = 30.0) -> dict[str, float]:
    """Return the errors of predictions; see `prediction_error`.

    Parameters
    ----------
    observed, predicted : Float[ndarray, "level"]
        In one unit.
    within : float
        [%]
    """
    off, positive = predicted - observed, (observed > 0) & (predicted > 0)
    share = off[observed > 0] / observed[observed > 0]
    fold = np.abs(np.log(predicted[positive] / observed[positive]))
    known = share.size > 0
    return {
        "levels": observed.size,
        "bias": float(off.mean()),
        "RMSE": float(np.sqrt((off**2).mean())),
        "bias%": float(100 * share.mean()) if known else np.nan,
        "RMSE%": float(100 * np.sqrt((share**2).mean())) if known else np.nan,
        f"within {within:g}%": float(100 * (np.abs(share) <= within / 100).mean())
        if known
        else np.nan,
        "GMFE": float(np.exp(fold.mean())) if fold.size else np.nan,
    }


def _left_out(
    model: Model, posterior: xr.DataTree, trial: Trial, options: tuple[int, int, int]
) -> tuple[dict[str, Any], list[str]]:
    """Return medians of the predictions of each subject, weighted to a posterior without it."""
    logs, _ = likelihoods_of_subjects(model, posterior, trial, options)
    simulated = predict(model, posterior, trial, seed=options[2], draws=options[0])
    group = simulated["posterior_predictive"].dataset
    subject = np.asarray(trial.observations.subject)
    draws = {n: group[n].transpose("sample", "observation").values for n in ("PRED", "IPRED")}
    found, doubtful = {n: np.empty(x.shape[1]) for n, x in draws.items()}, []
    for i, who in enumerate(trial.ids):
        weights, pareto_k = smoothed(-logs[:, i])
        doubtful += [who] if pareto_k > MAX_PARETO_K else []
        own = subject == i
        for name, values in draws.items():
            found[name][own] = weighted_median(values[:, own], weights)
    return {**found, "outcomes": outcomes_of(simulated)}, doubtful


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the medians of weighted draws.

    Parameters
    ----------
    values : Float[ndarray, "sample observation"]
    weights : Float[ndarray, "sample"]
        They sum to 1.
    """
    order = np.argsort(values, axis=0)
    reached = np.cumsum(weights[order], axis=0) >= 0.5
    place = order[reached.argmax(0), np.arange(values.shape[1])]
    return values[place, np.arange(values.shape[1])]


def _external(
    model: Model, posterior: xr.DataTree, trial: Trial, options: tuple[int, int, int]
) -> dict[str, Any]:
    """Return medians of the predictions of subjects that the posterior does not know."""
    sites = describe(model, trial)
    if sites.classes:
        raise ModelError(
            "the model has classes, of which an external subject may be any; leave subjects of the fit out "
            "instead (external=None)"
        )
    draws, count, seed = options
    simulated = predict(model, posterior, trial, seed=seed, draws=draws, new_subjects=True)
    population = posterior_values(posterior, sites, trial, new_subjects=True, draws=draws)
    keys = jax.random.split(jax.random.key(seed), len(next(iter(population.values()))))
    plan = subject_layout(model, trial)
    each = _conditional(model, plan, trial.by_subject(), population, keys, count=count)
    o = trial.observations
    subject = np.asarray(o.subject)
    place = pd.Series(subject).groupby(subject).cumcount().to_numpy()
    ipred = np.asarray(each)[:, subject, place]
    group = simulated["posterior_predictive"].dataset
    return {
        "PRED": np.asarray(group["PRED"].median("sample")),
        "IPRED": np.median(ipred, axis=0),
        "outcomes": outcomes_of(simulated),
    }


@partial(jax.jit, static_argnames=("model", "plan", "count"))
def _conditional(model, plan, stacked, population, keys, *, count):
    """Return individual predictions [sample, subject, observation], one draw of effects for each."""

    def at(x):
        values, key = x
        one = jax.tree.map(lambda v: v[None], (values, key))

        def own(arrays):
            vectors, logs = weighted(model, plan, arrays, *one, count=count)
            vectors, logs = vectors[0, 0], logs[0, 0]
            chosen = jax.random.categorical(jax.random.fold_in(key, 1), logs)
            given, _ = individualized(model, plan, values, vectors[chosen])
            return values_of(given, arrays, {}, key)["prediction"]

        return jax.vmap(own)(stacked)

    return jax.lax.map(at, (population, keys), batch_size=16)
