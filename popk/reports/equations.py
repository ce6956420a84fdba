"""Which equations are a model? Its structure, its people and its errors, as a reader writes them.

References
----------
.. [1] Gibaldi M, Perrier D (1982). Pharmacokinetics. 2nd ed. Marcel Dekker.
   doi:10.1201/b14095
.. [2] Savic RM, Jonker DM, Kerbusch T, Karlsson MO (2007). J Pharmacokinet Pharmacodyn 34:711-726.
   doi:10.1007/s10928-007-9066-0
"""

import ast
from typing import Any

import jax
from numpyro import handlers

from popk.model import structures
from popk.model.recording import answering
from popk.model.sites import Sites
from popk.reports.blocks import Block, Formula, Words
from popk.reports.expressions import Reading, UnreadableError, reading
from popk.reports.fitted import Fitted
from popk.structural.absorption import INVERSE_GAUSSIAN, TRANSIT, WEIBULL
from popk.trial import Trial

#: The volume, what leaves the central compartment, and what the others gain, by structure [1]_.
_DISPOSITION = {
    "one_compartment": ("V", r"-\frac{CL}{V} A_{c}", {}),
    "two_compartment": (
        "V1", r"-\frac{CL + Q}{V1} A_{c} + \frac{Q}{V2} A_{p}",
        {"p": r"\frac{Q}{V1} A_{c} - \frac{Q}{V2} A_{p}"},
    ),
    "three_compartment": (
        "V1", r"-\frac{CL + Q2 + Q3}{V1} A_{c} + \frac{Q2}{V2} A_{p1} + \frac{Q3}{V3} A_{p2}",
        {
            "p1": r"\frac{Q2}{V1} A_{c} - \frac{Q2}{V2} A_{p1}",
            "p2": r"\frac{Q3}{V1} A_{c} - \frac{Q3}{V3} A_{p2}",
        },
    ),
}  # fmt: skip
#: The rate at which a unit dose arrives, by absorption [2]_.
_ARRIVING: dict[Any, str] = {
    TRANSIT: r"r(t) = \frac{k {(k t)}^{N} \exp(-k t)}{\Gamma(N + 1)},\quad k = \frac{N + 1}{MTT}",
    WEIBULL: r"\mathrm{absorbed~fraction} = 1 - \exp\left(-{(t / SCALE)}^{SHAPE}\right)",
    INVERSE_GAUSSIAN: r"r(t) = \sqrt{\frac{MAT}{2 \pi CV2 {t}^{3}}}"
    r" \exp\left(-\frac{{(t - MAT)}^{2}}{2 CV2 MAT t}\right)",
}
_F, _EPS = r"\mathrm{IPRED}_{ij}", r"\varepsilon_{ij}"
#: The standard deviation of a level by the names of its parameters.
_SPREAD = {
    ("additive",): r"\sigma_{\mathrm{additive}}",
    ("proportional",): rf"\sigma_{{\mathrm{{proportional}}}} \cdot {_F}",
    ("additive", "proportional"): r"\sqrt{\sigma_{\mathrm{additive}}^{2} + "
    rf"\sigma_{{\mathrm{{proportional}}}}^{{2}} \cdot {_F}^{{2}}}}",
    ("intercept", "slope"): rf"\sigma_{{\mathrm{{intercept}}}} + "
    rf"\sigma_{{\mathrm{{slope}}}} \cdot {_F}",
    ("coefficient", "exponent"): rf"\sigma_{{\mathrm{{coefficient}}}} \cdot "
    rf"{_F}^{{\sigma_{{\mathrm{{exponent}}}}}}",
    ("log",): r"\sigma_{\mathrm{log}}",
}


def structure_equations(fitted: Fitted) -> list[Block]:
    """Return how drug moves: differential equations of popk's structures, words for others."""
    asked = asked_structures(fitted)
    if not asked:
        return [Words("Amounts or predictions are computed in the source below: the model calls none of "
                      "the compartment structures whose equations are known here.")]  # fmt: skip
    found: list[Block] = []
    for name, arguments in asked:
        found += _compartments(name, arguments)
    return found


def asked_structures(fitted: Fitted) -> list[tuple[str, dict[str, Any]]]:
    """Return the structures that a model calls, with their arguments."""
    found: list[tuple[str, dict[str, Any]]] = []

    def answer(name: str, trial: Trial, arguments: dict[str, Any]) -> Any:
        found.append((name, arguments))
        return getattr(structures, name).__wrapped__(trial, **arguments)

    seeded = handlers.seed(fitted.model, jax.random.key(0))
    with answering(answer):
        jax.eval_shape(
            lambda arrays: handlers.trace(seeded).get_trace(arrays) and None,
            fitted.trial.arrays(),
        )
    return found


