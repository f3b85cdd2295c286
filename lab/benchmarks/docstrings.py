"""Count docstrings that open with a relative clause ("What is kept of ...") instead of a description.

    python lab/benchmarks/docstrings.py [FOLDER ...]      # default: src lab tests

Prints FILE:LINE and the first words of each, then their number.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

OPENERS = frozenset("what how whether who whom whose where which when why of as that those".split())


def relative_openings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, first line) of such docstrings in a file, including those after assignments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if (
                not isinstance(child, ast.Expr)
                or not isinstance(child.value, ast.Constant)
                or not isinstance(child.value.value, str)
            ):
                continue
            first = child.value.value.strip().splitlines()[0] if child.value.value.strip() else ""
            if first.split(" ")[0].strip(",.:;").lower() in OPENERS:
                yield child.lineno, first


def main(folders: list[str]) -> None:
    """Print the findings in these folders."""
    count = 0
    for folder in folders or ["src", "lab", "tests"]:
        for path in sorted(Path(folder).rglob("*.py")):
            for line, first in relative_openings(path):
                count += 1
                print(f"{path}:{line}: {first[:90]}")
    print(f"{count} docstrings open with a relative clause")


if __name__ == "__main__":
    main(sys.argv[1:])
