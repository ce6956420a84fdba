"""Subpopulations: what levels of subjects of unknown class say, and of which class they are."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats

import popk
from popk.inference.density import constrained, layout
from popk.model.levels import curvatures_of, levels_of
from popk.model.sites import describe, values_of
from tests.diagnostics.people import marginal, people_trial
from tests.diagnostics.people import two_kinds as two_kinds_of_people
from tests.model.sites import plates, refusal, trace_of
from tests.recovery import recovered
from tests.trials import trial

LEVELS = """
    ID TIME EVID AMT DV MDV DVID
    1  0    1    1   .  1   1
    1  1    0    .   5  0   1
    1  2    0    .   6  0   1
    1  3    0    .   1  0   2
    2  0    1    1   .  1   1
    2  1    0    .   2  0   1
    2  2    0    .   .  1   1
"""
SHARE, LOW, HIGH = 0.3, 2.0, 5.0


@pytest.fixture(scope="module")
def two_kinds():
    return trial(LEVELS)


def two_outputs(trial):
    """Return nothing: levels at 2 or 5, and of the other kind at 0 or 1, by class."""
    mix = popk.mixture(trial, {"low": 1 - SHARE, "high": SHARE})
    flat = jnp.ones(trial.time.shape)
    error = popk.additive_error(popk.fixed(1.0))
    popk.observe(trial, mix(high=HIGH * flat, low=LOW * flat), error, DVID=1)
    popk.observe(trial, mix(low=0 * flat, high=flat), error, output="effect", DVID=2)


def by_hand():
    """Return each subject's likelihood in the classes low and high."""
    one = [
        stats.norm(f).pdf([5, 6]).prod() * stats.norm(g).pdf(1) for f, g in ((LOW, 0), (HIGH, 1))
    ]
    two = [stats.norm(f).pdf(2) for f in (LOW, HIGH)]
    return np.array([one, two]) * [1 - SHARE, SHARE]


def test_the_class_of_a_subject_is_summed_out_over_all_its_levels_of_every_kind(two_kinds):
    total, _ = log_density(two_outputs, (two_kinds.arrays(),), {}, {})
    assert float(total) == pytest.approx(np.log(by_hand().sum(1)).sum(), rel=1e-12)


def test_each_level_has_its_likelihood_given_those_before_it(two_kinds):
    levels = levels_of(handlers.trace(two_outputs).get_trace(two_kinds.arrays())).log_prob
    first = (1 - SHARE) * stats.norm(LOW).pdf(5) + SHARE * stats.norm(HIGH).pdf(5)
    assert float(levels[0]) == pytest.approx(np.log(first), rel=1e-12)
    assert float(levels[4]) == 0.0  # not measured
    assert float(levels.sum()) == pytest.approx(np.log(by_hand().sum(1)).sum(), rel=1e-12)


def test_the_posterior_holds_the_probability_of_each_class(two_kinds):
    plan = layout(two_outputs, two_kinds)
    found = constrained(two_outputs, plan, two_kinds.arrays(), jnp.zeros(0))["class_probability"]
    expected = by_hand() / by_hand().sum(1, keepdims=True)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-10)
    assert describe(two_outputs, two_kinds).classes == ("low", "high")


def test_simulated_subjects_are_of_one_class_each(two_kinds):
    def classes(key):
        ipred = values_of(two_outputs, two_kinds.arrays(), {}, key)
        return ipred["IPRED"][:, 0], ipred["IPRED_effect"][:, 0]

    levels, effects = jax.vmap(classes)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_array_equal(levels == HIGH, effects == 1.0)
    # 3.3 standard errors of a share of 0.3 in 8,000
    assert float((levels == HIGH).mean()) == pytest.approx(SHARE, abs=3.3 * np.sqrt(0.21 / 8000))


