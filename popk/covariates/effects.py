r"""How does a covariate change a typical value? Factors by which it is multiplied.

Each function returns the factor of a covariate, 1 at its reference, for any expression of a model:
``CL_pop * power(WT, 0.75, ref=70) * categorical(GENOTYPE, {0: 1.0, 1: poor})``. A factor is positive, so
that a clearance never changes its sign.

What is known and cannot be right raises a ValueError; what only a compiled or differentiated function
knows gives NaN, and tells `popk.reasons` why.

References
----------
.. [1] Jonsson EN, Karlsson MO (1998). Automated covariate model building within NONMEM. Pharm Res
   15:1463-1468. doi:10.1023/A:1011970125687
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from popk.reasons import refusing

Values = Float[Array, "..."] | Any  # numbers, NumPy arrays and what NumPyro samples, too


class Range(NamedTuple):
    """The values that a quantity may have.

    Attributes
    ----------
    name, advice : str
        As an error calls the quantity, and what to do about a value outside.
    low, high : float
        Its limits, in `unit`; an infinite one is no limit, but no value is infinite.
    unit : str
    above : bool
        Whether the lower limit itself is outside.
    """

    name: str
    low: float = -np.inf
    high: float = np.inf
    unit: str = ""
    advice: str = "correct it"
    above: bool = False

    def __str__(self) -> str:
        """Return the range in words."""
        unit = f" {self.unit}" if self.unit else ""
        if np.isinf(self.low):
            return "finite"
        if np.isinf(self.high):
            return f"{'above' if self.above else 'at least'} {self.low:g}{unit} and finite"
        if self.above:
            return f"above {self.low:g} and at most {self.high:g}{unit}"
        return f"from {self.low:g} to {self.high:g}{unit}"


def refuse(x: Values, ok: Any, sentence: Callable[[str, str], str]) -> Values:
    """Return x where it is right, NaN where it is wrong and only known within a compiled function.

    Whoever asks for reasons there, as `popk.predict_at` does, is told the sentence.

    Parameters
    ----------
    x : Float[Array, "*#s"]
    ok : Bool[Array, "*#s"]
        Whether x is right, of its shape.
    sentence : Callable
        ``sentence(found, at)`` says what is wrong with the first value that is, and where.

    Raises
    ------
    ValueError
        A value is known and wrong.
    """
    if isinstance(x, Tracer) or isinstance(ok, Tracer):
        refusing(lambda found: sentence(found, ""), x, ok)
        return x * jnp.where(ok, 1.0, jnp.nan)  # a product, so that gradients are NaN, too
    wrong = np.argwhere(~np.asarray(ok))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        at = f" at index {', '.join(map(str, place))}" if place else ""
        raise ValueError(sentence(f"{np.asarray(x)[place]:g}", at))
    return x


def numbers(x: Values, name: str, *, logical: bool = False) -> Values:
    """Return numbers as floats, in the precision that they have.

    Parameters
    ----------
    x : Float[Array, "..."]
        A number or an array of NumPy or JAX; whole numbers become floats.
    name : str
        As an error calls them.
    logical : bool
        Whether true and false may stand for 1 and 0.

    Raises
    ------
    ValueError
        They are no real numbers.
    """
    known: Any = x if isinstance(x, Tracer) else np.asarray(x)
    kind = known.dtype
    if jnp.issubdtype(kind, jnp.floating):
        return jnp.asarray(x if isinstance(x, float | Array) else known)
    if jnp.issubdtype(kind, jnp.integer) or (logical and kind == jnp.bool_):
        return jnp.asarray(known, dtype=jnp.result_type(float))
    raise ValueError(
        f"{name} has dtype {kind}, but must be real numbers; give a number or a numeric array"
    )


def admitted(x: Values, allowed: Range) -> Values:
    """Return numbers as floats if they are in their range.

    Parameters
    ----------
    x : Float[Array, "..."]
    allowed : Range

    Raises
    ------
    ValueError
        A value is known and outside.
    """
    given = numbers(x, allowed.name)
    # In NumPy where it can be: within a compiled function JAX would make a constant unknown.
    known = given if isinstance(x, Tracer) else np.asarray(x, dtype=float)
    lower = known > allowed.low if allowed.above else known >= allowed.low
    ok = lower & (known <= allowed.high) & (abs(known) < np.inf)
    name, unit = allowed.name, f" {allowed.unit}" if allowed.unit else ""
    checked = refuse(
        known,
        ok,
        lambda found, at: f"{name} is {found}{unit}{at}, but must be {allowed}; {allowed.advice}",
    )
    return checked if isinstance(x, Tracer) else given


def among(x: Values, name: str, allowed: Sequence[float], advice: str) -> Values:
    """Return codes as floats if each is one of those allowed.

    Parameters
    ----------
    x : Float[Array, "..."]
    name, advice : str
        As an error calls them, and what to do about one that is not allowed.
    allowed : sequence of float

    Raises
    ------
    ValueError
        A code is known and not allowed.
    """
    given = numbers(x, name, logical=True)
    known = given if isinstance(x, Tracer) else np.asarray(x, dtype=float)
    codes = np.asarray(allowed, dtype=known.dtype)
    ok = jnp.isin(known, codes) if isinstance(x, Tracer) else np.isin(known, codes)
    listed = ", ".join(f"{code:g}" for code in allowed)
    checked = refuse(
        known, ok, lambda found, at: f"{name} is {found}{at}, but must be one of {listed}; {advice}"
    )
    return checked if isinstance(x, Tracer) else given


# Effects


def _positive(effect: Values, name: str, advice: str) -> Values:
    return admitted(effect, Range(f"the {name} effect", 0, advice=advice, above=True))


def linear(x: Values, slope: Values, ref: Values) -> Values:
    r"""Return a factor that changes in proportion to the covariate's distance from its reference.

    .. math:: 1 + \theta (x - x_{ref})

    Parameters
    ----------
    x : Float[Array, "*#s"]
        Covariate [unit].
    slope : Float[Array, "*#s"]
        Fractional change per unit of the covariate [1/unit].
    ref : Float[Array, "*#s"]
        Reference of the covariate, where the factor is 1 [unit].

    Raises
    ------
    ValueError
        A number is not finite, or a factor is not positive.

    Examples
    --------
    >>> float(linear(60.0, -0.01, ref=40.0))
    0.8
    """
    x, ref = admitted(x, Range("x")), admitted(ref, Range("ref"))
    effect = 1 + admitted(slope, Range("slope")) * (x - ref)
    return _positive(effect, "linear", "choose a smaller slope, or use exponential")


def power(x: Values, exponent: Values, ref: Values) -> Values:
    r"""Return a factor that is a power of the covariate over its reference.

    .. math:: \left(\frac{x}{x_{ref}}\right)^\theta

    Parameters
    ----------
    x : Float[Array, "*#s"]
        Covariate, positive [unit].
    exponent : Float[Array, "*#s"]
        Exponent.
    ref : Float[Array, "*#s"]
        Reference of the covariate, positive, where the factor is 1 [unit].

    Raises
    ------
    ValueError
        `x` or `ref` is not positive, or the factor leaves the range of numbers.

    Examples
    --------
    >>> float(power(4.0, 0.5, ref=1.0))
    2.0
    """
    x = admitted(x, Range("x", 0, advice="correct it, or use exponential", above=True))
    ref = admitted(ref, Range("ref", 0, above=True))
    effect = (x / ref) ** admitted(exponent, Range("exponent"))
    return _positive(effect, "power", "choose an exponent nearer to 0")


def exponential(x: Values, slope: Values, ref: Values) -> Values:
    r"""Return a factor that changes by the same percentage with each unit of the covariate.

    .. math:: e^{\theta (x - x_{ref})}

    Parameters
    ----------
    x : Float[Array, "*#s"]
        Covariate [unit].
    slope : Float[Array, "*#s"]
        Change of the factor's logarithm per unit of the covariate [1/unit].
    ref : Float[Array, "*#s"]
        Reference of the covariate, where the factor is 1 [unit].

    Raises
    ------
    ValueError
        A number is not finite, or the factor leaves the range of numbers.

    Examples
    --------
    >>> float(exponential(40.0, -0.01, ref=40.0))
    1.0
    """
    x, ref = admitted(x, Range("x")), admitted(ref, Range("ref"))
    effect = jnp.exp(admitted(slope, Range("slope")) * (x - ref))
    return _positive(effect, "exponential", "choose a slope nearer to 0")


def emax(x: Values, emax: Values, x50: Values, ref: Values | None = None) -> Values:
    r"""Return a factor that saturates as the covariate grows.

    .. math:: 1 + \frac{E_{max} x}{x_{50} + x}

    and, with a reference, that over its own value at the reference.

    Parameters
    ----------
    x : Float[Array, "*#s"]
        Covariate, not negative [unit].
    emax : Float[Array, "*#s"]
        Greatest fractional change from a covariate of 0, above -1.
    x50 : Float[Array, "*#s"]
        Covariate at half of it, positive [unit].
    ref : Float[Array, "*#s"], optional
        Reference of the covariate, where the factor is 1 [unit]; 0 by default.

    Raises
    ------
    ValueError
        `x` or `ref` is negative, `x50` is not positive, or a factor is not.

    References
    ----------
    .. [1] Holford NHG, Sheiner LB (1981). Understanding the dose-effect relationship: clinical
       application of pharmacokinetic-pharmacodynamic models. Clin Pharmacokinet 6:429-453.
       doi:10.2165/00003088-198106060-00002

    Examples
    --------
    >>> float(emax(2.0, -0.5, x50=2.0))
    0.75
    """
    x50 = admitted(x50, Range("x50", 0, above=True))
    greatest = admitted(emax, Range("emax", -1, advice="choose a smaller decrease", above=True))

    def saturating(value: Values, name: str) -> Values:
        value = admitted(value, Range(name, 0))
        effect = 1 + greatest * value / (x50 + value)
        return _positive(effect, "emax", "choose a smaller decrease")

    return saturating(x, "x") if ref is None else saturating(x, "x") / saturating(ref, "ref")


def piecewise(x: Values, knots: Values, effects: Any) -> Values:
    r"""Return a factor that is given at knots and whose logarithm is linear between them.

    .. math:: \exp\left((1 - t) \log f_i + t \log f_{i + 1}\right),
        \quad t = \frac{x - k_i}{k_{i + 1} - k_i}

    The logarithm is what is linear, so that each piece is an `exponential` and no value of the
    effects makes a factor negative. Beyond the first and last knot nothing is known of the factor,
    and it is refused.

    Parameters
    ----------
    x : Float[Array, "*s"]
        Covariate, from the first knot to the last [unit].
    knots : Float[Array, "knot"]
        At least two values of the covariate, increasing [unit].
    effects : Float[Array, "knot"]
        The factor at each knot, positive: an array, or a list of numbers and sampled values. One of
        them is to be fixed at 1, or the typical value is not identified.

    Raises
    ------
    ValueError
        Knots do not increase, there are not as many effects as knots, an effect is not positive, or a
        covariate lies beyond the knots.

    Examples
    --------
    >>> round(float(piecewise(30.0, [20.0, 40.0, 80.0], [4.0, 1.0, 1.0])), 9)
    2.0
    """
    knots = admitted(knots, Range("knots"))
    if isinstance(effects, list | tuple):
        effects = jnp.stack([numbers(effect, "effects") for effect in effects])
    effects = admitted(effects, Range("effects", 0, above=True))
    if knots.ndim != 1 or len(knots) < 2 or effects.shape != knots.shape:
        raise ValueError(
            f"knots have shape {knots.shape} and effects {effects.shape}, but both must be lists of "
            "one length, at least 2; give one effect for each knot"
        )
    rises = jnp.concatenate([jnp.ones(1, dtype=bool), jnp.diff(knots) > 0])
    knots = refuse(
        knots, rises, lambda found, at: f"knot {found}{at} is not above the last; sort the knots"
    )
    x = admitted(x, Range("x"))
    inside = (x >= knots[0]) & (x <= knots[-1])
    x = refuse(x, inside, lambda found, at: f"x is {found}{at}, beyond the knots; add a knot there")
    inner = jnp.expand_dims(knots[1:-1], tuple(range(x.ndim)))
    piece = (jnp.expand_dims(x, -1) >= inner).sum(axis=-1)
    t = (x - knots[piece]) / (knots[piece + 1] - knots[piece])
    low, high = jnp.log(effects[piece]), jnp.log(effects[piece + 1])
    return jnp.exp((1 - t) * low + t * high)


def categorical(x: Values, effects: Mapping[float, Values]) -> Values:
    r"""Return the factor of the category that a person is in.

    .. math:: f_c \quad \text{where} \quad x = c

    Parameters
    ----------
    x : Float[Array, "*#s"]
        Code of the category.
    effects : mapping of float to Float[Array, "*#s"]
        For each code the factor, positive; 1 for the category of reference.

    Raises
    ------
    ValueError
        A code has no effect, an effect is not positive, or there are no effects.

    Examples
    --------
    >>> categorical(np.array([0, 2]), {0: 1.0, 1: 0.7, 2: 0.25}).tolist()
    [1.0, 0.25]
    """
    if not effects:
        raise ValueError("effects are empty, but each category must have one; give {code: factor}")
    for code in effects:
        admitted(code, Range("a category"))
    x = among(x, "the category", tuple(effects), "give its effect, or correct the record")
    result: Values = jnp.nan
    for code, effect in effects.items():
        allowed = Range(f"the effect of category {code:g}", 0, above=True)
        result = jnp.where(x == code, admitted(effect, allowed), result)
    return result
