r"""How well does the liver work? Scores and classes of its function, and their effect on clearance.

Classes are numbers, so that they work within compiled functions: 0 normal, 1 mild (Child-Pugh A), 2
moderate (B), 3 severe (C). Bilirubin and albumin are measured in two systems of units, and each
function demands the unit by name.
"""

import jax.numpy as jnp

from popk.covariates.effects import Range, Values, admitted, among, refuse
from popk.covariates.renal import in_mg_per_dL

_BILIRUBIN = 584.66  # g/mol
_BILIRUBIN_RANGE = Range("bilirubin", 0.01, 100, advice="correct it, or its unit")
_ALBUMIN_RANGE = Range("albumin", 500, 10000, advice="correct it, or its unit")  # 5 to 100 g/L
_TOLERANCE = 1e-6  # relative: a limit that was converted between units is still the limit


def _bilirubin(x: Values, unit: str, allowed: Range = _BILIRUBIN_RANGE) -> Values:
    """Return bilirubin in mg/dL."""
    return in_mg_per_dL(x, allowed, unit, keyword="bilirubin_unit", molar_mass=_BILIRUBIN)


def _albumin(x: Values, unit: str) -> Values:
    """Return albumin in g/L."""
    return in_mg_per_dL(x, _ALBUMIN_RANGE, unit, keyword="albumin_unit", molar_mass=0) / 100


def _up(limit: float) -> float:
    """Return a limit with what the conversion of a unit may add to it."""
    return limit + _TOLERANCE * abs(limit)


def _points(x: Values, low: float, high: float) -> Values:
    """Return 1 below the low limit, 2 from there to the high one, 3 above."""
    low, high = -_up(-low), _up(high)
    above = jnp.where(x > high, 3.0, jnp.nan)  # what is unknown belongs nowhere
    return jnp.where(x < low, 1.0, jnp.where(x <= high, 2.0, above))


def child_pugh_score(
    bilirubin: Values,
    albumin: Values,
    INR: Values,
    ascites: Values,
    encephalopathy: Values,
    *,
    bilirubin_unit: str,
    albumin_unit: str,
    primary_biliary: bool = False,
) -> Values:
    r"""Return the Child-Pugh score, 5 to 15 points.

    ================== =========== ========== ===========
    points             1           2          3
    ================== =========== ========== ===========
    bilirubin [mg/dL]  below 2     2 to 3     above 3
    ... cholangitis    below 4     4 to 10    above 10
    albumin [g/dL]     above 3.5   2.8 to 3.5 below 2.8
    INR                below 1.7   1.7 to 2.3 above 2.3
    ascites            0           1          2, 3
    encephalopathy     0           1, 2       3, 4
    ================== =========== ========== ===========

    The limits of bilirubin hold in every unit: 2 and 3 mg/dL are 34.2 and 51.3 umol/L, which tables
    in umol/L round to 34 and 50 or 51. The INR stands for Pugh's prolongation of the prothrombin time,
    with the limits that are usual for it.

    Parameters
    ----------
    bilirubin : Float[Array, "*#s"]
        Total serum bilirubin [bilirubin_unit].
    albumin : Float[Array, "*#s"]
        Serum albumin [albumin_unit].
    INR : Float[Array, "*#s"]
        International normalized ratio of the prothrombin time.
    ascites : Float[Array, "*#s"]
        0 none, 1 slight, 2 moderate, 3 large.
    encephalopathy : Float[Array, "*#s"]
        West Haven grade, 0 to 4.
    bilirubin_unit : str
        ``"mg/dL"``, ``"umol/L"`` or another mass or amount per volume.
    albumin_unit : str
        ``"g/dL"``, ``"g/L"`` or another mass per volume.
    primary_biliary : bool
        Whether bilirubin has the limits of primary biliary cholangitis, 4 and 10 mg/dL: cholestasis
        raises it long before the liver fails.

    Raises
    ------
    ValueError
        A unit is no concentration, a grade is none, or a level is that of no person.

    References
    ----------
    .. [1] Pugh RNH, Murray-Lyon IM, Dawson JL, et al. (1973). Transection of the oesophagus for
       bleeding oesophageal varices. Br J Surg 60:646-649. doi:10.1002/bjs.1800600817

    Examples
    --------
    >>> float(child_pugh_score(2.5, 3.0, 1.2, 1, 0, bilirubin_unit="mg/dL", albumin_unit="g/dL"))
    8.0
    """
    limits = (4.0, 10.0) if primary_biliary else (2.0, 3.0)
    advice = "code none as 0 and the grades as 1 to"
    ascites = among(ascites, "ascites", (0, 1, 2, 3), f"{advice} 3")
    encephalopathy = among(encephalopathy, "encephalopathy", (0, 1, 2, 3, 4), f"{advice} 4")
    INR = admitted(INR, Range("INR", 0.5, 30))
    return (
        _points(_bilirubin(bilirubin, bilirubin_unit), *limits)
        + _points(-_albumin(albumin, albumin_unit), -35.0, -28.0)
        + _points(INR, 1.7, 2.3)
        + _points(ascites, 1.0, 1.0)
        + _points(encephalopathy, 1.0, 2.0)
    )


