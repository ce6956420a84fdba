"""What is known of a data file: the TOML that stands beside it."""

import pytest

import popk
from popk.records.provenance import NOTHING, read_provenance, sha256
from popk.records.table import DataError

CSV = b"ID,TIME,DV,WT,SEX\n1,0,5,70,0\n"
TOML = """
sha256 = "{hash}"
licence = "CC0-1.0"
[columns.ID]
role = "id"
[columns.TIME]
unit = "h"
[columns.AMT]
unit = "mg"
[columns.DV]
unit = "mg/L"
[columns.WT]
role = "covariate"
unit = "kg"
[columns.SEX]
role = "covariate"
unit = "1"
levels = {{ "0" = "female", "1" = "male" }}
"""


@pytest.fixture
def described(tmp_path):
    path = tmp_path / "trial.csv"
    path.write_bytes(CSV)
    path.with_suffix(".toml").write_text(TOML.format(hash=sha256(CSV)))
    return path


def test_the_hash_is_sha_256_of_the_bytes():
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_units_covariates_and_levels_come_from_the_toml_beside_the_file(described):
    known = read_provenance(described, CSV)
    assert known.units == {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg", "SEX": "1"}
    assert known.covariates == ("WT", "SEX")
    assert known.levels == {"SEX": {"0": "female", "1": "male"}}
    assert known.text["licence"] == "CC0-1.0"


def test_a_trial_takes_over_what_the_toml_says(described):
    trial = popk.read_nonmem(described)
    assert trial.units == {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg", "SEX": "1"}
    assert set(trial.covariates) == {"WT", "SEX"}
    assert trial.host.levels == {"SEX": {"0": "female", "1": "male"}}
    assert trial.host.fingerprint == sha256(CSV)


def test_arguments_overrule_the_toml(described):
    trial = popk.read_nonmem(described, covariates=["WT"], units={"DV": "ng/mL"})
    assert trial.units == {"TIME": "h", "AMT": "mg", "DV": "ng/mL", "WT": "kg"}


def test_a_file_without_a_toml_is_not_described(tmp_path):
    assert read_provenance(tmp_path / "trial.csv", CSV) == NOTHING


def test_data_that_changed_after_they_were_described_are_refused(described):
    described.write_bytes(CSV.replace(b"70", b"71"))
    with pytest.raises(DataError) as caught:
        popk.read_nonmem(described)
    beside, found = described.with_suffix(".toml"), sha256(CSV.replace(b"70", b"71"))
    assert str(caught.value) == (
        f"1 problem in {beside}\n  its sha256 {sha256(CSV)[:12]}... is not that of trial.csv "
        f"({found[:12]}...): the data changed after they were described; check the change, then "
        f"write the new sha256"
    )


def test_a_toml_without_a_hash_is_accepted(described):
    described.with_suffix(".toml").write_text('[columns.TIME]\nunit = "h"\n')
    assert read_provenance(described, CSV).units == {"TIME": "h"}


def test_a_toml_that_cannot_be_read_is_named(described):
    beside = described.with_suffix(".toml")
    beside.write_text("sha256 = ")
    with pytest.raises(DataError, match="it is not valid TOML: ") as caught:
        read_provenance(described, CSV)
    assert caught.value.where == str(beside)


def test_a_toml_names_the_column_as_the_file_does(tmp_path):
    path = tmp_path / "trial.csv"
    path.write_text("ID,TIME,CONC\n1,0,5\n")
    path.with_suffix(".toml").write_text(
        '[columns.TIME]\nunit = "h"\n[columns.AMT]\nunit = "mg"\n[columns.CONC]\nunit = "ng/mL"\n'
    )
    assert popk.read_nonmem(path, columns={"DV": "CONC"}).units["DV"] == "ng/mL"
