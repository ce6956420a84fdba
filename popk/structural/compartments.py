r"""How does drug move in one interval? Closed forms of models of one, two and three compartments.

A linear system in an interval of length t with constant inflow r (infusions) has

.. math:: A(t) = P(t) A(0) + Q(t) r, \qquad Q(t) = \int_0^t P(s)\, ds

Each structure here gives P and Q, for one subject and one interval.

References
----------
.. [1] Bertrand J, Mentre F (2008). Mathematical expressions of the pharmacokinetic and
   pharmacodynamic models implemented in the Monolix software.
.. [2] Gibaldi M, Perrier D (1982). Pharmacokinetics, 2nd edition.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.structural.exponentials import decay, transfer, transfer2, transfer3

Scalar = Float[Array, ""]
Square = Float[Array, "n n"]
Rows = tuple[
    tuple[Any, ...], ...
]  # of a matrix, each entry a scalar; None is a 0 that costs nothing

_STEPS = 7  # of a root finder


class Structure(NamedTuple):
    """A linear compartment structure.

    Attributes
    ----------
    compartments : tuple of str
        Their names, in the order of NONMEM's numbers (1, 2, ...).
    dosed, observed : str
        The compartment that doses go to, and levels are taken from, where CMT is 0.
    entries : Callable or None
        ``entries(t, **parameters)`` gives P and Q, each as rows of entries; None: no closed form.
    rates : Callable
        ``rates(**parameters)`` gives the rate matrix M of A' = M A + r [compartment, compartment],
        in 1/time: columns are where drug comes from, rows where it goes to.
    """

    compartments: tuple[str, ...]
    dosed: str
    observed: str
    entries: Callable[..., tuple[Rows, Rows]] | None
    rates: Callable[..., Square]

    def propagator(self, t: Scalar, *given: Scalar, **parameters: Scalar) -> tuple[Square, Square]:
        """Return P and Q of an interval as matrices.

        Parameters
        ----------
        t : Float[Array, ""]
            Length of the interval [time].
        *given, **parameters : Float[Array, ""]
            As `entries` takes them.
        """
        assert self.entries is not None
        P, Q = self.entries(t, *given, **parameters)
        return _matrix(*P), _matrix(*Q)


def _matrix(*rows: Sequence[Scalar | None]) -> Square:
    """Return rows of entries as a matrix."""
    given = [[0.0 if x is None else x for x in row] for row in rows]
    return jnp.stack(
        [jnp.stack(jnp.broadcast_arrays(*row, *given[-1])[: len(row)]) for row in given]
    )


def one_compartment_bolus(t: Scalar, CL: Scalar, V: Scalar) -> tuple[Rows, Rows]:
    r"""Return P and Q of :math:`A' = -kA + r`, with k = CL / V.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, V : Float[Array, ""]
        Clearance [L/time] and volume [L].
    """
    return _bolus(t, (CL / V,), ())


def one_compartment_oral(t: Scalar, CL: Scalar, V: Scalar, KA: Scalar) -> tuple[Rows, Rows]:
    r"""Return P and Q of :math:`A_d' = -k_a A_d + r_d,\; A_c' = k_a A_d - k A_c + r_c`.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, V, KA : Float[Array, ""]
        Clearance [L/time], volume [L], absorption rate constant [1/time].
    """
    return _oral(t, KA, (CL / V,), ())


def two_compartment_bolus(
    t: Scalar, CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar
) -> tuple[Rows, Rows]:
    r"""Return P and Q of a central and a peripheral compartment.

    With M the rate matrix and alpha > beta its rates, Newton's form of exp(Mt) in an order that adds
    positive terms alone:

    .. math:: P = e^{-\alpha t} I + \frac{e^{-\beta t} - e^{-\alpha t}}{\alpha - \beta}
        (M + \alpha I)

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, Q : Float[Array, ""]
        Clearance and intercompartmental clearance [L/time].
    V1, V2 : Float[Array, ""]
        Central and peripheral volume [L].
    """
    return _bolus(t, *two_rates(CL, V1, Q, V2))


def two_compartment_oral(
    t: Scalar, CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar, KA: Scalar
) -> tuple[Rows, Rows]:
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
    return _oral(t, KA, *two_rates(CL, V1, Q, V2))


def three_compartment_bolus(
    t: Scalar, *, CL: Scalar, V1: Scalar, Q2: Scalar, V2: Scalar, Q3: Scalar, V3: Scalar
) -> tuple[Rows, Rows]:
    r"""Return P and Q of a central and two peripheral compartments.

    With M the rate matrix, a > b > c its rates and :math:`f_{ab}, f_{abc}` the divided differences of
    :math:`e^{-xt}` (their signs made positive), Newton's form of exp(Mt) in an order that adds
    positive terms alone:

    .. math:: P = e^{-at} I + f_{ab}\, (M + aI) + f_{abc}\, (M + aI)(M + bI)

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    CL, Q2, Q3 : Float[Array, ""]
        Clearance and the two intercompartmental clearances [L/time].
    V1, V2, V3 : Float[Array, ""]
        Central and the two peripheral volumes [L].
    """
    return _bolus(t, *three_rates(CL, V1, Q2, V2, Q3, V3))


def three_compartment_oral(t: Scalar, *, KA: Scalar, **bolus: Scalar) -> tuple[Rows, Rows]:
    """Return P and Q of a depot, a central and two peripheral compartments.

    Parameters
    ----------
    t : Float[Array, ""]
        Length of the interval [time].
    KA : Float[Array, ""]
        Absorption rate constant [1/time].
    **bolus : Float[Array, ""]
        CL, V1, Q2, V2, Q3 and V3, see `three_compartment_bolus`.
    """
    return _oral(t, KA, *three_rates(**bolus))


def _bolus(t: Scalar, rates: tuple[Scalar, ...], matrices: tuple[Rows, ...]) -> tuple[Rows, Rows]:
    """Return P and Q as Newton forms over the rates of a rate matrix M, the fastest first.

    The matrices are M + aI, (M + aI)(M + bI). Integration over time adds a rate 0.
    """
    zero = jnp.zeros_like(rates[0])
    P, Q = _differences(t, rates), _differences(t, rates, zero)
    return _newton(P, matrices), _newton(Q, matrices)


def _oral(
    t: Scalar, KA: Scalar, rates: tuple[Scalar, ...], matrices: tuple[Rows, ...]
) -> tuple[Rows, Rows]:
    """Return P and Q with a depot before the central compartment: absorption adds the rate KA."""
    zero = jnp.zeros_like(rates[0])
    none = (None,) * len(rates)
    P = _newton(_differences(t, rates), matrices)
    Q = _newton(_differences(t, rates, zero), matrices)
    absorbed = [row[0] for row in _newton(_differences(t, rates, KA), matrices)]
    return (
        ((decay(t, KA), *none), *((KA * x, *row) for x, row in zip(absorbed, P, strict=True))),
        (
            (transfer(t, KA, zero), *none),
            *((row[0] - x, *row) for x, row in zip(absorbed, Q, strict=True)),
        ),
    )


def _differences(t: Scalar, rates: tuple[Scalar, ...], *last: Scalar) -> list[Scalar]:
    """Return the divided differences of exp(-xt) over the first, the first two, ... and the last."""
    functions = (decay, transfer, transfer2, transfer3)[len(last) :]
    orders = range(1, len(rates) + 1)
    return [f(t, *rates[:n], *last) for f, n in zip(functions, orders, strict=False)]


def _newton(differences: list[Scalar], matrices: tuple[Rows, ...]) -> Rows:
    """Return a Newton form: the first difference times I, and each next times its matrix."""
    first, *rest = differences

    def entry(i: int, j: int) -> Scalar:
        terms = [first] if i == j else []
        for difference, rows in zip(rest, matrices, strict=True):
            factor = rows[i][j]
            terms += [] if factor is None else [difference * factor]
        return sum(terms[1:], start=terms[0])

    n = len(differences)
    return tuple(tuple(entry(i, j) for j in range(n)) for i in range(n))


def two_rates(
    CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar
) -> tuple[tuple[Scalar, Scalar], tuple[Rows]]:
    """Return alpha > beta and M + alpha I of the two-compartment rate matrix M."""
    k10, k12, k21 = CL / V1, Q / V1, Q / V2
    apart = k10 + k12 - k21
    more = apart > 0
    # The roots of x (x + |apart|) = k12 k21: what beta falls short of k10 + k12 and k21 by, or the
    # other way around. Differences of rates would cancel.
    root = jnp.sqrt(apart**2 + 4 * k12 * k21)
    large = (jnp.where(more, apart, -apart) + root) / 2
    small = k12 * k21 / large
    central, peripheral = jnp.where(more, small, large), jnp.where(more, large, small)
    alpha = k21 + peripheral
    return (alpha, k10 * k21 / alpha), (((central, k21), (k12, peripheral)),)


def three_rates(
    CL: Scalar, V1: Scalar, Q2: Scalar, V2: Scalar, Q3: Scalar, V3: Scalar
) -> tuple[tuple[Scalar, Scalar, Scalar], tuple[Rows, Rows]]:
    """Return the rates a > b > c, M + aI and (M + aI)(M + bI) of the rate matrix M."""
    k10, k12, k21, k13, k31 = CL / V1, Q2 / V1, Q2 / V2, Q3 / V1, Q3 / V3
    exits, back = (k10 + k12 + k13, k21, k31), (k12 * k21, k13 * k31)
    largest = jnp.maximum(exits[0], jnp.maximum(k21, k31))
    least = jnp.minimum(exits[0], jnp.minimum(k21, k31))
    over, under = [largest - k for k in exits], [k - least for k in exits]
    above, below = _excess(*over, *back), _excess(*under, *back)
    A1, A2, A3 = (x + above for x in over)  # a less each exit rate constant
    C2, C3 = under[1] + below, under[2] + below  # k21 and k31 less c
    a = k21 + A2
    c = k10 / (1.0 + k12 / C2 + k13 / C3)
    b = k10 * k21 * k31 / (a * c)
    N1 = (A1, k21, k31), (k12, A2, None), (k13, None, A3)
    # The adjugate of -(M + cI), whose determinant is 0.
    N2 = (
        (C2 * C3, k21 * C3, k31 * C2),
        (k12 * C3, back[0] * C3 / C2, k12 * k31),
        (k13 * C2, k13 * k21, back[1] * C2 / C3),
    )
    return (a, b, c), (N1, N2)


@jax.custom_jvp
def _excess(h1: Scalar, h2: Scalar, h3: Scalar, m2: Scalar, m3: Scalar) -> Scalar:
    r"""Return the positive root x of :math:`\prod_i (h_i + x) = m_2 (h_3 + x) + m_3 (h_2 + x)`.

    It is how far the largest rate lies above the largest exit rate constant, or the least below the
    least [1]_; h is what the exit rate constants fall short of that one, or exceed it by, so the
    least h is 0. All roots are real; from above, steps to the root of the parabola that touches the
    curve come down to the largest, seven being enough for rate constants eight decades apart.

    References
    ----------
    .. [1] Golub GH (1973). Some modified matrix eigenvalue problems. SIAM Review 15:318-334.
       doi:10.1137/1015032
    """
    close, m = h1 + jnp.minimum(h2, h3), m2 + m3
    x = 2 * m / (close + jnp.sqrt(close**2 + 4 * m))  # the root if both had the lesser h
    for _ in range(_STEPS):
        p, slope, curve = _secular(x, h1, h2, h3, m2, m3)
        x = x - 2 * p / (slope + jnp.sqrt(jnp.maximum(slope**2 - 2 * p * curve, 0.0)))
    return x


@_excess.defjvp
def _excess_jvp(h_and_m, moves):
    x = _excess(*h_and_m)
    _, slope, _ = _secular(x, *h_and_m)
    _, moved = jax.jvp(lambda *h_and_m: _secular(x, *h_and_m)[0], h_and_m, moves)
    return x, -moved / slope


def _secular(x: Scalar, *h_and_m: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Return what `_excess` finds the root of, and its first and second derivative in x."""
    h1, h2, h3, m2, m3 = h_and_m
    y1, y2, y3 = h1 + x, h2 + x, h3 + x
    p = y1 * y2 * y3 - m2 * y3 - m3 * y2
    return p, y1 * y2 + y1 * y3 + y2 * y3 - m2 - m3, 2 * (y1 + y2 + y3)


