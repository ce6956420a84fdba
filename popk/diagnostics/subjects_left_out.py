r"""How well does a model predict a person it has not seen? Leave-one-subject-out cross-validation.

The levels of one person are not independent given the population: to leave one level out asks how well
the others of that person tell it. What a population model is for is the next person, so that the
subject is what is left out, and its random effects are integrated out [2]_.

References
----------
.. [1] Vehtari A, Gelman A, Gabry J (2017). Practical Bayesian model evaluation using leave-one-out
   cross-validation and WAIC. Stat Comput 27:1413-1432. doi:10.1007/s11222-016-9696-4
.. [2] Merkle EC, Furr D, Rabe-Hesketh S (2019). Bayesian comparison of latent variable models:
   conditional versus marginal likelihoods. Psychometrika 84:802-829. doi:10.1007/s11336-019-09679-0
.. [3] Vehtari A, Simpson D, Gelman A, Yao Y, Gabry J (2024). Pareto smoothed importance sampling.
   J Mach Learn Res 25(72):1-58.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr
from scipy.special import logsumexp

from popk.inference.compilation import keep_compiled
from popk.inference.convergence import convergence
from popk.inference.fit import fit
from popk.inference.importance import log_marginal, weighted
from popk.inference.laplace import subject_layout
from popk.model.failures import why_not
from popk.model.sites import Model, ModelError, Sites, describe
from popk.records.provenance import sha256
from popk.simulation import posterior_values, spread_evenly
from popk.trial import Trial

_BATCH = 16  # population draws that are worked on together


class LeftOutWarning(UserWarning):
    """Leaving a subject out changes the posterior too much for weights to tell how."""


def loso(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    draws: int = 2000,
    individual_draws: int = 64,
    refit: bool = False,
    options: Mapping[str, Any] | None = None,
    seed: int = 1,
) -> Any:
    r"""Return how well a model predicts each subject from all others (LOSO).

    .. math:: \mathrm{elpd} = \sum_i \log p(y_i \mid y_{-i}), \qquad
        p(y_i \mid y_{-i}) = \int p(y_i \mid \theta)\,p(\theta \mid y_{-i})\,d\theta, \qquad
        p(y_i \mid \theta) = \int p(y_i \mid \eta, \theta)\,p(\eta \mid \theta)\,d\eta

    with :math:`y_i` all levels of a subject and :math:`\theta` the population values [1]_ [2]_. The inner
    integral is taken by importance sampling around the mode of :math:`\eta`, the outer one from the
    posterior's draws by Pareto-smoothed weights :math:`\propto 1 / p(y_i \mid \theta)` [3]_. A subject
    of a group (``groups=``) is left out of its group, whose effect stays known from the others.

    Parameters
    ----------
    model : Callable
        With random effects for each subject, `popk.individual`'s or of its own.
    posterior : DataTree
        As `popk.fit` returns it for this model and trial.
    trial : Trial
    draws : int
        How many posterior draws to use, spread evenly.
    individual_draws : int
        How many draws of a subject's random effects there are for each of them; even.
    refit : bool
        Whether the model is fitted again without each subject whose Pareto k is too high for weights
        (above 0.7, or 1 - 1 / log10(draws) where that is less). Draws of both fits then tell.
    options : mapping, optional
        What `popk.fit` is told in these fits, ``{"warmup": 500}``; the method is the posterior's.
    seed : int
        Of the draws of random effects, and of these fits.

    Returns
    -------
    ELPDData
        ArviZ's, which `arviz.compare` takes: ``elpd``, ``se``, ``p``, and for each subject ``elpd_i``
        and ``pareto_k`` (subject), which is 0 where the model was fitted again.

    Raises
    ------
    ModelError
        The model has no random effects, or one whose levels have no Laplace approximation (times to
        events); a covariate is modeled; the posterior is not of this trial or model; or a subject
        cannot be explained by any draw: then where and why.
    ValueError
        There are too few draws.

    Warns
    -----
    LeftOutWarning
        Pareto k of a subject is too high, without `refit`; or the posterior did not converge.

    Examples
    --------
    >>> one = popk.loso(model, posterior, trial)  # doctest: +SKIP
    >>> one.elpd_i.sel(subject="3")  # doctest: +SKIP
    """
    sites = _ready(model, posterior, trial, draws, individual_draws)
    converged = convergence(posterior).converged
    if not converged:
        _warn("the posterior did not converge, so its elpd cannot be trusted; see popk.convergence")
    likelihoods = partial(_likelihoods, model, trial, sites, (draws, individual_draws, seed))
    found = likelihoods(posterior, trial.ids)
    elpd = _weighed(found, trial)
    bad = elpd.pareto_k.values > elpd.good_k
    names = [i for i, worse in zip(trial.ids, bad, strict=True) if worse]
    if names and refit:
        told = {"method": posterior.attrs.get("method", "nuts"), **(options or {})}
        alone = {}
        for i in names:
            again = fit(model, trial.without(i), seed=seed, progress=False, **told)
            # Of all subjects, though one is asked for: that program is compiled already.
            place = trial.ids.index(i)
            alone[i] = bridged(likelihoods(again, [i])[:, place], found[:, place])
        _replace(elpd, alone, found)
    elif names:
        _warn(
            f"Pareto k of ID {', '.join(names[:5])}{' ...' if len(names) > 5 else ''} is above "
            f"{elpd.good_k:.2f}: without them the posterior is another one; fit again with refit=True"
        )
    elpd.elpd_i.attrs = {
        "observations_sha256": fingerprint(trial), "trial": trial.host.name,
        "converged": int(converged), "refitted": names if refit else [],
    }  # fmt: skip
    return elpd


def likelihoods_of_subjects(
    model: Model, posterior: xr.DataTree, trial: Trial, asked: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return log marginal likelihoods [draw, subject], and the posterior draws that they are at [draw].

    Parameters
    ----------
    model, posterior, trial
        See `loso`.
    asked : tuple of int
        draws, individual_draws and seed of `loso`.
    """
    sites = _ready(model, posterior, trial, *asked[:2])
    found = _likelihoods(model, trial, sites, asked, posterior, trial.ids)
    group = posterior["posterior"]
    return found, spread_evenly(group.sizes["chain"] * group.sizes["draw"], asked[0])


