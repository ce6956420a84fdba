"""The amount in the observed compartment: the same by a chain as by the event loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.solve import Dosing, observed, solve, superposition
from popk.structural.chains import CHAINS
from popk.structural.compartments import ONE_COMPARTMENT, TWO_COMPARTMENT_ORAL
from popk.trial import Design
from tests.histories import N_RECORDS, TWO, events_of
from tests.trials import table

pytestmark = pytest.mark.usefixtures("strict_promotion")

P = TWO | {"V": 20.0, "Q2": 3.0, "Q3": 1.0, "V3": 90.0}
NAMES = {1: ("CL", "V"), 2: ("CL", "V1", "Q", "V2"), 3: ("CL", "V1", "Q2", "V2", "Q3", "V3")}
BOLUSES = Design(resets=True, dosed=(0, 1), doses=8)

#: Two subjects' records: further doses, a dose after a reset, levels at and between doses.
EVENTS = jax.tree.map(
    lambda *xs: jnp.stack(xs),
    *(
        events_of(table(text))
        for text in (
            "TIME EVID AMT ADDL II DV\n0 0 0 0 0 1\n1 1 100 3 6 .\n9 0 0 0 0 1\n13 4 50 0 0 .\n40 0 0 0 0 1",
            "TIME EVID AMT ADDL II DV\n0 1 80 0 0 .\n0.1 0 0 0 0 1\n24 1 40 0 0 .\n24 0 0 0 0 1",
        )
    ),
)  # fmt: skip


def parameters_of(structure):
    """Return the parameters of two subjects, the second with KA equal to a rate of disposition."""
    depot = "depot" in structure.compartments
    names = NAMES[len(structure.compartments) - depot]
    p = {name: jnp.asarray([[P[name]], [1.3 * P[name]]]) for name in names}
    if depot:  # at a tie nothing may be lost
        chain = CHAINS[structure]
        slowest = [chain(**{k: v[1, 0] for k, v in p.items()}, KA=jnp.asarray(0.0))[0][0]]
        p["KA"] = jnp.stack([jnp.asarray(0.8), *slowest])[:, None]
    return p


def by_loop(structure, p, events, n_records, design, dosing):
    index = structure.compartments.index(structure.observed)
    return solve(structure, p, events, n_records, design, dosing)[0][..., index]


def by_chain(structure, p, events, n_records, design, dosing):
    return observed(structure, p, events, n_records, design, dosing)[0]


@functools.cache
def everything(road, structure):
    """Return amounts, and derivatives of a sum in log-parameters, F and times; of one also the second."""
    p = parameters_of(structure)
    weights = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, N_RECORDS)))

    def amounts(x):
        logs, F, later = x
        moved = {k: v * jnp.exp(logs[i]) for i, (k, v) in enumerate(p.items())}
        events = EVENTS._replace(time=EVENTS.time * (1.0 + later))
        dosing = Dosing(F={structure.dosed: jnp.broadcast_to(F, (2, 1))})
        return road(structure, moved, events, N_RECORDS, BOLUSES, dosing)

    def total(x):
        return (weights * amounts(x)).sum()

    x = jnp.zeros(len(p)), jnp.asarray(0.9), jnp.asarray(0.0)
    gradient = jax.grad(total)

    def of(x):
        second = ()
        if structure is TWO_COMPARTMENT_ORAL:
            second = jax.jacfwd(total)(x), jax.jacfwd(gradient)(x)
        return amounts(x), gradient(x), second

    return jax.jit(of)(x)


#: The one with a depot, two rates of disposition and second derivatives says most.
WAITING = [s for s in CHAINS if s is not TWO_COMPARTMENT_ORAL]


@pytest.mark.parametrize(
    "structure",
    [pytest.param(s, marks=pytest.mark.slow) if s in WAITING else s for s in CHAINS],
    ids=lambda s: "-".join(s.compartments),
)
def test_amounts_and_derivatives_are_those_of_the_event_loop(structure):
    ours, loops = everything(by_chain, structure), everything(by_loop, structure)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(loops), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 * np.abs(b).max() + 1e-13)
    np.testing.assert_allclose(ours[0], loops[0], rtol=1e-12, atol=1e-13)


def test_a_negative_bioavailability_gives_no_number():
    p, dosing = parameters_of(ONE_COMPARTMENT), Dosing(F={"central": jnp.asarray([[-0.1], [0.5]])})
    found = by_chain(ONE_COMPARTMENT, p, EVENTS, N_RECORDS, BOLUSES, dosing)
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()


class EventLoopError(Exception):
    """Raised where `solve` is called."""


@pytest.mark.parametrize(
    ("changed", "dosing", "n"),
    [
        ({"infusions": True}, {}, 1), ({"steady": 1}, {}, 1), ({"turned_off": (1,)}, {}, 1),
        ({"dosed": (2,)}, {}, 1), ({}, {"lag": {"depot": jnp.ones((2, 1))}}, 1),
        ({}, {"initial": {"depot": jnp.ones((2, 1))}}, 1), ({}, {}, N_RECORDS),
    ],
    ids=["infusions", "steady states", "turned off", "two compartments", "lag", "initial", "changing"],
)  # fmt: skip
def test_what_a_chain_cannot_do_is_left_to_the_event_loop(monkeypatch, changed, dosing, n):
    def loop(*_):
        raise EventLoopError

    monkeypatch.setattr(superposition, "solve", loop)
    p = parameters_of(TWO_COMPARTMENT_ORAL)
    p = {name: jnp.broadcast_to(value, (2, n)) for name, value in p.items()}
    design = BOLUSES._replace(**changed)
    with pytest.raises(EventLoopError):
        by_chain(TWO_COMPARTMENT_ORAL, p, EVENTS, N_RECORDS, design, Dosing(**dosing))
