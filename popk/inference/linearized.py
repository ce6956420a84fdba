r"""What do one subject's levels look like to a model that is linear in random effects around their mode?

With g the scale of the residual error, f the predictions, :math:`\hat u` the mode of the random effects
given all levels of the subject, :math:`J = \partial g(f) / \partial u` and s the standard deviations there,

.. math:: E = g(f(\hat u)) - J \hat u, \qquad C = J \Omega J^T + \mathrm{diag}(s^2)

are mean and covariance of the levels, exactly so where f is linear in u and s constant.

References
----------
.. [1] Lindstrom MJ, Bates DM (1990). Nonlinear mixed effects models for repeated measures data.
   Biometrics 46:673-687. doi:10.2307/2532087
.. [2] Hooker AC, Staatz CE, Karlsson MO (2007). Conditional weighted residuals (CWRES): a model
   diagnostic for the FOCE method. Pharm Res 24:2187-2197. doi:10.1007/s11095-007-9361-x
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from popk.inference.density import Layout, Vector
from popk.inference.laplace import find_mode, middle, prior_of, traced
from popk.model.levels import levels_of
from popk.model.sites import Model, ModelError
from popk.residual import Residual
from popk.trial import Trial


class Linearized(NamedTuple):
    """One subject's levels by a model that is linear around the mode.

    Attributes
    ----------
    vector : Float[Array, "k"]
        The mode of the unconstrained random effects.
    error : Float[Array, "o"]
        Levels less the individual prediction at the mode, on the scale of the residual error; 0 where a
        level does not count with a value of its own.
    spread : Float[Array, "o"]
        The residual standard deviation there; 1 where it does not count.
    residual : Float[Array, "o"]
        Levels less E.
    covariance : Float[Array, "o o"]
        C; that of a level which does not count is 1, alone.
    typical : Float[Array, "o"]
        The prediction at random effects of 0.
    """

    vector: Any
    error: Any
    spread: Any
    residual: Any
    covariance: Any
    typical: Any


def refuse_other_errors(model: Model, plan: Layout, trial: Trial, population: Any) -> None:
    """Refuse levels whose errors a mean and a covariance do not describe; nothing is computed.

    Raises
    ------
    ModelError
        There are some.
    """
    first = jax.tree.map(lambda x: x[0], trial.by_subject())
    found: list[Any] = []

    def look(u: Any) -> Any:
        trace, prior = traced(model, plan, first, population, u)
        found.extend(s["fn"] for s in trace.values() if "kinds" in s.get("infer", {}))
        return prior

    jax.eval_shape(look, jnp.zeros(plan.size))
    residuals = [fn for fn in found if isinstance(fn, Residual)]
    if not residuals or not all(fn.plain for fn in residuals) or len(residuals) < len(found):
        raise ModelError(
            "CWRES needs residual errors that are normal on their scale, each for itself, and the model "
            "observes others, or counts, categories or events; popk.npde needs no such thing"
        )


@partial(jax.jit, static_argnames=("model", "plan"))
def linearized(model, plan, stacked, population):
    """Return the `Linearized` of each subject.

    Parameters
    ----------
    model, plan
        The model, and the layout of `subject_layout`.
    stacked : Trial
        One trial a subject, see `Trial.by_subject`.
    population : mapping of site to value
    """
    return jax.vmap(lambda one: _linearized(model, plan, one, population))(stacked)


def _linearized(model: Model, plan: Layout, arrays: Trial, population: Any) -> Linearized:
    begin = middle(model, plan, arrays, population)
    mode = find_mode(model, plan, arrays, population, begin).position
    at = partial(_errors, model, plan, arrays, population)
    jacobian, (error, spread) = jax.jacfwd(at, has_aux=True)(mode)
    jacobian = -jacobian  # of the prediction, where `at` has the distance from it
    prior = partial(prior_of, model, plan, arrays, population)
    between = jnp.linalg.inv(-jax.hessian(prior)(mode))
    covariance = jacobian @ between @ jacobian.T + jnp.diag(spread**2)
    residual = error + jacobian @ (mode - begin)
    trace, _ = traced(model, plan, arrays, population, begin)
    return Linearized(mode, error, spread, residual, covariance, levels_of(trace).ipred)


def _errors(
    model: Model, plan: Layout, arrays: Trial, population: Any, vector: Vector
) -> tuple[Float[Array, " o"], Any]:
    """Return levels less predictions, and again with their standard deviations."""
    trace, _ = traced(model, plan, arrays, population, vector)
    error, spread = 0.0, 1.0  # each level is of one kind: 0 and 1 in all others
    for site in trace.values():
        if isinstance(site.get("fn"), Residual):
            own_error, own_spread, _ = site["fn"].parts()
            exact = site["fn"].exact
            error = error + jnp.where(exact, own_error, 0.0)
            spread = spread * jnp.where(exact, own_spread, 1.0)
    return jnp.asarray(error), (jnp.asarray(error), jnp.asarray(spread))
