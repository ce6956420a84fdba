"""Does a fit find the values that a trial was simulated with? Coverage of intervals over many trials.

True values are drawn from the model's own prior, anew for each trial. Then a central interval of
probability 0.9 of the posterior covers them with probability 0.9 exactly, whatever the prior and
however few the data, provided that sampling is right [1]_. Trials are of one design, so that one
compiled program serves all fits; a second compilation fails.

References
----------
.. [1] Cook SR, Gelman A, Rubin DB (2006). Validation of software for Bayesian models using posterior
   quantiles. J Comput Graph Stat 15:675-692. doi:10.1198/106186006X136976
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import popk
from popk.inference import nuts

LEVEL = 0.9
Simulated = Callable[[Mapping[str, Any], np.random.Generator], popk.Trial]


class Recovery(NamedTuple):
    """What fits to simulated trials say of the true values, a row for each trial.

    Attributes
    ----------
    truth, mean, sd : DataFrame
        The true values, and the posterior's means and standard deviations.
    held : DataFrame
        Whether the 90% interval holds the true value.
    """

    truth: pd.DataFrame
    mean: pd.DataFrame
    sd: pd.DataFrame
    held: pd.DataFrame

    @property
    def bias(self) -> pd.Series:
        """Return how far posterior means lie from the truth on average [standard deviations]."""
        return ((self.mean - self.truth) / self.sd).mean()

    def check(self) -> None:
        """Assert that intervals hold the truth as often as they say, within 3 standard errors."""
        print(f"\n{self.held.mean().to_dict()}, all {self.held.to_numpy().mean():.3f}")
        variance = LEVEL * (1 - LEVEL)
        assert self.held.to_numpy().mean() > LEVEL - 3 * np.sqrt(variance / self.held.size)
        assert self.held.mean().min() > LEVEL - 3 * np.sqrt(variance / len(self.held))


def prior_truths(model: Any, design: popk.Trial, count: int) -> list[dict[str, Any]]:
    """Return true values of a model's population, drawn from its prior, for so many trials."""
    drawn = popk.prior_draws(model, design, seed=1, draws=count)["prior"].dataset
    return [{str(n): x.values[0, i] for n, x in drawn.data_vars.items()} for i in range(count)]


def recovered(
    model: Any,
    trials: Sequence[popk.Trial],
    truths: Sequence[Mapping[str, Any]],
    *,
    warmup: int = 300,
    draws: int = 400,
) -> Recovery:
    """Return what a fit to each trial says of the truth behind it; all fits are one program."""
    rows: list[list[dict[str, Any]]] = [[], [], [], []]
    began, compiled = time.perf_counter(), None
    for seed, (trial, truth) in enumerate(zip(trials, truths, strict=True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", popk.ConvergenceWarning)  # the fits are short
            posterior = popk.fit(
                model, trial, seed=seed, chains=2, warmup=warmup, draws=draws, progress=False
            )["posterior"].dataset
        programs = nuts._advance._cache_size(), nuts.state._cache_size()
        assert compiled in (None, programs), "a trial of the same design was compiled anew"
        compiled = programs
        own, found = _flat(truth), _flat({n: posterior[n].values for n in truth}, leading=2)
        low, high = ({n: np.quantile(x, q) for n, x in found.items()} for q in (0.05, 0.95))
        for into, row in zip(
            rows,
            (
                own,
                {n: x.mean() for n, x in found.items()},
                {n: x.std() for n, x in found.items()},
                {n: low[n] < x < high[n] for n, x in own.items()},
            ),
            strict=True,
        ):
            into.append(row)
    print(f"\n{len(trials)} fits in {time.perf_counter() - began:.0f} s")
    return Recovery(*map(pd.DataFrame, rows))


def _flat(values: Mapping[str, Any], leading: int = 0) -> dict[str, Any]:
    """Return each number under a name of its own; of a correlation matrix those below the diagonal."""
    flat = {}
    for name, value in values.items():
        array = np.asarray(value, dtype=float)
        if array.ndim == leading:
            flat[name] = array
            continue
        for i, j in zip(*np.tril_indices(array.shape[-1], -1), strict=True):
            flat[f"{name}[{i},{j}]"] = array[..., i, j]
    return flat
