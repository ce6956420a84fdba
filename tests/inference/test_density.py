"""The log-density of a model on a trial, over one flat vector of unconstrained numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to
from numpyro.infer.util import log_density as numpyro_log_density

import popk
from popk.inference.density import Latent, constrained, layout, log_density, start
from popk.variability import Centering

CENTERINGS = {
    "centred": (1.0, 1.0, 1.0),
    "not": (0.0, 0.0, 0.0),
    "between": (0.75, 0.2, 1.0),
    "as it stands": None,
}
SCALE = jnp.asarray([0.4, 0.2, 0.7])
HALF = Centering(jnp.full(3, 0.5), jnp.ones(3))
POPULATION = ("CL_pop", "V_pop", "KA_pop", "omega_CL", "omega_V", "omega_KA", "corr", "sigma_additive",
              "sigma_proportional")  # fmt: skip


@pytest.fixture(scope="module")
def three(theophylline):
    return theophylline[["1", "2", "3"]]


def some_vector(plan, seed=0):
    return 0.3 * jax.random.normal(jax.random.key(seed), (plan.size,)) + 0.5


# --- the layout ---


def test_the_vector_holds_the_population_then_a_block_for_each_subject(theophylline_model, three):
    plan = layout(theophylline_model, three, coordinates=True)
    assert tuple(latent.name for latent in plan.latents) == (*POPULATION, "eta_coordinate")
    assert plan.latents[0] == Latent("CL_pop", (), 1, individual=False)
    assert plan.latents[6] == Latent("corr", (3,), 3, individual=False)
    assert plan.latents[-1] == Latent("eta_coordinate", (3, 1, 3), 3, individual=True)
    assert (plan.n_population, plan.n_individual, plan.size) == (11, 3, 11 + 3 * 3)


def test_flattening_undoes_unflattening(theophylline_model, three):
    plan = layout(theophylline_model, three, coordinates=True)
    vector = jnp.arange(float(plan.size))
    values = plan.unflatten(vector)
    assert {name: np.shape(value) for name, value in values.items()} == {
        latent.name: latent.shape for latent in plan.latents
    }
    np.testing.assert_array_equal(plan.flatten(values), vector)


def test_blocks_are_the_population_and_one_row_a_subject(theophylline_model, three):
    plan = layout(theophylline_model, three, coordinates=True)
    population, individual = plan.blocks(jnp.arange(20.0))
    np.testing.assert_array_equal(population, np.arange(11))
    np.testing.assert_array_equal(individual, np.arange(11, 20).reshape(3, 3))


def frail(trial, dim):
    """A model with two individual sites of the user's own."""
    rate = numpyro.sample("rate", dist.Exponential(1.0))
    with numpyro.plate("subject", trial.n_subjects, dim=dim):
        numpyro.sample("frailty", dist.Gamma(2.0, 2.0))
        numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    curve = jnp.broadcast_to(rate, trial.time.shape)
    popk.observe(trial, curve, popk.additive_error(popk.fixed(1.0)))


@pytest.mark.parametrize("dim", [-1, -2])
def test_individual_sites_of_the_user_s_own_join_the_block_of_their_subject(dim, three):
    plan = layout(partial(frail, dim=dim), three)
    assert [(latent.name, latent.size, latent.individual) for latent in plan.latents] == [
        ("rate", 1, False), ("frailty", 1, True), ("shares", 2, True),
    ]  # fmt: skip
    vector = jnp.arange(10.0)
    values = plan.unflatten(vector)
    np.testing.assert_array_equal(np.ravel(values["frailty"]), [1, 4, 7])
    np.testing.assert_array_equal(np.reshape(values["shares"], (3, 2)), [[2, 3], [5, 6], [8, 9]])
    np.testing.assert_array_equal(plan.flatten(values), vector)


def test_an_individual_site_must_begin_with_the_subject_axis(three):
    def model(trial):
        with numpyro.plate("time", 4, dim=-2), numpyro.plate("subject", trial.n_subjects, dim=-1):
            numpyro.sample("wrong", dist.Normal(0, 1))
        popk.observe(trial, jnp.zeros(trial.time.shape), popk.additive_error(1.0))

    with pytest.raises(popk.ModelError, match="wrong is in the subject plate but has shape"):
        layout(model, three)


# --- the density ---


