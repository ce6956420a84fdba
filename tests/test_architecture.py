"""The house keeps its order: rooms, floors, words, sizes, public names, axes and models."""

import ast
import inspect
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import popk
from popk.model.sites import AXES, describe
from tests.conftest import model_of
from tests.designs import trial_for

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "popk"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
MODELS = sorted((ROOT / "models").glob("*.py"))
NO_ROOMS = ("__init__", "__main__")  # the public surface, and `python -m popk`

MAX_MODULE = 400
MAX_BODY = 40
MAX_POSITIONAL = 6
MAX_MODEL_FILE = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Word(NamedTuple):
    """Something that only some rooms may speak of, and why."""

    pattern: str  # of a dotted name as the code writes it, or as it imports it
    rooms: tuple[str, ...]
    because: str


WORDS = (
    Word(
        r"numpyro\.(sample|deterministic|factor)",
        ("model", "variability"),
        "model states the sites; variability samples the coordinates of `eta` in its place",
    ),
    Word(
        r"(jax\.)?lax\.(scan|while_loop|fori_loop|associative_scan)",
        ("solve", "inference", "structural"),
        "there is one loop over records; samplers loop over their steps, a matrix power over doublings",
    ),
    Word(
        r"(blackjax|nutpie|optax|pymc|numpyro\.infer\.(MCMC|NUTS|HMC|SVI))(\..*)?",
        ("inference",),
        "samplers",
    ),
    Word(
        r"diffrax(\..*)?|(.*\.)?linalg\.expm",
        ("structural",),
        "how drug moves in one interval",
    ),
    Word(r"matplotlib(\..*)?", ("plots", "reports"), "pictures; a report embeds them"),
    Word(r"plotly(\..*)?", ("plots", "reports"), "pictures"),
    Word(
        r"pandas(\..*)?",
        (
            "records",
            "trial",
            "diagnostics",
            "noncompartmental",
            "patients",
            "advice",
            "memory",
            "plots",
            "testing",
            "reports",
            "batches",
            "cli",
        ),
        "tables end at the trial; from floor 7 they are results, and a twin's new records",
    ),
    Word(r"pint(\..*)?", ("units",), "units"),
    Word(r"(h5netcdf|h5py|zarr)(\..*)?", ("runs",), "how a posterior is stored"),
    Word(r"jinja2(\..*)?", ("reports",), "how it is written up"),
    Word(r"typer(\..*)?", ("cli",), "the shell"),
    Word(r"sqlalchemy(\..*)?", ("memory",), "what is remembered of patients"),
)

#: Names that a room does not know: an axis that it is written without.
UNKNOWN_AXES = {
    "structural": ("record", "subject", "draw"),
    "solve": ("subject", "draw"),
    "model": ("draw",),
}

#: The names of files that hold what found no room.
DRAWERS = ("utils", "util", "helpers", "helper", "manager", "base", "common", "misc", "core")


def floors() -> dict[str, int]:
    """Return the floor of each room, as ARCHITECTURE.md gives it."""
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return {
        name: int(floor) for floor, name in re.findall(r"^\| *(\d+) \| `(\w+)/?` \|", page, re.M)
    }


def rooms() -> set[str]:
    """Return the modules and packages directly under popk."""
    files = {path.stem for path in PACKAGE.glob("*.py")} - set(NO_ROOMS)
    return files | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def room_of(path: Path) -> str:
    """Return the room that a file of popk is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def at(path: Path, line: int) -> str:
    """Return a place in the code."""
    return f"{path.relative_to(ROOT)}:{line}"


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every module or name that a file imports, dotted, and the line."""
    parts = ["popk", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = [".".join(parts[: -node.level])] if node.level else []
            module = ".".join([*origin, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def dotted(node: ast.AST) -> str:
    """Return an attribute chain as written, "" where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def functions(path: Path) -> Iterator[Function]:
    """Yield every function of a file, nested ones and methods too."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_length(function: Function) -> int:
    """Return how many lines a function's body takes, its docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def public_functions(path: Path) -> list[Function]:
    """Return the functions of a file's top level whose names do not begin with an underscore."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]


# Rooms and floors


def test_the_rooms_of_the_page_are_those_of_the_package():
    assert set(floors()) == rooms()


def test_the_page_marks_folders():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    marked = set(re.findall(r"^\| *\d+ \| `(\w+)/` \|", page, re.M))
    assert marked == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_every_folder_is_a_package():
    folders = {path.parent for path in FILES}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.parent != PACKAGE or p.stem not in NO_ROOMS],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_room_imports_only_from_lower_floors(path):
    floor, here = floors(), room_of(path)
    wrong = []
    for name, line in imports(path):
        if name.split(".")[0] != "popk":
            continue
        other = [*name.split("."), ""][1]
        if other not in floor:
            wrong.append(f"{at(path, line)} imports {name}, the package root")
        elif other != here and floor[other] >= floor[here]:
            wrong.append(
                f"{at(path, line)}: {here} (floor {floor[here]}) imports {other} ({floor[other]})"
            )
    assert not wrong, "\n".join(wrong)


# Words and axes


def said(path: Path, pattern: str) -> list[str]:
    """Return where a file imports or writes a dotted name."""
    nodes = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Attribute)]
    names = [*imports(path), *((dotted(node), node.lineno) for node in nodes)]
    return [f"{at(path, line)} says {name}" for name, line in names if re.fullmatch(pattern, name)]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.pattern)
