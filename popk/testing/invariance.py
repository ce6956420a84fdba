"""What must change nothing? Padding, the order of subjects, who else is there, when time begins."""

import math
from collections.abc import Mapping
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from popk.inference.density import layout
from popk.testing.declared import unusable
from popk.testing.problems import Problem
from popk.testing.subject import Subject, at, forward, with_gradient
from popk.trial import Trial

#: The relative difference of two predictions that are to be the same. Closed forms agree to 1e-12; an
#: ODE solver, whose own tolerance is 1e-7, may take other steps.
SAME = 1e-6


def _differ(mine: Mapping[str, Any], other: Mapping[str, Any], recorded: Any) -> str:
    """Return where two predictions differ by more than `SAME`, "" where they do not."""
    for name, a in mine.items():
        a, b = np.where(recorded, a, 0.0), np.where(recorded, other[name], 0.0)
        off = np.abs(a - b)
        wrong = ~(off <= SAME * (np.abs(a) + 1e-2 * np.abs(a).max()))
        if wrong.any():
            i, j = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
            return f"{name} was {a[i, j]:.6g} and is {b[i, j]:.6g}"
    return ""


def check_padding(subject: Subject) -> list[Problem]:
    """Return whether a trial whose axes are filled up has other predictions or another density.

    Parameters
    ----------
    subject : Subject
    """
    filled, r = subject.trial.padded(), subject.trial.n_records
    if why := unusable(subject.model, filled):
        return [Problem("padding", f"the model cannot be used with the trial padded: {why}")]
    plain = at(subject, subject.vector)[0]
    padded = forward(subject.model, subject.plan, filled.arrays(), subject.vector)
    cut = {n: v[:, :r] for n, v in padded.predictions.items()}
    says = _differ(plain.predictions, cut, subject.trial.recorded)
    if not says and not np.isclose(padded.density, plain.density, rtol=SAME, atol=SAME):
        says = f"the log-density was {plain.density:.8g} and is {padded.density:.8g}"
    why = (
        "when the trial is padded; a sum or mean over records or observations counts padding: "
        "mask it with trial.recorded, or leave it to popk.observe"
    )
    return [Problem("padding", f"{says} {why}")] if says else []


def _reversed(trial: Trial) -> Trial:
    """Return the trial with its subjects in reverse order."""
    frame = trial.host.frame
    place = np.asarray([trial.ids.index(one) for one in frame["ID"]])
    return trial.replaced(frame.iloc[np.argsort(-place, kind="stable")].reset_index(drop=True))


def check_order(subject: Subject) -> list[Problem]:
    """Return whether the order of subjects changes predictions or the density.

    Parameters
    ----------
    subject : Subject
    """
    if subject.trial.n_subjects < 2:
        return []
    population, individual = subject.plan.blocks(subject.vector)
    vector = jnp.concatenate([population, individual[::-1].ravel()])
    plain, turned = (
        at(subject, subject.vector)[0],
        at(subject, vector, _reversed(subject.trial))[0],
    )
    back = {n: v[::-1] for n, v in turned.predictions.items()}
    says = _differ(plain.predictions, back, subject.trial.recorded)
    if not says and not np.isclose(turned.density, plain.density, rtol=SAME, atol=SAME):
        says = f"the log-density was {plain.density:.8g} and is {turned.density:.8g}"
    why = "when subjects come in another order; nothing may be indexed by a subject's place"
    return [Problem("order", f"{says} {why}")] if says else []


def check_alone(subject: Subject) -> list[Problem]:
    """Return whether a subject's prediction depends on who else is in the trial.

    The subject with fewest records is taken, of those with all kinds of levels.

    Parameters
    ----------
    subject : Subject
    """
    trial = subject.trial
    lengths = np.asarray(trial.recorded).sum(axis=1)
    alike = [
        i
        for i in np.argsort(lengths, kind="stable").tolist()
        if _kinds(trial, i) == trial.design.observed
    ]
    if trial.n_subjects < 2 or not alike:
        return []
    i = alike[0]
    single = trial[trial.ids[i]]
    if why := unusable(subject.model, single):
        return [Problem("alone", f"the model cannot be used with ID {trial.ids[i]} alone: {why}")]
    plan = layout(subject.model, single)
    population, individual = subject.plan.blocks(subject.vector)
    if plan.n_population != len(population):
        return [
            Problem("alone", "it has other population sites for one subject alone than for all")
        ]
    vector = jnp.concatenate([population, individual[i]])
    alone = forward(subject.model, plan, single.arrays(), vector).predictions
    among = at(subject, subject.vector)[0].predictions
    own = {n: v[i : i + 1, : single.n_records] for n, v in among.items()}
    says = _differ(own, alone, single.recorded)
    why = (
        f"when ID {trial.ids[i]} is predicted alone; a mean, maximum or other number over all "
        f"subjects differs from trial to trial: write it as a constant"
    )
    return [Problem("alone", f"{says} {why}")] if says else []


def _kinds(trial: Trial, i: int) -> tuple[tuple[int, int], ...]:
    """Return the kinds of levels (CMT, DVID) of a subject."""
    o = trial.observations
    own = np.asarray(o.subject) == i
    return tuple(sorted(set(zip(o.compartment[own].tolist(), o.kind[own].tolist(), strict=True))))


def check_shift(subject: Subject) -> list[Problem]:
    """Return whether predictions change where all times are later by the same amount.

    Parameters
    ----------
    subject : Subject
    """
    frame = subject.trial.host.frame.copy()
    # A power of two: the sum loses fewest digits of the intervals between records.
    later = 2.0 ** math.ceil(math.log2(1.0 + np.ptp(frame["TIME"].to_numpy())))
    frame["TIME"] = frame["TIME"] + later
    plain = at(subject, subject.vector)[0].predictions
    shifted = at(subject, subject.vector, subject.trial.replaced(frame))[0].predictions
    says = _differ(plain, shifted, subject.trial.recorded)
    why = (
        f"when all times are later by {later:g}; count time from a dose or a record of the subject's "
        f"own, or give depends_on_time=True if the model is meant to"
    )
    return [Problem("shift", f"{says} {why}")] if says else []


def check_compilation(subject: Subject) -> list[Problem]:
    """Return whether a second call with the same shapes compiles the model anew.

    Parameters
    ----------
    subject : Subject
    """
    at(subject, subject.vector)
    before = _compiled()
    at(subject, 0.9 * subject.vector)
    if _compiled() == before:
        return []
    says = (
        "a second call with the same shapes compiled the model anew; a model must be equal to itself "
        "and keep its hash: use a function, not an object that is made for each call"
    )
    return [Problem("compilation", says)]


def _compiled() -> int:
    """Return how many programs there are."""
    return cast(Any, with_gradient)._cache_size()
