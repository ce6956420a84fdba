"""The systems a model writes itself: rates between compartments, or a right-hand side."""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.model.dosing import ByCompartment, dosing_of, parameter, tell
from popk.model.explanation import explained
from popk.model.recording import recorded
from popk.model.sites import ModelError
from popk.reasons import failing
from popk.solve import Dosing, solve
from popk.solve.clocks import Solver
from popk.solve.nonlinear import BROKEN, STEPS, UNSETTLED, integrate
from popk.structural.compartments import Structure
from popk.structural.kinetics import System
from popk.structural.tracing import (
    constant_input,
    depends_on_time,
    has_input,
    is_defective,
    is_linear,
    rate_matrix,
)
from popk.trial import Trial

Method = Literal["explicit", "implicit"]

_SAYS = {
    STEPS: "the ODE solver did not reach this subject's end within its step limit; the system may be "
    "stiff: give solver='implicit', or raise max_steps",
    BROKEN: "the ODE solver failed in this subject: amounts became infinite or no numbers; check the "
    "right-hand side at these parameter values, or give solver='implicit'",
    UNSETTLED: "no steady state was found for this subject's SS dose; it may have none (the dose "
    "exceeds what can be eliminated): write the doses out instead",
}


class Written(NamedTuple):
    """A right-hand side on vectors, and how it is solved.

    Attributes
    ----------
    compartments : tuple of str
    dosed : str
    rhs : Callable
        ``rhs(t, A, p)`` gives dA/dt [compartment] from amounts [compartment] and a mapping.
    """

    compartments: tuple[str, ...]
    dosed: str
    rhs: Callable[[Any, Any, Mapping[str, Any]], Float[Array, " n"]]


@recorded
def ode(
    trial: Trial,
    rhs: System | Callable[..., Any],
    p: Any,
    *,
    compartments: Sequence[str] | None = None,
    dosed: str | None = None,
    F: ByCompartment | None = None,
    lag: ByCompartment | None = None,
    R: ByCompartment | None = None,
    D: ByCompartment | None = None,
    initial: ByCompartment | None = None,
    solver: Method = "explicit",
    rtol: float = 1e-7,
    atol: float = 1e-9,
    max_steps: int | None = None,
) -> Any:
    r"""Return the amounts in each compartment at every record, of a system of differential equations.

    .. math:: \frac{dA}{dt} = \mathrm{rhs}(t, A, p) + \text{infusions}

    A system that is linear in its amounts is found out and solved exactly, without an ODE solver;
    ``.tier`` and ``.why`` of the result say so, and `popk.explain` prints it.

    Parameters
    ----------
    trial : Trial
    rhs : System or Callable
        A system that popk knows (`popk.michaelis_menten` and its kin), or ``rhs(A, p)`` or
        ``rhs(t, A, p)`` for ONE subject: it reads ``A.central`` and ``p.CL``, and returns dA/dt of
        every compartment, ``{"central": -p.CL / p.V * A.central}`` or an array in their order. Doses and
        infusions are added by popk.
    p : namedtuple or mapping
        The parameters: what `popk.individual` returned, or a mapping of names to [subject, 1],
        [subject, record] or scalars.
    compartments : sequence of str, optional
        Their names, in the order of CMT 1, 2, ...; needed unless `rhs` is a System.
    dosed : str, optional
        The compartment of doses with CMT 0; the first by default.
    F, lag : mapping of compartment to such an array, optional
        Bioavailability [fraction] and lag time [time] of doses into a compartment.
    R, D : the same, optional
        Rate [amount/time] of doses with RATE -1, duration [time] of doses with RATE -2.
    initial : the same, optional
        Amounts at the first record and after a reset [amount]; a System brings its own.
    solver : "explicit" or "implicit"
        Tsitouras 5(4) [1]_, or RODAS 4(3) [2]_ for stiff systems.
    rtol, atol : float
        Tolerances of a step's error, relative to the amounts and absolute [amount].
    max_steps : int, optional
        The most steps of a subject; by default 10 for each event and 500. Beyond it the subject's
        amounts are NaN, and `predict_at` and `fit` say so.

    Returns
    -------
    namedtuple
        ``amounts.central`` and so on [subject, record], in the unit of AMT.

    Raises
    ------
    ModelError
        The right-hand side has other names or another length than the compartments, reads a
        parameter that `p` lacks, or a dose does not fit; see `popk.one_compartment`.

    References
    ----------
    .. [1] Tsitouras C (2011). Runge-Kutta pairs of order 5(4) satisfying only the first column
       simplifying assumption. Comput Math Appl 62:770-775. doi:10.1016/j.camwa.2011.06.002
    .. [2] Hairer E, Wanner G (1996). Solving Ordinary Differential Equations II, 2nd edition.
       doi:10.1007/978-3-642-05221-7
    """
    if isinstance(rhs, System):
        compartments, dosed = rhs.compartments, dosed or rhs.dosed
    names, first = _named(compartments, dosed)
    values: Any = {k: parameter(k, v, trial) for k, v in _mapping(p).items()}
    begins = _initial(rhs, values) if isinstance(rhs, System) else {}
    system = Written(names, first, _on_vectors(rhs, names, values))
    dosing = dosing_of(
        trial, names, first,
        {"F": F, "lag": lag, "R": R, "D": D, "initial": {**begins, **(initial or {})}},
    )  # fmt: skip
    if is_linear(system.rhs, len(names), _one(values)):
        return _linear(trial, system, values, dosing, "its rates are linear in the amounts")
    options = Solver(solver, rtol, atol, max_steps)
    if trial.design.steady and depends_on_time(system.rhs, len(names), _one(values)):
        raise ModelError(
            "a dose is at steady state, but the right-hand side depends on time, so there is none; "
            "write the doses out, with ADDL and II",
            rows={"SS": 1},
        )
    found = integrate(
        system.rhs, names, first, values, trial.events, trial.n_records,
        design=trial.design, dosing=dosing, options=options,
    )  # fmt: skip
    tell(found.plans)
    for status, says in _SAYS.items():
        failing(says, jnp.where(found.status == status, 0, -1))
    method = "Tsitouras 5(4), explicit" if solver == "explicit" else "RODAS 4(3), implicit"
    why = "its rates are not linear in the amounts"
    return _result(names, found.amounts, f"ODE solver, {method}, rtol {rtol:g}", why)