def _compartments(name: str, given: dict[str, Any]) -> list[Block]:
    volume, out, others = _DISPOSITION[name]
    absorption, found = given.get("absorption"), []
    if given.get("KA") is not None:
        found.append(Formula(r"\frac{dA_{d}}{dt} = -KA \cdot A_{d}"))
        out = rf"KA \cdot A_{{d}} {out}"
    elif absorption is not None:
        out = rf"\mathrm{{input}}(t) {out}"
    found.append(Formula(rf"\frac{{dA_{{c}}}}{{dt}} = {out}"))
    found += [Formula(rf"\frac{{dA_{{{n}}}}}{{dt}} = {gain}") for n, gain in others.items()]
    found.append(Formula(rf"\mathrm{{IPRED}} = \frac{{A_{{c}}}}{{{volume}}}"))
    if absorption is not None and (rate := _ARRIVING.get(getattr(absorption, "input", None) or "")):
        found.append(Formula(rate))
    said = {"F": "bioavailability F", "lag": "lag time", "R": "modeled rate of infusion",
            "D": "modeled duration", "initial": "initial amount"}  # fmt: skip
    extra = [
        f"{says} ({', '.join(map(str, given[n]))})" for n, says in said.items() if given.get(n)
    ]
    if absorption is not None and not extra:
        extra = ["an absorption of its own"]
    more = f" Doses have {', '.join(extra)}." if extra else ""
    named = {"d": "depot", "c": "central", "p": "peripheral", "p1": "first peripheral",
             "p2": "second peripheral"}  # fmt: skip
    used = [*(["d"] if given.get("KA") is not None else []), "c", *others]
    says = ", ".join(f"{n} {named[n]}" for n in used)
    found.append(Words(f"A: amounts of drug; {says}; t: time.{more}", quiet=True))
    return found


def individual_equations(fitted: Fitted) -> list[Block]:
    """Return each person's parameters: typical value, covariates and random effects."""
    sites, found = fitted.sites, []
    try:
        source = reading(fitted.model, fitted.posterior.attrs)
    except UnreadableError:
        source = None
    typical, unread = _typical(source, sites)
    for name in sites.transforms:
        found.append(Formula(_person(name, typical[name], sites)))
    found += _common(source, sites)
    if sites.parameters:
        found.append(Formula(_deviations(sites)))
    drifting, varying = _by_occasion(sites)
    if varying:
        found.append(Formula(r"\kappa_{P,ik} \sim N\left(0,\, \gamma_{P}^{2}\right)"))
    if drifting:
        found.append(Formula(
            r"\delta_{P,ik} \sim N\left(\delta_{P,i,k-1},\, "
            r"\gamma_{P,\mathrm{drift}}^{2} \Delta t_{ik}\right)"
        ))  # fmt: skip
    if unread:
        found.append(Words(
            f"TV is the typical value for a subject's covariates; that of {', '.join(unread)} is "
            f"computed in the source below, from {_parts(unread, fitted)}.", quiet=True))  # fmt: skip
    says = "i: subject; η: random effect of a subject, with standard deviation ω"
    says += ", correlations ρ" if "corr" in sites.all else ""
    says += "; κ: of occasion k, with standard deviation γ" if varying else ""
    says += "; δ: random walk over occasions k that begin Δt apart, 0 at first" if drifting else ""
    says += "; a subscript pop marks population values" if sites.parameters else ""
    return [*found, Words(f"{says}.", quiet=True)]


def _typical(source: Reading | None, sites: Sites) -> tuple[dict[str, str], list[str]]:
    """Return the typical value of each parameter in LaTeX, and those that could not be read."""
    given: dict[str, Any] = {}
    for call in source.calls("individual") if source else []:
        given |= {k.arg: k.value for k in call.keywords if k.arg}
    found, unread = {}, []
    for name in sites.transforms:
        try:
            if source is None or name not in given:
                raise UnreadableError(name)
            found[name] = source.latex(given[name])
        except UnreadableError:
            found[name] = rf"\mathrm{{TV}}_{{{name},i}}"
            unread.append(name)
    return found, unread


def _parts(names: list[str], fitted: Fitted) -> str:
    own = [n for n in fitted.sites.named("population")
           if any(n.startswith(f"{p}_") for p in names)]  # fmt: skip
    return ", ".join(own) or "values that it samples"


def _by_occasion(sites: Sites) -> tuple[set[str], set[str]]:
    """Return the parameters that drift from occasion to occasion, and those that vary between them."""
    found: tuple[set[str], set[str]] = set(), set()
    for site, own in sites.iov.items():
        found[not site.startswith("kappa_drift")].update(own)
    return found


