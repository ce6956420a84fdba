"""How will a model be solved and sampled on a trial, and why?"""

import jax
import numpy as np

from popk.inference.beginning import beginning
from popk.inference.compilation import keep_compiled
from popk.inference.draws import Problem
from popk.inference.nuts import Settings
from popk.model.explanation import tiers
from popk.model.sites import Model, describe
from popk.trial import Trial


def explain(model: Model, trial: Trial) -> None:
    """Print which solver each structure of a model takes on a trial, and how random effects are sampled.

    How far a random effect is centred is, subject by subject, the part of its variance that the subject's
    levels explain in the normal approximation of the posterior that chains begin from: 1 less its
    shrinkage. It changes how fast the sampler is, never the posterior.

    Parameters
    ----------
    model : Callable
    trial : Trial

    Raises
    ------
    ModelError
        The model cannot be used with the trial.

    Examples
    --------
    >>> popk.explain(theophylline, trial)  # doctest: +SKIP
    depot, central: closed form, because its exponentials are known
    CL: centred by 0.91 (subjects 0.83 to 0.95)
    V: centred by 0.51 (subjects 0.31 to 0.62)
    KA: centred by 0.89 (subjects 0.71 to 0.96)
    """
    keep_compiled()
    structures = tiers(model, trial)
    for tier in structures:
        print(f"{tier.structure}: {tier.tier}, because {tier.why}")
    if not structures:
        print("the model calls no structure of popk")
    sites = describe(model, trial)
    if not sites.parameters or not len(trial.observations.subject):
        return
    begin = beginning(
        Problem(model, trial, sites), jax.random.key(0), Settings(1, 1, 1, None, 1), None
    )
    if begin.target.centering is None or not begin.modes:
        print(f"random effects: centred by 0.5, because {begin.said}")
        return
    fraction = np.asarray(begin.target.centering.fraction).reshape(-1, len(sites.parameters))
    for name, own in zip(sites.parameters, fraction.T, strict=True):
        print(f"{name}: centred by {own.mean():.2f} (subjects {own.min():.2f} to {own.max():.2f})")
