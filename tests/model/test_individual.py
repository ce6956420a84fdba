"""Who is treated? Individual parameters around their typical values."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import popk
from popk.model.sites import AXES, RESERVED, describe
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


# --- log-normal parameters ---


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


def test_individual_without_a_parameter_is_refused(two):
    assert refusal(lambda: popk.individual(two)) == (
        "individual() was given no parameter; write individual(trial, CL=CL, V=V)"
    )


def test_a_parameter_named_like_an_axis_is_refused(two):
    says = refusal(lambda: popk.individual(two, CL=1.0, subject=2.0))
    assert says.startswith("a site is named 'subject', which is an axis of the results; rename it")


@pytest.mark.parametrize("name", [n for n in RESERVED if n not in AXES])
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


# --- other random effects ---


def test_a_transform_keeps_a_parameter_within_its_bounds(two):
    eta = jnp.asarray([[[0.4, -1.0, 2.0]], [[0.0, 0.5, -3.0]]])
    forms = {"F": "logit", "B": popk.logit_between(2, 6), "P": "probit"}
    _, p = trace_of(
        lambda: popk.individual(two, F=0.8, B=3.0, P=0.5, transform=forms), eta=eta, corr=jnp.eye(3)
    )
    np.testing.assert_allclose(p.F[:, 0], [0.8 / (0.8 + 0.2 * np.exp(-0.4)), 0.8], rtol=1e-12)
    np.testing.assert_allclose(
        p.B[:, 0], [2 + 4 / (1 + 3 * np.exp(1.0)), 2 + 4 / (1 + 3 * np.exp(-0.5))], rtol=1e-12
    )
    np.testing.assert_allclose(p.P[:, 0], stats.norm.cdf([2.0, -3.0]), rtol=1e-12)


def test_a_normal_parameter_is_its_typical_value_plus_eta_and_needs_a_prior(two):
    _, p = trace_of(
        lambda: popk.individual(two, E0=-3.0, transform="normal", omega={"E0": 2.0}),
        eta=jnp.asarray([[[1.5]], [[0.0]]]),
    )
    np.testing.assert_allclose(p.E0[:, 0], [-1.5, -3.0])
    assert refusal(lambda: popk.individual(two, E0=-3.0, transform="normal")) == (
        "the random effect of E0 is normal, its standard deviation in the unit of E0: say a prior of "
        "it, omega={'E0': ...}"
    )


def test_random_effects_in_blocks_are_correlated_within_them_alone(two):
    within = jnp.asarray([[1, 0.6], [0.6, 1]])
    trace, _ = trace_of(
        lambda: popk.individual(two, CL=1.0, KA=2.0, V=30.0, correlated=[("V", "CL")]),
        corr_V_CL=within,
    )
    assert "corr" not in sampled(trace)
    np.testing.assert_array_equal(trace["corr"]["value"], [[1, 0, 0.6], [0, 1, 0], [0.6, 0, 1]])


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ([("CL", "F")], "has the block ('CL', 'F'); a block is two or more different parameters"),
        ([("CL",)], "has the block ('CL',)"),
        (["CL"], "has the block ('C', 'L')"),
        ([("CL", "V"), ("V", "KA")], "has V in two blocks; one is the most"),
    ],
)
def test_a_block_of_anything_but_parameters_with_a_random_effect_is_refused(blocks, says, two):
    assert says in refusal(lambda: popk.individual(two, CL=1.0, V=30.0, KA=1.0, correlated=blocks))


def test_a_block_with_a_parameter_that_shares_its_random_effect_is_refused(two):
    assert refusal(
        lambda: popk.individual(
            two, CL=1.0, V=30.0, KA=1.0, share={"V": "CL"}, correlated=[("CL", "V")]
        )
    ) == (
        "correlated has the block ('CL', 'V'); a block is two or more different parameters with a random "
        "effect of their own, which are CL, KA"
    )


def test_correlations_made_of_blocks_have_the_axes_of_a_matrix(two):
    def model(trial):
        p = popk.individual(trial, CL=1.0, V=30.0, KA=2.0, correlated=[("CL", "V")])
        popk.observe(trial, p.CL * p.V * p.KA * jnp.ones(two.time.shape), popk.additive_error(1))

    sites = describe(model, two)
    assert sites.all["corr"].dims == ("parameter", "parameter2")
    assert sites.all["corr"].kind == "deterministic"
    assert sites.all["corr_CL_V"].kind == "population"


def test_a_shared_random_effect_is_a_multiple_of_another_s(two):
    eta = jnp.asarray([[[0.4]], [[-0.2]]])
    trace, p = trace_of(
        lambda: popk.individual(two, CL=2.0, V=30.0, share={"V": "CL"}), eta=eta, share_V=0.5
    )
    assert sampled(trace) == ["omega_CL", "share_V", "eta"]
    np.testing.assert_allclose(p.V[:, 0], 30 * np.exp([0.2, -0.1]), rtol=1e-12)
    assert trace["eta"]["infer"]["parameters"] == ("CL",)
    assert trace["eta"]["infer"]["transforms"] == {"CL": "log", "V": "log"}
    assert "F must be a parameter" in refusal(
        lambda: popk.individual(two, CL=2.0, V=30.0, share={"F": "CL"})
    )
    assert "and CL one with an effect of its own (none is left)" in refusal(
        lambda: popk.individual(two, CL=2.0, V=30.0, share={"V": "CL", "CL": "V"})
    )


def test_degrees_of_freedom_make_random_effects_t(two):
    trace, _ = trace_of(
        lambda: popk.individual(two, CL=2.0, degrees=popk.fixed(4), omega=popk.fixed(0.3))
    )
    found = trace["eta"]["fn"].log_prob(jnp.asarray([[[0.9]], [[0.0]]]))
    np.testing.assert_allclose(found[:, 0], stats.t(4, scale=0.3).logpdf([0.9, 0.0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"transform": "logg"},
            "transform of CL is 'logg'; it must be one of log, normal, logit, probit",
        ),
        ({"transform": {"KA": "log"}}, "transform names KA, but the parameters are CL, V"),
        ({"iov": {"OCC": ["KA"]}}, "iov of OCC names KA, but the parameters are CL, V"),
        ({"iov": {"OCC": "CL"}}, "iov of OCC is 'CL'; write iov={'OCC': ['CL']}"),
        ({"share": {"V": "CL"}, "omega": {"V": 0.3}}, "omega names V, but the parameters are CL"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options, says, two):
    assert says in refusal(lambda: popk.individual(two, CL=2.0, V=30.0, **options))


# --- occasions ---

OCCASIONS = """
ID TIME EVID AMT DV MDV OCC PERIOD
1  0    1    100 .  1   3   1
1  1    0    0   5  0   3   1
1  24   1    100 .  1   5   1
1  25   0    0   4  0   5   2
2  0    1    50  .  1   1   1
2  3    0    0   2  1   1   1
"""


@pytest.fixture(scope="module")
def occasions():
    return trial(OCCASIONS, OCC="1", PERIOD="1")


def test_a_parameter_varies_between_the_occasions_that_a_column_numbers(occasions):
    kappa = jnp.asarray([[[0.1], [-0.3]], [[0.2], [9.0]]])
    trace, p = trace_of(
        lambda: popk.individual(occasions, CL=2.0, V=30.0, iov={"OCC": ["CL"]}),
        kappa=kappa, eta=jnp.zeros((2, 1, 2)),
    )  # fmt: skip
    assert sampled(trace) == ["omega_CL", "omega_V", "corr", "eta", "gamma_CL", "kappa"]
    assert plates(trace["kappa"]) == {-2: "subject", -1: "occasion"}
    np.testing.assert_allclose(p.CL[0], 2 * np.exp([0.1, 0.1, -0.3, -0.3]), rtol=1e-12)
    np.testing.assert_allclose(p.CL[1, :2], 2 * np.exp(0.2), rtol=1e-12)
    assert p.V.shape == (2, 1)


def test_there_may_be_occasions_of_several_levels_with_priors_of_their_own(occasions):
    levels = {"OCC": {"CL": 0.3}, "PERIOD": {"CL": popk.fixed(0.2), "V": 0.1}}
    trace, p = trace_of(lambda: popk.individual(occasions, CL=2.0, V=30.0, iov=levels))
    assert [n for n in sampled(trace) if n.startswith(("gamma", "kappa"))] == [
        "gamma_CL", "kappa", "gamma_V_PERIOD", "kappa_PERIOD",
    ]  # fmt: skip
    assert trace["gamma_CL"]["fn"].scale == 0.3
    assert p.V.shape == (2, 4)


def test_a_column_that_is_no_number_of_an_occasion_is_refused(two, occasions):
    with pytest.raises(popk.DataError, match="KG is no covariate of it"):
        trace_of(lambda: popk.individual(occasions, CL=2.0, iov={"KG": ["CL"]}))
    other = trial(
        OCCASIONS.replace("5   1", "5.5 1").replace("5   2", "5.5 2"), OCC="1", PERIOD="1"
    )
    with pytest.raises(
        popk.DataError, match="OCC does not number occasions: it is no whole number"
    ):
        trace_of(lambda: popk.individual(other, CL=2.0, iov={"OCC": ["CL"]}))
    trace, _ = trace_of(lambda: popk.individual(two, CL=2.0, iov={"WT": ["CL"]}))
    assert trace["kappa"]["value"].shape == (2, 1, 1)  # constant in each subject: one occasion


WALK = """
ID TIME EVID AMT DV MDV DAY
1  0    1    100 .  1   1
1  1    0    0   5  0   1
1  24   1    100 .  1   2
1  73   0    0   4  0   4
2  0    1    50  .  1   1
2  9    0    0   2  1   2
"""


def test_a_parameter_that_drifts_walks_at_random_between_occasions():
    """Steps of 24 h and 49 h: each is gamma times the root of its length times z; the first is none."""
    walk = trial(WALK, DAY="1")
    z = jnp.asarray([[[9.0], [0.5], [-1.0]], [[9.0], [2.0], [9.0]]])
    trace, p = trace_of(
        lambda: popk.individual(walk, CL=2.0, V=30.0, drift={"DAY": {"CL": 0.02}}),
        gamma_CL_drift=0.1, kappa_drift=0.1 * z, eta=jnp.zeros((2, 1, 2)),
    )  # fmt: skip
    assert sampled(trace)[-2:] == ["gamma_CL_drift", "kappa_drift"]
    assert trace["gamma_CL_drift"]["fn"].scale == 0.02
    second = 0.1 * 0.5 * 24**0.5
    first = [0, 0, second, second - 0.1 * 49**0.5]
    np.testing.assert_allclose(p.CL[0], 2 * np.exp(first), rtol=1e-12)
    np.testing.assert_allclose(p.CL[1, :2], 2 * np.exp([0, 0.1 * 2 * 3]), rtol=1e-12)
    assert p.V.shape == (2, 1)


def test_a_parameter_may_drift_and_vary_between_occasions():
    walk = trial(WALK, DAY="1")
    trace, p = trace_of(
        lambda: popk.individual(walk, CL=2.0, iov={"DAY": ["CL"]}, drift={"DAY": {"CL": 0.02}}),
        kappa=jnp.full((2, 3, 1), 0.3), kappa_drift=jnp.full((2, 3, 1), 0.1), eta=jnp.zeros((2, 1, 1)),
    )  # fmt: skip
    assert {"gamma_CL", "gamma_CL_drift"} <= set(sampled(trace))
    np.testing.assert_allclose(p.CL[1, :2], 2 * np.exp([0.3, 0.3 + 0.1 * 3]), rtol=1e-12)


def test_a_drift_without_a_prior_or_on_a_clock_that_restarts_is_refused():
    walk = trial(WALK, DAY="1")
    said = refusal(lambda: popk.individual(walk, CL=2.0, drift={"DAY": {}}))
    assert "write drift={'DAY': {'CL': 0.02}}" in said

    def model(trial):
        p = popk.individual(trial, CL=2.0, drift={"DAY": {"CL": 0.02}})
        popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=30.0), popk.additive_error(1))

    values = {"omega_CL": 0.3, "gamma_CL_drift": 0.1, "sigma_additive": 1.0}
    again = trial(WALK.replace("24   1    100", "0.5  4    100"), DAY="1")
    with pytest.raises(popk.ModelError, match="a drift needs occasions on one clock"):
        popk.predict_at(model, again, values)


def test_two_occasions_of_one_number_are_refused_by_row():
    def model(trial):
        p = popk.individual(trial, CL=2.0, V=30.0, iov={"OCC": ["CL"]})
        popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), popk.additive_error(1))

    again = trial(
        OCCASIONS.replace("25   0    0   4  0   5", "25   0    0   4  0   3"), OCC="1", PERIOD="1"
    )
    with pytest.raises(popk.ModelError) as caught:
        describe(model, again)
    assert str(caught.value).endswith(
        "ID 1  TIME 25: occasion OCC 3 begins a second time; give each occasion of a subject its own number"
    )
    sites = describe(model, trial(OCCASIONS, OCC="1", PERIOD="1"))
    assert sites.all["kappa"].dims == ("subject", "occasion", "iov")
    assert sites.iov == {"kappa": ("CL",)}
