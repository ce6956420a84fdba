"""Marginal likelihoods of one random effect against numerical integration, and what is refused.

Against NONMEM and nlmixr2: tests/conformance/test_objective.py.
"""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import integrate, stats
from scipy.special import gammaln

import popk
from tests.trials import trial

OMEGA = 0.6
MANY = 40  # nodes


def integral(log_density, scale=OMEGA):
    """Return -2 log of the integral of a density of levels over one normal random effect."""

    def at(u):
        return np.exp(log_density(u) + stats.norm(0, scale).logpdf(u))

    value, error = integrate.quad(at, -8 * scale, 8 * scale, epsabs=1e-13, epsrel=1e-11, limit=200)
    assert error < 1e-8 * value
    return -2 * np.log(value)


def effect(trial, **options):
    return popk.individual(trial, K=0.4, omega=popk.fixed(OMEGA), **options).K


LEVELS = "ID TIME EVID DV BLQ LLOQ\n1 1 0 7 0 .\n1 4 0 . 1 2\n2 1 0 6 0 .\n2 2 0 5 0 .\n"


def decay(trial):
    """Levels that fall from 10, with an additive error of 0.8."""
    popk.observe(
        trial, 10 * jnp.exp(-effect(trial) * trial.time), popk.additive_error(popk.fixed(0.8))
    )


def own_of_levels(u, levels, censored=()):
    f = {t: 10 * np.exp(-0.4 * np.exp(u) * t) for t in (1, 2, 4)}
    seen = sum(stats.norm(f[t], 0.8).logpdf(y) for t, y in levels)
    return seen + sum(stats.norm(f[t], 0.8).logcdf(limit) for t, limit in censored)


def test_quadrature_with_many_nodes_is_the_integral_also_of_a_level_below_its_limit():
    found = popk.objective(decay, trial(LEVELS), {}, "agq", nodes=MANY)
    first = integral(lambda u: own_of_levels(u, [(1, 7)], [(4, 2)]))
    second = integral(lambda u: own_of_levels(u, [(1, 6), (2, 5)]))
    # A level below its limit counts among the N levels: it has a place in N ln 2 pi.
    expected = np.array([first, second]) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found["objective"], expected, rtol=1e-8)
    assert float(found["OFV"]) == pytest.approx(expected.sum(), rel=1e-8)
    assert found.attrs == {"method": "agq", "nodes": MANY}


def test_one_node_is_focei_and_both_are_those_of_map_estimate():
    known = trial(LEVELS)
    one = popk.objective(decay, known, {}, "agq", nodes=1)
    focei, modes = popk.objective(decay, known, {}), popk.map_estimate(decay, known, {})
    np.testing.assert_allclose(one["objective"], focei["objective"], rtol=1e-10)
    np.testing.assert_allclose(focei["objective"], modes["objective"], rtol=1e-10)
    np.testing.assert_allclose(focei["eta"], modes["eta"], atol=1e-7)
    assert focei["eta"].dims == ("subject", "parameter")
    assert list(focei["subject"].values) == ["1", "2"]


def test_laplace_has_the_second_derivative_at_the_mode():
    found = popk.objective(decay, trial(LEVELS), {}, "laplace")
    u, h = float(found["eta"][0, 0]), 1e-4

    def joint(u):
        return own_of_levels(u, [(1, 7)], [(4, 2)]) + stats.norm(0, OMEGA).logpdf(u)

    assert joint(u + h) < joint(u) > joint(u - h)
    curvature = -(joint(u + h) - 2 * joint(u) + joint(u - h)) / h**2
    expected = -2 * joint(u) - 3 * np.log(2 * np.pi) + np.log(curvature)
    assert float(found["objective"][0]) == pytest.approx(expected, abs=1e-5)


def test_counts_are_no_levels_and_their_integral_is_that_of_their_probabilities():
    def counts(trial):
        popk.observe(trial, jnp.broadcast_to(effect(trial), trial.time.shape), popk.poisson())

    known = trial("ID TIME EVID DV\n1 1 0 2\n1 2 0 0\n1 3 0 1\n")

    def own(u):
        mean = 0.4 * np.exp(u)
        return sum(y * np.log(mean) - mean - gammaln(y + 1) for y in (2, 0, 1))

    found = popk.objective(counts, known, {}, "agq", nodes=MANY)
    assert float(found["OFV"]) == pytest.approx(integral(own), rel=1e-8)


def events(trial):
    h = jnp.broadcast_to(effect(trial), trial.time.shape)
    popk.observe(trial, h, popk.time_to_event(h * trial.time))


EVENTS = "ID TIME EVID DV\n1 0 0 0\n1 2.5 0 1\n2 0 0 0\n2 4 0 0\n"


