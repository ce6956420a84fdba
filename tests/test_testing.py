"""Does my own model keep the contract? popk's published ones do, and each way of breaking it is found."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import popk
from popk import testing
from popk.inference.density import layout
from popk.model.sites import describe
from tests.designs import DESIGNS, NAMES, designed, model_file, trial_for
from tests.trials import trial

# --- the published models ---

FIGURES = [(name, figure) for name, design in DESIGNS.items() for figure in design.figures]


@functools.cache
def file_and_design(name):
    file = model_file(name)
    return file, designed(DESIGNS[name], file)


#: Their structures and events are those of other models: they wait for `-m slow`.
ALIKE = (
    "cefamandole",
    "gentamicin",
    "indomethacin",
    "mavrilimumab",
    "morphine",
    "paclitaxel",
    "phenobarbital",
    "phenobarbital_covariates",
    "phenytoin",
    "propofol",
    "quinidine",
    "quinidine_covariates",
    "remifentanil",
    "remifentanil_eeg",
    "rifampicin",
    "rifampicin_induction",
    "simulated_hepatic",
    "vancomycin",
    "warfarin",
    "xenograft",
    "zanubrutinib",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in NAMES]
)
def test_a_published_model_keeps_the_contract(name):
    file = model_file(name)
    published = getattr(file, "PUBLISHED", None)
    testing.check_model(getattr(file, name), trial_for(name), values=published)


@pytest.mark.parametrize(
    ("name", "figure"), FIGURES, ids=[f"{n}-{f.output or ''}{f.TIME:g}" for n, f in FIGURES]
)
def test_a_published_model_gives_the_level_that_its_values_imply(name, figure):
    file, made = file_and_design(name)
    found = popk.predict_at(getattr(file, name), made, file.PUBLISHED, output=figure.output)
    own = found.sel(subject=figure.subject)
    levels = own.values[own["TIME"].values == figure.TIME]
    assert len(levels) > 0
    np.testing.assert_allclose(levels, figure.expected, rtol=figure.rel)


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(model_file(n), "PUBLISHED")])
def test_published_values_lie_within_the_model_s_priors(name):
    file, made = file_and_design(name)
    seeded = numpyro.handlers.seed(getattr(file, name), jax.random.key(0))
    priors = {}

    def run(arrays):
        trace = numpyro.handlers.trace(seeded).get_trace(arrays)
        priors.update({site: trace[site]["fn"] for site in file.PUBLISHED})

    jax.eval_shape(run, made.arrays())
    found = {site: float(priors[site].cdf(value)) for site, value in file.PUBLISHED.items()}
    assert {site: p for site, p in found.items() if not 0.005 < p < 0.995} == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_s_file_gives_its_source_and_a_table_that_holds_together(name):
    text = model_file(name).__doc__ or ""
    assert re.search(r"\((1[89]|20)\d\d\)", text)
    assert "doi:10." in text or name == "cefamandole"  # a book of 1995
    rules = [line for line in text.splitlines() if re.fullmatch(r"=+( +=+)+", line)]
    if not hasattr(model_file(name), "PUBLISHED"):
        return
    assert len(rules) == 3
    assert len(set(rules)) == 1
    gaps = [i for i, mark in enumerate(rules[0]) if mark == " "]
    table = text.split(rules[0])[1:3]
    rows = [line for part in table for line in part.splitlines() if line.strip()]
    assert [row for row in rows if any(row[i : i + 1].strip() for i in gaps)] == []


# --- models that break the contract ---

THREE = """
ID TIME EVID AMT DV WT
1  0    1    10  .  60
1  1    0    0   8  60
1  4    0    0   5  60
2  0    1    10  .  70
2  2    0    0   7  70
3  0    1    10  .  90
3  1    0    0   9  90
3  3    0    0   6  90
3  8    0    0   2  90
"""


@pytest.fixture(scope="module")
def three():
    return trial(THREE, WT="kg")


def falling(trial, *, CL=None, V=None, scale=1.0, time=None, add=0.0):
    """Observe a level that falls exponentially, whose parameters a test may spoil."""
    CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3)) if CL is None else CL
    V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.3)) if V is None else V
    p = popk.individual(trial, omega=0.3, correlated=False, CL=CL, V=V)
    t = trial.time - trial.time[:, :1] if time is None else time
    level = scale * 10 / p.V * jnp.exp(-0.2 * p.CL / p.V * t) + add
    popk.observe(trial, level, popk.additive_error(2))


def problems_of(model, on, **options):
    """Return what is wrong with a model, by the check that finds it."""
    with pytest.raises(testing.ContractError) as caught:
        testing.check_model(model, on, **options)
    return {problem.check: problem.says for problem in caught.value.problems}


def good(trial):
    """Something that falls."""
    falling(trial)


def test_a_model_that_keeps_the_contract_gets_no_answer(three):
    assert testing.check_model(good, three, values={"CL_pop": 1, "V_pop": 1}) is None
    assert testing.check_model(functools.partial(good), three) is None


def test_a_trial_without_levels_gets_some_near_what_the_model_predicts(three):
    frame = three.to_dataframe()
    frame["DV"], frame["MDV"] = np.nan, 1
    empty = popk.read_nonmem(frame)
    assert not empty.observations.measured.any()
    subject = testing.subject_of(good, empty)
    o = subject.trial.observations
    assert o.measured.all()
    expected = 10 * np.exp(-0.2 * np.asarray(three.time)[o.subject, o.record])
    np.testing.assert_allclose(o.value, expected, rtol=0.6)
    assert testing.check_model(good, empty) is None


def test_everything_that_is_wrong_is_told_at_once_in_one_text(three):
    def model(trial):
        weight = trial.covariate("WT")
        slope = numpyro.sample("slope", dist.Normal(0.0, 0.1))
        falling(trial, scale=1 + slope * (weight / weight.mean() - 1))

    with pytest.raises(testing.ContractError) as caught:
        testing.check_model(model, three)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 problems with the model model"
    assert [line.split()[0] for line in lines[1:]] == ["signature", "sites", "alone"]
    assert "it has no docstring" in lines[1]
    assert "the population site slope has a name that reports do not know" in lines[2]


def test_a_model_of_more_than_the_trial_is_found(three):
    def model(trial, dose):
        """One that needs to be told the dose."""
        falling(trial)

    says = problems_of(model, three)
    assert says["signature"] == (
        "it requires the arguments trial, dose; a model is a function of the trial alone: "
        "def model(trial)"
    )


def test_a_site_named_like_an_axis_and_a_model_that_observes_nothing_are_found(three):
    def axis(trial):
        """A site named draw."""
        numpyro.sample("draw", dist.Normal(0.0, 1.0))
        falling(trial)

    def silent(trial):
        """No levels."""
        numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))

    assert "a site is named 'draw', which is an axis" in problems_of(axis, three)["sites"]
    assert "observes no levels" in problems_of(silent, three)["sites"]


def test_the_effect_of_a_covariate_is_named_after_its_parameter(three):
    def model(trial):
        """CL by weight."""
        power = numpyro.sample("CL_WT", dist.Normal(0.75, 0.1))
        CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
        falling(trial, CL=CL * (trial.covariate("WT") / 70) ** power)

    assert testing.check_sites(model, three) == []


def test_the_effects_of_occasions_and_groups_have_names_that_reports_know(three):
    def model(trial):
        """V varies between weights, as if they were sites, and CL between them as if occasions."""
        p = popk.individual(
            trial, CL=numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3)), V=1.0, correlated=False,
            iov={"WT": ["CL"]}, groups={"WT": ["V"]}, levels={"WT": (60, 70, 90)},
        )  # fmt: skip
        popk.observe(trial, 10 / p.V * jnp.exp(-p.CL * trial.time), popk.additive_error(2))

    assert {"gamma_CL", "tau_V_WT", "zeta_V_WT"} <= set(describe(model, three).named("population"))
    assert testing.check_sites(model, three) == []


def test_a_prior_that_allows_what_cannot_be_is_found_with_the_record(three):
    def model(trial):
        """A volume that may be negative."""
        falling(trial, V=numpyro.sample("V_pop", dist.Normal(1.0, 2.0)))

    says = problems_of(model, three)["prior"]
    assert says.startswith("at draw ")
    assert (
        "IPRED is nan: row 0  ID 1  TIME 0 (and 2 other IDs): the typical value of V is -" in says
    )


def test_an_engine_s_reason_is_passed_on(three):
    def model(trial):
        """A lag below 0."""
        V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.3))
        lag = numpyro.sample("LAG_pop", dist.Normal(-1.0, 0.01))
        level = popk.one_compartment(trial, CL=0.2, V=V, lag={"central": lag})
        popk.observe(trial, level, popk.additive_error(2))

    says = testing.check_prior(testing.subject_of(model, three))
    assert "F, lag, R or D of this dose has no meaning" in says[0].says


def test_a_level_where_nothing_is_predicted_is_named(three):
    def model(trial):
        """A proportional error of nothing."""
        V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.3))
        level = 10 / V * jnp.where(trial.time > 2, trial.time, 0.0)
        popk.observe(trial, level, popk.proportional_error(0.3))

    says = testing.check_prior(testing.subject_of(model, three))
    assert "because of the level at row 1  ID 1  TIME 1; where nothing is predicted" in says[0].says


def test_a_gradient_that_is_cut_off_is_found_by_the_name_of_its_site(three):
    def model(trial):
        """A volume without a derivative."""
        V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.3))
        falling(trial, V=jax.lax.stop_gradient(V))

    says = problems_of(model, three)["gradient"]
    assert "the gradient disagrees with central differences" in says
    assert ", in V_pop;" in says


def test_a_gradient_that_is_no_number_is_found_by_the_name_of_its_site(three):
    def model(trial):
        """The root of nothing."""
        V = numpyro.sample("V_pop", popk.lognormal(1.0, cv=0.3))
        falling(trial, V=V, add=jnp.sqrt(0.0 * V))

    says = problems_of(model, three)
    assert says["prior"].endswith("with jnp.where before it is taken")
    assert says["gradient"].startswith("the gradient with respect to V_pop is not finite")


def test_a_mean_over_padding_is_found(three):
    def model(trial):
        """A mean over records."""
        falling(trial, scale=(1 + trial.time.mean(axis=1, keepdims=True)))

    assert "when the trial is padded" in problems_of(model, three, depends_on_time=True)["padding"]


def test_a_model_of_a_fixed_number_of_records_is_found(three):
    def model(trial):
        """Four records, always."""
        falling(trial, scale=jnp.ones((1, 4)))

    assert "cannot be used with the trial padded" in problems_of(model, three)["padding"]


def test_an_effect_of_a_subject_s_place_is_found(three):
    def model(trial):
        """The first subject is another."""
        falling(trial, scale=1 + jnp.arange(trial.n_subjects, dtype=float)[:, None])

    says = problems_of(model, three)
    assert says["order"] == (
        "IPRED was {} and is {} when subjects come in another order; nothing may be indexed by a "
        "subject's place".format(*re.findall(r"(?:was|is) ([\d.]+)", says["order"]))
    )


def test_a_number_over_all_subjects_is_found(three):
    def model(trial):
        """Weight relative to the mean weight."""
        weight = trial.covariate("WT")
        falling(trial, scale=weight / weight.mean())

    says = problems_of(model, three)
    assert list(says) == ["alone"]
    assert "when ID 2 is predicted alone" in says["alone"]


def test_a_model_that_cannot_be_used_with_one_subject_is_found(three):
    def model(trial):
        """Three subjects, always."""
        falling(trial, scale=jnp.ones((3, 1)))

    assert "cannot be used with ID 2 alone" in problems_of(model, three)["alone"]


def test_a_dependence_on_when_time_began_is_found_unless_it_is_meant(three):
    def model(trial):
        """Time since the study began."""
        falling(trial, time=trial.time)

    says = problems_of(model, three)
    assert list(says) == ["shift"]
    assert "when all times are later by 16" in says["shift"]
    assert testing.check_model(model, three, depends_on_time=True) is None


def test_a_model_that_is_never_the_same_is_found_to_compile_anew(three):
    class Fickle:
        """A model whose hash changes."""

        count = 0

        def __hash__(self):
            self.count += 1
            return self.count

        def __eq__(self, other):
            return False

        def __call__(self, trial):
            falling(trial)

    subject = testing.subject_of(good, three)._replace(model=Fickle())
    assert "compiled the model anew" in testing.check_compilation(subject)[0].says


def test_published_values_of_a_wrong_sign_or_too_few_are_found(three):
    def model(trial):
        """A scale that may be negative."""
        falling(trial, scale=numpyro.sample("V_SCALE", dist.Normal(1.0, 0.1)))

    values = {"CL_pop": 1.0, "V_pop": 1.0, "V_SCALE": -2.0}
    says = testing.check_values(model, three, values)
    assert says == [
        testing.Problem("values", "IPRED is -20 at row 0  ID 1  TIME 0; look at units and signs")
    ]
    says = testing.check_values(model, three, {"CL_pop": 1.0, "V_SCALE": 1.0})
    assert says[0].says == "values lacks V_pop, which the prediction depends on"


def test_a_second_check_of_a_model_compiles_nothing(three):
    testing.check_model(good, three)
    before = testing.subject.with_gradient._cache_size(), testing.subject.forward._cache_size()
    testing.check_model(good, three, seed=1)
    assert before == (
        testing.subject.with_gradient._cache_size(),
        testing.subject.forward._cache_size(),
    )


def test_the_middle_of_the_prior_is_where_its_median_is(three):
    subject = testing.subject_of(good, three)
    plan = layout(good, three)
    middle = plan.unflatten(subject.vector)
    assert np.exp(float(middle["CL_pop"])) == pytest.approx(1.0, rel=0.2)
    assert np.abs(middle["eta"]).max() < 0.3
