"""How many subjects are simulated in a second? 240 times after 10 doses by mouth, in chunks.

    uv run pytest benchmarks/test_simulation.py -n 0 --benchmark-only

Concentrations of two compartments with absorption, all subjects on one design, in double precision.
The figure that counts is subjects per second of the processor, all threads together.
"""

import dataclasses
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import popk
from popk.inference.compilation import keep_memory

keep_memory()  # as `popk.fit` does

CHUNK = 250  # what of 250 subjects is alive at once stays in the cache
TYPICAL = {"CL": 5.0, "V1": 20.0, "Q": 3.0, "V2": 40.0, "KA": 1.0}  # L/h, L, L/h, L, 1/h


def design():
    """Return the trial of one subject: 100 mg every 24 h, and a level every hour of ten days."""
    dose = pd.DataFrame({"TIME": [0.0], "EVID": 1, "AMT": 100.0, "ADDL": 9, "II": 24.0})
    level = pd.DataFrame({"TIME": 0.5 + np.arange(240.0), "EVID": 0, "DV": 1.0})
    records = pd.concat([dose, level]).assign(ID=1).fillna({"AMT": 0.0, "ADDL": 0, "II": 0.0})
    return popk.read_nonmem(records, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"})


def simulated(n_subjects):
    """Return the compiled simulation, and the parameters of so many subjects."""
    one = design().arrays()
    gaps = len(np.unique(np.diff(one.events.time[0])))
    trial = dataclasses.replace(
        one,
        time=np.repeat(one.time, CHUNK, axis=0),
        recorded=np.repeat(one.recorded, CHUNK, axis=0),
        design=one.design._replace(gaps=gaps),  # what `arrays` finds of a trial with one design
    )
    rng = np.random.default_rng(0)
    p = {n: jnp.asarray(v * rng.lognormal(0, 0.3, n_subjects)) for n, v in TYPICAL.items()}
    chunks = {n: v.reshape(-1, CHUNK, 1) for n, v in p.items()}
    return jax.jit(lambda c: jax.lax.map(lambda p: popk.two_compartment(trial, **p), c)), chunks


@pytest.mark.parametrize("n_subjects", [10_000, 100_000])
def test_forward_simulation(benchmark, n_subjects):
    benchmark.group = "forward simulation, 240 times after 10 doses"
    simulate, chunks = simulated(n_subjects)
    found = jax.block_until_ready(simulate(chunks))
    assert np.isfinite(found).all()
    spent, rounds = time.process_time(), 5
    benchmark.pedantic(lambda: jax.block_until_ready(simulate(chunks)), rounds=rounds)
    cpu = (time.process_time() - spent) / rounds
    benchmark.extra_info["subjects_per_cpu_second"] = round(n_subjects / cpu)
    benchmark.extra_info["peak_MiB"] = round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    print(f"\n{n_subjects} subjects: {n_subjects / cpu:,.0f} a CPU second", benchmark.extra_info)
