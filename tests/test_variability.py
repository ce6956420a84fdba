"""How do people differ? Random effects, and the coordinates that they are sampled in."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from scipy import special, stats

from popk.variability import (
    TRANSFORMS,
    Centering,
    Coordinates,
    Located,
    box_cox,
    cv_percent,
    logit_between,
    random_effects,
)

OMEGA = jnp.asarray([0.3, 0.7, 0.2])
CORR = jnp.asarray([[1, 0.6, -0.3], [0.6, 1, 0.2], [-0.3, 0.2, 1]])
COVARIANCE = np.outer(OMEGA, OMEGA) * np.asarray(CORR)
TYPICAL = jnp.log(jnp.asarray([[[2.8, 32.0, 1.5]], [[3.1, 28.0, 1.5]]]))  # [subject, 1, parameter]
CENTERINGS = [0.0, 0.5, 0.75, 1.0, (0.0, 1.0, 0.5), (((0.0, 1.0, 0.5),), ((0.4, 0.1, 0.9),))]
every_centering = pytest.mark.parametrize("c", CENTERINGS, ids=str)


def model(corr=CORR, infer=None, degrees=None):
    infer = {"typical": TYPICAL, "parameters": ("CL", "V", "KA")} if infer is None else infer
    with numpyro.plate("subject", 2, dim=-2):
        return numpyro.sample("eta", random_effects(OMEGA, corr, degrees), infer=infer)


SCALE = jnp.asarray([0.4, 0.5, 0.1])


def centering(c):
    c = jnp.asarray(c, dtype=float)
    return Centering(c if c.ndim else jnp.full(3, c), SCALE)


def sampled(c, u=None, seed=0, **options):
    """Return the trace of the model in its coordinates, at some coordinates or drawn."""
    given = {} if u is None else {"eta_coordinate": u}
    moved = Coordinates(lambda: model(**options), centering=centering(c))
    return handlers.trace(handlers.seed(handlers.substitute(moved, given), seed)).get_trace()


def some_coordinates(seed=1):
    return TYPICAL / 2 + jax.random.normal(jax.random.key(seed), (2, 1, 3))


# --- the distribution ---


def test_random_effects_have_the_covariance_of_omega_and_corr():
    np.testing.assert_allclose(
        random_effects(OMEGA, CORR).covariance_matrix, COVARIANCE, rtol=1e-12
    )
    np.testing.assert_allclose(random_effects(OMEGA, CORR).mean, 0)


def test_random_effects_without_correlations_are_independent():
    independent = random_effects(OMEGA, None).covariance_matrix
    np.testing.assert_allclose(independent, np.diag(OMEGA**2), rtol=1e-12)


def test_random_effects_have_the_density_of_the_normal_distribution():
    eta = np.array([0.2, -0.5, 0.1])
    expected = stats.multivariate_normal(np.zeros(3), COVARIANCE).logpdf(eta)
    assert float(random_effects(OMEGA, CORR).log_prob(jnp.asarray(eta))) == pytest.approx(expected)


def test_heavy_tailed_random_effects_have_the_density_of_a_multivariate_t():
    eta = np.array([0.2, -0.5, 0.1])
    expected = stats.multivariate_t(np.zeros(3), COVARIANCE, df=4.5).logpdf(eta)
    found = random_effects(OMEGA, CORR, 4.5).log_prob(jnp.asarray(eta))
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [0.5, -0.5, 1e-9])
def test_a_box_cox_parameter_is_skewed_as_the_docstring_says(shape):
    form, eta = box_cox(jnp.asarray(shape)), jnp.asarray([-1.2, 0.0, 0.7])
    expected = 3 * np.exp(special.boxcox(np.exp(eta), shape))
    np.testing.assert_allclose(form.value(form.center(3.0), eta), expected, rtol=1e-7)
    slope = jax.grad(lambda x: form.value(form.center(3.0), x))(0.0)
    np.testing.assert_allclose(
        slope, 3.0, rtol=1e-12
    )  # that of a log-normal one, whatever the shape


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="the second number must be the larger one"):
        logit_between(2, 1)


@pytest.mark.parametrize("name", [*TRANSFORMS])
def test_the_value_at_a_random_effect_of_0_is_the_typical_one(name):
    form = TRANSFORMS[name]
    assert float(form.value(form.center(0.3), 0.0)) == pytest.approx(0.3)


@pytest.mark.parametrize(("omega", "percent"), [(0.0, 0.0), (0.3, 30.6878), (1.0, 131.0832)])
def test_cv_percent_is_that_of_a_lognormal_parameter(omega, percent):
    assert float(cv_percent(jnp.asarray(omega))) == pytest.approx(percent, abs=1e-4)


# --- the coordinates ---


@every_centering
@pytest.mark.parametrize(
    ("corr", "degrees"),
    [(CORR, None), (None, None), (CORR, 4.0)],
    ids=["correlated", "independent", "t"],
)
def test_the_density_in_coordinates_is_that_of_eta_by_change_of_variables(c, corr, degrees):
    u, options = some_coordinates(), {"corr": corr, "degrees": degrees}

    def eta_of(u):
        return sampled(c, u, **options)["eta"]["value"]

    site = sampled(c, u, **options)["eta_coordinate"]
    found = site["fn"].log_prob(u)
    direct = random_effects(OMEGA, corr, degrees).log_prob(eta_of(u))
    jacobian = jax.jacfwd(eta_of)(u).reshape(6, 6)
    np.testing.assert_allclose(
        found.sum(), direct.sum() + np.linalg.slogdet(jacobian)[1], rtol=1e-12
    )


def test_centred_coordinates_are_the_individual_parameters_themselves():
    u = some_coordinates()
    np.testing.assert_allclose(sampled(1.0, u)["eta"]["value"], u - TYPICAL, rtol=1e-12, atol=1e-14)


def test_coordinates_that_are_not_centred_are_standard_deviates():
    u = some_coordinates()
    expected = u / SCALE @ np.linalg.cholesky(COVARIANCE).T
    np.testing.assert_allclose(sampled(0.0, u)["eta"]["value"], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("c", [0.3, (0.0, 1.0, 0.5), CENTERINGS[-1]], ids=str)
def test_coordinates_between_are_those_of_the_docstring(c):
    c = np.asarray(c)
    lower = np.linalg.cholesky(COVARIANCE)
    z = np.random.default_rng(4).normal(size=(2, 1, 3))
    strict = z @ np.tril(lower, -1).T
    scale = np.asarray(SCALE)
    u = c * (np.asarray(TYPICAL) + strict) + scale * (np.diag(lower) / scale) ** c * z
    np.testing.assert_allclose(sampled(c, jnp.asarray(u))["eta"]["value"], z @ lower.T, rtol=1e-10)


@every_centering
def test_eta_has_the_same_covariance_in_all_coordinates(c):
    draw = jax.jit(jax.vmap(lambda seed: sampled(c, seed=seed)["eta"]["value"]))
    eta = np.asarray(draw(jax.random.split(jax.random.key(5), 20_000))).reshape(-1, 3)
    np.testing.assert_allclose(eta.mean(0), 0, atol=4 * 0.7 / np.sqrt(len(eta)))
    np.testing.assert_allclose(np.cov(eta.T), COVARIANCE, atol=4 * 0.7**2 * np.sqrt(2 / len(eta)))


@every_centering
def test_the_coordinates_of_given_random_effects_are_those_that_give_them(c):
    u, found = some_coordinates(), {}
    eta = sampled(c, u)["eta"]["value"]
    given = handlers.seed(handlers.substitute(model, {"eta": eta}), 0)
    Located(given, centering=centering(c), found=found)()
    np.testing.assert_allclose(found["eta_coordinate"], u, rtol=1e-11)
    np.testing.assert_allclose(found["eta_scale"], np.diag(np.linalg.cholesky(COVARIANCE)))


def test_eta_stays_a_site_of_the_model_but_is_no_longer_sampled():
    trace = sampled(0.5)
    assert list(trace) == ["subject", "eta_coordinate", "eta"]
    assert trace["eta_coordinate"]["type"] == "sample"
    assert trace["eta"]["type"] == "deterministic"
    assert trace["eta"]["value"].shape == (2, 1, 3)


def test_the_coordinates_stand_in_the_subject_plate():
    frames = sampled(0.5)["eta_coordinate"]["cond_indep_stack"]
    assert [(frame.name, frame.dim, frame.size) for frame in frames] == [("subject", -2, 2)]


def test_a_site_that_carries_no_typical_values_is_left_alone():
    trace = sampled(0.5, infer={})
    assert "eta_coordinate" not in trace
    assert trace["eta"]["type"] == "sample"


def test_occasions_are_sampled_half_way_between_centred_and_not():
    gamma = jnp.asarray([0.04, 0.25])

    def occasions():
        fn = numpyro.distributions.Normal(0, gamma).to_event(1)
        with numpyro.plate("subject", 2, dim=-2), numpyro.plate("occasion", 3, dim=-1):
            return numpyro.sample("kappa", fn, infer={"typical": 0.0})

    moved = Coordinates(occasions, centering=centering(0.5))
    trace = handlers.trace(handlers.seed(moved, 0)).get_trace()
    u = trace["kappa_coordinate"]
    np.testing.assert_allclose(trace["kappa"]["value"], u["value"] * jnp.sqrt(gamma), rtol=1e-12)
    direct = stats.norm(0, gamma).logpdf(trace["kappa"]["value"]).sum(-1)
    jacobian = 0.5 * np.log(gamma).sum()
    np.testing.assert_allclose(u["fn"].log_prob(u["value"]), direct + jacobian, rtol=1e-12)
