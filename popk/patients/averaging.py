r"""Which of several models is this patient's? Twins weighed by how well each foresaw the levels.

.. math:: w_m \propto p(m)\, p(y \mid m), \qquad
    p(y \mid m) = \int p(y \mid u, \theta)\, p(u \mid \theta)\, p(\theta \mid \text{population})\,du\,d\theta

References
----------
.. [1] Uster DW, Stocker SL, Carland JE, Brett J, Marriott DJE, Day RO, Wicha SG (2021). A model
   averaging/selection approach improves the predictive performance of model-informed precision dosing:
   vancomycin as a case study. Clin Pharmacol Ther 109:175-183. doi:10.1002/cpt.2065
.. [2] Hoeting JA, Madigan D, Raftery AE, Volinsky CT (1999). Bayesian model averaging: a tutorial.
   Stat Sci 14:382-417. doi:10.1214/ss/1009212519
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from popk.model.sites import ModelError
from popk.patients.twin import Twin
from popk.trial import Trial


@dataclasses.dataclass(frozen=True, eq=False)
class Average:
    """Twins of one patient under several models, and how much each counts.

    Attributes
    ----------
    twins : dict of str to Twin
    weights : dict of str to float
        The posterior probability of each model.
    """

    twins: dict[str, Twin]
    weights: dict[str, float]

    def forecast(self, times: Iterable[float], *, seed: int = 2) -> xr.Dataset:
        """Return draws of all twins' forecasts, of each as many as its weight says.

        Parameters
        ----------
        times : iterable of float
        seed : int
            Of the residual errors, and of which draws are taken.

        Returns
        -------
        Dataset
            IPRED and DV (sample, time), and which model each draw is of (sample).
        """
        wanted, rng = list(times), np.random.default_rng(seed)
        whole = 2000
        counts = rng.multinomial(whole, list(self.weights.values()))
        parts = []
        for (name, twin), count in zip(self.twins.items(), counts, strict=True):
            if not count:
                continue
            found = twin.forecast(wanted, seed=seed)[["IPRED", "DV"]]
            which = rng.choice(found.sizes["sample"], count, replace=count > found.sizes["sample"])
            parts.append(found.isel(sample=which).assign(model=("sample", np.full(count, name))))
        return xr.concat(parts, "sample", combine_attrs="drop").assign_attrs(
            ID=next(iter(self.twins.values())).id
        )


def average(twins: Mapping[str, Twin], prior: Mapping[str, float] | None = None) -> Average:
    """Return the average of several models' beliefs of one patient, weighed by the patient's levels.

    Parameters
    ----------
    twins : mapping of str to Twin
        Of one patient's records under several models.
    prior : mapping of str to float, optional
        How probable each model is before the levels; all alike by default.

    Returns
    -------
    Average

    Raises
    ------
    ModelError
        There is no twin, they are of different levels, a prior is missing or negative, or a twin has
        no marginal likelihood (``method="nuts"``).

    Examples
    --------
    >>> average = popk.average({"adults": twin, "obese": other})  # doctest: +SKIP
    >>> average.weights  # doctest: +SKIP
    """
    if not twins:
        raise ModelError("there is no twin to average; give a mapping of names to twins")
    told = [_levels(twin.patient) for twin in twins.values()]
    if any(other != told[0] for other in told[1:]):
        raise ModelError("the twins know different levels; models are weighed by the same ones")
    logs = np.array([twin.log_evidence for twin in twins.values()])
    if without := [n for n, x in zip(twins, logs, strict=True) if not np.isfinite(x)]:
        raise ModelError(
            f"the twin {', '.join(without)} has no marginal likelihood; make it with method='smc'"
        )
    before = np.array([1.0 if prior is None else prior.get(name, -1.0) for name in twins])
    if (before < 0).any() or not before.any():
        raise ModelError(f"prior is {prior}; give each of {', '.join(twins)} a probability")
    weights = before * np.exp(logs - logs.max())
    weights /= weights.sum()
    return Average(dict(twins), dict(zip(twins, weights.tolist(), strict=True)))


def _levels(patient: Trial) -> tuple[object, ...]:
    """Return what was measured of a patient, and its units."""
    frame = patient.host.frame
    rows = frame[frame["EVID"].eq(0) & frame["MDV"].eq(0)]
    values = rows[["TIME", "DV", "BLQ", "ALQ"]].to_numpy(dtype=float)
    return patient.ids, patient.units["DV"], patient.units["TIME"], repr(values.tolist())
