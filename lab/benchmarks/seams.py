"""Measure seams between refined windows: joint, causal, and controls.

    python lab/benchmarks/seams.py [--videos 40] [--frames 112] [--ways joint causal ...] [--jobs 2]
        [--model tiny] [--out seams/] [--page lab/docs/refining-results.md]

Refines clips of the world, shrunk to stage 2's size, in every way; --jobs processes with one thread each
share the videos. Two numbers, 1.0 without visible seams: `score`, mean change at window borders over that
elsewhere; `worst`, the same for the largest change at each border against the largest of equally many changes
elsewhere. A border is the whole overlap, since the cut may fall anywhere in it; for separate windows it is
the first change of the next one. Changes are divided by the true clip's, or by half their mean where it moves
less. Prints a table and one JSON line; writes time slices of the first videos and a page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from lab.compare.results import markdown
from lab.compare.statistics import bootstrap, paired
from lab.tiny.data import noun_names
from lab.world import clip
from streamingt2v import LongVideoPipeline, durable
from streamingt2v.config import ModelConfig, RefineConfig, find_model
from streamingt2v.metrics.chart import Track, draw_slices
from streamingt2v.ray_backend import Alone
from streamingt2v.samplers.blend import windows
from streamingt2v.stages.refine import RefineStage
from streamingt2v.video.images import xt_slice
from streamingt2v.video.piece import Piece, to_float, to_uint8

PICTURES = 3
NOISE = {"": True, ", noise apart": False}
OURS = "causal"

Result = tuple[tuple[float, float], np.ndarray]
_LOADED: dict[str, LongVideoPipeline] = {}
"""Models that a process holds in memory."""


def ways(config: RefineConfig) -> dict[str, RefineConfig]:
    """Return ways to join windows by name, with shared noise, with independent noise, and variants."""
    joined = {
        "joint": replace(config, form="joint", blend="random"),
        "causal": replace(config, form="causal", blend="random"),
        "cross-fade": replace(config, blend="linear"),
        "independent": replace(config, blend="none"),
    }
    return {
        **{
            f"{name}{said}": replace(way, shared_noise=shared)
            for name, way in joined.items()
            for said, shared in NOISE.items()
        },
        "joint, code's law": replace(joined["joint"], law="code"),
        "causal, latents": replace(joined["causal"], splice="latents"),
    }


def refined(
    pipe: LongVideoPipeline, config: RefineConfig, soft_TCHW: torch.Tensor, prompt: str, seed: int
) -> np.ndarray:
    """Return the refined video, uint8 (T, H, W, 3)."""
    height, width = config.size(*soft_TCHW.shape[-2:])
    stage = RefineStage(Alone(pipe.components.refiner), config, seed, len(soft_TCHW), (height, width))
    text = pipe.components.text(prompt, "")
    return to_uint8(
        torch.cat(
            [piece.frames_TCHW for piece in stage.stream([Piece(soft_TCHW, {}, True)], lambda frame: text)]
        )
    )


def changes(frames_THWC: np.ndarray) -> np.ndarray:
    """Return the mean absolute change into each frame (T,); the first is 0."""
    return np.concatenate([[0], np.abs(np.diff(frames_THWC.astype(np.float32), axis=0)).mean((1, 2, 3))])


def scores(change: np.ndarray, config: RefineConfig) -> tuple[float, float]:
    """Return (score, worst) of relative changes."""
    plan = list(windows(len(change), config.frames, config.overlap))
    apart = config.blend == "none"
    borders = [
        range(right.start, right.start + 1 if apart else left.stop + 1) for left, right in pairwise(plan)
    ]
    at_border = {t for border in borders for t in border if t < len(change)}
    inside = [t for t in range(1, len(change)) if t not in at_border]
    score = change[sorted(at_border)].mean() / change[inside].mean()
    length = len(borders[0])
    runs = [range(t, t + length) for t in inside if all(other in inside for other in range(t, t + length))]
    worst = statistics.mean(change[border.start : border.stop].max() for border in borders)
    return float(score), float(worst / statistics.mean(change[run.start : run.stop].max() for run in runs))


def measure(
    pipe: LongVideoPipeline, number: int, frames: int, names: list[str]
) -> Iterator[tuple[str, np.ndarray, tuple[float, float]]]:
    """Yield (way, video, scores) for one clip."""
    config = pipe.config.refine
    assert config is not None, "checked at the door"
    spec = clip.sample((11, number), noun_names(12))
    sharp_THWC = clip.render(
        spec, clip.frame_times(frames), *config.size(pipe.config.height, pipe.config.width)
    )[0]
    soft_TCHW = F.interpolate(
        to_float(sharp_THWC), (pipe.config.height, pipe.config.width), mode="bilinear", antialias=True
    )
    true = changes(sharp_THWC)
    for name in names:
        way = ways(config)[name]
        video_THWC = refined(pipe, way, soft_TCHW, spec.caption, number)
        yield (
            name,
            video_THWC,
            scores(np.divide(changes(video_THWC), true, out=np.zeros_like(true), where=true > 0), way),
        )


def one_video(number: int, model: str, frames: int, names: list[str], out: Path | None) -> dict[str, Result]:
    """Run in a process: return scores and middle rows by way; save time slices of the first videos."""
    pipe = _LOADED[model] = _LOADED.get(model) or LongVideoPipeline.from_pretrained(model)
    found = {}
    for name, video_THWC, pair in measure(pipe, number, frames, names):
        found[name] = pair, video_THWC[:, video_THWC.shape[1] // 2]
        if out is not None and number < PICTURES:
            xt_slice(video_THWC, out / f"{number}-{name.replace(',', '').replace(' ', '-')}.png")
    return found


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=112)
    parser.add_argument("--ways", nargs="+", help="names as in the table; default: all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path, help="folder for slices through time")
    parser.add_argument(
        "--page", type=Path, help="also write the table and the slices of the first video as a page"
    )
    asked = parser.parse_args()
    known = ways(config_of(asked.model))
    names = asked.ways or list(known)
    if wrong := set(names) - set(known) or {OURS} - set(names):
        sys.exit(
            f"--ways {' '.join(sorted(wrong))}: there are {', '.join(known)}; {OURS} must be one of them"
        )
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    slices: list[Track] = []
    work = partial(one_video, model=asked.model, frames=asked.frames, names=names, out=asked.out)
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        results = pool.map(work, range(asked.videos)) if asked.jobs > 1 else map(work, range(asked.videos))
        for number, result in enumerate(results):
            for name, (pair, row_TWC) in result.items():
                found[name].append(pair)
                if number == 0:
                    slices.append(Track(name, row_TWC=row_TWC))
            print(f"{number + 1} of {asked.videos} videos", file=sys.stderr, flush=True)
    rows = [row(name, pairs, found[OURS]) for name, pairs in found.items()]
    print("\n".join(f"{line[0]:24}" + "".join(f"{cell:>26}" for cell in line[1:]) for line in table(rows)))
    if asked.page is not None:
        given = f" --ways {' '.join(map(repr, asked.ways))}" if asked.ways else ""
        sizes = f"--videos {asked.videos} --frames {asked.frames}{given} --model {asked.model}"
        command = f"python lab/benchmarks/seams.py {sizes}"
        write_page(asked.page, rows, slices, command)
    print(
        json.dumps(
            {
                "benchmark": "seams",
                "model": asked.model,
                "videos": asked.videos,
                "frames": asked.frames,
                "rows": rows,
            }
        )
    )


def config_of(model: str) -> RefineConfig:
    """Return the refining settings of a model; exit if it has none."""
    config = ModelConfig.load(find_model(model)).refine
    if config is None:
        sys.exit(f"model {model!r} has no refiner")
    return config


def row(name: str, pairs: list[tuple[float, float]], ours: list[tuple[float, float]]) -> dict[str, object]:
    """Return means over videos and the paired difference to `OURS`, each [value, low, high] of a 95 %
    interval.
    """
    found: dict[str, object] = {"way": name}
    for column, (theirs, own) in zip(
        ("score", "worst"), zip(zip(*pairs, strict=True), zip(*ours, strict=True), strict=True), strict=True
    ):
        found[column] = list(bootstrap({i: [value] for i, value in enumerate(theirs)})[:3])
        found[f"{column}_more"] = list(
            paired(*({i: {0: value} for i, value in enumerate(values)} for values in (own, theirs)))[:3]
        )
    return found


def table(rows: list[dict[str, object]]) -> list[list[str]]:
    """Return head and lines."""
    columns = ("score", "score_more", "worst", "worst_more")
    head = ["way", "score", f"more than {OURS}", "worst", f"more than {OURS}"]
    return [
        head,
        *(
            [str(one["way"]), *("{:.3f} [{:.3f}, {:.3f}]".format(*one[column]) for column in columns)]
            for one in rows
        ),
    ]  # type: ignore[misc]


def write_page(page: Path, rows: list[dict[str, object]], slices: list[Track], command: str) -> None:
    """Write the table and the first video's time slices."""
    (page.parent / "images").mkdir(parents=True, exist_ok=True)
    draw_slices(slices, page.parent / "images" / "refining-slices.png")
    head, *lines = table(rows)
    sections = [
        "# Joints of refined windows",
        f"Written by `{command} --page {page}`, which explains the numbers: 1.0 without visible seams. "
        "Intervals are of 95 %.",
        "Windows are refined jointly, causally, separately with a cross-fade, or separately (the later "
        "replaces the earlier); each with noise shared in overlaps, and with independent noise.",
        markdown(head, lines),
        "The middle row of every frame of one video:",
        "![Slices through time](images/refining-slices.png)",
    ]
    durable.write_file(page, "\n\n".join(sections).encode() + b"\n")


if __name__ == "__main__":
    main()
