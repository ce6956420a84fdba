"""The warfarin cohort of the IWPC: what its file is said to hold, and a model of its doses."""

import csv
import hashlib
import math
import tomllib
import warnings
from statistics import median

import numpy as np
import pandas as pd
import pytest

import popk
from popk.covariates.genotype import phenotypes
from tests.conftest import ROOT
from tests.designs import model_file, trial_for

CSV = ROOT / "data" / "iwpc.csv"
TOML = tomllib.loads(CSV.with_suffix(".toml").read_text(encoding="utf-8"))

#: Patients and median weekly dose [mg/week] of each diplotype.
CYP2C9 = {
    "*1/*1": (4351, 30.0),
    "*1/*2": (772, 28.0),
    "*1/*3": (503, 21.0),
    "*2/*2": (59, 22.75),
    "*2/*3": (69, 15.0),
    "*3/*3": (20, 11.0),
}
VKORC1 = {"G/G": (1558, 40.0), "A/G": (1643, 30.0), "A/A": (1500, 19.95)}


@pytest.fixture(scope="module")
def patients():
    with CSV.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_is_the_one_that_was_described(patients):
    assert hashlib.sha256(CSV.read_bytes()).hexdigest() == TOML["sha256"]
    assert list(patients[0]) == list(TOML["columns"])


def test_there_is_one_row_for_each_patient_with_a_stable_dose(patients):
    assert len(patients) == 5919
    assert [row["ID"] for row in patients] == [str(i) for i in range(1, 5920)]
    assert all(float(row["DOSE"]) > 0 for row in patients)


def test_every_cell_says_something_or_is_a_point(patients):
    assert all(cell and cell == cell.strip() for row in patients for cell in row.values())
    coded = [name for name, column in TOML["columns"].items() if "levels" in column]
    assert {row[name] for row in patients for name in coded} == {"0", "1", "."}


@pytest.mark.parametrize(("column", "expected"), [("CYP2C9", CYP2C9), ("VKORC1", VKORC1)])
def test_a_genotype_has_so_many_patients_and_this_median_dose(patients, column, expected):
    for genotype, (count, middle) in expected.items():
        doses = [float(row["DOSE"]) for row in patients if row[column] == genotype]
        assert (len(doses), median(doses)) == (count, pytest.approx(middle))


@pytest.mark.parametrize("gene", ["CYP2C9", "VKORC1"])
def test_the_dose_falls_with_the_level_of_the_phenotype(patients, gene):
    known = [row for row in patients if row[gene] != "."]
    found = phenotypes(gene, [row[gene] for row in known])
    doses = [
        median(float(row["DOSE"]) for row, code in zip(known, found.code, strict=True) if code == i)
        for i in range(len(found.levels))
    ]
    assert doses == sorted(doses)
    assert doses[0] < 0.6 * doses[-1]


def predicted(row):
    """Return the dose [mg/week] of the published algorithm."""
    b = {name: float(value) for name, value in TOML["estimates"][0]["values"].items()}
    root = b["intercept"] + b["AGE"] * int(row["AGE"][0])
    root += b["HT"] * float(row["HT"]) + b["WT"] * float(row["WT"])
    root += {"G/G": 0, "A/G": b["VKORC1_AG"], "A/A": b["VKORC1_AA"]}[row["VKORC1"]]
    diplotype = row["CYP2C9"].replace("*", "").replace("/", "")
    root += 0 if diplotype == "11" else b[f"CYP2C9_{diplotype}"]
    race = row["RACE"].split()[0]
    root += {"White": 0, "Unknown": b["missing_or_mixed_race"]}.get(race, b.get(race))
    inducer = "1" in (row["CARBAMAZEPINE"], row["PHENYTOIN"], row["RIFAMPIN"])
    return (
        root + b["enzyme_inducer"] * inducer + b["amiodarone"] * (row["AMIODARONE"] == "1")
    ) ** 2


def test_the_published_algorithm_predicts_these_doses_as_it_is_said_to(patients):
    complete = [
        row
        for row in patients
        if "." not in (row["AGE"], row["HT"], row["WT"], row["VKORC1"]) and row["CYP2C9"] in CYP2C9
    ]
    errors = [(predicted(row) - float(row["DOSE"]), float(row["DOSE"])) for row in complete]
    assert len(errors) == 4162
    assert sum(abs(e) for e, _ in errors) / len(errors) == pytest.approx(8.643, abs=1e-3)
    close = sum(abs(e) <= 0.2 * dose for e, dose in errors)
    assert close / len(errors) == pytest.approx(0.4618, abs=1e-4)


# --- the model of these doses ---

