"""Who is treated? Individual parameters around their typical values."""

import math
from collections import namedtuple
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from popk.model.groups import groups as model_groups
from popk.model.mixtures import Mixture
from popk.model.occasions import at_records, between_starts
from popk.model.sites import ModelError, by_subject, check_parameter, known_or_sampled
from popk.priors import Fixed, Prior, half_normal
from popk.reasons import refusing
from popk.trial import Trial
from popk.variability import TRANSFORMS, Transform, random_effects

Typical = Float[Array, "..."] | float | Any  # NumPyro types what it samples as anything
Priors = Prior | Mapping[str, Prior]

_SD = 0.5  # scale of the half-normal prior of a standard deviation: of most, a CV of 10 to 100%


def individual(
    trial: Trial,
    *,
    omega: Priors | None = None,
    correlated: bool | Sequence[Sequence[str]] = True,
    lkj: float = 2.0,
    transform: str | Transform | Mapping[str, str | Transform] = "log",
    degrees: dist.Distribution | Fixed | None = None,
    share: Mapping[str, str] | None = None,
    iov: Mapping[str, Sequence[str] | Mapping[str, Prior]] | None = None,
    drift: Mapping[str, Mapping[str, Prior]] | None = None,
    groups: Mapping[str, Sequence[str] | Mapping[str, Prior]] | None = None,
    levels: Mapping[str, Sequence[float]] | None = None,
    classes: Mixture | None = None,
    **typical: Typical,
) -> Any:
    r"""Return each subject's own parameters around their typical values.

    .. math:: P_{ij} = h^{-1}(h(\mathrm{TV}_{ij}) + \zeta_{g(i)} + \eta_i + \kappa_{i\,o(j)}), \quad
        \zeta_g \sim N(0, \tau^2), \quad \eta_i \sim N(0, \Omega), \quad \kappa_{io} \sim N(0, \Gamma)

    with h the logarithm unless `transform` says otherwise. Samples ``omega_CL``, ... (standard
    deviations on the scale of h), ``corr`` and ``eta`` (subject, parameter), and records the
    individual parameters under their own names. With `iov`, samples ``gamma_CL``, ... and ``kappa``
    (subject, occasion, parameter), with `drift` ``gamma_CL_drift`` and ``kappa_drift``.

    Parameters
    ----------
    trial : Trial
    omega : float, Distribution or Fixed, or a mapping of these by parameter
        Prior of the standard deviations: a number is the scale of a half-normal, 0.5 by default.
    correlated : bool, or sequence of blocks
        Whether random effects are correlated, with an LKJ prior on the correlation matrix; or which
        are, as in ``[("CL", "V"), ("KA", "F")]``: each block then has its own matrix, ``corr_CL_V``,
        and ``corr`` is made of them.
    lkj : float
        Its concentration; 1 is uniform over correlation matrices, more favors independence.
    transform : "log", "normal", "logit", "probit" or Transform, or a mapping by parameter
        h: "logit" and "probit" keep a parameter between 0 and 1; `popk.logit_between` between other
        numbers; `popk.box_cox` skews a log-normal one.
    degrees : Distribution or Fixed, optional
        Student's t in the place of the normal distribution: a prior of its degrees of freedom, site
        ``degrees``, or ``popk.fixed(4)``; omega is then its scale. None: normal.
    share : mapping of parameter to parameter, optional
        ``{"V": "CL"}``: V has no random effect of its own but ``share_V`` times that of CL, with a
        normal prior of mean 1 and sd 1.
    iov : mapping of column to parameters, optional
        Variability between occasions: ``{"OCC": ["CL", "F"]}``, or with priors of their standard
        deviations ``{"OCC": {"CL": 0.3}}``. A new occasion begins where the column changes within a
        subject. A second column is a second level, its sites ``kappa_COLUMN`` and
        ``gamma_CL_COLUMN``.
    drift : mapping of column to priors, optional
        A slow random walk from occasion to occasion, ``{"DAY": {"CL": 0.02}}``: the effect of each is
        that of the one before plus :math:`\gamma \sqrt{\Delta t}\, z`, with z standard normal and
        :math:`\Delta t` between their first records; the first has none [3]_. The numbers are priors
        of :math:`\gamma`, per square root of the unit of TIME. What lies ahead drifts on where
        records (EVID 2) name the occasions to come.
    groups : mapping of column to parameters, optional
        Variability above the subject: ``{"STUDY": ["CL"]}``, or with priors of its standard deviations
        ``{"STUDY": {"CL": 0.3}}``. Samples ``tau_CL_STUDY`` and ``zeta_CL_STUDY`` (STUDY).
    levels : mapping of column to numbers, optional
        The groups that there are, ``{"STUDY": (1, 2, 3)}``; a trial with another one is refused. One
        of which the trial has no subject stands for a new study: its effect is drawn from the others'.
    classes : Mixture, optional
        A `popk.mixture`. Each class then has random effects of its own, ``eta`` (subject, class,
        parameter), of one distribution.
    **typical : Float[Array, "subject record"], [subject, 1] or scalar
        The covariate-adjusted typical value of each parameter, in the domain of h, under its name; one
        for each class where they differ, ``{"fast": CL, "slow": CL / ratio}``.

    Returns
    -------
    namedtuple
        ``p.CL`` and so on, of shape [subject, 1], or [subject, record] where the typical value or the
        occasion changes within subjects; with classes ``of.slow.CL`` and so on.

    Raises
    ------
    ModelError
        No parameter is given, a name is reserved, or an option names a parameter that has no random
        effect.

    References
    ----------
    .. [1] Lewandowski D, Kurowicka D, Joe H (2009). Generating random correlation matrices based
       on vines and extended onion method. J Multivar Anal 100:1989-2001.
       doi:10.1016/j.jmva.2009.04.008
    .. [2] Karlsson MO, Sheiner LB (1993). The importance of modeling interoccasion variability in
       population pharmacokinetic analyses. J Pharmacokinet Biopharm 21:735-750.
       doi:10.1007/BF01113502
    .. [3] Tornøe CW, Overgaard RV, Agersø H, Nielsen HA, Madsen H, Jonsson EN (2005). Stochastic
       differential equations in NONMEM: implementation, application, and comparison with ordinary
       differential equations. Pharm Res 22:1247-1258. doi:10.1007/s11095-005-5269-5
    """
    names, share = tuple(typical), dict(share or {})
    if not names:
        raise ModelError("individual() was given no parameter; write individual(trial, CL=CL, V=V)")
    for name in names:
        check_parameter(name)
    own = tuple(n for n in names if n not in share)
    _check_share(share, names, own)
    forms = _transforms(transform, names)
    sds = _deviations("omega", omega, {n: forms[n] for n in own})
    corr = _correlations(own, correlated, lkj)
    nu = None if degrees is None else known_or_sampled("degrees", degrees)
    which = classes.names if classes else ("",)
    centers = {
        k: {n: _center(n, forms[n], _typical(n, v, trial, k)) for n, v in typical.items()}
        for k in which
    }
    factors = {n: numpyro.sample(f"share_{n}", dist.Normal(1, 1)) for n in share}
    infer = {"parameters": own, "transforms": {n: forms[n].name for n in names}}
    eta = _effects(trial, random_effects(sds, corr, nu), centers, infer)
    further = _between_groups(trial, groups, levels, forms)
    for i, (column, varying) in enumerate((iov or {}).items()):
        kappa = _between_occasions(trial, column, varying, forms, first=i == 0)
        further |= {n: further.get(n, 0.0) + kappa[n] for n in kappa}
    for i, (column, varying) in enumerate((drift or {}).items()):
        walk = _drifting(trial, column, varying, forms, first=i == 0)
        further |= {n: further.get(n, 0.0) + walk[n] for n in walk}
    each = {}
    for k, label in enumerate(which):
        effects = {n: eta[:, k : k + 1, i] for i, n in enumerate(own)}
        effects |= {n: factors[n] * effects[other] for n, other in share.items()}
        values = {
            n: forms[n].value(centers[label][n], effects[n] + further.get(n, 0.0)) for n in names
        }
        each[label] = _recorded(trial, values, f"_{label}" if label else "")
    if classes is None:
        return each[""]
    if not trial.given:  # of the class that was drawn
        _recorded(trial, {n: classes(**{k: getattr(p, n) for k, p in each.items()}) for n in names})
    return namedtuple("Classes", which)(**each)


