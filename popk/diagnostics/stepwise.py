"""Which covariates does the likelihood ask for? Stepwise inclusion and elimination."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jax.scipy.special import gammaincc

from popk.inference.convergence import ConvergenceWarning
from popk.inference.maximum import Likelihood, Maximum, likelihood, maximize
from popk.model.sites import Model, ModelError, describe
from popk.trial import Trial

Effects = Mapping[str, tuple[str, ...]]

_LEFT = 0.01  # an objective that would still fall by more than this is no end of a search


def scm(
    model: Model,
    trial: Trial,
    effects: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    forward: float = 0.05,
    backward: float = 0.01,
    start: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    r"""Return the steps of a stepwise covariate model: forward inclusion, then backward elimination.

    Each step maximizes the Laplace-approximated likelihood (FOCE INTERACTION) of the models with one
    more, or one less, effect than the last, and takes in the one of the smallest p-value below
    `forward`, or leaves out the one of the largest above `backward` [1]_,

    .. math:: \Delta\mathrm{OFV} = -2 \log (L_0 / L_1) \sim \chi^2_{df}

    An effect that is left out is exactly 0. Priors play no part beyond where the search begins. All
    models share one compiled function.

    The p-values are those of single tests: among many candidates the chosen effects are too large
    and too sure [2]_. `popk.horseshoe` and `popk.selection` weigh all candidates at once.

    Parameters
    ----------
    model : Callable
        A model with all effects, each a population parameter that is 0 where its covariate changes
        nothing, as `popk.candidate_effects` samples them.
    trial : Trial
    effects : sequence of str, or mapping of str to sequence of str
        The parameters, ``["CL_AAG", "CL_WT"]``, or those that come and go together under one name,
        ``{"RACE on CL": ["CL_LATIN", "CL_BLACK"]}``.
    forward, backward : float
        The p-values; 0.05 and 0.01 are falls of 3.84 and rises of 6.63 with one degree of freedom.
    start : mapping of site to value, optional
        Where the first search begins, where it is not the middle of the prior.

    Returns
    -------
    DataFrame
        One row for each model. ``step``, 0 for the model without effects; ``direction``; ``effect``
        that was put in or left out; ``OFV``, the objective without N ln 2 pi; ``dOFV``, its
        difference from the step before; ``df``; ``p``; ``kept``, whether the effect is in the model
        when the step is over. In ``attrs``: the ``selected`` effects, and the final ``values`` of
        all population parameters.

    Raises
    ------
    ModelError
        An effect is no unbounded number among the model's population parameters, the model has no
        random effects or a structure of `popk.ode`, whose second derivatives do not exist, a p-value
        does not lie between 0 and 1, or the first search cannot begin.

    Warns
    -----
    ConvergenceWarning
        A search ended before the objective was at its smallest.

    Examples
    --------
    >>> table = popk.scm(model, trial, ["CL_AAG", "CL_WT", "CL_AGE"])  # doctest: +SKIP
    >>> table.attrs["selected"]  # doctest: +SKIP
    ['CL_AAG']

    References
    ----------
    .. [1] Jonsson EN, Karlsson MO (1998). Automated covariate model building within NONMEM. Pharm Res
       15:1463-1468. doi:10.1023/A:1011970125687
    .. [2] Ribbing J, Jonsson EN (2004). Power, selection bias and predictive performance of the
       population pharmacokinetic covariate model. J Pharmacokinet Pharmacodyn 31:109-134.
       doi:10.1023/B:JOPA.0000034404.86036.72
    """
    if not (0 < forward < 1 and 0 < backward < 1):
        raise ModelError(f"forward={forward} and backward={backward} must lie between 0 and 1")
    named = effects.items() if isinstance(effects, Mapping) else ((n, (n,)) for n in effects)
    groups = {name: tuple(sites) for name, sites in named}
    _refuse_strangers(model, trial, groups)
    search = _Search(likelihood(model, trial, start or {}), groups, {})
    _refuse_bounded(search)
    chosen: tuple[str, ...] = ()
    base = search.best(chosen, None)
    rows: list[dict[str, Any]] = [{"step": 0, "direction": "", "effect": "", "OFV": base.objective}]
    while len(chosen) < len(groups):
        tried = search.step(chosen, [n for n in groups if n not in chosen], "forward")
        best = min(tried, key=lambda row: (row["p"], row["dOFV"]))
        best["kept"] = best["p"] < forward
        rows += [{"step": rows[-1]["step"] + 1, **row} for row in tried]
        if not best["kept"]:
            break
        chosen = (*chosen, best["effect"])
    while chosen:
        tried = search.step(chosen, chosen, "backward")
        worst = max(tried, key=lambda row: row["p"])
        for row in tried:
            row["kept"] = row is not worst or row["p"] <= backward
        rows += [{"step": rows[-1]["step"] + 1, **row} for row in tried]
        if worst["kept"]:
            break
        chosen = tuple(n for n in chosen if n != worst["effect"])
    table = pd.DataFrame(rows, columns=[*rows[0], "dOFV", "df", "p", "kept"])
    table["kept"] = table["kept"].eq(True)  # the model without effects keeps none
    table.attrs = {"selected": list(chosen), "values": search.values(chosen)}
    return table


def _refuse_strangers(model: Model, trial: Trial, groups: Effects) -> None:
    """Refuse what cannot be held at 0."""
    sites = describe(model, trial)
    asked = [name for own in groups.values() for name in own]
    known = [n for n in sites.named("population") if sites.all[n].shape == ()]
    if strange := [n for n in asked if n not in known]:
        raise ModelError(
            f"{', '.join(strange)} cannot be held at 0: the model has no such population parameter of "
            f"one number; it has {', '.join(known)}, and popk.candidate_effects makes more"
        )
    if not asked or len(set(asked)) < len(asked) or not all(groups.values()):
        raise ModelError("effects is empty or names a parameter twice; name each once")


def _refuse_bounded(search: "_Search") -> None:
    """Refuse effects whose value is not their position: those that cannot be of either sign."""
    both = (search.found.begin * 0 + shift for shift in (-1.0, 1.0))
    low, high = (search.found.values(at, np.ones_like(at)) for at in both)
    for name in (name for own in search.groups.values() for name in own):
        if (float(low[name]), float(high[name])) != (-1.0, 1.0):
            raise ModelError(
                f"{name} cannot be held at 0: its prior is bounded; give effects a normal prior"
            )


class _Search(NamedTuple):
    """The submodels of a model, and what has been found of them.

    Attributes
    ----------
    found : Likelihood
    groups : mapping of str to tuple of str
        The sites of each effect.
    known : dict of frozenset to Maximum
        The maxima by the effects that are in.
    """

    found: Likelihood
    groups: Effects
    known: dict[frozenset[str], Maximum]

    def mask(self, chosen: Iterable[str]) -> np.ndarray:
        """Return 1 where a value is sought, 0 where it is an effect that is left out."""
        mask = np.ones_like(self.found.begin)
        for name in set(self.groups) - set(chosen):
            for site in self.groups[name]:
                mask[self.found.places[site]] = 0.0
        return mask

    def best(self, chosen: Sequence[str], begin: Maximum | None) -> Maximum:
        """Return the maximum with some effects, searched from that of another model."""
        if (which := frozenset(chosen)) not in self.known:
            mask = self.mask(chosen)
            position = self.found.begin * self.mask(()) if begin is None else begin.position
            end = maximize(self.found, position, mask)
            if end.promised > _LEFT:
                message = (
                    f"the search with {', '.join(chosen) or 'no effect'} ended where the objective would "
                    f"still fall by about {end.promised:.2g}; say start= with values near those expected"
                )
                warnings.warn(ConvergenceWarning(message), stacklevel=4)
            self.known[which] = end
        return self.known[which]

    def step(
        self, chosen: tuple[str, ...], tried: Sequence[str], direction: str
    ) -> list[dict[str, Any]]:
        """Return a row for each model with one effect more, or less."""
        now, rows = self.best(chosen, None), []
        for name in tried:
            forward = direction == "forward"
            other = (*chosen, name) if forward else tuple(n for n in chosen if n != name)
            difference = self.best(other, now).objective - now.objective
            df, fall = len(self.groups[name]), -difference if forward else difference
            p = float(gammaincc(df / 2, max(fall, 0.0) / 2))
            rows.append({
                "direction": direction, "effect": name, "OFV": now.objective + difference,
                "dOFV": difference, "df": df, "p": p, "kept": False,
            })  # fmt: skip
        return rows

    def values(self, chosen: Sequence[str]) -> dict[str, Any]:
        """Return the population values of the maximum with some effects, as plain numbers."""
        end = self.best(chosen, None)
        values = self.found.values(end.position, self.mask(chosen))
        return {name: np.asarray(value).tolist() for name, value in values.items()}
