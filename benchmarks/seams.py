"""How visible the seams between refined windows are: joint, causal, and the controls.

    python benchmarks/seams.py [--videos 40] [--frames 112] [--model tiny] [--out seams/]

Clips of the procedural world, shrunk to the size of stage 2, are refined in every way. Two numbers, 1.0 where no seam is to be
seen: `score`, the mean change from frame to frame at the windows' borders over that elsewhere, and `worst`, the same of the largest
change at each border over the largest of as many changes in a row elsewhere. A border is all of an overlap, since the cut may
fall anywhere in it; of windows apart it is the one change where the next begins. Changes are relative to those of the true clip, whose
motion is uneven. Prints a table and one JSON line, and writes slices through time of the first videos.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from streamingt2v import LongVideoPipeline
from streamingt2v.config import RefineConfig
from streamingt2v.distributed import Alone
from streamingt2v.io.pictures import xt_slice
from streamingt2v.samplers.blend import windows
from streamingt2v.stages.piece import Piece, to_float, to_uint8
from streamingt2v.stages.refine import RefineStage
from streamingt2v.train.data import noun_names
from streamingt2v.world import clip

PICTURES = 3


def ways(config: RefineConfig) -> dict[str, RefineConfig]:
    """What is compared, by name."""
    return {
        "joint": replace(config, form="joint"),
        "joint, code's law": replace(config, form="joint", law="code"),
        "causal": replace(config, form="causal"),
        "causal, latents": replace(config, form="causal", splice="latents"),
        "causal, noise apart": replace(config, form="causal", shared_noise=False),
        "cross-fade": replace(config, blend="linear"),
        "none": replace(config, blend="none", overlap=0),
    }


def refined(pipe: LongVideoPipeline, config: RefineConfig, soft_TCHW: torch.Tensor, prompt: str, seed: int) -> np.ndarray:
    """uint8 (T, H, W, 3)."""
    height, width = config.size(*soft_TCHW.shape[-2:])
    stage = RefineStage(Alone(pipe.components.refiner), config, seed, len(soft_TCHW), (height, width))
    text = pipe.components.text(prompt, "")
    return to_uint8(torch.cat([piece.frames_TCHW for piece in stage.stream([Piece(soft_TCHW, {}, True)], lambda frame: text)]))


def changes(frames_THWC: np.ndarray) -> np.ndarray:
    """(T,) mean absolute change into each frame; the first is 0."""
    return np.concatenate([[0], np.abs(np.diff(frames_THWC.astype(np.float32), axis=0)).mean((1, 2, 3))])


def scores(change: np.ndarray, config: RefineConfig) -> tuple[float, float]:
    """(score, worst) of relative changes."""
    plan = list(windows(len(change), config.frames, config.overlap))
    apart = config.blend == "none"
    borders = [range(right.start, right.start + 1 if apart else left.stop + 1) for left, right in pairwise(plan)]
    at_border = {t for border in borders for t in border if t < len(change)}
    inside = [t for t in range(1, len(change)) if t not in at_border]
    score = change[sorted(at_border)].mean() / change[inside].mean()
    length = len(borders[0])
    runs = [range(t, t + length) for t in inside if all(other in inside for other in range(t, t + length))]
    worst = statistics.mean(change[border.start : border.stop].max() for border in borders)
    return float(score), float(worst / statistics.mean(change[run.start : run.stop].max() for run in runs))


def measure(pipe: LongVideoPipeline, number: int, frames: int, out: Path | None) -> Iterator[tuple[str, tuple[float, float]]]:
    """(way, its scores) of one video."""
    config = pipe.config.refine
    assert config is not None, "checked at the door"
    spec = clip.sample((11, number), noun_names(12))
    sharp_THWC = clip.render(spec, clip.frame_times(frames), *config.size(pipe.config.height, pipe.config.width))[0]
    soft_TCHW = F.interpolate(to_float(sharp_THWC), (pipe.config.height, pipe.config.width), mode="bilinear", antialias=True)
    true = changes(sharp_THWC)
    for name, way in ways(config).items():
        video_THWC = refined(pipe, way, soft_TCHW, spec.caption, number)
        if out is not None and number < PICTURES:
            xt_slice(video_THWC, out / f"{number}-{name.replace(',', '').replace(' ', '-')}.png")
        yield name, scores(np.divide(changes(video_THWC), true, out=np.zeros_like(true), where=true > 0), way)


def main() -> None:
    """The table, and then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=112)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    pipe = LongVideoPipeline.from_pretrained(asked.model)
    if pipe.config.refine is None:
        sys.exit(f"model {asked.model!r} has no refiner")
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(asked.videos):
        for name, pair in measure(pipe, number, asked.frames, asked.out):
            found.setdefault(name, []).append(pair)
        print(f"{number + 1} of {asked.videos} videos", file=sys.stderr, flush=True)
    rows = [{"way": name, **_summary(pairs)} for name, pairs in found.items()]
    print(f"{'way':24}{'score':>10}{'±':>10}{'worst':>10}{'±':>10}")
    for row in rows:
        print(f"{row['way']:24}" + "".join(f"{row[column]:10.3f}" for column in ("score", "score_error", "worst", "worst_error")))
    print(json.dumps({"benchmark": "seams", "model": asked.model, "videos": asked.videos, "frames": asked.frames, "rows": rows}))


def _summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Means over the videos and their standard errors."""
    columns = zip(("score", "worst"), zip(*pairs, strict=True), strict=True)
    error = {name: statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0 for name, values in columns}
    score, worst = (statistics.mean(values) for values in zip(*pairs, strict=True))
    return {"score": score, "score_error": error["score"], "worst": worst, "worst_error": error["worst"]}


if __name__ == "__main__":
    main()
