"""What is reported? A fit, and what several sections ask of it, computed once when first asked for."""

from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from popk.diagnostics.kinds import are_levels
from popk.inference.convergence import Convergence, convergence
from popk.model.sites import Model, ModelError, Sites, describe
from popk.reports.curves import with_curves
from popk.simulation import predict, prior_draws
from popk.trial import Trial

#: So many posterior draws are predicted from: `predict` works in batches of 32, and what is left
#: over is compiled a second time.
DRAWS = 320
#: Individual fits are shown of so many subjects: more panels are not looked at one by one.
MOST_PANELS = 60
#: Levels of which the middle 90% span more than this factor are shown on logarithmic axes.
WIDE = 15.0


class Fitted:
    """A model, its posterior and the trial it was fitted to.

    Parameters
    ----------
    model : Callable
    posterior : DataTree
    trial : Trial
    seed : int
        Of predictions.
    draws : int
        How many posterior draws are predicted from.
    external : Trial, optional
        Subjects that the fit does not know, to predict.
    """

    def __init__(
        self, model: Model, posterior: xr.DataTree, trial: Trial, *,
        seed: int = 1, draws: int = DRAWS, external: Trial | None = None,
    ):  # fmt: skip
        self.model, self.posterior, self.trial = model, posterior, trial
        self.seed, self.draws, self.external = seed, draws, external

    @cached_property
    def sites(self) -> Sites:
        """Return what the model samples."""
        return describe(self.model, self.trial)

    @cached_property
    def verdict(self) -> Convergence:
        """Return the verdict on convergence."""
        if "sample_stats" not in self.posterior.children and "pareto_k" not in self.posterior.attrs:
            empty = xr.DataTree.from_dict({
                "posterior": self.posterior["posterior"].dataset, "sample_stats": xr.Dataset(),
            })  # fmt: skip
            empty.attrs = self.posterior.attrs
            return convergence(empty)
        return convergence(self.posterior)

    @cached_property
    def same(self) -> xr.DataTree:
        """Return predictions of the subjects of the fit."""
        return predict(self.model, self.posterior, self.trial, seed=self.seed, draws=self.draws)

    @cached_property
    def new(self) -> xr.DataTree:
        """Return simulated trials of new subjects."""
        return predict(
            self.model, self.posterior, self.trial, new_subjects=True, seed=self.seed,
            draws=self.draws,
        )  # fmt: skip

    @cached_property
    def levels(self) -> np.ndarray:
        """Return which observations are levels [observation]; refuse a trial without any."""
        return are_levels(self.same, self.trial)

    @cached_property
    def some(self) -> Trial:
        """Return the subjects whose individual fits are shown."""
        if self.trial.n_subjects <= MOST_PANELS:
            return self.trial
        return self.trial[self.trial.ids[:MOST_PANELS]]

    @cached_property
    def curves(self) -> xr.DataTree:
        """Return smooth predictions of those subjects."""
        group = self.posterior["posterior"].sizes
        # More draws make the bands' edges smooth; whole batches, see DRAWS.
        many = max(min(3 * self.draws, group["chain"] * group["draw"]) // 32 * 32, 1)
        return predict(
            self.model, self.posterior, with_curves(self.some), seed=self.seed, draws=many
        )

    @cached_property
    def prior(self) -> xr.DataTree:
        """Return draws of the prior."""
        return prior_draws(self.model, self.trial, seed=self.seed)

    @cached_property
    def wide(self) -> bool:
        """Return whether levels are to be shown on logarithmic axes."""
        o = self.trial.observations
        level = np.asarray(o.value[self.levels & o.exact & (o.value > 0)])
        low, high = np.quantile(level, [0.05, 0.95]) if level.size else (1.0, 1.0)
        return bool(high > WIDE * low)

    def group(self, name: str, why: str) -> Any:
        """Return a group of the posterior.

        Raises
        ------
        ModelError
            It is not there, `why` it matters.
        """
        if name not in self.posterior.children:
            raise ModelError(f"the posterior has no group {name}, {why}")
        return self.posterior[name].dataset
