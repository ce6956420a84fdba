"""Which doses can be given? Multiples of a step, or sums of tablets."""

from collections.abc import Sequence

import numpy as np

_MOST = 2000  # doses that are considered


def available(
    strengths: float | Sequence[float] | None, largest: float, tablets: int
) -> np.ndarray | None:
    """Return the doses that can be given, rising; None where every dose can.

    Parameters
    ----------
    strengths : float, sequence of float or None
        A step, whose multiples can be given, or the strengths of tablets [unit of AMT].
    largest : float
        Beyond which no dose is looked for [unit of AMT].
    tablets : int
        How many tablets a dose has at most.

    Raises
    ------
    ValueError
        A strength or the number of tablets is not positive.

    Examples
    --------
    >>> available([100, 250], 600, 3)
    array([100., 200., 250., 300., 350., 450., 500., 600.])
    """
    if strengths is None:
        return None
    sizes = np.atleast_1d(np.asarray(strengths, dtype=float))
    if not (sizes.size and (sizes > 0).all() and np.isfinite(sizes).all() and tablets >= 1):
        raise ValueError(
            f"strengths are {strengths} and tablets {tablets}; give a step or a list of strengths, "
            f"all positive"
        )
    if np.ndim(strengths) == 0:
        step = float(sizes[0])
        return step * np.arange(1, min(int(largest / step * (1 + 1e-12)), _MOST) + 1)
    sums = np.zeros(1)
    for _ in range(tablets):
        sums = np.unique(np.round(np.concatenate([sums, *(sums + size for size in sizes)]), 9))
        sums = sums[sums <= largest * (1 + 1e-12)][: _MOST + 1]
    return sums[sums > 0]


def nearest(doses: np.ndarray, wanted: float) -> tuple[float | None, float | None]:
    """Return the next dose below or at a wanted one, and the next above or at it; None where none is."""
    below, above = doses[doses <= wanted * (1 + 1e-9)], doses[doses >= wanted * (1 - 1e-9)]
    return (
        float(below[-1]) if len(below) else None,
        float(above[0]) if len(above) else None,
    )
