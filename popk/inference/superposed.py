"""Which doses act on each level, and for how long? From checked records, for a sum over doses.

It shares nothing with `popk.records.events` and `popk.solve`, which it is there to check: no list of
events, no walk, but every dose by itself, with the time since it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from popk.inference.transcript import refuse
from popk.trial import Trial


class Doses(NamedTuple):
    """The doses of one kind that act on each level.

    Attributes
    ----------
    since : Float[ndarray, "observation dose"]
        How long ago each was given, its lag left out [time].
    amount, rate : Float[ndarray, "observation dose"]
        AMT, 0 where there is no dose, and RATE.
    interval : Float[ndarray, "observation dose"]
        II of a dose at steady state; 0 elsewhere.
    """

    since: Float[np.ndarray, "o d"]
    amount: Float[np.ndarray, "o d"]
    rate: Float[np.ndarray, "o d"]
    interval: Float[np.ndarray, "o d"]


class Design(NamedTuple):
    """Levels, and the doses that act on them.

    Attributes
    ----------
    subject : Int[ndarray, "observation"]
    value : Float[ndarray, "observation"]
        DV; the limit where the level is below it.
    limit : Float[ndarray, "observation"]
        That limit; minus infinity where a level is known.
    doses : dict of (str, bool) to Doses
        By compartment, and whether they are infusions.
    """

    subject: Int[np.ndarray, " o"]
    value: Float[np.ndarray, " o"]
    limit: Float[np.ndarray, " o"]
    doses: dict[tuple[str, bool], Doses]

    @property
    def given(self) -> Bool[np.ndarray, " o"]:
        """Return whether any dose acts on each level."""
        acts = [each.amount.any(axis=1) for each in self.doses.values()]
        return np.any(acts, axis=0) if acts else np.zeros(len(self.subject), dtype=bool)


def design_of(trial: Trial, compartments: tuple[str, ...], *, lagged: bool) -> Design:
    """Return the levels that count, and the doses that act on each.

    Parameters
    ----------
    trial : Trial
    compartments : tuple of str
        Those that may be dosed into, as CMT numbers them; CMT 0 is the first.
    lagged : bool
        Whether any dose has a lag time.

    Raises
    ------
    ModelError
        A record is of a kind that sums over doses are not written for.
    """
    frame = trial.host.frame
    dosed = frame["EVID"].isin([1, 4])
    steady = dosed & frame["SS"].ne(0)
    infused = frame["RATE"].gt(0)
    rules = {
        "a compartment that is turned off (CMT below 0)": frame["CMT"].lt(0),
        "a dose into a peripheral compartment": dosed & frame["CMT"].gt(len(compartments)),
        "RATE -1 or -2": dosed & frame["RATE"].lt(0),
        "an infusion into the depot": dosed
        & infused
        & frame["CMT"].le(1)
        & ("depot" in compartments),
        "a constant infusion at steady state": steady & frame["AMT"].eq(0),
        "a dose at steady state with a lag time": steady & lagged,
        "an infusion at steady state that is longer than II": steady
        & infused
        & (frame["AMT"] > frame["RATE"] * frame["II"]),
        "levels above a limit (ALQ 1)": frame["EVID"].eq(0)
        & frame["MDV"].eq(0)
        & frame["ALQ"].eq(1),
    }
    for what, wrong in rules.items():
        if wrong.any():
            row = frame[wrong].iloc[0]
            refuse(
                f"{what}: {trial.host.name} row {row['ROW']}, ID {row['ID']}, TIME {row['TIME']:g}",
                "it knows doses that the records give in full, and levels that are known or below a limit",
            )
    return _design(frame, compartments)


def _design(frame: Any, compartments: tuple[str, ...]) -> Design:
    f = {n: frame[n].to_numpy() for n in ("TIME", "EVID", "AMT", "RATE", "II", "ADDL", "SS", "CMT")}
    subject = np.unique(frame["ID"], return_inverse=True)[1]
    subject = np.cumsum(np.diff(subject, prepend=subject[:1]) != 0)  # in the order of the file
    wipes = np.isin(f["EVID"], [3, 4]) | (f["SS"] == 1)
    life = np.cumsum(wipes | (np.diff(subject, prepend=-1) != 0))  # amounts live from wipe to wipe
    level = ((frame["EVID"] == 0) & (frame["MDV"] == 0)).to_numpy()
    at = np.flatnonzero(level)
    below = frame["BLQ"].eq(1).to_numpy()[at]
    limit = np.where(below, frame["LLOQ"].to_numpy(dtype=float)[at], -np.inf)
    value = np.where(below, limit, frame["DV"].to_numpy(dtype=float)[at])
    rows = np.flatnonzero(np.isin(f["EVID"], [1, 4]))
    rows = np.repeat(rows, f["ADDL"][rows].astype(int) + 1)
    nth = np.arange(len(rows)) - np.searchsorted(rows, rows)
    given = f["TIME"][rows] + nth * f["II"][rows]
    since = f["TIME"][at][:, None] - given[None]
    # At the same time a record's own dose acts on the records below it, a further one on all.
    acts = (life[at][:, None] == life[rows][None]) & (since >= 0)
    acts &= (since > 0) | (nth > 0)[None] | (rows[None] < at[:, None])
    into = np.where(f["CMT"][rows] == 0, 1, f["CMT"][rows]).astype(int) - 1
    interval = np.where((f["SS"][rows] != 0) & (nth == 0), f["II"][rows], 0.0)
    doses = {}
    for number, name in enumerate(compartments):
        for infusion in (False, True):
            own = acts & ((into == number) & ((f["RATE"][rows] > 0) == infusion))[None]
            if own.any():
                columns = (since, f["AMT"][rows], f["RATE"][rows], interval)
                doses[name, infusion] = Doses(*(_aligned(own, c) for c in columns))
    return Design(subject[at], value, limit, doses)


def _aligned(chosen: Bool[np.ndarray, "o d"], values: Any) -> Float[np.ndarray, "o k"]:
    """Return the chosen values of each row at its beginning, 0 behind them."""
    values = np.broadcast_to(values, chosen.shape)
    order = np.argsort(~chosen, axis=1, kind="stable")[:, : chosen.sum(axis=1).max()]
    kept = np.take_along_axis(chosen, order, axis=1)
    return np.where(kept, np.take_along_axis(values, order, axis=1), 0.0)
