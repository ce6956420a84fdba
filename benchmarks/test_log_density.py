"""How fast are the log-density and its gradient? popk beside what a user would write, in one run.

    uv run pytest benchmarks/test_log_density.py -n 0 --benchmark-only

Every road of a case is the same NumPyro model but for its structure, and gives the same numbers,
which is checked before anything is timed. `benchmarks/peers.py` gives ratios, compile times and memory.
"""

import jax
import numpy as np
import peers
import pytest

from popk.inference.compilation import keep_memory

keep_memory()  # for all roads alike: what `popk.fit` does

#: How near a road's value and gradient come to popk's, relative to the largest entry: the peers'
#: solvers meet 1e-7 a step, and so does popk's where it integrates.
AGREEMENT = {"expm": 1e-8, "superposition": 1e-8}

ROADS = [(case, road) for case, (_, others) in peers.CASES.items() for road in ("popk", *others)]


@pytest.fixture(scope="module")
def compiled():
    """Return a function that gives a case's road compiled, with its vector and arrays."""
    kept = {}

    def road(case, name):
        if (case, name) not in kept:
            chosen = peers.CASES[case][0]()
            density, vector, arrays = peers.log_posterior(chosen, peers.PEERS[name](chosen))
            kept[case, name] = jax.jit(density), vector, arrays
        return kept[case, name]

    return road


@pytest.mark.parametrize(("case", "road"), ROADS, ids=[f"{c}, {r}" for c, r in ROADS])
def test_log_density_and_gradient(benchmark, compiled, case, road):
    benchmark.group = f"log-density and gradient, {case} subjects"
    density, vector, arrays = compiled(case, road)
    found, expected = density(vector, arrays), compiled(case, "popk")[0](vector, arrays)
    within = AGREEMENT.get(road, 2e-5)
    np.testing.assert_allclose(found[0], expected[0], rtol=within)
    scale = float(np.abs(expected[1]).max())
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=within * scale)
    rounds = 50 if road == "popk" else 5
    benchmark.pedantic(
        lambda: jax.block_until_ready(density(vector, arrays)), rounds=rounds, warmup_rounds=1
    )