def _ready(
    model: Model, posterior: xr.DataTree, trial: Trial, draws: int, individual_draws: int
) -> Sites:
    """Return the model's sites, where subjects can be left out."""
    if draws < 100 or individual_draws < 2 or individual_draws % 2:
        raise ValueError(
            f"draws is {draws} and individual_draws {individual_draws}; they must be at least 100, and an "
            f"even number of at least 2"
        )
    keep_compiled()
    sites = _usable(model, trial)
    _refuse_other_levels(posterior, trial)
    return sites


def _warn(says: str) -> None:
    warnings.warn(LeftOutWarning(says), stacklevel=3)


def _usable(model: Model, trial: Trial) -> Sites:
    """Return the model's sites; refuse a model whose levels are not all that a subject contributes."""
    sites = describe(model, trial)
    if modeled := [n for n in sites.named("latent") if n != "class_probability"]:
        raise ModelError(
            f"the model says how a covariate is distributed ({', '.join(modeled)}), which subjects who "
            f"have it contribute to as well; fit it to the subjects who have the covariate"
        )
    if events := [e.name for e in sites.endpoints.values() if e.name == "events"]:
        raise ModelError(
            f"the model observes {events[0]}, whose likelihood depends on two predictions; subjects "
            f"can be left out of models of levels, counts and categories"
        )
    subject_layout(model, trial)  # refuses a model without random effects
    return sites


def _refuse_other_levels(posterior: xr.DataTree, trial: Trial) -> None:
    """Refuse a posterior of another trial: weights tell only how to take its own subjects out."""
    group, o = posterior["observed_data"].dataset, trial.observations
    levels = np.where(o.exact, o.value, np.nan)[np.asarray(o.measured)]
    ids = np.asarray(trial.ids)[np.asarray(o.subject)][np.asarray(o.measured)]
    same = group.sizes.get("observation") == len(levels)
    same = same and np.array_equal(group["ID"].values.astype(str), ids)
    if not (same and np.allclose(group["DV"].values, levels, rtol=1e-9, equal_nan=True)):
        raise ModelError(
            f"the posterior was fitted to other levels than those of {trial.host.name}; give the trial of "
            f"the fit (of a run folder, popk.open_run(...).trial)"
        )


