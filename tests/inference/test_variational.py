"""The posterior by a guide, against one that is known exactly."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

import popk
from popk.inference import variational, weighing
from popk.inference.approximation import Approximation
from popk.inference.density import Latent, Layout
from popk.inference.guides import Guide
from tests.inference.gaussian import BETWEEN, MEAN, NOISE, exact, gaussian, gaussian_trial
from tests.trials import trial

QUICK = {"method": "variational", "progress": False}


@pytest.fixture(scope="module")
def learned():
    """Return what the two families have learned, by name."""
    kept, known = variational.learned, {}
    with pytest.MonkeyPatch.context() as patch:

        def noted(problem, begin, *rest):
            found = kept(problem, begin, *rest)
            known[len(known)] = (begin.plan, found.placed)
            return found

        patch.setattr(variational, "learned", noted)
        trees = [popk.fit(gaussian, gaussian_trial(), seed=1, family=f, **QUICK) for f in FAMILIES]
    return {f: (trees[i], *known[i]) for i, f in enumerate(FAMILIES)}


FAMILIES = ("flow", "mean-field")


def guide_draws(learned, family):
    """Return draws of (mu, own of each person) of a guide as it is, without weights."""
    _, plan, (frame, guide) = learned[family]
    z = jax.random.normal(jax.random.key(5), (4000, plan.size))
    draws = jax.vmap(lambda z: frame.position(plan, guide.forward(plan, z)[0]))(z)
    named = jax.vmap(plan.unflatten)(draws)
    return np.stack([named["mu"], *named["own"].reshape(4000, -1).T])


def log_evidence():
    """Return the log of the probability density of the levels of `gaussian`, in closed form."""
    o = gaussian_trial().observations
    same = o.subject[:, None] == o.subject[None, :]
    covariance = NOISE**2 * np.eye(o.value.size) + BETWEEN**2 * same + MEAN**2
    return stats.multivariate_normal(np.zeros(o.value.size), covariance).logpdf(o.value)


def test_a_flow_is_the_posterior(learned):
    mean, covariance = exact(gaussian_trial())
    draws = guide_draws(learned, "flow")
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(1) - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(draws.std(1) / sd, 1, atol=0.06)
    np.testing.assert_allclose(
        np.corrcoef(draws)[0, 1:], covariance[0, 1:] / sd[0] / sd[1:], atol=0.06
    )


def test_mean_field_has_the_means_and_the_inverse_precisions_for_variances(learned):
    # The diagonal normal closest to a normal distribution has its conditional variances.
    mean, covariance = exact(gaussian_trial())
    conditional = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
    draws = guide_draws(learned, "mean-field")
    np.testing.assert_allclose((draws.mean(1) - mean) / np.sqrt(np.diag(covariance)), 0, atol=0.1)
    np.testing.assert_allclose(draws.std(1) / conditional, 1, atol=0.08)
    assert (conditional < 0.85 * np.sqrt(np.diag(covariance))).all()


def test_the_bound_is_below_the_evidence_and_a_flow_reaches_it(learned):
    flow, field = (learned[f][0].attrs["elbo"] for f in FAMILIES)
    assert flow == pytest.approx(log_evidence(), abs=0.03)
    assert field < flow - 0.2
    trace = json.loads(learned["flow"][0].attrs["elbo_trace"])
    assert trace[-1] > trace[0]
    assert learned["flow"][0].attrs["steps_taken"] == 200 * len(trace) < 10_000


@pytest.mark.parametrize("family", FAMILIES)
def test_weighted_draws_are_those_of_the_exact_posterior(learned, family):
    mean, covariance = exact(gaussian_trial())
    tree = learned[family][0]
    group, ess = tree["posterior"], tree.attrs["importance_ess"]
    draws = np.stack([group["mu"].values[0], *group["own"].values[0].T])
    error = np.sqrt(np.diag(covariance) / ess)
    assert (abs(draws.mean(1) - mean) < 4 * error).all()
    # The relative standard error of a variance of n draws is sqrt(2 / n).
    ratio = np.diag(np.cov(draws) / covariance)
    np.testing.assert_allclose(ratio, 1, atol=4 * np.sqrt(2 / ess))
    rho = group["rho"].values[0, :, 0, 1]  # LKJ(1) of two: uniform between -1 and 1
    assert rho.std() == pytest.approx(np.sqrt(1 / 3), abs=0.05)


def test_attributes_say_what_was_weighted_and_the_verdict_is_that_of_the_weights(learned):
    tree = learned["flow"][0]
    assert tree.attrs["weights"] == "population"
    assert tree.attrs["family"] == "flow"
    assert json.loads(tree.attrs["settings"]) == {
        "family": "flow", "steps": 10_000, "draws": 2000, "population_draws": 4000,
        "individual_draws": 8,
    }  # fmt: skip
    verdict = popk.convergence(tree)
    assert verdict.converged
    assert verdict.pareto_k == tree.attrs["pareto_k"] < 0.5
    assert verdict.ess_bulk > 2000
    assert popk.summary(tree)["R-hat"].isna().all()


def test_the_same_seed_gives_the_same_draws_and_nothing_is_compiled_anew(learned):
    compiled = (variational._climbed, weighing._looked, weighing._collapsed)
    before = [f._cache_size() for f in compiled]
    again = popk.fit(gaussian, gaussian_trial(), seed=1, **QUICK)
    assert again["posterior"].dataset.identical(learned["flow"][0]["posterior"].dataset)
    other = popk.fit(gaussian, gaussian_trial(), seed=2, steps=300, **QUICK)
    assert other.attrs["steps_taken"] == 300
    assert (other["posterior"]["mu"] != again["posterior"]["mu"]).any()
    assert [f._cache_size() for f in compiled] == before


def test_a_bad_guide_has_a_bad_pareto_k_and_it_is_said_loudly(monkeypatch):
    def bad(problem, begin, placed, *rest):
        wide = placed.guide.population
        narrow = placed.guide._replace(population=wide._replace(log_scale=wide.log_scale - 2.0))
        return variational.Learned(placed._replace(guide=narrow), [0.0], 0)

    monkeypatch.setattr(variational, "learned", bad)
    with pytest.warns(popk.ConvergenceWarning, match="Pareto k") as caught:
        tree = popk.fit(gaussian, gaussian_trial(), seed=1, family="mean-field", **QUICK)
    assert tree.attrs["pareto_k"] > 0.7
    assert not popk.convergence(tree).converged
    said = str(caught[0].message)
    assert "unlike its mean-field guide" in said
    assert "take family='flow', or method='nuts'" in said


# --- guides ---

PLAN = Layout((Latent("mu", (3,), 3, False), Latent("eta", (4, 2), 2, True)), 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guide_turns_back_what_it_turned_and_knows_its_slope(family):
    begun = Guide.begin(family, PLAN, jax.random.key(1))
    z = jax.random.normal(jax.random.key(2), (PLAN.size,))
    rng = np.random.default_rng(3)
    guide = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), begun)

    @jax.jit
    def there_and_back(guide):
        white, slope = guide.forward(PLAN, z)
        jacobian = jax.jacfwd(lambda z: guide.forward(PLAN, z)[0])(z)
        return white, slope, *guide.inverse(PLAN, white), jacobian

    white, slope, *_ = there_and_back(begun)
    np.testing.assert_allclose(white, z, atol=1e-12)  # the identity at first
    assert float(slope) == pytest.approx(0, abs=1e-12)
    _, slope, back, same, jacobian = there_and_back(guide)
    np.testing.assert_allclose(back, z, atol=1e-10)
    assert float(same) == pytest.approx(float(slope), abs=1e-10)
    assert float(slope) == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-10)
    assert not jacobian[3:5, 5:].any()  # subjects know of no other


def test_a_flow_grows_in_proportion_to_subjects():
    def numbers(subjects):
        own = Layout((PLAN.latents[0], Latent("eta", (subjects, 2), 2, True)), subjects)
        begun = jax.eval_shape(lambda: Guide.begin("flow", own, jax.random.key(0)))
        return sum(x.size for x in jax.tree.leaves(begun))

    assert numbers(1001) - numbers(1000) == numbers(2) - numbers(1) == 56


# --- densities that fall apart, and that do not ---


@pytest.mark.slow
def test_whole_positions_are_weighted_where_a_factor_is_of_no_subject(learned):
    def penalized(trial):
        gaussian(trial)
        numpyro.factor("penalty", -1.0)

    tree = popk.fit(penalized, gaussian_trial(), seed=1, family="mean-field", **QUICK)
    assert tree.attrs["weights"] == "joint"
    assert tree.attrs["guide_pareto_k"] == tree.attrs["pareto_k"]
    assert tree.attrs["elbo"] == pytest.approx(learned["mean-field"][0].attrs["elbo"] - 1)


# --- what is refused ---


def refused(**options):
    with pytest.raises(ValueError, match=r"must|means|finite|modes|even") as caught:
        popk.fit(gaussian, gaussian_trial(), seed=1, **QUICK, **options)
    return str(caught.value)


def test_options_that_mean_nothing_are_refused():
    assert "chains means nothing to method='variational'" in refused(chains=2)
    assert refused(family="flows") == "family is 'flows'; it must be one of flow, mean-field"
    assert "steps=0" in refused(steps=0)
    assert "individual_draws is 3; draws come in pairs" in refused(individual_draws=3)
    with pytest.raises(ValueError, match="family means nothing to method='nuts'"):
        popk.fit(gaussian, gaussian_trial(), seed=1, family="flow", progress=False)


def test_a_posterior_of_several_modes_is_refused(monkeypatch):
    begin = variational.beginning

    def two(*given):
        found = begin(*given)
        other: Approximation = found.modes[0]._replace(log_mass=found.modes[0].log_mass - 1.0)
        return found._replace(modes=[*found.modes, other])

    monkeypatch.setattr(variational, "beginning", two)
    assert refused() == (
        "the posterior has 2 modes (of about 73%, 27% of its mass), and method='variational' describes "
        "one, which Pareto k cannot tell; tell them apart by priors, or take method='nuts'"
    )


def test_a_bound_that_is_never_finite_is_refused(monkeypatch):
    def never(model, plan, target, frame, carry, ahead):
        return carry, jnp.full(200, jnp.nan)

    monkeypatch.setattr(variational, "_climbed", never)
    assert "the ELBO is not finite at any of 200 steps" in refused()


# --- against NUTS (slow) ---


@pytest.mark.slow
def test_theophylline_is_as_nuts_finds_it(theophylline_model, theophylline):
    from popk.inference.convergence import population_draws

    mine = popk.fit(theophylline_model, theophylline, seed=1, **QUICK)
    assert popk.convergence(mine).converged
    nuts = popk.fit(theophylline_model, theophylline, seed=1, progress=False)
    theirs = population_draws(nuts)
    for name, draws in population_draws(mine).items():
        other = theirs[name]
        assert abs(draws.mean() - other.mean()) < 0.15 * other.std(), name
        assert draws.std() == pytest.approx(other.std(), rel=0.15), name


@pytest.mark.slow
def test_theophylline_is_not_mean_field_and_the_verdict_says_so(theophylline_model, theophylline):
    with pytest.warns(popk.ConvergenceWarning, match="unlike its mean-field guide"):
        tree = popk.fit(theophylline_model, theophylline, seed=1, family="mean-field", **QUICK)
    assert tree.attrs["pareto_k"] > 0.7


@pytest.mark.slow
def test_groups_of_subjects_and_classes_are_weighted_by_the_population():
    def groups(trial):
        CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
        p = popk.individual(trial, CL=CL, groups={"STUDY": ["CL"]}, levels={"STUDY": (1, 2)})
        level = popk.one_compartment(trial, CL=p.CL, V=10.0)
        popk.observe(trial, level, popk.proportional_error(0.2))

    def classes(trial):
        mix = popk.mixture(trial, {"fast": 0.5, "slow": 0.5})
        CL = numpyro.sample("CL_pop", popk.lognormal(1.0, cv=0.3))
        of = popk.individual(trial, CL=CL, classes=mix)
        fast = popk.one_compartment(trial, CL=2 * of.fast.CL, V=10.0)
        slow = popk.one_compartment(trial, CL=of.slow.CL, V=10.0)
        popk.observe(trial, mix(fast=fast, slow=slow), popk.proportional_error(0.2))

    rows = [f"{i} 0 1 100 . {i % 2 + 1}\n{i} 4 0 . {4 + i % 3} {i % 2 + 1}" for i in range(1, 9)]
    records = trial("ID TIME EVID AMT DV STUDY\n" + "\n".join(rows) + "\n", STUDY="1")
    for model in (groups, classes):
        tree = popk.fit(model, records, seed=1, **QUICK)
        assert tree.attrs["weights"] == "population"
