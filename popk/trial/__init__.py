"""What is a population as padded arrays? The `Trial`, and the functions that read one."""

from popk.trial.arrays import Array, Design, Observations, Trial
from popk.trial.reading import read_nonmem
from popk.trial.source import Source

__all__ = ["Array", "Design", "Observations", "Source", "Trial", "read_nonmem"]
