r"""How likely are one subject's levels, random effects integrated out?

With :math:`h(u) = \log p(y, u)`, the joint log-density of k random effects u and n levels, its mode
:math:`\hat u`, and H a curvature there, :math:`\log p(y) = \log \int e^{h(u)} du` is approximately

.. math:: h(\hat u) + \tfrac{k}{2} \ln 2\pi - \tfrac{1}{2} \ln |H|

**focei**: :math:`H = J^T I J + P` with I the expected information of the levels on their predictions
f, :math:`J = \partial f/\partial u`, and P the curvature of the prior of u.

**laplace**: :math:`H = -\partial^2 h/\partial u^2`.

**foce**: as focei, in a density whose residual variances are those at u = 0; :math:`I = 1/v(f(0))`.

**fo**: as foce, with predictions :math:`f(0) + J(0) u`, which makes the approximation exact.

**agq**: with nodes z and weights w of Gauss and Hermite in each dimension, and :math:`L L^T = H^{-1}`,

.. math:: \log |L| + \log \sum_j w_j e^{z_j^T z_j / 2} e^{h(\hat u + L z_j)}

References
----------
.. [1] Wang Y (2007). Derivation of various NONMEM estimation methods. J Pharmacokinet Pharmacodyn
   34:575-593. doi:10.1007/s10928-007-9060-6
.. [2] Lindstrom MJ, Bates DM (1990). Nonlinear mixed effects models for repeated measures data.
   Biometrics 46:673-687. doi:10.2307/2532087
.. [3] Pinheiro JC, Bates DM (1995). Approximations to the log-likelihood function in the nonlinear
   mixed-effects model. J Comput Graph Stat 4:12-35. doi:10.1080/10618600.1995.10474663
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from popk.inference.density import Layout, Vector
from popk.inference.laplace import Look, Mode, curved, joint, middle, prior_of, search, traced
from popk.model.sites import Model
from popk.residual import Level, Residual
from popk.trial import Trial

#: The step of a difference of slopes: its error is of the fourth order, and a solver's is far below.
_STEP = 0.02
#: A model, the layout of one subject's random effects, their trial, and the population's values.
Given = tuple[Model, Layout, Trial, Mapping[str, Any]]

_AT_ONCE = 256  # nodes of one subject that are looked at together


class Rule(NamedTuple):
    """How one subject's random effects are integrated out.

    Attributes
    ----------
    method : str
        "fo", "foce", "focei", "laplace" or "agq".
    nodes : int
        In each dimension, of "agq".
    informed : bool
        Whether each level has an information on its own prediction.
    twice : bool
        Whether predictions can be differentiated twice.
    """

    method: str
    nodes: int
    informed: bool
    twice: bool


@partial(jax.jit, static_argnames=("model", "plan", "rule"))
def marginals(model, plan, rule, stacked, population):
    """Return the log marginal likelihood of each subject, and where it is looked at.

    Parameters
    ----------
    model, plan
        The model, and the layout of `subject_layout`.
    rule : Rule
    stacked : Trial
        One trial a subject, see `Trial.by_subject`.
    population : mapping of site to value

    Returns
    -------
    log_likelihood : Float[Array, "s"]
    vectors : Float[Array, "s k"]
        0 for "fo", the modes for all others.
    """
    return jax.vmap(lambda one: _marginal(model, plan, rule, one, population))(stacked)


def _marginal(
    model: Model, plan: Layout, rule: Rule, arrays: Trial, population: Mapping[str, Any]
) -> tuple[Float[Array, ""], Vector]:
    given = (model, plan, arrays, population)
    begin = middle(model, plan, arrays, population)
    if rule.method in ("fo", "foce"):
        look = partial(_uninteracting, given, _levels_at(given, begin)[1])
        if rule.method == "foce":
            mode = search(look, begin)
            return _approximated(mode.joint, mode.curvature), mode.position
        value, slope, h, _ = look(begin)  # of the quadratic whose highest value is the integral's
        return _approximated(value + slope @ jnp.linalg.solve(h, slope) / 2, h), begin
    steep = partial(curved, *given) if rule.informed else partial(_curved_exactly, given, rule)
    mode = search(steep, begin)
    if rule.method == "agq":
        return _by_quadrature(given, mode, rule.nodes), mode.position
    h = _hessian(given, rule, mode) if rule.method == "laplace" else mode.curvature
    return _approximated(mode.joint, h), mode.position


def _approximated(value: Any, h: Float[Array, "k k"]) -> Float[Array, ""]:
    """Return Laplace's approximation; NaN where H is not positive definite."""
    lower = jnp.linalg.cholesky(h)
    return value + len(h) / 2 * jnp.log(2 * jnp.pi) - jnp.log(jnp.diagonal(lower)).sum()