@recorded
def linear(
    trial: Trial,
    rates: Callable[[Any], Any],
    p: Any,
    *,
    compartments: Sequence[str],
    dosed: str | None = None,
    F: ByCompartment | None = None,
    lag: ByCompartment | None = None,
    R: ByCompartment | None = None,
    D: ByCompartment | None = None,
    initial: ByCompartment | None = None,
) -> Any:
    r"""Return the amounts in each compartment at every record, of a linear system.

    .. math:: \frac{dA}{dt} = M(p)\, A + \text{infusions}

    Solved exactly: by the eigenvectors of M or, where these are too few, by repeated squaring.

    Parameters
    ----------
    trial : Trial
    rates : Callable
        ``rates(p)`` for ONE subject gives the rate constants, ``{("depot", "central"): p.KA, ("central",
        None): p.CL / p.V}``, where None is out of the body; or the matrix M, whose entry [i, j] is the
        rate from j into i, and [j, j] less all that leaves j [1/time].
    p : namedtuple or mapping
        The parameters, see `popk.ode`.
    compartments : sequence of str
        Their names, in the order of CMT 1, 2, ...
    dosed : str, optional
        The compartment of doses with CMT 0; the first by default.
    F, lag, R, D, initial : mapping of compartment to array, optional
        See `popk.ode`.

    Returns
    -------
    namedtuple
        ``amounts.central`` and so on [subject, record], in the unit of AMT.

    Raises
    ------
    ModelError
        A rate names no compartment, the matrix has another shape, or as `popk.ode`.

    References
    ----------
    .. [1] Moler C, Van Loan C (2003). Nineteen dubious ways to compute the exponential of a matrix,
       twenty-five years later. SIAM Review 45:3-49. doi:10.1137/S00361445024180
    """
    names, first = _named(compartments, dosed)
    values: Any = {k: parameter(k, v, trial) for k, v in _mapping(p).items()}

    def rhs(t: Any, A: Any, p: Any) -> Any:
        return _matrix(rates(p), names) @ jnp.stack(A)

    system = Written(names, first, _on_vectors(rhs, names, values))
    given = {"F": F, "lag": lag, "R": R, "D": D, "initial": initial}
    dosing = dosing_of(trial, names, first, given)
    return _linear(trial, system, values, dosing, "the model gives its rate matrix")


def _linear(
    trial: Trial, system: Written, values: Mapping[str, Any], dosing: Dosing, why: str
) -> Any:
    """Return the amounts of a system that is linear in them."""
    names, one, n = system.compartments, _one(values), len(system.compartments)
    matrix, inflow = rate_matrix(system.rhs, n), constant_input(system.rhs, n)
    defective = jax.default_backend() != "cpu" or is_defective(lambda p: matrix(0.0, p), one)
    structure = Structure(
        compartments=names,
        dosed=system.dosed,
        observed=system.dosed,
        entries=None,
        rates=lambda **p: matrix(0.0, p),
    )
    amounts, plans = solve(
        structure, values, trial.events, trial.n_records, trial.design, dosing,
        source=(lambda **p: inflow(0.0, p)) if has_input(system.rhs, n, one) else None,
        defective=defective,
    )  # fmt: skip
    tell(plans)
    road = "repeated squaring" if defective else "eigenvectors"
    if trial.design.turned_off:
        road = "matrix exponential of each interval"
    return _result(names, amounts, f"linear system, {road}", why)


