"""What is the objective of given population values? As NONMEM's methods approximate it, or nearly exactly."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

from popk.inference.compilation import keep_compiled
from popk.inference.density import Layout
from popk.inference.laplace import (
    individual_layout,
    joint,
    refuse_factors,
    subject_layout,
    terms,
    traced,
)
from popk.inference.marginal import Rule, marginals
from popk.model.failures import why_not
from popk.model.labels import labelled
from popk.model.outcomes import of_kinds
from popk.model.sites import Model, ModelError, Sites, describe
from popk.residual import Residual
from popk.trial import Trial

OBJECTIVES = ("fo", "foce", "focei", "laplace", "agq")

_NODES = 7  # in each dimension
_MOST_POINTS = 200_000  # of one subject: nodes to the power of its random effects


def objective(
    model: Model,
    trial: Trial,
    values: Mapping[str, Any],
    method: str = "focei",
    *,
    nodes: int | None = None,
) -> xr.Dataset:
    r"""Return minus twice the approximate log marginal likelihood, as NONMEM prints it.

    .. math:: \mathrm{OFV} = \sum_i \left[-2 \log \int p(y_i | u)\, p(u)\, du\right] - N \ln 2\pi

    with N levels (outcomes of endpoints are none). Priors of population parameters play no part. With
    f the predictions, v the residual variances, :math:`\Omega` the variance of the random effects u,
    :math:`\hat u` their mode and :math:`J = \partial f / \partial u`, a subject with normal errors has

    .. math::
        \mathrm{OFV}_i = \sum_j \left[\frac{(y_j - f_j)^2}{v_j} + \ln v_j\right]
        + \hat u^T \Omega^{-1} \hat u + \ln|\Omega| + \ln|H|

    ``"focei"``: :math:`H = J^T I J + \Omega^{-1}` with I the expected information of each level on its
    prediction, :math:`1/v + v'^2/(2 v^2)`.

    ``"laplace"``: H has the second derivatives of the first three terms, halved (NONMEM's LAPLACE with
    INTERACTION).

    ``"foce"``: as "focei", with the variances v(f(0)) of the typical subject, in the search for the mode
    too; I = 1/v.

    ``"fo"``: :math:`f = f(0) + J(0) u` and v(f(0)), so that
    :math:`y \sim N(f(0), J \Omega J^T + v)`.

    ``"agq"``: adaptive Gauss-Hermite quadrature around the mode [3]_, with H of "focei"; with one node
    it is "focei", with many the exact marginal likelihood.

    Parameters
    ----------
    model : Callable
    trial : Trial
    values : mapping of site to value
        Every population value: ``CL_pop``, ``omega_CL``, ``corr``, ``sigma_additive``, ...
    method : "fo", "foce", "focei", "laplace" or "agq"
        Where levels are counts, categories or below a limit: the last three. Where they are times to
        events, or errors are correlated: the last two.
    nodes : int
        In each dimension of "agq" (7): a subject with k random effects takes nodes ** k points.

    Returns
    -------
    Dataset
        OFV; objective (subject), whose sum it is; and eta (subject, parameter), kappa (subject,
        occasion, ...): the modes, 0 for "fo".

    Raises
    ------
    ModelError
        A population value is missing, the model has no random effects or classes of subjects, the
        method has no meaning for it, or a subject has no objective: then who and why.
    ValueError
        There is no such method, or `nodes` cannot be.

    Examples
    --------
    >>> popk.objective(theophylline, trial, values, "laplace")["OFV"]  # doctest: +SKIP

    References
    ----------
    .. [1] Wang Y (2007). Derivation of various NONMEM estimation methods. J Pharmacokinet Pharmacodyn
       34:575-593. doi:10.1007/s10928-007-9060-6
    .. [2] Lindstrom MJ, Bates DM (1990). Nonlinear mixed effects models for repeated measures data.
       Biometrics 46:673-687. doi:10.2307/2532087
    .. [3] Pinheiro JC, Bates DM (1995). Approximations to the log-likelihood function in the nonlinear
       mixed-effects model. J Comput Graph Stat 4:12-35. doi:10.1080/10618600.1995.10474663
    """
    keep_compiled()
    sites = describe(model, trial)
    population = _population(sites, values)
    plan, stacked = subject_layout(model, trial), trial.by_subject()
    _refuse_factors(model, plan, trial, population)
    rule = rule_of(model, plan, trial, population, method=method, nodes=nodes)
    logs, vectors = (np.asarray(x) for x in marginals(model, plan, rule, stacked, population))
    own = -2 * logs - levels_of_subjects(trial, sites) * np.log(2 * np.pi)
    if not np.isfinite(own).all():
        _refuse_unknown(model, trial, sites, population, method, ~np.isfinite(own))
    whole = individual_layout(model, trial)
    effects = whole.unflatten(jnp.asarray(vectors.ravel()))
    named = {n: x for n, x in effects.items() if n.startswith(("eta", "kappa"))}
    found = labelled(named, sites, trial, (), np.asarray(trial.observations.measured))
    found = found.assign_coords(subject=list(trial.ids))
    found["objective"] = ("subject", own)
    found["OFV"] = own.sum()
    found.attrs["method"] = method
    return found.assign_attrs(nodes=rule.nodes) if rule.nodes else found


def levels_of_subjects(trial: Trial, sites: Sites) -> np.ndarray:
    """Return how many levels count of each subject, outcomes of endpoints left out [subject]."""
    counts, o = np.zeros(trial.n_subjects), trial.observations
    measured = np.asarray(o.measured) & ~of_kinds(trial, sites.outcomes)
    np.add.at(counts, np.asarray(o.subject), measured.astype(float))
    return counts


def _population(sites: Sites, values: Mapping[str, Any]) -> dict[str, Any]:
    if missing := [n for n in sites.named("population") if n not in values]:
        raise ModelError(f"values lacks {', '.join(missing)}; give every population value")
    if sites.classes:
        raise ModelError(
            "the model has classes of subjects, whose random effects have several modes, and each of "
            "these methods looks at one; fit it by popk.fit"
        )
    return {n: jnp.asarray(values[n], dtype=float) for n in sites.named("population")}


def rule_of(
    model: Model, plan: Layout, trial: Trial, population: Mapping[str, Any], *,
    method: str, nodes: int | None,
) -> Rule:  # fmt: skip
    """Return how random effects are integrated out, where the method has a meaning for the model.

    Raises
    ------
    ModelError
        It has none.
    ValueError
        There is no such method, or `nodes` cannot be.
    """
    if method not in OBJECTIVES:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(OBJECTIVES)}")
    if method != "agq" and nodes is not None:
        raise ValueError(f"nodes={nodes} means nothing to method={method!r}; it is of 'agq'")
    nodes = 0 if method != "agq" else _NODES if nodes is None else nodes
    if method == "agq" and not (nodes >= 1 and nodes**plan.size <= _MOST_POINTS):
        raise ValueError(
            f"nodes is {nodes}, which makes {nodes}**{plan.size} points of a subject's {plan.size} random "
            f"effects; there may be 1 to {_MOST_POINTS:,}: take fewer nodes, or method='laplace'"
        )
    if method in ("fo", "foce"):
        _refuse_other_errors(model, plan, trial, population, method)
        return Rule(method, nodes, informed=True, twice=False)
    given = (model, plan, _first(trial), population)
    informed = has_information(*given)
    if method == "focei" and not informed:
        raise ModelError(
            "method='focei' needs the information of each level on its own prediction, which times to "
            "events and correlated errors do not have; take method='laplace' or 'agq'"
        )
    needed = method == "laplace" or not informed
    return Rule(method, nodes, informed, twice=needed and _is_smooth(*given))


def _refuse_factors(model: Model, plan: Layout, trial: Trial, population: Any) -> None:
    """Refuse a model's own factors that are not of one subject; nothing is computed."""

    def look(u: Any) -> Any:
        trace, prior = traced(model, plan, _first(trial), population, u)
        refuse_factors(trace)
        return prior

    jax.eval_shape(look, jnp.zeros(plan.size))


