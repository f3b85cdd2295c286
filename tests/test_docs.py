"""Documentation that cannot lie: commands are documented and parse, Python examples compile, links lead somewhere."""

import ast
import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import typer

import streamingt2v
from conftest import SLOW_MODULES
from streamingt2v.cli import app, reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "lab" / "docs").glob("*.md")])
PROGRAM = typer.main.get_command(app)


def blocks(language: str, pages: list[Path] = PAGES) -> list:
    """All fenced blocks of a language, each as a test parameter named after its page."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(text, id=f"{page.name}-{i}")
        for page in pages
        for i, text in enumerate(pattern.findall(page.read_text()))
    ]


def command_lines() -> list:
    """Every `streamingt2v ...` line in the shell blocks."""
    lines = [line for block in blocks("sh") for line in block.values[0].splitlines()]
    return sorted({line.partition(" #")[0].strip() for line in lines if line.startswith("streamingt2v ")})


def parse(words: list[str]) -> None:
    """Parse like the command line, without running anything."""
    root = PROGRAM.make_context("streamingt2v", list(words))
    name, command, rest = PROGRAM.resolve_command(root, [*root._protected_args, *root.args])
    command.make_context(name, rest, parent=root)


def test_the_command_reference_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text() == reference.reference(), "run `make docs`"


@pytest.mark.parametrize("name", sorted(PROGRAM.commands))
def test_every_command_and_option_has_help(name):
    command = PROGRAM.commands[name]
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


@pytest.mark.parametrize("name", sorted(PROGRAM.commands))
def test_every_command_is_shown_in_use(name):
    assert any(line.split()[1] == name for line in command_lines())


@pytest.mark.parametrize("line", [line for line in command_lines() if "--help" not in line])
def test_command_lines_in_the_docs_parse(line):
    parse(shlex.split(line)[1:])


def test_a_wrong_command_line_would_be_found():
    with pytest.raises(typer.TyperException, match="No such option"):
        parse(shlex.split("generate 'A cat' --lenght 5 -o out.mp4"))


@pytest.mark.parametrize("text", blocks("python"))
def test_python_examples_compile_and_import_what_exists(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("streamingt2v"):
            module = __import__(node.module, fromlist=["x"])
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def _settings(*configs: type) -> set[str]:
    return {field.name for config in configs for field in dataclasses.fields(config)} - {"out"}


def test_every_setting_of_training_is_explained():
    from lab.tiny import recipes as lab
    from streamingt2v.train import loop, recipes

    for own, page in ((recipes.RECIPES, "docs"), (lab.RECIPES, "lab/docs")):
        text = (ROOT / page / "training.md").read_text()
        names = _settings(
            *(recipe.config for recipe in own.values()), *([loop.LoopConfig] if page == "docs" else [])
        )
        assert {name for name in names if f"`{name}`" not in text} == set(), page


def test_source_files_cite_headings_of_the_method():
    headings = set(re.findall(r"^## (.+)$", (ROOT / "docs" / "method.md").read_text(), re.MULTILINE))
    cited = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "lab").rglob("*.py")]:
        for places in re.findall(r"\(method\.md: ([^;)]+)", path.read_text()):
            cited |= set(places.split(", "))
        assert not re.search(r"\bspec \d", path.read_text()), path
    assert len(cited) > 8 and cited <= headings


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_modules_that_are_marked_slow_exist():
    there = {(path.parent.name, path.stem) for path in (ROOT / "tests").rglob("test_*.py")}
    named = {(folder, module) for folder, modules in SLOW_MODULES.items() for module in modules}
    assert named <= there, named - there


def test_the_readme_shows_the_public_names():
    readme = (ROOT / "README.md").read_text()
    assert "LongVideoPipeline" in readme and "Request" in readme and streamingt2v.LongVideoPipeline
