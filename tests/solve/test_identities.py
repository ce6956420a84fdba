"""Identities that hold for any dosing history, whatever computes it."""

from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popk.trial import Design
from tests.histories import (
    ANYTHING,
    GIVEN,
    KINDS,
    MORE,
    N_RECORDS,
    NAMES,
    NEUTRAL,
    ROW,
    TURNED_OFF,
    TWO,
    histories,
    interval,
    one_at_a_time,
    per_record,
    rates_of,
    run,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")


# --- one dose at a time ---

#: How each tier is asked: with parameters that change from record to record, or not.
ASKED = {
    "closed form": ("closed form", N_RECORDS, ANYTHING),
    "eigenvectors": ("eigenvectors", 1, ANYTHING),
    "squaring": ("squaring", 1, ANYTHING),
    "turned off": ("squaring", N_RECORDS, TURNED_OFF),
    "ODE": ("ODE", 1, TURNED_OFF),
}


@pytest.mark.parametrize(
    "asked", [pytest.param(a, marks=pytest.mark.slow) if a == "ODE" else a for a in ASKED]
)
@hypothesis.settings(max_examples=15)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_any_history_is_what_its_doses_leave_one_at_a_time(asked, data, seed):
    tier, changes, design = ASKED[asked]
    history = data.draw(histories((*KINDS, *MORE, *(("off", "on") if design.turned_off else ()))))
    rng = np.random.default_rng(seed)
    p = {name: rng.uniform(0.5, 4, changes) for name in TWO}
    ranges = {"F": (0.1, 1.5), "lag": (0, 5), "R": (5, 50), "D": (0.1, 5), "initial": (0, 20)}
    dosing: Any = {
        what: {name: rng.uniform(*ends, N_RECORDS) for name in NAMES}
        for what, ends in ranges.items()
    }
    for values in dosing["lag"].values():
        values[rng.random(N_RECORDS) < 0.3] = 0.0
    found = run(history, p, tier=tier, design=design, **dosing)
    told = {what: dict(enumerate(values.values())) for what, values in dosing.items()}
    expected = one_at_a_time(history, lambda record: rates_of(p, record * (changes > 1)), told)
    same(found, expected, 1e-7 if tier == "ODE" else 1e-9)


# --- invariants: histories of up to six records, one compiled program a case ---

rate = st.floats(0.1, 10)
parameters = st.fixed_dictionaries(dict.fromkeys(TWO, rate))
mild = st.fixed_dictionaries(dict.fromkeys(TWO, st.floats(0.5, 4)))
available = st.fixed_dictionaries({"depot": st.floats(0.1, 2), "central": st.floats(0.1, 2)})
delays = st.fixed_dictionaries({"depot": st.floats(0, 5), "central": st.floats(0, 5)})
DELAY: Any = {"F": {"depot": 0.7, "central": 1.3}, "lag": {"depot": 0.6, "central": 2.1}}
EVERYTHING: Any = {
    what: {name: per_record(values[i]) for i, name in enumerate(NAMES)}
    for what, values in {
        "F": (0.7, 1.3, 0.9), "lag": (0.6, 2.1, 0.0), "R": (12.0, 30.0, 20.0),
        "D": (1.5, 0.4, 3.0), "initial": (3.0, 5.0, 0.0),
    }.items()
}  # fmt: skip


class Case(NamedTuple):
    """What histories are made of, and who answers them."""

    kinds: tuple[str, ...]
    design: Design
    dosing: Any
    tier: str = "closed form"
    changes: int = 1
    p: Any = parameters
    rtol: float = 1e-9

    def answer(self, history, p, **other):
        """Return the amounts [record, compartment]; F and so on may be others."""
        values = {name: np.broadcast_to(value, (self.changes,)) for name, value in p.items()}
        return run(history, values, tier=self.tier, design=self.design, **self.dosing | other)

    def same(self, found, expected):
        same(found, expected, self.rtol)


CASES = {
    "plain": Case(KINDS, GIVEN, {}),
    "with F and lag": Case(KINDS, GIVEN, DELAY),
    "anything": Case((*KINDS, *MORE), ANYTHING, EVERYTHING, changes=N_RECORDS),
    "eigenvectors": Case((*KINDS, *MORE), ANYTHING, EVERYTHING, "eigenvectors"),
    "ODE": Case((*KINDS, *MORE), TURNED_OFF, EVERYTHING, "ODE", p=mild, rtol=1e-7),
}  # fmt: skip
every_case = pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=n, marks=[pytest.mark.slow] * (n == "ODE")) for n, c in CASES.items()],
)
some = hypothesis.settings(max_examples=10)  # of each case


