"""What did the trial record? The rules of NONMEM-layout tables, each broken by a row."""

import numpy as np
import pandas as pd
import pytest

from popk.records.nonmem import DEFAULTS, FOREIGN, REQUIRED, RULES, check_records, read_rows
from popk.records.table import DataError

COLUMNS = (
    "ID",
    "TIME",
    "EVID",
    "AMT",
    "RATE",
    "II",
    "ADDL",
    "SS",
    "CMT",
    "DV",
    "DVID",
    "MDV",
    "BLQ",
    "LLOQ",
    "ALQ",
    "ULOQ",
    "CENS",
    "LIMIT",
)


def dose(**other) -> dict:
    return {"ID": 1, "TIME": 0, "EVID": 1, "AMT": 100, "MDV": 1, **other}


def level(**other) -> dict:
    return {"ID": 1, "TIME": 1, "EVID": 0, "DV": 5, "MDV": 0, **other}


def file_text(*rows: dict) -> str:
    """Return a CSV with every standard column, `.` where a row says nothing."""
    lines = [",".join(str(row.get(name, ".")) for name in COLUMNS) for row in rows]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trial.csv"


@pytest.fixture
def check(path):
    """Return a function that writes a text to a file and returns its checked records."""

    def check(text, **options):
        path.write_text(text, encoding="utf-8")
        original, _ = read_rows(path)
        return check_records(original, "trial.csv", **options)

    return check


@pytest.fixture
def refusal(check):
    """Return a function that writes a text to a file and returns what is said against it."""

    def refusal(text, **options):
        with pytest.raises(DataError) as caught:
            check(text, **options)
        return str(caught.value)

    return refusal