def _effects(trial: Trial, fn: Any, centers: Mapping[str, Any], infer: dict[str, Any]) -> Any:
    """Return the random effects of each subject, in each class [subject, class, parameter]."""
    own = infer["parameters"]
    each = [jnp.stack(jnp.broadcast_arrays(*(c[n] for n in own)), -1) for c in centers.values()]
    infer["typical"] = jnp.concatenate([mu[:, :1] for mu in each], 1)
    several = numpyro.plate("class", len(centers), dim=-1) if len(centers) > 1 else nullcontext()
    with numpyro.plate("subject", trial.n_subjects, dim=-2), several:
        return numpyro.sample("eta", fn, infer=infer)


def _recorded(trial: Trial, values: Mapping[str, Any], suffix: str = "") -> Any:
    """Return individual parameters, recorded under their names."""
    with numpyro.plate("subject", trial.n_subjects, dim=-2):
        own = {n: numpyro.deterministic(f"{n}{suffix}", v) for n, v in values.items()}
    return namedtuple("Individual", own)(**own)


def _check_share(share: Mapping[str, str], names: tuple[str, ...], own: tuple[str, ...]) -> None:
    for name, other in share.items():
        if name not in names or other not in own:
            raise ModelError(
                f"share says that {name} has the random effect of {other}: {name} must be a parameter "
                f"({', '.join(names)}), and {other} one with an effect of its own "
                f"({', '.join(own) or 'none is left'})"
            )


