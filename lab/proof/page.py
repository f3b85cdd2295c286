"""Write the results page from a folder of measured videos: images first, at most 150 lines.

    python -m lab.proof.page RESULTS docs/results.md

RESULTS is written by `lab.proof.results`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lab.compare.bars import Bar
from lab.compare.comparison import OURS, TRUTH, WITHOUT_ANCHOR
from lab.compare.results import Item, ItemFile, Key, by_method, load_rows, markdown, pairs
from lab.compare.statistics import Estimate, bootstrap, paired
from streamingt2v import durable
from streamingt2v.metrics.chart import Track, draw_slices

NOTHING, SHIPPED = "nothing", "as shipped"
MOST_LINES = 150
CHANCE = {"looks_kept": 1 / 24, "arrangement_kept": 1 / 4}
TITLES = {
    "first": "First chunks",
    "scroll": "Scenery goes by",
    "seams": "Short memory: seams, independent noise, no crossfade",
    "hidden": "Long memory: after hide and seek",
    "back": "Long memory: there and back",
    "long": "Long videos",
}


def save_truth(folder: Path, truth: Mapping[str, float]) -> None:
    """Keep the judge's accuracy on true clips in a results folder."""
    durable.write_file(folder / "truth.json", json.dumps(truth).encode())


def image_of(folder: Path, kind: str, key: Key) -> Path:
    """Return the path of a video's image; kind: "rows" (middle row over time) or "films" (all frames)."""
    return folder / kind / ("-".join(map(str, key)).replace(" ", "-").replace(",", "") + ".png")


def write_page(path: Path, folder: Path, about: str = "") -> None:
    """Write the page of a results folder, and its images into `images/` beside the page."""
    file = ItemFile(folder, json.loads((folder / "settings.json").read_text()))
    truth, images = json.loads((folder / "truth.json").read_text()), path.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    parts = {name: [i for i in file.items if i.part == name] for name in TITLES}
    found = bars(parts, truth)
    failed = [bar for bar in found if bar.holds is False]
    lines = ["# Results", *([about] if about else [])]
    lines += [*_moving(parts, folder, images), *_slices(parts["scroll"] + parts["seams"], folder, images)]
    lines += [f"## {sum(bar.holds is True for bar in found)} of {len(found)} claims hold"]
    lines += ["\n".join(f"- Does not hold: {bar.claim}: {bar.measured}." for bar in failed)] if failed else []
    lines += [markdown(["claim", "measured", ""], [bar.row for bar in found])]
    for name, items in parts.items():
        if items:
            lines += [f"## {TITLES[name]}", f"{items[0].frames} frames.", table(items)]
    hours = sum(item.seconds for item in file.items) / 3600
    lines += [
        f"{len(file.items)} videos, {hours:.1f} hours; training drew none of these clips; intervals "
        "are of 95 %, by bootstrap over prompts. Written by `python -m lab.proof.results`; "
        "`lab/proof/README.md` explains the measures."
    ]
    text = "\n\n".join(lines) + "\n"
    assert text.count("\n") <= MOST_LINES, "the page is too long"
    durable.write_file(path, text.encode())


def bars(parts: Mapping[str, Sequence[Item]], truth: Mapping[str, float]) -> list[Bar]:
    """Return the claims with their measurements."""
    seams = {method: _mean(items, "seam") for method, items in by_method(parts["seams"]).items()}
    cam, none = (seams.get(method, _NOTHING_MEASURED) for method in (WITHOUT_ANCHOR, NOTHING))
    found = [
        _bar(
            "CAM's seam is at most 1.15 where nothing's is at least 2",
            f"CAM {cam.value:.2f}, nothing {none.value:.2f}",
            cam.value <= 1.15 and none.value >= 2,
            cam.n,
        )
    ]
    rivals = [m for m in seams if m not in (TRUTH, OURS, WITHOUT_ANCHOR, NOTHING, SHIPPED)]
    found += [_ahead(parts["seams"], WITHOUT_ANCHOR, method, "seam", -1) for method in rivals]
    whole = seams.get(SHIPPED, _NOTHING_MEASURED)
    found.append(
        _bar(
            "as shipped the seam is 1.00 ± 0.05", f"{whole.value:.3f}", abs(whole.value - 1) <= 0.05, whole.n
        )
    )
    with_apm, without = (_mean(_of(parts["hidden"], m), "looks_kept") for m in (SHIPPED, WITHOUT_ANCHOR))
    kept = f"{_percent(with_apm)}, without APM {_percent(without)}, chance 4 %"
    found.append(
        _bar("after hiding, looks are right in 80 % with APM", kept, with_apm.value >= 0.8, with_apm.n)
    )
    margin = with_apm.value - without.value
    found.append(
        _bar("and in 20 points more than without", f"{100 * margin:.0f} points", margin >= 0.2, without.n)
    )
    found += [
        _ahead(parts["back"], SHIPPED, WITHOUT_ANCHOR, "arrangement_kept", 1),
        _ahead(parts["long"], SHIPPED, WITHOUT_ANCHOR, "anchor_end", 1),
        _ahead(parts["long"], SHIPPED, WITHOUT_ANCHOR, "colour_end", -1),
    ]
    made = _of(parts["first"], SHIPPED)
    for kind, points in (("noun", 3), ("scene", 3), ("motion", 8)):
        seen = _mean(made, kind)
        claim = f"first chunk: {kind} within {points} points of the judge"
        measured = f"{_percent(seen)}, judge {100 * truth[kind]:.0f} %"
        found.append(_bar(claim, measured, seen.value >= truth[kind] - points / 100, seen.n))
    for kind in ("noun", "scene"):
        end, first = _mean(_of(parts["long"], SHIPPED), f"{kind}_end"), _mean(made, kind)
        measured = f"{_percent(end)} after {_percent(first)}"
        found.append(
            _bar(
                f"end of long videos: {kind} within 5 points",
                measured,
                end.value >= first.value - 0.05,
                end.n,
            )
        )
    for name, least, claim in (
        ("speed", 0.8, "scroll speed within 25 % of the truth in 80 % of the videos"),
        ("one_way", 0.85, "scenery moves one way in 85 % of the videos"),
    ):
        seen = _mean(_of(parts["scroll"], SHIPPED), name)
        found.append(_bar(claim, _percent(seen), seen.value >= least, seen.n))
    sharp = _mean(made, "sharpness")
    claim = "gradient energy at least 0.6 of true clips'"
    return [*found, _bar(claim, f"{sharp.value:.2f}", sharp.value >= 0.6, sharp.n)]


