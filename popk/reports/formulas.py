r"""How does an equation stand in a page? From a part of LaTeX to MathML, or to a picture.

The part: letters, numbers, operators, ``\frac{}{}``, ``\sqrt{}``, ``\mathrm{}``, ``_{}``, ``^{}``, Greek
letters, named functions, and ``\left( \right)``. MathML needs no fonts and no program beside a page;
where a format has none, Matplotlib draws the same text.

References
----------
.. [1] W3C (2025). MathML Core.
"""

import io
import re

from markupsafe import Markup, escape
from matplotlib import mathtext
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from popk.plots.picture import INK

_SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "epsilon": "ε", "varepsilon": "ε", "eta": "η",
    "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "omega": "ω", "Omega": "Ω", "pi": "π",
    "rho": "ρ", "sigma": "σ", "Sigma": "Σ", "tau": "τ", "theta": "θ", "zeta": "ζ", "Gamma": "Γ",
    "infty": "∞",
}  # fmt: skip
_OPERATORS = {
    "cdot": "⋅", "times": "×", "sim": "∼", "leq": "≤", "geq": "≥", "neq": "≠", "to": "→", "pm": "±",
    "wedge": "∧", "vee": "∨", "in": "∈", "lfloor": "⌊", "rfloor": "⌋",
}  # fmt: skip
_NAMED = ("exp", "ln", "log", "max", "min", "sin", "cos", "tanh", "Pr")
_SPACES = {",": "0.17em", ";": "0.28em", "quad": "1em", " ": "0.3em"}
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[0-9]+(?:\.[0-9]+)?|\s+|.")


class FormulaError(ValueError):
    """A formula outside the part of LaTeX that is read here."""


def mathml(latex: str) -> Markup:
    r"""Return a formula as MathML.

    Raises
    ------
    FormulaError
        It has something that is not read here.

    Examples
    --------
    >>> mathml(r"\frac{CL}{V}")
    Markup('<math display="block"><mfrac><mi class="name">CL</mi><mi>V</mi></mfrac></math>')
    """
    body, rest = _row(_TOKEN.findall(latex), latex)
    if rest:
        raise FormulaError(f"the formula {latex!r} closes a brace too many")
    return Markup('<math display="block">{}</math>').format(Markup("").join(body))


def _row(tokens: list[str], whole: str) -> tuple[list[Markup], list[str]]:
    """Return what stands before the closing brace, and what stands behind it."""
    found: list[Markup] = []
    while tokens:
        if tokens[0] == "}":
            return found, tokens
        if tokens[0].isspace():
            tokens = tokens[1:]
            continue
        if tokens[0] in "_^":
            if not found:
                raise FormulaError(f"the formula {whole!r} has an index of nothing")
            script, rest = _one(tokens[1:], whole)
            other = None
            if rest and rest[0] in "_^" and rest[0] != tokens[0]:
                other, rest = _one(rest[1:], whole)
            found[-1] = _scripted(tokens[0], found[-1], script, other)
            tokens = rest
            continue
        one, tokens = _one(tokens, whole)
        found.append(one)
    return found, tokens


def _scripted(kind: str, of: Markup, script: Markup, other: Markup | None) -> Markup:
    if other is not None:
        below, above = (script, other) if kind == "_" else (other, script)
        return Markup("<msubsup>{}{}{}</msubsup>").format(of, below, above)
    tag = "msub" if kind == "_" else "msup"
    return Markup(f"<{tag}>{{}}{{}}</{tag}>").format(of, script)