def test_simulated_subjects_are_of_the_class_that_is_given(two_kinds):
    given = {"class_probability": jnp.asarray([[[0.0, 1.0]], [[1.0, 0.0]]])}
    found = values_of(two_outputs, two_kinds.arrays(), given, jax.random.key(0))["IPRED"]
    np.testing.assert_array_equal(found[:, 0], [HIGH, LOW])


def test_the_curvature_weighs_each_class_by_its_probability(two_kinds):
    curves = curvatures_of(handlers.trace(two_outputs).get_trace(two_kinds.arrays()))
    # the second subject's only level, in the classes low and high; errors of variance 1
    expected = by_hand()[1] / by_hand()[1].sum()
    np.testing.assert_allclose(curves.information[:10].reshape(2, 5)[:, 3], expected, rtol=1e-10)


def test_gradients_of_a_mixture_agree_with_finite_differences(two_kinds):
    def model(share, high):
        def of(trial):
            mix = popk.mixture(trial, {"low": 1 - share, "high": share})
            flat = jnp.ones(trial.time.shape)
            error = popk.additive_error(popk.fixed(1.0))
            popk.observe(trial, mix(high=high * flat, low=LOW * flat), error, DVID=1)

        return log_density(of, (two_kinds.arrays(),), {}, {})[0]

    at, h = (0.3, 5.0), 1e-5
    for i, slope in enumerate(jax.grad(model, (0, 1))(*at)):
        up, down = ([x + d * (j == i) for j, x in enumerate(at)] for d in (h, -h))
        assert float(slope) == pytest.approx(float(model(*up) - model(*down)) / (2 * h), rel=1e-7)


def test_a_prediction_at_given_values_needs_the_class_of_each_subject(two_kinds):
    values = {"class_probability": [[0, 1], [1, 0]]}
    found = popk.predict_at(two_outputs, two_kinds, values, output="effect")
    np.testing.assert_array_equal(found[:, 0], [1, 0])
    with pytest.raises(
        popk.ModelError, match=r"^values lacks class_probability \(subject, class\)"
    ):
        popk.predict_at(two_outputs, two_kinds, {}, output="effect")


def test_bad_mixtures_are_refused(two_kinds):
    def mixed(*args, **given):
        return refusal(lambda: popk.mixture(two_kinds, *args)(**given))

    assert mixed({"one": 1.0}) == (
        "mixture() was given the classes one; it needs at least two, each named as a Python argument "
        "is: {'fast': 1 - share, 'slow': share}"
    )
    assert mixed({"a": 0.5, "b": 0.6}) == (
        "the probabilities of a, b add up to 1.1, or one is negative; they must add up to 1"
    )
    assert mixed({"a": 0.5, "b": 0.5}, a=1.0) == (
        "the mixture was given a; it needs one prediction for each of its classes, a, b"
    )
    changing = np.full(two_kinds.time.shape, 0.5)
    assert mixed({"a": changing, "b": changing}).startswith("a class is for a subject as a whole")


def test_probabilities_that_a_model_computes_wrongly_have_no_density(two_kinds):
    def model(share):
        def of(trial):
            mix = popk.mixture(trial, {"low": share, "high": share})
            flat = jnp.ones(trial.time.shape)
            popk.observe(
                trial, mix(high=flat, low=flat), popk.additive_error(popk.fixed(1.0)), DVID=1
            )

        return log_density(of, (two_kinds.arrays(),), {}, {})[0]

    assert np.isnan(jax.jit(model)(0.3))
    assert np.isfinite(jax.jit(model)(0.5))


def test_two_mixtures_in_one_model_are_refused(two_kinds):
    def model(trial):
        flat, error = jnp.ones(trial.time.shape), popk.additive_error(1)
        one = popk.mixture(trial, {"a": 0.5, "b": 0.5})
        popk.observe(trial, one(a=flat, b=flat), error, DVID=1)
        two = popk.mixture(trial, {"c": 0.5, "d": 0.5})
        popk.observe(trial, two(c=flat, d=flat), error, output="effect", DVID=2)

    with pytest.raises(popk.ModelError, match=r"^the model has two mixtures; give one"):
        describe(model, two_kinds)


