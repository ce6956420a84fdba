"""Chains of divided differences and their derivatives, against 160 digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from popk.structural.chains import CHAINS, links
from popk.structural.compartments import THREE_COMPARTMENT_ORAL
from tests.structural.test_exponentials import PAIRS, TRIPLES, exact_derivatives

pytestmark = pytest.mark.usefixtures("strict_promotion")

#: A time and rates in falling order.
FALLING = {
    n: [(t, *sorted(rates, reverse=True)) for t, *rates in cases]
    for n, cases in ((2, PAIRS), (3, TRIPLES))
}


def last_link(t, *rates):
    """Return what moves the first compartment's content to the last, and the derivatives handed on."""
    value, slopes = links(t, rates)[-1][0]
    return value, jnp.stack(slopes)


@functools.cache
def found(n):
    """Return value, derivatives, and the derivatives of both, at all cases, from one program."""

    def of_one(case):
        rates = tuple(case[1:])
        moves = jax.jacfwd(lambda *rates: last_link(case[0], *rates), tuple(range(n)))(*rates)
        return *last_link(case[0], *rates), jnp.stack(moves[0]), jnp.stack(moves[1], -1)

    return jax.jit(jax.vmap(of_one))(jnp.asarray(FALLING[n]))


@pytest.mark.parametrize(
    ("n", "case"), [(n, case) for n, cases in FALLING.items() for case in cases]
)
def test_a_link_and_its_derivatives_agree_with_160_digits(n, case):
    value, slopes, gradient, hessian = (x[FALLING[n].index(case)] for x in found(n))
    expected = [exact_derivatives(order, *case) for order in (0, 1, 2)]
    expected = [expected[0], expected[1][1:], expected[2][1:, 1:]]
    for ours, right, rtol in (
        (value, expected[0], 2e-14), (slopes, expected[1], 1e-12), (gradient, expected[1], 1e-12),
        (hessian, expected[2], 1e-10),
    ):  # fmt: skip
        rounding = 1e-60 + 4 * np.finfo(float).eps * np.abs(right).max()
        np.testing.assert_allclose(ours, right, rtol=rtol, atol=rounding)


P = {"CL": 3.0, "V": 20.0, "V1": 20.0, "Q": 4.0, "V2": 50.0, "Q2": 4.0, "Q3": 1.0, "V3": 90.0}
NAMES = {1: ("CL", "V"), 2: ("CL", "V1", "Q", "V2"), 3: ("CL", "V1", "Q2", "V2", "Q3", "V3")}


@pytest.mark.parametrize("KA", [0.005, 0.15, 0.02, 0.3, 2.0])
@pytest.mark.parametrize("structure", CHAINS, ids=lambda s: "-".join(s.compartments))
def test_a_chain_s_rates_fall_and_are_the_matrix_s_and_its_weights_add(structure, KA):
    names = NAMES[len([c for c in structure.compartments if c != "depot"])]
    p = {name: jnp.asarray(P[name]) for name in names}
    p |= {"KA": jnp.asarray(KA)} if "depot" in structure.compartments else {}
    rates, weights = CHAINS[structure](**p)
    eigenvalues = np.linalg.eigvals(structure.rates(**p)).real
    np.testing.assert_allclose(rates, np.sort(-eigenvalues)[::-1], rtol=1e-12)
    assert all(w is None or w >= 0 for w in weights)


def test_four_rates_have_no_chain():
    assert THREE_COMPARTMENT_ORAL not in CHAINS
