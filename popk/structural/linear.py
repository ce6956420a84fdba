r"""How does drug move in one interval where the rates are linear and no closed form is known?

.. math:: \frac{dA}{dt} = M A + r, \qquad A(t) = P(t) A(0) + Q(t) r, \qquad
    P(t) = e^{M t}, \quad Q(t) = \int_0^t P(s)\, ds

Two roads. `modes` takes M apart into eigenvectors once for all intervals with the same parameters;
each interval then costs one exponential per compartment. Where eigenvectors do not suffice (a chain
of compartments with one shared rate constant has a single one), `exponential` and `ladder` sum
series and square, which needs no eigenvectors.

References
----------
.. [1] Moler C, Van Loan C (2003). Nineteen dubious ways to compute the exponential of a matrix,
   twenty-five years later. SIAM Review 45:3-49. doi:10.1137/S00361445024180
.. [2] Magnus JR (1985). On differentiating eigenvalues and eigenvectors. Econometric Theory
   1:179-191. doi:10.1017/S0266466600011129
.. [3] Paterson MS, Stockmeyer LJ (1973). On the number of nonscalar multiplications necessary to
   evaluate polynomials. SIAM Journal on Computing 2:60-66. doi:10.1137/0202007
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

Scalar = Float[Array, ""]
Square = Float[Array, "n n"]
Amounts = Float[Array, " n"]

_REACH = 0.5  # the largest norm of M t that the series is summed at
_TERMS = 16  # of the series: at that norm the first term left out is below 1e-19 of the first
_LEVELS = 26  # lengths of intervals, each double the one before: up to a norm of M t of 1.7e7
_MISS = 1e-8  # of the norm of M: eigenvectors that miss M by more are not used


class Modes(NamedTuple):
    r"""A rate matrix taken apart, :math:`M = V\, \mathrm{diag}(\lambda)\, V^{-1}`.

    In modal coordinates :math:`z = V^{-1} A` compartments do not exchange drug:
    :math:`z_i(t) = e^{\lambda_i t} z_i(0) + \frac{e^{\lambda_i t} - 1}{\lambda_i} (V^{-1} r)_i`.

    Attributes
    ----------
    values : Complex[Array, "n"]
        The eigenvalues [1/time].
    vectors : Complex[Array, "n n"]
        V, an eigenvector in each column. Their lengths are arbitrary, and derivatives leave them so.
    inverse : Complex[Array, "n n"]
        The inverse of V.
    """

    values: Complex[Array, " n"]
    vectors: Complex[Array, "n n"]
    inverse: Complex[Array, "n n"]


def modes(M: Square) -> Modes:
    r"""Return the eigenvalues and eigenvectors of a rate matrix; all NaN where they do not give it back.

    Their derivatives are right in whatever does not depend on the lengths of the eigenvectors, such
    as amounts [1]_: with :math:`G = V^{-1}\, dM\, V` and
    :math:`H_{ij} = G_{ij} / (\lambda_j - \lambda_i)` off the diagonal and 0 on it,

    .. math:: d\lambda_i = G_{ii}, \quad dV = V H, \quad dV^{-1} = -H V^{-1}

    Where two eigenvalues are exactly equal, H is 0: right where they stay equal as parameters change
    (two compartments that only collect), but a change that parts them is not seen.

    Parameters
    ----------
    M : Float[Array, "n n"]
        The rate matrix [1/time].

    References
    ----------
    .. [1] Magnus JR (1985). On differentiating eigenvalues and eigenvectors. Econometric Theory
       1:179-191. doi:10.1017/S0266466600011129
    """
    found = _modes(M)
    again = (found.vectors * found.values[None]) @ found.inverse
    right = (
        jnp.abs(again - M.astype(again.dtype)).max() <= _MISS * jnp.abs(M).max()
    )  # False for NaN too
    return jax.tree.map(lambda x: jnp.where(right, x, jnp.nan), found)


@jax.custom_jvp
def _modes(M: Square) -> Modes:
    values, vectors = jax.lax.linalg.eig(M, compute_left_eigenvectors=False)
    return Modes(values, vectors, jnp.linalg.inv(vectors))


@_modes.defjvp
def _modes_jvp(primals: tuple[Square], tangents: tuple[Square]) -> tuple[Modes, Modes]:
    (M,), (dM,) = primals, tangents
    found = _modes(M)
    values, V, W = found
    gap = values[None, :] - values[:, None]
    G = W @ dM.astype(V.dtype) @ V
    H = jnp.where(gap == 0, 0.0, G / jnp.where(gap == 0, 1.0, gap))
    return found, Modes(jnp.diagonal(G), V @ H, -H @ W)


def grow(
    values: Complex[Array, " n"], t: Scalar
) -> tuple[Complex[Array, " n"], Complex[Array, " n"]]:
    r"""Return :math:`e^{\lambda t}` and :math:`(e^{\lambda t} - 1)/\lambda` (t where lambda is 0).

    Parameters
    ----------
    values : Complex[Array, "n"]
        Eigenvalues [1/time].
    t : Float[Array, ""]
        Length of the interval [time].
    """
    length = t.astype(values.dtype)
    x = values * length
    small = jnp.abs(x) < _REACH
    near = jnp.where(small, x, 0.0)
    series = jnp.full_like(x, 1 / math.factorial(_TERMS))
    for n in range(_TERMS - 1, 0, -1):
        series = series * near + 1 / math.factorial(n)
    far = jnp.where(small, 1.0, x)
    e = jnp.exp(x)
    return e, length * jnp.where(small, series, (e - 1.0) / far)


def propagator(modes: Modes, t: Scalar) -> tuple[Square, Square]:
    r"""Return P and Q of an interval from the modes of its rate matrix.

    .. math:: P = V\, e^{\Lambda t}\, V^{-1}, \qquad
        Q = V\, \mathrm{diag}\!\left(\frac{e^{\lambda t} - 1}{\lambda}\right) V^{-1}

    Parameters
    ----------
    modes : Modes
    t : Float[Array, ""]
        Length of the interval [time].
    """
    e, s = grow(modes.values, t)
    P = ((modes.vectors * e[None]) @ modes.inverse).real
    return P, ((modes.vectors * s[None]) @ modes.inverse).real


def exponential(M: Square, t: Scalar) -> tuple[Square, Square]:
    r"""Return P and Q of an interval by scaling and squaring, for any rate matrix [1]_.

    With :math:`\phi_1(X) = \sum_j X^j/(j+1)!`, for a step d so short that the norm of M d is below a
    half, :math:`Q(d) = d\, \phi_1(M d)` and :math:`P(d) = I + M Q(d)`; then, again and again,

    .. math:: P(2d) = P(d)^2, \qquad Q(2d) = Q(d) + P(d)\, Q(d)

    Relative errors grow with the norm of M t, to about 1e-16 times it. Beyond a norm of 1.7e7 all
    is NaN.

    Parameters
    ----------
    M : Float[Array, "n n"]
        The rate matrix [1/time].
    t : Float[Array, ""]
        Length of the interval [time].

    References
    ----------
    .. [1] Moler C, Van Loan C (2003). Nineteen dubious ways to compute the exponential of a matrix,
       twenty-five years later. SIAM Review 45:3-49. doi:10.1137/S00361445024180
    """
    doublings, step = _halved(M, t)
    return _doubled(_short(M, step), doublings)[0]


def _doubled(
    pair: tuple[Square, Square], doublings: Int[Array, ""]
) -> tuple[tuple[Square, Square], tuple[Float[Array, "level n n"], Float[Array, "level n n"]]]:
    """Return P and Q of an interval doubled so often, and those of every length before."""

    def rung(pair, level):
        P, Q = pair
        on = level < doublings  # beyond, what grows would overflow
        return (jnp.where(on, P @ P, P), jnp.where(on, Q + P @ Q, Q)), pair

    return jax.lax.scan(rung, pair, jnp.arange(_LEVELS))


class Ladder(NamedTuple):
    """Intervals of one rate matrix, each twice as long as the one before.

    Attributes
    ----------
    M : Float[Array, "n n"]
        The rate matrix [1/time].
    step, steps : Float[Array, ""]
        The length of the first interval [time], and how many of it the longest is.
    P, Q : Float[Array, "level n n"]
        The propagators of lengths step, 2 step, 4 step, ...
    """

    M: Square
    step: Scalar
    steps: Scalar
    P: Float[Array, "level n n"]
    Q: Float[Array, "level n n"]


def ladder(M: Square, longest: Scalar) -> Ladder:
    """Return the ladder that any interval up to the longest is put together from.

    Parameters
    ----------
    M : Float[Array, "n n"]
        The rate matrix [1/time].
    longest : Float[Array, ""]
        The longest interval that will be asked for [time].
    """
    doublings, step = _halved(M, jax.lax.stop_gradient(longest))
    step = jnp.where(
        step == 0, 1.0, step
    )  # no time passes: no rung is used, but lengths are divided
    _, (P, Q) = _doubled(_short(M, step), doublings)
    return Ladder(M, step, _power_of_two(doublings.astype(step.dtype)), P, Q)


def along(ladder: Ladder, t: Scalar) -> tuple[Square, Square]:
    """Return P and Q of an interval: the ladder's rungs that its length is the sum of, and the rest.

    Parameters
    ----------
    ladder : Ladder
    t : Float[Array, ""]
        Length of the interval [time]; all is NaN where it is longer than the longest.
    """
    bits, rest = _rungs(ladder, t)

    def climb(pair, rung):
        P, Q = pair
        on, up_P, up_Q = rung
        return (jnp.where(on, P @ up_P, P), jnp.where(on, Q + P @ up_Q, Q)), None

    pair, _ = jax.lax.scan(climb, _short(ladder.M, rest), (bits, ladder.P, ladder.Q))
    return pair


def carry(ladder: Ladder, t: Scalar, amounts: Amounts, inflow: Amounts | None = None) -> Amounts:
    r"""Return the amounts after an interval, :math:`P(t) A + Q(t) r`, without forming P and Q.

    Products of a matrix and amounts take the place of products of matrices, so it is about n times
    cheaper than `along`.

    Parameters
    ----------
    ladder : Ladder
    t : Float[Array, ""]
        Length of the interval [time]; all is NaN where it is longer than the longest.
    amounts : Float[Array, "n"]
        At its beginning [amount].
    inflow : Float[Array, "n"], optional
        Constant in it [amount/time]; None where there is none.
    """
    bits, rest = _rungs(ladder, t)
    rate = ladder.M @ amounts
    term = rest * (rate if inflow is None else rate + inflow)
    for n in range(2, _TERMS + 2):
        amounts, term = amounts + term, ladder.M @ term * (rest / n)

    def climb(amounts, rung):
        on, P, Q = rung
        moved = P @ amounts if inflow is None else P @ amounts + Q @ inflow
        return jnp.where(on, moved, amounts), None

    return jax.lax.scan(climb, amounts, (bits, ladder.P, ladder.Q))[0]


def _rungs(ladder: Ladder, t: Scalar) -> tuple[Int[Array, " level"], Scalar]:
    """Return which rungs an interval is made of, and what is left."""
    steps = jnp.floor(jax.lax.stop_gradient(t) / ladder.step)
    rest = t - steps * ladder.step
    rest = jnp.where(steps <= ladder.steps, rest, jnp.nan)
    return (steps.astype(int) >> jnp.arange(_LEVELS)) & 1, rest


def _halved(M: Square, t: Scalar) -> tuple[Int[Array, ""], Scalar]:
    """Return how often an interval is halved to be short, and its length then; NaN if too often."""
    norm = jax.lax.stop_gradient(jnp.abs(M).sum(axis=0).max() * jnp.abs(t))
    times = jnp.maximum(jnp.ceil(jnp.log2(jnp.where(norm > 0, norm, 1.0) / _REACH)), 0.0)
    scale = jnp.where(times < _LEVELS, _power_of_two(-times), jnp.nan)
    return times.astype(int), t * scale


def _power_of_two(n: Scalar) -> Scalar:
    """Return 2**n for a whole n; `jnp.exp2` errs in the last digit, which doubling multiplies."""
    return jnp.ldexp(jnp.ones_like(n), n.astype(int))


def _short(M: Square, t: Scalar) -> tuple[Square, Square]:
    """Return P and Q of a short interval: the series, in blocks of four powers [3]_."""
    X = M * t
    identity = jnp.eye(M.shape[0], dtype=M.dtype)
    squared = X @ X
    powers = (identity, X, squared, X @ squared)
    fourth = squared @ squared
    total = jnp.zeros_like(X)
    for block in range(_TERMS // 4 - 1, -1, -1):
        total = fourth @ total if block < _TERMS // 4 - 1 else total
        for j, power in enumerate(powers):
            total = total + power / math.factorial(4 * block + j + 1)
    return identity + X @ total, t * total
