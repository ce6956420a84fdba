"""Variability above the subject: studies, sites."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

import popk
from popk.model.sites import describe, values_of
from popk.variability import Centering, Coordinates
from tests.model.sites import plates, refusal, sampled, trace_of
from tests.trials import trial

STUDIES = """
ID TIME EVID AMT DV MDV STUDY OCC
1  0    1    100 .  1   3     1
1  1    0    0   5  0   3     1
2  0    1    100 .  1   7     1
2  1    0    0   2  0   7     2
3  0    1    100 .  1   3     1
3  1    0    0   2  0   3     1
"""
KNOWN = {"groups": {"STUDY": ["CL"]}, "levels": {"STUDY": (3, 5, 7)}}


@pytest.fixture(scope="module")
def studies():
    return trial(STUDIES, STUDY="1", OCC="1")


def model(trial):
    """Return nothing: clearance varies between studies."""
    CL = numpyro.sample("CL_pop", popk.lognormal(4, cv=0.5))
    p = popk.individual(trial, CL=CL, V=30.0, **KNOWN)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), popk.additive_error(1))


def test_subjects_of_one_study_share_its_random_effect(studies):
    trace, p = trace_of(
        lambda: popk.individual(studies, CL=2.0, V=30.0, **KNOWN),
        zeta_CL_STUDY=jnp.asarray([0.1, 9.0, -0.3]), eta=jnp.zeros((3, 1, 2)),
    )  # fmt: skip
    assert sampled(trace) == ["omega_CL", "omega_V", "corr", "eta", "tau_CL_STUDY", "zeta_CL_STUDY"]
    assert plates(trace["zeta_CL_STUDY"]) == {-1: "STUDY"}
    np.testing.assert_allclose(p.CL[:, 0], 2 * np.exp([0.1, -0.3, 0.1]), rtol=1e-12)
    np.testing.assert_allclose(p.V[:, 0], 30.0, rtol=1e-12)


def test_priors_of_what_varies_between_studies_may_be_given(studies):
    given = {**KNOWN, "groups": {"STUDY": {"V": popk.fixed(0.2), "CL": 0.1}}}
    trace, _ = trace_of(lambda: popk.individual(studies, CL=2.0, V=30.0, **given))
    assert trace["tau_CL_STUDY"]["fn"].scale == 0.1
    assert float(trace["tau_V_STUDY"]["value"]) == 0.2


def test_the_axis_of_studies_has_their_numbers(studies):
    sites = describe(model, studies)
    assert sites.all["zeta_CL_STUDY"].dims == ("STUDY",)
    assert sites.all["zeta_CL_STUDY"].kind == "population"
    assert sites.levels == {"STUDY": (3.0, 5.0, 7.0)}
    prior = popk.prior_draws(model, studies, seed=1, draws=8)["prior"]
    assert list(prior["STUDY"].values) == [3, 5, 7]


def test_studies_are_sampled_half_way_between_centred_and_not(studies):
    """u = zeta / tau**0.5 is normal with the variance tau."""
    sampled = Coordinates(model, centering=Centering(jnp.asarray([0.5, 0.5]), jnp.ones(2)))
    given = {"tau_CL_STUDY": 0.09, "zeta_CL_STUDY_coordinate": jnp.asarray([0.3, 0.0, -0.6])}
    trace, _ = trace_of(lambda: sampled(studies.arrays()), **given)
    np.testing.assert_allclose(trace["zeta_CL_STUDY"]["value"], [0.09, 0.0, -0.18], rtol=1e-12)
    u = trace["zeta_CL_STUDY_coordinate"]
    expected = stats.norm(scale=0.3).logpdf([0.3, 0.0, -0.6])
    np.testing.assert_allclose(u["fn"].log_prob(u["value"]), expected, rtol=1e-12)


@pytest.mark.slow
def test_a_study_without_subjects_varies_as_the_others_do(studies):
    def five(key):
        return values_of(model, studies.arrays(), {"tau_CL_STUDY": 0.4}, key)["zeta_CL_STUDY"][1]

    draws = jax.vmap(five)(jax.random.split(jax.random.key(0), 4000))
    assert float(draws.std()) == pytest.approx(0.4, abs=3.3 * 0.4 / np.sqrt(8000))


def test_a_study_that_the_model_does_not_know_is_refused_by_row():
    other = STUDIES.replace("1   7", "1   8").replace("0   7", "0   8")
    with pytest.raises(popk.ModelError) as caught:
        describe(model, trial(other, STUDY="1", OCC="1"))
    assert str(caught.value).endswith(
        "row 2  ID 2  TIME 0: STUDY is 8, and the model knows 3, 5, 7; add it to levels={'STUDY': ...} "
        "and fit again"
    )


def test_groups_that_mean_nothing_are_refused(studies):
    def says(**options):
        return refusal(lambda: popk.individual(studies, CL=2.0, V=30.0, **options))

    assert says(groups={"STUDY": ["CL"]}) == (
        "groups names STUDY and levels none; give both: groups={'STUDY': ['CL']}, "
        "levels={'STUDY': (1, 2, 3)}"
    )
    assert says(groups={"STUDY": ["KA"]}, levels={"STUDY": (3, 7)}) == (
        "groups of STUDY names KA, but the parameters are CL, V"
    )
    assert says(groups={"OCC": ["CL"]}, levels={"OCC": (1, 2)}).startswith(
        "OCC changes within a subject"
    )
    assert says(groups={"STUDY": ["CL"]}, levels={"STUDY": (3, 3)}).startswith(
        "levels of STUDY are 3, 3; give two or more different ones"
    )
