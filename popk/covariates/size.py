"""How does a person's size change a typical value? Weight, height and what follows from them.

Weights are in [kg], heights in `height_unit`. Sex is 1 (or true) for men and 0 for women. Ranges are
those of living people, from the smallest newborn on; what lies outside is refused.
"""

from typing import Literal

import jax.numpy as jnp

from popk.covariates.effects import Range, Values, admitted, among, power, refuse
from popk.units import UnitError, factor

WEIGHT = Range("WT", 0.2, 700, "kg", "correct it, or convert it to kg")
HEIGHT = Range("HT", 20, 280, "cm", "correct it, or name its unit as height_unit")


def by_sex(male: Values, men: float, women: float) -> Values:
    """Return a constant of men or of women.

    Parameters
    ----------
    male : Float[Array, "*#s"]
        1 (or true) for men, 0 for women.
    men, women : float

    Raises
    ------
    ValueError
        `male` is neither 1 nor 0.
    """
    code = among(male, "male", (0, 1), "code men as 1 and women as 0")
    return jnp.where(code == 1, men, jnp.where(code == 0, women, jnp.nan))


def centimeters(HT: Values, height_unit: str) -> Values:
    """Return heights in cm.

    Parameters
    ----------
    HT : Float[Array, "*#s"]
        Height [height_unit].
    height_unit : str
        A unit of length.

    Raises
    ------
    ValueError
        The unit is no length, or a height is not from 20 to 280 cm.
    """
    try:
        scale = factor(str(height_unit), "cm")
    except UnitError as error:
        raise ValueError(
            f"height_unit is {height_unit!r}, but must be a unit of length; "
            "write 'cm', 'm' or 'inch', whichever the heights are in"
        ) from error
    # The limits are converted, not the height, so that an error shows the number that was given.
    limits = HEIGHT._replace(low=HEIGHT.low / scale, high=HEIGHT.high / scale, unit=height_unit)
    return admitted(HT, limits) * scale


def allometry(WT: Values, exponent: Values, ref: Values = 70.0) -> Values:
    r"""Return the factor of size: a power of weight over a reference weight.

    .. math:: \left(\frac{WT}{WT_{ref}}\right)^\theta

    With exponents of 3/4 for clearances and 1 for volumes by theory.

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Total weight, or another mass such as `fat_free_mass` [kg]; of any species, so that it need
        only be positive.
    exponent : Float[Array, "*#s"]
        Exponent.
    ref : Float[Array, "*#s"]
        Mass at which the factor is 1 [kg].

    Raises
    ------
    ValueError
        `WT` or `ref` is not positive.

    References
    ----------
    .. [1] Anderson BJ, Holford NHG (2008). Mechanism-based concepts of size and maturity in
       pharmacokinetics. Annu Rev Pharmacol Toxicol 48:303-332.
       doi:10.1146/annurev.pharmtox.48.113006.094708

    Examples
    --------
    >>> float(allometry(35.0, 1.0))
    0.5
    """
    return power(admitted(WT, Range("WT", 0, unit="kg", above=True)), exponent, ref)


def body_mass_index(WT: Values, HT: Values, *, height_unit: str = "cm") -> Values:
    r"""Return the body mass index [kg/m^2].

    .. math:: BMI = \frac{WT}{HT^2}

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Weight [kg].
    HT : Float[Array, "*#s"]
        Height [height_unit].
    height_unit : str
        A unit of length.

    Raises
    ------
    ValueError
        A weight or height is that of no person, or the unit is no length.

    References
    ----------
    .. [1] Green B, Duffull SB (2004). What is the best size descriptor to use for pharmacokinetic
       studies in the obese? Br J Clin Pharmacol 58:119-133. doi:10.1111/j.1365-2125.2004.02157.x

    Examples
    --------
    >>> float(body_mass_index(80.0, 2.0, height_unit="m"))
    20.0
    """
    return admitted(WT, WEIGHT) / (centimeters(HT, height_unit) / 100) ** 2


