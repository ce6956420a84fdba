"""What is believed before the data?"""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

import popk
from popk.priors import Fixed, half_normal
from popk.runs import load_model


@pytest.mark.parametrize(("median", "cv"), [(2.8, 0.5), (0.005, 0.3), (32, 1.0), (1, 2.5)])
def test_lognormal_has_its_median_and_coefficient_of_variation(median, cv):
    prior = popk.lognormal(median, cv=cv)
    assert float(prior.icdf(0.5)) == pytest.approx(median, rel=1e-12)
    assert float(np.sqrt(prior.variance) / prior.mean) == pytest.approx(cv, rel=1e-12)


def test_lognormal_is_the_log_normal_distribution_of_log_sd_sqrt_log_1_plus_cv_squared():
    prior = popk.lognormal(2.8, cv=0.5)
    reference = stats.lognorm(s=np.sqrt(np.log(1.25)), scale=2.8)
    for x in (0.1, 1.0, 2.8, 9.0):
        assert float(prior.log_prob(x)) == pytest.approx(reference.logpdf(x), rel=1e-12)


@pytest.mark.parametrize(
    ("median", "cv"), [(0, 0.5), (-1, 0.5), (1, 0), (1, -0.1), (float("nan"), 1)]
)
def test_lognormal_refuses_what_is_not_positive(median, cv):
    with pytest.raises(ValueError, match="both must be positive") as caught:
        popk.lognormal(median, cv=cv)
    assert str(caught.value).startswith(f"lognormal(median={median}, cv={cv}):")


def test_fixed_holds_a_value_in_the_place_of_a_prior():
    assert popk.fixed(2) == Fixed(2.0)
    assert isinstance(popk.fixed(2).value, float)


def test_a_number_is_the_scale_of_a_half_normal():
    prior = half_normal(0.4)
    assert isinstance(prior, dist.HalfNormal)
    assert float(prior.log_prob(0.3)) == pytest.approx(stats.halfnorm(scale=0.4).logpdf(0.3))
    assert isinstance(half_normal(1), dist.HalfNormal)


@pytest.mark.parametrize(
    "prior", [popk.fixed(0.2), dist.Exponential(3.0)], ids=["fixed", "distribution"]
)
def test_a_prior_that_is_given_is_taken_as_it_is(prior):
    assert half_normal(prior) is prior


@pytest.mark.parametrize("scale", [0, -0.5, 0.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused_with_the_way_to_fix_a_value(scale):
    with pytest.raises(ValueError, match=r"must be positive; popk\.fixed") as caught:
        half_normal(scale)
    assert str(caught.value) == (
        f"{scale} is no scale of a half-normal prior: it must be positive; "
        f"popk.fixed({scale}) fixes the value itself"
    )


def test_a_published_estimate_is_a_normal_prior_of_its_standard_error():
    found = popk.prior(-0.5, rse=0.2)
    assert (float(found.loc), float(found.scale)) == (-0.5, 0.1)


def test_of_a_positive_parameter_it_is_log_normal():
    found = popk.prior(2.8, rse=0.3, positive=True)
    assert float(found.icdf(0.5)) == pytest.approx(2.8)
    assert float(np.sqrt(found.variance) / found.mean) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("estimate", "options"),
    [
        (0.0, {"rse": 0.2}),
        (1.0, {"rse": 0}),
        (-1.0, {"rse": 0.2, "positive": True}),
        (float("nan"), {"rse": 1}),
    ],
)
def test_an_estimate_that_makes_no_prior_is_refused(estimate, options):
    with pytest.raises(ValueError, match="rse must be positive and the estimate not 0"):
        popk.prior(estimate, **options)


# The posterior of one study as the prior of the next

RNG = np.random.default_rng(3)
LOGS = RNG.multivariate_normal(
    [1.0, 3.5, -1.2], [[0.04, 0.018, 0], [0.018, 0.09, 0], [0, 0, 0.01]], 4000
)


def study(**draws):
    data = {n: (("chain", "draw"), np.reshape(x, (2, -1))) for n, x in draws.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data)})


@pytest.fixture(scope="module")
def first():
    effect = RNG.normal(-0.5, 0.1, 4000)
    positive = dict(zip(("CL_pop", "V_pop", "omega_CL"), np.exp(LOGS).T, strict=True))
    return study(**positive, CL_AAG=effect, omega_KA=np.abs(RNG.normal(0, 1, 4000)))


def test_a_positive_parameter_keeps_mean_and_sd_of_its_logarithm(first):
    found = popk.prior_from(first, ["CL_pop", "omega_CL"])
    assert list(found) == ["CL_pop", "omega_CL"]
    for name, z in zip(found, LOGS.T[[0, 2]], strict=True):
        assert isinstance(found[name], dist.LogNormal)
        assert float(found[name].loc) == pytest.approx(z.mean(), rel=1e-12)
        assert float(found[name].scale) == pytest.approx(z.std(ddof=1), rel=1e-12)


def test_one_of_either_sign_keeps_mean_and_sd(first):
    found = popk.prior_from(first, ["CL_AAG"])["CL_AAG"]
    x = first["posterior"]["CL_AAG"].values
    assert isinstance(found, dist.Normal)
    assert (float(found.loc), float(found.scale)) == pytest.approx((x.mean(), x.std(ddof=1)))
    signed = popk.prior_from(first, ["CL_pop"], signed=["CL_pop"])["CL_pop"]
    assert isinstance(signed, dist.Normal)
    assert float(signed.loc) == pytest.approx(float(np.exp(LOGS[:, 0]).mean()))