def test_a_word_belongs_to_its_rooms(word):
    others = [path for path in FILES if room_of(path) not in (*word.rooms, *NO_ROOMS)]
    wrong = [place for path in others for place in said(path, word.pattern)]
    rule = f"only in {', '.join(word.rooms)}: {word.because}"
    assert not wrong, "\n".join([rule, *wrong])


def test_floors_0_and_1_know_no_jax():
    floor = floors()
    low = [path for path in FILES if floor.get(room_of(path), 99) <= 1]
    assert low
    assert [p for path in low for p in said(path, r"(jax|jaxlib|numpyro|equinox)(\..*)?")] == []


def test_every_room_that_may_say_a_word_exists():
    assert {room for word in WORDS for room in word.rooms} - rooms() == set()


@pytest.mark.parametrize("room", UNKNOWN_AXES)
def test_a_room_is_written_without_the_axes_it_does_not_know(room):
    unknown = "|".join(rf"(?<![a-z]){axis}s?(?![a-z])" for axis in UNKNOWN_AXES[room])
    wrong = []
    for path in [p for p in FILES if room_of(p) == room]:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Name | ast.arg | ast.Attribute):
                name = (
                    getattr(node, "id", "") or getattr(node, "attr", "") or getattr(node, "arg", "")
                )
                wrong += (
                    [f"{at(path, node.lineno)} names {name}"] if re.search(unknown, name) else []
                )
    assert not wrong, "\n".join(wrong)


# Sizes and names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_has_at_most_400_lines(path):
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= MAX_MODULE


def test_a_function_body_has_at_most_40_lines():
    long = [
        f"{at(path, f.lineno)} {f.name} has {body_length(f)} lines"
        for path in FILES
        for f in functions(path)
        if body_length(f) > MAX_BODY
    ]
    assert not long, "\n".join(long)


def test_a_function_has_at_most_6_positional_parameters():
    wrong = []
    for path in FILES:
        for f in functions(path):
            names = [a.arg for a in [*f.args.posonlyargs, *f.args.args]]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > MAX_POSITIONAL:
                wrong.append(
                    f"{at(path, f.lineno)} {f.name} has {count}; put a * before the options"
                )
    assert not wrong, "\n".join(wrong)


def test_no_file_is_a_drawer():
    assert [str(p) for p in FILES if p.stem in DRAWERS or p.parent.name in DRAWERS] == []


def test_the_median_function_is_short(capsys):
    lengths = sorted(body_length(f) for path in FILES for f in functions(path))
    longest = lengths[int(0.9 * len(lengths))]
    with capsys.disabled():  # measured, not enforced
        print(
            f"\npopk: {len(lengths)} functions, median {statistics.median(lengths):g} lines, "
            f"90% up to {longest}"
        )
    assert lengths


# Public names


MODULES = ("covariates", "plots", "systems", "testing")  # public as modules


def test_the_public_names_are_those_of_the_rooms_and_modules():
    assert popk.__all__ == sorted(popk.__all__)
    assert set(popk.__all__) == {*popk._ROOMS, *MODULES}


def test_type_checkers_are_told_the_same_rooms():
    block = next(
        n
        for n in TREES[PACKAGE / "__init__.py"].body
        if isinstance(n, ast.If) and dotted(n.test) == "TYPE_CHECKING"
    )
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {
        **dict.fromkeys(MODULES, "popk"),
        **{name: f"popk.{room}" for name, room in popk._ROOMS.items()},
    }


