"""The page of differences: every point of the published list once, and every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "differences.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_point_is_answered_once():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 32))


@pytest.mark.parametrize(
    ("number", "here", "held_by"), [(number, here, held) for number, _, here, held in ROWS]
)
def test_an_answer_names_a_test_or_says_that_it_is_open(number, here, held_by):
    assert NAMED.search(held_by) or here == "Open" or held_by == "no test", number


@pytest.mark.parametrize("page", ["differences.md", "checkpoints.md"])
def test_the_named_tests_exist(page):
    named = NAMED.findall((ROOT / "docs" / page).read_text())
    assert len(named) > 4
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or (name and name not in names_in(ROOT / file))
    ]
    assert missing == []
