"""How much does a covariate change a parameter, and exposure? Ratios to a reference subject.

References
----------
.. [1] Marier JF, Teuscher N, Mouksassi MS (2022). Evaluation of covariate effects using forest plots
   and introduction to the coveffectsplot R package. CPT Pharmacometrics Syst Pharmacol 11:1283-1293.
   doi:10.1002/psp4.12829
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from popk.model.sites import Model, ModelError, Sites, describe, values_of
from popk.simulation import posterior_values
from popk.trial import Trial

#: A covariate of no more whole values than these is a category.
MAX_CATEGORIES = 5

People = Mapping[str, Mapping[str, float]]


def covariate_effects(
    model: Model,
    posterior: xr.DataTree,
    trial: Trial,
    *,
    scenarios: People | None = None,
    reference: Mapping[str, float] | None = None,
    parameters: Sequence[str] | None = None,
    exposure: Trial | None = None,
    output: str | None = None,
    zone: tuple[float, float] = (0.8, 1.25),
    interval: float = 0.9,
    draws: int | None = None,
) -> xr.Dataset:
    r"""Return how many times a reference subject's parameters and exposure other covariates make.

    .. math:: r = P(x, \theta, \eta = 0) / P(x_\mathrm{ref}, \theta, \eta = 0)

    for each posterior draw of the population values :math:`\theta`, between typical subjects who
    differ in nothing but the covariates that a scenario names [1]_. AUC is the area under the
    prediction by the linear rule where it rises and the logarithmic one where it falls [2]_.

    Parameters
    ----------
    model : Callable
    posterior : DataTree
        As `popk.fit` returns it.
    trial : Trial
        Whose covariates are described; each subject by its first record.
    scenarios : mapping of str to mapping of covariate to value, optional
        ``{"WT 50 kg": {"WT": 50}}``. By default the 5th and 95th percentile of each continuous
        covariate (the nearest value that occurs), and each other category of one with at most five whole
        values or with codes; those that change nothing are left out.
    reference : mapping of covariate to value, optional
        The reference subject where it is not the median, or the most frequent category.
    parameters : sequence of str, optional
        Individual parameters, or other sites recorded for each subject; by default all individual
        parameters.
    exposure : Trial, optional
        The doses and records of one subject, of which AUC and Cmax are taken; their covariates are
        those of the scenario. Records must be dense, with one at the time of each further dose
        before it; the AUC is that between the first and the last.
    output : str, optional
        Which of a model's predictions exposure is of, where it observes several kinds of levels.
    zone : tuple of float
        The no-effect zone of the ratio; 0.8 to 1.25 are the limits of bioequivalence [3]_ [4]_.
    interval : float
        The probability of the equal-tailed credible interval.
    draws : int, optional
        How many posterior draws to use, spread evenly; all by default.

    Returns
    -------
    Dataset
        ``ratio`` (quantity, scenario, sample), and of it ``median``, ``lower``, ``upper`` and
        ``inside``, the probability of lying in the zone (quantity, scenario). Beside each scenario
        the ``covariate`` that it changes.

    Raises
    ------
    ModelError
        A scenario names a covariate or a code that the trial does not have, a parameter is none of
        a subject's own or changes in time, a value is not positive and finite, the model has random
        effects other than popk's, no covariate changes anything, or exposure cannot be taken.

    Examples
    --------
    >>> effects = popk.covariate_effects(model, posterior, trial, scenarios={"50 kg": {"WT": 50}})
    ... # doctest: +SKIP
    >>> popk.plots.covariate_forest(effects)  # doctest: +SKIP

    References
    ----------
    .. [2] Purves RD (1992). Optimum numerical integration methods for estimation of
       area-under-the-curve (AUC) and area-under-the-moment-curve (AUMC). J Pharmacokinet Biopharm
       20:211-226. doi:10.1007/BF01062525
    .. [3] FDA (2001). Guidance for industry: statistical approaches to establishing bioequivalence.
    .. [4] EMA (2010). Guideline on the investigation of bioequivalence.
       CPMP/EWP/QWP/1401/98 Rev. 1/ Corr.
    """
    if not (0 < zone[0] < zone[1] and 0 < interval < 1):
        raise ModelError(
            f"zone is {zone} and interval {interval}; the zone must be two rising positive numbers, and "
            f"the interval lie between 0 and 1"
        )
    usual = _typical(trial) | _known(trial, "reference", reference or {})
    chosen = _usual(trial, usual) if scenarios is None else dict(scenarios)
    for name, changes in chosen.items():
        _known(trial, name, changes)
    people = [usual, *({**usual, **changes} for changes in chosen.values())]
    found = _quantities(
        model, posterior, _lined_up(trial, exposure, people), parameters, draws,
        exposed=exposure is not None, output=output,
    )  # fmt: skip
    _refuse_worthless(found, ["the reference", *chosen])
    ratio = np.stack([x[:, 1:] / x[:, :1] for x in found.values()]).swapaxes(1, 2)
    effects = _described(ratio, list(found), chosen, zone, interval)
    if scenarios is None:
        effects = effects.isel(scenario=(np.abs(ratio - 1) > 1e-9).any((0, 2)))
    if not effects.sizes["scenario"]:
        raise ModelError(
            f"no covariate of the trial ({', '.join(usual) or 'it has none'}) changes "
            f"{', '.join(found)}; name others with parameters=, or scenarios="
        )
    changed = {n: usual[n] for changes in chosen.values() for n in changes}
    shown = set(", ".join(effects["covariate"].values).split(", "))
    effects.attrs["reference"] = ", ".join(
        _label(trial, n, x) for n, x in changed.items() if n in shown
    )
    return effects


def _known(trial: Trial, who: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return covariate values as numbers; refuse those that the trial cannot have."""
    host = trial.host
    for name, value in values.items():
        if name not in host.covariates:
            raise ModelError(
                f"{who} names {name}, which is no covariate of the trial; it has "
                f"{', '.join(host.covariates) or 'none'}"
            )
        codes = host.levels.get(name)
        if not np.isfinite(value) or (codes and f"{float(value):g}" not in codes):
            allowed = ", ".join(f"{c} ({t})" for c, t in (codes or {}).items())
            raise ModelError(f"{who} gives {name} {value}; it must be {allowed or 'finite'}")
    if not values and who != "reference":
        raise ModelError(f"scenario {who!r} changes nothing; name a covariate, {{'WT': 50}}")
    return {name: float(value) for name, value in values.items()}