def _one(tokens: list[str], whole: str) -> tuple[Markup, list[str]]:
    """Return one element and the tokens behind it."""
    if not tokens:
        raise FormulaError(f"the formula {whole!r} ends where something should follow")
    token, rest = tokens[0], tokens[1:]
    if token.isspace():
        return _one(rest, whole)
    if token == "{":
        inner, rest = _row(rest, whole)
        return _closed(inner, rest, whole)
    if token[0] == "\\":
        return _command(token[1:], rest, whole)
    if token[0].isdigit():
        return Markup("<mn>{}</mn>").format(token), rest
    if token.isalpha() or token == "'":
        letters = token
        while rest and letters[0].isupper() and re.fullmatch("[A-Z0-9]+", rest[0]):
            letters, rest = letters + rest[0], rest[1:]
        several = Markup(' class="name"') if len(letters) > 1 else ""
        return Markup("<mi{}>{}</mi>").format(several, letters), rest
    return Markup("<mo>{}</mo>").format("−" if token == "-" else token), rest


def _closed(inner: list[Markup], rest: list[str], whole: str) -> tuple[Markup, list[str]]:
    if not rest:
        raise FormulaError(f"the formula {whole!r} leaves a brace open")
    body = inner[0] if len(inner) == 1 else Markup("<mrow>{}</mrow>").format(Markup("").join(inner))
    return body, rest[1:]


def _command(name: str, rest: list[str], whole: str) -> tuple[Markup, list[str]]:
    if name == "frac":
        above, rest = _one(rest, whole)
        below, rest = _one(rest, whole)
        return Markup("<mfrac>{}{}</mfrac>").format(above, below), rest
    if name == "sqrt":
        inner, rest = _one(rest, whole)
        return Markup("<msqrt>{}</msqrt>").format(inner), rest
    if name == "mathrm":
        end = rest.index("}")
        text = "".join(t[-1] if t[0] == "\\" else t for t in rest[1:end]).replace("~", "\u00a0")
        return Markup('<mi mathvariant="normal">{}</mi>').format(text), rest[end + 1 :]
    if name in ("left", "right"):
        return Markup("<mo>{}</mo>").format(rest[0]), rest[1:]
    if name in _SYMBOLS:
        return Markup("<mi>{}</mi>").format(_SYMBOLS[name]), rest
    if name in _OPERATORS:
        return Markup("<mo>{}</mo>").format(_OPERATORS[name]), rest
    if name in _NAMED:
        return Markup("<mi>{}</mi>").format(name), rest
    if name in _SPACES:
        return Markup('<mspace width="{}"/>').format(_SPACES[name]), rest
    if name in "_{}%":
        return Markup("<mi>{}</mi>").format(name), rest
    raise FormulaError(f"the formula {whole!r} has \\{name}, which is not read here")


def drawn(latex: str, size: float = 11.0) -> Figure:
    """Return a formula as a figure of its own size.

    Parameters
    ----------
    latex : str
    size : float
        Of letters [point].
    """
    names = r"\\mathrm\{[^}]*\}|\\[a-zA-Z]+|([A-Za-z][A-Za-z0-9]+)"
    # A name of several letters would be set like a product.
    spaced = re.sub(names, lambda m: rf"\mathit{{{m[1]}}}" if m[1] else m[0], latex)
    shown = f"${spaced.replace('~', r'\ ').replace(r'\frac', r'\dfrac')}$"
    # Matplotlib's own sizes of the box, at 72 points an inch, so that none of it is cut off.
    box = mathtext.MathTextParser("path").parse(shown, dpi=72, prop=FontProperties(size=size))
    width, height, depth = box.width, box.height, box.depth
    figure = Figure(figsize=((width + 4) / 72, (height + depth + 6) / 72))
    place = (2 / (width + 4), (depth + 3) / (height + depth + 6))
    figure.text(*place, shown, fontsize=size, color=INK, va="baseline")
    return figure


def text_of(latex: str) -> str:
    """Return a formula for those who cannot see it: its LaTeX without the braces' bookkeeping."""
    return escape(re.sub(r"\\(?:left|right|mathrm|,|;|quad)", "", latex).replace("\\", ""))


def png(latex: str, dpi: int = 220) -> io.BytesIO:
    """Return a formula as a PNG picture."""
    buffer = io.BytesIO()
    drawn(latex).savefig(buffer, format="png", dpi=dpi)
    buffer.seek(0)
    return buffer
