"""The mode, covariance and objective of one subject; against NONMEM in tests/conformance/test_map.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import popk
from popk.inference.laplace import individual_layout, terms
from tests.trials import trial


def test_the_gradient_vanishes_at_the_mode(theophylline, theophylline_model):
    values = {"CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5, "omega_CL": 0.3, "omega_V": 0.15,
              "omega_KA": 0.6, "corr": np.eye(3), "sigma_additive": 0.3,
              "sigma_proportional": 0.1}  # fmt: skip
    patient = theophylline["3"]
    eta = popk.map_estimate(theophylline_model, patient, values)["eta"].values[0]
    plan = individual_layout(theophylline_model, patient)

    def joint(u):
        given = {name: jnp.asarray(value) for name, value in values.items()}
        parts = terms(theophylline_model, plan, patient.arrays(), given, u)
        return parts.prior + parts.likelihood

    assert np.max(np.abs(jax.grad(joint)(jnp.asarray(eta)))) < 1e-4


def test_without_levels_the_mode_is_the_typical_person(theophylline, theophylline_model):
    table = theophylline["3"].to_dataframe()
    attrs = table.attrs
    table = table[table["EVID"].eq(1)]
    table.attrs = attrs
    values = {"CL_pop": 2.8, "V_pop": 32.0, "KA_pop": 1.5, "omega_CL": 0.3, "omega_V": 0.15,
              "omega_KA": 0.6, "corr": np.eye(3), "sigma_additive": 0.3,
              "sigma_proportional": 0.1}  # fmt: skip
    found = popk.map_estimate(theophylline_model, popk.read_nonmem(table), values)
    np.testing.assert_allclose(found["eta"].values, 0.0, atol=1e-12)
    np.testing.assert_allclose(
        found["covariance"].values[0], np.diag([0.3**2, 0.15**2, 0.6**2]), rtol=1e-10
    )


def test_a_missing_population_value_is_named(theophylline, theophylline_model):
    with pytest.raises(popk.ModelError, match="values lacks V_pop, KA_pop, omega_CL"):
        popk.map_estimate(theophylline_model, theophylline, {"CL_pop": 2.8})


def two_modes(trial):
    """A random effect whose square alone is observed: it has two modes, one a little higher."""
    p = popk.individual(trial, X=0.2, transform="normal", omega={"X": popk.fixed(1.0)})
    popk.observe(
        trial, jnp.broadcast_to(p.X**2, trial.time.shape), popk.additive_error(popk.fixed(0.1))
    )


def test_of_several_modes_the_highest_is_kept():
    patient = trial("ID TIME EVID AMT DV\n1 1 0 . 4\n2 1 0 . 9\n")
    below = popk.map_estimate(two_modes, patient, {}, start=[[-2.0], [-3.0]])
    best = popk.map_estimate(two_modes, patient, {}, start=[[-2.0], [-3.0]], starts=8)
    assert (below["eta"].values < -2).all()  # X near -2 and -3
    assert (best["eta"].values > 1.7).all()  # X near 2 and 3: nearer to the typical 0.2
    assert (best["objective"] < below["objective"]).all()
    with pytest.raises(
        ValueError, match=r"start has shape \(1, 2\) and starts is 1; they must be \(2, 1\)"
    ):
        popk.map_estimate(two_modes, patient, {}, start=[[-2.0, 1.0]])
