"""What is the posterior? `fit`, from a model and a trial to an ArviZ DataTree."""

import importlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.inference.convergence import ConvergenceWarning, convergence
from popk.inference.draws import Problem, posterior_tree, provenance
from popk.model.sites import Model, ModelError, describe
from popk.trial import Trial


class Method(NamedTuple):
    """A road to the posterior.

    Attributes
    ----------
    engine : str
        The module whose ``draw(problem, seed=, progress=, **options)`` returns `Draws`.
    library : str
        What does the work.
    options : dict
        What may be said of it, with its defaults.
    """

    engine: str
    library: str
    options: dict[str, Any]


_CHAINS = {
    "chains": 4, "warmup": 1000, "draws": 2000, "centering": 0.5, "target_accept": 0.95, "max_depth": 10,
}  # fmt: skip

METHODS = {
    "nuts": Method(
        "popk.inference.sampling",
        "blackjax",
        {**_CHAINS, "centering": None, "target_accept": None, "checkpoint": None},
    ),
    "laplace": Method(
        "popk.inference.reweighted",
        "popk",
        {"draws": 2000, "population_draws": 2000, "individual_draws": None},
    ),
    "variational": Method(
        "popk.inference.variational",
        "popk",
        {
            "draws": 2000,
            "family": "flow",
            "steps": 10_000,
            "population_draws": 4000,
            "individual_draws": None,
            "centering": None,
        },
    ),
    "pymc": Method("popk.inference.pymc_engine", "pymc", _CHAINS),
    "nutpie": Method("popk.inference.nutpie_engine", "nutpie", {**_CHAINS, "centering": None}),
}

#: The options that count something.
COUNTS = ("chains", "warmup", "draws", "steps", "population_draws", "individual_draws")


def fit(
    model: Model,
    trial: Trial,
    *,
    seed: int,
    method: str = "nuts",
    chains: int | None = None,
    warmup: int | None = None,
    draws: int | None = None,
    centering: float | Mapping[str, float] | None = None,
    target_accept: float | None = None,
    max_depth: int | None = None,
    checkpoint: str | Path | None = None,
    population_draws: int | None = None,
    individual_draws: int | None = None,
    family: str | None = None,
    steps: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Return the posterior of a model given a trial.

    Parameters
    ----------
    model : Callable
        A NumPyro function of a trial that ends in `popk.observe`.
    trial : Trial
    seed : int
        The same seed gives the same draws, bit for bit, on the same machine and versions.
    method : "nuts", "laplace", "variational", "pymc" or "nutpie"
        How: the No-U-Turn sampler; importance sampling around the mode of the Laplace-approximated
        posterior, in a second where effects and errors are well behaved, with Pareto k as the judge
        (no classes, groups, events or `popk.ode`); a guide that learns the posterior, whose draws are
        weighted to be exact, with the same judge (one mode alone); PyMC's sampler of `pymc_model`, an
        independent second implementation; or nutpie's (``popk[nutpie]``). An option below that a method
        does not know is refused.
    chains, warmup, draws : int
        The number of chains (4), of steps of each before adaptation ends at most (1,000; fewer where a
        window of the warm-up says nothing new), and after it (2,000).
    centering : float or mapping of parameter to float
        How random effects are sampled: 1 centred (many levels a subject), 0 not centred (few), or in
        between; the posterior is the same. By default what each subject's levels say decides, see
        `popk.explain`.
    target_accept : float
        The mean acceptance rate to adapt the step size to; higher is slower and safer. By default 0.9,
        and 0.97 after a window of the warm-up in which more than one transition in 100 diverged.
    max_depth : int
        At most 2**max_depth gradients a step (10).
    checkpoint : path
        A folder in which is kept, every few seconds, how far the chains have come. The same call goes
        on from there, and ends with the same draws, bit for bit, as one that was not interrupted.
    population_draws, individual_draws : int
        Of "laplace" and "variational": how many population values are drawn (4,000; of "laplace" 2,000
        in each of two rounds or more), and how many random effects of each subject for each of them
        (8 to 64, by the number of subjects).
    family : "flow" or "mean-field"
        Of "variational": a normalizing flow, each subject's part of it given the population's; or
        independent normal distributions of the unconstrained values, in the coordinates that `centering`
        says, which are too narrow wherever these are correlated.
    steps : int
        Of "variational": of the guide at most (10,000); it ends where the ELBO no longer rises.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    DataTree
        ``posterior`` (population and individual parameters), ``sample_stats``, ``log_likelihood``,
        ``observed_data``, ``constant_data`` (covariates), and provenance in ``attrs``; of "laplace" also
        ``pareto_k``, ``importance_ess``, ``objective``, and the ``mode`` with its ``standard_errors``,
        which `popk.estimates` puts into a table; of "variational" ``family``, ``pareto_k``,
        ``importance_ess``, ``elbo`` and ``elbo_trace``, what has a ``weights`` ("population", or
        "joint" where subjects are not independent given the population), and ``guide_pareto_k``, that of
        the guide's own draws.

    Raises
    ------
    ModelError
        The model does not fit the trial, or the data have zero probability under it.
    ValueError
        There is no such method, or it has no such option; the checkpoint is of another fit.

    Warns
    -----
    ConvergenceWarning
        The chains did not converge, or weights cannot be trusted; the message says what to do.

    Examples
    --------
    >>> posterior = popk.fit(theophylline, trial, seed=1)  # doctest: +SKIP
    """
    keep_compiled()
    began = time.perf_counter()
    options = _options(
        method, chains=chains, warmup=warmup, draws=draws, centering=centering,
        target_accept=target_accept, max_depth=max_depth, checkpoint=checkpoint,
        population_draws=population_draws, individual_draws=individual_draws, family=family,
        steps=steps,
    )  # fmt: skip
    sites = describe(model, trial)
    for name, asked in sites.unseen.items():
        which = f"levels with {asked}" if asked else "levels"
        raise ModelError(f"{name} stands for {which}, and the trial has none to fit")
    engine = importlib.import_module(METHODS[method].engine)
    problem = Problem(model, trial, sites)
    drawn = engine.draw(problem, seed=seed, progress=progress, **options)
    tree = posterior_tree(problem, drawn)
    tree.attrs = {
        **provenance(model, trial),
        "inference_library": METHODS[method].library,
        "method": method,
        "seed": seed,
        "settings": json.dumps(drawn.settings),
        **drawn.attrs,
        "wall_time_s": round(time.perf_counter() - began, 3),
    }
    found = convergence(tree).problems()
    if found:
        what = (
            "weights cannot be trusted" if "pareto_k" in tree.attrs else "chains did not converge"
        )
        message = "\n  ".join([f"the {what}:", *found])
        warnings.warn(ConvergenceWarning(message), stacklevel=2)
    return tree


def _options(method: str, **given: Any) -> dict[str, Any]:
    """Return the options of a method: those given, its defaults for the others."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    said = {name: value for name, value in given.items() if value is not None}
    known = METHODS[method].options
    if strange := [name for name in said if name not in known]:
        raise ValueError(
            f"{', '.join(strange)} means nothing to method={method!r}, which knows {', '.join(known)}"
        )
    options = {**known, **said}
    counts = {n: options[n] for n in COUNTS if options.get(n) is not None}
    if min(counts.values()) < 1:
        each = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise ValueError(f"{each}: each must be at least 1")
    return options