def _by_quadrature(given: Given, mode: Mode, nodes: int) -> Float[Array, ""]:
    size = len(mode.position)
    one, weights = np.polynomial.hermite_e.hermegauss(nodes)
    z = np.stack([g.ravel() for g in np.meshgrid(*[one] * size)], -1)
    logs = sum(g.ravel() for g in np.meshgrid(*[np.log(weights)] * size)) + (z**2).sum(-1) / 2
    upper = jnp.linalg.cholesky(mode.curvature).T

    def at(z: Any) -> Any:
        found = joint(*given, mode.position + jax.scipy.linalg.solve_triangular(upper, z))
        # A node far out may lie where nothing can be predicted; there is no probability there.
        return jnp.where(jnp.isnan(found), -jnp.inf, found)

    values = jax.lax.map(at, jnp.asarray(z), batch_size=_AT_ONCE)
    log_sum = jax.scipy.special.logsumexp(values + logs)
    return log_sum - jnp.log(jnp.diagonal(upper)).sum()


def _levels_at(given: Given, vector: Vector) -> tuple[Level, Level, Level]:
    """Return the normal errors of one subject's levels, see `Residual.parts`."""
    trace, _ = traced(*given, vector)
    each = [s["fn"].parts() for s in trace.values() if isinstance(s.get("fn"), Residual)]
    errors, spreads, constants = (jnp.concatenate(part) for part in zip(*each, strict=True))
    return errors, spreads, constants


def _uninteracting(given: Given, spread: Level, vector: Vector) -> Look:
    """Return the look of `search` where residual standard deviations are known."""

    def standardized(u: Vector) -> Any:
        error, _, constant = _levels_at(given, u)
        return error / spread, (error / spread, constant)

    jacobian, (z, constants) = jax.jacfwd(standardized, has_aux=True)(vector)
    prior = partial(prior_of, *given)
    value = prior(vector) + (constants - 0.5 * z**2 - jnp.log(spread)).sum()
    h = jacobian.T @ jacobian - jax.hessian(prior)(vector)
    return value, jax.grad(prior)(vector) - jacobian.T @ z, h, h


def _curved_exactly(given: Given, rule: Rule, vector: Vector) -> Look:
    """Return the look of `search` where levels have no information one by one: H is observed."""
    slope = _slope(given)
    h = -_second(slope, vector, jnp.eye(len(vector)) * 1e-2, rule.twice)
    # Uphill in every direction: where the density curves upwards, as steep as it does.
    values, along = jnp.linalg.eigh(h)
    steps = (along * jnp.maximum(jnp.abs(values), 1e-3)) @ along.T
    return joint(*given, vector), slope(vector), steps, h


def _hessian(given: Given, rule: Rule, mode: Mode) -> Float[Array, "k k"]:
    """Return minus the second derivatives of the joint density at its mode."""
    scale = jnp.linalg.inv(jnp.linalg.cholesky(mode.curvature)) if rule.informed else None
    wide = jnp.eye(len(mode.position)) * 1e-2 if scale is None else _STEP * scale.T
    return -_second(_slope(given), mode.position, wide, rule.twice)


def _slope(given: Given) -> Callable[[Vector], Vector]:
    return jax.jacfwd(partial(joint, *given))


def _second(
    slope: Callable[[Vector], Vector], at: Vector, steps: Float[Array, "k k"], exactly: bool
) -> Float[Array, "k k"]:
    """Return the derivatives of a slope, by differences along the columns of `steps` if need be."""
    if exactly:
        found = jax.jacfwd(slope)(at)
    else:

        def along(step: Vector) -> Vector:
            near = slope(at + step) - slope(at - step)
            return (8 * near - slope(at + 2 * step) + slope(at - 2 * step)) / 12

        found = jnp.linalg.solve(steps.T, jax.vmap(along)(steps.T))
    return (found + found.T) / 2
