"""Documentation is right: commands parse, imports exist, settings load, links lead somewhere."""

import ast
import dataclasses
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import streamingt2v
from conftest import SLOW_MODULES
from lab import reference
from streamingt2v.cli import app
from streamingt2v.config.external import SeedConfig
from streamingt2v.config.model import ModelConfig
from streamingt2v.config.refine import RefineByConfig

ROOT = Path(__file__).parents[1]
USERS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
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


def command_lines() -> list[str]:
    """Return every command of the package in shell blocks and in text, without what stands before it."""
    texts = [block.values[0].replace("\\\n", " ") for block in blocks("sh")]
    lines = [re.sub(r"\s+#.*", "", line) for text in texts for line in text.splitlines()]
    lines += [code for page in USERS for code in re.findall(r"`([^`\n]+)`", page.read_text())]
    found = {
        re.sub(r"^.*?(?:-m )?streamingt2v ", "", line)
        for line in lines
        if re.search(r"(?:^|[ =/])streamingt2v [a-z]", line)
    }
    return sorted(line for line in found if "..." not in line and line.partition(" ")[0] in PROGRAM.commands)


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
    assert any(line.split()[0] == name for line in command_lines())


@pytest.mark.parametrize("line", [line for line in command_lines() if " " in line and "--help" not in line])
def test_command_lines_in_the_docs_parse(line):
    parse(shlex.split(line))


@pytest.mark.parametrize("text", blocks("json", USERS))
def test_settings_in_the_docs_load(text):
    values = json.loads(text)
    if "type" in values:  # a message of the API
        return
    if "backbone" in values:
        kinds = [
            lambda **all: ModelConfig(
                **{name: value for name, value in all.items() if name not in ("extend", "svd")}
            )
        ]
    else:
        kinds = [SeedConfig, RefineByConfig]
    accepted = [kind for kind in kinds if _loads(kind, values)]
    assert accepted


def _loads(kind, values: dict) -> bool:
    try:
        kind(**values)
    except TypeError:  # another kind's names
        return False
    return True


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


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = [
        re.sub(r"[^\w\- ]", "", title.lower()) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    ]
    return {title.strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(
        r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE
    )
    for target in targets:
        if target.startswith(REPOSITORY):
            target = target.removeprefix(REPOSITORY + "/").split("/", 2)[2]
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in headings(file), target


def test_the_readme_works_on_a_package_index():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    named = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    assert [link for link in [*links, *named.values()] if not link.startswith("https://")] == []
    used = {
        (label or words).lower()
        for words, label in re.findall(r"\[([^\]\n]+)\](?:\[([^\]]*)\])?(?![(\w])", text)
    }
    assert set(named) <= used and len(text.splitlines()) <= 160


@pytest.mark.parametrize("page", USERS, ids=lambda page: page.name)
def test_users_pages_say_image(page):
    words = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    assert page.name == "cli.md" or re.findall(r"\bpictures?\b", words, re.IGNORECASE) == []


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
    titles = set(re.findall(r"^## (.+)$", (ROOT / "docs" / "method.md").read_text(), re.MULTILINE))
    cited = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "lab").rglob("*.py")]:
        text = " ".join(path.read_text().split())
        for places in re.findall(r"\(method\.md: ([^;)]+)", text):
            cited |= set(places.split(", "))
        assert not re.search(r"\bspec \d", text), path
    assert len(cited) > 8 and cited <= titles


def test_extras_that_are_named_exist():
    from streamingt2v.checkpoints.packages import EXTRAS

    named = set(EXTRAS.values())
    for path in [*PAGES, *(ROOT / "src").rglob("*.py")]:
        text = path.read_text()
        named |= set(re.findall(r"MissingExtra\(.+, \"(\w+)\"\)", text))
        for names in re.findall(r"streamingt2v\[([a-z,]+)\]", text):
            named |= set(names.split(","))
    assert named <= set(PROJECT["optional-dependencies"])


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
