"""What may a compiled model depend on, beside arrays?"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from popk.records.events import MODELED_DURATION, MODELED_RATE
from popk.records.table import DataError, Problem
from popk.units import same


class Design(NamedTuple):
    """What a compiled model may depend on: facts of the trial that are no arrays.

    Attributes
    ----------
    infusions, resets : bool
        Whether any dose is an infusion; whether any record wipes the amounts (EVID 3, 4 or SS 1).
    concentrations : bool
        Whether amounts per L convert to the unit of DV.
    dosed : tuple of int
        The compartments (CMT) that are dosed into.
    observed : tuple of (int, int)
        The kinds of levels: CMT and DVID.
    modeled_rates, modeled_durations : tuple of int
        The compartments of doses whose rate (RATE -1) or duration (RATE -2) the model gives.
    turned_off : tuple of int
        The compartments that are ever turned off.
    below : bool
        Whether any level is below the limit of quantification.
    above : bool
        Whether any level is above the upper limit of quantification.
    plain : bool
        Whether there are neither further doses nor infusions, so that each record is one event.
    doses, steady : int
        The most records of one subject that dose, and that dose at steady state; rounded up.
    given : int
        The most doses of one subject, further ones included; rounded up.
    overlap : int
        The most infusions of one steady-state dose that run at once where F is 1; rounded up.
    gaps : int
        How many intervals of different lengths there are between events that are the same for
        all subjects; 0 where they are not, or nearly all intervals differ.
    missing : tuple of str
        The covariates that some subjects may lack.
    occasions : tuple of (str, int)
        The covariates that are whole numbers and change within subjects, and the most values that one
        subject has in turn.
    units : tuple of (str, str)
        The unit of each covariate.
    """

    infusions: bool = False
    resets: bool = False
    concentrations: bool = True
    dosed: tuple[int, ...] = ()
    observed: tuple[tuple[int, int], ...] = ()
    modeled_rates: tuple[int, ...] = ()
    modeled_durations: tuple[int, ...] = ()
    turned_off: tuple[int, ...] = ()
    below: bool = True
    above: bool = False
    plain: bool = False
    doses: int = 0
    steady: int = 0
    given: int = 0
    overlap: int = 0
    gaps: int = 0
    missing: tuple[str, ...] = ()
    occasions: tuple[tuple[str, int], ...] = ()
    units: tuple[tuple[str, str], ...] = ()

    def refuse_unit(self, name: str, unit: str) -> None:
        """Refuse a covariate that is in another unit.

        Raises
        ------
        DataError
            It is.
        """
        own = dict(self.units).get(name, unit)
        if not same(own, unit):
            says = f"{name} is in {own}, and the model takes it in {unit}; convert it, or correct its unit"
            raise DataError("the trial", [Problem(name, says)])


def bucket(size: int, least: int = 8) -> int:
    """Return a size rounded up to a power of two, so that one more compiles nothing anew."""
    return max(least, 1 << (size - 1).bit_length())


def alike(lengths: Any) -> Any:
    """Return whole numbers that are the same for intervals that differ by rounding alone."""
    longest = lengths.max()
    return (lengths / (longest + (longest == 0)) * 2.0**32).round()


def gaps_of(time: np.ndarray) -> int:
    """Return how many intervals of different lengths lie between times, 0 where nearly all differ."""
    count = len(np.unique(alike(np.diff(time, prepend=time[:1]))))
    return count if 3 * count <= len(time) else 0


def turns(values: Any) -> Any:
    """Return how often values [..., record] have changed so far: 0 at the first."""
    changed = values[..., 1:] != values[..., :-1]
    return jnp.pad(jnp.cumsum(changed, axis=-1), [(0, 0)] * (values.ndim - 1) + [(1, 0)])


def _occasions(frame: Any, subject: np.ndarray, names: tuple[str, ...]) -> Any:
    """Return the covariates that number occasions, and the most of one subject."""
    same = np.diff(subject, prepend=-1) == 0
    for name in names:
        values = frame[name].to_numpy()
        changed = same & (np.diff(values, prepend=values[:1]) != 0)
        if changed.any() and (values == np.round(values)).all():
            yield name, int(np.bincount(subject, changed).max()) + 1


def design_of(
    frame: Any, subject: np.ndarray, concentrations: bool, covariates: tuple[str, ...]
) -> Design:
    """Return the design of checked records.

    Parameters
    ----------
    frame : DataFrame
        Checked records, see `check_records`.
    subject : Int[ndarray, "row"]
        Each row's subject.
    concentrations : bool
        Whether amounts per L convert to the unit of DV.
    covariates : tuple of str
        The columns that are covariates.
    """
    dosed, level = frame["EVID"].isin([1, 4]), frame["EVID"].eq(0)
    steady = dosed & frame["SS"].gt(0)

    def numbers(rows: Any) -> tuple[int, ...]:
        return tuple(sorted(set(frame["CMT"][rows].abs())))

    def most(rows: Any, times: Any = None) -> int:
        weights = None if times is None else times[rows]
        count = int(np.bincount(subject[rows], weights).max(initial=0))
        return bucket(count, 1) if count else 0

    observed = zip(frame["CMT"][level].abs(), frame["DVID"][level], strict=True)
    return Design(
        infusions=bool((dosed & frame["RATE"].ne(0)).any()),
        resets=bool((frame["EVID"].isin([3, 4]) | frame["SS"].eq(1)).any()),
        concentrations=concentrations,
        dosed=numbers(dosed),
        observed=tuple(sorted(set(observed))),
        modeled_rates=numbers(dosed & frame["RATE"].eq(MODELED_RATE)),
        modeled_durations=numbers(dosed & frame["RATE"].eq(MODELED_DURATION)),
        turned_off=numbers(~dosed & frame["CMT"].lt(0)),
        below=bool(frame["BLQ"].eq(1).any()),
        above=bool(frame["ALQ"].eq(1).any()),
        plain=not bool((dosed & (frame["RATE"].ne(0) | frame["ADDL"].gt(0))).any()),
        doses=most(dosed),
        steady=most(steady),
        given=most(dosed, frame["ADDL"] + 1),
        overlap=_overlap(frame[steady & frame["RATE"].ne(0)]),
        occasions=tuple(_occasions(frame, subject, covariates)),
    )


def _overlap(rows: Any) -> int:
    """Return how many infusions of one steady-state dose run at once, where F is 1."""
    if rows.empty:
        return 0
    known = rows[rows["RATE"].gt(0) & rows["II"].gt(0)]
    ratio = known["AMT"] / known["RATE"] / known["II"]
    return bucket(int(np.ceil(ratio.max() - 1e-9)), 1) if len(known) else 1