def body_surface_area(
    WT: Values,
    HT: Values,
    *,
    height_unit: str = "cm",
    formula: Literal["mosteller", "dubois"] = "mosteller",
) -> Values:
    r"""Return the body surface area [m^2].

    .. math::
        BSA &= \sqrt{WT \cdot HT / 3600} \quad \text{(Mosteller)} \\
        BSA &= 0.007184\, WT^{0.425} HT^{0.725} \quad \text{(Du Bois)}

    with HT in cm.

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Weight [kg].
    HT : Float[Array, "*#s"]
        Height [height_unit].
    height_unit : str
        A unit of length.
    formula : "mosteller" or "dubois"

    Raises
    ------
    ValueError
        A weight or height is that of no person, the unit is no length, or the formula neither.

    References
    ----------
    .. [1] Mosteller RD (1987). Simplified calculation of body-surface area. N Engl J Med 317:1098.
       doi:10.1056/NEJM198710223171717
    .. [2] Du Bois D, Du Bois EF (1916). A formula to estimate the approximate surface area if height
       and weight be known. Arch Intern Med 17:863-871. doi:10.1001/archinte.1916.00080130010002

    Examples
    --------
    >>> float(body_surface_area(80.0, 180.0))
    2.0
    """
    WT, HT = admitted(WT, WEIGHT), centimeters(HT, height_unit)
    if formula == "mosteller":
        return jnp.sqrt(WT * HT / 3600)
    if formula == "dubois":
        return 0.007184 * WT**0.425 * HT**0.725
    raise ValueError(
        f"formula is {formula!r}, but must be 'mosteller' or 'dubois'; write one of them"
    )


def fat_free_mass(WT: Values, HT: Values, *, male: Values, height_unit: str = "cm") -> Values:
    r"""Return the fat-free mass of an adult [kg].

    .. math::
        FFM &= \frac{9270\, WT}{6680 + 216\, BMI} \quad \text{(men)} \\
        FFM &= \frac{9270\, WT}{8780 + 244\, BMI} \quad \text{(women)}

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Weight [kg].
    HT : Float[Array, "*#s"]
        Height [height_unit].
    male : Float[Array, "*#s"]
        1 for men, 0 for women.
    height_unit : str
        A unit of length.

    Raises
    ------
    ValueError
        A weight or height is that of no person, the unit is no length, or sex is neither 1 nor 0.

    References
    ----------
    .. [1] Janmahasatian S, Duffull SB, Ash S, et al. (2005). Quantification of lean bodyweight. Clin
       Pharmacokinet 44:1051-1065. doi:10.2165/00003088-200544100-00004

    Examples
    --------
    >>> round(float(fat_free_mass(80.0, 180.0, male=1)), 2)
    61.73
    """
    BMI = body_mass_index(WT, HT, height_unit=height_unit)
    intercept, slope = by_sex(male, 6680.0, 8780.0), by_sex(male, 216.0, 244.0)
    return 9270 * admitted(WT, WEIGHT) / (intercept + slope * BMI)


def lean_body_weight(WT: Values, HT: Values, *, male: Values, height_unit: str = "cm") -> Values:
    r"""Return James's lean body weight of an adult [kg].

    .. math::
        LBW &= 1.10\, WT - 128 \left(\frac{WT}{HT}\right)^2 \quad \text{(men)} \\
        LBW &= 1.07\, WT - 148 \left(\frac{WT}{HT}\right)^2 \quad \text{(women)}

    with HT in cm. The parabola turns at a BMI of 42.97 kg/m^2 in men and 36.15 kg/m^2 in women: of two
    heavier persons it makes the heavier one the leaner, and finally negative. Beyond the turn it is
    refused; `fat_free_mass` has no such limit.

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Weight [kg].
    HT : Float[Array, "*#s"]
        Height [height_unit].
    male : Float[Array, "*#s"]
        1 for men, 0 for women.
    height_unit : str
        A unit of length.

    Raises
    ------
    ValueError
        A weight or height is that of no person, the BMI is beyond the turn, the unit is no length, or
        sex is neither 1 nor 0.

    References
    ----------
    .. [1] James WPT (1976). Research on obesity. London: HMSO.
    .. [2] Green B, Duffull SB (2004). What is the best size descriptor to use for pharmacokinetic
       studies in the obese? Br J Clin Pharmacol 58:119-133. doi:10.1111/j.1365-2125.2004.02157.x

    Examples
    --------
    >>> round(float(lean_body_weight(80.0, 160.0, male=1)), 9)
    56.0
    """
    BMI = body_mass_index(WT, HT, height_unit=height_unit)
    gain, loss = (
        by_sex(male, 1.10, 1.07),
        by_sex(male, 0.0128, 0.0148),
    )  # of WT, and of WT times BMI
    BMI = refuse(
        BMI,
        2 * loss * BMI <= gain,
        lambda found, at: (
            f"the BMI is {found} kg/m^2{at}, but James's equation holds up to 42.97 in men and 36.15 in "
            "women; use fat_free_mass"
        ),
    )
    return admitted(WT, WEIGHT) * (gain - loss * BMI)
