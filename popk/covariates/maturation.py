r"""How does a child's age change a typical value? Maturation from before term to adulthood.

Maturation is a fraction of the adult value, once size is accounted for. It goes by post-menstrual age,
the time since the mother's last menstrual period, because organs mature before birth, too.
"""

import jax
import jax.numpy as jnp

from popk.covariates.effects import Range, Values, admitted, refuse
from popk.covariates.size import WEIGHT, allometry
from popk.units import UnitError, factor

_PMA = Range("PMA", 20, 7000, "weeks", "correct it, or convert it by post_menstrual_age")
_PNA = Range("PNA", 0, 130, "year", "correct it, or name its unit as age_unit")
_GA = Range("gestational_age", 20, 45, "week", "correct it, or name its unit as gestational_unit")
_RHODIN = (47.7, 3.40)  # TM50 [weeks] and Hill's exponent of the glomerular filtration rate
_RHODIN_MATURE = 121.2  # mL/min of a 70 kg adult


def _weeks(age: Values, allowed: Range, unit: str, keyword: str) -> Values:
    """Return ages in weeks, if they are in their range."""
    try:
        scale, own = factor(str(unit), "week"), factor(allowed.unit, str(unit))
    except UnitError as error:
        raise ValueError(
            f"{keyword} is {unit!r}, but must be a unit of time; "
            "write 'year', 'month', 'week' or 'day', whichever the ages are in"
        ) from error
    limits = allowed._replace(low=allowed.low * own, high=allowed.high * own, unit=unit)
    return admitted(age, limits) * scale


def post_menstrual_age(
    PNA: Values, gestational_age: Values, *, age_unit: str, gestational_unit: str = "week"
) -> Values:
    r"""Return the post-menstrual age [weeks].

    .. math:: PMA = GA + PNA

    Parameters
    ----------
    PNA : Float[Array, "*#s"]
        Postnatal age, since birth [age_unit].
    gestational_age : Float[Array, "*#s"]
        Gestational age at birth [gestational_unit]; 40 weeks at term.
    age_unit : str
        Unit of the postnatal age, of which there is no default because days, weeks and years are all
        in use. A year has 365.25 days and a month is a twelfth of it.
    gestational_unit : str
        Unit of the gestational age.

    Raises
    ------
    ValueError
        A postnatal age is not from 0 to 130 years or a gestational age not from 20 to 45 weeks, or a
        unit is none of time.

    References
    ----------
    .. [1] Anderson BJ, Holford NHG (2008). Mechanism-based concepts of size and maturity in
       pharmacokinetics. Annu Rev Pharmacol Toxicol 48:303-332.
       doi:10.1146/annurev.pharmtox.48.113006.094708

    Examples
    --------
    >>> float(post_menstrual_age(14.0, 30.0, age_unit="day"))
    32.0
    """
    before = _weeks(gestational_age, _GA, gestational_unit, "gestational_unit")
    return before + _weeks(PNA, _PNA, age_unit, "age_unit")


def sigmoid(PMA: Values, TM50: Values, HILL: Values) -> Values:
    r"""Return the fraction of adult function that has matured.

    .. math:: \frac{PMA^h}{TM_{50}^h + PMA^h}

    Parameters
    ----------
    PMA : Float[Array, "*#s"]
        Post-menstrual age [weeks].
    TM50 : Float[Array, "*#s"]
        Post-menstrual age at half the adult value [weeks].
    HILL : Float[Array, "*#s"]
        Hill's exponent h.

    Raises
    ------
    ValueError
        A post-menstrual age is not from 20 to 7000 weeks, or `TM50` or `HILL` is not positive.

    References
    ----------
    .. [1] Anderson BJ, Holford NHG (2008). Mechanism-based concepts of size and maturity in
       pharmacokinetics. Annu Rev Pharmacol Toxicol 48:303-332.
       doi:10.1146/annurev.pharmtox.48.113006.094708

    Examples
    --------
    >>> round(float(sigmoid(80.0, TM50=40.0, HILL=2.0)), 9)
    0.8
    """
    TM50 = admitted(TM50, Range("TM50", 0, unit="weeks", above=True))
    HILL = admitted(HILL, Range("HILL", 0, above=True))
    return jax.nn.sigmoid(HILL * jnp.log(admitted(PMA, _PMA) / TM50))


