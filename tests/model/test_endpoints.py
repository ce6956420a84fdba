"""What is observed in the place of levels: sites, rows that are refused, predictions, hazards of drug."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize, stats
from scipy.integrate import quad

import popk
from popk.diagnostics.summary import kind
from popk.inference.density import constrained, layout
from popk.model.failures import why_not
from popk.model.sites import describe
from tests.model.sites import refusal, sampled, trace_of
from tests.predictions import predictions_of
from tests.trials import table, trial

JOINT = """
ID TIME EVID AMT DVID DV  MDV BLQ LLOQ
1  0    1    100 0    .   1   0   .
1  1    0    0   1    4.2 0   0   1
1  8    0    0   1    .   0   1   1
1  10   0    0   2    1   0   0   .
2  0    1    100 0    .   1   0   .
2  1    0    0   1    5.2 0   0   1
2  30   0    0   2    0   0   0   .
"""


@pytest.fixture(scope="module")
def trials():
    return trial(JOINT)


def joint(trial):
    """One compartment after a bolus at time 0, and a constant hazard."""
    CL = numpyro.sample("CL_pop", popk.lognormal(2.0, cv=0.5))
    p = popk.individual(trial, CL=CL)
    concentration = 5.0 * jnp.exp(-p.CL / 20.0 * trial.time)  # compiled sooner than a structure
    popk.observe(trial, concentration, popk.additive_error(0.5), DVID=1)
    RATE = numpyro.sample("RATE_pop", popk.lognormal(0.05, cv=0.5))
    h, H = popk.constant_hazard(trial.time, RATE)
    popk.observe(trial, h, popk.time_to_event(H), output="event", DVID=2)


def alone(endpoint, prediction=1.0):
    """Return a model of one endpoint."""

    def model(trial):
        """Outcomes of one endpoint."""
        BASE = numpyro.sample("BASE_pop", popk.lognormal(2.0, cv=0.5))
        p = popk.individual(trial, omega=0.3, BASE=BASE * prediction)
        popk.observe(trial, p.BASE * jnp.ones(trial.time.shape), endpoint)

    return model


def events(**options):
    def model(trial):
        """A constant hazard."""
        RATE = numpyro.sample("RATE_pop", popk.lognormal(0.05, cv=0.5))
        h, H = popk.constant_hazard(trial.time, RATE)
        popk.observe(trial, h, popk.time_to_event(H, **options))

    return model


# --- observe ---


def test_an_endpoint_stands_in_the_place_of_the_error_with_sites_of_its_own(trials):
    categories = popk.ordered_categories(4, dist.Normal(0, 2), [1.0, popk.fixed(0.5)])

    def part():
        popk.observe(trials, jnp.ones(trials.time.shape), categories, output="pain", DVID=2)

    trace, _ = trace_of(part)
    assert sampled(trace) == ["cutpoint_1_pain", "step_2_pain", "DV_pain"]
    assert float(trace["step_3_pain"]["value"]) == 0.5
    assert [kind(n) for n in sampled(trace)[:2]] == ["endpoint", "endpoint"]


def test_limits_of_quantification_concern_levels_alone(trials):
    assert describe(joint, trials).endpoints["DV_event"].kinds == ((0, 2),)
    assert [kind for kind in trials.design.observed if kind[1] == 2] == [(0, 2)]


def test_what_an_endpoint_cannot_be_given_is_refused(trials):
    ones = jnp.ones(trials.time.shape)

    def scaled():
        popk.observe(trials, ones, popk.poisson(), DVID=2, scale=jnp.ones((2, 1)))

    assert "a scale with an endpoint (counts), which has no residual error" in refusal(scaled)

    def misshapen():
        popk.observe(trials, ones, popk.time_to_event(jnp.ones((2, 1))), DVID=2)

    assert "a cumulative hazard of shape (2, 1); it needs one value" in refusal(misshapen)


ROWS = {
    "counts": (alone(popk.poisson()), [0, 2.5, -1, 3], [1, 2], "a count must be a whole number"),
    "binary": (alone(popk.binary()), [0, 2, 1, 0.5], [1, 3], "a binary outcome must be 0 or 1"),
    "categories": (
        alone(popk.ordered_categories(3, popk.fixed(0), 1.0)), [0, 3, 2, 1.5], [1, 3],
        "the categories are 0 to 2: number them from 0",
    ),
    "events": (events(), [0, 2, 0, 0], [1], "write 1 for an event at TIME and 0 for none so far"),
    "again": (events(), [0, 1, 0, 1], [2, 3], "follows the subject's event; remove it or set MDV 1"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "DV", "wrong", "says"), ROWS.values(), ids=ROWS)
def test_records_that_are_no_outcomes_are_refused_with_their_rows(model, DV, wrong, says):
    rows = pd.DataFrame({"ID": 7, "TIME": range(4), "DV": DV})
    given = popk.read_nonmem(rows, units={"TIME": "day", "AMT": "mg", "DV": "1"})
    with pytest.raises(popk.DataError, match=says) as caught:
        describe(model, given)
    assert [p.row for p in caught.value.problems] == wrong
    assert {p.id for p in caught.value.problems} == {"7"}
    hidden = rows.assign(MDV=[int(i in wrong) for i in range(4)])
    describe(model, popk.read_nonmem(hidden, units=given.units))


def test_events_may_follow_one_another_where_they_are_repeated():
    rows = pd.DataFrame({"ID": 7, "TIME": range(4), "DV": [0, 1, 0, 1]})
    describe(
        events(repeated=True), popk.read_nonmem(rows, units={"TIME": "day", "AMT": "mg", "DV": "1"})
    )


def test_an_outcome_is_not_below_a_limit_of_quantification():
    rows = JOINT.replace(
        "1  10   0    0   2    1   0   0   .", "1  10   0    0   2    .   0   1   1"
    )
    with pytest.raises(
        popk.DataError, match=r"row 4 .*BLQ is 1 and ALQ 0, but the model observes an event"
    ):
        describe(joint, popk.read_nonmem(table(rows).set_axis(range(1, 8)), units={
            "TIME": "h", "AMT": "mg", "DV": "mg/L"}))  # fmt: skip


def test_a_clock_that_begins_anew_has_no_hazard():
    rows = JOINT.replace("2  1    0    0   1    5.2", "2  0    4    100 0    .  ").replace(
        ".   0   0   1\n2  30", ".   1   0   .\n2  30"
    )
    rows = rows.replace(
        "2  0    1    100 0    .   1   0   .", "2  5    1    100 0    .   1   0   ."
    )
    with pytest.raises(popk.DataError, match="TIME has gone back further up"):
        describe(joint, trial(rows))


# --- the hazard of a concentration ---

BASE, SLOPE, CL, V = 0.2, 0.4, 2.0, 20.0


def driven(trial):
    """A hazard that the concentration holds down: H is a compartment."""
    RATE = numpyro.sample("RATE_pop", popk.lognormal(BASE, cv=0.3))

    def rhs(A, p):
        C = A.central / p.V
        return {"central": -p.CL * C, "hazard": p.RATE * jnp.exp(-p.SLOPE * C)}

    p = {"RATE": RATE, "SLOPE": SLOPE, "CL": CL, "V": V}
    A = popk.ode(trial, rhs, p, compartments=("central", "hazard"), dosed="central")
    h = RATE * jnp.exp(-SLOPE * A.central / V)
    popk.observe(trial, A.central / V, popk.additive_error(popk.fixed(0.5)), DVID=1)
    popk.observe(trial, h, popk.time_to_event(A.hazard), output="event", DVID=2)


def hazard_at(t):
    return BASE * np.exp(-SLOPE * 100 / V * np.exp(-CL / V * t))


def test_a_concentration_drives_a_hazard_whose_integral_is_a_compartment(trials):
    trace, _ = trace_of(lambda: driven(trials), RATE_pop=BASE)
    site = trace["DV_event"]
    found = site["fn"].log_prob(site["value"])
    expected = {
        10: np.log(hazard_at(10)) - quad(hazard_at, 0, 10)[0],
        30: -quad(hazard_at, 0, 30)[0],
    }
    np.testing.assert_allclose(
        found[np.asarray(site["fn"].own)], list(expected.values()), rtol=1e-6
    )


def test_a_reset_of_the_hazard_is_said_to_be_the_reason():
    rows = JOINT.replace("1  10   0    0   2    1   0", "1  9    3    0   0    .   1").replace(
        "2  30   0    0   2    0", "2  30   0    0   2    1"
    )
    rows = rows.replace(
        "1  8    0    0   1    .   0   1   1", "1  8    0    0   2    0   0   0   ."
    )
    rows = rows.replace("2  0    1", "1  9.5  0    0   2    0   0   0   .\n2  0    1")
    given = trial(rows)
    site = trace_of(lambda: driven(given), RATE_pop=BASE)[0]["DV_event"]
    assert np.isnan(site["fn"].log_prob(site["value"])).sum() == 1
    (why,) = why_not(driven, given, {"RATE_pop": jnp.asarray(BASE)})
    assert "ID 1  TIME 9" in why
    assert "the cumulative hazard falls here" in why


# --- what is made of it ---


@pytest.fixture(scope="module")
def prior(trials):
    return popk.prior_draws(joint, trials, seed=1, draws=32)


@pytest.fixture(scope="module")
def predicted(prior, trials):
    return popk.predict(joint, prior, trials, new_subjects=True, seed=2)


def test_predictions_of_all_kinds_stand_on_one_axis(predicted, trials):
    group = predicted["posterior_predictive"].dataset
    assert group["DVID"].values.tolist() == [1, 1, 2, 1, 2]
    event = group["DV"].where(group["DVID"] == 2, drop=True)
    assert set(np.unique(event)) == {0.0, 1.0}
    hazards = group["IPRED"].where(group["DVID"] == 2, drop=True).values
    np.testing.assert_array_equal(hazards[:, 0], hazards[:, 1])
    assert predicted.attrs["endpoints"] == '{"event": {"name": "events", "kinds": [[0, 2]]}}'


def test_checks_of_levels_leave_outcomes_out(prior, predicted, trials):
    found = popk.vpc(predicted, trials, bins=[0, 40])
    assert int(found["levels"].sum()) == 2
    same = predictions_of(trials, np.ones((20, 5)), new_subjects=False)
    same.attrs["endpoints"] = predicted.attrs["endpoints"]
    assert popk.plots.observed_predicted(same, trials)
    posterior = xr.DataTree.from_dict({"posterior": prior["prior"].dataset})
    residuals = popk.plots.residuals(same, posterior, trials)
    assert len(residuals.axes[0].collections[0].get_offsets()) == 2
    assert len(popk.plots.individual_fits(same, trials).axes) == 2


def test_where_there_are_only_outcomes_checks_of_levels_are_refused(trials):
    rows = pd.DataFrame({"ID": [1, 2], "TIME": [3, 5], "DV": [1, 0]})
    given = popk.read_nonmem(rows, units=trials.units)
    tree = predictions_of(given, np.zeros((20, 2)))
    tree.attrs["endpoints"] = '{"": {"name": "events", "kinds": [[0, 0]]}}'
    with pytest.raises(popk.ModelError, match=r"no levels, only outcomes \(events\)"):
        popk.vpc(tree, given)


COUNTS = pd.DataFrame({"ID": 1, "TIME": range(4), "DV": [3, 1, 4, 2]})


def test_the_mode_of_a_subject_with_counts_is_that_of_its_density():
    given = popk.read_nonmem(COUNTS, units={"TIME": "day", "AMT": "mg", "DV": "1"})
    found = popk.map_estimate(alone(popk.poisson()), given, {"BASE_pop": 2.0, "omega_BASE": 0.3})

    def minus_log(eta):
        mean = 2.0 * np.exp(eta)
        return 4 * mean - 10 * np.log(mean) + np.log(6 * 24 * 2) + eta**2 / 0.18

    eta = optimize.minimize_scalar(minus_log, bounds=(-1, 1), method="bounded").x
    assert float(found["eta"].item()) == pytest.approx(eta, abs=1e-5)
    # J = d f / d eta = f and I = 1 / f: H is the sum of means and the prior's curvature
    H = 4 * 2 * np.exp(eta) + 1 / 0.09
    expected = 2 * minus_log(eta) + np.log(0.09) + np.log(H)
    assert float(found["objective"].item()) == pytest.approx(expected, rel=1e-6)


def test_the_log_likelihood_of_a_joint_model_is_that_of_all_its_records(trials):
    plan = layout(joint, trials)
    vector = jnp.zeros(plan.size)
    found = jax.jit(constrained, static_argnums=(0, 1))(joint, plan, trials.arrays(), vector)
    rate, CL = float(found["RATE_pop"]), np.asarray(found["CL"])[:, 0]
    level = stats.norm(5 * np.exp(-CL[[0, 0, 1]] / 20 * [1, 8, 1]), found["sigma_additive"])
    expected = [*level.logpdf([4.2, 0, 5.2])[[0, 2]], level.logcdf(1.0)[1]]
    np.testing.assert_allclose(found["log_likelihood"][jnp.asarray([0, 3, 1])], expected)
    events = found["log_likelihood"][jnp.asarray([2, 4])]
    np.testing.assert_allclose(events, [np.log(rate) - 10 * rate, -30 * rate])


def test_a_twin_of_a_joint_model_knows_levels_and_refuses_wrong_events(prior, trials):
    frame = trials["1"].to_dataframe()
    attrs = frame.attrs
    levels = frame[frame["DVID"] != 2]
    levels.attrs = attrs
    twin = popk.Twin(joint, prior, popk.read_nonmem(levels))
    assert twin.parameters["CL"].size == 2000
    with pytest.raises(ValueError, match="no information on one prediction alone"):
        popk.Twin(joint, prior, trials["1"], method="laplace")
    wrong = frame.assign(DV=frame["DV"].where(frame["DVID"] != 2, 3))
    wrong.attrs = attrs
    with pytest.raises(popk.DataError, match="DV is 3; write 1 for an event"):
        popk.Twin(joint, prior, popk.read_nonmem(wrong))


@pytest.mark.parametrize("measured", [True, False])
def test_a_joint_model_keeps_the_contract(measured, trials):
    frame = trials.to_dataframe()
    attrs = frame.attrs
    if not measured:
        frame = frame.assign(DV=np.nan, MDV=1, BLQ=0)
        frame.attrs = attrs
    popk.testing.check_model(
        joint,
        popk.read_nonmem(frame),
        values={"CL_pop": 2.0, "RATE_pop": 0.05},
        depends_on_time=True,
    )


def test_a_logit_may_be_negative_in_the_contract():
    given = popk.read_nonmem(COUNTS.assign(DV=[0, 1, 1, 0]), units={
        "TIME": "day", "AMT": "mg", "DV": "1"})  # fmt: skip

    def model(trial):
        """A binary outcome."""
        BASE = numpyro.sample("BASE_pop", dist.Normal(-1, 1))
        p = popk.individual(trial, transform={"BASE": "normal"}, omega={"BASE": 0.5}, BASE=BASE)
        popk.observe(trial, p.BASE * jnp.ones(trial.time.shape), popk.binary())

    popk.testing.check_model(model, given, values={"BASE_pop": -1.0})
