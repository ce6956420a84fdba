"""What is each noncompartmental parameter, and in which unit? Names as data."""

from typing import NamedTuple

from popk import units as unit_rules
from popk.trial import Trial


class Quantity(NamedTuple):
    """One parameter.

    Attributes
    ----------
    name, long_name : str
    unit : str
        With ``{t}``, ``{c}``, ``{a}`` and ``{v}`` for the units of time, levels, amounts and volumes.
    """

    name: str
    long_name: str
    unit: str


QUANTITIES = tuple(
    Quantity(*row)
    for row in (
        ("Cmax", "highest level", "{c}"),
        ("tmax", "time of the highest level", "{t}"),
        ("Clast", "last quantified level", "{c}"),
        ("tlast", "time of the last quantified level", "{t}"),
        ("AUC_last", "AUC to the last quantified level", "{t}*{c}"),
        ("AUC_all", "AUC to the last level that counts", "{t}*{c}"),
        ("AUC_inf", "AUC to infinity, from the observed last level", "{t}*{c}"),
        ("AUC_inf_predicted", "AUC to infinity, from the predicted last level", "{t}*{c}"),
        ("AUC_extrapolated", "part of AUC_inf after the last level", "%"),
        ("C0", "level at the time of a bolus", "{c}"),
        ("AUC_back_extrapolated", "part of AUC_inf before the first level", "%"),
        ("AUMC_last", "area under the first moment to the last level", "{t}^2*{c}"),
        ("AUMC_inf", "area under the first moment to infinity", "{t}^2*{c}"),
        ("MRT", "mean residence time", "{t}"),
        ("lambda_z", "terminal rate constant", "1/{t}"),
        ("half_life", "terminal half-life", "{t}"),
        ("R2_adjusted", "adjusted R2 of the terminal slope", "1"),
        ("points", "points of the terminal slope", "1"),
        ("span", "half-lives that the terminal slope spans", "1"),
        ("slope_first", "time of the slope's first point", "{t}"),
        ("slope_last", "time of the slope's last point", "{t}"),
        ("slope_intercept", "the terminal line at the time of the dose", "{c}"),
        ("Clast_predicted", "last quantified level on the terminal line", "{c}"),
        ("CL", "clearance", "{v}/{t}"),
        ("Vz", "volume of distribution in the terminal phase", "{v}"),
        ("Vss", "volume of distribution at steady state", "{v}"),
        ("tau", "dosing interval", "{t}"),
        ("AUC_tau", "AUC of a dosing interval", "{t}*{c}"),
        ("AUC_tau_extrapolated", "part of AUC_tau after the last level", "%"),
        ("Cavg", "mean level of an interval", "{c}"),
        ("Cmin", "lowest level of an interval", "{c}"),
        ("Ctrough", "level at the end of an interval", "{c}"),
        ("fluctuation", "(Cmax - Cmin) / Cavg", "%"),
        ("swing", "(Cmax - Cmin) / Cmin", "%"),
        ("accumulation", "AUC_tau by AUC_tau of the first dose, for the same dose", "1"),
        ("accumulation_predicted", "1 / (1 - exp(-lambda_z tau))", "1"),
        ("Ae", "amount in urine", "{a}"),
        ("fe", "part of the dose in urine", "%"),
        ("CLr", "renal clearance", "{v}/{t}"),
    )
)


def volume_unit(trial: Trial) -> str:
    """Return the unit of a volume: L, or L/kg where amounts are per kg of body weight."""
    amount, level = trial.units["AMT"], trial.units["DV"]
    liters = unit_rules.parse(f"({amount}) / L").dimensionality
    return "L" if liters == unit_rules.parse(level).dimensionality else "L/kg"


def units_of(trial: Trial) -> dict[str, str]:
    """Return the unit of each parameter of a trial."""
    t, c, a = (trial.units[name] for name in ("TIME", "DV", "AMT"))
    v = volume_unit(trial)
    clearance = f"L/{t}" if v == "L" else f"L/{t}/kg"
    return {
        q.name: clearance if q.unit == "{v}/{t}" else q.unit.format(t=t, c=c, a=a, v=v)
        for q in QUANTITIES
    }