def asymptotic(age: Values, half_life: Values, at_start: Values, start: Values = 0.0) -> Values:
    r"""Return the fraction of the adult value that an exponential maturation has reached.

    .. math:: 1 - (1 - \beta)\, 2^{-(age - start) / T_{1/2}}

    It grows from below 1 as clearances do, or shrinks from above 1 as volumes do.

    Parameters
    ----------
    age : Float[Array, "*#s"]
        Postnatal or post-menstrual age [time].
    half_life : Float[Array, "*#s"]
        Maturation half-life [time].
    at_start : Float[Array, "*#s"]
        Fraction of the adult value at `start`, not negative.
    start : Float[Array, "*#s"]
        Age at which maturation begins: 0 for postnatal age [time].

    Raises
    ------
    ValueError
        An age is negative or before the start, or another number is out of its range.

    References
    ----------
    .. [1] Anderson BJ, Woollard GA, Holford NHG (2000). A model for size and age changes in the
       pharmacokinetics of paracetamol in neonates, infants and children. Br J Clin Pharmacol
       50:125-134. doi:10.1046/j.1365-2125.2000.00231.x
    .. [2] Anderson BJ, van Lingen RA, Hansen TG, et al. (2002). Acetaminophen developmental
       pharmacokinetics in premature neonates and infants. Anesthesiology 96:1336-1345.
       doi:10.1097/00000542-200206000-00012

    Examples
    --------
    >>> float(asymptotic(3.25, half_life=3.25, at_start=0.4))
    0.7
    """
    half_life = admitted(half_life, Range("half_life", 0, above=True))
    at_start = admitted(at_start, Range("at_start", 0))
    elapsed = admitted(age, Range("age", 0)) - admitted(start, Range("start", 0))
    elapsed = refuse(
        elapsed,
        elapsed >= 0,
        lambda found, at: (
            f"age minus start is {found}{at}, but must not be negative; choose an earlier start"
        ),
    )
    return 1 - (1 - at_start) * jnp.exp2(-elapsed / half_life)


def size_and_maturation(
    WT: Values, PMA: Values, TM50: Values, HILL: Values, exponent: Values = 0.75
) -> Values:
    r"""Return a child's clearance as a fraction of that of a 70 kg adult.

    .. math:: \left(\frac{WT}{70}\right)^\theta \frac{PMA^h}{TM_{50}^h + PMA^h}

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Weight [kg].
    PMA : Float[Array, "*#s"]
        Post-menstrual age [weeks].
    TM50 : Float[Array, "*#s"]
        Post-menstrual age at half the adult clearance [weeks].
    HILL : Float[Array, "*#s"]
        Hill's exponent h.
    exponent : Float[Array, "*#s"]
        Exponent of size.

    Raises
    ------
    ValueError
        A weight or age is that of no person, or `TM50` or `HILL` is not positive.

    References
    ----------
    .. [1] Anderson BJ, Holford NHG (2008). Mechanism-based concepts of size and maturity in
       pharmacokinetics. Annu Rev Pharmacol Toxicol 48:303-332.
       doi:10.1146/annurev.pharmtox.48.113006.094708

    Examples
    --------
    >>> float(size_and_maturation(70.0, 50.0, TM50=50.0, HILL=3.0))
    0.5
    """
    return allometry(admitted(WT, WEIGHT), exponent) * sigmoid(PMA, TM50, HILL)


def renal_maturation(PMA: Values) -> Values:
    r"""Return the fraction of adult glomerular filtration that has matured.

    .. math:: \frac{PMA^{3.4}}{47.7^{3.4} + PMA^{3.4}}

    Parameters
    ----------
    PMA : Float[Array, "*#s"]
        Post-menstrual age [weeks].

    Raises
    ------
    ValueError
        A post-menstrual age is not from 20 to 7000 weeks.

    References
    ----------
    .. [1] Rhodin MM, Anderson BJ, Peters AM, et al. (2009). Human renal function maturation: a
       quantitative description using weight and postmenstrual age. Pediatr Nephrol 24:67-76.
       doi:10.1007/s00467-008-0997-5

    Examples
    --------
    >>> float(renal_maturation(47.7))
    0.5
    """
    return sigmoid(PMA, *_RHODIN)


def normal_filtration_rate(WT: Values, PMA: Values) -> Values:
    r"""Return the glomerular filtration rate of healthy kidneys [mL/min].

    .. math:: 121.2 \left(\frac{WT}{70}\right)^{3/4} \frac{PMA^{3.4}}{47.7^{3.4} + PMA^{3.4}}

    From the 22nd week to 31 years of age; it knows no decline in later life.

    Parameters
    ----------
    WT : Float[Array, "*#s"]
        Weight [kg].
    PMA : Float[Array, "*#s"]
        Post-menstrual age [weeks].

    Raises
    ------
    ValueError
        A weight or age is that of no person.

    References
    ----------
    .. [1] Rhodin MM, Anderson BJ, Peters AM, et al. (2009). Human renal function maturation: a
       quantitative description using weight and postmenstrual age. Pediatr Nephrol 24:67-76.
       doi:10.1007/s00467-008-0997-5

    Examples
    --------
    >>> round(float(normal_filtration_rate(70.0, 47.7)), 9)
    60.6
    """
    return _RHODIN_MATURE * size_and_maturation(WT, PMA, *_RHODIN)
