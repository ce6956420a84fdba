r"""How well do the kidneys filter? Creatinine clearance and glomerular filtration rate.

Serum creatinine is measured in mg/dL and in umol/L, two numbers 88.4 apart that an equation cannot
tell from each other. So each function demands the unit by name. Estimates per 1.73 m^2 of body surface
must not meet an absolute clearance before `deindexed` has made them absolute.
"""

import jax.numpy as jnp

from popk.covariates.effects import Range, Values, admitted
from popk.covariates.size import WEIGHT, by_sex, centimeters
from popk.units import UnitError, factor

_CREATININE = 113.12  # g/mol
_SURFACE = 1.73  # m^2, to which filtration rates are indexed
_ADULT = Range("age", 18, 130, "years", "for children use schwartz_2009")


def in_mg_per_dL(  # noqa: N802
    x: Values, allowed: Range, unit: str, *, keyword: str, molar_mass: float
) -> Values:
    """Return a serum concentration in mg/dL.

    Parameters
    ----------
    x : Float[Array, "*#s"]
        Concentration [unit].
    allowed : Range
        Its range, in mg/dL.
    unit : str
        A mass or an amount of substance per volume.
    keyword : str
        The argument that gives the unit, as an error calls it.
    molar_mass : float
        Of the substance [g/mol]; 0 where no molar concentration of it is in use.

    Raises
    ------
    ValueError
        The unit is no such concentration, or a concentration is out of its range.
    """
    scales = {"mg/dL": 1.0} | ({"umol/L": molar_mass / 1e4} if molar_mass else {})
    for known, scale in scales.items():
        try:
            own = factor(str(unit), known) * scale
        except UnitError:
            continue
        limits = allowed._replace(low=allowed.low / own, high=allowed.high / own, unit=unit)
        return admitted(x, limits) * own
    units = "'mg/dL' or 'umol/L'" if molar_mass else "'g/dL' or 'g/L'"
    raise ValueError(
        f"{keyword} is {unit!r}, but must be a unit of {allowed.name} in serum; "
        f"write {units}, whichever the values are in"
    )


def _creatinine(x: Values, unit: str) -> Values:
    allowed = Range("creatinine", 0.05, 100, advice="correct it, or its unit")
    return in_mg_per_dL(x, allowed, unit, keyword="unit", molar_mass=_CREATININE)


def cockcroft_gault(
    age: Values, WT: Values, creatinine: Values, *, male: Values, unit: str
) -> Values:
    r"""Return an adult's creatinine clearance by Cockcroft and Gault [mL/min].

    .. math:: CL_{CR} = \frac{(140 - age)\, WT}{72\, S_{CR}} \cdot
        \begin{cases} 1 & \text{(men)} \\ 0.85 & \text{(women)} \end{cases}

    with serum creatinine in mg/dL. It is absolute, not indexed to body surface.

    Parameters
    ----------
    age : Float[Array, "*#s"]
        Age, at least 18 and up to 130 [years].
    WT : Float[Array, "*#s"]
        Weight: total, ideal or lean, as the source of the model has it [kg].
    creatinine : Float[Array, "*#s"]
        Serum creatinine [unit].
    male : Float[Array, "*#s"]
        1 for men, 0 for women.
    unit : str
        Unit of serum creatinine: ``"mg/dL"``, ``"umol/L"`` or another mass or amount per volume.

    Raises
    ------
    ValueError
        The unit is no concentration, sex is neither 1 nor 0, or a number is that of no adult.

    References
    ----------
    .. [1] Cockcroft DW, Gault MH (1976). Prediction of creatinine clearance from serum creatinine.
       Nephron 16:31-41. doi:10.1159/000180580

    Examples
    --------
    >>> float(cockcroft_gault(40.0, 72.0, 1.0, male=1, unit="mg/dL"))
    100.0
    """
    creatinine, age = _creatinine(creatinine, unit), admitted(age, _ADULT)
    # The equation ends at 140 years and the range of ages before it: the clearance stays positive.
    return by_sex(male, 1.0, 0.85) * (140 - age) * admitted(WT, WEIGHT) / (72 * creatinine)


