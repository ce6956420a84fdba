"""Why is a prediction not a number? Sentences for values that a compiled function can only make NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import popk
from popk.covariates import categorical, child_pugh_score, monotone, power
from popk.model.failures import why_not
from popk.reasons import failing
from tests.trials import trial

#: A dose that grows without end, one that is absorbed too fast for its few steps, and one above VMAX.
TEXT = """
ID TIME EVID AMT CMT SS II GROWTH KA DV
1  0    1    100 1   0  0  0      1  .
1  2    0    0   0   0  0  0      1  5
2  0    1    100 1   0  0  0.1    1  .
2  2    0    0   0   0  0  0.1    1  5
3  0    1    100 1   0  0  0      1e5 .
3  2    0    0   0   0  0  0      1e5 5
4  0    1    300 2   1  12 0      1  .
4  2    0    0   0   0  0  0      1  5
"""


@pytest.fixture(scope="module")
def four():
    return trial(TEXT, GROWTH="1/(mg*h)", KA="1/h")


def enzyme(trial):
    def rhs(A, p):
        absorbed = p.KA * A.depot
        eliminated = 20 * A.central / (30 + A.central)
        return {"depot": -absorbed, "central": absorbed - eliminated + p.GROWTH * A.central**2}

    p = {name: trial.covariate(name) for name in ("GROWTH", "KA")}
    amounts = popk.ode(trial, rhs, p, compartments=("depot", "central"), max_steps=1500)
    concentration = popk.concentration(trial, amounts.central, 20.0)
    popk.observe(trial, concentration, popk.additive_error(popk.fixed(1.0)))


def test_each_reason_is_a_sentence_with_the_subject_and_what_to_do(four):
    with pytest.raises(popk.ModelError) as caught:
        popk.predict_at(enzyme, four, {})
    lines = str(caught.value).splitlines()
    assert lines[0] == "amounts cannot be computed"
    for start, remedy in (
        ("  row 4  ID 3  TIME 0: the ODE solver did not reach this subject's end within its step limit",
         "give solver='implicit', or raise max_steps"),
        ("  row 2  ID 2  TIME 0: the ODE solver failed in this subject: amounts became infinite",
         "check the right-hand side at these parameter values, or give solver='implicit'"),
        ("  row 6  ID 4  TIME 0: no steady state was found for this subject's SS dose",
         "it may have none (the dose exceeds what can be eliminated): write the doses out instead"),
    ):  # fmt: skip
        (line,) = [line for line in lines if line.startswith(start)]
        assert line.endswith(remedy)
    assert len(lines) == 4


def test_reasons_are_collected_only_where_someone_asks(four):
    def model(trial):
        failing("it is broken; mend it", trial.time[:, 0].astype(int) - 1)
        failing("it is bent; straighten it", trial.time[:, 1].astype(int) - 1)
        popk.observe(trial, trial.time, popk.additive_error(popk.fixed(1.0)))

    failing("nobody asks", 0)
    assert why_not(model, four, {}) == [
        "  row 1  ID 1  TIME 2 (and 3 other IDs): it is bent; straighten it"
    ]


# --- covariates and typical values that a model cannot take ---

PATIENTS = """
ID TIME EVID AMT DV MDV GENO ASCITES WT
1  0    1    100 .  1   0    0       70
1  2    0    0   4  0   0    0       70
2  0    1    100 .  1   1    2       60
2  2    0    0   3  0   1    2       60
2  8    0    0   2  0   1    2       60
"""
UNITS = {"GENO": "1", "ASCITES": "1", "WT": "kg"}
VALUES = {"CL_pop": 2.0, "CL_poor": 0.5, "omega_CL": 0.3, "sigma_additive": 0.5}


def falling(trial, CL, *, transform="log"):
    """Observe a level that falls exponentially: compiled sooner than a structure."""
    p = popk.individual(trial, CL=CL, omega=0.3, transform=transform)
    popk.observe(trial, 5.0 * jnp.exp(-p.CL / 20.0 * trial.time), popk.additive_error(0.5))


def by_genotype(trial):
    """Clearance of poor metabolizers."""
    CL = numpyro.sample("CL_pop", popk.lognormal(2.0, cv=0.3))
    poor = numpyro.sample("CL_poor", popk.lognormal(0.5, cv=0.3))
    falling(trial, CL * categorical(trial.covariate("GENO"), {0: 1.0, 1: poor}))


@pytest.fixture(scope="module")
def patients():
    return trial(PATIENTS, **UNITS)


@pytest.fixture(scope="module")
def unseen():
    return trial(PATIENTS.replace("1    2  ", "5    2  "), **UNITS)


@pytest.fixture(scope="module")
def prior(patients):
    return popk.prior_draws(by_genotype, patients, seed=1, draws=40)


UNSEEN = (
    "  row 2  ID 2  TIME 0  GENO 5: the category is 5, but must be one of 0, 1; give its effect, or "
    "correct the record"
)
VERBS = {
    "amounts cannot be computed": lambda on, prior: popk.predict_at(by_genotype, on, VALUES),
    "levels cannot be predicted in 40 of 40 draws": lambda on, prior: popk.predict(
        by_genotype, prior, on, new_subjects=True, seed=1
    ),
    "ID 2 cannot be predicted": lambda on, prior: popk.Twin(by_genotype, prior, on["2"]),
    "there is no mode: amounts cannot be computed": lambda on, prior: popk.map_estimate(
        by_genotype, on, VALUES
    ),
    "amounts cannot be computed at any of 10 starting points": lambda on, prior: popk.fit(
        by_genotype, on, seed=1, chains=1, warmup=1, draws=1, progress=False
    ),
}


@pytest.mark.parametrize("says", VERBS)
def test_a_category_that_the_model_does_not_know_is_refused_by_row_and_column(says, unseen, prior):
    with pytest.raises(popk.ModelError) as caught:
        VERBS[says](unseen, prior)
    assert str(caught.value).splitlines() == [says, UNSEEN]


def test_a_category_that_the_model_knows_is_predicted(patients, prior):
    found = popk.predict_at(by_genotype, patients, VALUES)
    np.testing.assert_allclose(found.sel(subject="2"), 5 * np.exp(-1 / 20 * np.array([0, 2, 8])))
    tree = popk.predict(by_genotype, prior, patients, new_subjects=True, seed=1)
    assert np.isfinite(tree["posterior_predictive"]["IPRED"]).all()


def lines_of(model, on, values=None):
    """Return why a model cannot be predicted, without the heading."""
    with pytest.raises(popk.ModelError) as caught:
        popk.predict_at(model, on, values or {})
    return str(caught.value).splitlines()[1:]


def test_a_component_of_a_score_out_of_range_is_refused_by_row_and_column():
    def model(trial):
        score = child_pugh_score(
            1.0,
            4.0,
            1.0,
            trial.covariate("ASCITES"),
            0,
            bilirubin_unit="mg/dL",
            albumin_unit="g/dL",
        )
        falling(trial, 10 / score)

    assert lines_of(model, trial(PATIENTS.replace("2       60", "4       60"), **UNITS)) == [
        "  row 2  ID 2  TIME 0  ASCITES 4: ascites is 4, but must be one of 0, 1, 2, 3; code none as 0 "
        "and the grades as 1 to 3"
    ]


def test_a_code_of_a_phenotype_that_is_none_is_refused_by_row(unseen):
    def model(trial):
        code = trial.covariate("GENO").astype(int)
        falling(trial, 2.0 * monotone(code, jnp.asarray([0.5, 0.5]), 2))

    (line,) = lines_of(model, unseen)
    assert line == (
        "  row 2  ID 2  TIME 0: code 5 is not that of a level; give whole numbers from 0 to 2"
    )


def test_an_effect_that_is_wrong_for_everyone_has_no_row(patients):
    def model(trial):
        ref = numpyro.sample("CL_REF", popk.lognormal(70.0, cv=0.1))
        falling(trial, 2.0 * power(trial.covariate("WT"), 0.75, ref=ref))

    assert lines_of(model, patients, {"CL_REF": -70.0}) == [
        "  ref is -70, but must be above 0 and finite; correct it"
    ]


def test_a_reason_within_a_map_of_the_model_is_passed_over_and_others_are_told(unseen):
    def model(trial):
        WT = trial.covariate("WT")
        size = jax.vmap(lambda one: power(one, 0.75, ref=70.0))(WT)
        falling(trial, size * categorical(trial.covariate("GENO"), {0: 1.0, 1: 0.5}))

    assert lines_of(model, unseen) == [UNSEEN]


@pytest.mark.parametrize(
    ("transform", "value", "allowed"),
    [
        ("logit", 1.2, "logit between 0 and 1: it must lie between 0 and 1"),
        ("probit", -0.5, "probit: it must lie between 0 and 1"),
        (popk.logit_between(2, 6), 8.0, "logit between 2 and 6: it must lie between 2 and 6"),
        ("log", -1.0, "log: it must lie above 0"),
    ],
)
def test_a_typical_value_outside_the_bounds_of_its_transform_is_refused(
    transform, value, allowed, patients
):
    def model(trial):
        falling(trial, numpyro.sample("CL_pop", popk.lognormal(0.5, cv=0.3)), transform=transform)

    (line,) = lines_of(model, patients, {"CL_pop": value})
    assert line == (
        f"  row 0  ID 1  TIME 0 (and 1 other IDs): the typical value of CL is {value:g}, and its random "
        f"effect is {allowed}; bound its prior and the effects of covariates on it, or give another "
        "transform="
    )


def test_some_draws_outside_the_bounds_are_counted(patients):
    def model(trial):
        falling(trial, numpyro.sample("CL_pop", popk.lognormal(0.5, cv=0.3)), transform="logit")

    prior = popk.prior_draws(model, patients, seed=1, draws=1000)
    above = int((prior["prior"]["CL_pop"] > 1).sum())
    assert above > 0
    with pytest.raises(popk.ModelError, match=f"cannot be predicted in {above} of 1000 draws"):
        popk.predict(model, prior, patients, new_subjects=True, seed=1)


# --- units ---


def test_a_trial_in_other_units_than_the_fit_is_refused(patients, prior):
    table = patients.to_dataframe()
    table.attrs = {**table.attrs, "units": {**patients.units, "WT": "lb"}}
    says = (
        r"^WT is in lb in .*, and was in kg in the trial that the model was fitted to; convert it to kg, "
        r"or correct its unit$"
    )
    pounds = popk.read_nonmem(table)
    with pytest.raises(popk.ModelError, match=says):
        popk.predict(by_genotype, prior, pounds, new_subjects=True, seed=1)
    with pytest.raises(popk.ModelError, match=says):
        popk.Twin(by_genotype, prior, pounds["1"])
    table.attrs["units"] = {**patients.units, "TIME": "day"}
    with pytest.raises(popk.ModelError, match="TIME is in day"):
        popk.predict(by_genotype, prior, popk.read_nonmem(table), new_subjects=True, seed=1)
    table.attrs["units"] = {**patients.units, "DV": "ug/mL"}  # mg/L by another name
    popk.predict(by_genotype, prior, popk.read_nonmem(table), new_subjects=True, seed=1)


def test_creatinine_in_the_unit_of_another_laboratory_is_refused_before_anything_is_computed():
    def model(trial):
        renal = popk.covariates.cockcroft_gault(
            60.0, 70.0, trial.covariate("CREAT", unit="mg/dL"), male=1, unit="mg/dL"
        )
        falling(trial, 2.0 * renal / 100)

    rows = PATIENTS.replace("ASCITES", "CREAT").replace(" 0       70", " 80      70")
    molar = trial(rows.replace("2       60", "90      60"), CREAT="umol/L")
    with pytest.raises(popk.DataError) as caught:
        popk.predict_at(model, molar, {})
    assert str(caught.value).splitlines()[1:] == [
        "  CREAT is in umol/L, and the model takes it in mg/dL; convert it, or correct its unit"
    ]
    same = trial(
        rows.replace(" 80   ", " 0.9  ").replace("2       60", "1       60"), CREAT="g/m**3"
    )
    with pytest.raises(popk.DataError, match="CREAT is in g/m"):  # that is 0.1 mg/dL
        popk.predict_at(model, same, {})
    right = trial(
        rows.replace(" 80   ", " 0.9  ").replace("2       60", "1       60"), CREAT="mg/dl"
    )
    assert np.isfinite(popk.predict_at(model, right, {}).sel(subject="2")).all()
