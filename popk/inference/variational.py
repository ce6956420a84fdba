r"""What is the posterior, by a guide that is fitted to it? Variational inference, weighted to be exact.

A guide q (`guides`) begins as the normal approximation of the posterior (`approximation`), so that it
has only to learn what is not normal, and climbs the evidence lower bound

.. math:: \mathrm{ELBO} = E_q [\log p(y, x) - \log q(x)] \le \log p(y)

by reparameterized draws, whose gradient has no noise left where q is the posterior [1]_. Draws then have
weights. Where the density falls apart into one factor a subject, population values :math:`\theta` are
drawn from the guide's, with heavier tails, and each subject's effects several times for each of them
from the guide's own conditional distribution, with heavier tails too:

.. math:: \hat p(y_i | \theta) = \frac{1}{D} \sum_d \frac{p(y_i, u_{id} | \theta)}{q_i(u_{id} | \theta)},
    \qquad w = \frac{p(\theta) \prod_i \hat p(y_i | \theta)}{q(\theta)}

so that Pareto k judges the population part, however many subjects there are, and no Laplace
approximation is needed: classes, events and `popk.ode` are as any other. Where it does not fall apart
(a factor of the model's own that is of no subject), whole positions are weighted, as in [2]_.

References
----------
.. [1] Roeder G, Wu Y, Duvenaud D (2017). Sticking the landing: simple, lower-variance gradient
   estimators for variational inference. NeurIPS 30. arXiv:1703.09194.
.. [2] Yao Y, Vehtari A, Simpson D, Gelman A (2018). Yes, but did it work? Evaluating variational
   inference. ICML, PMLR 80:5581-5590. arXiv:1802.02538.
.. [3] Kingma DP, Ba J (2015). Adam: a method for stochastic optimization. ICLR. arXiv:1412.6980.
.. [4] Kucukelbir A, Tran D, Ranganath R, Gelman A, Blei DM (2017). Automatic differentiation
   variational inference. J Mach Learn Res 18(14):1-45.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logsumexp
from rich.console import Console

from popk.inference import nuts
from popk.inference.adaptation import Metric
from popk.inference.approximation import population_at
from popk.inference.beginning import Beginning, asked, beginning
from popk.inference.density import Layout, Vector, log_density
from popk.inference.draws import Draws, Problem
from popk.inference.guides import FAMILIES, Guide
from popk.inference.importance import StudentT, enough, heavy_tailed, resampled, smoothed
from popk.inference.population import population_layout
from popk.model.sites import ModelError
from popk.variability import Coordinates

_STARTS = 32  # draws near the mode: the guide begins at their mean
_UNKNOWN = 0.3  # standard deviations of a guide that begins where nothing is known
_PER_STEP = 16  # draws of a step
_CHUNK = 200  # steps of one call of the compiled program
#: Step lengths, each until the ELBO no longer rises.
_RATES = (1e-2, 3e-3, 1e-3, 3e-4)
_FREEDOM = 8  # degrees of freedom of the population draws that are weighted
_AT_ONCE = 32


class Frame(NamedTuple):
    """Where a guide begins: position = center + metric.color(white)."""

    center: Vector
    metric: Metric

    def position(self, plan: Layout, white: Vector) -> Vector:
        """Return the position of a whitened one."""
        return self.center + self.metric.color(plan, white)

    def log_volume(self) -> Any:
        """Return the log of the Jacobian determinant."""
        return sum(jnp.log(jnp.diagonal(part, axis1=-2, axis2=-1)).sum() for part in self.metric)


class Learned(NamedTuple):
    """A guide, and how it was learned.

    Attributes
    ----------
    guide : Guide
    elbo : list of float
        The mean of the ELBO over each stretch of steps.
    steps : int
    """

    guide: Guide
    elbo: list[float]
    steps: int


def draw(
    problem: Problem, *, seed: int, progress: bool, draws: int, family: str, steps: int,
    population_draws: int, individual_draws: int | None,
    centering: float | Mapping[str, float] | None,
) -> Draws:  # fmt: skip
    """Return draws of equal weight; the options are those of `popk.fit`.

    Raises
    ------
    ModelError
        The ELBO is not finite, or the posterior has several modes; what to do instead.
    ValueError
        There is no such family, or an odd number of individual draws.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}; it must be one of {', '.join(FAMILIES)}")
    count = individual_draws or enough(problem.trial.n_subjects)
    if count % 2:
        raise ValueError(f"individual_draws is {count}; draws come in pairs: give an even number")
    keys = jax.random.split(jax.random.key(seed), 5)
    console = Console(stderr=True, quiet=not progress)
    with console.status("searching for the mode"):
        settings = nuts.Settings(_STARTS, 1, draws, None, 1)
        begin = beginning(problem, keys[0], settings, centering)
        _refuse_modes(begin)
    frame = _frame(begin, family)
    with console.status("learning the guide") as status:
        first = Guide.begin(family, begin.plan, keys[1])
        known = learned(problem, begin, frame, first, keys[2], steps, status.update)
    with console.status("weighing draws"):
        found = weighed(problem, begin, frame, known.guide, keys[3], population_draws, count)
    weights, pareto_k = smoothed(found.log_weights)
    chosen = resampled(weights, draws, keys[4])
    chosen = np.asarray(jax.random.permutation(jax.random.fold_in(keys[4], 1), chosen))
    attrs = {
        "family": family,
        "pareto_k": pareto_k,
        "importance_ess": float(1 / np.sum(weights**2)),
        "guide_pareto_k": found.guide_pareto_k,
        "weights": found.of,
        "elbo": found.elbo,
        "elbo_trace": json.dumps([round(x, 3) for x in known.elbo]),
        "steps_taken": known.steps,
        **begin.notes,
    }
    told = {
        "family": family, "steps": steps, "draws": draws, "population_draws": population_draws,
        "individual_draws": count,
    }  # fmt: skip
    if "centering" in (said := asked(settings, problem, begin.target.centering)):
        told["centering"] = said["centering"]
    stats = {"lp": found.lp[chosen][None], "weight": weights[chosen][None]}
    position = found.positions[chosen][None]
    return Draws(begin.plan, position, stats, told, attrs, begin.target.centering)


