"""At which times is a curve drawn? A trial with predictions between its records."""

import numpy as np
import pandas as pd

from popk.trial import ASK, Trial


def with_curves(trial: Trial, points: int = 60) -> Trial:
    """Return the trial with records (EVID 0, MDV 1) between its own, for smooth predicted curves.

    Parameters
    ----------
    trial : Trial
    points : int
        About how many stand on a subject's time axis. One more stands just before each dose and
        one just after it, so that the jump of a bolus is upright.

    Returns
    -------
    Trial
        The trial's records, in their order, and those between. A covariate between two records has
        the value of the later one, as in NONMEM.
    """
    frame = trial.host.frame.reset_index(drop=True)
    kinds = _kinds(frame)
    asked = []
    for _, own in frame.groupby("ID", sort=False):
        step = max(float(np.ptp(own["TIME"])), 1e-9) / points
        gaps = np.diff(own["TIME"].to_numpy(), prepend=np.nan)
        for at, gap, evid, time in zip(own.index, gaps, own["EVID"], own["TIME"], strict=True):
            between = max(2, int(gap / step)) if gap > 0 else 0  # not back over a new occasion
            asked += [(at - 0.5, at, t) for t in np.linspace(time - gap, time, between + 2)[1:-1]]
            if evid in (1, 4):
                asked.append((at + 0.5, at, time))
            if evid == 1 and gap > 0:
                asked.append((at - 0.25, at, time))
    if not asked:
        return trial
    order, like, when = (np.array(column) for column in zip(*asked, strict=True))
    extra = frame.loc[like].assign(TIME=when, **ASK, **kinds.loc[like])
    rows = pd.concat([frame, extra], ignore_index=True)
    place = np.concatenate([np.arange(len(frame), dtype=float), order])
    dense = rows.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)
    return trial.replaced(dense.astype({name: frame[name].dtype for name in frame}))


def _kinds(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the CMT and DVID of each row's next level, or of its last one: a dose has none."""
    level = frame[["CMT", "DVID"]].abs().where(frame["EVID"].eq(0))
    own = level.groupby(frame["ID"], sort=False).bfill()
    return own.groupby(frame["ID"], sort=False).ffill().fillna(0)
