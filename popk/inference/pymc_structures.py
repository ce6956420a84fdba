r"""What is the concentration, in PyTensor? A sum of exponentials over doses, in closed form.

Drug in the central compartment after a unit bolus is :math:`\sum_i w_i e^{-\lambda_i t}`; what is
absorbed or infused, and a steady state, are integrals and geometric sums of it [1]_. Nothing here is
shared with `popk.solve`, whose independent check it is.

References
----------
.. [1] Abuhelwa AY, Foster DJR, Upton RN (2015). ADVAN-style analytical solutions for common
   pharmacokinetic models. J Pharmacol Toxicol Methods 73:42-48. doi:10.1016/j.vascn.2015.03.004
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor

from popk.inference.superposed import Design, Doses

pt: Any = pytensor.tensor  # its functions are made at run time, and have no types

_CLOSE, _TERMS = 0.3, 13  # below 0.3 the fourteenth term is less than 1e-17 of the first
_POLISH = 3  # Newton's steps, each of which doubles the digits of a root


class Exponentials(NamedTuple):
    """The central compartment after a unit bolus.

    Attributes
    ----------
    rates, weights : TensorVariable
        lambda [1/time] and w [fraction], each of shape [observation, 1, exponential].
    """

    rates: Any
    weights: Any


def one_exponential(CL: Any, V: Any) -> Exponentials:
    """Return those of one compartment.

    Parameters
    ----------
    CL, V : TensorVariable
        Clearance [L/time] and volume [L].
    """
    return _stacked([CL / V], [pt.ones_like(V)])


def two_exponentials(CL: Any, V1: Any, Q: Any, V2: Any) -> Exponentials:
    r"""Return those of two compartments, :math:`w_i = (\lambda_i - k_{21}) / (\lambda_i - \lambda_j)`.

    Parameters
    ----------
    CL, Q : TensorVariable
        Clearance and intercompartmental clearance [L/time].
    V1, V2 : the same
        Central and peripheral volume [L].
    """
    k10, k12, k21 = CL / V1, Q / V1, Q / V2
    apart = k10 + k12 - k21
    root = pt.sqrt(apart**2 + 4 * k12 * k21)
    fast = (k10 + k12 + k21 + root) / 2
    slow = k10 * k21 / fast  # as a difference it would lose digits
    return _stacked([fast, slow], [(fast - k21) / root, (k21 - slow) / root])


def three_exponentials(CL: Any, V1: Any, Q2: Any, V2: Any, Q3: Any, V3: Any) -> Exponentials:
    r"""Return those of three compartments: the roots of their cubic by cosines [1]_, made exact by Newton.

    .. math:: w_i = (k_{21} - \lambda_i)(k_{31} - \lambda_i) \Big/ \prod_{j \ne i} (\lambda_j - \lambda_i)

    Parameters
    ----------
    CL, Q2, Q3 : TensorVariable
        Clearance and intercompartmental clearances [L/time].
    V1, V2, V3 : the same
        Central and peripheral volumes [L].

    References
    ----------
    .. [1] Upton RN (2004). Calculating the hybrid (macro) rate constants of a three-compartment
       mammillary pharmacokinetic model from known micro-rate constants. J Pharmacol Toxicol Methods
       49:65-68. doi:10.1016/j.vascn.2003.09.001
    """
    k10, k12, k13, k21, k31 = CL / V1, Q2 / V1, Q3 / V1, Q2 / V2, Q3 / V3
    a2 = k10 + k12 + k13 + k21 + k31
    a1 = k10 * k31 + k21 * k31 + k21 * k13 + k10 * k21 + k31 * k12
    a0 = k10 * k21 * k31
    third = a2**2 / 9 - a1 / 3
    half = a2**3 / 27 - a1 * a2 / 6 + a0 / 2
    # Three real roots: the cosine is in between -1 and 1 but for rounding.
    angle = pt.arccos(pt.clip(half / third**1.5, -1 + 1e-15, 1 - 1e-15)) / 3
    turns = 2 * math.pi * np.arange(3) / 3
    a2, a1, a0, k21, k31 = (x[..., None] for x in (a2, a1, a0, k21, k31))
    x = 2 * pt.sqrt(third[..., None]) * pt.cos(angle[..., None] - turns) + a2 / 3
    for _ in range(_POLISH):
        x = x - (((x - a2) * x + a1) * x - a0) / ((3 * x - 2 * a2) * x + a1)
    # The derivative of the cubic at a root is the product of its distances from the others.
    return Exponentials(x, (k21 - x) * (k31 - x) / ((3 * x - 2 * a2) * x + a1))


def _stacked(rates: list[Any], weights: list[Any]) -> Exponentials:
    return Exponentials(pt.stack(rates, axis=-1), pt.stack(weights, axis=-1))


EXPONENTIALS = {
    "one_compartment": one_exponential,
    "two_compartment": two_exponentials,
    "three_compartment": three_exponentials,
}


def difference(t: Any, a: Any, b: Any) -> Any:
    r"""Return :math:`(e^{-at} - e^{-bt}) / (b - a)`, with derivatives where a and b meet [time].

    Parameters
    ----------
    t : TensorVariable
        0 or more [time].
    a, b : the same
        [1/time].
    """
    x = (b - a) * t
    later = x >= 0
    return t * pt.exp(-pt.switch(later, a, b) * t) * _share(pt.switch(later, x, -x))


def _share(y: Any) -> Any:
    """Return (1 - exp(-y)) / y for y of 0 or more."""
    near = y < _CLOSE
    small, large = pt.switch(near, y, 0.0), pt.switch(near, 1.0, y)
    series: Any = 0.0
    for n in reversed(range(_TERMS)):
        series = series * small + (-1) ** n / math.factorial(n + 1)
    return pt.switch(near, series, -pt.expm1(-large) / large)


def concentration(
    name: str, parameters: Mapping[str, Any], F: Mapping[str, Any], lag: Mapping[str, Any],
    design: Design,
) -> Any:  # fmt: skip
    """Return the concentration of each level, in amounts per L [observation].

    Parameters
    ----------
    name : str
        One of `EXPONENTIALS`.
    parameters : mapping of str to TensorVariable
        CL, V and so on, and KA where there is a depot, each [subject].
    F, lag : mapping of str to TensorVariable
        Bioavailability [fraction] and lag time [time] of ``depot`` and ``central`` [subject].
    design : Design
    """
    own = {n: x[design.subject][:, None] for n, x in parameters.items()}
    KA = own.pop("KA", None)
    free = EXPONENTIALS[name](**own)
    total: Any = np.zeros(len(design.subject))
    for (compartment, infusion), doses in design.doses.items():
        fraction = F[compartment][design.subject][:, None] if compartment in F else 1.0
        t: Any = pt.as_tensor(doses.since)
        if compartment in lag:
            t = t - lag[compartment][design.subject][:, None]
        acts = pt.ge(t, 0) & (doses.amount > 0)
        t = pt.switch(acts, t, 0.0)[..., None]
        if infusion:
            unit = doses.rate[..., None] * _infused(free, doses, t, fraction)
        elif compartment == "depot":
            unit = _absorbed(free, doses, t, KA[..., None]) * KA[..., None]
            unit = unit * (doses.amount * fraction)[..., None]
        else:
            unit = pt.exp(-free.rates * t) * _repeats(free.rates, doses)
            unit = unit * (doses.amount * fraction)[..., None]
        amount = (free.weights * unit).sum(axis=-1)
        total = total + pt.switch(acts, amount, 0.0).sum(axis=1)
    volume = own["V"] if "V" in own else own["V1"]
    return total / volume[:, 0]


def _absorbed(free: Exponentials, doses: Doses, t: Any, KA: Any) -> Any:
    """Return what is there of unit boluses into the depot, over KA [time]."""
    unit = difference(t, free.rates, KA)
    steady, every = _steady(doses)
    if not steady.any():
        return unit
    # The divided difference of a product: of exp(-xt) and of the geometric sum of exp(-xT).
    sums = _repeats(free.rates, doses), _repeats(KA, doses)
    waits = pt.exp(-free.rates * t) * difference(every, free.rates, KA) * sums[0] * sums[1]
    return pt.switch(steady, waits + unit * sums[1], unit)


def _infused(free: Exponentials, doses: Doses, t: Any, fraction: Any) -> Any:
    """Return what is there of infusions of rate 1 that last F AMT / RATE [time]."""
    length = (fraction * doses.amount / np.where(doses.rate > 0, doses.rate, 1.0))[..., None]
    runs, over = pt.minimum(t, length), pt.maximum(t - length, 0.0)
    unit = pt.exp(-free.rates * over) * -pt.expm1(-free.rates * runs)
    steady, every = _steady(doses)
    if steady.any():
        since = pt.switch(steady, t + every - length, 0.0)
        sums = -pt.expm1(-free.rates * length) * _repeats(free.rates, doses)
        unit = unit + pt.switch(steady, pt.exp(-free.rates * since) * sums, 0.0)
    return unit / free.rates


def _repeats(rates: Any, doses: Doses) -> Any:
    """Return the sum of exp(-a n T) over n from 0 on; 1 where nothing is repeated."""
    steady, every = _steady(doses)
    return pt.switch(steady, -1 / pt.expm1(-rates * every), 1.0) if steady.any() else 1.0


def _steady(doses: Doses) -> tuple[Any, Any]:
    """Return which doses are at steady state, and how far they are apart."""
    steady = doses.interval[..., None] > 0
    return steady, np.where(steady, doses.interval[..., None], 1.0)