#: For each rule: rows of which the LAST breaks it (in line 3, after the header), and what is said.
TRIGGERS = {
    "an ID is one block of rows": (
        [dose(), dose(ID=2), level(ID=1)],
        "row 4  ID 1  TIME 1  ID 1 was already used further up; put all its records together, or "
        "give it another ID",
    ),
    "an ID is given": (
        [dose(), level(ID=".")],
        "row 3  TIME 1  ID is missing; every record needs one",
    ),
    "a time is given": (
        [dose(), level(TIME=".")],
        "row 3  ID 1  TIME missing  TIME is missing; every record needs one",
    ),
    "time goes on within an ID": (
        [dose(TIME=12), level(TIME=11.5)],
        "row 3  ID 1  TIME 11.5  TIME goes back; sort the records, or start a new occasion with "
        "EVID 3 or 4",
    ),
    "an EVID is known": (
        [dose(), level(EVID=7, MDV=1)],
        "row 3  ID 1  TIME 1  EVID is 7; use 0 (observation), 1 (dose), 2 (other), 3 (reset) or 4 "
        "(reset and dose)",
    ),
    "an amount is not negative": (
        [dose(), dose(AMT=-50)],
        "row 3  ID 1  TIME 0  AMT is -50; a dose must be positive",
    ),
    "a dose has an amount": (
        [dose(), dose(AMT=0)],
        "row 3  ID 1  TIME 0  AMT is 0 on a dose (EVID 1); give the amount, or set EVID 2",
    ),
    "only a dose has an amount": (
        [dose(), level(AMT=20)],
        "row 3  ID 1  TIME 1  AMT is 20 on EVID 0; set EVID 1 if it is a dose, AMT 0 if not",
    ),
    "only a dose has a rate": (
        [dose(), level(RATE=5)],
        "row 3  ID 1  TIME 1  RATE is 5 on EVID 0; set EVID 1 if it is an infusion, RATE 0 if not",
    ),
    "a rate is known": (
        [dose(), dose(RATE=-3)],
        "row 3  ID 1  TIME 0  RATE is -3; give a rate above 0, 0 for a bolus, -1 for a modeled rate "
        "(R), -2 for a modeled duration (D)",
    ),
    "SS is known": (
        [dose(), dose(SS=3, II=12)],
        "row 3  ID 1  TIME 0  SS is 3; use 0, 1 (amounts become the steady state) or 2 (the steady "
        "state is added)",
    ),
    "only a dose has a steady state": (
        [dose(), level(SS=1, II=12)],
        "row 3  ID 1  TIME 1  SS is 1 on EVID 0; only a dose has a steady state: set EVID 1, or SS 0",
    ),
    "a steady state has an interval": (
        [dose(), dose(SS=1)],
        "row 3  ID 1  TIME 0  SS is 1 but II is 0; give the interval between doses, or for a constant "
        "infusion AMT 0",
    ),
    "a constant infusion has a rate": (
        [dose(), dose(SS=1, AMT=0, RATE=-2)],
        "row 3  ID 1  TIME 0  SS is 1 and AMT 0, a constant infusion, but RATE is -2; give its rate "
        "(or -1), or the amount",
    ),
    "a constant infusion has no interval": (
        [dose(), dose(SS=1, AMT=0, RATE=10, II=12)],
        "row 3  ID 1  TIME 0  SS is 1 and AMT 0, a constant infusion, but II is 12; set II 0, or give "
        "the amount",
    ),
    "a constant infusion is not repeated": (
        [dose(), dose(SS=1, AMT=0, RATE=10, ADDL=3)],
        "row 3  ID 1  TIME 0  SS is 1 and AMT 0, a constant infusion, but ADDL is 3; it has no further "
        "doses: set ADDL 0",
    ),
    "a number of further doses is not negative": (
        [dose(), dose(ADDL=-1, II=12)],
        "row 3  ID 1  TIME 0  ADDL is -1; give the number of further doses, or 0",
    ),
    "further doses have an interval": (
        [dose(), dose(ADDL=3)],
        "row 3  ID 1  TIME 0  ADDL is 3 but II is 0; give the interval between doses",
    ),
    "only a dose is repeated": (
        [dose(), level(ADDL=3, II=12)],
        "row 3  ID 1  TIME 1  ADDL is 3 on EVID 0; only a dose has further doses",
    ),
    "only a record without a dose turns a compartment off": (
        [dose(), dose(CMT=-1)],
        "row 3  ID 1  TIME 0  CMT is -1 on EVID 1; a negative CMT turns a compartment off and stands "
        "on EVID 0 or 2",
    ),
    "a kind of level is not negative": (
        [dose(), level(DVID=-1)],
        "row 3  ID 1  TIME 1  DVID is -1; number the kinds of levels from 1",
    ),
    "MDV is 0 or 1": (
        [dose(), level(MDV=2)],
        "row 3  ID 1  TIME 1  MDV is 2; use 0 (DV counts) or 1 (it does not)",
    ),
    "only an observation has a level": (
        [dose(), dose(MDV=0, DV=5)],
        "row 3  ID 1  TIME 0  MDV is 0 on EVID 1; set MDV 1, and put a level on a row of its own "
        "with EVID 0",
    ),
    "an observation has a level": (
        [dose(), level(DV=".")],
        "row 3  ID 1  TIME 1  DV is missing on an observation; set MDV 1, or give LLOQ and BLQ 1",
    ),
    "BLQ is 0 or 1": (
        [dose(), level(BLQ=3)],
        "row 3  ID 1  TIME 1  BLQ is 3; use 1 for a level below the limit of quantification, 0 if "
        "not",
    ),
    "a level below the limit has a limit": (
        [dose(), level(BLQ=1, DV=".")],
        "row 3  ID 1  TIME 1  LLOQ is missing where BLQ is 1; give the limit of quantification",
    ),
    "ALQ is 0 or 1": (
        [dose(), level(ALQ=2)],
        "row 3  ID 1  TIME 1  ALQ is 2; use 1 for a level above the upper limit of quantification, 0 "
        "if not",
    ),
    "a level above the upper limit has a limit": (
        [dose(), level(ALQ=1, DV=".")],
        "row 3  ID 1  TIME 1  ULOQ is missing where ALQ is 1; give the upper limit of quantification",
    ),
    "an interval has its ends in order": (
        [dose(), level(BLQ=1, LLOQ=2, ALQ=1, ULOQ=2)],
        "row 3  ID 1  TIME 1  a level is above ULOQ 2 and below LLOQ 2, where nothing is; give the "
        "ends of its interval, or BLQ or ALQ 0",
    ),
    "CENS is known": (
        [dose(), level(CENS=2)],
        "row 3  ID 1  TIME 1  CENS is 2; use 1 where the level is below DV, -1 where it is above DV, 0 "
        "if it is known",
    ),
    "a level is censored once": (
        [dose(), level(CENS=1, BLQ=1, LLOQ=0.5)],
        "row 3  ID 1  TIME 1  CENS is 1 beside BLQ 1 and ALQ 0; say it in one way: drop CENS, or BLQ "
        "and ALQ",
    ),
    "only a censored level has the other end of an interval": (
        [dose(), level(LIMIT=1)],
        "row 3  ID 1  TIME 1  LIMIT is 1 where CENS is 0; write . there, or CENS 1 or -1",
    ),
}


