"""Where is a person treated? Variability above the subject: between studies, sites, countries."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from popk.model.sites import ModelError
from popk.trial import Array, Trial

Members = Float[Array, "s"]


class Group:
    """The groups that a column of a trial puts its subjects in.

    Parameters
    ----------
    trial : Trial
    column : str
        A covariate, constant in each subject.
    levels : sequence of float
        The groups that there are, as the column names them.
    """

    def __init__(self, trial: Trial, column: str, levels: Sequence[float]):
        members, known = trial.covariate(column), tuple(float(x) for x in levels)
        if len(set(known)) < 2 or len(set(known)) < len(known):
            raise ModelError(
                f"levels of {column} are {', '.join(f'{x:g}' for x in known) or 'none'}; give two or more "
                f"different ones: levels={{'{column}': (1, 2, 3)}}"
            )
        if members.shape[-1] != 1:
            raise ModelError(
                f"{column} changes within a subject; a group holds a subject as a whole, and what changes "
                f"is an occasion: iov={{'{column}': [...]}}"
            )
        here = jnp.asarray(members) == jnp.asarray(known)
        self.column, self.levels = column, known
        # What describe() refuses by row is nothing here.
        self._share = jnp.where(here.any(-1, keepdims=True), here, jnp.nan)

    def effect(self, parameter: str, sd: Float[Array, ""]) -> Float[Array, "s 1"]:
        """Return a random effect of the group of each subject, sampled as ``zeta_CL_STUDY``.

        Parameters
        ----------
        parameter : str
        sd : Float[Array, ""]
            Its standard deviation.
        """
        name = f"zeta_{parameter}_{self.column}"
        infer = {"typical": 0.0, "column": self.column, "levels": self.levels}
        with numpyro.plate(self.column, len(self.levels), dim=-1):
            zeta: Any = numpyro.sample(name, dist.Normal(0, sd), infer=infer)
        return (self._share * zeta).sum(-1, keepdims=True)


def groups(
    trial: Trial, grouped: Mapping[str, Any] | None, levels: Mapping[str, Sequence[float]] | None
) -> dict[str, Group]:
    """Return the groups of each column.

    Raises
    ------
    ModelError
        A column has no levels, or levels no column.
    """
    named, given = set(grouped or {}), set(levels or {})
    if named != given:
        raise ModelError(
            f"groups names {', '.join(sorted(named)) or 'no column'} and levels "
            f"{', '.join(sorted(given)) or 'none'}; give both: groups={{'STUDY': ['CL']}}, "
            f"levels={{'STUDY': (1, 2, 3)}}"
        )
    return {column: Group(trial, column, (levels or {})[column]) for column in (grouped or {})}
