"""What is a popk model in PyMC? The same priors, people, concentrations and levels, written anew."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor

from popk.inference.pymc_arithmetic import Arithmetic
from popk.inference.pymc_priors import correlations, sampled
from popk.inference.pymc_structures import concentration
from popk.inference.superposed import Design, design_of
from popk.inference.transcript import People, Transcript, refuse, transcribe
from popk.model.labels import observation_coords
from popk.model.sites import Model, ModelError
from popk.trial import Trial

pt: Any = pytensor.tensor  # its functions are made at run time, and have no types

#: h of each transform and its inverse.
_INVERSE = {"log": pt.exp, "normal": lambda x: x, "logit between 0 and 1": pt.sigmoid}


def pymc_model(
    model: Model, trial: Trial, *, centering: float | Mapping[str, float] = 0.5
) -> pm.Model:
    r"""Return a model of the standard families as a PyMC model, an independent second implementation.

    Priors become PyMC's; the arithmetic between population values, covariates and typical values is
    translated step by step; individual parameters, concentrations and the likelihood are written
    anew in PyTensor: concentrations as sums of exponentials over doses [1]_, not by popk's event
    loop, levels below a limit by a censored likelihood (M3). Its log-density is that of `popk.fit` but
    for a constant.

    Random effects are sampled in the coordinates

    .. math:: u_j = c_j\,(h(\mathrm{TV}_j) + \textstyle\sum_{k<j} L_{jk} z_k) + L_{jj}^{c_j} z_j,
        \qquad \eta = L z

    named ``eta_coordinate_CL``, which are normal one by one. Names are popk's (``CL_pop``,
    ``omega_CL``, ``corr``, ``eta``, ``CL``, ``sigma_additive``, ``IPRED``, ``DV``), and so are axes.

    Parameters
    ----------
    model : Callable
        Of one, two or three compartments, with boluses, infusions and first-order absorption.
    trial : Trial
    centering : float or mapping of parameter to float
        c: 1 centred, 0 not; the posterior is the same.

    Returns
    -------
    Model
        Of PyMC: ``with popk.pymc_model(model, trial): pm.sample()``.

    Raises
    ------
    ModelError
        The model or trial has something that is not of these families; it is named.

    Examples
    --------
    >>> with popk.pymc_model(theophylline, trial):  # doctest: +SKIP
    ...     draws = pm.sample_prior_predictive()

    References
    ----------
    .. [1] Abuhelwa AY, Foster DJR, Upton RN (2015). ADVAN-style analytical solutions for common
       pharmacokinetic models. J Pharmacol Toxicol Methods 73:42-48. doi:10.1016/j.vascn.2015.03.004
    """
    said = transcribe(model, trial)
    oral = "KA" in said.structure.parameters
    compartments = ("depot", "central") if oral else ("central",)
    design = design_of(trial, compartments, lagged=bool(said.structure.lag))
    _check(trial, said, design)
    placed: dict[str, Any] = {}
    value = Arithmetic(said.arithmetic, placed)
    with pm.Model(coords=_coords(trial, said)) as written:
        factors = _population(said, value, placed)
        if said.people is not None:
            _individuals(said.people, factors, value, placed, weights(said.people, centering))
        asked = said.structure
        parameters, F, lag = (
            {n: _variable(value(i)) for n, i in part.items()}
            for part in (asked.parameters, asked.F, asked.lag)
        )
        per_litre = concentration(asked.name, parameters, F, lag, design)
        f = pm.Deterministic(
            "IPRED", per_litre * float(trial.concentration_factor), dims="observation"
        )
        _levels(written, said, value, design, f)
        for name, place in said.values.items():
            site = said.sites.all[name]
            recorded = _variable(value(place)).reshape(_shape(site.shape, site.dims))
            pm.Deterministic(name, recorded, dims=site.dims or None)
    return written


def weights(people: People, centering: float | Mapping[str, float]) -> dict[str, float]:
    """Return the centering of each random effect.

    Parameters
    ----------
    people : People
    centering : float or mapping of parameter to float

    Raises
    ------
    ModelError
        It names a parameter that has no random effect, or is not between 0 and 1.
    """
    names = tuple(people.typical)
    each = dict(centering) if isinstance(centering, Mapping) else dict.fromkeys(names, centering)
    if strangers := [n for n in each if n not in names]:
        raise ModelError(
            f"centering names {', '.join(strangers)}, which have no random effect; those that have one "
            f"are {', '.join(names)}"
        )
    if not all(0 <= c <= 1 for c in each.values()):
        raise ModelError(
            f"centering is {centering}; it must lie between 0 (not centred) and 1 (centred)"
        )
    return {n: float(each.get(n, 0.5)) for n in names}


def _check(trial: Trial, said: Transcript, design: Design) -> None:
    """Refuse levels that have no probability, and options that have no counterpart."""
    relative = "additive" not in said.error.priors and "intercept" not in said.error.priors
    impossible = relative & ~design.given & np.isinf(design.limit)
    if impossible.any():
        frame = trial.host.frame
        row = frame[frame["EVID"].eq(0) & frame["MDV"].eq(0)][impossible].iloc[0]
        raise ModelError(
            f"{trial.host.name} row {row['ROW']}, ID {row['ID']}, TIME {row['TIME']:g}: a level before "
            f"any dose cannot be explained by a proportional or log-normal error; set MDV 1 there, or "
            f"add an additive error"
        )
    steady = any(d.interval.any() for (_, infusion), d in design.doses.items() if infusion)
    if steady and "central" in said.structure.F:
        refuse("F of infusions at steady state", "leave out F=, or write the doses out")
    if not trial.design.concentrations:
        raise ModelError(
            "the unit of AMT per L cannot be converted to the unit of DV, so a concentration has no unit"
        )


def _coords(trial: Trial, said: Transcript) -> dict[str, Any]:
    """Return the labels of all axes."""
    measured = np.asarray(trial.observations.measured)
    coords: dict[str, Any] = {
        "subject": list(trial.ids),
        "observation": observation_coords(trial, measured)["observation"],
    }
    if said.people is not None:
        own = list(said.people.typical)
        coords |= {"parameter": own, "parameter2": own}
    for name in [*said.priors, *said.values]:
        site = said.sites.all[name]
        for axis, size in zip(site.dims, _shape(site.shape, site.dims), strict=True):
            coords.setdefault(axis, np.arange(size))
    return coords


def _shape(shape: tuple[int, ...], dims: tuple[str, ...]) -> tuple[int, ...]:
    """Return a site's shape without the axes of size 1 that have no name."""
    return shape if len(shape) == len(dims) else tuple(n for n in shape if n > 1)


