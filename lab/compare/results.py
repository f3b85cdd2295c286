"""Results of a comparison: a growing file of finished items, and tables made from it."""

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
from streamingt2v.metrics.suite import VALUES

from .protocol import KINDS
from .statistics import Estimate, bootstrap, paired, share

BINS = 150
"""Number of bins that curves are averaged over for storage."""

SHOWN = ("motion", "sharpness", "colour_distance", "anchor")
"""Curves shown on the page."""


Key = tuple[str, str, int, int]
"""(part, method, prompt, seed)"""


@dataclass(frozen=True)
class Item:
    """One measured video: values, the judge's verdicts on first and last window, curves.

    part: of the comparison's plan. curves: at most `BINS` means each. NaN and infinities are None in the
    file. seconds: of making and measuring.
    """

    part: str
    method: str
    prompt: int
    seed: int
    caption: str
    frames: int
    values: dict[str, float | None]
    first: dict[str, bool]
    last: dict[str, bool]
    curves: dict[str, list[float | None]]
    seconds: float

    @property
    def key(self) -> Key:
        return self.part, self.method, self.prompt, self.seed


def plain(value: float) -> float | None:
    """Convert to JSON values: five significant digits, None for non-finite ones."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def binned(curve: np.ndarray, bins: int = BINS) -> list[float | None]:
    """Return means over (nearly) equal bins; None for a bin without finite values."""
    parts = [part[np.isfinite(part)] for part in np.array_split(curve, min(bins, len(curve)))]
    return [plain(float(part.mean())) if len(part) else None for part in parts]


class ItemFile:
    """A folder with `settings.json` and `items.jsonl`; finished items are not made again.

    RunError if it was started with other settings, whose numbers must not be mixed. later: settings that may
    be added or left out, but not changed.
    """

    def __init__(self, folder: Path, settings: dict[str, object], later: dict[str, object] | None = None):
        self.path, self.settings = folder / "items.jsonl", settings
        folder.mkdir(parents=True, exist_ok=True)
        _keep(folder / "settings.json", settings, exact=True)
        _keep(folder / "later.json", later or {}, exact=False)
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


def _keep(path: Path, settings: dict[str, object], exact: bool) -> None:
    """Add settings to the stored ones; RunError if they differ. exact: also if one is new or missing."""
    begun = json.loads(path.read_text()) if path.exists() else settings if exact else {}
    names = {*begun, *settings} if exact else {*begun} & {*settings}
    differ = sorted(name for name in names if begun.get(name) != settings.get(name))
    if differ:
        raise RunError(f"{path.parent}: was begun with another {', '.join(differ)}; take another folder")
    if not path.exists() or begun != begun | settings:
        durable.write_file(path, (json.dumps(begun | settings, indent=1) + "\n").encode())


def recognition_table(items: Sequence[Item], truth: dict[str, Estimate]) -> str:
    """Return the judge's verdicts as Markdown: a row per method, first and last window; true clips above."""
    head = ["", *(f"{kind}, {part}" for part in ("first chunk", "end") for kind in KINDS), "videos"]
    rows = [
        ["judge, true clips", *(percent(truth[kind]) for kind in KINDS), "", "", "", str(truth["noun"].n)]
    ]
    for method, own in by_method(items).items():
        parts = [
            share(sum(getattr(i, part)[kind] for i in own), len(own))
            for part in ("first", "last")
            for kind in KINDS
        ]
        rows.append([method, *map(percent, parts), str(len(own))])
    return markdown(head, rows)


def metrics_table(items: Sequence[Item]) -> str:
    """Return all metrics as Markdown: a row per metric, a column per method, mean and interval."""
    methods = by_method(items)
    rows = []
    for name in value_names(items):
        estimates = [bootstrap(by_prompt(own, name)) for own in methods.values()]
        rows.append([name, better(name), *(number(estimate, name) for estimate in estimates)])
    return markdown(["", "better", *methods], rows)


