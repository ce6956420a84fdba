"""How does a line of a model read as an equation? From Python's syntax tree to LaTeX.

What cannot be read so is not guessed at: it is refused, and the report shows the source in its place.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any


class UnreadableError(ValueError):
    """An expression that has no short equation."""


_GREEK = {
    "alpha", "beta", "gamma", "eta", "kappa", "lambda", "mu", "nu", "omega", "rho", "sigma", "tau",
    "theta", "zeta",
}  # fmt: skip
_FUNCTIONS = {"exp": r"\exp", "log": r"\ln", "maximum": r"\max", "minimum": r"\min"}
_COMPARED = {
    ast.Lt: "<", ast.Gt: ">", ast.LtE: r"\leq", ast.GtE: r"\geq", ast.Eq: "=", ast.NotEq: r"\neq",
}  # fmt: skip
#: Longer equations are read no more than their source.
LONGEST = 260


def symbol(name: str) -> str:
    r"""Return a name as a symbol.

    Examples
    --------
    >>> symbol("CL_pop"), symbol("omega_V1"), symbol("V_low_apgar")
    ('CL_{\\mathrm{pop}}', '\\omega_{V1}', 'V_{\\mathrm{low~apgar}}')
    """
    first, _, rest = name.partition("_")
    begin = rf"\{first}" if first in _GREEK else first
    if not rest:
        return begin
    index = (
        rest if re.fullmatch(r"[A-Z][A-Z0-9]*", rest) else rf"\mathrm{{{rest.replace('_', '~')}}}"
    )
    return rf"{begin}_{{{index}}}"


class Reading:
    """A model's source, with what its local names stand for.

    Parameters
    ----------
    source : str
        Of the model function.
    others : mapping of str to str
        The names of functions that it calls to sample a typical value, and what each appends to its
        argument to name the site: ``{"_typical": "_pop"}``.
    """

    def __init__(self, source: str, others: Mapping[str, str] | None = None):
        self.others = dict(others or {})
        try:
            tree = ast.parse(textwrap.dedent(source))
        except SyntaxError as error:
            raise UnreadableError("the model's source is no Python") from error
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        if not functions:
            raise UnreadableError("the model's source is no function")
        self.function = functions[-1]
        self.names: dict[str, ast.expr] = {}
        for node in self.function.body:
            if isinstance(node, ast.Assign):
                self._assigned(node)

    def _assigned(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._known(target.id, node.value)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for one, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(one, ast.Name):
                        self._known(one.id, value)

    def _known(self, name: str, value: ast.expr) -> None:
        if name in self.names:  # assigned twice: which one is meant depends on the place
            self.names.pop(name)
        else:
            self.names[name] = value

    def calls(self, name: str) -> list[ast.Call]:
        """Return the calls of a function of popk, whatever it is called through."""
        found = [n for n in ast.walk(self.function) if isinstance(n, ast.Call)]
        return [n for n in found if _called(n) == name]

    def latex(self, node: ast.expr) -> str:
        """Return an expression in LaTeX.

        Raises
        ------
        UnreadableError
            It has no short equation.
        """
        found = self._latex(node, 0)[0]
        if len(found) > LONGEST:
            raise UnreadableError("the equation is too long to be read")
        return found

    def _latex(self, node: ast.expr, depth: int) -> tuple[str, int]:
        """Return LaTeX and how tightly it holds together: 0 a sum, 1 a product, 2 a unit."""
        if depth > 30:
            raise UnreadableError("the model's names go round in a circle")
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return _number(node.value), 2 if node.value >= 0 else 0
        if isinstance(node, ast.Name):
            if node.id in self.names:
                return self._latex(self.names[node.id], depth + 1)
            raise UnreadableError(f"{node.id} is not assigned once in the model")
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return f"-{self._tight(node.operand, 1, depth)}", 0
        if isinstance(node, ast.BinOp):
            return self._operation(node, depth)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
            left, right = (self._latex(n, depth)[0] for n in (node.left, node.comparators[0]))
            return f"{left} {_COMPARED[type(node.ops[0])]} {right}", 0
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        raise UnreadableError(f"{ast.unparse(node)} has no short equation")

    def _tight(self, node: ast.expr, least: int, depth: int) -> str:
        text, holds = self._latex(node, depth)
        return text if holds >= least else rf"\left({text}\right)"

    def _operation(self, node: ast.BinOp, depth: int) -> tuple[str, int]:
        left, right, kind = node.left, node.right, type(node.op)
        if kind is ast.Add:
            return f"{self._latex(left, depth)[0]} + {self._latex(right, depth)[0]}", 0
        if kind is ast.Sub:
            return f"{self._latex(left, depth)[0]} - {self._tight(right, 1, depth)}", 0
        if kind is ast.Mult:
            return rf"{self._tight(left, 1, depth)} \cdot {self._tight(right, 1, depth)}", 1
        if kind is ast.Div:
            return rf"\frac{{{self._latex(left, depth)[0]}}}{{{self._latex(right, depth)[0]}}}", 1
        if kind is ast.Pow:
            # A fraction, too, needs brackets under an exponent.
            return rf"{{{self._tight(left, 2, depth)}}}^{{{self._latex(right, depth)[0]}}}", 1
        raise UnreadableError(f"{ast.unparse(node)} has no short equation")

    def _call(self, node: ast.Call, depth: int) -> tuple[str, int]:
        name, given = _called(node), node.args
        first = given[0] if given else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            if name in ("sample", "deterministic", "covariate"):
                return symbol(first.value), 2
            if name in self.others and len(given) == 1 and not node.keywords:
                return symbol(first.value + self.others[name]), 2
            raise UnreadableError(f"{ast.unparse(node)} is a function of the model's own")
        if name in _FUNCTIONS:
            inner = r",\, ".join(self._latex(a, depth)[0] for a in given)
            return rf"{_FUNCTIONS[name]}\left({inner}\right)", 2
        if name == "sqrt" and len(given) == 1:
            return rf"\sqrt{{{self._latex(given[0], depth)[0]}}}", 2
        if name == "where" and len(given) == 3:
            asked, then, other = (self._latex(a, depth)[0] for a in given)
            text = rf"{then} \;\mathrm{{~if~}}\; {asked},\; \mathrm{{~else~}}\; {other}"
            return rf"\left({text}\right)", 2
        raise UnreadableError(f"{ast.unparse(node)} has no short equation")


def _called(node: ast.Call) -> str:
    of = node.func
    return of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""


def _number(value: float) -> str:
    text = f"{value:.6g}"
    if "e" in text:
        digits, power = text.split("e")
        return rf"{digits} \times 10^{{{int(power)}}}"
    return text


def reading(function: Any, attrs: Mapping[Any, Any]) -> Reading:
    """Return a model's source as it was fitted, or as it is.

    Raises
    ------
    UnreadableError
        It cannot be had or read.
    """
    source = str(attrs.get("model_source", "")) or _source(function)
    beside = getattr(function, "__globals__", {})
    found = {n: _appended(f) for n, f in beside.items() if inspect.isfunction(f)}
    return Reading(source, {n: end for n, end in found.items() if end})


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise UnreadableError("the model's source cannot be had") from error


def _appended(function: Any) -> str:
    """Return "_pop" of a function that is ``return numpyro.sample(f"{name}_pop", ...)``; else ""."""
    try:
        tree = ast.parse(textwrap.dedent(_source(function))).body[0]
    except (UnreadableError, SyntaxError):
        return ""
    body = getattr(tree, "body", [])
    if len(body) != 1 or not isinstance(body[0], ast.Return):
        return ""
    call = body[0].value
    if not (isinstance(call, ast.Call) and _called(call) == "sample" and call.args):
        return ""
    parts = call.args[0].values if isinstance(call.args[0], ast.JoinedStr) else []
    if len(parts) == 2 and isinstance(parts[0], ast.FormattedValue):
        return str(parts[1].value) if isinstance(parts[1], ast.Constant) else ""
    return ""