def _refuse_modes(begin: Beginning) -> None:
    """Refuse a posterior of several modes: weights do not know of one that no draw has reached."""
    if len(begin.modes) > 1:
        shares = np.exp([one.log_mass - begin.modes[0].log_mass for one in begin.modes])
        shares = ", ".join(f"{share:.0%}" for share in shares / shares.sum())
        raise ModelError(
            f"the posterior has {len(begin.modes)} modes (of about {shares} of its mass), and "
            f"method='variational' describes one, which Pareto k cannot tell; tell them apart by "
            f"priors, or take method='nuts'"
        )


def _frame(begin: Beginning, family: str) -> Frame:
    """Return where a guide begins; that of mean-field is diagonal, in the coordinates as they are."""
    metric = begin.carry.metric
    if not begin.modes:
        metric = jax.tree.map(lambda part: _UNKNOWN * part, metric)
    if family == "mean-field":
        metric = Metric(*(_diagonal(part) for part in metric))
    return Frame(begin.carry.state.position.mean(0), metric)


def _diagonal(lower: Any) -> Any:
    """Return the factors of covariances without their correlations."""
    spread = jnp.sqrt((lower**2).sum(-1))
    return spread[..., None] * jnp.eye(lower.shape[-1])


# --- the guide is learned ---


def learned(
    problem: Problem, begin: Beginning, frame: Frame, guide: Guide, key: Any, steps: int,
    report: Callable[[str], None],
) -> Learned:  # fmt: skip
    """Return the guide after it has climbed the ELBO until this no longer rises.

    Parameters
    ----------
    problem : Problem
    begin : Beginning
        Of which the plan and the target are taken.
    frame : Frame
    guide : Guide
        Where it begins.
    key : PRNGKey
    steps : int
        At most.
    report : Callable
        Is told now and then, in words, how far it has come.

    Raises
    ------
    ModelError
        The ELBO is not finite.
    """
    carry, trace, stage, done = (guide, _adam(frame).init(guide)), [], 0, 0
    best = (-np.inf, 0.0)
    while done < steps and stage < len(_RATES):
        ahead = jnp.arange(done, done + _CHUNK)
        carry, values = _climbed(
            problem.model,
            begin.plan,
            begin.target,
            frame,
            carry,
            (key, ahead, _RATES[stage], steps),
        )
        values = np.asarray(values)[: steps - done]
        done += len(values)
        if not np.isfinite(values).any():
            raise ModelError(
                f"the ELBO is not finite at any of {len(values)} steps of the guide; tighten vague "
                f"priors, or take method='nuts'"
            )
        values = values[np.isfinite(values)]
        mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
        trace.append(mean)
        report(f"learning the guide: step {done} of at most {steps}, ELBO {mean:.2f}")
        if mean < best[0] + np.hypot(error, best[1]):
            stage += 1
        best = max(best, (mean, error))
    return Learned(carry[0], trace, done)


