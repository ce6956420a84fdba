"""The warfarin cohort of the IWPC: what its file is said to hold."""

import csv
import hashlib
import tomllib
from statistics import median

import pytest

from popk.covariates.genotype import phenotypes
from tests.conftest import ROOT

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
