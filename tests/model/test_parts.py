"""The parts of a model that are no structure: individual parameters and observed levels."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import popk
from popk.model.sites import RESERVED
from popk.residual import Residual
from tests.trials import trial

TWO = """
ID TIME EVID AMT DV MDV WT CRCL
1  0    1    100 .  1   70 90
1  1    0    0   5  0   70 80
1  2    0    0   4  0   70 60
2  0    1    50  .  1   35 50
2  3    0    0   2  1   35 50
"""


@pytest.fixture(scope="module")
def two():
    return trial(TWO, WT="kg", CRCL="mL/min")


def trace_of(part, **given):
    """Return the trace of a part of a model, and what it returned."""
    seeded = handlers.seed(handlers.substitute(part, given), 0)
    tracer = handlers.trace(seeded)
    returned = tracer()
    return tracer.trace, returned


def sampled(trace):
    return [name for name, site in trace.items() if site["type"] == "sample"]


def plates(site):
    return {frame.dim: frame.name for frame in site["cond_indep_stack"]}


# --- individual ---


def test_individual_has_the_sites_of_the_design(two):
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, V=30.0))
    assert sampled(trace) == ["omega_CL", "omega_V", "corr", "eta"]
    deterministic = [name for name, site in trace.items() if site["type"] == "deterministic"]
    assert deterministic == ["CL", "V"]


def test_eta_stands_in_the_subject_plate_and_names_its_parameters(two):
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, V=30.0))
    eta = trace["eta"]
    assert eta["value"].shape == (2, 1, 2)
    assert plates(eta) == {-2: "subject"}
    assert eta["infer"]["parameters"] == ("CL", "V")
    for outside in ("omega_CL", "corr"):
        assert plates(trace[outside]) == {}


def test_an_individual_parameter_is_its_typical_value_times_e_to_the_eta(two):
    eta = np.array([[[0.1, -0.2]], [[0.3, 0.0]]])
    size = two.covariate("WT") / 70
    _, p = trace_of(lambda: popk.individual(two, CL=2.0 * size, V=30.0), eta=jnp.asarray(eta))
    np.testing.assert_allclose(p.CL, [[2 * np.exp(0.1)], [np.exp(0.3)]], rtol=1e-14)
    np.testing.assert_allclose(p.V, [[30 * np.exp(-0.2)], [30]], rtol=1e-14)


def test_a_typical_value_that_changes_makes_a_parameter_that_changes(two):
    eta = jnp.asarray([[[0.1, 0.0]], [[-0.1, 0.0]]])
    renal = two.covariate("CRCL") / 100
    _, p = trace_of(lambda: popk.individual(two, CL=2.0 * renal, V=30.0), eta=eta)
    assert p.CL.shape == (2, 3)
    np.testing.assert_allclose(p.CL[0], 2 * np.array([0.9, 0.8, 0.6]) * np.exp(0.1), rtol=1e-14)


def test_eta_is_centred_on_the_typical_value_at_the_first_record(two):
    renal = two.covariate("CRCL") / 100
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0 * renal, V=30.0))
    typical = trace["eta"]["infer"]["typical"]
    np.testing.assert_allclose(typical, np.log([[[1.8, 30]], [[1.0, 30]]]), rtol=1e-14)


def test_omega_is_half_normal_of_scale_a_half_by_default_and_corr_is_lkj_2(two):
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, V=30.0))
    assert isinstance(trace["omega_CL"]["fn"], dist.HalfNormal)
    assert float(trace["omega_CL"]["fn"].scale) == 0.5
    assert isinstance(trace["corr"]["fn"], dist.LKJ)
    assert float(trace["corr"]["fn"].concentration) == 2.0


def test_priors_of_omega_and_lkj_may_be_given(two):
    omega = {"CL": 0.2, "V": dist.Exponential(3.0)}
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, V=30.0, KA=1.0, omega=omega, lkj=1.0))
    assert float(trace["omega_CL"]["fn"].scale) == 0.2
    assert isinstance(trace["omega_V"]["fn"], dist.Exponential)
    assert float(trace["omega_KA"]["fn"].scale) == 0.5
    assert float(trace["corr"]["fn"].concentration) == 1.0


def test_one_prior_of_omega_holds_for_all_parameters(two):
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, V=30.0, omega=0.1))
    assert [float(trace[f"omega_{n}"]["fn"].scale) for n in ("CL", "V")] == [0.1, 0.1]


def test_a_fixed_omega_is_not_sampled(two):
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, V=30.0, omega=popk.fixed(0.3)))
    assert sampled(trace) == ["corr", "eta"]
    assert float(trace["omega_CL"]["value"]) == 0.3


@pytest.mark.parametrize(
    "options", [{"correlated": False, "V": 30.0}, {}], ids=["asked", "one effect"]
)
def test_without_correlations_there_is_no_corr(options, two):
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, **options))
    assert "corr" not in trace
    covariance = trace["eta"]["fn"].base_dist.covariance_matrix
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)))


def test_eta_has_the_covariance_of_the_omegas_and_corr(two):
    corr = jnp.asarray([[1.0, 0.4], [0.4, 1.0]])
    trace, _ = trace_of(
        lambda: popk.individual(two, CL=2.0, V=30.0),
        omega_CL=jnp.asarray(0.3), omega_V=jnp.asarray(0.2), corr=corr,
    )  # fmt: skip
    expected = [[0.09, 0.4 * 0.06], [0.4 * 0.06, 0.04]]
    np.testing.assert_allclose(trace["eta"]["fn"].base_dist.covariance_matrix, expected, rtol=1e-12)


def refusal(part):
    with pytest.raises(popk.ModelError) as caught:
        trace_of(part)
    return str(caught.value)


def test_individual_without_a_parameter_is_refused(two):
    assert refusal(lambda: popk.individual(two)) == (
        "individual() was given no parameter; write individual(trial, CL=CL, V=V)"
    )


def test_a_parameter_named_like_an_axis_is_refused(two):
    says = refusal(lambda: popk.individual(two, CL=1.0, subject=2.0))
    assert says.startswith("a site is named 'subject', which is an axis of the results; rename it")


@pytest.mark.parametrize("name", RESERVED)
def test_a_parameter_of_a_reserved_name_is_refused(name, two):
    assert refusal(lambda: popk.individual(two, CL=1.0, **{name: 2.0})) == (
        f"the name {name!r} is kept for a site of popk's own; choose another one"
    )


def test_omega_of_an_unknown_parameter_is_refused(two):
    assert refusal(lambda: popk.individual(two, CL=1.0, V=2.0, omega={"KA": 0.3, "CL": 0.2})) == (
        "omega names KA, but the parameters are CL, V"
    )


@pytest.mark.parametrize("shape", [(2,), (3, 1), (2, 4), (1, 2), (2, 1, 1)])
def test_a_typical_value_of_a_wrong_shape_is_refused(shape, two):
    assert refusal(lambda: popk.individual(two, CL=jnp.ones(shape))) == (
        f"the typical value of CL has shape {shape}; it must be one value, or [subject, 1] or "
        f"[subject, record] as trial.covariate() gives"
    )


# --- observe ---

PREDICTION = jnp.asarray([[9.0, 5.5, 4.5], [4.0, 2.5, 1.0]])


def test_observe_has_the_sites_of_the_design(two):
    trace, _ = trace_of(lambda: popk.observe(two, PREDICTION, popk.combined_error(0.5, 0.2)))
    assert sampled(trace) == ["sigma_additive", "sigma_proportional", "DV"]
    np.testing.assert_array_equal(trace["IPRED"]["value"], PREDICTION)


def test_levels_stand_in_the_observation_plate_beside_their_predictions(two):
    trace, _ = trace_of(lambda: popk.observe(two, PREDICTION, popk.additive_error(0.5)))
    level = trace["DV"]
    assert plates(level) == {-1: "observation"}
    assert isinstance(level["fn"], Residual)
    np.testing.assert_array_equal(level["fn"].ipred, [5.5, 4.5, 2.5])


def test_levels_are_the_trial_s_own_unless_it_is_unobserved(two):
    trace, _ = trace_of(lambda: popk.observe(two, PREDICTION, popk.additive_error(0.5)))
    assert trace["DV"]["is_observed"]
    np.testing.assert_array_equal(trace["DV"]["value"], two.observations.value)
    hidden = two.unobserved()
    trace, _ = trace_of(lambda: popk.observe(hidden, PREDICTION, popk.additive_error(0.5)))
    assert not trace["DV"]["is_observed"]


def test_only_measured_levels_count_in_the_likelihood(two):
    trace, _ = trace_of(lambda: popk.observe(two, PREDICTION, popk.additive_error(popk.fixed(0.5))))
    expected = dist.Normal(jnp.asarray([5.5, 4.5]), 0.5).log_prob(jnp.asarray([5.0, 4.0]))
    np.testing.assert_allclose(trace["DV"]["fn"].log_prob(trace["DV"]["value"]), [*expected, 0])


def test_a_fixed_sigma_is_not_sampled(two):
    error = popk.combined_error(additive=popk.fixed(0.5), proportional=0.2)
    trace, _ = trace_of(lambda: popk.observe(two, PREDICTION, error))
    assert sampled(trace) == ["sigma_proportional", "DV"]
    assert float(trace["sigma_additive"]["value"]) == 0.5


@pytest.mark.parametrize("shape", [(2,), (2, 1), (3, 2), (1, 3)])
def test_a_prediction_of_another_shape_is_refused(shape, two):
    assert refusal(lambda: popk.observe(two, jnp.ones(shape), popk.additive_error(0.5))) == (
        f"observe() was given a prediction of shape {shape}; it needs one value for each subject and "
        f"record, (2, 3)"
    )


KINDS = """
ID TIME EVID AMT CMT DVID DV
1  0    1    100 1   0    .
1  1    0    0   2   1    5
1  1    0    0   3   2    3
1  4    0    0   2   1    4
"""


@pytest.fixture(scope="module")
def kinds():
    return trial(KINDS)


def ones(trial):
    return jnp.ones(trial.time.shape)


@pytest.mark.parametrize("which", [{"DVID": 2}, {"CMT": 3}, {"DVID": 2, "CMT": 3}])
def test_levels_of_one_kind_are_observed_alone_under_names_of_their_own(which, kinds):
    error = popk.combined_error(0.5, 0.2)
    trace, _ = trace_of(
        lambda: popk.observe(kinds, ones(kinds), error, output="metabolite", **which)
    )
    assert list(trace)[:3] == [
        "sigma_additive_metabolite", "sigma_proportional_metabolite", "IPRED_metabolite",
    ]  # fmt: skip
    site = trace["DV_metabolite"]
    assert site["infer"]["kinds"] == ((3, 2),)
    np.testing.assert_array_equal(site["fn"].own, [False, True, False])
    assert [bool(x != 0) for x in site["fn"].log_prob(site["value"])] == [False, True, False]


KIND = "levels as one kind, but they are CMT 2 DVID 1, CMT 3 DVID 2; call it for each"


def test_levels_of_several_kinds_are_not_observed_as_one(kinds):
    assert KIND in refusal(lambda: popk.observe(kinds, ones(kinds), popk.additive_error(1)))
    one_dvid = trial(KINDS.replace("3   2    3", "3   1    3"))
    says = refusal(lambda: popk.observe(one_dvid, ones(one_dvid), popk.additive_error(1)))
    assert says.endswith("popk.observe(..., output='metabolite', CMT=3)")
    popk.observe(one_dvid, ones(one_dvid), popk.additive_error(popk.fixed(1)), DVID=1)  # said so


def test_a_kind_that_the_trial_does_not_have_has_no_levels_and_no_weight(kinds):
    trace, _ = trace_of(
        lambda: popk.observe(kinds, ones(kinds), popk.additive_error(1), DVID=3, CMT=2)
    )
    assert not trace["DV"]["fn"].own.any()
    assert (trace["DV"]["fn"].log_prob(trace["DV"]["value"]) == 0).all()


def test_sites_of_the_user_s_own_stand_beside_those_of_popk(two):
    def part():
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        return popk.individual(two, CL=2.0 * jnp.exp(slope))

    trace, _ = trace_of(part)
    assert sampled(trace) == ["slope", "omega_CL", "eta"]
