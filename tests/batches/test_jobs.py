"""What is to be fitted? Jobs, as jobs.toml has them."""

import pytest

from popk.batches.jobs import BatchError, jobs_of
from popk.batches.work import folds, resampled
from tests.inference.gaussian import gaussian_trial

ONE = {"name": "one", "model": "m.py", "data": "d.csv"}


def test_a_list_of_seeds_makes_as_many_jobs_and_defaults_are_for_all(tmp_path):
    file = tmp_path / "jobs.toml"
    file.write_text("""
[defaults]
model = "m.py"
draws = 100

[[job]]
name = "several"
data = "d.csv"
seed = [1, 7]

[[job]]
name = "boot"
data = "e.csv"
kind = "bootstrap"
replicates = 5
draws = 50
""")
    jobs = jobs_of(file)
    assert [(j.name, j.seed, j.parts, j.options["draws"]) for j in jobs] == [
        ("several-seed1", 1, 0, 100), ("several-seed7", 7, 0, 100), ("boot", 1, 5, 50),
    ]  # fmt: skip
    assert jobs[0].model == str(tmp_path / "m.py")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"job": []}, "no job; write one"),
        ({"job": [ONE], "more": 1}, "more; write one"),
        ({"job": [{**ONE, "drawz": 1}]}, "drawz is no key of a job"),
        ({"job": [{"name": "one", "data": "d.csv"}]}, "job one: model is missing"),
        ({"job": [{**ONE, "name": "../up"}]}, "its name is that of a run folder"),
        ({"job": [ONE, ONE]}, "there are 2 of this name"),
        ({"job": [{**ONE, "seed": "x"}]}, "give an integer, or a list of them"),
        ({"job": [{**ONE, "method": "magic"}]}, "method is 'magic'"),
        ({"job": [{**ONE, "kind": "guess"}]}, "kind is 'guess'"),
        ({"job": [{**ONE, "kind": "bootstrap"}]}, "needs replicates"),
        ({"job": [{**ONE, "kind": "cross-validation", "folds": 1}]}, "integer of at least 2"),
        ({"job": [{**ONE, "folds": 3}]}, "folds means nothing to kind = 'fit'"),
        ({"job": [{**ONE, "units": "mg"}]}, "units is 'mg'; give a mapping"),
    ],
)
def test_what_cannot_be_understood_is_refused_before_anything_is_done(told, says):
    with pytest.raises(BatchError, match=says):
        jobs_of(told)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "jobs.toml").write_text("[[job")
    with pytest.raises(BatchError, match="cannot be read as TOML"):
        jobs_of(tmp_path / "jobs.toml")
    with pytest.raises(BatchError, match="cannot be read as TOML"):
        jobs_of(tmp_path / "none.toml")


def test_subjects_drawn_with_replacement_keep_their_records_under_ids_of_their_own():
    trial = gaussian_trial()
    levels = {w: list(f["DV"]) for w, f in trial.to_dataframe().groupby("ID", sort=False)}
    drawn = [resampled(trial, (1, part)) for part in range(20)]
    for one in drawn:
        assert one.ids == ("1", "2", "3")
        own = one.to_dataframe().groupby("ID", sort=False)
        assert all(list(f["DV"]) in levels.values() for _, f in own)
    assert any(one.to_dataframe()["DV"].nunique() < 7 for one in drawn)
    again = resampled(trial, (1, 3)).host.frame
    assert again.equals(drawn[3].host.frame)


def test_every_subject_is_of_one_fold_and_folds_are_even():
    ids = tuple(str(i) for i in range(11))
    dealt = folds(ids, 3, seed=1)
    assert sorted((who for fold in dealt for who in fold), key=int) == list(ids)
    assert sorted(len(fold) for fold in dealt) == [3, 4, 4]
    assert folds(ids, 3, seed=2) != dealt
    with pytest.raises(ValueError, match="folds is 12, and there are 11 subjects"):
        folds(ids, 12, seed=1)