def one_compartment_bolus_rates(CL: Scalar, V: Scalar) -> Square:
    """Return the rate matrix of `one_compartment_bolus`, whose parameters it takes."""
    return _matrix((-CL / V,))


def one_compartment_oral_rates(CL: Scalar, V: Scalar, KA: Scalar) -> Square:
    """Return the rate matrix of `one_compartment_oral`, whose parameters it takes."""
    return _with_depot(KA, one_compartment_bolus_rates(CL, V))


def two_compartment_bolus_rates(CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar) -> Square:
    """Return the rate matrix of `two_compartment_bolus`, whose parameters it takes."""
    return _matrix((-(CL + Q) / V1, Q / V2), (Q / V1, -Q / V2))


def two_compartment_oral_rates(CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar, KA: Scalar) -> Square:
    """Return the rate matrix of `two_compartment_oral`, whose parameters it takes."""
    return _with_depot(KA, two_compartment_bolus_rates(CL, V1, Q, V2))


def _with_depot(KA: Scalar, M: Square) -> Float[Array, "n+1 n+1"]:
    """Return a rate matrix with a depot before the first compartment."""
    return jnp.pad(M, ((1, 0), (1, 0))).at[0, 0].set(-KA).at[1, 0].set(KA)


def three_compartment_bolus_rates(
    CL: Scalar, V1: Scalar, Q2: Scalar, V2: Scalar, Q3: Scalar, V3: Scalar
) -> Square:
    """Return the rate matrix of `three_compartment_bolus`, whose parameters it takes."""
    zero = jnp.zeros_like(CL)
    return _matrix(
        (-(CL + Q2 + Q3) / V1, Q2 / V2, Q3 / V3),
        (Q2 / V1, -Q2 / V2, zero),
        (Q3 / V1, zero, -Q3 / V3),
    )


