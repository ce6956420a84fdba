"""How is a loop over many lanes differentiated, and mapped into more lanes?

A lane is one member of a population that shares a loop: a subject, or a subject in one chain or draw. JAX
maps a loop by running it until the slowest has finished and selecting at each turn; here a mapped axis
becomes further lanes of the same loop instead, which knows itself who has finished.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

#: The operands that tangents belong to, by position.
Which = tuple[int, ...]


@runtime_checkable
class LaneLoop(Protocol):
    """A function of arrays whose first axis is the lanes, with results of the same kind.

    Only the first result has a derivative. ``known``, below, are the operands, then all that `record`
    returns but the first.
    """

    def value(self, *operands: Array) -> list[Array]:
        """Return the results."""
        ...

    def record(self, *operands: Array) -> list[Array]:
        """Return the results, then what else a derivative needs to know."""
        ...

    def push(self, which: Which, known: Sequence[Array], tangents: Sequence[Array]) -> Array:
        """Return the first result's tangent, from a tangent of each operand in ``which``."""
        ...

    def pull(self, which: Which, known: Sequence[Array], cotangent: Array) -> list[Array]:
        """Return the cotangent of each operand in ``which``, from the first result's."""
        ...


def evaluate(loop: LaneLoop, *operands: Array) -> list[Array]:
    """Return the results of a loop over lanes, the first of which can be differentiated once.

    Parameters
    ----------
    loop : LaneLoop
        What is computed.
    *operands : Float[Array, "lane ..."]
        What it is computed from.

    Raises
    ------
    NotImplementedError
        Where a second derivative is asked for.
    """
    return _results.bind(*operands, call=_Value(loop))


@dataclasses.dataclass(frozen=True)
class _Value:
    loop: LaneLoop

    def __call__(self, *operands: Array) -> list[Array]:
        return self.loop.value(*operands)


@dataclasses.dataclass(frozen=True)
class _Record:
    loop: LaneLoop

    def __call__(self, *operands: Array) -> list[Array]:
        return self.loop.record(*operands)


@dataclasses.dataclass(frozen=True)
class _Push:
    loop: LaneLoop
    which: Which

    def __call__(self, *operands: Array) -> list[Array]:
        n = len(operands) - len(self.which)
        return [self.loop.push(self.which, operands[:n], operands[n:])]


@dataclasses.dataclass(frozen=True)
class _Pull:
    loop: LaneLoop
    which: Which

    def __call__(self, *operands: Array) -> list[Array]:
        return self.loop.pull(self.which, operands[:-1], operands[-1])


#: Any function of lanes, and one that is linear in its last operands.
_results = Primitive("popk_lanes")
_linear = Primitive("popk_lanes_linear")


def _run(*operands, call):
    # Data of a trial are often constants here, which XLA would fold for minutes: hide them.
    return jax.jit(call)(*jax.lax.optimization_barrier(operands))


def _shapes(*operands, call):
    return [ShapedArray(r.shape, r.dtype) for r in jax.eval_shape(jax.jit(call), *operands)]


def _fold(primitive: Primitive, operands: Sequence[Any], where: Sequence[Any], *, call: Any):
    """Bind a primitive with the mapped axis folded into the lanes, and take it out of the results."""
    size = next(x.shape[d] for x, d in zip(operands, where, strict=True) if d is not None)

    def more(x, mapped):
        same = mapped is None
        x = jnp.broadcast_to(x, (size, *x.shape)) if same else jnp.moveaxis(x, mapped, 0)
        return x.reshape(-1, *x.shape[2:])

    results = primitive.bind(*map(more, operands, where), call=call)
    return [r.reshape(size, -1, *r.shape[1:]) for r in results], [0] * len(results)


_TWICE = (
    "the amounts of an ODE were differentiated twice, and its solver has first derivatives only, forward or "
    "reverse; use a method that needs no more (NUTS does not), or a linear structure"
)


def _zero(x: Any) -> ad.Zero:
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def _differentiate(operands, tangents, *, call):
    """Return results and their tangents; the first is linear in those of the operands that move."""
    which = tuple(i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero))
    if not which:
        results = _results.bind(*operands, call=call)
        return results, [_zero(r) for r in results]
    if not isinstance(call, _Value):
        raise NotImplementedError(_TWICE)
    count = len(_shapes(*map(jax.typeof, operands), call=call))
    results = _results.bind(*operands, call=_Record(call.loop))
    moved = (tangents[i] for i in which)
    first = _linear.bind(*operands, *results[1:], *moved, call=_Push(call.loop, which))
    return results[:count], [*first, *map(_zero, results[1:count])]


def _differentiate_linear(operands, tangents, *, call):
    n = len(operands) - len(call.which)
    if not all(isinstance(t, ad.Zero) for t in tangents[:n]):
        raise NotImplementedError(_TWICE)
    moved = map(ad.instantiate_zeros, tangents[n:])
    bind = functools.partial(_linear.bind, *operands[:n], call=call)
    return bind(*operands[n:]), bind(*moved)


def _transpose(cotangents, *operands, call):
    n = len(operands) - len(call.which)
    asked = [ad.is_undefined_primal(x) for x in operands[n:]]
    if isinstance(cotangents[0], ad.Zero):
        pulled = [ad.Zero(x.aval) if a else None for x, a in zip(operands[n:], asked, strict=True)]
    else:
        pulled = _results.bind(*operands[:n], *cotangents, call=_Pull(call.loop, call.which))
    return [None] * n + [p if a else None for p, a in zip(pulled, asked, strict=True)]


for _primitive in (_results, _linear):
    _primitive.multiple_results = True
    _primitive.def_impl(_run)
    _primitive.def_abstract_eval(_shapes)
    mlir.register_lowering(_primitive, mlir.lower_fun(_run, multiple_results=True))
    batching.primitive_batchers[_primitive] = functools.partial(_fold, _primitive)
ad.primitive_jvps[_results] = _differentiate
ad.primitive_jvps[_linear] = _differentiate_linear
ad.primitive_transposes[_linear] = _transpose