def test_every_rule_is_triggered_by_a_bad_row_below():
    assert [rule.name for rule in RULES] == list(TRIGGERS)


def test_no_two_rules_bear_one_name():
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_reported_on_a_standard_column_and_says_what_to_do(rule):
    assert rule.column in DEFAULTS
    assert "{" + rule.column + "}" in rule.says or f"{rule.column} " in rule.says
    assert any(mark in rule.says for mark in (";", ":")), "found; what to do"


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_bad_row_is_refused_with_its_place_and_a_remedy(name, refusal):
    rows, says = TRIGGERS[name]
    assert refusal(file_text(*rows)) == f"1 problem in trial.csv\n  {says}"


@pytest.mark.parametrize("name", TRIGGERS)
def test_the_row_before_the_bad_one_is_fine(name, check):
    rows, _ = TRIGGERS[name]
    assert len(check(file_text(*rows[:-1])).frame) == len(rows) - 1


@pytest.mark.parametrize(
    "row",
    [
        dose(RATE=10), dose(ADDL=3, II=12), dose(CMT=2), dose(EVID=4), dose(EVID=3, AMT="."),
        dose(RATE=-1), dose(RATE=-2), dose(RATE=-2, SS=1, II=12), dose(SS=1, II=12, ADDL=2),
        dose(SS=2, II=12), dose(EVID=4, SS=1, II=12), dose(SS=1, AMT=0, RATE=10),
        dose(SS=2, AMT=0, RATE=-1), dose(EVID=2, AMT=".", CMT=-1), level(CMT=-1), level(DVID=2),
        level(EVID=2, MDV=1), level(MDV=1), level(DV=".", MDV=1), level(BLQ=1, LLOQ=0.1, DV="."),
        level(BLQ=1, LLOQ=0.1), level(CMT=1), level(TIME=0), level(DV=0), level(DV=-0.1),
        level(BLQ=0, LLOQ=0), level(ALQ=1, ULOQ=50, DV="."), level(BLQ=1, LLOQ=5, ALQ=1, ULOQ=2),
        level(CENS=1), level(CENS=-1), level(CENS=1, LIMIT=0), level(CENS=-1, LIMIT=9),
        level(CENS=1, BLQ=1, LLOQ=5),
    ],
    ids=str,
)  # fmt: skip
def test_a_good_row_is_accepted(row, check):
    assert len(check(file_text(dose(), row)).frame) == 2


def test_time_may_start_again_at_a_reset(check):
    records = check(file_text(dose(), level(TIME=9), dose(EVID=4, TIME=0), level(TIME=2)))
    assert records.frame["TIME"].tolist() == [0, 9, 0, 2]


def test_all_problems_are_reported_together_with_file_row_id_and_column(refusal, check, path):
    text = file_text(
        dose(), level(DV="."), dose(AMT=-50, TIME=0.5), level(ID=2, MDV=7, BLQ=1), level(ID=1)
    )
    assert refusal(text) == (
        "6 problems in trial.csv\n"
        "  row 3  ID 1  TIME 1  DV is missing on an observation; set MDV 1, or give LLOQ and BLQ 1\n"
        "  row 4  ID 1  TIME 0.5  TIME goes back; sort the records, or start a new occasion with "
        "EVID 3 or 4\n"
        "  row 4  ID 1  TIME 0.5  AMT is -50; a dose must be positive\n"
        "  row 5  ID 2  TIME 1  MDV is 7; use 0 (DV counts) or 1 (it does not)\n"
        "  row 5  ID 2  TIME 1  LLOQ is missing where BLQ is 1; give the limit of quantification\n"
        "  row 6  ID 1  TIME 1  ID 1 was already used further up; put all its records together, or "
        "give it another ID"
    )
    with pytest.raises(DataError) as caught:
        check(text)
    assert [(p.column, p.row, p.id) for p in caught.value.problems] == [
        ("DV", 3, "1"), ("TIME", 4, "1"), ("AMT", 4, "1"), ("MDV", 5, "2"), ("LLOQ", 5, "2"),
        ("ID", 6, "1"),
    ]  # fmt: skip