#: Population values for figures by hand: steps and effects that are easily followed.
VALUES = {
    "CL_pop": 0.3, "CSS_pop": 0.4, "CL_CYP2C9": [0.4, 0.3, 0.2, 0.1], "CSS_VKORC1": [0.5, 0.25],
    "CL_AGE": -0.1, "CL_WT": 0.5, "CL_HT": 1.0, "CL_AMIODARONE": [-0.3, 0.01], "CL_INDUCER": [0.2, 0.02],
    "CSS_RACE": [0.07, -0.06, 0.05], "zeta_CSS_SITE": [0.01 * i for i in range(23)], "tau_CSS_SITE": 0.1,
    "sigma_log": 0.3, "sigma_degrees": 5.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def file():
    return model_file("warfarin_dose")


@pytest.fixture(scope="module")
def complete():
    """The 4162 patients with age, height, weight and both genotypes; none is filled in."""
    table = pd.read_csv(CSV, dtype=str, keep_default_na=False)
    whole = table[["AGE", "HT", "WT", "VKORC1"]].ne(".").all(axis=1)
    return table[whole & table["CYP2C9"].isin(CYP2C9)]


def doses(file, rows):
    """Return a trial with one record a patient, whose level is the dose."""
    return popk.read_nonmem(
        rows.assign(TIME=0, **file.CODES),
        columns={"DV": "DOSE"},
        covariates=tuple(file.COVARIATES),
        units={"TIME": "week", "AMT": "mg", "DV": "mg/week", **file.COVARIATES},
    )


def test_each_covariate_of_the_model_follows_from_the_table(file, complete):
    row = complete.iloc[0].to_dict() | {
        "CYP2C9": "*2/*3", "VKORC1": "A/G", "AGE": "90+", "RACE": "Asian", "AMIODARONE": ".",
        "CARBAMAZEPINE": "0", "PHENYTOIN": "1", "RIFAMPIN": ".",
    }  # fmt: skip
    rows = [row, row | {"PHENYTOIN": "0"}, row | {"PHENYTOIN": "0", "RIFAMPIN": "0"}]
    frame = pd.DataFrame(rows).assign(ID=["1", "2", "3"])
    trial = doses(file, frame).to_dataframe()
    found = trial[["CYP2C9", "VKORC1", "AGE", "RACE", "AMIODARONE"]].iloc[0].to_list()
    assert found == [0.5, 1, 95, 1, 2]
    assert trial["INDUCER"].to_list() == [1, 2, 0]  # one of three was not asked for


def test_a_patient_without_a_genotype_is_refused_rather_than_filled_in(file, patients):
    unknown = pd.DataFrame([row for row in patients if row["CYP2C9"] == "."][:1])
    with pytest.raises(ValueError, match="CYP2C9 has no diplotype; leave the patient out"):
        doses(file, unknown)


def test_the_dose_is_what_is_cleared_in_a_week_at_the_concentration_that_is_needed(file):
    trial = trial_for("warfarin_dose")
    found = popk.predict_at(file.warfarin_dose, trial, VALUES).values.ravel()
    usual = 2 * 168 * 0.3 * 0.4 * math.exp(0.02 + 0.01)  # not asked for an inducer; site 1
    other = 2 * 168 * 0.3 * 0.4 * (50 / 75) ** 0.5 * (150 / 170) * math.exp(
        -(0.3 + 0.2 + 0.1) - (0.5 + 0.25) + 0.3 - 0.3 + 0.2 + 0.07 + 0.0
    )  # fmt: skip
    np.testing.assert_allclose(found, [usual, other], rtol=1e-12)


def test_a_genotype_or_site_that_the_model_does_not_know_is_refused_by_row(file):
    for wrong in ({"CYP2C9": 1.2}, {"VKORC1": 3.0}, {"SITE": 23.0}, {"INDUCER": 5.0}):
        frame = trial_for("warfarin_dose").to_dataframe().assign(**wrong)
        frame.attrs = trial_for("warfarin_dose").to_dataframe().attrs
        column, value = next(iter(wrong.items()))
        with pytest.raises(popk.ModelError, match=rf"ID 1  TIME 0.*  {column} {value:g}: "):
            popk.predict_at(file.warfarin_dose, popk.read_nonmem(frame), VALUES)


@pytest.mark.slow
def test_the_model_predicts_doses_that_were_put_aside_as_well_as_the_published_algorithm(
    file, complete
):
    assert len(complete) == 4162
    aside = complete.sample(frac=0.3, random_state=1)
    known = complete.drop(aside.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        posterior = popk.fit(
            file.warfarin_dose, doses(file, known), seed=1, chains=4, warmup=300, draws=250,
            target_accept=0.8, progress=False,
        )  # fmt: skip
    assert popk.convergence(posterior).rhat < 1.03

    truth = aside["DOSE"].astype(float).to_numpy()
    published = np.array([predicted(row) for row in aside.to_dict("records")])

    def simulated(rows):
        found = popk.predict(
            file.warfarin_dose, posterior, doses(file, rows), new_subjects=True, seed=2
        )
        return found["posterior_predictive"]

    here, new = simulated(aside), simulated(aside.assign(SITE=0))
    errors = [
        np.abs(x - truth).mean()
        for x in (here["IPRED"].median("sample"), new["IPRED"].median("sample"), published)
    ]
    assert errors[2] == pytest.approx(8.50, abs=0.01)  # mg/week
    assert errors[0] < 8.25
    assert errors[1] <= errors[2]  # of a site that the model has not seen
    low, high = here["DV"].quantile([0.05, 0.95], "sample").values
    assert ((truth >= low) & (truth <= high)).mean() == pytest.approx(0.9, abs=0.03)

    # The medians of the diplotypes: in order, and where the patients' own are.
    every, observed = simulated(complete)["DV"].values, complete["DOSE"].astype(float).to_numpy()
    middle = {}
    for diplotype in CYP2C9:
        these = (complete["CYP2C9"] == diplotype).to_numpy()
        low, middle[diplotype], high = np.quantile(
            np.median(every[:, these], axis=1), [0.01, 0.5, 0.99]
        )
        assert low - 0.5 <= np.median(observed[these]) <= high + 0.5  # doses come in tablets
    order = [middle[d] for d in ("*1/*1", "*1/*2", "*1/*3", "*2/*3", "*3/*3")]
    assert order == sorted(order, reverse=True)
    steps = posterior["posterior"]["CSS_VKORC1"].quantile(0.05, ("chain", "draw"))
    assert (steps > 0.2).all()