def _result(names: tuple[str, ...], amounts: Float[Array, "s r n"], tier: str, why: str) -> Any:
    explained(", ".join(names), tier, why)
    kind = type("Amounts", (namedtuple("Amounts", names),), {"tier": tier, "why": why})
    return kind(*(amounts[..., i] for i in range(len(names))))


def _named(compartments: Sequence[str] | None, dosed: str | None) -> tuple[tuple[str, ...], str]:
    """Return the compartments' names, and that of the one dosed by default."""
    if compartments is None or isinstance(compartments, str) or not len(compartments):
        raise ModelError(
            "the compartments have no names; give compartments=('depot', 'central'), in CMT's order"
        )
    names = tuple(compartments)
    wrong = [n for n in names if not n.isidentifier() or names.count(n) > 1]
    if wrong:
        raise ModelError(
            f"compartments {', '.join(wrong)}: each needs a name of its own, a Python one"
        )
    if dosed is not None and dosed not in names:
        raise ModelError(f"dosed is {dosed!r}, but the compartments are {', '.join(names)}")
    return names, dosed or names[0]


def _mapping(p: Any) -> dict[str, Any]:
    if hasattr(p, "_asdict"):
        return p._asdict()
    if isinstance(p, Mapping):
        return dict(p)
    raise ModelError(f"p is a {type(p).__name__}; give what popk.individual returned, or a mapping")


def _one(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of one subject at one time, for their shapes."""
    return {k: jax.ShapeDtypeStruct((), v.dtype) for k, v in values.items()}


def _initial(system: System, values: Mapping[str, Any]) -> dict[str, Any]:
    lacking = [n for n in system.parameters if n not in values]
    if lacking:
        raise ModelError(
            f"p lacks {', '.join(lacking)}; the system reads {', '.join(system.parameters)}"
        )
    kind = namedtuple("Parameters", system.parameters)
    read = [values[n] for n in system.parameters]
    if not read:
        return system.initial(kind())

    def one(*p: Any) -> dict[str, Any]:
        return system.initial(kind(*p))

    return jax.vmap(jax.vmap(one))(*jnp.broadcast_arrays(*read))


def _on_vectors(
    rhs: System | Callable[..., Any], names: tuple[str, ...], values: Mapping[str, Any]
) -> Callable[..., Float[Array, " n"]]:
    """Return a user's right-hand side as a function of vectors, tried once."""
    function: Any = rhs.rhs if isinstance(rhs, System) else rhs
    takes = function.__code__.co_argcount if hasattr(function, "__code__") else 3
    amounts, parameters = namedtuple("Compartments", names), namedtuple("Parameters", values)

    def on_vectors(t: Any, A: Any, p: Mapping[str, Any]) -> Float[Array, " n"]:
        given = (amounts(*(A[i] for i in range(len(names)))), parameters(**p))
        out: Any = function(*given) if takes == 2 else function(t, *given)
        if isinstance(out, Mapping):
            _check_names(out, names)
            return jnp.stack([jnp.asarray(out[n], dtype=float) for n in names])
        array = (
            jnp.asarray(out, dtype=float) if not isinstance(out, tuple | list) else jnp.stack(out)
        )
        if array.shape != (len(names),):
            raise ModelError(
                f"the right-hand side gives {array.size} rates of change; "
                f"the compartments are {len(names)}: {', '.join(names)}"
            )
        return array

    jax.eval_shape(
        on_vectors, 0.0, jax.ShapeDtypeStruct((len(names),), jnp.result_type(float)), _one(values)
    )
    return on_vectors


def _check_names(out: Mapping[str, Any], names: tuple[str, ...]) -> None:
    lacking, strange = [n for n in names if n not in out], [n for n in out if n not in names]
    if lacking or strange:
        says = [f"gives no rate of change for {', '.join(lacking)}"] if lacking else []
        says += [f"gives one for {', '.join(strange)}, which is no compartment"] if strange else []
        raise ModelError(
            f"the right-hand side {' and '.join(says)}; the compartments are {', '.join(names)}"
        )


def _matrix(rates: Any, names: tuple[str, ...]) -> Float[Array, "n n"]:
    """Return the rate matrix of rate constants by (from, to)."""
    if not isinstance(rates, Mapping):
        matrix = jnp.asarray(rates, dtype=float)
        if matrix.shape != (len(names), len(names)):
            raise ModelError(
                f"the rate matrix has shape {matrix.shape}; "
                f"the compartments are {len(names)}: {', '.join(names)}"
            )
        return matrix
    matrix = jnp.zeros((len(names), len(names)))
    for (source, target), rate in rates.items():
        strange = [n for n in (source, target) if n not in names and n is not None]
        if strange or source is None:
            raise ModelError(
                f"a rate goes from {source} to {target}; the compartments are {', '.join(names)}, "
                f"and None, as a target, is out of the body"
            )
        j = names.index(source)
        matrix = matrix.at[j, j].add(-rate)
        if target is not None:
            matrix = matrix.at[names.index(target), j].add(rate)
    return matrix