def child_pugh_class(score: Values) -> Values:
    r"""Return the class of a Child-Pugh score: 1 for A (5, 6), 2 for B (7 to 9), 3 for C (10 to 15).

    Parameters
    ----------
    score : Float[Array, "*#s"]
        Child-Pugh score, a whole number from 5 to 15.

    Raises
    ------
    ValueError
        It is no such number.

    References
    ----------
    .. [1] Pugh RNH, Murray-Lyon IM, Dawson JL, et al. (1973). Transection of the oesophagus for
       bleeding oesophageal varices. Br J Surg 60:646-649. doi:10.1002/bjs.1800600817

    Examples
    --------
    >>> float(child_pugh_class(8))
    2.0
    """
    advice = "add the points of all five components"
    return _points(among(score, "the Child-Pugh score", tuple(range(5, 16)), advice), 7.0, 9.0)


def nci_odwg_class(
    bilirubin: Values,
    AST: Values,
    *,
    bilirubin_ULN: Values,
    AST_ULN: Values,
    bilirubin_unit: str,
) -> Values:
    r"""Return the class of the NCI's Organ Dysfunction Working Group.

    ===== ======== ======================= ==================
    class          bilirubin over its ULN  AST
    ===== ======== ======================= ==================
    0     normal   up to 1                 up to its ULN
    1     mild     up to 1                 above its ULN
    1     mild     above 1 up to 1.5       any
    2     moderate above 1.5 up to 3       any
    3     severe   above 3                 any
    ===== ======== ======================= ==================

    Parameters
    ----------
    bilirubin : Float[Array, "*#s"]
        Total serum bilirubin [bilirubin_unit].
    AST : Float[Array, "*#s"]
        Aspartate aminotransferase [U/L].
    bilirubin_ULN : Float[Array, "*#s"]
        The laboratory's upper limit of normal of bilirubin [bilirubin_unit].
    AST_ULN : Float[Array, "*#s"]
        The laboratory's upper limit of normal of AST [U/L].
    bilirubin_unit : str
        ``"mg/dL"``, ``"umol/L"`` or another mass or amount per volume.

    Raises
    ------
    ValueError
        The unit is no concentration, a level is that of no person, or a limit that of no laboratory.

    References
    ----------
    .. [1] Elmeliegy M, Yang DZ, Salama E, et al. (2021). Discordance between Child-Pugh and National
       Cancer Institute classifications for hepatic dysfunction: implications on dosing
       recommendations for oncology compounds. J Clin Pharmacol 61:105-115. doi:10.1002/jcph.1702

    Examples
    --------
    >>> limits = {"bilirubin_ULN": 1.2, "AST_ULN": 40.0, "bilirubin_unit": "mg/dL"}
    >>> [float(nci_odwg_class(b, 60.0, **limits)) for b in (1.0, 2.0, 4.0)]
    [1.0, 2.0, 3.0]
    """
    ULN = _bilirubin(bilirubin_ULN, bilirubin_unit, Range("bilirubin_ULN", 0.3, 3))
    ratio = _bilirubin(bilirubin, bilirubin_unit) / ULN
    AST = admitted(AST, Range("AST", 1, 50000, "U/L"))
    elevation = AST / admitted(AST_ULN, Range("AST_ULN", 10, 200, "U/L"))
    low = jnp.where(elevation > _up(1.0), 1.0, 0.0) + 0 * elevation  # what is unknown stays so
    high = jnp.where(ratio <= _up(3.0), 2.0, jnp.where(ratio > _up(3.0), 3.0, jnp.nan))
    worse = jnp.where(ratio <= _up(1.5), 1.0, high) + 0 * elevation
    return jnp.where(ratio <= _up(1.0), low, worse)


