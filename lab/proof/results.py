"""Make and measure the videos of the results page, then write it.

    python -m lab.proof.results RUNS OUT [--prompts 60] [--seeds 3] [--page docs/results.md]

RUNS holds `model` (distilled), `teacher-model`, `judge` and the rivals, see `whole`. Finished videos are
lines of OUT/items.jsonl: stop it at any time, the same command resumes. Training draws none of these clips.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lab.compare.apart import apart
from lab.compare.baselines import (
    HELD,
    METHODS,
    WithoutApm,
    WithoutBoth,
    rival_backbones,
    with_backbone,
    with_held_overlap,
)
from lab.compare.comparison import OURS, TRUTH, WITHOUT_ANCHOR
from lab.compare.results import Item, ItemFile, Key, plain, save_rows
from lab.world2 import clip
from streamingt2v.checkpoints.fingerprint import fingerprint
from streamingt2v.checkpoints.load import Components
from streamingt2v.config import Request
from streamingt2v.metrics.eyes import eyes_of_model
from streamingt2v.metrics.metric import Tools, measure
from streamingt2v.metrics.seams import Grid
from streamingt2v.metrics.suite import Setting, make_metrics
from streamingt2v.pipeline import LongVideoPipeline

from . import measures
from .judge import check, load_judge, looks_kept
from .page import NOTHING, SHIPPED, image_of, save_truth, write_page
from .run import device_of_this_process

RIVALS = ("last-frame", "concatenate", "additive")
FREE = ("FreeNoise", "FIFO-Diffusion")
WINDOW = 16
LONG_METRICS = ("anchor", "colour")
FILMED = 16  # prompts whose frames are kept as an image


@dataclass(frozen=True)
class Part:
    """Videos of these methods for the first `prompts` prompts and each seed."""

    methods: tuple[str, ...]
    prompts: int
    seeds: int
    frames: int


def parts_of(a: argparse.Namespace, rivals: tuple[str, ...]) -> dict[str, Part]:
    """Return the page's parts by name."""
    lasting = (SHIPPED, WITHOUT_ANCHOR)
    return {
        "first": Part((TRUTH, SHIPPED), a.prompts, a.seeds, WINDOW),
        "scroll": Part((TRUTH, SHIPPED, NOTHING, *a.free), a.compared, 1, a.frames),
        "seams": Part(
            (TRUTH, OURS, WITHOUT_ANCHOR, HELD, *rivals, NOTHING, SHIPPED), a.compared, 1, a.seam_frames
        ),
        "hidden": Part((TRUTH, *lasting, NOTHING), a.hidden, 1, a.hidden_frames),
        "back": Part((TRUTH, *lasting, NOTHING), a.back, 1, a.back_frames),
        "long": Part((TRUTH, *lasting), a.long, 1, a.long_frames),
    }


def spec_of(part: str, number: int) -> clip.ClipSpec:
    """Return a prompt's clip, which training never draws."""
    scenes = ("street", "beach", "forest", "snow", "desert")
    fixed: dict[str, dict[str, str]] = {
        "scroll": {"motion": "run", "scene": scenes[number % 5]},
        "seams": {"motion": ("run", "jump", "rock")[number % 3]},
        "hidden": {"motion": ("hide", "away")[number % 2]},
        "back": {"motion": "jump", "scene": scenes[number % 5], "time": "day"},
    }
    if part == "scroll" and number == 0:
        runner = clip.sample((78, 0), told_looks=0.0, noun="cat", **fixed[part])
        return replace(runner, caption="A cat running on the street")
    return clip.sample((78, number), told_looks=0.0 if part == "hidden" else 0.4, **fixed.get(part, {}))