# --- the file ---


def test_a_file_that_does_not_exist_is_named(path):
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value) == f"1 problem in {path}\n  there is no such file; check the path"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a remark\n", "   \n"])
def test_an_empty_file_is_refused(text, path):
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value) == f"1 problem in {path}\n  it is empty; it needs a header and records"


def test_a_file_with_a_header_only_is_refused(refusal):
    assert refusal("ID,TIME,DV\n") == "1 problem in trial.csv\n  it has a header but no records"


def test_a_dataframe_without_rows_is_refused():
    with pytest.raises(DataError) as caught:
        check_records(pd.DataFrame({"ID": [], "TIME": [], "DV": []}), "DataFrame")
    assert str(caught.value) == "1 problem in DataFrame\n  it has a header but no records"


def test_a_file_that_is_not_text_is_refused(path):
    path.write_bytes(b"\xff\xfe\x00PK\x03\x04")
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value) == f"1 problem in {path}\n  it is not UTF-8 text; export it as CSV"


def test_every_ragged_row_is_named(path):
    path.write_text("ID,TIME,DV\n1,0,5\n1,1\n1,2,5,6\n")
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value) == (
        f"2 problems in {path}\n"
        "  row 3  it has 2 fields where the header has 3\n"
        "  row 4  it has 4 fields where the header has 3"
    )


def test_a_quoted_field_over_two_lines_is_refused_with_its_row(path):
    path.write_text('ID,TIME,DV,NOTE\n1,0,5,"two\nlines"\n1,1,5,x\n')
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value) == (
        f"2 problems in {path}\n"
        "  row 2  its quotes do not match; write each record on one line\n"
        "  row 3  it has 1 fields where the header has 4"
    )


def test_a_quoted_field_may_hold_the_separator(path):
    path.write_text('"ID","TIME","DV","NOTE"\n1,0,5,"a, b"\n')
    table, _ = read_rows(path)
    assert table.to_dict("list") == {"ID": ["1"], "TIME": ["0"], "DV": ["5"], "NOTE": ["a, b"]}


@pytest.mark.parametrize(
    "text",
    [
        "ID,TIME,DV\n1,0,5\n1,1.5,.\n",
        "ID;TIME;DV\n1;0;5\n1;1.5;.\n",
        "ID\tTIME\tDV\n1\t0\t5\n1\t1.5\t.\n",
        "ID TIME  DV\n 1    0   5\n 1  1.5   .\n",
        " ID , TIME , DV \n 1 , 0 , 5 \n1, 1.5 ,.\n",
        "\ufeffID,TIME,DV\n1,0,5\n1,1.5,.\n",
        "ID,TIME,DV\r\n1,0,5\r\n1,1.5,.\r\n",
        "# theophylline\n\nID,TIME,DV\n1,0,5\n# second record\n1,1.5,.\n\n",
    ],
    ids=["comma", "semicolon", "tab", "white space", "padded", "BOM", "CRLF", "remarks"],
)
def test_the_usual_ways_to_write_a_table_are_read_alike(text, path):
    path.write_bytes(text.encode("utf-8"))
    table, content = read_rows(path)
    assert table.to_dict("list") == {"ID": ["1", "1"], "TIME": ["0", "1.5"], "DV": ["5", "."]}
    assert content == text.encode("utf-8")


def test_a_row_is_called_by_its_line_of_the_file(path):
    path.write_text("# remark\nID,TIME,DV\n1,0,5\n\n# remark\n1,1,5\n")
    assert read_rows(path)[0].index.tolist() == [3, 6]


def test_the_row_of_a_dataframe_is_called_by_its_index():
    frame = pd.DataFrame(
        {"ID": [1, 1], "TIME": [1, 0], "DV": [1.0, 2.0]}, index=["first", "second"]
    )
    with pytest.raises(DataError) as caught:
        check_records(frame, "DataFrame")
    assert caught.value.problems[0].row == "second"