@pytest.fixture(scope="module", params=CENTERINGS.values(), ids=CENTERINGS)
def compiled(request, theophylline_model, three):
    """Return a layout with the density and its gradient, compiled once for the tests below."""
    fraction, arrays = request.param, three.arrays()
    centering = fraction and Centering(jnp.asarray(fraction), SCALE)
    plan = layout(theophylline_model, three, coordinates=centering is not None)
    return (
        plan,
        centering,
        jax.jit(
            jax.value_and_grad(
                lambda v: log_density(theophylline_model, plan, arrays, v, centering)
            )
        ),
    )


def test_the_density_is_numpyro_s_plus_the_jacobian_of_every_transform(
    compiled, theophylline_model, three
):
    plan, centering, density = compiled
    arrays = three.arrays()

    @jax.jit
    def expected(vector):
        values, free = (
            constrained(theophylline_model, plan, arrays, vector, centering),
            plan.unflatten(vector),
        )
        latent = {name: values[name] for name in (*POPULATION, "eta")}
        total, trace = numpyro_log_density(theophylline_model, (arrays,), {}, latent)
        for name in POPULATION:
            transform = biject_to(trace[name]["fn"].support)
            total += transform.log_abs_det_jacobian(free[name], latent[name]).sum()
        if centering:  # eta = L scale^-1 (u - c mu): triangular, so its diagonal is enough
            omega = jnp.stack([values[f"omega_{name}"] for name in ("CL", "V", "KA")])
            diagonal = omega * jnp.diagonal(jnp.linalg.cholesky(values["corr"]))
            total += 3 * ((1 - centering.fraction) * jnp.log(diagonal / SCALE)).sum()
        return total

    vector = some_vector(plan)
    assert float(density(vector)[0]) == pytest.approx(float(expected(vector)), rel=1e-11)


def test_the_gradient_is_a_central_difference(compiled):
    plan, _, density = compiled
    vector = some_vector(plan, 1)
    gradient = np.asarray(density(vector)[1])
    h = 1e-4
    for i in range(plan.size):
        step = h * jnp.eye(plan.size)[i]
        up, down, far_up, far_down = (float(density(vector + k * step)[0]) for k in (1, -1, 2, -2))
        difference = (8 * (up - down) - (far_up - far_down)) / (12 * h)
        assert gradient[i] == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_constrained_values_are_all_sites_and_the_likelihood_of_each_level(
    theophylline_model, three
):
    plan, arrays = layout(theophylline_model, three, coordinates=True), three.arrays()
    out = jax.jit(partial(constrained, theophylline_model, plan, centering=HALF))(
        arrays, some_vector(plan)
    )
    assert "eta_coordinate" not in out
    for name in ("CL", "V", "KA"):
        effect = out["eta"][..., ("CL", "V", "KA").index(name)]
        power = {"CL": 0.75, "V": 1.0, "KA": 0.0}[name]
        size = (three.covariate("WT") / 70) ** power
        np.testing.assert_allclose(
            out[name], out[f"{name}_pop"] * size * np.exp(effect), rtol=1e-11
        )
    o = three.observations
    f = out["IPRED"][o.subject, o.record]
    spread = np.sqrt(out["sigma_additive"] ** 2 + (out["sigma_proportional"] * f) ** 2)
    expected = dist.Normal(f, spread).log_prob(o.value)
    np.testing.assert_allclose(out["log_likelihood"], expected, rtol=1e-10)


# --- the start ---


def test_a_start_is_near_the_middle_of_the_prior_and_of_the_population(theophylline_model, three):
    plan, arrays = layout(theophylline_model, three, coordinates=True), three.arrays()

    @jax.jit
    @jax.vmap
    def begin(key):
        vector = start(theophylline_model, plan, arrays, key, HALF)
        values = constrained(theophylline_model, plan, arrays, vector, HALF)
        return values, log_density(theophylline_model, plan, arrays, vector, HALF)

    each, density = begin(jax.random.split(jax.random.key(0), 50))
    for name, middle in (("CL_pop", 2.8), ("V_pop", 32), ("KA_pop", 1.5)):
        assert np.median(each[name]) == pytest.approx(middle, rel=0.25)
        assert np.ptp(np.log(each[name])) > 0.1, "chains begin apart"
    assert np.isfinite(density).all()
    assert np.abs(each["eta"]).max() < 2.5


def test_a_start_is_repeated_by_its_key(theophylline_model, three):
    plan, arrays = layout(theophylline_model, three, coordinates=True), three.arrays()
    first, again, other = (
        start(theophylline_model, plan, arrays, jax.random.key(k), HALF) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