def _variable(value: Any) -> Any:
    return value if hasattr(value, "owner") else pt.as_tensor(np.asarray(value))


def _population(said: Transcript, value: Arithmetic, placed: dict[str, Any]) -> dict[str, Any]:
    """Write the population's values, and return the Cholesky factor of each correlation matrix."""
    factors = {}
    for name, prior in said.priors.items():
        dims = said.sites.all[name].dims
        given = {n: _variable(value(i)) for n, i in prior.given.items()}
        if prior.family == "LKJ":
            factors[name] = correlations(name, prior.shape[-1], given["concentration"], dims)
            placed[name] = factors[name] @ factors[name].T
        else:
            placed[name] = sampled(name, prior, given, dims).reshape(prior.shape)
    return factors


def _individuals(
    people: People, factors: Mapping[str, Any], value: Arithmetic, placed: dict[str, Any],
    centering: Mapping[str, float],
) -> None:  # fmt: skip
    """Write random effects and individual parameters."""
    names = tuple(people.typical)
    center = {n: _variable(value(i)) for n, i in people.typical.items()}
    omega = {n: _variable(value(i)) for n, i in people.omega.items()}
    eta = {}
    alone = [n for n in names if not any(n in block for block in people.blocks.values())]
    for block, factor in [
        *((b, factors[site]) for site, b in people.blocks.items()),
        *(((n,), np.ones((1, 1))) for n in alone),
    ]:
        z: list[Any] = []
        for j, n in enumerate(block):
            c, own = centering[n], omega[n] * factor[j, j]
            before = sum((omega[n] * factor[j, k] * z[k] for k in range(j)), start=0.0)
            mean, sd = c * (center[n] + before), own**c
            u: Any = pm.Normal(f"eta_coordinate_{n}", mean, sd, dims="subject")
            z.append((u - mean) / sd)
            eta[n] = before + own * z[j]
    stacked = pt.stack([eta[n] for n in names], axis=1)
    pm.Deterministic("eta", stacked, dims=("subject", "parameter"))
    for n in names:
        each = _INVERSE[people.transforms[n]](center[n] + eta[n])
        pm.Deterministic(n, each, dims="subject")
        placed[n] = each[:, None]


def _levels(written: Any, said: Transcript, value: Arithmetic, design: Design, f: Any) -> None:
    """Write the levels around their predictions."""
    sigmas = {n: _variable(value(i)) for n, i in said.sigmas.items()}
    below = ~np.isinf(design.limit)
    if "log" in sigmas:
        # Where nothing is predicted a level is below its limit for certain.
        nothing = np.where(below, design.value * 1e-100, 0.0)
        level = pm.LogNormal.dist(pt.log(pt.switch(pt.eq(f, 0), nothing, f)), sigmas["log"])
    else:
        sd = _spread(f, **sigmas)
        nothing = np.where(below, np.abs(design.value) * 1e-3, 0.0)
        level = pm.Normal.dist(f, pt.switch(pt.eq(sd, 0), nothing, sd))
    if below.any():
        level = pm.Censored.dist(level, lower=pt.as_tensor(design.limit), upper=np.inf)
    written.register_rv(level, "DV", observed=design.value, dims=("observation",))


def _spread(f: Any, **sigmas: Any) -> Any:
    """Return the standard deviation of levels."""
    zero = 0.0
    a, b = sigmas.get("additive", zero), sigmas.get("proportional", zero)
    if "intercept" in sigmas:
        return sigmas["intercept"] + sigmas["slope"] * pt.abs(f)
    if b is zero:
        return a * pt.ones_like(f)
    return b * pt.abs(f) if a is zero else pt.sqrt(a**2 + (b * f) ** 2)