# --- the columns ---


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_column_that_is_missing_is_named_with_the_way_out(name, refusal):
    header = [c for c in ("ID", "TIME", "DV", "WT") if c != name]
    assert refusal(",".join(header) + "\n1,1,1\n") == (
        f"1 problem in trial.csv\n  column {name} is missing; the header has {', '.join(header)}; "
        f"name it with columns={{'{name}': ...}}"
    )


def test_a_column_that_stands_twice_is_refused(refusal):
    assert refusal("ID,TIME,DV,DV\n1,0,5,6\n") == (
        "1 problem in trial.csv\n  column DV stands 2 times; rename or drop one"
    )


def test_columns_that_differ_in_case_only_are_refused(refusal):
    assert refusal("ID,Time,time,DV\n1,0,3,6\n") == (
        "1 problem in trial.csv\n  columns Time, time could both be TIME; name one with "
        "columns={'TIME': ...}"
    )


def test_the_exact_name_wins_over_one_of_another_case(check):
    assert check("ID,TIME,time,DV\n1,2,3,6\n").frame["TIME"].tolist() == [2]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("written", [str.upper, str.lower, str.title])
def test_a_column_that_would_change_the_meaning_of_a_record_is_refused(name, written, refusal):
    column = written(name)
    assert refusal(f"ID,TIME,DV,{column}\n1,0,5,0\n") == (
        f"1 problem in trial.csv\n  column {column}: {FOREIGN[name]}"
    )


def test_a_foreign_column_that_is_named_for_a_standard_one_is_taken_for_it(check):
    text = "ID,TIME,DV,CENS,LLOQ\n1,0,.,1,0.5\n1,1,5,0,0.5\n"
    assert check(text, columns={"BLQ": "CENS"}).frame["BLQ"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (level(CENS=1), [1, 5, 0, np.nan]),
        (level(CENS=1, LIMIT=2), [1, 5, 1, 2]),
        (level(CENS=-1), [0, np.nan, 1, 5]),
        (level(CENS=-1, LIMIT=9), [1, 9, 1, 5]),
        (level(CENS=0), [0, np.nan, 0, np.nan]),
    ],
    ids=str,
)
def test_censoring_as_monolix_writes_it_is_read(row, says, check):
    frame = check(file_text(dose(), row)).frame
    np.testing.assert_array_equal(frame[["BLQ", "LLOQ", "ALQ", "ULOQ"]].iloc[1].astype(float), says)
    assert "CENS" not in frame


def test_lower_case_headers_are_read(check):
    frame = check("id,time,amt,dv,evid\n1,0,100,.,1\n1,1,.,5,0\n").frame
    assert frame[["TIME", "AMT", "EVID"]].to_numpy().tolist() == [[0, 100, 1], [1, 0, 0]]


def test_columns_gives_a_standard_column_the_name_it_has_in_the_file(check):
    text = "USUBJID,AFRLT,CONC\n1,0,5\n1,1,6\n"
    records = check(text, columns={"ID": "USUBJID", "TIME": "AFRLT", "DV": "CONC"})
    assert records.frame["DV"].tolist() == [5, 6]
    assert records.names["DV"] == "CONC"


def test_columns_wins_over_a_column_of_the_standard_name(check):
    assert check("ID,TIME,DV,CONC\n1,0,5,6\n", columns={"DV": "CONC"}).frame["DV"].tolist() == [6]


def test_an_unknown_name_in_columns_is_refused(refusal):
    assert refusal("ID,TIME,DV\n1,0,5\n", columns={"CONCENTRATION": "DV"}) == (
        "1 problem in trial.csv\n  columns= names CONCENTRATION, which is no standard column; use "
        f"one of {', '.join(DEFAULTS)}"
    )


def test_a_column_that_columns_names_must_exist(refusal):
    assert refusal("ID,TIME,DV\n1,0,5\n", columns={"LLOQ": "LIMIT2"}) == (
        "1 problem in trial.csv\n  column LIMIT2 is missing; the header has ID, TIME, DV; name it "
        "with columns={'LLOQ': ...}"
    )


