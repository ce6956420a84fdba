"""How far do amounts move in one step of time, where their rates are no linear function of them?"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from popk.structural.elimination import Matrix, Scalars, factors, solve

Rate = Callable[[Any, Scalars], Scalars]
"""dA/dt from a time and the amounts then: a scalar for each compartment."""

# Tsitouras' pair: nodes, stages (the last row is the solution), and weights of the error.
_TSIT_NODES = (0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
_TSIT_STAGES = (
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
)  # fmt: skip
_TSIT_ERROR = (
    -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629,
    0.5823571654525552, -0.45808210592918697, 0.015151515151515152,
)  # fmt: skip


def explicit(rate: Rate, t: Any, h: Any, amounts: Scalars) -> tuple[Scalars, Scalars]:
    r"""Return the amounts after a step of Tsitouras' method of order 5, and an estimate of their error.

    .. math:: k_i = f(t + c_i h, A + h \sum_{j<i} a_{ij} k_j), \quad A' = A + h \sum_i b_i k_i

    Parameters
    ----------
    rate : callable
        f: dA/dt from a time and the amounts.
    t, h : Float[Array, ""]
        When the step begins, and how long it is [time].
    amounts : tuple of Float[Array, ""]
        A, a scalar for each compartment [amount].

    References
    ----------
    .. [1] Tsitouras C (2011). Runge-Kutta pairs of order 5(4) satisfying only the first column
       simplifying assumption. doi:10.1016/j.camwa.2011.06.002
    """
    # Without a barrier XLA computes each slope anew in each of the later stages.
    slopes = [jax.lax.optimization_barrier(rate(t, amounts))]
    at = amounts
    for node, weights in zip(_TSIT_NODES, _TSIT_STAGES, strict=True):
        at = tuple(a + h * s for a, s in zip(amounts, _weighted(weights, slopes), strict=True))
        slopes.append(jax.lax.optimization_barrier(rate(t + node * h, at)))
    return at, tuple(h * e for e in _weighted(_TSIT_ERROR, slopes))


# Rodas5P: gamma, nodes, sums of the rows of Gamma, stages, and what earlier stages carry over, in the
# variables u = Gamma k. The last stage is the error.
_GAMMA = 0.21193756319429014
_NODES = (
    0.0,
    0.6358126895828704,
    0.4095798393397535,
    0.9769306725060716,
    0.4288403609558664,
    1.0,
    1.0,
    1.0,
)
_DRIFT = (
    _GAMMA,
    -0.42387512638858027,
    -0.3384627126235924,
    1.8046452872882734,
    2.325825639765069,
    0,
    0,
    0,
)
_LAST = (
    -7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946,
)  # fmt: skip
_STAGES = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    _LAST,
    (*_LAST, 1.0),
    (*_LAST, 1.0, 1.0),
)
_CARRIED = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623,
     -28.087943162872662),
    (37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002,
     -54.66780262877968, -9.48861652309627),
)  # fmt: skip


def implicit(rate: Rate, t: Any, h: Any, amounts: Scalars) -> tuple[Scalars, Scalars]:
    r"""Return the amounts after a step of Rodas5P, for stiff systems, and an estimate of their error.

    A Rosenbrock method of order 5(4), L-stable and stiffly accurate:

    .. math::
        (I - h\gamma J) u_i = h\gamma f(t + c_i h, A + \sum_{j<i} a_{ij} u_j)
        + \gamma \sum_{j<i} c_{ij} u_j + \gamma d_i h^2 f_t, \quad A' = A + \sum_i m_i u_i

    with the Jacobian J of f in the amounts and its derivative in time, both where the step begins. The
    usual form is this divided by :math:`h\gamma`; this one has a meaning at h = 0 too.

    Parameters
    ----------
    rate : callable
        f: dA/dt from a time and the amounts.
    t, h : Float[Array, ""]
        When the step begins, and how long it is [time].
    amounts : tuple of Float[Array, ""]
        A, a scalar for each compartment [amount].

    References
    ----------
    .. [1] Steinebach G (2023). Construction of Rosenbrock-Wanner method Rodas5P and numerical
       benchmarks within the Julia Differential Equations package. doi:10.1007/s10543-023-00967-x
    .. [2] Hairer E, Wanner G (1996). Solving Ordinary Differential Equations II, 2nd edition, section
       IV.7: the variables u. doi:10.1007/978-3-642-05221-7
    """
    wall = jax.lax.optimization_barrier
    drift = jax.jvp(lambda t: rate(t, amounts), (t,), (jnp.ones_like(t),))[1]
    J = jacobian(lambda a: rate(t, a), amounts)
    matrix = wall(
        tuple(
            tuple(int(i == j) - h * _GAMMA * d for j, d in enumerate(row))
            for i, row in enumerate(J)
        )
    )
    factored = factors(jax.lax.stop_gradient(matrix))
    stages: list[Scalars] = []
    at = amounts
    for node, d, weights, carried in zip(_NODES, _DRIFT, _STAGES, _CARRIED, strict=True):
        if weights:
            at = tuple(a + s for a, s in zip(amounts, _weighted(weights, stages), strict=True))
        right = tuple(_GAMMA * h * f for f in rate(t + node * h, at))
        if carried:
            sums = _weighted(carried, stages)
            right = tuple(r + _GAMMA * s for r, s in zip(right, sums, strict=True))
        if d:
            right = tuple(r + _GAMMA * d * h * h * f for r, f in zip(right, drift, strict=True))
        stages.append(solve(matrix, factored, wall(right)))
    return tuple(a + u for a, u in zip(at, stages[-1], strict=True)), stages[-1]


def jacobian(function: Callable[[Scalars], Scalars], at: Scalars) -> Matrix:
    """Return the derivative of each scalar of a function in each scalar of its argument.

    Parameters
    ----------
    function : callable
        From a tuple of scalars to one.
    at : tuple of Float[Array, ""]
        Where.

    Returns
    -------
    tuple of tuples of Float[Array, ""]
        A row for each scalar of the result.
    """

    def column(i: int) -> Scalars:
        def along(x: Any) -> Scalars:
            return function((*at[:i], x, *at[i + 1 :]))

        return jax.jvp(along, (at[i],), (jnp.ones_like(at[i]),))[1]

    return tuple(zip(*map(column, range(len(at))), strict=True))


def _weighted(weights: Sequence[float], stages: Sequence[Scalars]) -> Scalars:
    """Return the weighted sum of stages, for each compartment."""
    return tuple(
        sum((w * k for w, k in zip(weights[1:], ks[1:], strict=True)), weights[0] * ks[0])
        for ks in zip(*stages, strict=True)
    )
