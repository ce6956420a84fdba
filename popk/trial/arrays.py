"""The arrays of a population: `Trial`, and how checked records become one."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int

from popk import units as unit_rules
from popk.records.events import EventTable, event_table, padded_events
from popk.records.provenance import sha256
from popk.records.table import DataError, Problem
from popk.trial.design import Design, bucket, design_of, gaps_of, turns
from popk.trial.grids import by_record, filled, places
from popk.trial.observations import Array, Observations, observations_of
from popk.trial.source import Source


class Trial(eqx.Module):
    """A population's records as arrays of shape [subject, record]; immutable.

    Read one with `read_nonmem`. ``trial["3"]`` and ``trial[["1", "2"]]`` are trials of some subjects.

    Attributes
    ----------
    time : Float[Array, "subject record"]
        TIME as recorded [units["TIME"]].
    recorded : Bool[Array, "subject record"]
        False on padding.
    observations : Observations
        The levels.
    events : EventTable
        What happens to each subject, in order.
    concentration_factor : Float[Array, ""]
        From amounts per L to the unit of DV.
    covariates : dict of str to Float[Array, "subject _"]
        Each [subject, 1] or [subject, record]; ask `covariate` for one.
    design : Design
        What a compiled model may depend on beside arrays.
    source : Source or None
        The host's table; None inside a compiled function.
    given : bool
        Whether a model is conditioned on the levels, or samples them.
    """

    time: Float[Array, "*s r"]
    recorded: Bool[Array, "*s r"]
    observations: Observations
    events: EventTable
    concentration_factor: Float[Array, "..."]
    covariates: dict[str, Float[Array, "*s _"]]
    design: Design = eqx.field(static=True)
    source: Source | None = eqx.field(static=True)
    given: bool = eqx.field(static=True, default=True)

    @property
    def n_subjects(self) -> int:
        """Return the number of subjects."""
        return self.time.shape[-2]

    @property
    def n_records(self) -> int:
        """Return the length of the record axis, padding included."""
        return self.time.shape[-1]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the subjects' IDs, in file order."""
        return self.host.ids

    @property
    def units(self) -> dict[str, str]:
        """Return the unit of TIME, AMT, DV and each covariate."""
        return dict(self.host.units)

    @property
    def host(self) -> Source:
        """Return what stays on the host.

        Raises
        ------
        AttributeError
            Inside a compiled model, where IDs and names do not exist.
        """
        if self.source is None:
            raise AttributeError("IDs, units and tables do not exist inside a compiled model")
        return self.source

    def covariate(
        self,
        name: str,
        between: Literal["nocb", "locf", "linear"] = "nocb",
        *,
        missing: Any = None,
        unit: str | None = None,
    ) -> Float[Array, "s _"]:
        """Return a covariate, of shape [subject, 1] if constant in every subject, else [subject, record].

        What stands at a record holds over the interval that ends there.

        Parameters
        ----------
        name : str
        between : "nocb", "locf" or "linear"
            What holds between two records: the value of the next (next observation carried backward,
            NONMEM's rule), of the last (last observation carried forward), or their mean, which is
            what a linear change amounts to over the interval to second order in it.
        missing : float or Float[Array, "subject 1"], optional
            What is put in the place of a missing value: needed where the trial was read with
            ``missing=``. `popk.covariate_model` gives values that are sampled.
        unit : str, optional
            That the model takes it in, ``"mg/dL"``; a trial that has it in another one is refused.

        Raises
        ------
        DataError
            The trial was read without this covariate, or has it in another unit; or some subjects may
            lack it and `missing` is not given.
        ValueError
            `between` is none of the three.
        """
        if name not in self.covariates:
            have = ", ".join(self.covariates) or "no covariates"
            says = (
                f"{name} is no covariate of it; it has {have}; read it with covariates=['{name}']"
            )
            raise DataError("the trial", [Problem(name, says)])
        if unit is not None:
            self.design.refuse_unit(name, unit)
        after = self.covariates[name]
        if name in self.design.missing:
            if missing is None:
                says = f"{name} may be missing; take popk.covariate_model(trial, '{name}', ...), or say "
                says += "what stands in its place: trial.covariate(..., missing=)"
                raise DataError("the trial", [Problem(name, says)])
            after = jnp.where(jnp.isnan(after), missing, after)
        if between not in ("nocb", "locf", "linear"):
            raise ValueError(f"between is {between!r}; it must be 'nocb', 'locf' or 'linear'")
        if between == "nocb" or after.shape[-1] == 1:
            return after
        before = jnp.concatenate([after[..., :1], after[..., :-1]], axis=-1)
        return before if between == "locf" else (before + after) / 2

    def occasions(self, name: str) -> tuple[Int[Array, "s r"], int]:
        """Return the occasion of each record, 0 for a subject's first, and how many there may be.

        Parameters
        ----------
        name : str
            A covariate of whole numbers; an occasion lasts until it changes.

        Raises
        ------
        DataError
            The trial was read without this covariate, or its values are no whole numbers.
        """
        values, counts = self.covariate(name), dict(self.design.occasions)
        if values.shape[-1] == 1:
            return jnp.zeros(self.time.shape, dtype=int), 1
        if name not in counts:
            says = f"{name} does not number occasions: it is no whole number on some row"
            raise DataError("the trial", [Problem(name, says)])
        return turns(values), counts[name]

    def arrays(self) -> "Trial":
        """Return the trial without what stays on the host: what may enter a compiled function.

        Events that are the same for all subjects are given once, for all.
        """
        o, events, design = self.observations, self.events, self.design
        if not o.value.shape[-1]:  # NumPyro has no plate of size 0: one level that does not count
            o = o.filled(1)
        if self.n_subjects > 1 and all((x == x[:1]).all() for x in events):
            events = jax.tree.map(lambda x: x[:1], events)
            design = design._replace(gaps=gaps_of(events.time[0]))
        return dataclasses.replace(self, observations=o, events=events, design=design, source=None)

    def unobserved(self) -> "Trial":
        """Return the trial whose levels a model samples."""
        return dataclasses.replace(self, given=False)

    def padded(self) -> "Trial":
        """Return the arrays with their axes filled up to powers of two.

        One more record or level then has the same shapes, and compiles nothing anew.
        """
        o, e = self.observations, self.events
        records, events = bucket(self.n_records), bucket(e.time.shape[-1])
        levels = bucket(o.value.shape[-1])
        return Trial(
            time=filled(self.time, records, "edge"),
            recorded=filled(self.recorded, records, False),
            observations=o.filled(levels),
            events=padded_events(e, events),
            concentration_factor=self.concentration_factor,
            covariates={
                k: filled(v, records, "edge") if v.shape[-1] > 1 else v
                for k, v in self.covariates.items()
            },
            design=self.design._replace(
                below=True, occasions=tuple((n, bucket(k, 1)) for n, k in self.design.occasions)
            ),
            source=None,
        )

    def by_subject(self) -> "Trial":
        """Return the arrays of one trial a subject, stacked on a new first axis."""
        o = self.observations
        subject = np.asarray(o.subject)
        place = pd.Series(subject).groupby(subject).cumcount().to_numpy()
        shape = (self.n_subjects, int(place.max(initial=0)) + 1)

        def own(values: Array, blank: float | int) -> Array:
            grid = np.full(shape, blank, dtype=values.dtype)
            grid[subject, place] = values
            return grid

        def one(x: Array) -> Array:
            return np.asarray(x)[:, None]

        levels = Observations(
            own(o.subject * 0, 0),
            own(o.record, 0),
            own(o.value, 1.0),
            own(o.measured, False),
            own(o.below, False),
            own(o.limit, 1.0),
            own(o.above, False),
            own(o.upper, 1.0),
            own(o.compartment, 0),
            own(o.kind, 0),
        )
        return dataclasses.replace(
            self,
            time=one(self.time),
            recorded=one(self.recorded),
            observations=levels,
            events=jax.tree.map(one, self.events),
            covariates=jax.tree.map(one, self.covariates),
            concentration_factor=np.broadcast_to(self.concentration_factor, shape[:1]),
            source=None,
        )

    def __getitem__(self, ids: str | int | Sequence[str | int]) -> "Trial":
        """Return the trial of some subjects, in the order of the file.

        Raises
        ------
        KeyError
            An ID is not in the trial.
        """
        wanted = [str(ids)] if isinstance(ids, str | int) else [str(one) for one in ids]
        unknown = [one for one in wanted if one not in self.ids]
        if unknown or not wanted:
            raise KeyError(
                f"no ID {', '.join(unknown) or 'given'}; the trial has {', '.join(self.ids)}"
            )
        frame = self.host.frame
        return self.replaced(frame[frame["ID"].isin(wanted)].reset_index(drop=True))

    def replaced(self, frame: pd.DataFrame) -> "Trial":
        """Return a trial of the same source with other checked records, and a hash of their own."""
        fingerprint = sha256(frame.to_csv(index=False).encode())
        return trial_of(self.host._replace(frame=frame, fingerprint=fingerprint))

    def without(self, ids: str | int | Sequence[str | int]) -> "Trial":
        """Return the trial of all other subjects."""
        left_out = {str(ids)} if isinstance(ids, str | int) else {str(one) for one in ids}
        self[sorted(left_out)]  # refuse unknown IDs
        return self[[one for one in self.ids if one not in left_out]]

    def to_dataframe(self) -> pd.DataFrame:
        """Return the records as a table; `read_nonmem` of it gives the same trial.

        Units, covariates and codes travel in ``attrs``.
        """
        return self.host.table()

    def to_xarray(self) -> xr.Dataset:
        """Return the records as a Dataset of dimensions (subject, record), NaN on padding."""
        frame = self.host.frame
        subject, record = places(frame)
        shape = (self.n_subjects, self.n_records)
        columns = {}
        for name in [c for c in frame.columns if c not in ("ID", "ROW")]:
            if not pd.api.types.is_numeric_dtype(frame[name]):
                continue
            grid = np.full(shape, np.nan)
            grid[subject, record] = frame[name]
            unit = self.units.get(name)
            columns[name] = (("subject", "record"), grid, {"units": unit} if unit else {})
        return xr.Dataset(
            columns, coords={"subject": list(self.ids)}, attrs={"source": self.host.name}
        )

    def summary(self) -> pd.Series:
        """Return the counts that describe the trial."""
        return self.host.summary()

    def __repr__(self) -> str:
        """Return the trial's counts on a few lines."""
        if self.source is None:
            return f"Trial(arrays of {self.time.shape})"
        units = ", ".join(f"{name} [{unit}]" for name, unit in self.units.items())
        lines = [f"  {name}: {value}" for name, value in self.summary().items()]
        return "\n".join([f"Trial {self.host.name}", *lines, f"  {units}"])

    def _repr_html_(self) -> str:
        return self.host.html()


def trial_of(source: Source) -> Trial:
    """Return the arrays of checked records."""
    frame = source.frame
    subject, record = places(frame)
    shape = (int(subject.max()) + 1, int(record.max()) + 1)
    grid = np.zeros(shape)
    grid[subject, record] = frame["TIME"]
    recorded = np.zeros(shape, dtype=bool)
    recorded[subject, record] = True
    table = event_table(frame, subject, record)
    level = frame["EVID"].eq(0)
    factor = unit_rules.concentration_factor(source.units["AMT"], source.units["DV"])
    trial = Trial(
        time=grid,
        recorded=recorded,
        observations=observations_of(frame[level], subject[level], record[level]),
        events=table,
        concentration_factor=np.asarray(1.0 if factor is None else factor),
        covariates={
            n: by_record(frame[n].to_numpy(), subject, record, shape) for n in source.covariates
        },
        design=design_of(frame, subject, factor is not None, tuple(source.covariates))._replace(
            missing=source.missing,
            units=tuple((n, source.units[n]) for n in source.covariates),
        ),
        source=source._replace(ids=tuple(dict.fromkeys(frame["ID"]))),
    )
    for array in jax.tree.leaves(trial):
        array.setflags(write=False)
    return trial