class Maker:
    """Make and measure one video after another."""

    def __init__(self, runs: Path, out: Path):
        device = str(device_of_this_process())
        self.out, self.judge = out, load_judge(runs / "judge")
        self.shipped = LongVideoPipeline.from_pretrained(str(runs / "model"), device).components
        self.teacher = LongVideoPipeline.from_pretrained(str(runs / "teacher-model"), device).components
        folders = [runs / name for name in RIVALS if (runs / name / "rival").is_dir()]
        self.rivals = rival_backbones(folders, self.teacher)
        self.tools = Tools(None, eyes_of_model(runs / "teacher-model"))
        extend = self.teacher.config.extend
        self.grid = Grid(extend.frames, extend.overlap)

    def make(self, part: str, method: str, number: int, seed: int, frames: int) -> Item:
        """Make and measure a video; keep its middle row over time, and some videos' frames."""
        began, spec = time.monotonic(), spec_of(part, number)
        video = np.stack(list(self._video(part, method, spec, seed, frames)))
        key: Key = (part, method, number, seed)
        save_rows(video[:, video.shape[1] // 2], image_of(self.out, "rows", key))
        if number < FILMED and seed == 0 and frames <= 160:
            save_rows(np.concatenate(list(video), 1), image_of(self.out, "films", key))
        values = getattr(self, f"_{part}")(video, method, spec, seed)
        values = {name: plain(float(value)) for name, value in values.items() if value is not None}
        seconds = round(time.monotonic() - began, 1)
        return Item(*key, spec.caption, frames, values, {}, {}, {}, seconds)

    def _video(self, part: str, method: str, spec: Any, seed: int, frames: int) -> Iterator[np.ndarray]:
        if method == TRUTH:
            yield from self._true(part, spec, frames)
            return
        third = frames // 3
        turns = ((third, self._elsewhere(spec).caption), (2 * third, spec.caption))
        request = Request(spec.caption, frames, seed, schedule=turns if part == "back" else ())
        if part == "seams" and method != SHIPPED:
            yield from apart(self._apart_model(method), request)
        elif method in FREE:
            yield from METHODS[method].frames(self.teacher, request)
        else:
            kinds = {WITHOUT_ANCHOR: WithoutApm, NOTHING: WithoutBoth}
            model = with_backbone(self.shipped, kinds[method]) if method in kinds else self.shipped
            for chunk in LongVideoPipeline(model).stream(request):
                yield from chunk.frames

    def _apart_model(self, method: str) -> Components:
        if method == HELD:
            return with_held_overlap(self.teacher)
        if method in self.rivals:
            return replace(self.teacher, backbone=self.rivals[method])
        kinds = {WITHOUT_ANCHOR: WithoutApm, NOTHING: WithoutBoth}
        return with_backbone(self.teacher, kinds[method]) if method in kinds else self.teacher

    def _true(self, part: str, spec: Any, frames: int) -> Iterator[np.ndarray]:
        times = clip.frame_times(frames)
        if part != "back":
            yield from clip.render(spec, times)[0]
            return
        for place, some in zip((spec, self._elsewhere(spec), spec), np.array_split(times, 3), strict=True):
            yield from clip.render(place, some)[0]

    def _elsewhere(self, spec: Any) -> Any:
        scene = "beach" if spec.scene != "beach" else "street"
        return clip.sample(
            (79, spec.arrangement), noun=spec.noun, motion=spec.motion, scene=scene, time="day"
        )

    def _first(self, video: np.ndarray, method: str, spec: Any, seed: int) -> dict[str, Any]:
        names = self.judge.judge(video).names
        true = clip.render(spec, clip.frame_times(len(video)))[0]
        hits = {kind: names[kind] == getattr(spec, kind) for kind in ("noun", "scene", "motion")}
        return hits | {"sharpness": measures.sharpness(video) / measures.sharpness(true)}

    def _scroll(self, video: np.ndarray, method: str, spec: Any, seed: int) -> dict[str, Any]:
        made = measures.scroll(video)
        true = float(np.median(measures.true_speed(spec, len(video))))
        return {"speed": abs(made.median - true) <= 0.25 * abs(true), "one_way": made.one_way >= 0.85}

    def _seams(self, video: np.ndarray, method: str, spec: Any, seed: int) -> dict[str, Any]:
        return {"seam": measures.seams(video, self.grid.borders(len(video)))}

    def _hidden(self, video: np.ndarray, method: str, spec: Any, seed: int) -> dict[str, Any]:
        kept = looks_kept(self.judge, video)
        return {"came_back": kept is not None, "looks_kept": kept}

    def _back(self, video: np.ndarray, method: str, spec: Any, seed: int) -> dict[str, Any]:
        """Compare the return with the first visit and with first visits of three other videos."""
        if method == TRUTH:
            others = [
                clip.render(replace(spec, arrangement=spec.arrangement + 1 + i), clip.frame_times(WINDOW))[0]
                for i in range(3)
            ]
        else:
            others = [np.stack(list(self._video("first", SHIPPED, spec, 1000 + i, WINDOW))) for i in range(3)]
        return {"arrangement_kept": measures.comes_back(video[:WINDOW], video[-WINDOW:], others)}

    def _long(self, video: np.ndarray, method: str, spec: Any, seed: int) -> dict[str, Any]:
        setting = Setting(self.tools, None, spec.caption)
        found = measure(iter(video), make_metrics(LONG_METRICS, setting), self.tools).values
        names = self.judge.judge(video[-WINDOW:]).names
        hits = {f"{kind}_end": names[kind] == getattr(spec, kind) for kind in ("noun", "scene")}
        return hits | {name: found[name] for name in ("anchor_end", "colour_end")}


def main(words: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    p.add_argument("runs", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--page", type=Path, default=Path("docs/results.md"))
    p.add_argument("--about", default="")
    for name, default in (
        ("prompts", 60),
        ("seeds", 3),
        ("compared", 20),
        ("hidden", 40),
        ("back", 30),
        ("long", 8),
        ("frames", 160),
        ("seam_frames", 48),
        ("hidden_frames", 96),
        ("back_frames", 72),
        ("long_frames", 1216),
        ("truth", 96),
    ):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--free", nargs="*", choices=FREE, default=FREE, help="training-free rivals to compare")
    a = p.parse_args(words)
    maker = Maker(a.runs, a.out)
    parts = parts_of(a, tuple(maker.rivals))
    settings: dict[str, object] = {
        name: fingerprint(a.runs / name)[:12] for name in ("model", "teacher-model")
    }
    file = ItemFile(a.out, settings | {f"frames, {name}": part.frames for name, part in parts.items()})
    for name, part in parts.items():
        for number in range(part.prompts):
            for seed in range(part.seeds):
                for method in part.methods:
                    if (name, method, number, seed) not in file:
                        file.add(maker.make(name, method, number, seed, part.frames))
                        print(file.items[-1].key, file.items[-1].values, flush=True)
    save_truth(a.out, check(maker.judge, a.truth))
    write_page(a.page, a.out, a.about)


if __name__ == "__main__":
    main()
