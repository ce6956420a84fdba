"""What does a number mean?"""

import pytest

from popk.units import UnitError, concentration_factor, factor, parse


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("ng/mL", "mg/L", 1e-3),
        ("ug/mL", "mg/L", 1.0),
        ("mg/L", "ng/mL", 1e3),
        ("min", "h", 1 / 60),
        ("day", "h", 24.0),
        ("lb", "kg", 0.45359237),
        ("1", "percent", 100.0),
        ("h", "h", 1.0),
    ],
)
def test_a_factor_converts_a_number(source, target, expected):
    assert factor(source, target) == pytest.approx(expected, rel=1e-14)


def test_converting_there_and_back_changes_nothing():
    assert factor("ug/dL", "mg/L") * factor("mg/L", "ug/dL") == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("unit", ["", "1", " "])
def test_a_code_or_a_fraction_has_the_unit_1(unit):
    assert parse(unit).dimensionless


@pytest.mark.parametrize("text", ["bananas", "5", "mg/L;", "L)"])
def test_a_text_that_is_no_unit_is_refused_with_examples(text):
    with pytest.raises(UnitError) as caught:
        parse(text)
    assert str(caught.value) == f"{text!r} is not a unit; write one like 'h', 'mg', 'mg/L', 'kg'"


@pytest.mark.parametrize(("source", "target"), [("mg", "mg/L"), ("h", "kg"), ("mg/L", "umol/L")])
def test_units_of_different_things_are_not_converted(source, target):
    with pytest.raises(UnitError) as caught:
        factor(source, target)
    assert str(caught.value) == (
        f"{source} cannot be converted to {target}: they measure different things"
    )


def test_a_unit_error_is_a_value_error():
    assert issubclass(UnitError, ValueError)


@pytest.mark.parametrize(
    ("amount", "level", "expected"),
    [
        ("mg", "mg/L", 1.0),
        ("mg", "ng/mL", 1e3),
        ("ug", "ng/mL", 1.0),
        ("g", "mg/L", 1e3),
        ("mg/kg", "ug/mL", 1.0),
        ("umol", "nmol/L", 1e3),
        ("mg", "umol/L", None),
        ("mg", "mg", None),
        ("mg/kg", "mg/kg", None),
        ("mg", "1", None),
    ],
)
def test_amounts_per_liter_convert_to_levels_or_are_known_not_to(amount, level, expected):
    assert concentration_factor(amount, level) == expected
