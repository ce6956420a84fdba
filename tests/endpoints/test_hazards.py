"""Hazards: closed forms, their integrals, and where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import popk

TIMES = np.array([[0.3, 1.0, 4.0, 11.0]])
HAZARDS = {
    "constant": (popk.constant_hazard, (0.2,), stats.expon(scale=5)),
    "weibull": (popk.weibull_hazard, (5.0, 1.7), stats.weibull_min(1.7, scale=5)),
    "decreasing": (popk.weibull_hazard, (5.0, 0.6), stats.weibull_min(0.6, scale=5)),
    "gompertz": (popk.gompertz_hazard, (0.1, 0.25), stats.gompertz(0.1 / 0.25, scale=4)),
    "log-logistic": (popk.log_logistic_hazard, (5.0, 1.7), stats.fisk(1.7, scale=5)),
}
EACH = pytest.mark.parametrize(("hazard", "values", "known"), HAZARDS.values(), ids=HAZARDS)


@EACH
def test_a_hazard_and_its_integral_are_those_of_the_distribution_of_times(hazard, values, known):
    h, H = hazard(TIMES, *values)
    np.testing.assert_allclose(H, -known.logsf(TIMES), rtol=1e-10)
    np.testing.assert_allclose(h, np.exp(known.logpdf(TIMES) - known.logsf(TIMES)), rtol=1e-10)


@EACH
def test_what_multiplies_a_hazard_multiplies_its_integral(hazard, values, known):
    plain, more = hazard(TIMES, *values), hazard(TIMES, *values, effect=jnp.asarray([[0.5]]))
    np.testing.assert_allclose(more.h, 0.5 * plain.h)
    np.testing.assert_allclose(more.H, 0.5 * plain.H)


@EACH
def test_nobody_is_at_risk_before_time_0_and_gradients_are_finite_there(hazard, values, known):
    times = jnp.asarray([[-3.0, 0.0, 2.0]])
    h, H = hazard(times, *values)
    assert float(h[0, 0]) == 0.0
    np.testing.assert_array_equal(H[0, :2], 0.0)
    for value in range(len(values)):
        given = [jnp.asarray(v) for v in values]
        slopes = jax.jacobian(lambda *v: tuple(hazard(times, *v)), argnums=value)(*given)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("growth", [0.0, 1e-9, -1e-9])
def test_a_gompertz_hazard_that_hardly_grows_is_constant(growth):
    h, H = popk.gompertz_hazard(TIMES, 0.1, growth)
    np.testing.assert_allclose(h, 0.1, rtol=1e-7)
    np.testing.assert_allclose(H, 0.1 * TIMES, rtol=1e-7)
    # dH / da at a = 0 is b t^2 / 2
    slope = jax.jacobian(lambda a: popk.gompertz_hazard(TIMES, 0.1, a).H)(growth)
    np.testing.assert_allclose(slope, 0.1 * TIMES**2 / 2, rtol=1e-6)


def test_what_changes_from_record_to_record_has_no_closed_form():
    with pytest.raises(
        ValueError, match=r"shape \(1, 4\) changes from record to record.*popk\.ode"
    ):
        popk.weibull_hazard(TIMES, 5.0, 1.7, effect=jnp.ones((1, 4)))
