"""What does a number mean? Units of columns, checked and converted by Pint.

popk's conventions: times, amounts and levels keep the units of the trial; a volume is in L and a
clearance in L per the trial's unit of time, whatever the trial's amounts are counted in.
"""

from functools import cache
from typing import Any

import pint


class UnitError(ValueError):
    """A unit is unknown, or two units cannot be converted into one another."""


@cache
def _registry() -> Any:
    return pint.UnitRegistry(cache_folder=None)


@cache
def parse(unit: str) -> Any:
    """Return the Pint unit of a text such as ``"mg/L"``.

    Raises
    ------
    UnitError
        The text is not a unit.

    Examples
    --------
    >>> str(parse("mg/L"))
    'milligram / liter'
    """
    try:
        return _registry().parse_units("dimensionless" if unit.strip() in ("", "1") else unit)
    except Exception as error:
        raise UnitError(
            f"{unit!r} is not a unit; write one like 'h', 'mg', 'mg/L', 'kg'"
        ) from error


def factor(source: str, target: str) -> float:
    """Return what a number in `source` is multiplied by to be a number in `target`.

    Raises
    ------
    UnitError
        One of them is not a unit, or they measure different things.

    Examples
    --------
    >>> factor("ng/mL", "mg/L")
    0.001
    """
    a, b = parse(source), parse(target)
    if a.dimensionality != b.dimensionality:
        raise UnitError(f"{source} cannot be converted to {target}: they measure different things")
    return float(f"{_registry().Quantity(1.0, a).to(b).magnitude:.15g}")


def same(one: str, other: str) -> bool:
    """Return whether two units are one, however they are written.

    Examples
    --------
    >>> same("ug/mL", "mg/L"), same("ng/mL", "mg/L"), same("kg", "h")
    (True, False, False)
    """
    alike = parse(one).dimensionality == parse(other).dimensionality
    return alike and factor(one, other) == 1


def concentration_factor(amount: str, level: str) -> float | None:
    """Return the factor from `amount` per L to `level`, None where a level is no such concentration.

    With amounts in mg and levels in ng/mL it is 1000, so that a model with V in L predicts ng/mL.
    Amounts per kg of body weight go with volumes in L/kg.

    Examples
    --------
    >>> concentration_factor("mg", "ng/mL"), concentration_factor("mg/kg", "ug/mL")
    (1000.0, 1.0)
    """
    for volume in ("L", "L/kg"):
        concentration = f"({amount}) / ({volume})"
        if parse(concentration).dimensionality == parse(level).dimensionality:
            return factor(concentration, level)
    return None
