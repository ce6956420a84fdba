r"""How does drug move in one interval? Closed forms of the one- and two-compartment models.

A linear system in an interval of length t with constant inflow r (infusions) has

.. math:: A(t) = P(t) A(0) + Q(t) r, \qquad Q(t) = \int_0^t P(s)\, ds

Each structure here gives P and Q, for one subject and one interval.

References
----------
.. [1] Bertrand J, Mentre F (2008). Mathematical expressions of the pharmacokinetic and
   pharmacodynamic models implemented in the Monolix software.
.. [2] Gibaldi M, Perrier D (1982). Pharmacokinetics, 2nd edition.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.structural.exponentials import decay, transfer, transfer2

Scalar = Float[Array, ""]
Square = Float[Array, "n n"]


class Structure(NamedTuple):
    """A linear compartment structure.

    Attributes
    ----------
    compartments : tuple of str
        Their names, in the order of NONMEM's numbers (1, 2, ...).
    dosed, observed : str
        The compartment that doses go to, and levels are taken from, where CMT is 0.
    propagator : Callable
        ``propagator(t, **parameters)`` gives P and Q, each [compartment, compartment].
    """

    compartments: tuple[str, ...]
    dosed: str
    observed: str
    propagator: Callable[..., tuple[Square, Square]]


def _matrix(*rows: tuple[Scalar, ...]) -> Square:
    return jnp.stack([jnp.stack(jnp.broadcast_arrays(*row)) for row in rows])


def one_compartment_bolus(t: Scalar, CL: Scalar, V: Scalar) -> tuple[Square, Square]:
    r"""Return P and Q of :math:`A' = -kA + r`, with k = CL / V.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, V : Float[Array, ""]
        Clearance [L/time] and volume [L].
    """
    k = CL / V
    return _matrix((decay(t, k),)), _matrix((transfer(t, k, jnp.zeros_like(k)),))


def one_compartment_oral(t: Scalar, CL: Scalar, V: Scalar, KA: Scalar) -> tuple[Square, Square]:
    r"""Return P and Q of :math:`A_d' = -k_a A_d + r_d,\; A_c' = k_a A_d - k A_c + r_c`.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, V, KA : Float[Array, ""]
        Clearance [L/time], volume [L], absorption rate constant [1/time].
    """
    k = CL / V
    zero = jnp.zeros_like(k)
    absorbed = transfer(t, k, KA)
    whole, depot = transfer(t, k, zero), transfer(t, KA, zero)
    P = _matrix((decay(t, KA), zero), (KA * absorbed, decay(t, k)))
    return P, _matrix((depot, zero), (whole - absorbed, whole))


def _disposition(CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar) -> tuple[Scalar, ...]:
    """Return alpha > beta, and the entries of M + beta I, of the two-compartment rate matrix M."""
    k10, k12, k21 = CL / V1, Q / V1, Q / V2
    total = k10 + k12 + k21
    alpha = (total + jnp.sqrt((k10 + k12 - k21) ** 2 + 4 * k12 * k21)) / 2
    beta = k10 * k21 / alpha  # not (total - sqrt) / 2, which cancels
    return alpha, beta, beta - k10 - k12, k21, k12, beta - k21


def two_compartment_bolus(
    t: Scalar, CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar
) -> tuple[Square, Square]:
    r"""Return P and Q of a central and a peripheral compartment.

    With rates alpha > beta and M the rate matrix, :math:`P = e^{-\beta t} I +
    \frac{e^{-\beta t} - e^{-\alpha t}}{\alpha - \beta}(M + \beta I)` (Newton's form of exp(Mt)).

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, Q : Float[Array, ""]
        Clearance and intercompartmental clearance [L/time].
    V1, V2 : Float[Array, ""]
        Central and peripheral volume [L].
    """
    alpha, beta, cc, cp, pc, pp = _disposition(CL, V1, Q, V2)
    zero = jnp.zeros_like(beta)

    def newton(first: Scalar, second: Scalar) -> Square:
        return _matrix((first + second * cc, second * cp), (second * pc, first + second * pp))

    P = newton(decay(t, beta), transfer(t, beta, alpha))
    return P, newton(transfer(t, beta, zero), transfer2(t, alpha, beta, zero))


def two_compartment_oral(
    t: Scalar, CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar, KA: Scalar
) -> tuple[Square, Square]:
    """Return P and Q of a depot, a central and a peripheral compartment.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, Q : Float[Array, ""]
        Clearance and intercompartmental clearance [L/time].
    V1, V2 : Float[Array, ""]
        Central and peripheral volume [L].
    KA : Float[Array, ""]
        Absorption rate constant [1/time].
    """
    alpha, beta, cc, _, pc, _ = _disposition(CL, V1, Q, V2)
    zero = jnp.zeros_like(beta)
    P, Q_iv = two_compartment_bolus(t, CL, V1, Q, V2)
    # The response of (central, peripheral) to the depot: the first column of a Newton form.
    one, two = transfer(t, beta, KA), transfer2(t, alpha, beta, KA)
    central, peripheral = one + two * cc, two * pc
    depot = transfer(t, KA, zero)
    return (
        _matrix(
            (decay(t, KA), zero, zero),
            (KA * central, P[0, 0], P[0, 1]),
            (KA * peripheral, P[1, 0], P[1, 1]),
        ),
        _matrix(
            (depot, zero, zero),
            (Q_iv[0, 0] - central, Q_iv[0, 0], Q_iv[0, 1]),
            (Q_iv[1, 0] - peripheral, Q_iv[1, 0], Q_iv[1, 1]),
        ),
    )


ONE_COMPARTMENT = Structure(("central",), "central", "central", one_compartment_bolus)
ONE_COMPARTMENT_ORAL = Structure(("depot", "central"), "depot", "central", one_compartment_oral)
TWO_COMPARTMENT = Structure(("central", "peripheral1"), "central", "central", two_compartment_bolus)
TWO_COMPARTMENT_ORAL = Structure(
    ("depot", "central", "peripheral1"), "depot", "central", two_compartment_oral
)
