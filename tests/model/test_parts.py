"""What is measured? The levels of a model, around its predictions."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from popk.residual import Residual
from tests.model.sites import plates, refusal, sampled, trace_of
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
