"""Options of the commands that train and compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def whole_numbers(text: str) -> tuple[int, ...]:
    """Parse "64,128,192"."""
    return tuple(map(int, text.split(",")))


def parser(**defaults: Any) -> argparse.ArgumentParser:
    """Return a parser of the folder `out` and an option per default, which says its type.

    None: an optional text. A tuple: whole numbers separated by commas.
    """
    made = argparse.ArgumentParser()
    made.add_argument("out", type=Path)
    for name, default in defaults.items():
        kind = {type(None): str, tuple: whole_numbers}.get(type(default), type(default))
        made.add_argument(f"--{name}", type=kind, default=default)
    return made