def test_events_have_an_objective_by_laplace_and_by_quadrature():
    found = popk.objective(events, trial(EVENTS), {}, "agq", nodes=MANY)

    def own(u):
        return np.log(0.4) + u - 0.4 * np.exp(u) * 2.5

    expected = [integral(own), integral(lambda u: -0.4 * np.exp(u) * 4)]
    np.testing.assert_allclose(found["objective"], expected, rtol=1e-7)
    laplace = popk.objective(events, trial(EVENTS), {}, "laplace")
    u = float(laplace["eta"][0, 0])
    assert u / OMEGA**2 == pytest.approx(1 - 2.5 * 0.4 * np.exp(u), abs=1e-6)  # the slope is 0
    joint = own(u) - u**2 / (2 * OMEGA**2) - np.log(OMEGA)
    curvature = 1 / OMEGA**2 + 2.5 * 0.4 * np.exp(u)
    assert float(laplace["objective"][0]) == pytest.approx(-2 * joint + np.log(curvature), abs=1e-6)


@pytest.mark.slow
def test_a_system_of_popk_ode_has_the_objectives_of_its_closed_form():
    text = "ID TIME EVID AMT DV\n1 0 1 100 .\n1 1 0 . 7\n1 4 0 . 3\n"

    def closed(trial):
        concentration = popk.one_compartment(trial, CL=10 * effect(trial), V=10.0)
        popk.observe(trial, concentration, popk.proportional_error(popk.fixed(0.2)))

    def solved(trial):
        CL = 10 * effect(trial)

        def rhs(A, p):
            # Michaelis and Menten's, so far below saturation that it is linear.
            return {"central": -p.CL / 10.0 * A.central / (1 + 1e-12 * A.central)}

        amounts = popk.ode(trial, rhs, {"CL": CL}, compartments=("central",))
        concentration = popk.concentration(trial, amounts.central, 10.0)
        popk.observe(trial, concentration, popk.proportional_error(popk.fixed(0.2)))

    for method in ("fo", "focei", "laplace"):
        exact, other = (popk.objective(m, trial(text), {}, method) for m in (closed, solved))
        assert float(other["OFV"]) == pytest.approx(float(exact["OFV"]), abs=1e-4)


# --- what is refused ---


def refused(model, text, method, error=popk.ModelError, **options):
    with pytest.raises(error) as caught:
        popk.objective(model, trial(text), {}, method, **options)
    return str(caught.value)


@pytest.mark.parametrize("method", ["fo", "foce"])
def test_a_level_below_its_limit_has_no_linearized_objective(method):
    assert refused(decay, LEVELS, method) == (
        f"method={method!r} has no meaning for levels that are only known to lie below or above a limit; "
        f"take method='laplace' or 'agq', or popk.replace_blq"
    )


@pytest.mark.parametrize("method", ["fo", "foce", "focei"])
def test_events_have_none_that_needs_information_or_normal_errors(method):
    assert "take method='laplace' or 'agq'" in refused(events, EVENTS, method)


PLAIN = "ID TIME EVID DV\n1 1 0 7\n"


def test_fo_needs_normal_random_effects_and_normal_errors():
    def heavy(trial):
        K = effect(trial, degrees=popk.fixed(4))
        popk.observe(trial, 10 * jnp.exp(-K * trial.time), popk.additive_error(popk.fixed(0.8)))

    def outlying(trial):
        error = popk.additive_error(popk.fixed(0.8), degrees=popk.fixed(4))
        popk.observe(trial, 10 * jnp.exp(-effect(trial) * trial.time), error)

    assert "needs normal random effects and no others" in refused(heavy, PLAIN, "fo")
    assert "needs residual errors that are normal on their scale" in refused(
        outlying, PLAIN, "foce"
    )


def test_classes_of_subjects_are_refused():
    def mixed(trial):
        mix = popk.mixture(trial, {"fast": 0.5, "slow": 0.5})
        K = {"fast": 0.4, "slow": 0.1}
        of = popk.individual(trial, K=K, classes=mix, omega=popk.fixed(OMEGA))
        each = {k: 10 * jnp.exp(-p.K * trial.time) for k, p in of._asdict().items()}
        popk.observe(trial, mix(**each), popk.additive_error(popk.fixed(0.8)))

    assert "several modes" in refused(mixed, PLAIN, "focei")


def test_a_subject_that_no_method_can_look_at_is_named():
    def nowhere(trial):
        rising = 1 - jnp.exp(-effect(trial) * trial.time)
        popk.observe(trial, rising, popk.proportional_error(popk.fixed(0.2)))

    text = "ID TIME EVID DV\n7 1 0 0.4\n8 0 0 0.1\n8 1 0 0.3\n"
    assert refused(nowhere, text, "focei").startswith("ID 8: there is no objective by focei")


def test_options_that_cannot_be_are_refused():
    assert refused(decay, PLAIN, "saem", ValueError) == (
        "method is 'saem'; it must be one of fo, foce, focei, laplace, agq"
    )
    assert "nodes=3 means nothing to method='fo'" in refused(
        decay, PLAIN, "fo", ValueError, nodes=3
    )
    assert "makes 0**1 points" in refused(decay, PLAIN, "agq", ValueError, nodes=0)

    def sampled(trial):
        K = popk.individual(trial, K=0.4, omega=dist.HalfNormal(1.0)).K
        popk.observe(trial, 10 * jnp.exp(-K * trial.time), popk.additive_error(0.8))

    assert refused(sampled, PLAIN, "focei") == (
        "values lacks omega_K, sigma_additive; give every population value"
    )
