"""How is a right-hand side computed without arrays of compartments?

Mapped over many lanes, an array of three amounts means copies to put scalars together and to take them
apart again, and a derivative that pads with zeros. Scalar by scalar, XLA fuses a whole step over all
lanes, and what does not depend on an amount is known while tracing. So a program (a jaxpr) is run here
on NumPy arrays of traced scalars.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

#: Larger arrays stay arrays: written out they would take long to compile.
_LARGEST = 64

_ELEMENTWISE = frozenset(
    (
        "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
        "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq",
        "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow",
        "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
        "nextafter", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
        "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
    )
)  # fmt: skip

#: Arrays of scalars begin here, whatever they are put together from.
_BEGINNINGS = ("stack", "concatenate", "broadcast_in_dim")

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_sum": jax.lax.add,
    "reduce_prod": jax.lax.mul,
    "reduce_max": jax.lax.max,
    "reduce_min": jax.lax.min,
}


def run(program: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Return the results of a program, with its small arrays written out.

    Parameters
    ----------
    program : jax.extend.core.Jaxpr
        What to compute.
    constants, arguments : sequence of arrays
        What it is computed from: JAX arrays, or NumPy arrays of traced scalars (see `array_of`).
    """
    values = dict(zip((*program.constvars, *program.invars), (*constants, *arguments), strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, core.Literal):
            kind: Any = atom.aval
            return kind.dtype.type(atom.val)
        return values[atom]

    for operation in program.eqns:
        results = _results(operation, [read(v) for v in operation.invars])
        values |= zip(operation.outvars, results, strict=True)
    return [read(v) for v in program.outvars]


def array_of(scalars: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return scalars, traced or not, as a NumPy array of objects.

    Parameters
    ----------
    scalars : sequence of Float[Array, ""]
        In the order of the array.
    shape : tuple of int
        The array's.
    """
    out = np.empty(len(scalars), dtype=object)
    for i, scalar in enumerate(scalars):
        out[i] = scalar
    return out.reshape(shape)


def written_out(x: Any) -> np.ndarray:
    """Return an array as a NumPy array of its scalars.

    Parameters
    ----------
    x : array
        A JAX array, or one that is written out already.
    """
    if isinstance(x, np.ndarray) and x.dtype == object:
        return x
    known = x if isinstance(x, Tracer) else np.asarray(x)
    return array_of([known[i] for i in np.ndindex(np.shape(x))], np.shape(x))


def _whole(x: Any) -> Any:
    """Return an array that may be written out as one JAX array."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        return jnp.stack(list(x.ravel())).reshape(x.shape)
    return x


def _results(operation: Any, values: list[Any]) -> Sequence[Any]:
    """Return the results of one operation, written out where that is worth it."""
    primitive, params = operation.primitive, operation.params
    if primitive.name == "jit":
        return run(params["jaxpr"].jaxpr, params["jaxpr"].consts, values)
    rule = _each if primitive.name in _ELEMENTWISE else _RULES.get(primitive.name)
    largest = max(math.prod(v.aval.shape) for v in (*operation.invars, *operation.outvars))
    apart = primitive.name in _BEGINNINGS or any(isinstance(v, np.ndarray) for v in values)
    if rule is None or not apart or largest > _LARGEST:
        found = primitive.bind(*map(_whole, values), **primitive.get_bind_params(params))
        return found if primitive.multiple_results else [found]
    return [f[()] if f.ndim == 0 else f for f in rule(operation, [written_out(v) for v in values])]


def _each(operation: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    shape = operation.outvars[0].aval.shape
    spread = [np.broadcast_to(v, shape).ravel() for v in values]
    bind = functools.partial(operation.primitive.bind, **operation.params)
    return [array_of(list(map(bind, *spread)), shape)]


def _sliced(operation: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    p = operation.params
    strides = p["strides"] or (1,) * values[0].ndim
    return [values[0][tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]]


def _broadcast(operation: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    shape, axes = operation.params["shape"], operation.params["broadcast_dimensions"]
    aligned = [1] * len(shape)
    for axis, size in zip(axes, values[0].shape, strict=True):
        aligned[axis] = size
    return [np.broadcast_to(values[0].reshape(aligned), shape)]


def _reduced(operation: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    axes, shape = operation.params["axes"], operation.outvars[0].aval.shape
    first = np.moveaxis(values[0], axes, range(len(axes)))
    columns = first.reshape(-1, math.prod(shape)).T
    reduce = functools.partial(functools.reduce, _REDUCTIONS[operation.primitive.name])
    return [array_of(list(map(reduce, columns)), shape)]


def _dot(operation: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    (left, right), (batch, _) = operation.params["dimension_numbers"]
    if batch:
        return [written_out(operation.primitive.bind(*map(_whole, values), **operation.params))]
    a, b = values
    terms = math.prod(a.shape[axis] for axis in left)
    a = np.moveaxis(a, left, range(-len(left), 0)).reshape(-1, terms)
    b = np.moveaxis(b, right, range(-len(right), 0)).reshape(-1, terms)
    found = [
        functools.reduce(jax.lax.add, map(jax.lax.mul, x, y)) for x, y in itertools.product(a, b)
    ]
    return [array_of(found, operation.outvars[0].aval.shape)]


_RULES: dict[str, Callable[[Any, list[np.ndarray]], Sequence[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda o, v: [np.concatenate(v, o.params["dimension"])],
    "dot_general": _dot,
    "reshape": lambda o, v: [v[0].reshape(o.params["new_sizes"])],
    "rev": lambda o, v: [np.flip(v[0], o.params["dimensions"])],
    "slice": _sliced,
    "squeeze": lambda o, v: [v[0].reshape(o.outvars[0].aval.shape)],
    "stack": lambda o, v: [np.stack(v, o.params["axis"])],
    "transpose": lambda o, v: [v[0].transpose(o.params["permutation"])],
    "unstack": lambda o, v: list(np.moveaxis(v[0], o.params["axis"], 0)),
    **dict.fromkeys(_REDUCTIONS, _reduced),
}