def test_parameters_given_those_before_them_keep_their_correlation(first):
    found = popk.prior_from(first, ["CL_pop", "V_pop"])
    mean, s = LOGS[:, :2].mean(0), np.cov(LOGS[:, :2].T)
    CL, V = 3.3, 41.0
    slope = s[0, 1] / s[0, 0]
    given = found.given("V_pop", CL_pop=CL)
    assert float(given.loc) == pytest.approx(mean[1] + slope * (np.log(CL) - mean[0]))
    assert float(given.scale) == pytest.approx(np.sqrt(s[1, 1] - slope * s[0, 1]))
    together = float(found["CL_pop"].log_prob(CL) + given.log_prob(V))
    joint = stats.multivariate_normal(mean, s).logpdf(np.log([CL, V])) - np.log(CL * V)
    assert together == pytest.approx(joint, rel=1e-10)
    other = found["V_pop"].log_prob(V) + found.given("CL_pop", V_pop=V).log_prob(CL)
    assert float(other) == pytest.approx(joint, rel=1e-10)


def test_inflation_widens_and_keeps_correlation(first):
    once, twice = (popk.prior_from(first, ["CL_pop", "V_pop"], inflate=x) for x in (1, 2))
    assert float(twice["V_pop"].scale) == pytest.approx(2 * float(once["V_pop"].scale))
    assert float(twice["V_pop"].loc) == float(once["V_pop"].loc)
    a, b = (float(p.given("V_pop", CL_pop=3.3).loc) for p in (once, twice))
    assert a == pytest.approx(b)


def test_a_posterior_that_the_form_does_not_fit_is_refused_unless_accepted(first):
    # The logarithm of |N(0, 1)| has mean -0.635 and sd 1.111: its 95% quantile, 0.673, is 0.47 sd
    # below that of the normal distribution, 1.192.
    with pytest.raises(ValueError, match=r"omega_KA is not log-normal: its 95% quantile lies 0\.4"):
        popk.prior_from(first, ["CL_pop", "omega_KA"])
    assert float(popk.prior_from(first, ["omega_KA"], tolerance=0.6)["omega_KA"].loc) < 0


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["Q_pop"], {}, "the posterior lacks Q_pop; it has CL_pop, V_pop"),
        ([], {}, "give different parameters"),
        ("CL_pop", {}, "give different parameters"),
        (["CL_pop", "CL_pop"], {}, "give different parameters"),
        (["CL_pop"], {"inflate": 0}, "must be positive"),
        (["CL_pop"], {"signed": ["V_pop"]}, "signed names V_pop, none of CL_pop"),
    ],
)
def test_what_makes_no_prior_is_refused(first, names, options, says):
    with pytest.raises(ValueError, match=says):
        popk.prior_from(first, names, **options)


def test_constants_matrices_and_repetitions_are_refused(first):
    with pytest.raises(ValueError, match="A is constant or not finite"):
        popk.prior_from(study(A=np.ones(10)), ["A"])
    matrix = xr.Dataset({"corr": (("chain", "draw", "a", "b"), np.ones((1, 5, 2, 2)))})
    with pytest.raises(ValueError, match="corr is not one number"):
        popk.prior_from(xr.DataTree.from_dict({"posterior": matrix}), ["corr"])
    x = first["posterior"]["CL_pop"].values
    with pytest.raises(ValueError, match="of A, B some follow from the others"):
        popk.prior_from(study(A=x, B=2 * x), ["A", "B"])
    found = popk.prior_from(first, ["CL_pop", "V_pop"])
    with pytest.raises(KeyError, match="no prior of Q_pop"):
        found.given("Q_pop")
    with pytest.raises(ValueError, match="CL_pop is given itself"):
        found.given("CL_pop", CL_pop=2.0)


MODEL = '''
import numpyro

import popk

PRIOR = popk.prior_from(
    popk.open_run(r"{path}").posterior, ["CL_pop", "V_pop", "KA_pop"]
)


def second(trial):
    """The first study's posterior is the prior of this one."""
    CL = numpyro.sample("CL_pop", PRIOR["CL_pop"])
    V = numpyro.sample("V_pop", PRIOR.given("V_pop", CL_pop=CL))
    KA = numpyro.sample("KA_pop", PRIOR.given("KA_pop", CL_pop=CL, V_pop=V))
    p = popk.individual(trial, CL=CL, V=V, KA=KA)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA), popk.additive_error(1))
'''


def test_a_model_file_takes_its_priors_from_a_saved_run(tmp_path, theophylline_model, theophylline):
    first = study(**dict(zip(("CL_pop", "V_pop", "KA_pop"), np.exp(LOGS).T, strict=True)))
    run = popk.save_run(tmp_path / "1", theophylline_model, first, theophylline)
    file = tmp_path / "second.py"
    file.write_text(MODEL.format(path=run.path))
    prior = popk.prior_draws(load_model(file), theophylline, seed=1, draws=4000)["prior"]
    drawn = np.log([prior[n].values.ravel() for n in ("CL_pop", "V_pop", "KA_pop")])
    sd = LOGS.std(0)
    np.testing.assert_allclose((drawn.mean(1) - LOGS.mean(0)) / sd, 0, atol=0.06)  # 4 / sqrt(4000)
    np.testing.assert_allclose(drawn.std(1) / sd, 1, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(drawn), np.corrcoef(LOGS.T), atol=0.07)
