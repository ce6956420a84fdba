r"""Can the parameters be told from these data? What posterior, prior and each other say of it.

References
----------
.. [1] Gelman A, Simpson D, Betancourt M (2017). The prior can often only be understood in the context of
   the likelihood. Entropy 19:555. doi:10.3390/e19100555
.. [2] Yates JWT, Jones RDO, Walker M, Cheung SYA (2009). Structural identifiability and
   indistinguishability of compartmental models. Expert Opin Drug Metab Toxicol 5:295-302.
   doi:10.1517/17425250902773426
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import gaussian_kde, rankdata

from popk.diagnostics.learning import prior_shift
from popk.diagnostics.summary import kind
from popk.inference.convergence import population_draws
from popk.model.sites import Model, ModelError
from popk.simulation import prior_draws
from popk.trial import Trial

#: Below it the posterior is about as wide as the prior: 1 - (0.95)^2.
CONTRACTION = 0.1
#: Above it two parameters are told only together.
CORRELATION = 0.95
#: A standard deviation whose density does not fall towards 0 has a 5th percentile of at most a tenth of
#: its median (a uniform one), half-normal or exponential ones less.
AT_ZERO = 0.1
#: Two peaks are two where the density between them falls to less than this part of the lower one.
VALLEY = 0.5
#: A second mode, or the other order of KA and CL / V, counts from this probability on.
SECOND = 0.01

_COLUMNS = ["parameter", "problem", "value", "says"]


def identifiability(
    model: Model, posterior: xr.DataTree, trial: Trial, *, seed: int = 1, draws: int = 1000
) -> pd.DataFrame:
    r"""Return what the data cannot tell of the population parameters, in sentences.

    ``weak``: the contraction :math:`1 - s_1^2 / s_0^2` from prior to posterior (`popk.prior_shift`) is below
    0.1; the estimate is the prior's [1]_. ``together``: two parameters have a rank correlation above 0.95
    in the posterior. ``at zero``: the 5th percentile of an omega, gamma or tau is at most a tenth of its
    median, as of a density that does not fall towards 0. ``flip-flop``: KA is above and below CL / V
    with a probability of at least 0.01 each: absorption and elimination can change places [2]_. ``modes``:
    a posterior has two peaks, between which it falls to less than half of the lower one, with at least
    0.01 of the draws.

    Parameters
    ----------
    model : Callable
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        The trial of the fit.
    seed, draws : int
        Of the draws of the prior.

    Returns
    -------
    DataFrame
        One row a warning: ``parameter``, ``problem``, ``value`` (contraction, correlation, ratio, or
        probability [pure number]) and ``says``, a sentence that tells what to do. No rows where there is
        nothing to warn of; nothing in the data then speaks against identifiability, which proves none.

    Raises
    ------
    ModelError
        Prior and posterior have no parameter in common, or the model cannot be used with the trial.

    Examples
    --------
    >>> popk.identifiability(model, posterior, trial)["says"].to_list()  # doctest: +SKIP
    """
    population = population_draws(posterior)
    if not population:
        raise ModelError("the posterior has no population parameters; was it made by popk.fit?")
    values = {n: np.asarray(x).ravel() for n, x in population.items()}
    shift = prior_shift(prior_draws(model, trial, seed=seed, draws=draws), posterior)
    rows = [
        *_weak(shift), *_together(values), *_at_zero(values), *_flip_flop(values), *_modes(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=_COLUMNS)


def _weak(shift: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    for name, row in shift.to_dict("index").items():
        if row["contraction"] < CONTRACTION and abs(row["shift"]) < 1:
            yield (
                name, "weak", row["contraction"],
                f"The posterior of {name} is about as wide as its prior (contraction "
                f"{row['contraction']:.2f}): these data say next to nothing of it. Fix it, or give the prior "
                f"what is known from elsewhere.",
            )  # fmt: skip


def _together(values: Mapping[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    ranks = {n: rankdata(x) for n, x in values.items() if np.ptp(x) > 0}
    for a, b in itertools.combinations(ranks, 2):
        found = float(np.corrcoef(ranks[a], ranks[b])[0, 1])
        if abs(found) > CORRELATION:
            yield (
                f"{a}, {b}", "together", found,
                f"{a} and {b} are correlated in the posterior ({found:.3f}): the data tell them only "
                f"together. Write the model in their ratio or product, or fix one.",
            )  # fmt: skip


def _at_zero(values: Mapping[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    for name, x in values.items():
        if kind(name) not in ("omega", "gamma", "tau"):
            continue
        low, middle = np.quantile(x, [0.05, 0.5])
        if low <= AT_ZERO * middle:
            yield (
                name, "at zero", low / middle,
                f"{name} piles up at 0 (5th percentile {low:.2g}, median {middle:.2g}): the data do not say "
                f"that this varies at all. Leave the random effect out, or give omega a prior that is known.",
            )  # fmt: skip


def _flip_flop(values: Mapping[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    volume = next((n for n in ("V_pop", "V1_pop", "V2_pop") if n in values), None)
    if volume is None or not {"KA_pop", "CL_pop"} <= set(values):
        return
    slower = float((values["KA_pop"] < values["CL_pop"] / values[volume]).mean())
    if min(slower, 1 - slower) >= SECOND:
        yield (
            "KA_pop", "flip-flop", slower,
            f"KA_pop is below CL_pop / {volume} with probability {slower:.2f}: absorption and elimination "
            f"can change places (flip-flop). Bound KA below or above CL / V, or add intravenous data.",
        )  # fmt: skip


def _modes(values: Mapping[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    for name, x in values.items():
        found = second_mode(x)
        if found is not None:
            at, share = found
            yield (
                name, "modes", share,
                f"The posterior of {name} has two peaks, {100 * share:.0f}% of it beyond {at:.3g}: look at "
                f"popk.plots.trace and at the pairs of parameters, and narrow the prior to what can be.",
            )  # fmt: skip


def second_mode(draws: np.ndarray) -> tuple[float, float] | None:
    """Return where the valley between two peaks of a density lies, and the share of the lesser side.

    Parameters
    ----------
    draws : Float[ndarray, "sample"]

    Returns
    -------
    tuple of float, or None
        None where there is one peak, or the second is too shallow or too rare.
    """
    if np.ptp(draws) == 0:
        return None
    some = draws[np.linspace(0, len(draws) - 1, min(len(draws), 2000)).astype(int)]
    at = np.linspace(draws.min(), draws.max(), 200)
    density = gaussian_kde(some)(at)
    peak = int(density.argmax())
    best = None
    for side in (range(peak + 2, len(at)), range(peak - 2, -1, -1)):
        for other in side:
            between = slice(min(peak, other), max(peak, other) + 1)
            valley = int(density[between].argmin()) + between.start
            share = float((draws > at[valley]).mean())
            share = min(share, 1 - share)
            deep = density[valley] < VALLEY * density[other] and share >= SECOND
            if deep and (best is None or density[other] > best[0]):
                best = density[other], float(at[valley]), share
    return None if best is None else best[1:]