def three_compartment_oral_rates(KA: Scalar, **bolus: Scalar) -> Square:
    """Return the rate matrix of `three_compartment_oral`, whose parameters it takes."""
    return _with_depot(KA, three_compartment_bolus_rates(**bolus))


ONE_COMPARTMENT = Structure(
    ("central",), "central", "central", one_compartment_bolus, one_compartment_bolus_rates
)
ONE_COMPARTMENT_ORAL = Structure(
    ("depot", "central"), "depot", "central", one_compartment_oral, one_compartment_oral_rates
)
TWO_COMPARTMENT = Structure(
    ("central", "peripheral1"),
    "central",
    "central",
    two_compartment_bolus,
    two_compartment_bolus_rates,
)
TWO_COMPARTMENT_ORAL = Structure(
    ("depot", "central", "peripheral1"),
    "depot",
    "central",
    two_compartment_oral,
    two_compartment_oral_rates,
)
THREE_COMPARTMENT = Structure(
    ("central", "peripheral1", "peripheral2"),
    "central",
    "central",
    three_compartment_bolus,
    three_compartment_bolus_rates,
)
THREE_COMPARTMENT_ORAL = Structure(
    ("depot", "central", "peripheral1", "peripheral2"),
    "depot",
    "central",
    three_compartment_oral,
    three_compartment_oral_rates,
)