def test_the_readme_lists_exactly_the_public_names():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `popk\.(\w+)` \|", readme, re.M)
    assert sorted(listed) == popk.__all__


def test_no_public_name_is_that_of_a_room():
    assert set(popk._ROOMS) & rooms() == set()


@pytest.mark.parametrize("name", popk.__all__)
def test_a_public_name_can_be_imported(name):
    assert getattr(popk, name) is not None


@pytest.mark.parametrize("name", popk._ROOMS)
def test_a_public_name_is_described_with_its_parameters(name):
    assert undescribed(getattr(popk, name)) == []


def test_every_plot_is_described_with_its_parameters():
    plots = {name: getattr(popk.plots, name) for name in popk.plots.__all__}
    assert {name: undescribed(plot) for name, plot in plots.items() if undescribed(plot)} == {}


def undescribed(public: object) -> list[str]:
    """Return the parameters that a docstring's sections do not name; itself if there is none."""
    if not public.__doc__:
        return ["no docstring"]
    sections = re.findall(
        r"\n *(?:Parameters|Attributes)\n *-+\n(.*?)(?=\n *\w+\n *---|\Z)", public.__doc__, re.S
    )
    heads = [line.split(" : ")[0] for line in "\n".join(sections).splitlines()]
    return [p for p in parameters(public) if p not in re.findall(r"\w+", " ".join(heads))]


def parameters(public: object) -> list[str]:
    """Return a function's parameters, or a class's public fields; an exception needs none."""
    if not inspect.isclass(public):
        return list(inspect.signature(public).parameters)  # type: ignore[arg-type]
    if issubclass(public, BaseException):
        return []
    fields = getattr(public, "_fields", None) or getattr(public, "__dataclass_fields__", None)
    own = list(fields) if fields else list(inspect.signature(public).parameters)
    return [name for name in own if not name.startswith("_")]


def test_importing_popk_brings_in_nothing_heavy():
    heavy = (
        "pymc",
        "pytensor",
        "numba",
        "nutpie",
        "arviz",
        "matplotlib",
        "blackjax",
        "optax",
        "plotly",
        "pint",
    )
    code = f"import sys, popk; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Models


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_file_is_one_function_of_a_trial_with_its_citation(path):
    text = path.read_text(encoding="utf-8")
    public = public_functions(path)
    assert len(public) == 1
    required = [
        a.arg
        for a in public[0].args.args[: len(public[0].args.args) - len(public[0].args.defaults)]
    ]
    assert required == ["trial"]
    assert not [
        a
        for a, default in zip(public[0].args.kwonlyargs, public[0].args.kw_defaults, strict=True)
        if default is None
    ]
    assert re.search(r"\((1[89]|20)\d\d\)", ast.get_docstring(ast.parse(text)) or ""), (
        "no citation (year)"
    )
    assert len(text.splitlines()) <= MAX_MODEL_FILE


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_no_site_of_a_model_bears_the_name_of_an_axis(path):
    trial = trial_for(path.stem)
    sites = describe(model_of(path.stem), trial)
    assert set(sites.all) & set(AXES) == set()
    # An axis of which there are several is named for whose it is: candidate_CL. One of a covariate's
    # categories bears the covariate's name.
    known = {*AXES, *trial.host.covariates}
    assert {axis.split("_")[0] for site in sites.all.values() for axis in site.dims} <= known


# Files


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="which files are the project's is known to git alone",
)
def test_no_file_names_a_machine():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    machine = re.compile(
        "|".join(
            [
                r"(?<![\w.:/])/(root|home|work|Users|mnt)/\w",  # somebody's own paths
                r"[A-Z]:\\Users",
                r"https?://[\w.-]*(pypi|pythonhosted|npmjs|anaconda|artifactory|mirror|registry)",
                r"https?://([\w-]+(:\d+)?(/|$)|\d+\.\d+\.\d+\.\d+)",  # a machine's name or number
                r"(--|extra-)index-url",
                r"\[\[tool\.uv\.index\]\]",
            ]
        )
    )
    found = []
    for name in [
        n for n in listed if n and n != "tests/test_architecture.py" and (ROOT / n).is_file()
    ]:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{text.count(chr(10), 0, hit.start()) + 1} {hit.group()}"
            for hit in machine.finditer(text)
        ]
    assert not found, "\n".join(found)