def test_all_problems_of_columns_are_reported_together(refusal):
    assert refusal("ID,WT,WT,DATE\n1,0,5,6\n", covariates=["AGE"]).splitlines()[0] == (
        "5 problems in trial.csv"
    )


# --- covariates ---


def test_a_covariate_that_is_no_column_is_refused(refusal):
    assert refusal("ID,TIME,DV\n1,0,5\n", covariates=["WT"]) == (
        "1 problem in trial.csv\n  covariate WT is no column; the header has ID, TIME, DV"
    )


def test_a_standard_column_is_no_covariate(refusal):
    assert refusal("ID,TIME,DV\n1,0,5\n", covariates=["TIME"]) == (
        "1 problem in trial.csv\n  TIME cannot be a covariate: it is a standard column"
    )


def test_a_covariate_missing_on_some_rows_is_refused_row_by_row(refusal):
    assert refusal("ID,TIME,DV,WT\n1,0,5,70\n1,1,6,.\n1,2,6,\n", covariates=["WT"]) == (
        "2 problems in trial.csv\n"
        "  row 3  ID 1  TIME 1  WT is missing; give a value on every row of the ID (popk never "
        "fills one in), or say missing=['WT'] and model it: popk.covariate_model\n"
        "  row 4  ID 1  TIME 2  WT is missing; give a value on every row of the ID (popk never "
        "fills one in), or say missing=['WT'] and model it: popk.covariate_model"
    )


def test_columns_that_are_no_covariate_may_hold_anything(check):
    assert "NOTE" not in check("ID,TIME,DV,NOTE\n1,0,5,hello\n").frame


# --- the cells ---


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            "high",
            "'high': not a number; write . where it is missing, and code categories as numbers",
        ),
        (
            "<0.5",
            "'<0.5': not a number; write . where it is missing, and code categories as numbers",
        ),
        ("NaN", "'NaN': not a number; write . where it is missing"),
        ("inf", "'inf': not finite; write . where it is missing"),
        ("-Infinity", "'-Infinity': not finite; write . where it is missing"),
        ("1e999", "'1e999': not finite; write . where it is missing"),
    ],
)
def test_a_cell_that_is_no_number_is_refused(cell, says, refusal):
    assert refusal(f"ID,TIME,DV\n1,0,5\n1,2.5,{cell}\n") == (
        f"1 problem in trial.csv\n  row 3  ID 1  TIME 2.5  DV is {says}"
    )


def test_decimal_commas_are_refused_rather_than_misread(refusal):
    assert refusal("ID;TIME;DV\n1;0;5,25\n") == (
        "1 problem in trial.csv\n  row 2  ID 1  TIME 0  DV is '5,25': not a number; write . where it "
        "is missing, and code categories as numbers"
    )


def test_a_time_of_the_clock_is_refused_without_naming_itself_as_the_time(refusal):
    assert refusal("ID,TIME,DV\n1,08:30,5\n") == (
        "1 problem in trial.csv\n  row 2  ID 1  TIME is '08:30': not a number; write . where it is "
        "missing, and code categories as numbers"
    )


@pytest.mark.parametrize("name", ["EVID", "ADDL", "SS", "CMT", "DVID", "MDV", "BLQ"])
def test_a_count_or_code_must_be_a_whole_number(name, refusal):
    assert refusal(f"ID,TIME,DV,{name}\n1,0,5,0.5\n") == (
        f"1 problem in trial.csv\n  row 2  ID 1  TIME 0  {name} is '0.5': it must be a whole number"
    )


def test_a_dataframe_cell_that_is_no_number_is_refused():
    frame = pd.DataFrame({"ID": [1], "TIME": [pd.Timestamp("2026-11-23")], "DV": [5.0]})
    with pytest.raises(DataError) as caught:
        check_records(frame, "DataFrame")
    assert str(caught.value) == (
        "1 problem in DataFrame\n  row 0  ID 1  TIME is '2026-11-23 00:00:00': not a number; write . "
        "where it is missing, and code categories as numbers"
    )


@pytest.mark.parametrize("cell", [np.inf, -np.inf])
def test_an_infinite_cell_of_a_dataframe_is_refused(cell):
    with pytest.raises(DataError, match=r"DV is '-?inf': not finite"):
        check_records(pd.DataFrame({"ID": [1], "TIME": [0.0], "DV": [cell]}), "DataFrame")


