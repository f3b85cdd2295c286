"""Imports point inward only, and no module is in a circle: read from the source, function bodies included."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "streamingt2v"
LAYERS = (  # innermost first
    {"types", "errors", "durable", "texts"},
    {"samplers", "models"},
    {"config"},
    {"video", "ray_backend"},
    {"backbones"},
    {"checkpoints"},
    {"external"},
    {"resolved", "resolve", "stages"},
    {"given"},
    {"trip", "pipeline", "estimate"},
    {"runs"},
    {"convert", "metrics", "train", "jobs", "client"},
    {"api"},
    {"web"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
DOORS = {
    "__init__",
    "__main__",
}  # they lead in from outside: the one to every public name, the other to the command
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imported_modules(name: str, source: str, modules: set[str]) -> set[str]:
    """Return names, within the package, of modules that `name` imports anywhere; "" is the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("streamingt2v").lstrip(".")
                for alias in node.names
                if _is_ours(alias.name)
            }
        elif isinstance(node, ast.ImportFrom):
            base = _base(name, node)
            for alias in node.names if base is not None else ():
                deeper = f"{base}.{alias.name}".lstrip(".")
                found.add(deeper if deeper in modules or f"{deeper}.__init__" in modules else base)
    return found


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == "streamingt2v"


def _base(name: str, node: ast.ImportFrom) -> str | None:
    """The module that `from ... import` names, within the package; None if it is another's."""
    if node.level == 0:
        return (
            (node.module or "").removeprefix("streamingt2v").lstrip(".")
            if _is_ours(node.module or "")
            else None
        )
    parents = name.split(".")[: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Each module and what it imports."""
    return {name: imported_modules(name, path.read_text(), set(MODULES)) for name, path in MODULES.items()}


def wrong_arrows(graph: dict[str, set[str]]) -> list[str]:
    """Imports against the order, as "importer -> imported"."""
    wrong = []
    for name, imports in graph.items():
        for other in imports:
            ours, theirs = name.split(".")[0], other.split(".")[0]
            if ours in DOORS or ours == theirs or not theirs:
                continue
            if RANK[theirs] > RANK[ours] or theirs in LAYERS[-1]:
                wrong.append(f"{name} -> {other}")
    return wrong


def test_every_module_has_a_layer():
    assert {name.split(".")[0] for name in MODULES} - DOORS <= set(RANK)


def test_imports_point_inward(graph):
    assert wrong_arrows(graph) == []


def test_the_package_itself_gives_inner_modules_its_version_only():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and _base(name, node) == "":
                modules = {alias.name for alias in node.names if alias.name in RANK}
                assert {alias.name for alias in node.names} - modules <= {"__version__"}, name


def test_no_module_is_in_a_circle(graph):
    # a package's own __init__ and the two doors are set aside: they may list what is below them
    below = {
        name: {o for o in imports if o and o != name}
        for name, imports in graph.items()
        if not name.endswith("__init__")
    }
    TopologicalSorter(below).prepare()  # CycleError names the circle


LABORATORY = re.compile(r"(?:^|[^\w./-])lab\.(?:world|tiny|compare|benchmarks)\b|^lab$|(?:from|import) lab\b")


def named_laboratory(source: str) -> list[str]:
    """Return imports of `lab` and strings that name its modules, except commands to type."""
    tree, found = ast.parse(source), []
    documentation = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "lab"]
        elif (
            isinstance(node, ast.ImportFrom)
            and node.level == 0
            and (node.module or "").split(".")[0] == "lab"
        ):
            found.append(str(node.module))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            found += LABORATORY.findall(node.value)
    return found


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def test_the_product_does_without_the_laboratory():
    assert {
        name: found for name, path in MODULES.items() if (found := named_laboratory(path.read_text()))
    } == {}


@pytest.mark.parametrize(
    "source",
    ["import lab.world", "from lab import tiny", "def f():\n    import_module('lab.tiny.recipes')",
     "run([python, '-m', 'lab.tiny'])", "exec('from lab import world')", "__import__('lab')"],
)  # fmt: skip
def test_a_way_into_the_laboratory_is_found(source):
    assert named_laboratory(source)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("models.cam", "from ..pipeline import LongVideoPipeline", ["models.cam -> pipeline"]),
        ("runs.run", "def f():\n    import streamingt2v.cli.video", ["runs.run -> cli.video"]),
        ("api.app", "from ..cli import main", ["api.app -> cli"]),
        ("stages.seed", "from streamingt2v import pipeline", ["stages.seed -> pipeline"]),
        ("pipeline", "from .stages.seed import first\nfrom .video import reader\nimport torch", []),
    ],
)
def test_a_wrong_arrow_is_found(name, source, expected):
    assert wrong_arrows({name: imported_modules(name, source, set(MODULES) | {"stages.seed"})}) == expected