def ckd_epi_2021(age: Values, creatinine: Values, *, male: Values, unit: str) -> Values:
    r"""Return an adult's glomerular filtration rate by CKD-EPI of 2021 [mL/min/1.73 m^2].

    .. math:: GFR = 142 \min\left(\frac{S_{CR}}{\kappa}, 1\right)^\alpha
        \max\left(\frac{S_{CR}}{\kappa}, 1\right)^{-1.2} 0.9938^{age} \cdot
        \begin{cases} 1 & \text{(men)} \\ 1.012 & \text{(women)} \end{cases}

    with serum creatinine in mg/dL, :math:`\kappa` 0.9 in men and 0.7 in women, and :math:`\alpha`
    -0.302 and -0.241. It knows no race.

    Parameters
    ----------
    age : Float[Array, "*#s"]
        Age, at least 18 and up to 130 [years].
    creatinine : Float[Array, "*#s"]
        Serum creatinine [unit].
    male : Float[Array, "*#s"]
        1 for men, 0 for women.
    unit : str
        Unit of serum creatinine: ``"mg/dL"``, ``"umol/L"`` or another mass or amount per volume.

    Raises
    ------
    ValueError
        The unit is no concentration, sex is neither 1 nor 0, or a number is that of no adult.

    References
    ----------
    .. [1] Inker LA, Eneanya ND, Coresh J, et al. (2021). New creatinine- and cystatin C-based
       equations to estimate GFR without race. N Engl J Med 385:1737-1749.
       doi:10.1056/NEJMoa2102953

    Examples
    --------
    >>> round(float(ckd_epi_2021(50.0, 0.9, male=1, unit="mg/dL")), 1)
    104.0
    """
    age, ratio = admitted(age, _ADULT), _creatinine(creatinine, unit) / by_sex(male, 0.9, 0.7)
    exponent = jnp.where(ratio <= 1, by_sex(male, -0.302, -0.241), -1.2)
    return 142 * ratio**exponent * 0.9938**age * by_sex(male, 1.0, 1.012)


def schwartz_2009(HT: Values, creatinine: Values, *, unit: str, height_unit: str = "cm") -> Values:
    r"""Return a child's glomerular filtration rate by Schwartz at the bedside [mL/min/1.73 m^2].

    .. math:: GFR = 0.413\, \frac{HT}{S_{CR}}

    with height in cm and serum creatinine in mg/dL. It was derived in children of 1 to 16 years with
    chronic kidney disease and creatinine by an enzymatic assay.

    Parameters
    ----------
    HT : Float[Array, "*#s"]
        Height [height_unit].
    creatinine : Float[Array, "*#s"]
        Serum creatinine [unit].
    unit : str
        Unit of serum creatinine: ``"mg/dL"``, ``"umol/L"`` or another mass or amount per volume.
    height_unit : str
        A unit of length.

    Raises
    ------
    ValueError
        A unit is no concentration or no length, or a number is that of no person.

    References
    ----------
    .. [1] Schwartz GJ, Munoz A, Schneider MF, et al. (2009). New equations to estimate GFR in children
       with CKD. J Am Soc Nephrol 20:629-637. doi:10.1681/ASN.2008030287

    Examples
    --------
    >>> round(float(schwartz_2009(100.0, 0.5, unit="mg/dL")), 9)
    82.6
    """
    return 0.413 * centimeters(HT, height_unit) / _creatinine(creatinine, unit)


def deindexed(GFR: Values, BSA: Values) -> Values:
    r"""Return the glomerular filtration rate of a person's own body surface [mL/min].

    .. math:: GFR \cdot \frac{BSA}{1.73}

    Parameters
    ----------
    GFR : Float[Array, "*#s"]
        Glomerular filtration rate, indexed [mL/min/1.73 m^2].
    BSA : Float[Array, "*#s"]
        Body surface area, as by `popk.covariates.size.body_surface_area` [m^2].

    Raises
    ------
    ValueError
        A filtration rate is not positive, or a body surface that of no person.

    References
    ----------
    .. [1] Inker LA, Eneanya ND, Coresh J, et al. (2021). New creatinine- and cystatin C-based
       equations to estimate GFR without race. N Engl J Med 385:1737-1749.
       doi:10.1056/NEJMoa2102953

    Examples
    --------
    >>> float(deindexed(60.0, 3.46))
    120.0
    """
    GFR = admitted(GFR, Range("GFR", 0, unit="mL/min/1.73 m^2", above=True))
    advice = "correct it, or convert it to m^2"
    return GFR * admitted(BSA, Range("BSA", 0.05, 5, "m^2", advice)) / _SURFACE
