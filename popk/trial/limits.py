"""What may stand in the place of levels below the limit? Beal's methods without a likelihood for them."""

import dataclasses

import numpy as np

from popk.trial.arrays import Trial

METHODS = ("M1", "M5", "M6", "M7")


def replace_blq(trial: Trial, method: str) -> Trial:
    """Return the trial with levels below the limit of quantification left out or replaced [1]_.

    M3 and M4, which popk's error models use, need none of this and are less biased [2]_. The methods
    are here to repeat an analysis that was made with one of them.

    Parameters
    ----------
    trial : Trial
    method : "M1", "M5", "M6" or "M7"
        M1 leaves them out (MDV 1). M5 puts half the limit in their place, M7 0. M6 puts half the limit
        in the place of the first of each series of successive ones (of one subject and one kind of
        levels), and leaves out the others.

    Returns
    -------
    Trial
        Of the same subjects and records, with a hash of its own; the method is added to its name.

    Raises
    ------
    ValueError
        Another method; M3 and M4 are options of an error model.

    References
    ----------
    .. [1] Beal SL (2001). Ways to fit a PK model with some data below the quantification limit.
       J Pharmacokinet Pharmacodyn 28:481-504. doi:10.1023/A:1012299115260
    .. [2] Bergstrand M, Karlsson MO (2009). Handling data below the limit of quantification in mixed
       effect models. AAPS J 11:371-380. doi:10.1208/s12248-009-9112-5
    """
    if method not in METHODS:
        raise ValueError(
            f"method is {method!r}; it must be one of {', '.join(METHODS)} (M3 is what observe() does with "
            f"BLQ 1, M4 what it does with an error model of blq='M4')"
        )
    frame = trial.host.frame.copy()
    counted = frame["EVID"].eq(0) & frame["MDV"].eq(0)
    below = counted & frame["BLQ"].eq(1)
    levels = frame[counted]
    series = levels.groupby(["ID", "DVID", "CMT"], sort=False)["BLQ"]
    follows = (series.shift() == 1).reindex(frame.index, fill_value=False)
    kept = {"M1": below & False, "M5": below, "M6": below & ~follows, "M7": below}[method]
    frame.loc[below, ["BLQ", "ALQ"]] = 0
    frame.loc[below & ~kept, "MDV"] = 1
    frame.loc[kept, "DV"] = 0.0 if method == "M7" else frame["LLOQ"][kept] / 2
    frame.loc[below, ["LLOQ", "ULOQ"]] = np.nan
    replaced = trial.replaced(frame)
    name = f"{trial.host.name} (below the limit: {method})"
    return dataclasses.replace(replaced, source=replaced.host._replace(name=name))
