r"""Where does a level stand among simulated ones? Its place in the predictive distribution.

References
----------
.. [1] Dunn PK, Smyth GK (1996). Randomized quantile residuals. J Comput Graph Stat 5:236-244.
   doi:10.1080/10618600.1996.10474708
.. [2] Nguyen THT, Comets E, Mentré F (2012). Extension of NPDE for evaluation of nonlinear mixed
   effect models in presence of data below the quantification limit with applications to HIV dynamic
   model. J Pharmacokinet Pharmacodyn 39:499-518. doi:10.1007/s10928-012-9264-2
"""

from typing import NamedTuple

import numpy as np

from popk.diagnostics.levels import Levels


class Placed(NamedTuple):
    """Levels in the place of which none is unknown, and where each stands.

    Attributes
    ----------
    observed : Float[ndarray, "observation"]
        Measured levels; those beyond a limit are imputed.
    simulated : Float[ndarray, "sample observation"]
        Simulated levels, those beyond a limit imputed in the same way.
    place : Float[ndarray, "observation"]
        The part of the predictive distribution below each observed level, above 0 and below 1.
    """

    observed: np.ndarray
    simulated: np.ndarray
    place: np.ndarray


def placed(levels: Levels, random: np.random.Generator) -> Placed:
    r"""Return levels beyond a limit imputed by the CDF method, and the place of each level [2]_.

    Of K simulated levels at a record, k lie below its limit. A level that is only known to be below it
    stands uniformly in the lowest :math:`(k + 1) / (K + 1)` of the predictive distribution, and its
    value is the quantile there; above an upper limit the same from the other side. Simulated levels
    beyond a limit are imputed alike: observed and simulated levels of a right model then differ in
    nothing.

    Parameters
    ----------
    levels : Levels
    random : Generator
    """
    observed, drawn = levels.observed.copy(), levels.simulated
    place = ranked(observed, drawn, random)
    for hidden, beyond, limit, upper in (
        (levels.below, drawn < levels.low, levels.low, False),
        (levels.above, drawn > levels.high, levels.high, True),
    ):
        if drawn is levels.simulated and (hidden.any() or beyond.any()):
            drawn = drawn.copy()
        for j in np.flatnonzero(hidden | beyond.any(axis=0)):
            own, most = levels.simulated[:, j], int(beyond[:, j].sum())
            u = random.uniform(0, (most + 1) / (len(own) + 1), most + 1)
            u = 1 - u if upper else u
            value = np.quantile(own, u)
            value = np.maximum(value, limit[j]) if upper else np.minimum(value, limit[j])
            drawn[beyond[:, j], j] = value[1:]
            if hidden[j]:
                observed[j], place[j] = value[0], u[0]
    return Placed(observed, drawn, place)


def ranked(observed: np.ndarray, drawn: np.ndarray, random: np.random.Generator) -> np.ndarray:
    r"""Return the randomized rank of each value among drawn ones, as a part of 1 [1]_.

    .. math:: p_j = \frac{\#\{k: y_{kj} < y_j\} + V_j\,(\#\{k: y_{kj} = y_j\} + 1)}{K + 1},
        \qquad V_j \sim U(0, 1)

    is uniform where value and draws are of one distribution, with ties or without, of any number of
    draws.

    Parameters
    ----------
    observed : Float[ndarray, "observation"]
    drawn : Float[ndarray, "sample observation"]
    random : Generator
    """
    less, equal = (drawn < observed).sum(axis=0), (drawn == observed).sum(axis=0)
    return (less + random.uniform(size=len(observed)) * (equal + 1)) / (len(drawn) + 1)


def ranked_among_themselves(drawn: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the randomized rank of each draw among all draws at its place, as a part of 1.

    Parameters
    ----------
    drawn : Float[ndarray, "sample observation"]
    random : Generator
    """
    count, found = len(drawn), np.empty(drawn.shape)
    for j in range(drawn.shape[1]):
        mixed = random.permutation(count)  # ties come in a random order
        order = mixed[np.argsort(drawn[mixed, j], kind="stable")]
        found[order, j] = np.arange(count)
    return (found + random.uniform(size=drawn.shape)) / count