def difference_table(items: Sequence[Item], ours: str) -> str:
    """Return paired differences of each method to `ours` with intervals; bold: the interval excludes 0."""
    methods = by_method(items)
    own = methods.pop(ours)
    rows = []
    for name in value_names(items):
        differences = [paired(pairs(own, name), pairs(theirs, name)) for theirs in methods.values()]
        rows.append([name, better(name), *(marked(difference, name) for difference in differences)])
    return markdown(["", "better", *methods], rows)


def losses(items: Sequence[Item], ours: str, reference: str) -> list[str]:
    """List the metrics where other methods are significantly better than `ours`."""
    methods = by_method(items)
    own = methods.pop(ours)
    methods.pop(reference, None)
    found = []
    for name in value_names(items):
        ahead = [
            method
            for method, theirs in methods.items()
            if is_ahead(name, pairs(own, name), pairs(theirs, name))
        ]
        if ahead:
            found.append(f"`{name}`: {', '.join(ahead)}")
    return found


Pairs = dict[int, dict[int, float]]
"""prompt -> seed -> value"""


def is_ahead(name: str, ours: Pairs, theirs: Pairs) -> bool:
    """Return whether theirs is better than ours beyond the interval of the paired difference."""
    side = VALUES[name].better
    if side is None:
        return False
    if isinstance(side, float):
        ours, theirs = (
            {p: {s: abs(v - side) for s, v in row.items()} for p, row in own.items()}
            for own in (ours, theirs)
        )
    difference = paired(ours, theirs)
    return difference.low > 0 if side == "higher" else difference.high < 0


def by_method(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Group items by method, in order of first appearance."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.method, []).append(item)
    return groups


def pairs(items: Iterable[Item], name: str) -> Pairs:
    """Return the finite values of a metric."""
    found: Pairs = {}
    for item in items:
        value = item.values.get(name)
        if value is not None:
            found.setdefault(item.prompt, {})[item.seed] = value
    return found


def by_prompt(items: Iterable[Item], name: str) -> dict[int, list[float]]:
    """Return the finite values of a metric, grouped by prompt."""
    return {prompt: list(row.values()) for prompt, row in pairs(items, name).items()}


def value_names(items: Sequence[Item]) -> list[str]:
    """Return the metrics that some item has, in the suite's order."""
    return [name for name in VALUES if any(item.values.get(name) is not None for item in items)]


def better(name: str) -> str:
    side = VALUES[name].better
    return f"near {side:g}" if isinstance(side, float) else (side or "")


def percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def number(estimate: Estimate, name: str) -> str:
    digits = VALUES[name].digits if VALUES[name].digits else 1
    if not estimate.n:
        return "–"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def marked(difference: Estimate, name: str) -> str:
    sure = difference.n and not difference.low <= 0 <= difference.high
    return f"**{number(difference, name)}**" if sure else number(difference, name)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_curves(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Return the mean of the items' curves at bin centres, NaN elsewhere: (T,) by name."""
    curves = {}
    for name in (name for name in SHOWN if any(name in item.curves for item in items)):
        stacked = np.array([item.curves[name] for item in items if name in item.curves], np.float64)
        known = np.isfinite(stacked)
        curve = np.full(items[0].frames, np.nan)
        middles = [int(part.mean()) for part in np.array_split(np.arange(len(curve)), stacked.shape[1])]
        curve[middles] = np.where(
            known.any(0), np.where(known, stacked, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan
        )
        curves[name] = curve
    return curves


def save_rows(row_TWC: np.ndarray, path: Path) -> None:
    """Save one row of pixels per frame as a lossless image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable.replacing(path) as part:
        Image.fromarray(row_TWC).save(part, format="PNG")


def load_rows(path: Path) -> np.ndarray:
    """Load what `save_rows` wrote."""
    return np.array(Image.open(path).convert("RGB"))