def _first(trial: Trial) -> Trial:
    """Return the arrays of one subject."""
    return jax.tree.map(lambda x: x[0], trial.by_subject())


def has_information(model: Model, plan: Layout, arrays: Trial, population: Any) -> bool:
    """Return whether each level has an information on its own prediction; nothing is computed."""
    try:
        jax.eval_shape(lambda u: terms(model, plan, arrays, population, u), jnp.zeros(plan.size))
    except ModelError:
        raise
    except ValueError:  # said by the residual error, or the endpoint
        return False
    return True


def _is_smooth(model: Model, plan: Layout, arrays: Trial, population: Any) -> bool:
    """Return whether the structure can be differentiated twice, which solvers of popk.ode cannot."""
    twice = jax.jacfwd(jax.jacfwd(lambda u: joint(model, plan, arrays, population, u)))
    try:
        jax.eval_shape(twice, jnp.zeros(plan.size))
    except NotImplementedError:
        return False
    return True


def _refuse_other_errors(
    model: Model, plan: Layout, trial: Trial, population: Mapping[str, Any], method: str
) -> None:
    """Refuse what is not normal where a method takes it to be."""
    o = trial.observations
    if bool((np.asarray(o.measured) & (np.asarray(o.below) | np.asarray(o.above))).any()):
        raise ModelError(
            f"method={method!r} has no meaning for levels that are only known to lie below or above a "
            f"limit; take method='laplace' or 'agq', or popk.replace_blq"
        )
    kinds: list[Any] = []
    priors: list[Any] = []

    def look(u: Any) -> Any:
        trace, prior = traced(model, plan, _first(trial), population, u)
        kinds.extend(s["fn"] for s in trace.values() if "kinds" in s.get("infer", {}))
        priors.extend(trace[latent.name]["fn"] for latent in plan.latents)
        return prior

    jax.eval_shape(look, jnp.zeros(plan.size))
    if not all(isinstance(fn, Residual) and fn.plain for fn in kinds):
        raise ModelError(
            f"method={method!r} needs residual errors that are normal on their scale, each for itself, and "
            f"the model observes others, or counts, categories or events; take method='laplace' or 'agq'"
        )
    names = [latent.name for latent in plan.latents]
    normal = all(n.startswith(("eta", "kappa")) for n in names) and all(map(_is_normal, priors))
    if method == "fo" and not normal:
        raise ModelError(
            f"method='fo' needs normal random effects and no others; the model has {', '.join(names)}: "
            f"take method='laplace' or 'agq'"
        )


def _is_normal(fn: Any) -> bool:
    fn = getattr(fn, "base_dist", fn)
    fn = getattr(fn, "base_dist", fn)
    return isinstance(fn, dist.Normal | dist.MultivariateNormal)


def _refuse_unknown(
    model: Model, trial: Trial, sites: Sites, population: Mapping[str, Any], method: str, bad: Any
) -> None:
    """Raise a sentence on the subjects without an objective."""
    who = ", ".join(np.asarray(trial.ids)[bad][:5]) + (", ..." if bad.sum() > 5 else "")
    typical = {n: jnp.zeros(sites.all[n].shape) for n in sites.named("individual")}
    if why := why_not(model, trial, {**population, **typical}):
        raise ModelError("\n".join([f"ID {who}: amounts cannot be computed", *why]))
    raise ModelError(
        f"ID {who}: there is no objective by {method}: a level has no probability where the search begins "
        f"(a proportional error where the prediction is 0), or the density does not fall away from "
        f"its mode; look at these records, or take method='focei' or 'agq'"
    )