def _transforms(
    given: str | Transform | Mapping[str, str | Transform], names: tuple[str, ...]
) -> dict[str, Transform]:
    """Return how each parameter follows from its random effect."""
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    _refuse_strangers("transform", by_name, names)
    found = {}
    for name in names:
        form = by_name.get(name, "log")
        if isinstance(form, str) and form not in TRANSFORMS:
            raise ModelError(
                f"transform of {name} is {form!r}; it must be one of {', '.join(TRANSFORMS)}, or "
                f"popk.logit_between(low, high) or popk.box_cox(shape)"
            )
        found[name] = TRANSFORMS[form] if isinstance(form, str) else form
    return found


def _deviations(
    kind: str,
    priors: Priors | None,
    forms: Mapping[str, Transform],
    suffix: str = "",
) -> Float[Array, " p"]:
    """Return the standard deviation of each random effect, sampled from its prior."""
    by_name = dict(priors) if isinstance(priors, Mapping) else dict.fromkeys(forms, priors)
    _refuse_strangers(kind, by_name, tuple(forms))
    found = []
    for name, form in forms.items():
        prior = by_name.get(name)
        if prior is None and not form.omega:
            raise ModelError(
                f"the random effect of {name} is {form.name}, its standard deviation in the unit of "
                f"{name}: say a prior of it, {kind}={{'{name}': ...}}"
            )
        prior = half_normal(_SD if prior is None else prior)
        found.append(known_or_sampled(f"{kind}_{name}{suffix}", prior))
    return jnp.stack(found)


def _refuse_strangers(option: str, by_name: Mapping[str, Any], names: tuple[str, ...]) -> None:
    strangers = [n for n in by_name if n not in names]
    if strangers:
        raise ModelError(
            f"{option} names {', '.join(strangers)}, but the parameters are {', '.join(names)}"
        )


def _correlations(
    names: tuple[str, ...], correlated: bool | Sequence[Sequence[str]], lkj: float
) -> Float[Array, "p p"] | None:
    """Return the correlation matrix of random effects, None where they are independent."""
    if isinstance(correlated, bool):
        if not correlated or len(names) < 2:
            return None
        corr: Any = numpyro.sample("corr", dist.LKJ(len(names), lkj))
        return corr
    whole, seen = jnp.eye(len(names)), set()
    for block in map(tuple, correlated):
        unknown, twice = [n for n in block if n not in names], seen & set(block)
        if isinstance(block, str) or len(set(block)) < 2 or len(set(block)) < len(block) or unknown:
            raise ModelError(
                f"correlated has the block {block}; a block is two or more different parameters with a "
                f"random effect of their own, which are {', '.join(names)}"
            )
        if twice:
            raise ModelError(f"correlated has {', '.join(twice)} in two blocks; one is the most")
        seen |= set(block)
        at = jnp.asarray([names.index(n) for n in block])
        part: Any = numpyro.sample(f"corr_{'_'.join(block)}", dist.LKJ(len(block), lkj))
        whole = whole.at[at[:, None], at[None]].set(part)
    numpyro.deterministic("corr", whole)
    return whole