_NOTHING_MEASURED = Estimate(float("nan"), float("nan"), float("nan"), 0)


def _bar(claim: str, measured: str, holds: bool, count: int) -> Bar:
    return Bar(claim, measured if count else "–", bool(holds) if count else None)


def _ahead(items: Sequence[Item], ours: str, theirs: str, name: str, side: int) -> Bar:
    """Claim that `ours` is better (side 1: higher) beyond the interval of the paired difference."""
    d = paired(pairs(_of(items, ours), name), pairs(_of(items, theirs), name))
    measured = f"{theirs} {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
    better = d.high < 0 if side > 0 else d.low > 0
    return _bar(f"{ours} is surely better than {theirs} in `{name}`", measured, better, d.n)


def _of(items: Sequence[Item], method: str) -> list[Item]:
    return [item for item in items if item.method == method]


def _mean(items: Sequence[Item], name: str) -> Estimate:
    values = pairs(items, name)
    return bootstrap({prompt: list(of_seeds.values()) for prompt, of_seeds in values.items()})


def _percent(e: Estimate) -> str:
    return f"{100 * e.value:.0f} %"


def table(items: Sequence[Item]) -> str:
    """Return a row per method with mean, interval and number of videos of each value."""
    names = list(dict.fromkeys(name for item in items for name in item.values))
    heads = [f"{name} (chance {100 * CHANCE[name]:.0f} %)" if name in CHANCE else name for name in names]
    rows = []
    for method, own in by_method(items).items():
        estimates = [_mean(own, name) for name in names]
        cells = [f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}], {e.n}" if e.n else "–" for e in estimates]
        rows.append([method, *cells])
    return markdown(["", *heads], rows)


def _moving(parts: Mapping[str, Sequence[Item]], folder: Path, images: Path) -> list[str]:
    """Write 16 first chunks, and the shipped model's first scroll video, as moving images."""
    lines, films = [], []
    for item in _of(parts["first"], SHIPPED):
        path = image_of(folder, "films", item.key)
        if item.seed == 0 and path.is_file():
            films.append(_frames(load_rows(path), item.frames))
    if films:
        n = next(n for n in (4, 2, 1) if len(films) >= n * n)
        rows = [np.concatenate(films[n * r : n * r + n], 2) for r in range(n)]
        title = "; ".join(item.caption for item in _of(parts["first"], SHIPPED)[: n * n] if item.seed == 0)
        lines.append(_write_moving(np.concatenate(rows, 1), images / "results-first.webp", title))
    for item in _of(parts["scroll"], SHIPPED)[:1]:
        path = image_of(folder, "films", item.key)
        if path.is_file():
            frames = _frames(load_rows(path), item.frames)
            lines.append(_write_moving(frames, images / "results-long.webp", item.caption))
    return lines


def _frames(film: np.ndarray, count: int) -> np.ndarray:
    return np.stack(np.split(film, count, 1))


def _write_moving(frames_THWC: np.ndarray, path: Path, title: str) -> str:
    """Write an endless WebP at twice the size and return its Markdown line."""
    first, *rest = (Image.fromarray(frame.repeat(2, 0).repeat(2, 1)) for frame in frames_THWC)
    first.save(path, save_all=True, append_images=rest, duration=125, loop=0, quality=80)
    return f"![{title}](images/{path.name})"


def _slices(items: Sequence[Item], folder: Path, images: Path) -> list[str]:
    """Draw the middle rows over time of the first prompt by every method."""
    first = [i for i in items if i.prompt == 0 and i.seed == 0]
    tracks = [
        Track(f"{i.method} ({i.part})", row_TWC=load_rows(image_of(folder, "rows", i.key))) for i in first
    ]
    if not tracks:
        return []
    draw_slices(tracks, images / "results-slices.png")
    return [
        "![Slices through time](images/results-slices.png)",
        "The middle row of every frame, time to the right. *seams*: independent noise, no crossfade.",
    ]


def main(words: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    p.add_argument("results", type=Path)
    p.add_argument("page", type=Path)
    p.add_argument("--about", default="")
    a = p.parse_args(words)
    write_page(a.page, a.results, a.about)


if __name__ == "__main__":
    main()
