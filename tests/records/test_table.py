"""Rules of a record table as data."""

import pandas as pd

from popk.records.table import DataError, Problem, Rule, problems

FRAME = pd.DataFrame(
    {
        "ID": ["1", "1", "2"],
        "TIME": [0.0, 1.5, 0.0],
        "ROW": [2, 3, 4],
        "AMT": [1.0, -2.0, float("nan")],
    }
)


def test_a_problem_prints_its_place_before_its_sentence():
    assert str(Problem("DV", "DV is odd", row=17, id="4", time="12.0")) == (
        "row 17  ID 4  TIME 12.0  DV is odd"
    )


def test_a_problem_of_the_whole_file_prints_its_sentence_alone():
    assert str(Problem("", "it is empty")) == "it is empty"


def test_a_problem_of_a_record_without_an_id_names_the_row_alone():
    assert str(Problem("ID", "ID is missing", row=3, id="", time="1")) == (
        "row 3  TIME 1  ID is missing"
    )


def test_a_rule_reports_each_row_that_breaks_it_with_its_own_values():
    rule = Rule("positive", "AMT", lambda f: ~f["AMT"].gt(0), "AMT is {AMT} for ID {ID}")
    assert problems(FRAME, [rule]) == [
        Problem("AMT", "AMT is -2 for ID 1", 3, "1", "1.5"),
        Problem("AMT", "AMT is missing for ID 2", 4, "2", "0"),
    ]


def test_problems_of_several_rules_come_in_the_order_of_the_rows():
    last = Rule("last", "ID", lambda f: f["ROW"].eq(4), "last")
    first = Rule("first", "ID", lambda f: f["ROW"].eq(2), "first")
    assert [p.says for p in problems(FRAME, [last, first])] == ["first", "last"]


def test_no_broken_rule_means_no_problem():
    assert problems(FRAME, [Rule("never", "ID", lambda f: f["ROW"].lt(0), "")]) == []


def test_an_error_counts_and_lists_its_problems():
    error = DataError("data/x.csv", [Problem("DV", "one", 2), Problem("DV", "two", 3)])
    assert str(error) == "2 problems in data/x.csv\n  row 2  one\n  row 3  two"
    assert isinstance(error, ValueError)
    assert [p.says for p in error.problems] == ["one", "two"]


def test_a_single_problem_is_not_called_problems():
    assert str(DataError("x.csv", [Problem("", "bad")])) == "1 problem in x.csv\n  bad"


def test_an_error_shows_fifty_problems_and_counts_the_rest():
    error = DataError("x.csv", [Problem("DV", f"number {i}", i) for i in range(60)])
    lines = str(error).splitlines()
    assert lines[0] == "60 problems in x.csv"
    assert lines[50] == "  row 49  number 49"
    assert lines[51] == "  ... and 10 more"
    assert len(lines) == 52
    assert len(error.problems) == 60
