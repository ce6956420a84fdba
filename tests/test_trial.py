"""What is a population as padded arrays?"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import popk
from popk.records.provenance import sha256
from tests.conftest import ROOT
from tests.trials import UNITS, table, trial

TWO = """
ID TIME EVID AMT RATE DV  MDV WT CRCL
1  0    1    100 0    .   1   70 90
1  1    0    0   0    5   0   70 80
1  2    0    0   0    4   0   70 60
2  0    1    50  25   .   1   40 50
2  3    0    0   0    2   1   40 50
"""


@pytest.fixture(scope="module")
def two():
    return trial(TWO, WT="kg", CRCL="mL/min")


# --- arrays ---


def test_arrays_have_one_row_a_subject_and_padding_is_not_recorded(two):
    assert (two.n_subjects, two.n_records) == (2, 3)
    assert two.ids == ("1", "2")
    np.testing.assert_array_equal(two.time, [[0, 1, 2], [0, 3, 0]])
    np.testing.assert_array_equal(two.recorded, [[True] * 3, [True, True, False]])
    assert two.time.dtype == jnp.float64


def test_observations_are_the_records_with_evid_0_on_one_flat_axis(two):
    o = two.observations
    np.testing.assert_array_equal(o.subject, [0, 0, 1])
    np.testing.assert_array_equal(o.record, [1, 2, 1])
    np.testing.assert_array_equal(o.measured, [True, True, False])
    np.testing.assert_array_equal(o.below, [False, False, False])
    np.testing.assert_array_equal(o.value[:2], [5, 4])


def test_what_is_not_there_is_a_harmless_1():
    # A logarithm or a gradient taken before masking must not fail: PITFALLS, padding with NaN.
    text = "ID TIME EVID DV MDV BLQ LLOQ\n1 0 0 0 1 0 0\n1 1 0 . 0 1 0.5\n1 2 0 0.2 0 1 0.5\n1 3 0 . 1 0 ."
    o = trial(text).observations
    np.testing.assert_array_equal(o.value, [1, 1, 1, 1])
    np.testing.assert_array_equal(o.limit, [1, 0.5, 0.5, 1])
    np.testing.assert_array_equal(o.measured, [False, True, True, False])
    np.testing.assert_array_equal(o.below, [False, True, True, False])


def test_a_level_has_its_compartment_and_its_kind():
    text = "ID TIME EVID CMT DVID DV\n1 0 0 2 1 5\n1 1 0 -3 2 4\n1 2 0 0 0 3"
    o = trial(text).observations
    np.testing.assert_array_equal(o.compartment, [2, 3, 0])
    np.testing.assert_array_equal(o.kind, [1, 2, 0])


def test_a_constant_covariate_is_one_value_a_subject(two):
    np.testing.assert_array_equal(two.covariate("WT"), [[70], [40]])


def test_a_covariate_that_changes_is_one_value_a_record_and_its_last_on_padding(two):
    np.testing.assert_array_equal(two.covariate("CRCL"), [[90, 80, 60], [50, 50, 50]])


def test_between_records_the_next_value_holds_or_the_last_or_their_mean(two):
    last, mean = two.covariate("CRCL", "locf"), two.covariate("CRCL", between="linear")
    np.testing.assert_array_equal(last, [[90, 90, 80], [50, 50, 50]])
    np.testing.assert_array_equal(mean, [[90, 85, 70], [50, 50, 50]])
    np.testing.assert_array_equal(two.covariate("WT", "locf"), [[70], [40]])


def test_an_unknown_covariate_is_refused_with_those_there_are(two):
    with pytest.raises(
        popk.DataError,
        match="AGE is no covariate of it; it has WT, CRCL; read it "
        r"with covariates=\['AGE'\]",
    ):
        two.covariate("AGE")  # fmt: skip


def of_design(trial, *names):
    return [getattr(trial.design, name) for name in names]


def test_the_design_says_what_a_compiled_model_may_depend_on(two):
    assert of_design(two, "infusions", "resets", "concentrations") == [True, False, True]
    assert of_design(two, "dosed", "observed", "turned_off") == [(0,), ((0, 0),), ()]
    assert of_design(two, "doses", "steady", "overlap") == [1, 0, 0]
    reset = trial(
        "ID TIME EVID AMT CMT DVID DV\n1 0 1 9 1 0 .\n1 1 0 0 2 3 5\n1 2 3 0 0 0 .\n1 3 2 0 -2 0 ."
    )
    assert of_design(reset, "infusions", "resets", "dosed") == [False, True, (1,)]
    assert of_design(reset, "observed", "turned_off") == [((2, 3),), (2,)]


def test_the_design_counts_doses_steady_states_and_infusions_that_overlap():
    text = (
        "ID TIME EVID AMT RATE CMT II ADDL SS DV\n1 0 1 9 1 1 4 5 1 .\n1 1 1 9 -1 2 0 0 0 .\n"
        "1 2 4 9 -2 1 8 0 2 .\n1 3 1 9 0 1 0 0 0 .\n1 4 0 0 0 1 0 0 0 5\n"
        "2 0 1 9 0 1 4 0 2 .\n2 9 0 0 0 1 0 0 0 5"
    )
    counted = trial(text)
    assert of_design(counted, "infusions", "resets") == [True, True], "SS 1 wipes, as a reset does"
    assert of_design(counted, "modeled_rates", "modeled_durations") == [(2,), (1,)]
    assert of_design(counted, "doses", "steady") == [4, 2], "of ID 1"
    assert of_design(counted, "overlap") == [4], "nine hours every four: three, rounded up"


def test_one_more_dose_keeps_the_design():
    text = "ID TIME EVID AMT II SS DV\n" + "\n".join(f"1 {t} 1 9 4 2 ." for t in range(5))
    assert trial(text).design == trial(text + "\n1 6 1 9 4 2 .").design


@pytest.mark.parametrize(("level", "factor"), [("mg/L", 1.0), ("ng/mL", 1000.0), ("g/L", 1e-3)])
def test_the_unit_of_levels_sets_the_factor_from_amounts_per_liter(level, factor):
    text = table("ID TIME EVID AMT DV\n1 0 1 9 .")
    assert popk.read_nonmem(text, units={**UNITS, "DV": level}).concentration_factor == factor


def test_levels_that_are_no_concentration_are_noted():
    text = table("ID TIME EVID AMT DV\n1 0 1 9 .")
    assert not popk.read_nonmem(text, units={**UNITS, "DV": "percent"}).design.concentrations


# --- choosing subjects ---


def test_a_trial_is_sliced_by_id(theophylline):
    one = theophylline["3"]
    assert one.ids == ("3",)
    assert (one.n_subjects, one.n_records) == (1, 12)
    np.testing.assert_array_equal(one.time[0], theophylline.time[2])
    np.testing.assert_array_equal(one.observations.subject, np.zeros(11))


def test_several_subjects_keep_the_order_of_the_file(theophylline):
    assert theophylline[["10", "2"]].ids == ("2", "10")
    assert theophylline[("10", "2")].ids == ("2", "10")


def test_a_number_is_an_id_too(theophylline):
    assert theophylline[3].ids == theophylline["3"].ids
    assert theophylline[[3, 4]].ids == ("3", "4")
    assert theophylline.without(3).n_subjects == 11


def test_a_slice_is_as_wide_as_its_own_subjects(two):
    assert two["2"].n_records == 2
    assert two["2"].design.infusions
    assert not two["1"].design.infusions


def test_without_leaves_subjects_out(theophylline):
    assert theophylline.without("3").ids == tuple(str(i) for i in range(1, 13) if i != 3)
    assert theophylline.without(["1", "12"]).n_subjects == 10


@pytest.mark.parametrize("ids", ["13", ["1", "x"], "1,2"])
def test_an_unknown_id_is_a_key_error_that_lists_the_ids(ids, theophylline):
    for choose in (theophylline.__getitem__, theophylline.without):
        with pytest.raises(KeyError, match="the trial has 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"):
            choose(ids)


def test_no_id_is_a_key_error(theophylline):
    with pytest.raises(KeyError, match="no ID given"):
        theophylline[[]]
    with pytest.raises(KeyError, match="no ID given"):
        theophylline.without(theophylline.ids)


def test_a_slice_of_a_slice_is_the_slice(theophylline):
    pd.testing.assert_frame_equal(
        theophylline[["2", "3"]]["3"].to_dataframe(), theophylline["3"].to_dataframe()
    )


# --- immutability, and what may enter a compiled function ---


def test_a_trial_cannot_be_changed(theophylline):
    with pytest.raises(dataclasses.FrozenInstanceError):
        theophylline.time = theophylline.time + 1
    with pytest.raises(ValueError, match="read-only"):
        theophylline.time[0, 0] = 1
    theophylline.units["TIME"] = "min"  # a copy
    assert theophylline.units["TIME"] == "h"


def test_changing_the_table_that_was_read_changes_no_trial():
    source = table(TWO)
    before = popk.read_nonmem(source, units=UNITS)
    source.loc[:, "DV"] = "99"
    np.testing.assert_array_equal(before.observations.value[:2], [5, 4])


def test_changing_a_table_that_was_given_out_changes_no_trial(two):
    frame = two.to_dataframe()
    frame.loc[:, "DV"] = 99.0
    np.testing.assert_array_equal(two.to_dataframe()["DV"].dropna(), [5, 4, 2])


def test_arrays_strips_what_stays_on_the_host(two):
    arrays = two.arrays()
    assert arrays.source is None
    np.testing.assert_array_equal(arrays.time, two.time)
    with pytest.raises(AttributeError, match="do not exist inside a compiled model"):
        _ = arrays.ids
    assert repr(arrays) == "Trial(arrays of (2, 3))"


def test_events_that_are_the_same_for_all_are_given_once():
    text = "ID TIME EVID AMT DV\n1 0 1 9 .\n1 2 0 0 5\n{0} 0 1 {1} .\n{0} 2 0 0 4"
    assert trial(text.format(2, 9)).arrays().events.time.shape == (1, 2)
    assert trial(text.format(2, 8)).arrays().events.time.shape == (2, 2)
    assert trial(text.format(2, 9)).arrays().time.shape == (2, 2)


def test_an_unobserved_trial_differs_in_nothing_but_that(two):
    hidden = two.unobserved()
    assert (two.given, hidden.given) == (True, False)
    assert dataclasses.replace(hidden, given=True).design == two.design
    assert hidden.observations is two.observations


def test_trials_of_the_same_shapes_share_one_compiled_program():
    traced = []

    @jax.jit
    def total(arrays):
        traced.append(1)
        return arrays.time.sum()

    assert total(trial(TWO, WT="kg").arrays()) == 6
    other = TWO.replace("\n1 ", "\n7 ").replace("\n2 ", "\n9 ").replace("3 ", "8 ")
    assert total(trial(other, WT="kg").arrays()) != 6
    assert len(traced) == 1


def test_padding_further_keeps_every_record_event_and_level(two):
    wide = two.padded()
    assert wide.time.shape == (2, 8)
    assert wide.source is None
    np.testing.assert_array_equal(wide.recorded.sum(axis=1), [3, 2])
    np.testing.assert_array_equal(wide.time[:, :3], two.time)
    np.testing.assert_array_equal(wide.observations.measured.sum(), 2)
    np.testing.assert_array_equal(wide.covariate("CRCL")[0], [90, 80, 60, 60, 60, 60, 60, 60])
    np.testing.assert_array_equal(wide.covariate("WT"), two.covariate("WT"))
    shape = two.events.time.shape
    for name in two.events._fields:
        np.testing.assert_array_equal(
            getattr(wide.events, name)[:, : shape[1]], getattr(two.events, name)
        )


def test_by_subject_stacks_one_trial_a_subject(two):
    each = two.by_subject()
    assert each.time.shape == (2, 1, 3)
    np.testing.assert_array_equal(each.observations.measured, [[True, True], [False, False]])
    np.testing.assert_array_equal(each.observations.record, [[1, 2], [1, 0]])
    np.testing.assert_array_equal(each.observations.subject, np.zeros((2, 2)))
    np.testing.assert_array_equal(each.covariates["WT"], [[[70]], [[40]]])
    alone = jax.tree.map(lambda x: x[0], each)
    np.testing.assert_array_equal(alone.time, two["1"].time)


# --- tables and grids ---


def test_a_table_of_a_trial_reads_back_as_the_same_trial(theophylline):
    again = popk.read_nonmem(theophylline.to_dataframe())
    pd.testing.assert_frame_equal(again.to_dataframe(), theophylline.to_dataframe())
    assert again.units == theophylline.units
    assert again.design == theophylline.design
    same = jax.tree.map(
        lambda a, b: bool(jnp.array_equal(a, b)), again.arrays(), theophylline.arrays()
    )
    assert all(jax.tree.leaves(same))


finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-6, 1e6)


@st.composite
def tables(draw):
    """Return a table of one to three subjects with doses, infusions, levels and a covariate."""
    rows = []
    for subject in draw(st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True)):
        times = sorted(draw(st.lists(st.floats(-10, 1e4), min_size=1, max_size=4)))
        for time in times:
            common = {"ID": str(subject), "TIME": time, "WT": draw(positive)}
            if draw(st.booleans()):
                blq = draw(st.booleans())
                level = {"EVID": 0, "AMT": 0.0, "RATE": 0.0, "II": 0.0, "ADDL": 0, "DV": draw(finite),
                         "MDV": draw(st.integers(0, 1)), "BLQ": int(blq),
                         "LLOQ": draw(positive) if blq else np.nan}  # fmt: skip
                rows.append({**common, **level})
            else:
                dose = {"EVID": draw(st.sampled_from([1, 4])), "AMT": draw(positive),
                        "RATE": draw(st.just(0.0) | positive), "II": draw(positive),
                        "ADDL": draw(st.integers(0, 3)), "DV": np.nan, "MDV": 1, "BLQ": 0,
                        "LLOQ": np.nan}  # fmt: skip
                rows.append({**common, **dose})
    return pd.DataFrame(rows)


@given(tables())
def test_reading_and_writing_a_table_loses_nothing(frame):
    units = {**UNITS, "WT": "kg"}
    first = popk.read_nonmem(frame, covariates=["WT"], units=units)
    again = popk.read_nonmem(first.to_dataframe())
    pd.testing.assert_frame_equal(again.to_dataframe(), first.to_dataframe())
    for name in frame.columns:
        values = first.to_dataframe()[name].to_numpy()
        np.testing.assert_array_equal(values, frame[name].to_numpy(), err_msg=name)


@given(tables())
def test_writing_a_csv_and_reading_it_loses_nothing(tmp_path_factory, frame):
    path = tmp_path_factory.mktemp("csv") / "trial.csv"
    units = {**UNITS, "WT": "kg"}
    first = popk.read_nonmem(frame, covariates=["WT"], units=units)
    first.to_dataframe().to_csv(path, index=False, na_rep=".")
    again = popk.read_nonmem(path, covariates=["WT"], units=units)
    pd.testing.assert_frame_equal(again.to_dataframe(), first.to_dataframe())


def test_a_grid_has_dimensions_subject_and_record_and_nan_on_padding(two):
    grid = two.to_xarray()
    assert dict(grid.sizes) == {"subject": 2, "record": 3}
    assert list(grid["subject"].values) == ["1", "2"]
    np.testing.assert_array_equal(grid["TIME"], [[0, 1, 2], [0, 3, np.nan]])
    np.testing.assert_array_equal(grid["DV"], [[np.nan, 5, 4], [np.nan, 2, np.nan]])
    assert grid["TIME"].attrs == {"units": "h"}
    assert grid["WT"].attrs == {"units": "kg"}
    assert grid["EVID"].attrs == {}
    assert float(grid["AMT"].sel(subject="2").isel(record=0)) == 50


# --- pictures ---


def test_the_summary_counts_doses_written_out_and_levels_that_count(phenobarbital, two):
    assert two.summary()["doses"] == 2
    assert two.summary()["levels"] == 2
    assert two.summary()["levels a subject"] == "0 to 2"
    repeated = trial("ID TIME EVID AMT ADDL II DV\n1 0 1 9 3 12 .\n1 50 0 0 0 0 5")
    assert repeated.summary()["doses"] == 4
    assert phenobarbital.summary().to_dict() == {
        "subjects": 59, "records": 744, "doses": 589, "levels": 155, "levels a subject": "1 to 6",
        "below the limit of quantification": 0, "time": "0 to 389.8 h",
    }  # fmt: skip


def test_a_trial_prints_its_counts_and_units():
    text = "ID TIME EVID AMT DV BLQ LLOQ\n1 0 1 100 . 0 .\n1 1 0 0 5 0 .\n1 2 0 0 . 1 0.5"
    assert repr(trial(text)) == (
        "Trial DataFrame\n  subjects: 1\n  records: 3\n  doses: 1\n  levels: 2\n"
        "  levels a subject: 2 to 2\n  below the limit of quantification: 1\n  time: 0 to 2 h\n"
        "  TIME [h], AMT [mg], DV [mg/L]"
    )


def test_a_notebook_shows_counts_the_first_records_and_no_silent_column(theophylline):
    html = theophylline._repr_html_()
    assert html.startswith("<b>Trial</b> ")
    for cell in ("<td>132</td>", "<td>319.992</td>", "<th>TIME [h]</th>", "<th>WT [kg]</th>"):
        assert cell in html
    for silent in ("RATE", "ADDL", "LLOQ", "SS", "CMT"):
        assert f"<th>{silent}</th>" not in html
    assert html.count("<tr>") + html.count('<tr style="text-align: right;">') == 7 + 1 + 5


def test_a_notebook_shows_names_as_text(tmp_path):
    path = tmp_path / "<b>&.csv"
    path.write_text("ID,TIME,DV\n1,0,5\n")
    assert "&lt;b&gt;&amp;.csv" in popk.read_nonmem(path, units=UNITS)._repr_html_()


# --- units ---


def test_a_column_without_a_unit_is_refused_together_with_its_fellows():
    with pytest.raises(popk.DataError) as caught:
        popk.read_nonmem(table(TWO), covariates=["WT"], units={"TIME": "h", "AMT": "bananas"})
    assert str(caught.value) == (
        "3 problems in DataFrame\n"
        "  DV has no unit; give units={'DV': ...} or describe it in the .toml beside the file\n"
        "  WT has no unit; give units={'WT': ...} or describe it in the .toml beside the file\n"
        "  AMT: 'bananas' is not a unit; write one like 'h', 'mg', 'mg/L', 'kg'"
    )


def test_units_of_columns_that_are_not_used_are_left_out(two):
    assert two.units == {**UNITS, "WT": "kg", "CRCL": "mL/min"}
    assert trial(TWO).units == UNITS


# --- every data file that popk ships ---

COUNTS = {
    "cefamandole": (6, 6, 84),
    "indomethacin": (6, 6, 66),
    "phenobarbital": (59, 589, 155),
    "quinidine": (136, 1028, 361),
    "remifentanil": (65, 65, 1992),
    "simulated_hepatic": (40, 40, 480),
    "theophylline": (12, 12, 132),
}


def test_every_data_file_is_tested():
    names = {path.stem for path in (ROOT / "data").glob("*.csv")}
    assert names == {*COUNTS, "iwpc"}  # which has no concentrations: tests/test_iwpc.py


@pytest.mark.parametrize("name", COUNTS)
def test_a_data_file_has_the_subjects_doses_and_levels_of_its_readme(name):
    path = ROOT / "data" / f"{name}.csv"
    read = popk.read_nonmem(path)
    counts = read.summary()
    assert (counts["subjects"], counts["doses"], counts["levels"]) == COUNTS[name]
    assert read.host.fingerprint == sha256(path.read_bytes())
    assert read.design.concentrations


def test_a_part_of_a_trial_has_a_fingerprint_of_its_own(theophylline):
    parts = {theophylline[i].host.fingerprint for i in theophylline.ids}
    assert len(parts | {theophylline.host.fingerprint}) == 13
