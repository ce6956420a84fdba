r"""What kind of system is a user's right-hand side? Found from its program, before any data.

A right-hand side ``rhs(t, A, p)`` is that of a linear system, :math:`A' = M(p) A + r(p)`, where its
Jacobian does not depend on the amounts, nothing steps at a value of an amount, and time does not
enter. It is traced to a program (a jaxpr), parts that reach no result are dropped, and what is left
is looked through; a system in doubt is called non-linear, which costs time and no digits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Array, Float, PyTree

Amounts = Float[Array, " n"]
Square = Float[Array, "n n"]

#: Operations whose derivative in the amounts is 0 though their value depends on them.
_STEPS = ("stop_gradient", "floor", "ceil", "round", "sign", "nextafter", "reduce_precision")

_TRIES = 7  # of random parameters in a probe
_ILL = 1e7  # a condition number of eigenvectors that leaves no digits for derivatives


def is_linear(rhs: Callable[..., Any], n: int, p: PyTree) -> bool:
    """Return whether a right-hand side is linear in the amounts, with constant coefficients.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)`` gives the n rates of change of one subject's amounts; it may close over
        traced values.
    n : int
        The number of compartments.
    p : pytree
        Parameters, of which only the shapes are read.
    """
    return is_affine(rhs, n, p) and not depends_on_time(rhs, n, p)


def is_affine(rhs: Callable[..., Any], n: int, p: PyTree) -> bool:
    """Return whether a right-hand side is M(t, p) A + r(t, p): linear in the amounts at any time.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)``, see `is_linear`.
    n : int
        The number of compartments.
    p : pytree
        Parameters, of which only the shapes are read.
    """
    if _live(jax.jacfwd(rhs, argnums=1), n, p)[1][1]:
        return False
    program, used = _live(rhs, n, p)
    return not _follow(program, [i == 1 for i in range(len(used))])[0]


def depends_on_time(rhs: Callable[..., Any], n: int, p: PyTree) -> bool:
    """Return whether time itself enters a right-hand side.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)``, see `is_linear`.
    n : int
        The number of compartments.
    p : pytree
        Parameters, of which only the shapes are read.
    """
    return _live(rhs, n, p)[1][0]


def rate_matrix(rhs: Callable[..., Any], n: int) -> Callable[[Any, Any], Square]:
    r"""Return the function of (t, p) that gives :math:`M = \partial\, rhs / \partial A` at A = 0.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)``, see `is_linear`.
    n : int
        The number of compartments.
    """
    return lambda t, p: jax.jacfwd(rhs, argnums=1)(t, jnp.zeros(n), p)


def constant_input(rhs: Callable[..., Any], n: int) -> Callable[[Any, Any], Amounts]:
    """Return the function of (t, p) that gives what flows in though all compartments are empty.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)``, see `is_linear`.
    n : int
        The number of compartments.
    """
    return lambda t, p: rhs(t, jnp.zeros(n), p)


def has_input(rhs: Callable[..., Any], n: int, p: PyTree) -> bool:
    """Return whether anything flows in though all compartments are empty.

    Asked of random parameters; True also where it cannot be tried.

    Parameters
    ----------
    rhs : Callable
        ``rhs(t, A, p)``, see `is_linear`.
    n : int
        The number of compartments.
    p : pytree
        Parameters, of which only the shapes are read.
    """
    found = _probed(lambda p: rhs(0.0, jnp.zeros(n), p), p, seed=1)
    return found is None or bool((found != 0).any())  # NaN counts too


def is_defective(rates: Callable[[Any], Any], p: PyTree, seed: int = 0) -> bool:
    """Return whether the eigenvectors of a rate matrix are too nearly dependent to be worked with.

    Asked of random parameters between 0 and 1: a chain with one shared rate constant is defective
    whatever its value; one with rate constants that merely may come to be equal is not. True also
    where it cannot be tried, because traced values or no finite matrix came of it.

    Parameters
    ----------
    rates : Callable
        ``rates(p)`` gives the rate matrix [n, n].
    p : pytree
        Parameters, of which only the shapes are read.
    seed : int
        Of the random parameters.
    """
    matrices = _probed(rates, p, seed)
    if matrices is None:
        return True
    finite = matrices[np.isfinite(matrices).all(axis=(1, 2))]
    if not len(finite):
        return True
    conditions = np.linalg.cond(np.linalg.eig(finite)[1])
    return bool(np.median(conditions) > _ILL)


def _probed(f: Callable[[Any], Any], p: PyTree, seed: int) -> np.ndarray | None:
    """Return the values of f at some random parameters; None where traced values hide them."""
    shapes = jax.tree.map(_shape, p)
    program = jax.make_jaxpr(f)(shapes)
    if any(isinstance(const, Tracer) for const in program.consts):
        return None
    rng = np.random.default_rng(seed)
    tried = [
        rng.uniform(0.1, 0.9, (_TRIES, *leaf.shape)).astype(leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else np.ones((_TRIES, *leaf.shape), leaf.dtype)
        for leaf in jax.tree.leaves(shapes)
    ]
    with jax.ensure_compile_time_eval():
        found = jax.jit(jax.vmap(core.jaxpr_as_fun(program), axis_size=_TRIES))(*tried)[0]
    return np.asarray(found)


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def _live(f: Callable[..., Any], n: int, p: PyTree) -> tuple[core.Jaxpr, list[bool]]:
    """Return what of the program of f(t, A, p) reaches its result, and which inputs do."""
    t, A = _shape(0.0), _shape(jnp.zeros(n))
    jaxpr = jax.make_jaxpr(f)(t, A, jax.tree.map(_shape, p)).jaxpr
    wanted = [True] * len(jaxpr.outvars)
    return dce_jaxpr(jaxpr, wanted, instantiate=True)[0], dce_jaxpr(jaxpr, wanted)[1]


def _follow(jaxpr: core.Jaxpr, given: list[bool]) -> tuple[bool, list[bool]]:
    """Return whether a step is taken on the inputs that are marked, and which outputs they reach."""
    marked = {var for var, mark in zip(jaxpr.invars, given, strict=True) if mark}
    for eqn in jaxpr.eqns:
        into = [isinstance(var, core.Var) and var in marked for var in eqn.invars]
        if not any(into):
            continue
        inner = list(core.jaxprs_in_params(eqn.params))
        if inner:
            stepped, out = _follow_inner(eqn, inner, into)
        else:
            stepped = eqn.primitive.name in _STEPS or not all(_inexact(eqn.outvars))
            out = [True] * len(eqn.outvars)
        if stepped:
            return True, []
        marked |= {var for var, mark in zip(eqn.outvars, out, strict=True) if mark}
    return False, [isinstance(var, core.Var) and var in marked for var in jaxpr.outvars]


def _follow_inner(
    eqn: core.JaxprEqn, inner: list[core.Jaxpr], into: list[bool]
) -> tuple[bool, list[bool]]:
    """Return the same of an operation that holds programs: a function, a loop, a choice."""
    everything = [True] * len(eqn.outvars)
    called = eqn.primitive.name not in ("scan", "while", "cond") and len(inner) == 1
    if called and len(inner[0].invars) == len(into):
        stepped, out = _follow(inner[0], into)
        return stepped, out if len(out) == len(everything) else everything
    # A loop may bring the amounts to any number that it carries; to an integer only by a step.
    return any(_follow(one, _inexact(one.invars))[0] for one in inner), everything


def _inexact(variables: list[Any]) -> list[bool]:
    return [jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in variables]
