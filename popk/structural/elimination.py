"""What solves a few linear equations for each of many lanes? Elimination, scalar by scalar.

A library routine is called once a lane, and takes longer to call than to eliminate three compartments;
written out in scalars, XLA fuses the steps over all lanes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

Scalars = tuple[Any, ...]
Matrix = tuple[Scalars, ...]

#: The most equations that are written out: code grows with their cube, and compiling with it.
WRITTEN_OUT = 5


def factors(matrix: Matrix) -> Any:
    """Return the triangular factors of a square matrix, with rows exchanged for the largest pivot.

    Parameters
    ----------
    matrix : tuple of tuples of Float[Array, ""]
        M, row by row.
    """
    if len(matrix) > WRITTEN_OUT:
        whole = jnp.stack([jnp.stack(row) for row in matrix])
        return whole, _inverse(whole)
    rows = [list(row) for row in matrix]
    found = []
    for k in range(len(rows)):
        flips = []
        for i in range(k + 1, len(rows)):
            flip = jnp.abs(rows[i][k]) > jnp.abs(rows[k][k])
            rows[k][k:], rows[i][k:] = _exchanged(flip, rows[k][k:], rows[i][k:])
            flips.append(flip)
        # Without a barrier XLA computes each entry anew for each of its uses.
        rows = jax.lax.optimization_barrier(rows)
        inverse = 1 / rows[k][k]
        multipliers = [row[k] * inverse for row in rows[k + 1 :]]
        for m, row in zip(multipliers, rows[k + 1 :], strict=True):
            row[k + 1 :] = [x - m * y for x, y in zip(row[k + 1 :], rows[k][k + 1 :], strict=True)]
        found.append((flips, multipliers, inverse, rows[k][k + 1 :]))
    return jax.lax.optimization_barrier(found)


@jax.custom_jvp
def solve(matrix: Matrix, factored: Any, b: Scalars) -> Scalars:
    r"""Return x of M x = b.

    Its derivative, :math:`M \dot x = \dot b - \dot M x`, is solved by the same factors.

    Parameters
    ----------
    matrix : tuple of tuples of Float[Array, ""]
        M, which only the derivative looks at.
    factored : pytree
        Its `factors`.
    b : tuple of Float[Array, ""]
    """
    return _substituted(factored, b)


@solve.defjvp
def _(primals: Any, tangents: Any) -> Any:
    _, factored, _ = primals
    moved, _, db = tangents
    x = solve(*primals)
    right = tuple(
        d - sum(m * y for m, y in zip(row, x, strict=True))
        for d, row in zip(db, moved, strict=True)
    )
    return x, _substituted(factored, right)


def _substituted(factored: Any, b: Scalars) -> Scalars:
    """Return x of M x = b from the factors of M: linear in b, and written so that JAX can transpose it."""
    if len(b) > WRITTEN_OUT:
        matrix, inverse = factored
        right = jnp.stack(b)
        x = _product(inverse, right)
        return tuple(x + _product(inverse, right - _product(matrix, x)))
    x = list(b)
    for k, (flips, multipliers, _, _) in enumerate(factored):
        for i, flip in enumerate(flips, k + 1):
            (x[k],), (x[i],) = _exchanged(flip, [x[k]], [x[i]])
        for i, m in enumerate(multipliers, k + 1):
            x[i] = x[i] - m * x[k]
    x = list(jax.lax.optimization_barrier(x))
    for k, (_, _, inverse, upper) in reversed(list(enumerate(factored))):
        for j, u in enumerate(upper, k + 1):
            x[k] = x[k] - u * x[j]
        x[k] = x[k] * inverse
    return jax.lax.optimization_barrier(tuple(x))


def _product(a: Array, b: Array) -> Array:
    """Return a matrix times a vector: a sum that XLA fuses over lanes, not a routine for each."""
    return (a * b[None]).sum(1)


def _inverse(matrix: Array) -> Array:
    """Return the inverse of a matrix, by Gauss and Jordan's elimination with rows exchanged."""
    n = len(matrix)
    rows = jnp.arange(n)

    def column(k: Array, table: Array) -> Array:
        pivot = jnp.argmax(jnp.where(rows >= k, jnp.abs(table[:, k]), -1.0))
        here, there = (rows == k)[:, None], (rows == pivot)[:, None]
        table = jnp.where(here, table[pivot][None], jnp.where(there, table[k][None], table))
        row = table[k] / table[k, k]
        return jnp.where(here, row[None], table - table[:, k][:, None] * row[None])

    both = jnp.concatenate([matrix, jnp.eye(n, dtype=matrix.dtype)], 1)
    return jax.lax.fori_loop(0, n, column, both)[:, n:]


def _exchanged(flip: Any, a: list[Any], b: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return two lists, exchanged where ``flip``."""
    first = [jnp.where(flip, y, x) for x, y in zip(a, b, strict=True)]
    return first, [jnp.where(flip, x, y) for x, y in zip(a, b, strict=True)]
