"""What does a model say of doses, and does it fit the trial's?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import popk
from popk.model.dosing import dosing_of
from popk.model.sites import describe
from tests.trials import trial

NAMES = ("depot", "central")
P = {"CL": 2.0, "V": 20.0, "KA": 0.8}


def model(**dosing):
    def oral(trial):
        concentration = popk.one_compartment(trial, **P, **dosing)
        popk.observe(trial, concentration, popk.additive_error(popk.fixed(1.0)))

    return oral


def refusal(part):
    with pytest.raises(popk.ModelError) as caught:
        part()
    return str(caught.value)


def told(text, **dosing):
    return refusal(lambda: describe(model(**dosing), trial(text)))


# --- which compartments ---


@pytest.mark.parametrize("what", ["F", "lag", "R", "D", "initial"])
def test_a_value_for_a_compartment_that_does_not_exist_is_refused(what):
    assert told("ID TIME EVID AMT DV\n1 0 1 9 .\n1 1 0 0 5", **{what: {"gut": 0.5}}) == (
        f"{what} names compartment 'gut', but the compartments are depot 1, central 2"
    )


@pytest.mark.parametrize("rate", [0, 10])
def test_a_dose_or_infusion_into_a_compartment_that_does_not_exist_is_refused_with_its_row(rate):
    text = f"ID TIME EVID AMT RATE CMT DV\n1 0 1 9 0 1 .\n1 2 1 9 {rate} 3 .\n1 3 0 0 0 0 5"
    assert told(text) == (
        "DataFrame row 1  ID 1  TIME 2: a dose goes to CMT 3, but the compartments are depot 1, "
        "central 2; correct CMT, or set it 0 for depot"
    )


def test_turning_off_a_compartment_that_does_not_exist_is_refused_with_its_row():
    text = "ID TIME EVID AMT CMT DV\n1 0 1 9 1 .\n1 2 2 0 -3 .\n1 3 0 0 0 5"
    assert told(text).startswith(
        "DataFrame row 1  ID 1  TIME 2: a record that turns off goes to CMT 3, but the compartments are"
    )


# --- rates and durations that the model gives ---


@pytest.mark.parametrize(("rate", "what", "meaning"), [(-1, "R", "rate"), (-2, "D", "duration")])
@pytest.mark.parametrize(("cmt", "name"), [(0, "depot"), (1, "depot"), (2, "central")])
def test_a_modeled_rate_or_duration_that_the_model_does_not_give_is_refused(
    rate, what, meaning, cmt, name
):
    text = f"ID TIME EVID AMT RATE CMT DV\n1 0 1 9 5 {cmt} .\n1 2 1 9 {rate} {cmt} .\n1 3 0 0 0 0 5"
    other = {"R": "D", "D": "R"}[what]
    assert told(text, **{other: {name: 1.0}}) == (
        f"DataFrame row 1  ID 1  TIME 2: a dose into {name} has RATE {rate}, but the model gives it no "
        f"{meaning}; add {what}={{{name!r}: ...}}, or give RATE in the data"
    )
    describe(model(**{what: {name: 1.0}}), trial(text))  # accepted


def test_values_may_be_numbers_or_one_a_subject_or_one_a_record():
    two = trial("ID TIME EVID AMT DV\n1 0 1 9 .\n1 1 0 0 5\n2 0 1 9 .\n2 1 0 0 5")
    for value, shape in ((0.5, (2, 1)), (jnp.ones((2, 1)), (2, 1)), (jnp.ones((2, 2)), (2, 2))):
        found = dosing_of(two, NAMES, "depot", {"F": {"central": value}, "lag": None})
        assert found.F["central"].shape == shape
        assert found.lag == {}


def test_a_value_of_another_shape_is_refused():
    two = trial("ID TIME EVID AMT DV\n1 0 1 9 .\n1 1 0 0 5\n2 0 1 9 .\n2 1 0 0 5")
    says = refusal(lambda: dosing_of(two, NAMES, "depot", {"D": {"central": jnp.ones(2)}}))
    assert says.startswith("D of central has shape (2,); it must be one value")


# --- what a prediction says where it cannot be computed ---

COVARIATES = {"LAG": "h", "DUR": "h"}
LEVELS = """
ID TIME EVID AMT RATE CMT SS II LAG DUR DV
1  0    1    9   -2   2   0  0  0.5 1   .
1  2    0    0   0    0   0  0  0.5 1   5
2  0    0    0   0    0   0  0  0.5 1   5
2  4    1    9   -2   2   1  6  {0} {1} .
2  6    0    0   0    0   0  0  0.5 1   5
3  0    1    9   -2   2   1  6  {0} {1} .
3  6    0    0   0    0   0  0  0.5 1   5
"""


def by_covariates(trial):
    concentration = popk.one_compartment(
        trial,
        **P,
        lag={"central": trial.covariate("LAG")},
        D={"central": trial.covariate("DUR")},
    )
    popk.observe(trial, concentration, popk.additive_error(popk.fixed(1.0)))


@pytest.mark.parametrize(("lag", "duration"), [(-0.5, 1), (0.5, -1)])
def test_a_negative_lag_or_duration_is_a_sentence_with_its_first_row(lag, duration):
    bad = trial(LEVELS.format(lag, duration), **COVARIATES)
    assert refusal(lambda: popk.predict_at(by_covariates, bad, {})) == (
        "amounts cannot be computed\n"
        "  row 3  ID 2  TIME 4 (and 1 other IDs): F, lag, R or D of this dose has no meaning: F, lag and "
        "D must be 0 or more, R above 0; correct the model's value, or sample it from a positive prior"
    )


def test_the_other_subjects_are_computed_all_the_same():
    bad = trial(LEVELS.format(-0.5, 1), **COVARIATES)
    found = jax.jit(
        lambda t: popk.one_compartment(
            t, **P, lag={"central": t.covariate("LAG")}, D={"central": 1.0}
        )
    )(bad.arrays())
    assert np.isfinite(found[0][:2]).all()
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(("lag", "duration"), [(20, 1), (0.5, 40)])
def test_more_doses_on_their_way_than_there_is_room_for_is_a_sentence(lag, duration):
    bad = trial(LEVELS.format(lag, duration), **COVARIATES)
    assert refusal(lambda: popk.predict_at(by_covariates, bad, {})) == (
        "amounts cannot be computed\n"
        "  row 3  ID 2  TIME 4 (and 1 other IDs): more than 2 doses at steady state are on their way at "
        "once, or more than 4 of its infusions with a modeled length run at once; shorten lag or D, or "
        "write the doses out"
    )


def test_what_can_be_computed_has_no_sentence():
    good = trial(LEVELS.format(0.5, 2), **COVARIATES)
    assert np.isfinite(popk.predict_at(by_covariates, good, {}).to_numpy()[good.recorded]).all()
