"""What is a jaxpr in PyTensor? Arithmetic that a model writes, one primitive after the other.

What depends on data alone is computed by JAX; a primitive on anything else is looked up in a table.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytensor.tensor
from jax.extend import core
from pytensor.graph.basic import Variable

from popk.inference.transcript import PLACEHOLDER, refuse

pt: Any = pytensor.tensor  # its functions are made at run time, and have no types

#: PyTensor's counterparts of JAX's primitives of one value each.
ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "abs": pt.abs, "acos": pt.arccos, "add": pt.add, "add_any": pt.add, "and": pt.bitwise_and,
    "asin": pt.arcsin, "atan": pt.arctan, "atan2": pt.arctan2,
    "cbrt": lambda x: pt.sign(x) * pt.abs(x) ** (1 / 3),
    "ceil": pt.ceil, "clamp": lambda low, x, high: pt.clip(x, low, high), "cos": pt.cos,
    "cosh": pt.cosh, "div": pt.true_div, "eq": pt.eq, "erf": pt.erf, "erfc": pt.erfc, "exp": pt.exp,
    "exp2": pt.exp2, "expm1": pt.expm1, "floor": pt.floor, "ge": pt.ge, "gt": pt.gt, "le": pt.le,
    "lgamma": pt.gammaln, "log": pt.log, "log1p": pt.log1p, "logistic": pt.sigmoid, "lt": pt.lt,
    "max": pt.maximum, "min": pt.minimum, "mul": pt.mul, "ne": pt.neq, "neg": pt.neg, "or": pt.bitwise_or,
    "pow": pt.power, "rsqrt": lambda x: 1 / pt.sqrt(x), "sign": pt.sign, "sin": pt.sin, "sinh": pt.sinh,
    "sqrt": pt.sqrt, "square": pt.sqr, "sub": pt.sub, "tan": pt.tan, "tanh": pt.tanh,
}  # fmt: skip

#: Primitives that hand on their operand.
SAME = ("copy", "copy_p", "convert_element_type", "reduce_precision", "optimization_barrier")

#: Primitives that only move numbers about: where each comes from is found by JAX.
MOVING = (
    "broadcast_in_dim", "dynamic_slice", "expand_dims", "gather", "reshape", "rev", "slice",
    "squeeze", "transpose",
)  # fmt: skip

_SUMS = {"reduce_sum": pt.sum, "reduce_prod": pt.prod, "reduce_max": pt.max, "reduce_min": pt.min}
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Arithmetic:
    """The outputs of a jaxpr in PyTensor, each computed when it is first asked for.

    Parameters
    ----------
    jaxpr : core.ClosedJaxpr
        Without inputs; what it lacks are its placeholders.
    placed : mapping of str to TensorVariable
        What stands for each placeholder; one may be added until it is asked for.
    """

    def __init__(self, jaxpr: Any, placed: Mapping[str, Any]):
        self._scope = _Scope(jaxpr.jaxpr, jaxpr.consts, (), placed)

    def __call__(self, place: int) -> Any:
        """Return an output, a TensorVariable; an array where it depends on data alone."""
        return self._scope.output(place)


class _Scope:
    """The values of one jaxpr."""

    def __init__(self, jaxpr: core.Jaxpr, consts: Any, inputs: Any, placed: Mapping[str, Any]):
        self.jaxpr = jaxpr
        self.placed = placed
        self.values = dict(zip(self.jaxpr.constvars, consts, strict=True))
        self.values |= dict(zip(self.jaxpr.invars, inputs, strict=True))
        self.makers = {out: eqn for eqn in self.jaxpr.eqns for out in eqn.outvars}

    def output(self, index: int) -> Any:
        return self.value(self.jaxpr.outvars[index])

    def value(self, atom: Any) -> Any:
        if isinstance(atom, core.Literal):
            return np.asarray(atom.val)
        if atom not in self.values:
            eqn = self.makers[atom]
            self.values |= dict(zip(eqn.outvars, self.outputs(eqn), strict=True))
        return self.values[atom]

    def outputs(self, eqn: core.JaxprEqn) -> list[Any]:
        """Return what a primitive makes of its operands."""
        name, params = eqn.primitive.name, eqn.params
        if eqn.primitive is PLACEHOLDER:
            return [self._placed(params["name"])]
        operands = [self.value(v) for v in eqn.invars]
        inner = next((params[k] for k in _INNER if k in params), None)
        if inner is not None and name != "while" and not callable(inner):
            # Some hold a jaxpr with its constants, others one that has none.
            parts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            scope = _Scope(*parts, operands, self.placed)
            return [scope.output(i) for i in range(len(scope.jaxpr.outvars))]
        if not any(isinstance(x, Variable) for x in operands):
            found = eqn.primitive.bind(*map(jnp.asarray, operands), **params)
            return list(found) if eqn.primitive.multiple_results else [found]
        return [_translated(eqn, [_tensor(x) for x in operands], operands)]

    def _placed(self, name: str) -> Any:
        if name not in self.placed:
            refuse(f"a value that is computed from the {name}",
                   "observe what the structure returns, and record nothing that is made of it")  # fmt: skip
        return self.placed[name]


def _translated(eqn: core.JaxprEqn, x: list[Any], operands: list[Any]) -> Any:
    """Return the counterpart of a primitive on operands of which some are not known."""
    name, params = eqn.primitive.name, eqn.params
    out: Any = eqn.outvars[0].aval
    shape = out.shape
    if name in ELEMENTWISE:
        return ELEMENTWISE[name](*x)
    if name in SAME:
        return x[0].astype(str(out.dtype))
    if name == "integer_pow":
        return x[0] ** params["y"]
    if name == "not":
        return pt.invert(x[0])
    if name == "stop_gradient":
        return x[0]
    if name == "select_n":
        chosen = x[1]
        for i, other in enumerate(x[2:], start=1):
            chosen = pt.switch(pt.eq(x[0].astype("int64"), i), other, chosen)
        return chosen
    if name in _SUMS:
        return _SUMS[name](x[0], axis=tuple(params["axes"]))
    if name == "cumsum":
        way = slice(None, None, -1) if params["reverse"] else slice(None)
        axis = (slice(None),) * params["axis"]
        return pt.cumsum(x[0][(*axis, way)], axis=params["axis"])[(*axis, way)]
    if name == "concatenate":
        return pt.concatenate(x, axis=params["dimension"])
    if name == "stack":
        return pt.stack(x, axis=params["axis"])
    if name == "broadcast_in_dim":
        return _broadcast(x[0], shape, params["broadcast_dimensions"])
    if name in ("reshape", "squeeze", "expand_dims"):
        return x[0].reshape(shape)
    if name in MOVING and isinstance(operands[0], Variable):
        return _moved(eqn, x[0], operands[1:])
    return refuse(f"the primitive {name} of JAX in the arithmetic of the model",
                  f"it knows {', '.join(sorted([*ELEMENTWISE, *_SUMS, *MOVING]))}")  # fmt: skip


def _broadcast(x: Any, shape: tuple[int, ...], dimensions: tuple[int, ...]) -> Any:
    order = [dimensions.index(i) if i in dimensions else "x" for i in range(len(shape))]
    return pt.alloc(x.dimshuffle(order), *shape)


def _moved(eqn: core.JaxprEqn, x: Any, others: list[Any]) -> Any:
    """Return the numbers of an operand where a primitive puts them."""
    held: Any = eqn.invars[0].aval
    shape = held.shape
    if any(isinstance(other, Variable) for other in others):
        refuse(f"the primitive {eqn.primitive.name} of JAX at places that are not known",
               "look up values by data alone")  # fmt: skip
    # Numbered from 1, so that what is filled in with 0 is found.
    numbers = jnp.arange(1, int(np.prod(shape)) + 1, dtype=float).reshape(shape)
    params = {k: 0 if k == "fill_value" else v for k, v in eqn.params.items()}
    found = np.asarray(eqn.primitive.bind(numbers, *map(jnp.asarray, others), **params))
    if not (found >= 1).all():  # NaN too
        refuse(f"the primitive {eqn.primitive.name} of JAX outside of its operand",
               "look up values that are there")  # fmt: skip
    return x.flatten()[found.astype(int) - 1]


def _tensor(value: Any) -> Any:
    return value if isinstance(value, Variable) else pt.as_tensor(np.asarray(value))