def _adam(frame: Frame) -> optax.GradientTransformation:
    # A draw in the far tails says much and knows little.
    longest = 10.0 * frame.center.size**0.5
    return optax.chain(optax.clip_by_global_norm(longest), optax.scale_by_adam(b2=0.99))


@partial(jax.jit, static_argnames=("model", "plan"))
def _climbed(model, plan, target, frame, carry, ahead):
    """Return the guide after some steps of Adam, and the ELBO at each as it was seen."""
    key, numbers, rate, steps = ahead
    adam, size = _adam(frame), frame.center.size

    def loss(guide, z):
        bound = partial(_bound, model, plan, target, frame, guide)
        return -jax.vmap(bound)(z).mean()

    def step(carry, number):
        guide, state = carry
        z = jax.random.normal(jax.random.fold_in(key, number), (_PER_STEP, size))
        value, slope = jax.value_and_grad(loss)(guide, z)
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(slope))
        updates, state_after = adam.update(slope, state)
        moved = jax.tree.map(lambda x, u: x - rate * u, guide, updates)
        # The last call may end past the steps that were asked for.
        keep = partial(jnp.where, finite & (number < steps))
        return jax.tree.map(keep, (moved, state_after), (guide, state)), -value

    return jax.lax.scan(step, carry, numbers)


def _bound(model, plan, target, frame, guide, z):
    """Return log p(y, x) - log q(x) at a draw of the guide; slopes of log q by the draw alone."""
    white, _ = guide.forward(plan, z)
    back, slope = jax.tree.map(jax.lax.stop_gradient, guide).inverse(plan, white)
    log_guide = _log_normal(back) - slope - frame.log_volume()
    position = frame.position(plan, white)
    return log_density(model, plan, target.arrays, position, target.centering) - log_guide


def _log_normal(z):
    return -0.5 * (z @ z + z.size * jnp.log(2 * jnp.pi))


# --- draws are weighted ---


class Weighed(NamedTuple):
    """Weighted draws.

    Attributes
    ----------
    positions : Float[ndarray, "draw d"]
    log_weights : Float[ndarray, "draw"]
    lp : Float[ndarray, "draw"]
        The log posterior density, up to a constant: of the population values, estimated, where
        `of` says so.
    of : "population" or "joint"
        What has a weight: the population's values, or whole positions.
    elbo, guide_pareto_k : float
        The evidence lower bound, and Pareto k of whole positions of the guide as it is.
    """

    positions: np.ndarray
    log_weights: np.ndarray
    lp: np.ndarray
    of: str
    elbo: float
    guide_pareto_k: float


def weighed(
    problem: Problem, begin: Beginning, frame: Frame, guide: Guide, key: Any, size: int, count: int
) -> Weighed:
    """Return weighted draws of a guide.

    Parameters
    ----------
    problem, begin, frame, guide
        See `learned`.
    key : PRNGKey
    size : int
        How many population draws.
    count : int
        How many draws of each subject's effects for each of them; even.
    """
    plan = begin.plan
    key_guide, key_population, key_each = jax.random.split(key, 3)
    z = jax.random.normal(key_guide, (size, plan.size))
    positions, lp, logs, apart = _whole(problem, begin, frame, guide, z)
    elbo, guide_k = float(logs.mean()), smoothed(logs)[1]
    if not apart:
        return Weighed(positions, logs, lp, "joint", elbo, guide_k)
    law = StudentT(np.zeros(plan.n_population), np.eye(plan.n_population), _FREEDOM)
    rng = np.random.default_rng(int(jax.random.randint(key_population, (), 0, 2**31 - 1)))
    z = law.draw(rng, size)
    found = _collapsed(
        problem.model, (plan, count), begin.target, problem.trial.by_subject(), frame, guide,
        (jnp.asarray(z), jax.random.split(key_each, size)),
    )  # fmt: skip
    positions, lp, slopes = (np.asarray(x) for x in found)
    logs = _no_nan(lp - (law.log_density(z) - slopes))
    return Weighed(positions, logs, lp, "population", elbo, guide_k)