def same(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def moved(history, values):
    """Return a history with other values of AMT, RATE, ... in each row."""
    return [{**row, **values(row)} for row in history]


@every_case
@some
@given(data=st.data())
def test_further_doses_equal_the_doses_written_out(case, data):
    history, p = data.draw(histories(case.kinds)), data.draw(case.p)
    written = []
    for i, row in enumerate(history):
        written.append((row["TIME"], i, {**row, "ADDL": 0, "II": row["II"] * (row["SS"] > 0)}))
        ends = [r["TIME"] for r in history[i + 1 :] if r["EVID"] in (3, 4) or r["SS"] == 1]
        for n in range(1, row["ADDL"] + 1):
            time = row["TIME"] + n * row["II"]
            if time <= min([*ends, history[-1]["TIME"]]):
                copy = {**row, "TIME": time, "EVID": 1, "ADDL": 0, "II": 0.0, "SS": 0}
                written.append((time, -1, copy))  # before every record of its time
    hypothesis.assume(len(written) <= N_RECORDS)
    written.sort(key=lambda item: item[:2])
    of_records = [at for at, (_, i, _) in enumerate(written) if i >= 0]
    out = case.answer([row for _, _, row in written], p)
    case.same(out[of_records], case.answer(history, p))


@every_case
@some
@given(data=st.data())
def test_a_reset_and_dose_is_a_reset_then_a_dose(case, data):
    history, p = data.draw(histories(case.kinds)), data.draw(case.p)
    split, kept = [], []
    for row in history:
        if row["EVID"] == 4:
            split.append({**ROW, "TIME": row["TIME"], "EVID": 3})
            row = {**row, "EVID": 1}
        kept.append(len(split))
        split.append(row)
    case.same(case.answer(split, p)[kept], case.answer(history, p))


@every_case
@some
@given(data=st.data(), at=st.integers(0, 5), fraction=st.floats(0.05, 0.95))
def test_a_record_split_by_an_other_event_changes_nothing(case, data, at, fraction):
    history, p = data.draw(histories(case.kinds)), data.draw(case.p)
    i = min(at, len(history) - 2)
    begin, end = history[i]["TIME"], history[i + 1]["TIME"]
    other = {**ROW, "TIME": begin + fraction * (end - begin), "EVID": 2}
    split = [*history[: i + 1], other, *history[i + 1 :]]
    out = np.delete(case.answer(split, p), i + 1, axis=0)
    case.same(out, case.answer(history, p))


@every_case
@some
@given(data=st.data(), shift=st.floats(-100, 1000))
def test_shifting_all_times_shifts_nothing(case, data, shift):
    history, p = data.draw(histories(case.kinds)), data.draw(case.p)
    # Times that would merge or part in rounding are no shift of the same history.
    times = np.array([row["TIME"] for row in history])
    hypothesis.assume(np.array_equal(np.diff(times) == 0, np.diff(times + shift) == 0))
    shifted = moved(history, lambda row: {"TIME": row["TIME"] + shift})
    same(case.answer(shifted, p), case.answer(history, p), rtol=1e-7)


@every_case
@some
@given(data=st.data(), factor=st.floats(0.01, 100))
def test_scaling_all_amounts_scales_what_is_there(case, data, factor):
    history, p = data.draw(histories(case.kinds)), data.draw(case.p)
    scaled = moved(
        history,
        lambda row: {
            "AMT": row["AMT"] * factor,
            "RATE": row["RATE"] * (factor if row["RATE"] > 0 else 1),
        },
    )
    more = {
        what: {name: factor * value for name, value in case.dosing[what].items()}
        for what in ("R", "initial")
        if what in case.dosing
    }
    expected = factor * case.answer(history, p)
    np.testing.assert_allclose(
        case.answer(scaled, p, **more), expected, rtol=case.rtol, atol=case.rtol * (1 + factor)
    )


@every_case
@some
@given(data=st.data(), which=st.lists(st.booleans(), min_size=7, max_size=7))
def test_doses_superpose(case, data, which):
    wiping = ("reset", "again", "steady", "infused")
    history, p = data.draw(histories([k for k in case.kinds if k not in wiping])), data.draw(case.p)
    history = [{**row, "SS": 2 * (row["SS"] > 0)} for row in history]
    empty = (
        {"initial": {name: per_record(0.0) for name in NAMES}} if "initial" in case.dosing else {}
    )

    def only(chosen):
        return [
            row if row["EVID"] == 0 or mine == chosen else {**ROW, "TIME": row["TIME"], "EVID": 2}
            for row, mine in zip(history, which, strict=False)
        ]

    apart = case.answer(only(True), p, **empty) + case.answer(only(False), p, **empty)
    case.same(case.answer(history, p, **empty), apart)


@every_case
@some
@given(data=st.data(), length=interval, fraction=st.floats(0.1, 0.9), cmt=st.integers(1, 2))
def test_two_infusions_back_to_back_equal_one(case, data, length, fraction, cmt):
    # A bioavailability shortens each of the two, so that they no longer touch: lag alone here.
    whole = {"F": {name: np.ones_like(F) for name, F in case.dosing.get("F", {}).items()}}
    dosing = whole if case.dosing else {}
    p, levels = data.draw(case.p), [{**ROW, "TIME": length + after} for after in (3.0, 9.0)]
    one = {**ROW, "EVID": 1, "CMT": cmt, "AMT": 60.0, "RATE": 60 / length}
    two = [
        {**one, "AMT": 60.0 * fraction},
        {**one, "AMT": 60 * (1 - fraction), "TIME": fraction * length},
    ]
    together = case.answer([one, *levels], p, **dosing)[1:]
    case.same(case.answer([*two, *levels], p, **dosing)[2:], together)


@pytest.mark.parametrize("rate", [-1, -2])
@pytest.mark.parametrize("name", ["anything", "eigenvectors", "ODE"])
@some
@given(data=st.data())
def test_a_rate_or_duration_that_the_model_gives_is_as_good_as_one_in_the_data(name, rate, data):
    case = CASES[name]
    history, p = data.draw(histories(case.kinds)), data.draw(case.p)
    dosing = {what: {k: v.copy() for k, v in case.dosing[what].items()} for what in ("R", "D")}
    twin = []
    for i, row in enumerate(history):
        known = row["RATE"] > 0 and (rate == -1 or row["AMT"] > 0)
        if known:
            into = NAMES[row["CMT"] - 1]
            dosing["R"][into][i] = row["RATE"]
            # F scales the duration of a known rate, and the rate of a known duration.
            dosing["D"][into][i] = case.dosing["F"][into][i] * row["AMT"] / row["RATE"]
        twin.append({**row, "RATE": float(rate) if known else row["RATE"]})
    case.same(case.answer(twin, p, **dosing), case.answer(history, p))


@given(data=st.data(), p=mild)
def test_the_tiers_agree(data, p):
    history = data.draw(histories((*KINDS, *MORE)))
    answers = {name: CASES[name].answer(history, p) for name in ("anything", "eigenvectors", "ODE")}
    squared = run(history, p, tier="squaring", design=ANYTHING, **EVERYTHING)
    same(answers["eigenvectors"], answers["anything"], 1e-9)
    same(squared, answers["anything"], 1e-10)
    same(answers["ODE"], answers["anything"], 1e-7)


@given(p=parameters, cmt=st.integers(1, 3))
def test_a_short_infusion_nears_a_bolus(p, cmt):
    text = f"TIME EVID AMT RATE CMT DV\n0 1 100 {{0}} {cmt} .\n2 0 0 0 0 1\n20 0 0 0 0 1"
    bolus = run(text.format(0), p)[1:]
    gaps = [np.abs(run(text.format(100 / length), p)[1:] - bolus).max() for length in (1e-3, 1e-5)]
    fastest = max(p["KA"], (p["CL"] + p["Q"]) / p["V1"], p["Q"] / p["V2"])
    assert gaps[0] <= 100 * fastest * 1e-3
    assert gaps[1] <= 100 * fastest * 1e-5


@given(history=histories(), p=parameters, F=available, lag=delays)
def test_amounts_are_never_negative_and_never_more_than_was_given(history, p, F, lag):
    out = run(history, p, F=F, lag=lag)
    given_in_all = sum(2 * row["AMT"] * (row["ADDL"] + 1) for row in history)
    assert (out >= -1e-9).all()
    assert (out.sum(axis=1) <= given_in_all + 1e-9).all()


@given(history=histories(), p=parameters)
def test_a_lag_of_0_and_a_bioavailability_of_1_change_nothing(history, p):
    same(run(history, p, **NEUTRAL), run(history, p), rtol=1e-13)


@pytest.mark.parametrize("tier", ["closed form", "eigenvectors", "ODE"])
@pytest.mark.parametrize("time", [-7.0, 0.0, 1234.5])
def test_initial_amounts_are_there_at_the_first_record_whatever_its_time_and_after_a_reset(
    tier, time
):
    case = {"closed form": CASES["anything"], **CASES}[tier]
    start = {"initial": {name: per_record(1.0 + i, 9.0 + i) for i, name in enumerate(NAMES)}}
    rows = [{**ROW, "TIME": time + t, "EVID": evid} for t, evid in ((0, 0), (6, 3), (6, 0), (8, 0))]
    out = case.answer(rows, TWO, **start)
    np.testing.assert_allclose(out[0], [1, 2, 3], rtol=1e-12)
    np.testing.assert_allclose(out[1], [9, 10, 11], rtol=1e-12)  # of the record that resets
    after = one_at_a_time([{**ROW, "TIME": t} for t in (0.0, 2.0)], lambda _: rates_of(TWO),
                          {"initial": {0: 9.0, 1: 10.0, 2: 11.0}})  # fmt: skip
    np.testing.assert_allclose(out[2:], after, rtol=1e-8)