def test_random_effects_that_are_common_to_the_classes_are_refused(two_kinds):
    def model(trial):
        p = popk.individual(trial, CL=2.0)
        mix = popk.mixture(trial, {"a": 0.5, "b": 0.5})
        flat = p.CL * jnp.ones(trial.time.shape)
        popk.observe(trial, mix(a=flat, b=2 * flat), popk.additive_error(1), DVID=1)

    with pytest.raises(
        popk.ModelError, match=r"give each class its own: popk.individual\(trial, classes"
    ):
        describe(model, trial(LEVELS.replace("0   2", "0   1")))


def test_each_class_has_random_effects_of_its_own(two_kinds):
    def part():
        mix = popk.mixture(two_kinds, {"a": 0.5, "b": 0.5})
        return popk.individual(two_kinds, classes=mix, CL={"a": 2.0, "b": 4.0}, V=30.0)

    eta = jnp.arange(8.0).reshape(2, 2, 2) / 10
    trace, of = trace_of(part, eta=eta)
    assert plates(trace["eta"]) == {-2: "subject", -1: "class"}
    np.testing.assert_allclose(of.a.CL[:, 0], 2 * np.exp([0.0, 0.4]), rtol=1e-12)
    np.testing.assert_allclose(of.b.CL[:, 0], 4 * np.exp([0.2, 0.6]), rtol=1e-12)
    np.testing.assert_allclose(of.b.V[:, 0], 30 * np.exp([0.3, 0.7]), rtol=1e-12)
    np.testing.assert_array_equal(trace["V_b"]["value"], of.b.V)


def test_a_typical_value_for_some_of_the_classes_is_refused(two_kinds):
    assert (
        refusal(
            lambda: popk.individual(
                two_kinds, classes=popk.mixture(two_kinds, {"a": 0.5, "b": 0.5}), CL={"a": 2.0}
            )
        )
        == "the typical value of CL is given for a; the class b lacks one"
    )
    assert refusal(lambda: popk.individual(two_kinds, CL={"a": 2.0, "b": 3.0})) == (
        "the typical value of CL is given for a, b; individual() was given no classes="
    )


def metabolizers(trial):
    """Oral drug, one compartment: a third clear it six times slower."""
    share = numpyro.sample("POOR_pop", dist.Beta(2, 2))
    CL = numpyro.sample("CL_pop", popk.lognormal(4, cv=0.5))  # L/h
    ratio = numpyro.sample("CL_ratio", popk.lognormal(5, cv=0.3))
    V = numpyro.sample("V_pop", popk.lognormal(30, cv=0.5))  # L
    mix = popk.mixture(trial, {"extensive": 1 - share, "poor": share})
    of = popk.individual(
        trial,
        classes=mix,
        CL={"extensive": CL, "poor": CL / ratio},
        V=V,
        correlated=False,
        omega=0.3,
    )
    extensive, poor = (popk.one_compartment(trial, CL=p.CL, V=p.V) for p in of)
    popk.observe(trial, mix(extensive=extensive, poor=poor), popk.proportional_error(0.2))


TRUTH = {"POOR_pop": 0.33, "CL_pop": 4.0, "CL_ratio": 6.0, "V_pop": 30.0,
         "omega_CL": 0.25, "omega_V": 0.15, "sigma_proportional": 0.15}  # fmt: skip


def simulated(subjects, seed):
    """Return a simulated trial of intravenous doses with six levels each, and who is poor."""
    times = (1, 2, 4, 8, 12, 24)
    rows = [(i, t, int(t == 0), 100 if t == 0 else 0, 1) for i in range(1, subjects + 1)
            for t in (0, *times)]  # fmt: skip
    lines = ["ID TIME EVID AMT DV", *(" ".join(map(str, row)) for row in rows)]
    blank = trial("\n".join(lines))
    given = {name: jnp.asarray(value) for name, value in TRUTH.items()}
    found = values_of(metabolizers, blank.arrays(), given, jax.random.key(seed))
    frame = blank.to_dataframe()
    frame.loc[frame["EVID"].eq(0), "DV"] = np.asarray(found["DV"])
    return popk.read_nonmem(frame), np.asarray(found["subject_class"])[:, 0] == 1


