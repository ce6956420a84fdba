"""What is a population as padded arrays? The `Trial`, and the functions that read one."""

from popk.trial.arrays import Trial
from popk.trial.design import Design, alike
from popk.trial.limits import replace_blq
from popk.trial.observations import ASK, Array, Observations
from popk.trial.reading import read_nonmem
from popk.trial.source import Source

__all__ = [
    "ASK",
    "Array",
    "Design",
    "Observations",
    "Source",
    "Trial",
    "alike",
    "read_nonmem",
    "replace_blq",
]
