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
from rich.console import Console

from popk.inference import nuts
from popk.inference.adaptation import Metric
from popk.inference.beginning import Beginning, asked, beginning
from popk.inference.density import log_density
from popk.inference.draws import Draws, Problem
from popk.inference.guides import FAMILIES, Frame, Guide, Placed, log_normal
from popk.inference.importance import enough, resampled, smoothed
from popk.inference.weighing import Weighed, weighed
from popk.model.sites import ModelError

_STARTS = 32  # draws near the mode: the guide begins at their mean
_UNKNOWN = 0.3  # standard deviations of a guide that begins where nothing is known
_PER_STEP = 16  # draws of a step
_CHUNK = 200  # steps of one call of the compiled program
#: Step lengths, each until the ELBO no longer rises.
_RATES = (1e-2, 3e-3, 1e-3, 3e-4)


class Learned(NamedTuple):
    """A guide, and how it was learned.

    Attributes
    ----------
    placed : Placed
    elbo : list of float
        The mean of the ELBO over each stretch of steps.
    steps : int
    """

    placed: Placed
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
    first = Placed(_frame(begin, family), Guide.begin(family, begin.plan, keys[1]))
    with console.status("learning the guide") as status:
        known = learned(problem, begin, first, keys[2], steps, status.update)
    with console.status("weighing draws"):
        found = weighed(problem, begin, known.placed, keys[3], size=population_draws, count=count)
    weights, pareto_k = smoothed(found.log_weights)
    chosen = resampled(weights, draws, keys[4])
    chosen = np.asarray(jax.random.permutation(jax.random.fold_in(keys[4], 1), chosen))
    told = {
        "family": family, "steps": steps, "draws": draws, "population_draws": population_draws,
        "individual_draws": count,
    }  # fmt: skip
    if "centering" in (said := asked(settings, problem, begin.target.centering)):
        told["centering"] = said["centering"]
    ess = float(1 / np.sum(weights**2))
    attrs = {"family": family, "pareto_k": pareto_k, "importance_ess": ess}
    attrs |= {**_notes(known, found), **begin.notes}
    stats = {"lp": found.lp[chosen][None], "weight": weights[chosen][None]}
    position = found.positions[chosen][None]
    return Draws(begin.plan, position, stats, told, attrs, begin.target.centering)


def _notes(known: Learned, found: Weighed) -> dict[str, Any]:
    """Return what the DataTree says of how the guide was learned, and how good it is."""
    return {
        "weights": found.of,
        "guide_pareto_k": found.guide_pareto_k,
        "elbo": found.elbo,
        "elbo_trace": json.dumps([round(x, 3) for x in known.elbo]),
        "steps_taken": known.steps,
    }


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
    problem: Problem, begin: Beginning, placed: Placed, key: Any, steps: int,
    report: Callable[[str], None],
) -> Learned:  # fmt: skip
    """Return the guide after it has climbed the ELBO until this no longer rises.

    Parameters
    ----------
    problem : Problem
    begin : Beginning
        Of which the plan and the target are taken.
    placed : Placed
        The guide where it begins.
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
    frame, guide = placed
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
    return Learned(Placed(frame, carry[0]), trace, done)


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
    log_guide = log_normal(back) - slope - frame.log_volume()
    position = frame.position(plan, white)
    return log_density(model, plan, target.arrays, position, target.centering) - log_guide
