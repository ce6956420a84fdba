"""The levels of a trial on one flat axis."""

import equinox as eqx
import jax
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from popk.trial.grids import filled

# On the host NumPy's, inside a compiled function JAX's: one transfer a call, not one an array.
Array = np.ndarray | jax.Array

#: What a record has that only asks for a prediction, beside TIME, CMT and DVID.
ASK = {
    "EVID": 0, "AMT": 0.0, "RATE": 0.0, "II": 0.0, "ADDL": 0, "SS": 0,
    "DV": np.nan, "MDV": 1, "BLQ": 0, "LLOQ": np.nan, "ALQ": 0, "ULOQ": np.nan,
}  # fmt: skip


class Observations(eqx.Module):
    """The levels of a trial on one flat axis: every record with EVID 0.

    Attributes
    ----------
    subject, record : Int[Array, "observation"]
        Where each stands in the [subject, record] grid.
    value : Float[Array, "observation"]
        DV; 1 where it does not count, so that no logarithm or gradient fails there.
    measured : Bool[Array, "observation"]
        Whether it counts: MDV 0.
    below : Bool[Array, "observation"]
        Whether it is only known to be below `limit`.
    limit : Float[Array, "observation"]
        The limit of quantification; 1 where no level is below one.
    above : Bool[Array, "observation"]
        Whether it is only known to be above `upper`; one that is below `limit` as well lies in between.
    upper : Float[Array, "observation"]
        The upper limit of quantification; 1 where no level is above one.
    compartment, kind : Int[Array, "observation"]
        CMT and DVID.
    """

    subject: Int[Array, "*o"]
    record: Int[Array, "*o"]
    value: Float[Array, "*o"]
    measured: Bool[Array, "*o"]
    below: Bool[Array, "*o"]
    limit: Float[Array, "*o"]
    above: Bool[Array, "*o"]
    upper: Float[Array, "*o"]
    compartment: Int[Array, "*o"]
    kind: Int[Array, "*o"]

    @property
    def exact(self) -> Bool[Array, "*o"]:
        """Return whether each level counts with a value of its own, neither below nor above a limit."""
        return self.measured & ~self.below & ~self.above

    def filled(self, size: int) -> "Observations":
        """Return these and so many levels that do not count as to make `size`."""
        fields = jax.tree.leaves(self)
        blanks = (0, 0, 1.0, False, False, 1.0, False, 1.0, 0, 0)
        return Observations(*(filled(x, size, b) for x, b in zip(fields, blanks, strict=True)))


def observations_of(rows: pd.DataFrame, subject: np.ndarray, record: np.ndarray) -> Observations:
    """Return the levels of rows with EVID 0, each at its place in the grid."""
    below, above = rows["BLQ"].eq(1).to_numpy(), rows["ALQ"].eq(1).to_numpy()
    measured = rows["MDV"].eq(0).to_numpy()
    return Observations(
        subject=subject,
        record=record,
        value=np.where(measured & ~below & ~above, rows["DV"], 1.0),
        measured=measured,
        below=below,
        limit=np.where(below, rows["LLOQ"], 1.0),
        above=above,
        upper=np.where(above, rows["ULOQ"], 1.0),
        compartment=np.abs(rows["CMT"].to_numpy()),
        kind=rows["DVID"].to_numpy(),
    )