def _person(name: str, typical: str, sites: Sites) -> str:
    """Return one parameter of a person."""
    effect = rf"\eta_{{{name},i}}"
    if name not in sites.parameters:  # it shares the random effect of another
        effect = rf"\mathrm{{share}}_{{{name}}} \cdot \eta_{{i}}"
    drifting, varying = _by_occasion(sites)
    effect += rf" + \kappa_{{{name},ik}}" if name in varying else ""
    effect += rf" + \delta_{{{name},ik}}" if name in drifting else ""
    for column in sites.levels:
        if f"zeta_{name}_{column}" in sites.all:
            effect += rf" + \zeta_{{{name},\mathrm{{{column}}}}}"
    kind = sites.transforms[name]
    if kind == "log":
        times = typical if " + " not in _outside(typical) else rf"\left({typical}\right)"
        return rf"{name}_{{i}} = {times} \cdot \exp\left({effect}\right)"
    if kind == "normal":
        return rf"{name}_{{i}} = {typical} + {effect}"
    h = rf"\mathrm{{{kind.split('(')[0].split()[0].replace('_', '~')}}}"
    return rf"{h}\left({name}_{{i}}\right) = {h}\left({typical}\right) + {effect}"


def _outside(latex: str) -> str:
    """Return what of a formula stands in no braces or brackets."""
    depth, kept = 0, []
    for letter in latex:
        depth += (letter in "{(") - (letter in "})")
        kept.append(letter if depth == 0 else "")
    return "".join(kept)


def _common(source: Reading | None, sites: Sites) -> list[Block]:
    """Return the parameters of the structure that do not differ between subjects."""
    if source is None:
        return []
    found: dict[str, str] = {}
    for name in _DISPOSITION:
        for keyword in (k for call in source.calls(name) for k in call.keywords):
            plain = keyword.arg and keyword.arg not in sites.transforms
            if plain and not isinstance(keyword.value, ast.Attribute | ast.Dict | ast.List):
                try:
                    found[keyword.arg or ""] = source.latex(keyword.value)
                except UnreadableError:
                    continue
    return [Formula(rf"{name} = {latex}") for name, latex in found.items()]


def _deviations(sites: Sites) -> str:
    if "degrees" in sites.all:
        return r"\eta_{i} \sim t_{\nu}\left(0,\, \Omega\right)"
    if "corr" in sites.all:
        return (r"\eta_{i} \sim N\left(0,\, \Omega\right),\quad "
                r"\Omega_{PQ} = \omega_{P} \cdot \omega_{Q} \cdot \rho_{PQ}")  # fmt: skip
    return r"\eta_{P,i} \sim N\left(0,\, \omega_{P}^{2}\right)"


def residual_equations(fitted: Fitted) -> list[Block]:
    """Return how levels differ from predictions, for each kind of levels."""
    sites = fitted.sites
    outputs = [n.removeprefix("DV").removeprefix("_") for n in sites.named("level")]
    found: list[Block] = []
    for output in outputs:
        endpoint = sites.endpoints.get(f"DV_{output}" if output else "DV")
        if endpoint:
            found.append(Words(f"{output or 'DV'}: {endpoint.name}, given the prediction."))
        else:
            found += _residual(output, outputs, sites)
    more = [
        ("below", "A level below the lower limit of quantification counts as the probability of "
                  "being there (M3, or M4 where the source says so)."),
        ("above", "A level above the upper limit counts as the probability of being there."),
    ]  # fmt: skip
    found += [Words(says, quiet=True) for n, says in more if getattr(fitted.trial.design, n)]
    return found


def _residual(output: str, outputs: list[str], sites: Sites) -> list[Block]:
    others = [o for o in outputs if o and o != output]
    names = [n.removeprefix("sigma_") for n in sites.all if n.startswith("sigma_")]
    if output:
        names = [n.removesuffix(f"_{output}") for n in names if n.endswith(f"_{output}")]
    else:
        names = [n for n in names if not any(n.endswith(f"_{o}") for o in others)]
    says = [Words(f"Levels of {output}:")] if output else []
    spread = _SPREAD.get(tuple(sorted(names)))
    if spread is None:
        own = ", ".join(f"sigma_{n}" for n in names) or "none"
        return [
            *says,
            Words(f"The residual error is one of the source below; its parameters: {own}."),
        ]
    if names == ["log"]:
        law = rf"\ln \mathrm{{DV}}_{{ij}} = \ln {_F} + {_EPS}"
    else:
        law = rf"\mathrm{{DV}}_{{ij}} = {_F} + {_EPS}"
    return [*says, Formula(rf"{law},\quad {_EPS} \sim N\left(0,\, s_{{ij}}^{{2}}\right),\quad "
                           rf"s_{{ij}} = {spread}")]  # fmt: skip