def _whole(
    problem: Problem, begin: Beginning, frame: Frame, guide: Guide, z: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return a guide's positions, their log-densities, log weights, and whether these fall apart.

    They do where each log-density is that of the population and a sum over trials of one subject each.
    """
    stacked = problem.trial.by_subject() if begin.plan.n_individual else None
    found = _looked(problem.model, begin.plan, begin.target, stacked, frame, guide, z)
    positions, lp, parts, log_guide = (np.asarray(x) for x in found)
    finite = np.isfinite(lp)
    apart = finite.any() and np.allclose(lp[finite], parts[finite], rtol=1e-6, atol=1e-3)
    return positions, lp, _no_nan(lp - log_guide), bool(apart)


def _no_nan(logs: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(logs), -np.inf, logs)


@partial(jax.jit, static_argnames=("model", "plan"))
def _looked(model, plan, target, stacked, frame, guide, drawn):
    """Return a guide's positions; their log-density, whole and as a sum; and that of the guide."""

    def one(z):
        white, slope = guide.forward(plan, z)
        position = frame.position(plan, white)
        whole = log_density(model, plan, target.arrays, position, target.centering)
        log_guide = _log_normal(z) - slope - frame.log_volume()
        if stacked is None:
            return position, whole, jnp.full_like(whole, jnp.nan), log_guide
        common, each = plan.blocks(position)
        own, prior = _subjects(model, plan, target, stacked, common)
        return position, whole, prior + own(each).sum(), log_guide

    return jax.lax.map(one, drawn, batch_size=_AT_ONCE)


def _subjects(model, plan, target, stacked, common):
    """Return the log-density of each subject's effects and levels, as a function; and the prior's.

    The function is of all subjects' numbers [subject, k].
    """
    shapes = (x._replace(shape=(1, *x.shape[1:])) if x.individual else x for x in plan.latents)
    one, centering = Layout(tuple(shapes), 1), target.centering
    sampled = model if centering is None else Coordinates(model, centering=centering)
    prior = population_at(sampled, population_layout(plan), target.arrays, common)[1]
    # Each subject may have a centering of its own, [subject, 1, parameter].
    each = centering is not None and jnp.ndim(centering.fraction) > 1
    fraction = None if centering is None else centering.fraction
    fraction = fraction[:, None] if each else fraction

    def alone(arrays, fraction, effects):
        known = None if centering is None else centering._replace(fraction=fraction)
        vector = jnp.concatenate([common, effects])
        return log_density(model, one, arrays, vector, known) - prior

    return (
        lambda effects: jax.vmap(alone, (0, 0 if each else None, 0))(stacked, fraction, effects),
        prior,
    )


@partial(jax.jit, static_argnames=("model", "plans"))
def _collapsed(model, plans, target, stacked, frame, guide, drawn):
    """Return a position for each population draw, its estimated log posterior density, and slopes.

    A slope is the log of the guide's Jacobian determinant at a draw.
    """
    plan, count = plans
    s, k = plan.n_subjects, plan.n_individual

    def one(x):
        z, key = x
        key_effects, key_choose = jax.random.split(key)
        white, slope = guide.population.forward(z)
        begin, centers = plan.blocks(frame.center)
        common = begin + frame.metric.population @ white
        own, prior = _subjects(model, plan, target, stacked, common)
        deviates, proposal = jax.vmap(lambda key: heavy_tailed(key, count, k), out_axes=1)(
            jax.random.split(key_effects, s)
        )
        each, slopes = jax.vmap(lambda z: guide.individual.forward(z, white))(deviates)
        each = centers + (frame.metric.individual * each[:, :, None, :]).sum(-1)
        logs = jax.vmap(own)(each) - (proposal - slopes)
        logs = jnp.where(jnp.isnan(logs), -jnp.inf, logs)
        chosen = jax.random.categorical(key_choose, logs, axis=0)
        effects = each[chosen, jnp.arange(s)]
        position = jnp.concatenate([common, effects.ravel()])
        return position, prior + logsumexp(logs, axis=0).sum(), slope

    return jax.lax.map(one, drawn, batch_size=_AT_ONCE)
