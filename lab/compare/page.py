"""The comparison's page: claims and whether they hold, tables, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamingt2v import durable
from streamingt2v.metrics.chart import Track, draw_curves, draw_slices
from streamingt2v.metrics.seams import Grid

from .bars import bars, shipped
from .comparison import COMPARED, FIRST, FULL, LONG, OURS, TRUTH, picture
from .results import (
    Item,
    ItemFile,
    by_method,
    difference_table,
    load_rows,
    losses,
    markdown,
    mean_curves,
    metrics_table,
    recognition_table,
)
from .sheet import draw_sheet, frame_of
from .statistics import Estimate


@dataclass(frozen=True)
class Telling:
    """Text of a page. truth: the judge's accuracy. nouns: number of nouns in the first part's prompts.

    missing: what was omitted and why. grid: first frames of chunks. command: makes the items. title, about:
    of the page.
    """

    truth: dict[str, Estimate]
    nouns: int
    missing: dict[str, str]
    grid: Grid | None
    command: str
    title: str = "Results"
    about: str = ""


def write_page(page: Path, file: ItemFile, telling: Telling) -> None:
    """Write the page and, for `results.md`, `images/results-*.png` beside it."""
    images = Images(page)
    parts = {
        part: [item for item in file.items if item.part == part] for part in (FIRST, COMPARED, LONG, FULL)
    }
    sections = [*_head(file, telling), *_recognised(parts, telling.truth)]
    sections += _compared(parts[COMPARED], file.path.parent, images, telling) if parts[COMPARED] else []
    sections += _long(parts[LONG], file.path.parent, images) if parts[LONG] else []
    sections += _full(parts[FULL], file.path.parent, images) if parts[FULL] else []
    sections += _first(parts[FIRST], file.path.parent, images) if parts[FIRST] else []
    durable.write_file(page, "\n\n".join(sections).encode() + b"\n")


def _head(file: ItemFile, telling: Telling) -> list[str]:
    said = "; ".join(f"{name}: {value}" for name, value in file.settings.items())
    found = bars(file.items, telling.truth, telling.nouns)
    left_out = [f"- {name}: {why}" for name, why in telling.missing.items()]
    return [
        f"# {telling.title}",
        *([telling.about] if telling.about else []),
        f"Written by `{telling.command}`. [evaluation.md](evaluation.md) explains the numbers. "
        "Intervals are of 95 %.",
        f"{len(file.items)} videos took {sum(item.seconds for item in file.items) / 3600:.1f} process hours.",
        f"Settings: {said}.",
        *(["Not compared:\n\n" + "\n".join(left_out)] if left_out else []),
        "## What is meant to hold",
        f"{sum(bar.holds is True for bar in found)} of {len(found)} hold.",
        markdown(["", "measured", ""], [bar.row for bar in found]),
    ]


class Images:
    """The images of a page, named after it."""

    def __init__(self, page: Path):
        self.folder, self.stem = page.parent / "images", page.stem
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return the image's path."""
        return self.folder / f"{self.stem}-{name}.png"

    def shown(self, title: str, name: str) -> str:
        """Return the Markdown line that shows the image."""
        return f"![{title}](images/{self.stem}-{name}.png)"


def _recognised(parts: dict[str, list[Item]], truth: dict[str, Estimate]) -> list[str]:
    titles = {FIRST: "First chunks of many prompts", COMPARED: "All methods", LONG: "Long videos"}
    tables = [f"{titles[part]}:\n\n{recognition_table(parts[part], truth)}" for part in titles if parts[part]]
    return ["## What a judge sees", *tables] if tables else []


def _compared(items: list[Item], folder: Path, images: Images, telling: Telling) -> list[str]:
    first = [item for item in items if (item.prompt, item.seed) == (items[0].prompt, items[0].seed)]
    draw_slices([_slice(item, folder, telling.grid) for item in first], images.path("slices"))
    lost = losses(items, OURS, TRUTH)
    return [
        f"## All methods, {items[0].frames} frames",
        metrics_table(items),
        f"### Differences to {OURS}",
        "On the same prompts and seeds; bold where the interval leaves out 0.",
        difference_table(items, OURS),
        "### What is not won",
        "\n".join(f"- {line}" for line in lost) or "No method is surely better by any of these numbers.",
        "### Slices through time",
        f"The middle row of every frame, marks where chunks begin. The prompt: {items[0].caption}.",
        images.shown("Slices", "slices"),
    ]


def _slice(item: Item, folder: Path, grid: Grid | None) -> Track:
    row_TWC = load_rows(picture(folder, "rows", item.key))
    chunked = item.values.get("seam") is not None and item.method != TRUTH
    return Track(item.method, row_TWC=row_TWC, borders=grid.borders(len(row_TWC)) if grid and chunked else ())


def _long(items: list[Item], folder: Path, images: Images) -> list[str]:
    draw_curves(
        [Track(method, mean_curves(own)) for method, own in by_method(items).items()], images.path("curves")
    )
    shown = sorted(items, key=lambda item: (item.prompt, item.seed))
    draw_sheet([load_rows(picture(folder, "strips", item.key)) for item in shown], 1, images.path("long"))
    lines = "\n".join(f"- {item.caption}: {item.method}" for item in shown)
    ours = shipped(items)[0].method
    return [
        f"## Long videos, {items[0].frames} frames",
        metrics_table(items),
        f"Differences to {ours}:",
        difference_table(items, ours),
        images.shown("Means over the videos", "curves"),
        "Each row a video, from its first frame to its last:",
        images.shown("Long videos", "long"),
        lines,
    ]


def _full(items: list[Item], folder: Path, images: Images) -> list[str]:
    shown = sorted(items, key=lambda item: (item.prompt, item.seed, item.method))
    draw_sheet([load_rows(picture(folder, "strips", item.key)) for item in shown], 1, images.path("refined"))
    return [
        f"## Stage 3, {items[0].frames} frames",
        "The same videos refined, and enlarged without it; rows of the picture in turn: enlarged, refined.",
        metrics_table(items),
        images.shown("Refined and enlarged", "refined"),
        "How joints of refined windows compare is measured by `lab/benchmarks/seams.py`.",
    ]


def _first(items: Sequence[Item], folder: Path, images: Images) -> list[str]:
    shown = sorted(
        (item for item in shipped(items) if item.seed == items[0].seed), key=lambda item: item.prompt
    )
    frames = [frame_of(load_rows(picture(folder, "strips", item.key)), 4) for item in shown]
    draw_sheet(frames, 10, images.path("first"))
    return [
        "## First chunks",
        "A frame of each prompt's first chunk, ten in a row:",
        images.shown("First chunks", "first"),
        "\n".join(f"{item.prompt + 1}. {item.caption}" for item in shown),
    ]
