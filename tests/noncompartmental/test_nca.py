"""Noncompartmental parameters against published values, closed forms and arithmetic by hand."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

import popk
from tests.noncompartmental.published import (
    INDOMETH,
    THEOPH,
    THEOPH_1_TO_12,
    THEOPH_1_TO_24,
    THEOPH_LINEAR,
)
from tests.trials import trial

CL, V, KA, DOSE = 3.0, 20.0, 1.5, 100.0
K = CL / V


def one(times, levels, *, dose="1 0 1 100 0 .", route="bolus", more="", **options):
    """Return the analysis of one subject with a dose at time 0, after it the levels."""
    header = "ID TIME EVID AMT RATE DV"
    rows = [f"1 {t:.17g} 0 . . {float(c):.17g}" for t, c in zip(times, levels, strict=True)]
    return popk.nca(
        trial("\n".join([header, dose, *rows, *more.splitlines()])), route=route, **options
    )


def value(found, name):
    return float(found[name].item())


def reasons(found):
    return str(found["reason"].item())


@pytest.fixture(scope="module")
def theoph(theophylline):
    return popk.nca(theophylline, route="extravascular")


# Published values


@pytest.mark.parametrize("name", THEOPH)
def test_theophylline_is_that_of_winnonlin_and_pknca(theoph, name):
    expected = np.array(THEOPH[name])
    if name in ("CL", "Vz"):  # there every dose is 320 mg, here it is what the subject was given
        expected = expected * theoph["dose"].values / 320
    np.testing.assert_allclose(theoph[name].values[: len(expected)], expected, rtol=2e-8)


@pytest.mark.parametrize("name", THEOPH_LINEAR)
def test_linear_trapezoids_of_theophylline_are_those_of_noncompart(theophylline, name):
    found = popk.nca(
        theophylline, route="extravascular", method="linear", partial=[(0, 12), (0, 24)]
    )
    np.testing.assert_allclose(found[name], THEOPH_LINEAR[name], rtol=3e-7)
    assert float(found["AUC_0_12"][0]) == pytest.approx(THEOPH_1_TO_12, rel=1e-9)
    assert float(found["AUC_0_24"][0]) == pytest.approx(THEOPH_1_TO_24, rel=1e-9)


@pytest.mark.parametrize("name", INDOMETH)
def test_indomethacin_is_that_of_winnonlin(indomethacin, name):
    found = popk.nca(indomethacin, route="bolus")
    np.testing.assert_allclose(found[name], INDOMETH[name], rtol=3e-7)


# By hand


def test_a_subject_of_theophylline_by_plain_arithmetic(theophylline, theoph):
    own = theophylline["2"].to_dataframe()
    own = own[own["EVID"] == 0]
    t, c = own["TIME"].tolist(), own["DV"].tolist()
    area = 0.0
    for i in range(1, len(t)):
        d = t[i] - t[i - 1]
        if c[i] < c[i - 1]:
            area += d * (c[i - 1] - c[i]) / np.log(c[i - 1] / c[i])
        else:
            area += d * (c[i - 1] + c[i]) / 2
    slope, intercept = np.polyfit(t[-4:], np.log(c[-4:]), 1)
    whole = area - c[-1] / slope
    two = theoph.sel(subject="2")
    assert value(two, "AUC_last") == pytest.approx(area)
    assert value(two, "lambda_z") == pytest.approx(-slope)
    assert value(two, "AUC_inf") == pytest.approx(whole)
    assert value(two, "CL") == pytest.approx(318.56 / whole)
    assert value(two, "Vz") == pytest.approx(318.56 / whole / -slope)
    assert value(two, "Clast_predicted") == pytest.approx(np.exp(intercept + slope * t[-1]))
    assert value(two, "span") == pytest.approx((t[-1] - t[-4]) * -slope / np.log(2))


def test_the_linear_area_of_a_triangle():
    found = one([1.0, 2.0, 4.0], [6.0, 12.0, 2.0], route="extravascular", method="linear")
    assert value(found, "AUC_last") == pytest.approx(6 / 2 + (6 + 12) / 2 + 2 * (12 + 2) / 2)
    assert value(found, "AUMC_last") == pytest.approx(6 / 2 + (6 + 24) / 2 + 2 * (24 + 8) / 2)


def test_the_logarithmic_rule_may_hold_where_levels_rise():
    times, levels = [1.0, 2.0, 4.0, 6.0], [4.0, 8.0, 4.0, 2.0]
    down = one(times, levels, route="extravascular")
    both = one(times, levels, route="extravascular", method="log")
    falling = 2 * (8 - 4) / np.log(2) + 2 * (4 - 2) / np.log(2)
    assert value(down, "AUC_last") == pytest.approx(2 + 6 + falling)
    assert value(both, "AUC_last") == pytest.approx(2 + (8 - 4) / np.log(2) + falling)


# Closed forms


@pytest.mark.parametrize("times", [[0.5, 1, 2, 3, 5, 8, 12], [2.0, 7.0, 9.0, 30.0]])
def test_a_bolus_into_one_compartment_is_exact_whatever_the_times(times):
    found = one(times, DOSE / V * np.exp(-K * np.array(times)))
    for name, expected in {
        "C0": DOSE / V, "lambda_z": K, "half_life": np.log(2) / K, "AUC_inf": DOSE / CL, "CL": CL,
        "AUMC_inf": DOSE / CL * V / CL, "MRT": V / CL, "Vz": V, "Vss": V, "R2_adjusted": 1.0,
    }.items():  # fmt: skip
        assert value(found, name) == pytest.approx(expected, rel=1e-9), name
    last = times[-1]
    assert value(found, "AUC_extrapolated") == pytest.approx(100 * np.exp(-K * last))
    assert value(found, "AUC_back_extrapolated") == pytest.approx(100 * (1 - np.exp(-K * times[0])))


def test_two_compartments_by_bolus_have_the_volumes_of_their_closed_form():
    a, b, alpha, beta = 8.0, 2.0, 1.2, 0.1
    times = np.concatenate([np.arange(0.0, 8, 0.02), np.arange(8.0, 60, 0.5)])
    found = one(times[1:].tolist(), a * np.exp(-alpha * times[1:]) + b * np.exp(-beta * times[1:]),
                slopes={"1": (30, 60)})  # fmt: skip
    area, moment = a / alpha + b / beta, a / alpha**2 + b / beta**2
    assert value(found, "AUC_inf") == pytest.approx(area, rel=1e-4)
    assert value(found, "MRT") == pytest.approx(moment / area, rel=1e-4)
    assert value(found, "Vss") == pytest.approx(DOSE * moment / area**2, rel=1e-4)
    assert value(found, "Vz") == pytest.approx(DOSE / area / beta, rel=1e-4)


def infused(t, rate, duration):
    t = np.asarray(t)
    return rate / CL * (np.exp(-K * np.maximum(t - duration, 0)) - np.exp(-K * t))


def test_the_residence_time_after_an_infusion_is_corrected_for_its_duration():
    times = np.concatenate([np.arange(0.02, 4.0, 0.02), [4, 6, 8, 12, 16, 24]])
    found = one(times.tolist(), infused(times, 25.0, 4.0), dose="1 0 1 100 25 .")
    assert str(found["route"].item()) == "infusion"
    assert value(found, "tmax") == 4
    assert value(found, "MRT") == pytest.approx(V / CL, rel=1e-4)
    assert value(found, "Vss") == pytest.approx(V, rel=1e-4)
    assert value(found, "CL") == pytest.approx(CL, rel=1e-4)
    assert value(found, "slope_first") > 4  # nothing from while drug runs in


def oral(t):
    t = np.asarray(t)
    return DOSE * KA / (V * (KA - K)) * (np.exp(-K * t) - np.exp(-KA * t))


def test_the_residence_time_of_a_dose_by_mouth_is_that_of_absorption_and_body():
    times = np.concatenate([np.arange(0.02, 6, 0.02), [7, 9, 12, 18, 24, 36]])
    found = one(times.tolist(), oral(times), route="extravascular", slopes={"1": (12, 36)})
    assert value(found, "AUC_inf") == pytest.approx(DOSE / CL, rel=1e-4)
    assert value(found, "MRT") == pytest.approx(V / CL + 1 / KA, rel=1e-4)
    assert "Vss" in found
    assert np.isnan(value(found, "Vss"))


@pytest.fixture(scope="module")
def steady():
    """A bolus each 12 h at steady state, exactly, with the trough on both ends."""
    times = np.array([0.5, 1, 2, 4, 8, 12.0])
    first = DOSE / V / (1 - np.exp(-K * 12))
    rows = [f"1 {t} 0 . . . . {first * np.exp(-K * t):.17g}" for t in times]
    text = ["ID TIME EVID AMT RATE II SS DV", "1 0 1 100 0 12 1 .", *rows]
    return popk.nca(trial("\n".join(text)), route="bolus")


def test_at_steady_state_the_area_of_an_interval_is_dose_over_clearance(steady):
    accumulation = 1 / (1 - np.exp(-K * 12))
    peak, low = DOSE / V * accumulation, DOSE / V * accumulation * np.exp(-K * 12)
    highest = peak * np.exp(-K * 0.5)  # what is measured, not C0
    mean = DOSE / CL / 12
    for name, expected in {
        "tau": 12, "AUC_tau": DOSE / CL, "CL": CL, "Cavg": mean, "Cmin": low, "Ctrough": low, "C0": peak,
        "accumulation_predicted": accumulation, "MRT": V / CL, "Vss": V, "Vz": V, "Cmax": highest,
        "fluctuation": 100 * (highest - low) / mean, "swing": 100 * (highest - low) / low,
        "AUC_tau_extrapolated": 0.0,
    }.items():  # fmt: skip
        assert value(steady, name) == pytest.approx(expected, rel=1e-9), name
    assert np.isnan(value(steady, "AUC_inf"))


def several(last=7):
    """Oral doses each 12 h, levels after the first and the last, by superposition."""
    text = ["ID TIME EVID AMT RATE II ADDL DV", f"1 0 1 100 0 12 {last - 1} ."]
    for start in (0, 12 * (last - 1)):
        for after in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 10, 12):
            t = start + after
            level = sum(oral(t - 12 * d) for d in range(last) if t > 12 * d)
            text.append(f"1 {t} 0 . . . . {level:.17g}")
    return popk.nca(trial("\n".join(text)), route="extravascular", steady_state=True)


def test_several_doses_have_a_profile_each_where_there_are_levels():
    found = several()
    assert dict(found.sizes)["interval"] == 2
    assert found["dose_number"].values.tolist() == [[1, 7]]
    assert found["dose_time"].values.tolist() == [[0, 72]]
    first, last = found.isel(subject=0, interval=0), found.isel(subject=0, interval=1)
    assert value(first, "AUC_inf") == pytest.approx(DOSE / CL, rel=0.02)
    assert value(last, "AUC_tau") == pytest.approx(DOSE / CL, rel=0.02)
    assert value(last, "CL") == pytest.approx(CL, rel=0.02)
    assert np.isnan(value(last, "AUC_inf"))
    # by superposition the ratio of the areas of two intervals is that of their curves
    until = [sum(d / CL * (1 - (KA * np.exp(-K * t) - K * np.exp(-KA * t)) / (KA - K)) for d in [DOSE])
             for t in (12,)]  # fmt: skip
    assert value(last, "accumulation") == pytest.approx(DOSE / CL / until[0], rel=0.02)
    assert value(first, "Ctrough") == pytest.approx(oral(12.0))


def test_a_later_dose_that_is_not_at_steady_state_has_no_clearance():
    rows = [
        "ID TIME EVID AMT RATE DV",
        "1 0 1 100 0 .",
        "1 2 0 . . 4",
        "1 12 0 . . 1",
        "1 12 1 100 0 .",
    ]
    rows += [f"1 {12 + t} 0 . . {5 * np.exp(-0.2 * t)}" for t in (1, 2, 4, 8)]
    found = popk.nca(trial("\n".join(rows)), route="extravascular")
    assert int(found["dose_number"].item()) == 2
    assert value(found, "AUC_last") > 0  # from the level before the dose on
    assert np.isnan([value(found, n) for n in ("AUC_inf", "CL", "Vz", "MRT")]).all()
    assert "earlier doses are still there" in reasons(found)


def test_an_interval_that_was_sampled_to_minutes_before_its_end_is_completed_by_the_slope():
    times = [0.5, 1, 2, 4, 8, 11.8]
    rows = [
        f"1 {t} 0 . . . . {DOSE / V * np.exp(-K * t) / (1 - np.exp(-K * 12)):.17g}" for t in times
    ]
    text = ["ID TIME EVID AMT RATE II SS DV", "1 0 1 100 0 12 1 .", *rows]
    found = popk.nca(trial("\n".join(text)), route="bolus")
    assert value(found, "AUC_tau") == pytest.approx(DOSE / CL)
    assert 0 < value(found, "AUC_tau_extrapolated") < 1
    assert value(found, "Ctrough") == pytest.approx(
        DOSE / V * np.exp(-K * 11.8) / (1 - np.exp(-K * 12))
    )


def test_a_reset_begins_anew():
    part = [f"{t} 0 . . {DOSE / V * np.exp(-K * t):.17g}" for t in (1, 2, 4, 8)]
    rows = ["ID TIME EVID AMT RATE DV", "1 0 1 100 0 .", *(f"1 {r}" for r in part), "1 0 4 100 0 ."]
    found = popk.nca(trial("\n".join([*rows, *(f"1 {r}" for r in part)])), route="bolus")
    np.testing.assert_allclose(found["CL"], [[CL, CL]])
    assert found["dose_time"].values.tolist() == [[0, 0]]


# The terminal slope


def test_among_equally_good_slopes_the_longest_is_taken():
    found = one([1.0, 2, 4, 6, 8], 10 * np.exp(-0.3 * np.array([1.0, 2, 4, 6, 8])))
    assert value(found, "points") == 5  # of a bolus Cmax is one of them
    found = one([1.0, 2, 4, 6, 8], 10 * np.exp(-0.3 * np.array([1.0, 2, 4, 6, 8])),
                route="extravascular")  # fmt: skip
    assert value(found, "points") == 4


def test_the_points_of_a_slope_may_be_chosen(theophylline, theoph):
    own = theophylline["1"].to_dataframe()
    own = own[own["EVID"] == 0].iloc[-5:]
    by_range = popk.nca(theophylline, route="extravascular", slopes={1: (5, 25)})
    by_times = popk.nca(
        theophylline, route="extravascular", slopes={("1", 1): own["TIME"].tolist()}
    )
    slope = -np.polyfit(own["TIME"], np.log(own["DV"]), 1)[0]
    for found in (by_range, by_times):
        assert float(found["lambda_z"][0]) == pytest.approx(slope)
        assert "were chosen" in str(found["reason"].values[0])
        assert float(found["lambda_z"][1]) == float(theoph["lambda_z"][1])


def test_levels_say_which_made_the_slope(theoph):
    used = theoph["in_slope"].values & (theoph["ID"].values == "2")
    assert theoph["TIME"].values[used].tolist() == [7.03, 9.0, 12.0, 24.3]


# Levels below the limit


def below(*where, blq=None, route="extravascular"):
    """Return an analysis of six levels, some of them below a limit of 1."""
    rows = ["ID TIME EVID AMT RATE DV BLQ LLOQ", "1 0 1 100 0 . 0 ."]
    levels = dict(zip((1, 2, 3, 4, 6, 8), (2, 8, 6, 4, 2, 1.5), strict=True))
    for t, c in levels.items():
        rows.append(f"1 {t} 0 . . . 1 1" if t in where else f"1 {t} 0 . . {c} 0 .")
    return popk.nca(trial("\n".join(rows)), route=route, blq=blq, method="linear")


def test_a_level_below_the_limit_before_the_first_one_is_0():
    assert value(below(1), "AUC_last") == pytest.approx(0 + 4 + 7 + 5 + 6 + 3.5)
    dropped = below(1, blq={"before": "drop"})
    assert value(dropped, "AUC_last") == pytest.approx(2 * 8 / 2 + 7 + 5 + 6 + 3.5)
    half = below(1, blq={"before": "half"})
    assert value(half, "AUC_last") == pytest.approx(0.25 + 4.25 + 7 + 5 + 6 + 3.5)


def test_a_level_below_the_limit_in_the_middle_is_passed_over():
    assert value(below(4), "AUC_last") == pytest.approx(1 + 5 + 7 + 3 * 4 + 3.5)
    zero = below(4, blq={"middle": "zero"})
    assert value(zero, "AUC_last") == pytest.approx(1 + 5 + 7 + 3 + 2 + 3.5)
    given = below(4, blq={"middle": 0.8})
    assert value(given, "AUC_last") == pytest.approx(1 + 5 + 7 + 3.4 + 2.8 + 3.5)


def test_a_level_below_the_limit_after_the_last_one_enters_no_more_than_the_area_of_all():
    for rule, more in {"drop": 0.0, "zero": 2.0, "half": 2.5}.items():
        found = below(8, blq={"after": rule})
        assert value(found, "AUC_last") == pytest.approx(1 + 5 + 7 + 5 + 6)
        assert value(found, "tlast") == 6
        assert value(found, "Clast") == 2
        assert value(found, "AUC_all") == pytest.approx(24 + more)
        assert value(found, "points") == 3


def test_no_rule_lets_a_level_below_the_limit_into_the_slope():
    assert value(below(8, blq={"after": "half"}), "lambda_z") == value(below(8), "lambda_z")


def test_a_measured_level_of_0_counts_as_below_the_limit():
    found = one([1.0, 2, 4, 6, 8], [0, 8, 4, 2, 0], route="extravascular", method="linear")
    assert value(found, "AUC_last") == pytest.approx(0 + 4 + 12 + 6)
    assert value(found, "tlast") == 6


def test_nobody_with_a_level_above_the_limit_is_told():
    found = below(1, 2, 3, 4, 6, 8)
    assert np.isnan(value(found, "Cmax"))
    assert "no level is above the limit" in reasons(found)


def test_a_subject_without_a_level_has_a_row_with_the_reason():
    rows = "ID TIME EVID AMT RATE DV\n1 0 1 100 0 .\n2 0 1 100 0 .\n2 1 0 . . 4\n2 2 0 . . 2\n2 3 0 . . 1"
    found = popk.nca(trial(rows), route="bolus")
    assert np.isnan(found["AUC_last"].values[0])
    assert "no level is above the limit" in str(found["reason"].values[0])
    assert float(found["half_life"][1]) == pytest.approx(1)


def test_a_level_before_the_first_dose_is_no_maximum():
    found = one(
        [1.0, 2.0, 4.0, 6.0],
        [3, 4, 2, 1],
        route="extravascular",
        dose="1 -1 0 . . 9\n1 0 1 100 0 .",
    )
    assert value(found, "Cmax") == 4
    assert value(found, "C0") != 9
    assert bool(found["flags"].sel(flag="predose"))
    assert found["DV"].values.tolist() == [9, 3, 4, 2, 1]


@pytest.mark.parametrize("blq", [{"start": "zero"}, {"before": "keep"}, {"after": -1.0}])
def test_a_rule_that_is_none_is_refused(blq):
    with pytest.raises(ValueError, match="blq"):
        below(1, blq=blq)


# Flags


@pytest.mark.parametrize(
    ("times", "levels", "options", "flag", "missing"),
    [
        ([1.0, 2.0], [8.0, 4.0], {}, "few_points", "lambda_z"),
        ([1.0, 2.0, 4.0, 6.0, 8.0], [8.0, 3.0, 4.0, 5.0, 6.0], {"route": "extravascular"}, "no_fall", "CL"),
        ([1.0, 2.0, 4.0, 6.0, 8.0], [8.0, 3.0, 1.0, 5.0, 2.0], {}, "poor_fit", None),
        ([1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0], {}, "short_span", None),
        ([1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0], {}, "extrapolated", None),
        ([4.0, 6.0, 8.0, 20.0], [8.0, 3.0, 2.0, 0.1], {}, "back_extrapolated", None),
        ([2.0], [8.0], {}, "one_level", "AUC_last"),
        ([1.0, 2.0, 4.0, 8.0], [8.0, 6.0, 3.0, 1.0], {"route": "extravascular"}, "first_is_highest", None),
    ],
)  # fmt: skip
def test_each_flag_is_raised_with_its_reason(times, levels, options, flag, missing):
    found = one(times, levels, **options)
    assert bool(found["flags"].sel(flag=flag))
    assert reasons(found)
    if missing:
        assert np.isnan(value(found, missing))


def test_limits_of_flags_are_options():
    levels = [8.0, 7.0, 6.0, 5.0]
    found = one([1.0, 2.0, 3.0, 4.0], levels, min_span=0.1, max_extrapolated=95, min_r2=0.5)
    assert reasons(found) == ""


def test_a_trace_before_the_dose_is_flagged_only_above_5_percent(theoph):
    flagged = theoph["flags"].sel(flag="predose").values
    assert flagged.tolist() == [True, *[False] * 11]  # 0.74 of 10.5; 0.15 of 7.09; 0.24 of 10.21
    assert "7.05% of Cmax" in str(theoph["reason"].values[0])


# Units


def test_other_units_change_no_clearance():
    rows = ["ID TIME EVID AMT RATE DV", "1 0 1 100 0 ."]
    rows += [f"1 {t} 0 . . {DOSE / V * np.exp(-K * t):.17g}" for t in (1, 2, 4, 8)]
    frame = pd.read_csv(StringIO("\n".join(rows)), sep=r"\s+", na_values=".")
    one_way = popk.nca(
        popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"}), route="bolus"
    )
    minutes = frame.assign(TIME=frame["TIME"] * 60, AMT=frame["AMT"] * 1000, DV=frame["DV"] * 1000)
    units = {"TIME": "min", "AMT": "ug", "DV": "ng/mL"}
    other = popk.nca(popk.read_nonmem(minutes, units=units), route="bolus")
    assert value(other, "CL") * 60 == pytest.approx(value(one_way, "CL"))
    assert value(other, "Vss") == pytest.approx(value(one_way, "Vss"))
    assert value(other, "half_life") == pytest.approx(60 * value(one_way, "half_life"))
    assert other["CL"].attrs["units"] == "L/min"
    assert other["AUC_inf"].attrs["units"] == "min*ng/mL"
    assert other["AUMC_inf"].attrs["units"] == "min^2*ng/mL"


def test_amounts_per_body_weight_have_volumes_per_body_weight():
    rows = "ID TIME EVID AMT RATE DV\n1 0 1 2 0 .\n1 1 0 . . 8\n1 2 0 . . 4\n1 3 0 . . 2"
    frame = pd.read_csv(StringIO(rows), sep=r"\s+", na_values=".")
    found = popk.nca(
        popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg/kg", "DV": "ug/mL"}), route="bolus"
    )
    assert found["CL"].attrs["units"] == "L/h/kg"
    assert found["Vz"].attrs["units"] == "L/kg"
    assert value(found, "Vz") == pytest.approx(2 / 16)


# Tables


def test_the_table_has_units_in_its_header_and_reasons_in_its_last_column(theoph, indomethacin):
    table = popk.nca_table(theoph)
    assert table.index.name == "ID"
    assert table.loc["2", "CL/F [L/h]"] == pytest.approx(float(theoph["CL"][1]))
    assert table.columns[-1] == "flags"
    assert "C0 [mg/L]" not in table
    assert "CL [L/h]" in popk.nca_table(popk.nca(indomethacin, route="bolus"))


def test_the_table_of_several_doses_has_a_row_for_each():
    table = popk.nca_table(several())
    assert table.index.tolist() == [("1", 1), ("1", 7)]


# What is refused


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"route": None}, r"row 2|RATE is 0 on 1 doses"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"route": "oral"}, "route is 'oral'"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"route": {2: "bolus"}}, "CMT 0, which route= does not name"),
        ("1 0 1 100 0 .\n1 1 0 . . -2", {}, "ID 1 .*DV is -2; no level is negative"),
        ("1 0 1 100 0 .\n1 1 0 . . 2\n1 1 0 . . 3\n1 2 0 . . 1", {}, "two levels stand at one time"),
        ("1 1 0 . . 2", {}, "ID 1 .*it has no dose"),
        ("1 0 1 100 -2 .\n1 1 0 . . 2", {}, "RATE is -2"),
        ("1 0 1 100 0 .\n1 0 1 50 25 .\n1 1 0 . . 2", {}, "two doses of different routes"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"method": "spline"}, "method is 'spline'"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"partial": [(4, 2)]}, "partial"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"slopes": {"2": (1, 2)}}, "no such subject"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"slopes": {"1": (2, 1)}}, "first and last time"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"min_r2": 2.0}, "min_r2 is 2"),
        ("1 0 1 100 0 .\n1 1 0 . . 2", {"DVID": 3}, "0 kinds"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_its_row(rows, options, match):
    with pytest.raises(ValueError, match=match):
        popk.nca(trial("ID TIME EVID AMT RATE DV\n" + rows), **{"route": "bolus", **options})


def test_a_level_above_the_upper_limit_is_refused():
    rows = "ID TIME EVID AMT RATE DV ALQ ULOQ\n1 0 1 100 0 . 0 .\n1 1 0 . . . 1 50\n1 2 0 . . 3 0 ."
    with pytest.raises(popk.DataError, match="above 50; set MDV 1"):
        popk.nca(trial(rows), route="bolus")


def test_levels_that_are_no_concentrations_are_refused():
    frame = pd.DataFrame(
        {"ID": 1, "TIME": [0, 1], "EVID": [1, 0], "AMT": [9, 0], "DV": [np.nan, 2]}
    )
    effect = popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mmHg"})
    with pytest.raises(popk.DataError, match="levels in amounts per volume"):
        popk.nca(effect, route="bolus")


def test_two_kinds_of_levels_are_analyzed_one_at_a_time():
    rows = ["ID TIME EVID AMT RATE DV DVID", "1 0 1 100 0 . 1"]
    for t in (1, 2, 4):
        rows += [f"1 {t} 0 . . {8 / t} 1", f"1 {t} 0 . . {4 / t} 2"]
    both = trial("\n".join(rows))
    with pytest.raises(popk.DataError, match="say DVID= or CMT="):
        popk.nca(both, route="bolus")
    assert value(popk.nca(both, route="bolus", DVID=2), "Cmax") == 4