@pytest.fixture(scope="module")
def fitted():
    study, poor = simulated(24, seed=3)
    posterior = popk.fit(
        metabolizers,
        study,
        seed=1,
        chains=2,
        warmup=150,
        draws=150,
        target_accept=0.9,
        progress=False,
    )
    return study, poor, posterior


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::popk.ConvergenceWarning")
class TestFit:
    def test_each_subject_is_put_in_its_class(self, fitted):
        _, poor, posterior = fitted
        probable = posterior["posterior"]["class_probability"].mean(("chain", "draw"))
        assert probable.dims == ("subject", "class")
        assert list(probable["class"].values) == ["extensive", "poor"]
        right = (
            probable.sel({"class": "poor"}).values[poor],
            probable.sel({"class": "extensive"}).values[~poor],
        )
        assert np.concatenate(right).mean() > 0.9
        # who is put in a class with certainty is of it
        assert min(np.concatenate(right)) > 0.01

    def test_the_population_is_found_again(self, fitted):
        posterior = fitted[2]["posterior"]
        for name, truth in TRUTH.items():
            assert abs(float(posterior[name].mean()) - truth) < 3.5 * float(
                posterior[name].std()
            ), name

    def test_predictions_of_its_own_subjects_are_of_their_classes(self, fitted):
        study, poor, posterior = fitted
        found = popk.predict(metabolizers, posterior, study, seed=1, draws=32)
        levels = found["posterior_predictive"]["IPRED"]
        late = levels.isel(observation=levels["TIME"] == 24).median("sample")
        assert late[poor].min() > late[~poor].max()

    def test_a_twin_learns_its_class_from_its_levels(self, fitted):
        study, poor, posterior = fitted
        someone = study[study.ids[int(np.flatnonzero(poor)[0])]]
        table = someone.to_dataframe()
        attrs = table.attrs
        early = table[table["TIME"] <= 1]
        early.attrs = attrs
        before = popk.Twin(metabolizers, posterior, popk.read_nonmem(early)).class_probability
        after = popk.Twin(metabolizers, posterior, someone).class_probability
        assert 0.2 < float(before.sel({"class": "poor"})) < 0.7
        assert float(after.sel({"class": "poor"})) > 0.99


@pytest.mark.slow
def test_a_twin_without_levels_is_of_each_class_as_probably_as_the_model_says():
    draws = xr.Dataset({"mu": (("chain", "draw"), np.full((1, 200), 8.0))})
    frame = people_trial([[8.0]]).to_dataframe().assign(MDV=1)
    twin = popk.Twin(
        two_kinds_of_people, xr.DataTree.from_dict({"posterior": draws}), popk.read_nonmem(frame)
    )  # fmt: skip
    assert twin.class_probability.values == pytest.approx([0.3, 0.7], abs=0.02)


def test_a_twin_s_first_level_counts_once():
    draws = xr.Dataset({"mu": (("chain", "draw"), np.full((1, 200), 8.0))})
    posterior = xr.DataTree.from_dict({"posterior": draws})
    twin = popk.Twin(two_kinds_of_people, posterior, people_trial([[9.0]]))
    weighed = np.array([0.3, 0.7]) * np.exp([marginal([9.0], m)[0] for m in (8.0, 11.0)])
    assert twin.class_probability.values == pytest.approx(weighed / weighed.sum(), abs=0.02)


@pytest.mark.slow
def test_ninety_percent_intervals_hold_the_truth_in_about_ninety_percent_of_trials():
    trials = [simulated(60, seed)[0] for seed in range(20)]
    recovered(metabolizers, trials, [TRUTH] * 20, warmup=400).check()