def _likelihoods(
    model: Model, trial: Trial, sites: Sites, asked: tuple[int, int, int],
    posterior: xr.DataTree, needed: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """Return the log marginal likelihood of each subject at each draw [draw, subject]."""
    draws, count, seed = asked
    population = posterior_values(posterior, sites, trial, new_subjects=True, draws=draws)
    size = len(next(iter(population.values())))
    # Whole batches: a rest of another size would be compiled for itself.
    place = np.minimum(np.arange(-(-size // _BATCH) * _BATCH), size - 1)
    population = {n: x[place] for n, x in population.items()}
    keys = jax.random.split(jax.random.key(seed), len(place))
    plan, classes = subject_layout(model, trial), len(sites.classes)
    stacked = trial.by_subject()
    found = _marginal(model, plan, stacked, population, keys, classes=classes, count=count)
    found = np.asarray(found)[:size]
    for who in needed:
        lost = ~np.isfinite(found[:, trial.ids.index(who)])
        if lost.any():
            first = {n: x[int(lost.argmax())] for n, x in population.items()}
            says = f"the levels of ID {who} have no likelihood at {lost.sum()} of {size} draws"
            raise ModelError("\n".join([says, *why_not(model, trial[who], first)]))
    return found


@partial(jax.jit, static_argnames=("model", "plan", "classes", "count"))
def _marginal(model, plan, stacked, population, keys, *, classes, count):
    def at(x):
        values, key = jax.tree.map(lambda one: one[None], x)

        def own(arrays):
            return weighted(model, plan, arrays, values, key, classes, count=count)[1][0]

        return log_marginal(jax.vmap(own)(stacked), plan.size)

    return jax.lax.map(at, (population, keys), batch_size=_BATCH)


def _weighed(found: np.ndarray, trial: Trial) -> Any:
    """Return ArviZ's leave-one-out estimate, of log-likelihoods [draw, subject]."""
    import arviz as az

    coords = {"chain": [0], "draw": np.arange(len(found)), "subject": list(trial.ids)}
    levels = xr.Dataset({"DV": (("chain", "draw", "subject"), found[None])}, coords=coords)
    tree = xr.DataTree.from_dict({"log_likelihood": levels})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # popk's names the subjects
        return az.loo(tree, pointwise=True, reff=1.0)


def _replace(elpd: Any, alone: Mapping[str, float], found: np.ndarray) -> None:
    """Put what fits without a subject say of it in the place of what weights say, and add up."""
    for who, value in alone.items():
        elpd.elpd_i.loc[{"subject": who}] = value
        elpd.pareto_k.loc[{"subject": who}] = 0.0
    each = elpd.elpd_i.values
    elpd.elpd, elpd.se = float(each.sum()), float(np.sqrt(len(each) * each.var()))
    elpd.p = float(_log_mean(found).sum() - elpd.elpd)
    elpd.warning = bool((elpd.pareto_k.values > elpd.good_k).any())


def bridged(without: np.ndarray, together: np.ndarray) -> float:
    r"""Return the logarithm of :math:`E[p(y_i \mid \theta)]` over the posterior without subject i.

    Its plain mean hangs on the few draws that explain an unusual subject. Those of the posterior with
    that subject do: the bridge between the two is the r that solves

    .. math:: r = \frac{E_{-i}[\,p / (n p + n_{-i} r)\,]}{E[\,1 / (n p + n_{-i} r)\,]}, \qquad
        p = p(y_i \mid \theta)

    with n and :math:`n_{-i}` draws of either, Meng and Wong's optimal one.

    Parameters
    ----------
    without, together : Float[ndarray, "draw"]
        The subject's log marginal likelihood at draws of the posterior without it, and with it.

    References
    ----------
    .. [1] Gronau QF, Sarafoglou A, Matzke D, Ly A, Boehm U, Marsman M, Leslie DS, Forster JJ,
       Wagenmakers EJ, Steingroever H (2017). A tutorial on bridge sampling. J Math Psychol 81:80-97.
       doi:10.1016/j.jmp.2017.09.005
    """
    log_n = np.log([len(together), len(without)])
    r = float(np.median(without))
    for _ in range(1000):
        below = [np.logaddexp(log_n[0] + p, log_n[1] + r) for p in (without, together)]
        before, r = r, float(_log_mean(without - below[0]) - _log_mean(-below[1]))
        if abs(r - before) < 1e-8:
            break
    return r


def _log_mean(found: np.ndarray) -> Any:
    """Return the logarithm of the mean over draws [draw, ...]."""
    return logsumexp(found, axis=0) - np.log(len(found))


def fingerprint(trial: Trial) -> str:
    """Return the hash of a trial's levels: two trials with the same one can be compared on.

    Parameters
    ----------
    trial : Trial
    """
    frame = trial.host.frame
    rows = frame[frame["EVID"].eq(0) & frame["MDV"].eq(0)]
    columns = ["ID", "TIME", "DVID", "DV", "BLQ", "LLOQ", "ALQ", "ULOQ"]
    kept = rows[columns].copy()
    kept["DV"] = kept["DV"].where(~(kept["BLQ"].eq(1) | kept["ALQ"].eq(1)))
    kept["LLOQ"] = kept["LLOQ"].where(kept["BLQ"].eq(1))
    kept["ULOQ"] = kept["ULOQ"].where(kept["ALQ"].eq(1))
    text = kept.to_csv(index=False, float_format="%.10g", na_rep=".")
    return sha256((trial.units["DV"] + "\n" + text).encode())


def log_predictive(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    draws: int = 2000,
    individual_draws: int = 64,
    seed: int = 1,
) -> dict[str, float]:
    r"""Return the log predictive density of each subject of a trial that the posterior does not know.

    .. math:: \log p(y_i \mid y) = \log \int p(y_i \mid \theta)\,p(\theta \mid y)\,d\theta

    with random effects integrated out as in `loso`; the outer integral is the mean over draws.

    Parameters
    ----------
    model : Callable
    posterior : DataTree
        Of other subjects.
    trial : Trial
    draws, individual_draws, seed : int
        See `loso`.

    Raises
    ------
    ModelError
        As `loso` does.
    """
    sites = _usable(model, trial)
    asked = (draws, individual_draws, seed)
    found = _likelihoods(model, trial, sites, asked, posterior, trial.ids)
    return dict(zip(trial.ids, map(float, _log_mean(found)), strict=True))
