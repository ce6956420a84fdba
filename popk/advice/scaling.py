"""How does a concentration change with the dose? In proportion where the model is linear, else evaluated.

Whether it is linear is found out: courses at three doses that lie on one straight line, draw by draw
and time by time, give all others. Where they do not, each dose is a prediction of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from popk.advice.windows import At, Candidate, judged
from popk.patients.courses import Course, courses
from popk.patients.twin import Twin

_STRAIGHT = 1e-8  # relative to the highest value
Courses = Mapping[str | None, Course]


class Scaling(NamedTuple):
    """Courses by dose.

    Attributes
    ----------
    at : Callable
        Of a dose [unit of AMT]: the course of each output.
    linear : bool
        Whether courses lie on one straight line in the dose.
    none, each : dict of str to Course
        Where linear: the courses without the dose, and what each unit of AMT adds.
    """

    at: Callable[[float], Courses]
    linear: bool
    none: Courses
    each: Courses

    def own(self, doses: np.ndarray, output: str | None) -> Course:
        """Return the course of an output with a dose for each draw, where linear."""
        none, each = self.none[output], self.each[output]
        return none._replace(value=none.value + doses[:, None] * each.value)


def scaling(
    twin: Twin, regimen: Callable[[float], Candidate], at: At, outputs: Sequence[str | None],
    reference: float,
) -> Scaling:  # fmt: skip
    """Return the courses that doses lead to.

    Parameters
    ----------
    twin : Twin
    regimen : Callable
        Of a dose [unit of AMT]: the regimen.
    at : str or tuple of float
        The window, as of `popk.recommend`.
    outputs : sequence of str or None
    reference : float
        A dose of the usual size [unit of AMT].
    """

    def evaluated(dose: float) -> Courses:
        return courses(twin, *judged(twin, regimen(dose), at), outputs)

    low, middle, high = (evaluated(reference * x) for x in (1.0, 2.0, 50.0))
    none, each, straight = {}, {}, True
    for output in outputs:
        a, b, c = low[output], middle[output], high[output]
        if a.value.shape != b.value.shape or not np.allclose(b.time, c.time):
            straight = False  # an infusion whose end depends on the dose
            break
        slope = (b.value - a.value) / reference
        start = a.value - reference * slope
        # What rounding leaves of a cancellation is nothing.
        start = np.where(np.abs(start) <= 1e-12 * np.abs(a.value).max(), 0.0, start)
        expected = start + 50.0 * reference * slope
        straight &= bool((np.abs(c.value - expected) <= _STRAIGHT * np.abs(c.value).max()).all())
        none[output], each[output] = a._replace(value=start), a._replace(value=slope)
    if not straight:
        return Scaling(evaluated, False, {}, {})

    def scaled(dose: float) -> Courses:
        return {o: none[o]._replace(value=none[o].value + dose * each[o].value) for o in outputs}

    return Scaling(scaled, True, none, each)