def _between_occasions(
    trial: Trial,
    column: str,
    which: Sequence[str] | Mapping[str, Prior],
    forms: Mapping[str, Transform],
    *,
    first: bool,
) -> dict[str, Float[Array, "s r"]]:
    """Return the random effect of each record's occasion, for the parameters that have one."""
    own, priors = _varying("iov", column, which, forms)
    suffix = "" if first else f"_{column}"
    kappa = _by_occasion(trial, column, suffix, own, priors, forms)
    return at_records(trial, column, kappa, own)


def _drifting(
    trial: Trial, column: str, which: Any, forms: Mapping[str, Transform], *, first: bool
) -> dict[str, Float[Array, "s r"]]:
    """Return the random walk of each parameter that drifts, at each record."""
    if not isinstance(which, Mapping) or not which:
        raise ModelError(
            f"drift of {column} is {which!r}; write drift={{'{column}': {{'CL': 0.02}}}}, the prior of its "
            f"standard deviation per square root of the unit of TIME"
        )
    own, priors = _varying("drift", column, which, forms)
    suffix = "_drift" if first else f"_drift_{column}"
    steps = _by_occasion(trial, column, suffix, own, priors, forms)
    passed = between_starts(trial, column)
    walk = jnp.cumsum(jnp.sqrt(passed)[..., None] * steps, axis=1)
    return at_records(trial, column, walk, own)


def _by_occasion(
    trial: Trial, column: str, suffix: str, own: tuple[str, ...], priors: Any, forms: Any
) -> Any:
    """Return what is sampled for each occasion [subject, occasion, parameter]."""
    _, count = trial.occasions(column)
    sds = _deviations("gamma", priors, {n: forms[n] for n in own}, suffix)
    with (
        numpyro.plate("subject", trial.n_subjects, dim=-2),
        numpyro.plate(f"occasion{suffix}", count, dim=-1),
    ):
        return numpyro.sample(
            f"kappa{suffix}",
            dist.Normal(0, sds).to_event(1),
            infer={"typical": 0.0, "iov": own, "column": column},
        )


def _between_groups(
    trial: Trial, grouped: Mapping[str, Any] | None, levels: Any, forms: Mapping[str, Transform]
) -> dict[str, Any]:
    """Return the random effects of each subject's groups, summed over the columns."""
    total: dict[str, Any] = {}
    for column, group in model_groups(trial, grouped, levels).items():
        own, priors = _varying("groups", column, (grouped or {})[column], forms)
        sds = _deviations("tau", priors, {n: forms[n] for n in own}, f"_{column}")
        total |= {n: total.get(n, 0.0) + group.effect(n, sds[i]) for i, n in enumerate(own)}
    return total


def _varying(
    option: str,
    column: str,
    which: Sequence[str] | Mapping[str, Prior],
    forms: Mapping[str, Transform],
) -> tuple[tuple[str, ...], Mapping[str, Prior] | None]:
    """Return the parameters that vary with a column, and the priors of how much, where given."""
    own = tuple(which)
    if isinstance(which, str) or not own:
        raise ModelError(
            f"{option} of {column} is {which!r}; write {option}={{'{column}': ['CL']}}"
        )
    _refuse_strangers(f"{option} of {column}", dict.fromkeys(own), tuple(forms))
    return own, which if isinstance(which, Mapping) else None


def _center(name: str, form: Transform, typical: Float[Array, "_ _"]) -> Float[Array, "_ _"]:
    """Return a typical value on the scale of its random effect, where it has a place on it."""
    low, high = form.within
    allowed = f"between {low:g} and {high:g}" if high < math.inf else f"above {low:g}"
    refusing(
        lambda found: (
            f"the typical value of {name} is {found}, and its random effect is {form.name}: it must lie "
            f"{allowed}; bound its prior and the effects of covariates on it, or give another transform="
        ),
        typical,
        (typical > low) & (typical < high),
    )
    return form.center(typical)


def _typical(name: str, value: Any, trial: Trial, label: str) -> Float[Array, "_ _"]:
    """Return a typical value, of a class where they differ, as [subject, 1] or [subject, record]."""
    if isinstance(value, Mapping):
        if label not in value:
            raise ModelError(
                f"the typical value of {name} is given for {', '.join(map(str, value))}; "
                + (
                    f"the class {label} lacks one"
                    if label
                    else "individual() was given no classes="
                )
            )
        value = value[label]
    return by_subject(f"the typical value of {name}", value, trial, "trial.covariate() gives")
