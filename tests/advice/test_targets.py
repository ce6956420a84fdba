"""Targets and risks: the number each draw has, its range, and what is refused."""

import numpy as np
import pytest

import popk
from popk.advice.targets import crossing
from popk.patients.courses import Course

UNITS = {"DV": "mg/L", "TIME": "h", "AMT": "mg"}


def falling(k=0.1, top=20.0, end=12.0, points=25):
    """Return a course that falls exponentially, and one that does not fall."""
    time = np.linspace(0.0, end, points)
    weight = np.full(points, end / (points - 1))
    weight[[0, -1]] /= 2
    return Course(time, weight, np.stack([top * np.exp(-k * time), np.full(points, top)]))


def test_time_above_of_an_exponential_fall_is_its_closed_form():
    value = popk.time_above(10.0, 0.5).value(falling())
    np.testing.assert_allclose(value, [np.log(20 / 10) / 0.1 / 12, 1.0], rtol=1e-12)


def test_time_in_a_window_leaves_out_what_is_above_it():
    value = popk.time_in_window(10.0, 15.0, 0.2).value(falling())
    np.testing.assert_allclose(value, [np.log(15 / 10) / 0.1 / 12, 0.0], rtol=1e-12)


def test_the_number_of_each_target():
    course = falling()
    last = 20 * np.exp(-1.2)
    assert popk.trough(1).value(course)[0] == pytest.approx(last)
    assert popk.peak(1).value(course)[0] == 20.0
    area = course.value[0] @ course.weight
    assert popk.auc(1).value(course)[0] == pytest.approx(area)
    assert popk.auc(1, interval=24).value(course)[0] == pytest.approx(2 * area)
    effect = popk.response(1, output="effect", at="average").value(course)[0]
    assert effect == pytest.approx(area / 12)


def test_a_peak_between_points_is_that_of_the_parabola_through_them():
    time = np.arange(5.0)
    course = Course(time, time, (10 - (time - 2.3) ** 2)[None])
    assert popk.peak(1).value(course)[0] == pytest.approx(10.0, rel=1e-12)


def test_the_ends_of_a_range_belong_to_it():
    target = popk.trough(5, 15)
    np.testing.assert_array_equal(target.met(np.array([4.9, 5, 15, 15.1])), [0, 1, 1, 0])
    assert popk.peak_above(20).met(np.array([20.0]))[0]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (popk.trough(5, 15), "trough 5 to 15 mg/L"),
        (popk.auc(None, 600, interval=24), "AUC over 24 h at most 600 mg/L * h"),
        (popk.time_above(2, 0.6), "at least 2 mg/L for at least 0.6 of the time"),
        (popk.trough_above(10), "trough at least 10 mg/L"),
        (popk.response(1, 2, output="effect"), "trough of effect 1 to 2 mg/L"),
    ],
)
def test_a_target_says_itself_with_its_unit(target, says):
    assert target.says(UNITS) == says


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: popk.trough(15, 5), "low must be the lower one"),
        (lambda: popk.trough(), "give low, high or both"),
        (lambda: popk.peak(-1), "a concentration is not negative"),
        (lambda: popk.auc(np.nan), "give a number, or None"),
        (lambda: popk.auc(400, interval=0), "must be a positive time"),
        (lambda: popk.time_above(2, 1.5), "fraction is 1.5"),
        (lambda: popk.response(1, output="effect", at="noon"), "at is 'noon'"),
        (lambda: popk.costs(below=-1), "none may be negative"),
        (lambda: popk.limit(above=20, below=1), "give one of the two"),
        (lambda: popk.limit(above=20, probability=0.2, clears=0.3), "clears at most the other"),
    ],
)
def test_a_target_that_is_none_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_crossing_where_nothing_is_positive_is_on_a_straight_line():
    assert crossing(np.array([[0.0]]), np.array([[4.0]]), 1.0)[0, 0] == 0.25