def albi_score(
    bilirubin: Values, albumin: Values, *, bilirubin_unit: str, albumin_unit: str
) -> Values:
    r"""Return the albumin-bilirubin score.

    .. math:: 0.66 \log_{10} bilirubin - 0.085\, albumin

    with bilirubin in umol/L and albumin in g/L; the higher, the worse.

    Parameters
    ----------
    bilirubin : Float[Array, "*#s"]
        Total serum bilirubin [bilirubin_unit].
    albumin : Float[Array, "*#s"]
        Serum albumin [albumin_unit].
    bilirubin_unit : str
        ``"mg/dL"``, ``"umol/L"`` or another mass or amount per volume.
    albumin_unit : str
        ``"g/dL"``, ``"g/L"`` or another mass per volume.

    Raises
    ------
    ValueError
        A unit is no concentration, or a level is that of no person.

    References
    ----------
    .. [1] Johnson PJ, Berhane S, Kagebayashi C, et al. (2015). Assessment of liver function in patients
       with hepatocellular carcinoma: a new evidence-based approach - the ALBI grade. J Clin Oncol
       33:550-558. doi:10.1200/JCO.2014.57.9151

    Examples
    --------
    >>> round(float(albi_score(10.0, 40.0, bilirubin_unit="umol/L", albumin_unit="g/L")), 9)
    -2.74
    """
    molar = _bilirubin(bilirubin, bilirubin_unit) * (1e4 / _BILIRUBIN)
    return 0.66 * jnp.log10(molar) - 0.085 * _albumin(albumin, albumin_unit)


def albi_grade(score: Values) -> Values:
    r"""Return the ALBI grade of a score: 1 up to -2.60, 2 up to -1.39, 3 above.

    Parameters
    ----------
    score : Float[Array, "*#s"]
        Albumin-bilirubin score.

    Raises
    ------
    ValueError
        The score is not from -10 to 2, which no patient's leaves.

    References
    ----------
    .. [1] Johnson PJ, Berhane S, Kagebayashi C, et al. (2015). Assessment of liver function in patients
       with hepatocellular carcinoma: a new evidence-based approach - the ALBI grade. J Clin Oncol
       33:550-558. doi:10.1200/JCO.2014.57.9151

    Examples
    --------
    >>> float(albi_grade(-2.74))
    1.0
    """
    score = admitted(score, Range("the ALBI score", -10, 2, advice="compute it by albi_score"))
    above = jnp.where(score > -1.39, 3.0, jnp.nan)
    return jnp.where(score <= -2.60, 1.0, jnp.where(score <= -1.39, 2.0, above))


def by_class(cls: Values, mild: Values, moderate: Values, severe: Values) -> Values:
    r"""Return the factor of a class of hepatic impairment, which worsens in order.

    .. math:: 1 \ge f_1 \ge f_2 \ge f_3 > 0 \quad \text{or} \quad 1 \le f_1 \le f_2 \le f_3

    The first for a clearance, the second for what impairment raises, such as F. Factors out of order
    are refused; where they are sampled, sample each as a fraction of the one before.

    Parameters
    ----------
    cls : Float[Array, "*#s"]
        0 normal, 1 mild or Child-Pugh A, 2 moderate or B, 3 severe or C.
    mild, moderate, severe : Float[Array, "*#s"]
        The factor of each class, positive; that of class 0 is 1.

    Raises
    ------
    ValueError
        A class is none, a factor is not positive, or the factors are out of order.

    Examples
    --------
    >>> by_class(jnp.asarray([0, 1, 2, 3]), 0.8, 0.5, 0.25).tolist()
    [1.0, 0.8, 0.5, 0.25]
    """
    cls = among(cls, "the class", (0, 1, 2, 3), "code normal, mild, moderate, severe as 0, 1, 2, 3")
    mild = admitted(mild, Range("mild", 0, above=True))
    moderate = admitted(moderate, Range("moderate", 0, above=True))
    severe = admitted(severe, Range("severe", 0, above=True))
    falls = (mild <= 1) & (moderate <= mild) & (severe <= moderate)
    rises = (mild >= 1) & (moderate >= mild) & (severe >= moderate)
    ordered = falls | rises
    mild = refuse(
        jnp.broadcast_to(mild, ordered.shape),
        ordered,
        lambda found, at: (
            f"mild is {found}{at}, but from 1 through mild and moderate to severe the factors must all "
            "fall or all rise; put them in order"
        ),
    )
    worse = jnp.where(cls == 3, severe, jnp.where(cls == 2, moderate, mild)) + 0 * mild
    return jnp.where(cls == 0, 1.0 + 0 * mild, jnp.where(cls >= 1, worse, jnp.nan))
