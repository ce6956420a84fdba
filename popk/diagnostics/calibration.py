r"""Does the sampler tell the truth about this model? Simulation-based calibration.

A truth drawn from the prior, and the posterior's draws given levels simulated from that truth, are draws
of one and the same distribution: among them the truth may have any rank, each as probable as the other.

References
----------
.. [1] Talts S, Betancourt M, Simpson D, Vehtari A, Gelman A (2018). Validating Bayesian inference
   algorithms with simulation-based calibration. doi:10.48550/arXiv.1804.06788
.. [2] Säilynoja T, Bürkner PC, Vehtari A (2022). Graphical test for discrete uniformity and its
   applications in goodness-of-fit evaluation and multiple sample comparison. Stat Comput 32:32.
   doi:10.1007/s11222-022-10090-6
.. [3] Modrák M, Moon AH, Kim S, Bürkner P, Huurre N, Faltejsková K, Gelman A, Vehtari A (2023).
   Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
   sensitivity. Bayesian Anal. doi:10.1214/23-BA1404
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import track

from popk.diagnostics.levels import limits_of
from popk.diagnostics.replicates import Replicate, Task, replicates
from popk.diagnostics.uniformity import adjusted, p_value
from popk.inference.convergence import ConvergenceWarning
from popk.inference.fit import METHODS, fit
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, ModelError, describe
from popk.trial import Trial

#: Chains of a replicate are short, and R-hat of short chains scatters: `convergence` asks for 1.01.
MAX_RHAT = 1.05
#: Of the fits, where nothing else is said.
SHORT = {"nuts": {"chains": 2, "warmup": 300, "draws": 500}}


def calibrate(
    model: Model,
    trial: Trial,
    *,
    seed: int,
    replicates: int = 200,
    method: str = "nuts",
    options: Mapping[str, Any] | None = None,
    simulate: Model | None = None,
    ranks: int = 99,
    limit: float | None = None,
    processes: int = 1,
    progress: bool = True,
) -> xr.Dataset:
    """Return where truths drawn from the prior stand among the draws of their posteriors.

    Each replicate draws population values, subjects and levels from the model, on the trial's own doses,
    records and covariates; levels beyond a limit of quantification become records beyond it. All are
    fitted by one compiled program. If the model, its priors and the sampler are right, ranks are
    uniform [1]_; that they are is tested by the farthest point of their distribution [2]_. The joint
    log-likelihood is ranked as well: it tells what no parameter alone does, such as levels that the fit
    ignores [3]_.

    Parameters
    ----------
    model : Callable
        With proper priors that can be drawn from.
    trial : Trial
        The design. Its levels play no part, beyond which of its records have one.
    seed : int
    replicates : int
        How many trials are simulated and fitted.
    method : str
        Of `popk.fit`.
    options : mapping, optional
        What else `popk.fit` is told, ``{"chains": 2, "warmup": 500}``. By default NUTS runs 2 chains of
        300 steps of warm-up and 500 draws.
    simulate : Callable, optional
        The model that trials are simulated from, where it is another: what happens to the ranks when
        the model is wrong in a way that one has in mind. Parameters that both have are ranked.
    ranks : int
        How many draws of each posterior the truth is ranked among, spread evenly over its chains. Where
        the effective sample size of a replicate is less, they are not independent.
    limit : float, optional
        The lower limit of quantification [unit of DV], where it is not the records' own; a record
        without one has the most common one of the trial.
    processes : int
        Among how many processes the replicates are dealt out. Each compiles for itself and has to find
        the model in a module or model file; a script needs its ``if __name__ == "__main__"``.
    progress : bool
        Whether to show a progress bar, with one process.

    Returns
    -------
    Dataset
        ``rank`` and ``truth`` (replicate, parameter), the ranks 0 to `ranks` and NaN where there was no
        fit; ``p_value`` that they are uniform, and ``p_adjusted`` for so many parameters (Holm's);
        ``rhat``, ``ess``, ``divergences``, ``converged`` (R-hat at most 1.05, ESS at least `ranks`),
        ``failure`` and ``beyond``, the share of levels beyond a limit (replicate). Replicates that did
        not converge are tested with the others: to leave them out makes ranks uneven by itself.

    Raises
    ------
    ModelError
        The model cannot be used with the trial, observes events or levels known to lie in an interval,
        has no parameter in common with `simulate`, or cannot be found by other processes; or no
        replicate could be fitted.
    ValueError
        A number is too small, `popk.fit` has no such method or option, or the limit is not positive.

    Warns
    -----
    ConvergenceWarning
        Replicates did not converge, or could not be fitted.

    Examples
    --------
    >>> calibrated = popk.calibrate(model, trial, seed=1, replicates=200)  # doctest: +SKIP
    >>> calibrated["p_adjusted"].to_series()  # doctest: +SKIP
    >>> popk.plots.calibration(calibrated)  # doctest: +SKIP
    """
    if min(replicates - 1, ranks, processes) < 1:
        raise ValueError(
            f"replicates={replicates}, ranks={ranks}, processes={processes}; give at least 2 replicates, "
            f"and at least 1 of the others"
        )
    task = Task(
        model, simulate or model, trial, _limits(model, trial, limit), ranks,
        method, _options(method, options), seed,
    )  # fmt: skip
    _check(task)
    done = _ended(task, replicates, processes, progress)
    if not any(one.rank for one in done):
        raise ModelError(f"no replicate could be fitted: {done[0].failure or 'nothing is common'}")
    found = _dataset(task, done)
    _warn(found)
    return found


def _options(method: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of the fits; refuse those that `popk.fit` does not take."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    given = {**SHORT.get(method, {}), **(options or {})}
    known = set(inspect.signature(fit).parameters)
    known -= {"model", "trial", "seed", "method", "progress"}
    if strange := sorted(set(given) - known):
        raise ValueError(
            f"options has {', '.join(strange)}; popk.fit is told {', '.join(sorted(known))}"
        )
    return given


def _limits(model: Model, trial: Trial, limit: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits of quantification of each record with EVID 0; outcomes have none."""
    if limit is not None and not limit > 0:
        raise ValueError(f"limit is {limit}; a limit of quantification is positive")
    outcomes = of_kinds(trial, describe(model, trial).outcomes)
    low = limits_of(trial, "LLOQ", -np.inf) if limit is None else np.full(len(outcomes), limit)
    high = limits_of(trial, "ULOQ", np.inf)
    return np.where(outcomes, -np.inf, low), np.where(outcomes, np.inf, high)


def _check(task: Task) -> None:
    """Refuse what cannot be simulated, or what nothing can be learned from."""
    sites, o = describe(task.model, task.design), task.design.observations
    others = describe(task.simulate, task.design)
    for name, asked in sites.unseen.items():
        raise ModelError(
            f"{name} stands for levels {asked}, and the trial has none to fit".rstrip()
        )
    if any(e.name == "events" for e in (*sites.endpoints.values(), *others.endpoints.values())):
        raise ModelError(
            "the model observes events, and how long simulated subjects would be followed up is not "
            "known from the records; calibrate a model of levels, counts or categories"
        )
    if (np.asarray(o.measured) & o.below & o.above).any():
        raise ModelError(
            "levels are known to lie in an interval, whose ends a simulated level does not have; set MDV 1 "
            "there, or leave ALQ and ULOQ out"
        )
    if not np.asarray(o.measured).any():
        raise ModelError("the trial has no level with MDV 0; a design says where levels are taken")
    if not set(sites.named("population")) & set(others.named("population")):
        raise ModelError(
            f"the models have no population parameter in common: one samples "
            f"{', '.join(sites.named('population'))}, the other {', '.join(others.named('population'))}"
        )


def _ended(task: Task, count: int, processes: int, progress: bool) -> list[Replicate]:
    """Return all replicates, in their own order."""
    ending = replicates(task, count, min(processes, count))
    shown = track(
        ending, "calibrating", count, console=Console(stderr=True),
        disable=not progress or processes > 1,
    )  # fmt: skip
    return sorted(shown, key=lambda one: one.number)


def _dataset(task: Task, done: Sequence[Replicate]) -> xr.Dataset:
    """Return what came of all replicates."""
    names = next(list(one.rank) for one in done if one.rank)
    blank = dict.fromkeys(names, np.nan)
    rank, truth = (
        np.array([list({**blank, **values}.values()) for values in column])
        for column in ([one.rank for one in done], [one.truth for one in done])
    )
    fitted = ~np.isnan(rank[:, 0])
    p = np.array([p_value(column[fitted], task.ranks) for column in rank.T])
    rhat, ess = (np.array([getattr(one, n) for one in done]) for n in ("rhat", "ess"))
    each = {
        "rhat": rhat, "ess": ess, "divergences": np.array([one.divergences for one in done]),
        "converged": (rhat <= MAX_RHAT) & (ess >= task.ranks),
        "failure": np.array([one.failure for one in done], dtype=str),
        "beyond": np.array([one.beyond for one in done]),
    }  # fmt: skip
    both = ("replicate", "parameter")
    return xr.Dataset(
        {
            "rank": (both, rank), "truth": (both, truth),
            "p_value": ("parameter", p), "p_adjusted": ("parameter", adjusted(p)),
            **{name: ("replicate", values) for name, values in each.items()},
        },
        coords={"replicate": np.arange(len(done)), "parameter": names},
        attrs={
            "ranks": task.ranks, "method": task.method, "seed": task.seed,
            "model": getattr(task.model, "__name__", "model"),
            "simulate": getattr(task.simulate, "__name__", "model"),
            "trial": task.design.host.name,
        },
    )  # fmt: skip


def _warn(found: xr.Dataset) -> None:
    """Say how many replicates did not converge, or were not fitted."""
    failed = found["failure"].values != ""
    poor = ~found["converged"].values & ~failed
    parts = []
    if poor.any():
        parts.append(
            f"{poor.sum()} of {poor.size} replicates did not converge (R-hat up to "
            f"{np.nanmax(found['rhat']):.2f}, effective sample size from {np.nanmin(found['ess']):.0f}): "
            f"raise options={{'warmup': ..., 'draws': ...}}, or lower ranks="
        )
    if failed.any():
        first = found["failure"].values[failed][0]
        parts.append(
            f"{failed.sum()} of {failed.size} could not be fitted, the first because {first}"
        )
    if parts:
        warnings.warn(ConvergenceWarning("; ".join(parts)), stacklevel=3)
