r"""When is the next level to be measured? `next_sample`: what a level at each time is expected to teach.

A level y at time t, simulated under draw i, gives draw j the weight :math:`w_{ij} \propto p(y_i \mid j)`:
the posterior with that level, without inferring it anew. The expected variance of a quantity q is

.. math:: \mathrm{E}_y \mathrm{Var}(q \mid y) \approx
    \frac1n \sum_i \Big[\sum_j w_{ij} q_j^2 - \big(\sum_j w_{ij} q_j\big)^2\Big],

the criterion of a Bayesian design [1]_, and in the same way the expected entropy of whether a target
is attained.

References
----------
.. [1] Chaloner K, Verdinelli I (1995). Bayesian experimental design: a review. Stat Sci 10:273-304.
   doi:10.1214/ss/1177009939
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from popk.advice.certainty import _Z
from popk.advice.targets import Target
from popk.advice.windows import DECIDES, STEADY, At, judged
from popk.patients.courses import courses, doubts_of
from popk.patients.prospect import prospect
from popk.patients.regimen import Regimen, replaced
from popk.patients.twin import Twin

_FEW = 20.0  # with fewer draws of weight the variance after a level is a guess


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Sampling:
    """What a level at each of some times is expected to teach; a clinician decides when to sample.

    Attributes
    ----------
    table : DataFrame
        A row for each time. ``reduction``: the share of the variance (or entropy) of the quantity that
        a level is expected to take away, with its 95% Monte Carlo interval ``_low`` and ``_high``;
        ``sd``: what standard deviation is expected to be left (entropy: what entropy [nat]);
        ``draws``: how many of the twin's draws a level leaves, a median.
    best : float
        The time with the largest reduction [unit of TIME].
    quantity : str
        In words.
    warnings : tuple of str
    units : dict of str to str
    """

    table: pd.DataFrame
    best: float
    quantity: str
    warnings: tuple[str, ...]
    units: dict[str, str]

    def __repr__(self) -> str:
        """Return the times, what each teaches, and who decides."""
        table = self.table.to_string(float_format=lambda x: f"{x:.3g}")
        warned = [f"Warning: {text}" for text in self.warnings]
        time = f"{self.best:g} {self.units['TIME']}"
        return "\n".join([
            f"{self.quantity}: a level at {time} is expected to teach most of it", table, *warned,
            DECIDES,
        ])  # fmt: skip


def next_sample(
    twin: Twin,
    times: Iterable[float],
    of: str | Target,
    *,
    regimen: Regimen | Sequence[Regimen] | None = None,
    at: At = STEADY,
    attained: bool = False,
    output: str | None = None,
    levels: int = 500,
    seed: int = 4,
) -> Sampling:
    """Return how much a level at each of some times is expected to teach about a quantity.

    Parameters
    ----------
    twin : Twin
    times : iterable of float
        When a level could be measured [unit of TIME]; at the time of a dose it is the trough.
    of : str or Target
        An individual parameter, such as ``"CL"``, or a target, whose number under `regimen` counts.
    regimen : Regimen, or sequence of Regimen, optional
        The doses to come, in the place of those of the records; needed where `of` is a target.
    at : str or tuple of float
        The window of the target, as of `popk.recommend`.
    attained : bool
        Whether it is about attaining the target, by its entropy, and not about the target's number.
    output : str, optional
        Which kind of levels would be measured.
    levels : int
        How many levels are simulated at each time.
    seed : int

    Returns
    -------
    Sampling

    Raises
    ------
    ValueError
        No times, or one that is not finite or in the past; no such parameter; or a target without a
        regimen.
    ModelError
        The model has no such output, or autocorrelated errors.

    Examples
    --------
    >>> popk.next_sample(twin, [1, 2, 4, 8, 12], "CL").best  # doctest: +SKIP
    8.0
    """
    wanted = np.asarray(list(times), dtype=float)
    if not wanted.size or not np.isfinite(wanted).all() or levels < 2:
        raise ValueError(
            f"times are {wanted.tolist()} and levels {levels}; give at least one finite time, and 2 levels"
        )
    q, name = _quantity(twin, of, regimen, at, attained=attained)
    patient = twin.patient if regimen is None else replaced(twin.patient, regimen)
    found = prospect(twin, patient, wanted, outer=levels, output=output, seed=seed)
    uncertain = _entropy(q.mean()) if attained else q.var()
    if uncertain == 0:
        raise ValueError(f"{name} is the same in all draws; a level can teach nothing about it")
    rows = [
        _row(found.log_density[:, :, k], q, float(uncertain), attained=attained)
        for k in range(len(wanted))
    ]
    index = pd.Index(wanted, name=f"TIME [{twin.patient.units['TIME']}]")
    table = pd.DataFrame(rows, index=index)
    few: Any = table["draws"] < _FEW
    warned = doubts_of(twin)
    if few.any():
        warned += (
            f"a level at {', '.join(f'{t:g}' for t in wanted[few.to_numpy()])} leaves fewer than {_FEW:g} "
            f"draws: its reduction is only known to be large",
        )
    best = float(wanted[int(np.argmax(table["reduction"].to_numpy()))])
    return Sampling(table, best, name, warned, twin.patient.units)


def _quantity(
    twin: Twin, of: str | Target, regimen: Any, at: At, *, attained: bool
) -> tuple[np.ndarray, str]:
    """Return the quantity of each draw, and its name."""
    if isinstance(of, str):
        parameters = twin.parameters
        if of not in parameters or attained:
            raise ValueError(
                f"of is {of!r} and attained {attained}; it must be one of "
                f"{', '.join(map(str, parameters))}, or a target"
            )
        return parameters[of].values, of
    if regimen is None:
        raise ValueError("a target's number depends on the doses to come; give regimen=")
    value = of.value(courses(twin, *judged(twin, regimen, at), [of.output])[of.output])
    says = of.says(twin.patient.units)
    if attained:
        return of.met(value).astype(float), f"whether {says} is attained"
    return value, f"the number of the target {says}"


def _row(logs: np.ndarray, q: np.ndarray, before: float, *, attained: bool) -> dict[str, float]:
    """Return what levels at one time teach, by their log-densities [sample, outer]."""
    weight = np.exp(logs - logs.max(0))
    weight /= weight.sum(0)
    mean = q @ weight
    left = _entropy(mean) if attained else np.maximum(q**2 @ weight - mean**2, 0.0)
    half = _Z * float(left.std(ddof=1)) / len(left) ** 0.5 / before
    reduction, after = 1 - float(left.mean()) / before, float(left.mean())
    return {
        "reduction": reduction, "reduction_low": reduction - half,
        "reduction_high": min(reduction + half, 1.0),
        "sd": after if attained else after**0.5,
        "draws": float(np.median(1 / (weight**2).sum(0))),
    }  # fmt: skip


def _entropy(p: Any) -> Any:
    """Return the entropy of a probability [nat]."""
    p = np.clip(np.asarray(p, dtype=float), 1e-300, 1 - 1e-16)
    return np.maximum(-p * np.log(p) - (1 - p) * np.log1p(-p), 0.0)
