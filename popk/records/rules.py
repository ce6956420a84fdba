"""What may a record say? The rules of NONMEM-layout records, as data."""

from typing import Any

from popk.records.table import Rule


def _dose(f: Any) -> Any:
    return f["EVID"].isin([1, 4])


def _constant(f: Any) -> Any:
    """Return which doses are constant infusions at steady state."""
    return _dose(f) & f["SS"].ne(0) & f["AMT"].eq(0)


def _previous(f: Any, column: str) -> Any:
    return f.groupby("ID", sort=False)[column].shift()


#: The rules of one record, as data. The order is that of the columns.
RULES = (
    Rule(
        "an ID is one block of rows",
        "ID",
        lambda f: f["ID"].ne(f["ID"].shift()) & f["ID"].duplicated(),
        "ID {ID} was already used further up; put all its records together, or give it another ID",
    ),
    Rule("an ID is given", "ID", lambda f: f["ID"].eq(""), "ID is missing; every record needs one"),
    Rule(
        "a time is given",
        "TIME",
        lambda f: f["TIME"].isna(),
        "TIME is missing; every record needs one",
    ),
    Rule(
        "time goes on within an ID",
        "TIME",
        lambda f: f["TIME"].lt(_previous(f, "TIME")) & ~f["EVID"].isin([3, 4]),
        "TIME goes back; sort the records, or start a new occasion with EVID 3 or 4",
    ),
    Rule(
        "an EVID is known",
        "EVID",
        lambda f: ~f["EVID"].isin([0, 1, 2, 3, 4]),
        "EVID is {EVID}; use 0 (observation), 1 (dose), 2 (other), 3 (reset) or 4 (reset and dose)",
    ),
    Rule(
        "an amount is not negative",
        "AMT",
        lambda f: f["AMT"].lt(0),
        "AMT is {AMT}; a dose must be positive",
    ),
    Rule(
        "a dose has an amount",
        "AMT",
        lambda f: _dose(f) & f["AMT"].eq(0) & f["SS"].eq(0),
        "AMT is 0 on a dose (EVID {EVID}); give the amount, or set EVID 2",
    ),
    Rule(
        "only a dose has an amount",
        "AMT",
        lambda f: ~_dose(f) & f["AMT"].ne(0),
        "AMT is {AMT} on EVID {EVID}; set EVID 1 if it is a dose, AMT 0 if not",
    ),
    Rule(
        "only a dose has a rate",
        "RATE",
        lambda f: ~_dose(f) & f["RATE"].ne(0),
        "RATE is {RATE} on EVID {EVID}; set EVID 1 if it is an infusion, RATE 0 if not",
    ),
    Rule(
        "a rate is known",
        "RATE",
        lambda f: _dose(f) & f["RATE"].lt(0) & ~f["RATE"].isin([-1, -2]),
        "RATE is {RATE}; give a rate above 0, 0 for a bolus, -1 for a modeled rate (R), -2 for a modeled "
        "duration (D)",
    ),
    Rule(
        "SS is known",
        "SS",
        lambda f: ~f["SS"].isin([0, 1, 2]),
        "SS is {SS}; use 0, 1 (amounts become the steady state) or 2 (the steady state is added)",
    ),
    Rule(
        "only a dose has a steady state",
        "SS",
        lambda f: ~_dose(f) & f["SS"].ne(0),
        "SS is {SS} on EVID {EVID}; only a dose has a steady state: set EVID 1, or SS 0",
    ),
    Rule(
        "a steady state has an interval",
        "II",
        lambda f: _dose(f) & f["SS"].ne(0) & f["AMT"].gt(0) & f["II"].le(0),
        "SS is {SS} but II is {II}; give the interval between doses, or for a constant infusion AMT 0",
    ),
    Rule(
        "a constant infusion has a rate",
        "RATE",
        lambda f: _constant(f) & ~(f["RATE"].gt(0) | f["RATE"].eq(-1)),
        "SS is {SS} and AMT 0, a constant infusion, but RATE is {RATE}; give its rate (or -1), or the amount",
    ),
    Rule(
        "a constant infusion has no interval",
        "II",
        lambda f: _constant(f) & f["II"].ne(0),
        "SS is {SS} and AMT 0, a constant infusion, but II is {II}; set II 0, or give the amount",
    ),
    Rule(
        "a constant infusion is not repeated",
        "ADDL",
        lambda f: _constant(f) & f["ADDL"].gt(0),
        "SS is {SS} and AMT 0, a constant infusion, but ADDL is {ADDL}; it has no further doses: set ADDL 0",
    ),
    Rule(
        "a number of further doses is not negative",
        "ADDL",
        lambda f: f["ADDL"].lt(0),
        "ADDL is {ADDL}; give the number of further doses, or 0",
    ),
    Rule(
        "further doses have an interval",
        "II",
        lambda f: f["ADDL"].gt(0) & f["II"].le(0) & ~_constant(f),
        "ADDL is {ADDL} but II is {II}; give the interval between doses",
    ),
    Rule(
        "only a dose is repeated",
        "ADDL",
        lambda f: ~_dose(f) & f["ADDL"].gt(0),
        "ADDL is {ADDL} on EVID {EVID}; only a dose has further doses",
    ),
    Rule(
        "only a record without a dose turns a compartment off",
        "CMT",
        lambda f: f["CMT"].lt(0) & ~f["EVID"].isin([0, 2]),
        "CMT is {CMT} on EVID {EVID}; a negative CMT turns a compartment off and stands on EVID 0 or 2",
    ),
    Rule(
        "a kind of level is not negative",
        "DVID",
        lambda f: f["DVID"].lt(0),
        "DVID is {DVID}; number the kinds of levels from 1",
    ),
    Rule(
        "MDV is 0 or 1",
        "MDV",
        lambda f: ~f["MDV"].isin([0, 1]),
        "MDV is {MDV}; use 0 (DV counts) or 1 (it does not)",
    ),
    Rule(
        "only an observation has a level",
        "MDV",
        lambda f: f["EVID"].ne(0) & f["MDV"].eq(0),
        "MDV is 0 on EVID {EVID}; set MDV 1, and put a level on a row of its own with EVID 0",
    ),
    Rule(
        "an observation has a level",
        "DV",
        lambda f: (
            f["EVID"].eq(0)
            & f["MDV"].eq(0)
            & f["DV"].isna()
            & ((f["BLQ"].eq(0) & f["ALQ"].eq(0)) | f["CENS"].ne(0))
        ),
        "DV is missing on an observation; set MDV 1, or give LLOQ and BLQ 1",
    ),
    Rule(
        "BLQ is 0 or 1",
        "BLQ",
        lambda f: ~f["BLQ"].isin([0, 1]),
        "BLQ is {BLQ}; use 1 for a level below the limit of quantification, 0 if not",
    ),
    Rule(
        "a level below the limit has a limit",
        "LLOQ",
        lambda f: f["BLQ"].eq(1) & ~f["LLOQ"].gt(0),
        "LLOQ is {LLOQ} where BLQ is 1; give the limit of quantification",
    ),
    Rule(
        "ALQ is 0 or 1",
        "ALQ",
        lambda f: ~f["ALQ"].isin([0, 1]),
        "ALQ is {ALQ}; use 1 for a level above the upper limit of quantification, 0 if not",
    ),
    Rule(
        "a level above the upper limit has a limit",
        "ULOQ",
        lambda f: f["ALQ"].eq(1) & f["ULOQ"].isna(),
        "ULOQ is missing where ALQ is 1; give the upper limit of quantification",
    ),
    Rule(
        "an interval has its ends in order",
        "ULOQ",
        lambda f: f["BLQ"].eq(1) & f["ALQ"].eq(1) & f["ULOQ"].ge(f["LLOQ"]),
        "a level is above ULOQ {ULOQ} and below LLOQ {LLOQ}, where nothing is; give the ends of its "
        "interval, or BLQ or ALQ 0",
    ),
    Rule(
        "CENS is known",
        "CENS",
        lambda f: ~f["CENS"].isin([-1, 0, 1]),
        "CENS is {CENS}; use 1 where the level is below DV, -1 where it is above DV, 0 if it is known",
    ),
    Rule(
        "a level is censored once",
        "CENS",
        lambda f: (
            f["CENS"].isin([-1, 1])
            & ~(
                f["BLQ"].where(f["CENS"].eq(1), f["ALQ"]).eq(1)
                & f["LLOQ"].where(f["CENS"].eq(1), f["ULOQ"]).eq(f["DV"])
            )
            & f["DV"].notna()
        ),
        "CENS is {CENS} beside BLQ {BLQ} and ALQ {ALQ}; say it in one way: drop CENS, or BLQ and ALQ",
    ),
    Rule(
        "only a censored level has the other end of an interval",
        "LIMIT",
        lambda f: f["CENS"].eq(0) & f["LIMIT"].notna() & f["EVID"].eq(0),
        "LIMIT is {LIMIT} where CENS is 0; write . there, or CENS 1 or -1",
    ),
)