def _first(trial: Trial) -> Any:
    """Return each subject's covariates at its first record."""
    return trial.host.frame.groupby("ID", sort=False)[list(trial.host.covariates)].first()


def _categorical(trial: Trial, name: str, values: Any) -> bool:
    distinct = values.unique()
    return name in trial.host.levels or (
        len(distinct) <= MAX_CATEGORIES and bool((distinct == np.round(distinct)).all())
    )


def _typical(trial: Trial) -> dict[str, float]:
    """Return the median, or the most frequent category, of each covariate."""
    first = _first(trial)
    return {
        n: float(first[n].mode()[0] if _categorical(trial, n, first[n]) else first[n].median())
        for n in first
    }


def _usual(trial: Trial, usual: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the scenarios that are shown where none is asked for."""
    first, found = _first(trial), {}
    for name in first:
        if _categorical(trial, name, first[name]):
            values = sorted(set(map(float, first[name])))
        else:
            ends = first[name].quantile([0.05, 0.95], interpolation="nearest")  # that occur
            values = list(map(float, ends))
        found |= {_label(trial, name, x): {name: x} for x in values if x != usual[name]}
    return found


def _label(trial: Trial, name: str, value: float) -> str:
    code = trial.host.levels.get(name, {}).get(f"{value:g}")
    unit = trial.units[name]
    return f"{name} {code or f'{value:.4g}'}" + ("" if code or unit == "1" else f" {unit}")


def _lined_up(trial: Trial, exposure: Trial | None, people: list[dict[str, float]]) -> Trial:
    """Return a trial of one subject for each set of covariates, all with the same records."""
    one = _regimen(trial, exposure) if exposure else trial[trial.ids[0]].host.frame
    parts = [one.assign(ID=str(i), **values) for i, values in enumerate(people)]
    return trial.replaced(pd.concat(parts, ignore_index=True))


def _regimen(trial: Trial, exposure: Trial) -> pd.DataFrame:
    """Return the records that exposure is taken of."""
    frame: pd.DataFrame = exposure.host.frame
    if len(exposure.ids) != 1:
        raise ModelError(f"exposure has {len(exposure.ids)} subjects; give the records of one")
    units = {n: (exposure.units[n], trial.units[n]) for n in ("TIME", "AMT", "DV")}
    if wrong := [f"{n} in {a}, the trial in {b}" for n, (a, b) in units.items() if a != b]:
        raise ModelError(f"exposure has {'; '.join(wrong)}; give it in the trial's units")
    time, dosed = frame["TIME"].to_numpy(), frame["EVID"].isin([1, 4]).to_numpy()
    late = (frame["ADDL"].gt(0) & (frame["TIME"] + frame["II"]).le(time[-1])).to_numpy()
    alone = dosed & (time > time[0]) & (np.diff(time, prepend=time[0]) > 0)
    for wrong, what in (
        (np.diff(time, prepend=time[0]) < 0, "goes back in time"),
        (late, "has further doses (ADDL) within the records; write each as a record"),
        (alone, "doses without a record at its time before it, which the AUC needs"),
    ):
        if wrong.any():
            raise ModelError(f"exposure row {frame['ROW'].iloc[int(wrong.argmax())]} {what}")
    return frame


def _quantities(
    model: Model, posterior: xr.DataTree, lined_up: Trial, parameters: Sequence[str] | None,
    draws: int | None, *, exposed: bool, output: str | None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return each quantity [sample, subject] of typical subjects."""
    sites = describe(model, lined_up)
    strange = [n for n in sites.named("individual", "latent") if n != "eta" and n not in sites.iov]
    if strange:
        raise ModelError(
            f"the typical value of {', '.join(strange)} is not known; write random effects with "
            f"popk.individual"
        )
    names = list(sites.transforms) if parameters is None else list(parameters)
    _refuse_strangers(names, sites, lined_up)
    level = f"IPRED_{output}" if output else "IPRED"
    if exposed and level not in sites.all:
        known = [n.removeprefix("IPRED_") for n in sites.all if n.startswith("IPRED_")]
        raise ModelError(f"the model has no such output; give output= one of {', '.join(known)}")
    given = posterior_values(posterior, sites, lined_up, new_subjects=True, draws=draws)
    typical = {n: jnp.zeros(sites.all[n].shape) for n in sites.named("individual")}
    wanted = (*names, level) if exposed else tuple(names)
    found = _evaluated(model, lined_up.arrays(), given, typical, wanted)
    values = {n: _unchanging(n, np.asarray(found[n])) for n in names}
    if exposed:
        ipred = np.asarray(found[level])
        values["AUC"] = _auc(np.asarray(lined_up.time)[0], ipred)
        values["Cmax"] = ipred.max(-1)
    return values


def _refuse_strangers(names: list[str], sites: Sites, lined_up: Trial) -> None:
    """Refuse what is not recorded for each subject."""
    shapes = [(lined_up.n_subjects, 1), lined_up.time.shape]
    for name in names:
        site = sites.all.get(name)
        if site is None or site.kind != "deterministic" or site.shape not in shapes:
            raise ModelError(
                f"{name} is not recorded for each subject; parameters= may name what the model records "
                f"so, such as {', '.join(sites.transforms) or 'none'}"
            )


def _unchanging(name: str, values: np.ndarray) -> np.ndarray:
    """Return values [..., record] without their last axis, along which they must not change."""
    if (np.ptp(values, axis=-1) > 0).any():
        raise ModelError(
            f"{name} changes in time in one subject of constant covariates; a ratio needs one number: "
            f"take exposure= and leave it out of parameters="
        )
    return values[..., 0]


@partial(jax.jit, static_argnames=("model", "wanted"))
def _evaluated(model, arrays, given, typical, wanted):
    def one(values):
        out = values_of(model, arrays, {**values, **typical}, jax.random.key(0))
        return {name: out[name] for name in wanted}

    return jax.lax.map(one, given, batch_size=32)


def _auc(time: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return the area under levels [..., record]: linear up, logarithmic down."""
    before, after = level[..., :-1], level[..., 1:]
    falls = (after < before) & (after > 0)
    fall = np.where(falls, before - after, 1.0)
    log = np.log(np.where(falls, before / np.where(falls, after, 1.0), np.e))
    return (np.diff(time) * np.where(falls, fall / log, (before + after) / 2)).sum(-1)


def _refuse_worthless(found: Mapping[str, np.ndarray], who: list[str]) -> None:
    """Refuse quantities of which there is no ratio."""
    for name, values in found.items():
        bad = ~(np.isfinite(values) & (values > 0)).all(0)
        if bad.any():
            raise ModelError(
                f"{name} of {who[int(bad.argmax())]} is not positive and finite in every draw; a ratio "
                f"needs both"
            )


def _described(
    ratio: np.ndarray, quantities: list[str], chosen: People,
    zone: tuple[float, float], interval: float,
) -> xr.Dataset:  # fmt: skip
    """Return ratios [quantity, scenario, sample] with what is said of them."""
    axes = ("quantity", "scenario")
    lower, median, upper = np.quantile(ratio, [0.5 - interval / 2, 0.5, 0.5 + interval / 2], -1)
    inside = ((ratio >= zone[0]) & (ratio <= zone[1])).mean(-1)
    summed = {"median": median, "lower": lower, "upper": upper, "inside": inside}
    return xr.Dataset(
        {"ratio": ((*axes, "sample"), ratio), **{n: (axes, x) for n, x in summed.items()}},
        coords={
            "quantity": quantities,
            "scenario": list(chosen),
            "covariate": ("scenario", [", ".join(changes) for changes in chosen.values()]),
        },
        attrs={"zone": list(zone), "interval": interval},
    )
