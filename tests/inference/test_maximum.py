"""Maximum likelihood by the Laplace approximation, against NONMEM's FOCE INTERACTION."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from popk.inference.maximum import Likelihood, likelihood, maximize


def newborns(trial):
    """The reference model: CL and V by weight, V by Apgar score, independent random effects."""
    weight, apgar = trial.covariate("WT"), trial.covariate("APGR")
    CL = numpyro.sample("CL_pop", popk.lognormal(0.005, cv=0.5))
    V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.5))
    low = numpyro.sample("V_low_apgar", dist.Normal(0.0, 0.5))
    V = V * weight * (1 + jnp.where(apgar < 5, low, 0.0))
    p = popk.individual(trial, CL=CL * weight, V=V, correlated=False)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), popk.proportional_error(0.2))


@pytest.fixture(scope="module")
def found(phenobarbital):
    return likelihood(newborns, phenobarbital, {"omega_CL": 0.3})


@pytest.fixture(scope="module")
def end(found):
    return maximize(found, found.begin, np.ones_like(found.begin))


def test_objective_and_estimates_are_those_of_nonmem(found, end):
    # NONMEM's FOCEI of these records, to the digits that it prints: 586.276056, with standard
    # errors of 0.0002, 0.027 and 0.084.
    assert end.objective == pytest.approx(586.2760563, abs=2e-5)
    assert end.objective <= 586.27605629 + 1e-5  # never worse than NONMEM's own
    assert end.promised < 1e-4
    values = found.values(end.position, np.ones_like(found.begin))
    expected = {
        "CL_pop": 4.69555e-3, "V_pop": 0.984258, "V_low_apgar": 0.158920,
        "omega_CL": 0.171321, "omega_V": 0.167051, "sigma_proportional": 0.115069,
    }  # fmt: skip
    assert {n: float(v) for n, v in values.items()} == pytest.approx(expected, rel=1e-3)


def test_the_objective_is_the_sum_of_the_subjects_at_their_modes(found, phenobarbital):
    mask = np.ones_like(found.begin)
    values = found.values(found.begin, mask)
    assert float(values["omega_CL"]) == pytest.approx(0.3)
    own = popk.map_estimate(newborns, phenobarbital, values)["objective"]
    assert found.objective(found.begin, mask)[0] == pytest.approx(float(own.sum()), rel=1e-8)


def test_the_gradient_is_that_of_differences(found, end):
    mask = np.ones_like(found.begin)
    for at in (found.begin, end.position + 0.1):
        differences = [
            (found.objective(at + h, mask)[0] - found.objective(at - h, mask)[0]) / 2e-4
            for h in 1e-4 * np.eye(len(at))
        ]
        # A central difference of 1e-4 errs by 1e-8 of the third derivative.
        np.testing.assert_allclose(found.objective(at, mask)[1], differences, atol=1e-4)


def test_a_masked_value_is_0_and_has_no_gradient(found, phenobarbital):
    mask = np.ones_like(found.begin)
    mask[found.places["V_low_apgar"]] = 0
    end = maximize(found, found.begin + 0.1, mask)
    assert found.objective(found.begin, mask)[1][found.places["V_low_apgar"]] == 0
    values = found.values(end.position, mask)
    assert float(values["V_low_apgar"]) == 0.0
    own = popk.map_estimate(newborns, phenobarbital, values)["objective"]
    assert end.objective == pytest.approx(float(own.sum()), rel=1e-8)


def test_a_start_that_the_model_does_not_sample_is_refused(phenobarbital):
    with pytest.raises(popk.ModelError, match="start names Q_pop; the model samples CL_pop, V_pop"):
        likelihood(newborns, phenobarbital, {"Q_pop": 1.0})


def test_a_search_that_cannot_begin_says_so(found):
    begin = found.begin.copy()
    begin[found.places["CL_pop"]] = np.nan
    with pytest.raises(popk.ModelError, match="not finite where the search begins; say start="):
        maximize(found, begin, np.ones_like(begin))


def test_a_structure_without_second_derivatives_is_refused(found):
    def objective(position, mask):
        raise NotImplementedError("first derivatives only")

    with pytest.raises(popk.ModelError, match=r"needs second derivatives.*popk\.ode does not have"):
        maximize(found._replace(objective=objective), found.begin, np.ones_like(found.begin))


def test_a_search_goes_around_points_without_an_objective():
    def objective(x, mask):  # log(x) has none at or below 0; the minimum is at x = 2
        with np.errstate(all="ignore"):
            return float(x[0] - 2 * np.log(x[0])), 1 - 2 / x

    found = Likelihood({}, np.array([0.05]), objective, lambda x, mask: {})
    end = maximize(found, found.begin, np.ones(1))
    assert end.position[0] == pytest.approx(2, abs=0.01)
    assert end.objective == pytest.approx(2 - 2 * np.log(2), abs=2e-5)


def theophylline(trial):
    CL = numpyro.sample("CL_pop", popk.lognormal(2.8, cv=0.5))
    V = numpyro.sample("V_pop", popk.lognormal(32, cv=0.5))
    KA = numpyro.sample("KA_pop", popk.lognormal(1.5, cv=0.5))
    p = popk.individual(trial, CL=CL, V=V, KA=KA)
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA)
    popk.observe(trial, concentration, popk.combined_error(additive=0.5, proportional=0.2))


@pytest.mark.slow
def test_theophylline_with_a_full_covariance_is_nonmem_s(trial_of_320_mg):
    found = likelihood(theophylline, trial_of_320_mg, {})
    mask = np.ones_like(found.begin)
    end = maximize(found, found.begin, mask)
    # NONMEM 7.4 FOCEI, 92.8308690: V 32.447, KA 1.49072, CL = 0.0872901 V.
    assert end.objective == pytest.approx(92.8308690, abs=1e-4)
    assert end.objective <= 92.83086905 + 1e-5  # never worse than NONMEM's own
    values = found.values(end.position, mask)
    typical = [float(values[n]) for n in ("CL_pop", "V_pop", "KA_pop")]
    assert typical == pytest.approx([2.83230, 32.4470, 1.49072], rel=1e-3)


@pytest.fixture
def trial_of_320_mg(theophylline):
    frame = theophylline.to_dataframe()
    attrs = frame.attrs
    frame.loc[frame["EVID"].eq(1), "AMT"] = 320.0
    frame.attrs = attrs
    return popk.read_nonmem(frame)
