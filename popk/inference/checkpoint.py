"""How far has a run come? Kept on disk while it samples, so that what is killed goes on where it was.

Each file appears complete or not at all; the state, written last, says which draws belong to it.
"""

import json
import logging
import os
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from popk.inference.adaptation import Expected, Metric, Moments, StepSize
from popk.inference.nuts import Carry, Run, Sampled, State
from popk.variability import Centering

_LEAF: Any = 0
#: Of this only the structure counts.
_CARRY = Carry(
    State(*[_LEAF] * 3), Metric(*[_LEAF] * 2), Moments(*[_LEAF] * 4), StepSize(*[_LEAF] * 5),
    Expected(Metric(*[_LEAF] * 2), _LEAF, _LEAF), _LEAF,
)  # fmt: skip


_LOG = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is of another fit, or cannot be read.

    Parameters
    ----------
    folder : Path
    why : str
    advice : str
        What to do about it.
    """

    def __init__(self, folder: Path, why: str, advice: str):
        super().__init__(f"{folder} holds a checkpoint {why}; {advice}")
        self.why = why


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be written: what is killed from now on is lost."""


class Kept(NamedTuple):
    """What a checkpoint holds.

    Attributes
    ----------
    run : Run
    centering : Centering, optional
    notes : dict
        What the DataTree will say of how the chains began.
    """

    run: Run
    centering: Centering | None
    notes: dict[str, Any]


class Checkpoint:
    """A folder that holds how far a run has come.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    identity : mapping of str to str
        What the run is of: a folder of another one is refused.
    every : float
        The least time between two writings [s]; what is drawn does not depend on it.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str], every: float = 2.0):
        self.folder, self.identity, self.every = folder, dict(identity), every
        self.parts, self.draws, self.written = 0, 0, time.monotonic()

    def load(self) -> Kept | None:
        """Return what the folder holds, None where it holds nothing yet.

        Raises
        ------
        CheckpointError
            It is of another fit, or a file of it cannot be read.
        """
        file = self.folder / "state.npz"
        if not file.is_file():
            return None
        try:
            kept = self._read(file)
        except CheckpointError:
            raise
        except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                self.folder, f"that cannot be read ({error})", "delete it and start anew"
            ) from error
        _LOG.info("going on after %d steps, from the checkpoint %s", kept.run.done, self.folder)
        return kept

    def _read(self, file: Path) -> Kept:
        # Opened here: NumPy leaves open what is no archive.
        with file.open("rb") as stream, np.load(stream) as stored:
            said = json.loads(str(stored["said"]))
            self._refuse_strangers(said["identity"])
            leaves = [jnp.asarray(stored[f"carry_{i}"]) for i in range(said["leaves"])]
            carries = (_CARRY,) * (len(leaves) // jax.tree.structure(_CARRY).num_leaves)
            carries = jax.tree.unflatten(jax.tree.structure(carries), leaves)
            window = Sampled(*(stored[f"window_{n}"] for n in Sampled._fields))
            centering = [jnp.asarray(stored[n]) for n in ("fraction", "scale") if n in stored]
            stages = stored["stages"]
        parts = tuple(self._part(i) for i in range(said["parts"]))
        self.parts, self.draws = len(parts), len(parts)
        run = Run(carries, stages, said["done"], window, parts)
        return Kept(run, Centering(*centering) if centering else None, said["notes"])

    def keep(
        self, run: Run, centering: Centering | None, notes: Mapping[str, Any], *, now: bool = False
    ) -> None:
        """Write how far a run has come, if the last time is long enough ago.

        Parameters
        ----------
        run : Run
        centering : Centering, optional
        notes : mapping
        now : bool
            Whether it is written in any case.
        """
        if not now and time.monotonic() - self.written < self.every:
            return
        try:
            self._write(run, centering, notes)
        except OSError as error:  # the fit goes on: a full disk is no reason to lose it
            says = (
                f"the checkpoint in {self.folder} cannot be written ({error.strerror or error}); the fit "
                f"goes on, and cannot be resumed from here"
            )
            warnings.warn(CheckpointWarning(says), stacklevel=2)
        self.written = time.monotonic()

    def _write(self, run: Run, centering: Centering | None, notes: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new, parts = run.kept[self.draws :], self.parts
        if new:
            fields = zip(*new, strict=True)
            joined = {n: np.concatenate(f) for n, f in zip(Sampled._fields, fields, strict=True)}
            _save(self._file(parts), joined)
            parts += 1
        leaves = jax.tree.leaves(run.carries)
        said = {
            "identity": self.identity, "leaves": len(leaves), "parts": parts, "done": run.done,
            "notes": dict(notes),
        }  # fmt: skip
        arrays = {f"carry_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        arrays |= {f"window_{n}": part for n, part in run.window._asdict().items()}
        if centering is not None:
            arrays |= {n: np.asarray(part) for n, part in centering._asdict().items()}
        _save(
            self.folder / "state.npz",
            {**arrays, "stages": run.stages, "said": np.asarray(json.dumps(said))},
        )
        self.parts, self.draws = parts, len(run.kept)

    def _refuse_strangers(self, identity: Mapping[str, str]) -> None:
        other = [n for n in self.identity if identity.get(n) != self.identity[n]]
        if other:
            raise CheckpointError(
                self.folder,
                f"of another fit: its {', '.join(other)} differ{'s' if len(other) == 1 else ''}",
                "give another folder, or delete this one",
            )

    def _part(self, i: int) -> Sampled:
        with self._file(i).open("rb") as stream, np.load(stream) as stored:
            return Sampled(*(stored[n] for n in Sampled._fields))

    def _file(self, i: int) -> Path:
        return self.folder / f"draws-{i:05d}.npz"


def _save(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file that appears complete or not at all."""
    beside = file.with_name(f".{file.name}.new")
    with beside.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)
