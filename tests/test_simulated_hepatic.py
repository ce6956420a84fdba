"""The simulated study of hepatic impairment: is it what its script writes, and is its truth found again?"""

import runpy
import tomllib

import numpy as np
import pytest

import popk
from popk.covariates import child_pugh_class, child_pugh_score, phenotype
from popk.records.provenance import sha256
from tests.conftest import ROOT, model_of, trial_of
from tests.designs import model_file
from tests.recovery import recovered

CSV = ROOT / "data" / "simulated_hepatic.csv"
TOML = tomllib.loads(CSV.with_suffix(".toml").read_text())
TRUTH = model_file("simulated_hepatic").PUBLISHED


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "data" / "simulate_hepatic.py"))


@pytest.fixture(scope="module")
def study():
    return trial_of("simulated_hepatic")


@pytest.fixture(scope="module")
def subjects(study):
    return study.host.frame.groupby("ID", sort=False).first()


def test_the_script_writes_the_file_again_byte_for_byte(script):
    content = "\n".join([script["COLUMNS"], *script["rows"]()]) + "\n"
    assert sha256(content.encode()) == sha256(CSV.read_bytes()) == TOML["sha256"]


def test_each_group_has_its_child_pugh_class_by_the_components(subjects):
    five = (subjects[n].to_numpy() for n in ("BILI", "ALB", "INR", "ASCITES", "ENCEPH"))
    score = child_pugh_score(*five, bilirubin_unit="mg/dL", albumin_unit="g/dL")
    groups = np.where(subjects["LIVER"] == 1, child_pugh_class(score), 0)
    np.testing.assert_array_equal(groups, np.repeat([0, 1, 2, 3], 10))
    np.testing.assert_array_equal(score[:10], 5)


def test_the_codes_of_genotypes_are_what_cpic_says_of_them(script, subjects):
    for code, (diplotype, score, metabolism) in enumerate(script["DIPLOTYPES"]):
        found = phenotype("CYP2C9", diplotype)
        assert (found.activity_score, found.level) == (score, metabolism)
        said = TOML["columns"]["CYP2C9"]["levels"][str(code)]
        assert said == f"{diplotype}, activity score {score:g}"
    counts = subjects.groupby(np.repeat([0, 1, 2, 3], 10))["CYP2C9"].value_counts().unstack()
    np.testing.assert_array_equal(counts, [[1, 1, 1, 2, 5]] * 4)


def test_the_model_s_true_values_are_those_of_the_script(script):
    impaired, metabolism = script["IMPAIRED"], script["METABOLISM"]
    names = {"CL": "CL_pop", "V": "V_pop", "KA": "KA_pop"}
    expected = {names.get(n, n): value for n, value in script["TRUTH"].items()}
    expected |= {
        "CL_A": impaired["A"],
        "CL_B_A": impaired["B"] / impaired["A"],
        "CL_C_B": impaired["C"] / impaired["B"],
        "CL_poor": np.log(metabolism["intermediate"] / metabolism["poor"]),
        "CL_intermediate": -np.log(metabolism["intermediate"]),
    }
    assert expected.keys() == TRUTH.keys()
    for name, value in expected.items():
        assert TRUTH[name] == pytest.approx(value, abs=1e-3), name


def test_the_model_gives_the_script_s_levels_without_random_effects(script, study):
    found = popk.predict_at(model_of("simulated_hepatic"), study, TRUTH)
    WT = study.host.frame.groupby("ID", sort=False)["WT"].first()
    # ID 39: Child-Pugh C and *2/*3
    CL, V = 6 * (WT["39"] / 70) ** 0.75 * 0.3 * 0.3, 45 * WT["39"] / 70
    t = np.asarray(script["TIMES"])
    expected = 1e5 / V * 1.2 / (1.2 - CL / V) * (np.exp(-CL / V * t) - np.exp(-1.2 * t))
    np.testing.assert_allclose(found.sel(subject="39")[1:], expected, rtol=2e-3)


@pytest.mark.slow
def test_a_fit_finds_the_truth_again(study):
    found = recovered(model_of("simulated_hepatic"), [study], [TRUTH], warmup=500, draws=500)
    z = (found.mean - found.truth) / found.sd
    print(f"\n{found.mean.T[0].to_dict()}\n{found.held.T[0].to_dict()}")
    # of 12 intervals of 90% nine hold the truth or more with a probability of 0.97
    assert found.held.to_numpy().sum() >= 9
    assert float(z.abs().max(axis=None)) < 3
