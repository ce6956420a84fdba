"""When is an alarm raised, and when cleared? Rules as values, with two thresholds each."""

import dataclasses

import numpy as np

from popk.advice.targets import crossing
from popk.patients.courses import Course

QUIET, RAISED, HELD, CLEARED = "quiet", "raised", "held", "cleared"
STATES = (QUIET, RAISED, HELD, CLEARED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A limit that a concentration should not cross, and how probable it must be to say so.

    Attributes
    ----------
    above, below : float or None
        The limit, one of the two [unit of DV].
    probability : float
        An alarm is raised from this probability of a crossing on.
    clears : float
        And cleared below this one: between the two it stays as it was.
    output : str or None
        Which output of the model.
    name : str
        Under which its state is kept.
    """

    above: float | None
    below: float | None
    probability: float
    clears: float
    output: str | None
    name: str

    @property
    def limit(self) -> float:
        """Return the limit [unit of DV]."""
        return float(self.above if self.above is not None else self.below or 0.0)

    def state(self, probability: float, previous: str) -> str:
        """Return the state that follows: quiet, raised, held (raised before, and still), or cleared.

        Parameters
        ----------
        probability : float
            Of a crossing, now.
        previous : str
            The state before.

        Raises
        ------
        ValueError
            The previous state is none.
        """
        if previous not in STATES:
            raise ValueError(f"the previous state is {previous!r}; it must be one of {STATES}")
        if previous in (RAISED, HELD):
            return CLEARED if probability < self.clears else HELD
        return RAISED if probability >= self.probability else QUIET

    def crossed(self, course: Course) -> np.ndarray:
        """Return when each draw first crosses the limit; infinite where it does not [sample]."""
        value, time = course.value, course.time
        beyond = value > self.limit if self.above is not None else value < self.limit
        first = np.where(beyond.any(1), beyond.argmax(1), -1)
        rows, i = np.arange(len(value)), np.clip(first, 1, None)
        part = crossing(value[rows, i - 1][:, None], value[rows, i][:, None], self.limit)[:, 0]
        when = time[i - 1] + part * (time[i] - time[i - 1])
        return np.where(first < 0, np.inf, np.where(first == 0, time[0], when))

    def says(self, unit: str) -> str:
        """Return the rule in words."""
        what, where = self.output or "concentration", "above" if self.above is not None else "below"
        return (
            f"{what} {where} {self.limit:g} {unit}, raised from probability {self.probability:g} on, "
            f"cleared below {self.clears:g}"
        )


def limit(
    *,
    above: float | None = None,
    below: float | None = None,
    probability: float = 0.2,
    clears: float | None = None,
    output: str | None = None,
    name: str | None = None,
) -> Rule:
    """Return a rule for `popk.watch`: a limit that a concentration should not cross.

    Parameters
    ----------
    above, below : float, optional
        The limit, one of the two [unit of DV]; of the concentration without residual error.
    probability : float
        From which probability of a crossing on an alarm is raised.
    clears : float, optional
        Below which it is cleared: half of `probability` by default, so that an alarm does not come and go
        with every level.
    output : str, optional
        Which output of the model, where it has several.
    name : str, optional
        Under which its state is kept; ``"above 20"`` by default.

    Raises
    ------
    ValueError
        Not one limit of the two, or thresholds that are none.

    Examples
    --------
    >>> limit(above=20, probability=0.2, clears=0.1).state(0.15, "raised")
    'held'
    """
    if (above is None) == (below is None):
        raise ValueError(f"above is {above} and below {below}; give one of the two")
    clears = probability / 2 if clears is None else clears
    if not 0 < clears <= probability < 1:
        raise ValueError(
            f"probability is {probability} and clears {clears}; both must be between 0 and 1, and "
            f"clears at most the other"
        )
    at = above if above is not None else below
    if at is None or not np.isfinite(at):
        raise ValueError(f"the limit is {at}; give a number")
    words = f"{'above' if above is not None else 'below'} {at:g}"
    words = words if output is None else f"{output} {words}"
    return Rule(
        above=above, below=below, probability=probability, clears=clears, output=output,
        name=name or words,
    )  # fmt: skip
