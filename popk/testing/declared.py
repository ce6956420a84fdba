"""What does a model say that it is? Its signature, its docstring, its sites and their names."""

import functools
import inspect

from popk.endpoints import PARAMETERS
from popk.model.sites import Model, ModelError, describe
from popk.records.table import DataError
from popk.testing.problems import Problem, name_of
from popk.trial import Trial

#: How names of population sites begin that reports know: variability and error.
_KNOWN = ("omega_", "gamma_", "tau_", "zeta_", "sigma_")


def check_signature(model: Model) -> list[Problem]:
    """Return what is wrong with a model's signature and docstring.

    Parameters
    ----------
    model : Callable
    """
    inner = model.func if isinstance(model, functools.partial) else model
    given = inspect.signature(model).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in given if p.default is p.empty and p.kind not in kinds]
    found = []
    if required != ["trial"]:
        found.append(
            f"it requires the arguments {', '.join(required) or 'none'}; a model is a function of "
            f"the trial alone: def {name_of(model)}(trial)"
        )
    if not (getattr(inner, "__doc__", None) or "").strip():
        found.append("it has no docstring; say on one line which model of which drug it is")
    return [Problem("signature", says) for says in found]


def unusable(model: Model, trial: Trial) -> str:
    """Return why a model cannot be used with a trial, "" where it can."""
    try:
        describe(model, trial)
    except (ModelError, DataError) as error:
        return str(error)
    return ""


def check_sites(model: Model, trial: Trial) -> list[Problem]:
    """Return what is wrong with what a model samples and observes, and with the names of it.

    A population site is named ``CL_pop``, ``omega_CL``, ``sigma_proportional`` or ``corr``, or
    as an endpoint's parameter, or as the effects of occasions and groups (``gamma_CL``, ``tau_CL_SITE``
    and ``zeta_CL_SITE``); the effect of a covariate begins with its parameter, as ``CL_WT``. None bears
    the name of an axis.

    Parameters
    ----------
    model : Callable
    trial : Trial
    """
    if why := unusable(model, trial):
        return [Problem("sites", why)]
    sites = describe(model, trial)
    population = sites.named("population")
    parameters = {
        *sites.parameters,
        *(n.removesuffix("_pop") for n in population if n.endswith("_pop")),
    }
    found = []
    for name in population:
        known = name == "corr" or name.endswith("_pop") or name.startswith(_KNOWN)
        known = known or name.split("_")[0] in PARAMETERS
        if not known and not any(name.startswith(f"{parameter}_") for parameter in parameters):
            found.append(
                f"the population site {name} has a name that reports do not know; name it "
                f"{name}_pop if it is a typical value, or after its parameter if it is the effect "
                f"of a covariate, as CL_WT"
            )
    if not population:
        found.append("it has no population site, so there is nothing to fit; sample one, as CL_pop")
    return [Problem("sites", says) for says in found]