@pytest.mark.parametrize("cell", [".", "", "NA", None, np.nan, pd.NA, pd.NaT])
def test_the_usual_ways_to_say_missing_are_missing(cell):
    frame = pd.DataFrame({"ID": [1], "TIME": [0], "DV": [cell], "MDV": [1]}, dtype=object)
    assert check_records(frame, "DataFrame").frame["DV"].isna().all()


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (3, "3"),
        ("3", "3"),
        (3.0, "3"),
        ("3.0", "3"),
        ("003", "003"),
        ("A.1", "A.1"),
        (" 7 ", "7"),
        (-1, "-1"),
    ],
)
def test_an_id_is_a_label_and_whole_numbers_have_no_decimals(cell, label):
    frame = pd.DataFrame({"ID": [cell], "TIME": [0], "DV": [1]})
    assert check_records(frame, "DataFrame").frame["ID"].tolist() == [label]


@pytest.mark.parametrize("cell", [None, np.nan, pd.NA, ".", ""])
def test_an_id_of_a_dataframe_may_not_be_missing(cell):
    frame = pd.DataFrame({"ID": [cell], "TIME": [0], "DV": [1]}, dtype=object)
    with pytest.raises(DataError, match="ID is missing; every record needs one"):
        check_records(frame, "DataFrame")


# --- what a missing column means ---


def test_a_file_of_three_columns_is_observations(check):
    frame = check("ID,TIME,DV\n1,0,5\n").frame
    row = frame.iloc[0].to_dict()
    assert {k: row[k] for k in ("EVID", "MDV", "AMT", "RATE", "II", "ADDL", "SS", "CMT", "BLQ")} == {
        "EVID": 0, "MDV": 0, "AMT": 0, "RATE": 0, "II": 0, "ADDL": 0, "SS": 0, "CMT": 0, "BLQ": 0,
    }  # fmt: skip
    assert np.isnan(row["LLOQ"])


def test_without_evid_a_row_with_an_amount_is_a_dose_and_mdv_1_otherwise_means_other(check):
    frame = check("ID,TIME,AMT,DV,MDV\n1,0,100,.,1\n1,1,0,5,0\n1,2,0,.,1\n1,3,.,6,.\n").frame
    assert frame["EVID"].tolist() == [1, 0, 2, 0]
    assert frame["MDV"].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("columns", "cells"), [("ADDL,II", "1,12"), ("RATE", "50"), ("II", "12")])
def test_without_evid_any_dosing_item_makes_a_dose(columns, cells, refusal):
    # The amount is 0, so that the rule on amounts tells what the record was taken for.
    assert "AMT is 0 on a dose (EVID 1)" in refusal(f"ID,TIME,DV,MDV,{columns}\n1,0,.,1,{cells}\n")


def test_without_mdv_only_observations_count(check):
    rows = "1,0,1,100,.\n1,1,0,.,5\n1,2,2,.,.\n1,3,3,.,.\n1,3,4,100,.\n"
    frame = check("ID,TIME,EVID,AMT,DV\n" + rows).frame
    assert frame["MDV"].tolist() == [1, 0, 1, 1, 1]


def test_an_amount_of_a_point_is_none(check):
    assert check("ID,TIME,EVID,AMT,DV\n1,0,0,.,5\n").frame["AMT"].tolist() == [0]


def test_the_checked_table_has_every_standard_column_as_numbers(check):
    frame = check("ID,TIME,DV,WT\n1,0,5,70\n", covariates=["WT"]).frame
    assert set(frame.columns) == {*DEFAULTS, "ROW", "WT"} - {"CENS", "LIMIT"}
    assert {str(frame[c].dtype) for c in ("EVID", "ADDL", "SS", "CMT", "DVID", "MDV", "BLQ")} == {
        "int64"
    }
    assert {str(frame[c].dtype) for c in ("TIME", "AMT", "RATE", "II", "DV", "LLOQ", "WT")} == {
        "float64"
    }


def test_levels_may_be_of_several_kinds():
    frame = pd.DataFrame({"ID": [1, 1, 1], "TIME": [0, 1, 2], "DV": 1.0, "DVID": [1, 2, "."]})
    assert check_records(frame, "DataFrame").frame["DVID"].tolist() == [1, 2, 0]
