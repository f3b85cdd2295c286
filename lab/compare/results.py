"""Results of a comparison: a growing file of finished items, and what tables are made with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from streamingt2v import durable
from streamingt2v.errors import RunError

Key = tuple[str, str, int, int]
"""(part, method, prompt, seed)"""


@dataclass(frozen=True)
class Item:
    """One measured video. part: of the page. seconds: of making and measuring.

    NaN and infinities are None in the file.
    """

    part: str
    method: str
    prompt: int
    seed: int
    caption: str
    frames: int
    values: dict[str, float | None]
    seconds: float

    @property
    def key(self) -> Key:
        return self.part, self.method, self.prompt, self.seed


def plain(value: float) -> float | None:
    """Convert to JSON values: five significant digits, None for non-finite ones."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


class ItemFile:
    """A folder with `settings.json` and `items.jsonl`; finished items are not made again.

    RunError if it was started with other settings, whose numbers must not be mixed.
    """

    def __init__(self, folder: Path, settings: dict[str, object]):
        self.path = folder / "items.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        _keep(folder / "settings.json", settings)
        self.items, self._size = self._read()

    def _read(self) -> tuple[list[Item], int]:
        """Read all complete lines; a truncated last one is overwritten."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        return [Item(**json.loads(line)) for line in whole.splitlines()], len(whole)

    def __contains__(self, key: Key) -> bool:
        return any(item.key == key for item in self.items)

    def add(self, item: Item) -> None:
        """Add an item durably."""
        line = json.dumps(asdict(item), allow_nan=False).encode() + b"\n"
        durable.append(self.path, self._size, line)
        self._size += len(line)
        self.items.append(item)


def _keep(path: Path, settings: dict[str, object]) -> None:
    """Write settings; RunError if others are stored."""
    begun = json.loads(path.read_text()) if path.exists() else settings
    differ = sorted(name for name in {*begun, *settings} if begun.get(name) != settings.get(name))
    if differ:
        raise RunError(f"{path.parent}: was begun with another {', '.join(differ)}; take another folder")
    if not path.exists():
        durable.write_file(path, (json.dumps(settings, indent=1) + "\n").encode())


def by_method(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Group items by method, in order of first appearance."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.method, []).append(item)
    return groups


Pairs = dict[int, dict[int, float]]
"""prompt -> seed -> value"""


def pairs(items: Iterable[Item], name: str) -> Pairs:
    """Return the finite values of a metric."""
    found: Pairs = {}
    for item in items:
        value = item.values.get(name)
        if value is not None:
            found.setdefault(item.prompt, {})[item.seed] = value
    return found


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save_rows(row_TWC: np.ndarray, path: Path) -> None:
    """Save one row of pixels per frame as a lossless image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable.replacing(path) as part:
        Image.fromarray(row_TWC).save(part, format="PNG")


def load_rows(path: Path) -> np.ndarray:
    """Load what `save_rows` wrote."""
    return np.array(Image.open(path).convert("RGB"))
