"""Compare ways to go on and to refine when the included model is a stock pipeline of diffusers.

python -m lab.compare.pipelines -o FOLDER [--prompts 40] [--frames 80] [--videos 12] [--page PAGE.md]

Extending: `TextToVideoSDPipeline` of the included model's networks, 4 steps. Every chunk draws its own noise,
the same for all ways and of the kind that the network was trained on (half of it common to the chunk's
frames), and there is no crossfade. Nothing, the last frame, or the overlap is held; beside them CAM and APM.
Refining: `VideoToVideoSDPipeline` at strength 0.45 (4 steps), windows of 16 frames that share 4, joined by a
cut at a random frame or by randomized blending at every step, scored as `lab/benchmarks/seams.py` does. What
FOLDER holds already is not made again. Prints the tables; --page writes them with slices through time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lab.benchmarks import seams
from lab.tiny.data import noun_names
from lab.world import clip
from streamingt2v import LongVideoPipeline, durable
from streamingt2v.config import ExtendConfig
from streamingt2v.config.external import ExtendByConfig
from streamingt2v.config.refine import RefineByConfig
from streamingt2v.external.continuing import Continuation, Window, held_overlap
from streamingt2v.metrics.chart import MiddleRows, Track, draw_slices
from streamingt2v.metrics.metric import measure
from streamingt2v.metrics.seams import Grid
from streamingt2v.metrics.suite import Setting, make_metrics, make_tools
from streamingt2v.samplers.denoise import final
from streamingt2v.samplers.noise import mixed_noise
from streamingt2v.samplers.sdedit import logsnr_cosine_interp
from streamingt2v.stages.extend import ExtendStage
from streamingt2v.stages.extend_by_pipeline import PipelineExtendStage
from streamingt2v.stages.protocols import Words
from streamingt2v.stages.refine_by_pipeline import PipelineRefineStage
from streamingt2v.stages.refine_by_steps import SplicedRefineStage
from streamingt2v.video.piece import Piece, to_float, to_uint8

from . import protocol
from .results import markdown, plain
from .statistics import bootstrap, paired

CHUNK, OVERLAP, SIDE, STEPS = 16, 8, 64, 4
FACTOR, MIXED = 8, 0.5
"""Pixels a side of a latent; share of noise that the frames of a chunk have in common, as the network was
trained.
"""
VALUES = ("seam", "mawe", "colour_end")
REFERENCE = {"extend": "overlap", "refine": "cut"}
REFINING = RefineByConfig("", frames=16, overlap=4, scale=2, strength=0.45, steps=10, guidance_scale=2.0)


class Mixed(PipelineExtendStage):
    """Go on with the overlap held.

    Noise is drawn apart for every chunk, of the kind that the network was trained on.
    """

    def _clip(
        self, pipe: Any, words: Words, frame: int, stage: str, position: int, goes: Continuation
    ) -> torch.Tensor:
        noise = {"latents": chunk_noise(pipe.unet.config.in_channels, self.size, self.seed, position)}
        goes = replace(goes, arguments={**goes.arguments, **noise})
        return super()._clip(pipe, words, frame, stage, position, goes)


class Nothing(Mixed):
    """Make every chunk anew, from the prompt and its own noise."""

    def next(self, memory: Any, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """Return as many new frames as the other ways do."""
        return self._clip(self.pipe, words, frame, "extend", memory.position, Continuation())[OVERLAP:]


class LastFrame(Mixed):
    """Hold the last frame alone at the beginning of a chunk, as image-to-video pipelines do."""

    def next(self, memory: Any, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """Return the frames after the one held, as many as the other ways make."""
        last_TCHW = memory.window_TCHW[-1:]
        goes = held_overlap(self.pipe, Window(last_TCHW, CHUNK, last_TCHW[0]))
        clip_TCHW = self._clip(self.pipe, words, frame, "extend", memory.position, goes)
        return clip_TCHW[1 : 1 + CHUNK - OVERLAP]


class Cam(ExtendStage):
    """CAM and APM, from the same noise as the other ways."""

    def next(self, memory: Any, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """See `Extender.next`."""
        condition = self.backbone.condition(words.text_at(frame), memory.anchor_CHW, self.seed)
        noise = chunk_noise(self.backbone.latent_shape(*self.size)[0], self.size, self.seed, memory.position)
        latents = final(self.denoise(condition, memory.window_TCHW, lambda step: noise))
        return to_float(to_uint8(self.backbone.decode(latents, OVERLAP)))


def chunk_noise(channels: int, size: tuple[int, int], seed: int, position: int) -> torch.Tensor:
    """Return the noise that a chunk starts from, (1, C, T, h, w)."""
    shape = (channels, size[0] // FACTOR, size[1] // FACTOR)
    own = 1000 * seed + position  # the common part too is the chunk's own
    noise_TCHW = mixed_noise(own, "chunk", range(CHUNK), -1, shape, MIXED)
    return noise_TCHW.transpose(0, 1)[None]


def stock(pipe: LongVideoPipeline) -> tuple[Any, Any]:
    """Return the model's networks as stock pipelines: text to video, and video to video with its refiner."""
    parts: Any = pipe.components
    vae, text = parts.backbone.vae, (parts.text.encoder, parts.text.tokenizer)
    first = diffusers.TextToVideoSDPipeline(vae, *text, parts.backbone.unet.stock(), parts.scheduler)
    kept = torch.cat([torch.ones(1, dtype=torch.float64), logsnr_cosine_interp().alphas.square()])
    scheduler = diffusers.DDIMScheduler(
        trained_betas=(1 - kept[1:] / kept[:-1]).clamp(0, 1).float().numpy(), prediction_type="v_prediction",
        clip_sample=False, timestep_spacing="trailing",
    )  # fmt: skip
    second = diffusers.VideoToVideoSDPipeline(vae, *text, parts.refiner.unet, scheduler)
    for one in (first, second):
        one.set_progress_bar_config(disable=True)
    return first, second


def extenders(pipe: LongVideoPipeline, first: Any, seed: int) -> dict[str, Any]:
    """Return who goes on in which way."""
    config, parts = ExtendConfig(CHUNK, OVERLAP, steps=STEPS, guidance_scale=1.0, eta=0.0), pipe.components
    size = (SIDE, SIDE)

    by = ExtendByConfig("", how="overlap", steps=STEPS, guidance_scale=1.0, anchor=0)
    return {
        "nothing": Nothing(first, by, config, size, 8, seed),
        "last frame": LastFrame(first, by, config, size, 8, seed),
        "overlap": Mixed(first, by, config, size, 8, seed),
        "CAM and APM": Cam(parts.backbone, parts.scheduler, config, seed, size),
    }


def extended(maker: Any, first_TCHW: torch.Tensor, words: Words, frames: int) -> np.ndarray:
    """Return uint8 (T, H, W, 3): the first chunk and what follows it."""
    memory, made = maker.memory(first_TCHW), [first_TCHW]
    while sum(map(len, made)) < frames:
        made.append(maker.next(memory, words, memory.position))
        memory = memory.advance(made[-1])
    return to_uint8(torch.cat(made)[:frames])


def extend_items(pipe: LongVideoPipeline, first: Any, asked: argparse.Namespace, done: set) -> Iterator[dict]:
    """Make and measure the videos of stage 2 that are not done."""
    tools, parts = make_tools(("seam", "mawe", "colour")), pipe.components
    specs = protocol.prompts(noun_names(12), asked.prompts)
    for number, spec in enumerate(specs):
        words = Words(parts.text, "", lambda frame, caption=spec.caption: caption)
        ways = {
            name: maker
            for name, maker in extenders(pipe, first, number).items()
            if ("extend", name, number) not in done
        }
        if not ways:
            continue
        first_TCHW = extenders(pipe, first, number)["overlap"].first(words)
        for name, maker in ways.items():
            video = extended(maker, first_TCHW, words, asked.frames)
            setting = Setting(tools, Grid(CHUNK, OVERLAP), spec.caption)
            rows = MiddleRows()
            for frame in video:
                rows.add(frame)
            found = measure(iter(video), make_metrics(("seam", "mawe", "colour"), setting), tools).values
            keep_slice(asked.out, "extend", name, number, rows.row_TWC)
            yield {"part": "extend", "way": name, "number": number,
                   **{value: plain(found[value]) for value in VALUES}}  # fmt: skip


def refine_items(
    pipe: LongVideoPipeline, second: Any, asked: argparse.Namespace, done: set
) -> Iterator[dict]:
    """Refine and score the clips of stage 3 that are not done."""
    assert pipe.config.refine is not None, "the included model refines"
    joined = seams.ways(pipe.config.refine)["causal"]
    length, size = asked.refined_frames, (2 * SIDE, 2 * SIDE)
    for number in range(asked.videos):
        ways = [way for way in ("cut", "steps") if ("refine", way, number) not in done]
        if not ways:
            continue
        spec = clip.sample((11, number), noun_names(12))
        sharp = clip.render(spec, clip.frame_times(length), *size)[0]
        soft_TCHW = F.interpolate(to_float(sharp), (SIDE, SIDE), mode="bilinear", antialias=True)
        true = seams.changes(sharp)
        for way in ways:
            kind: Any = SplicedRefineStage if way == "steps" else PipelineRefineStage
            stage = kind(lambda: nullcontext(second), replace(REFINING, seam=way), number, length, size)
            pieces = stage.stream([Piece(soft_TCHW, {}, True)], lambda frame, caption=spec.caption: caption)
            video = to_uint8(torch.cat([piece.frames_TCHW for piece in pieces]))
            change = np.divide(seams.changes(video), true, out=np.zeros_like(true), where=true > 0)
            score, worst = seams.scores(change, joined)
            keep_slice(asked.out, "refine", way, number, video[:, SIDE])
            yield {"part": "refine", "way": way, "number": number, "score": score, "worst": worst}


def keep_slice(folder: Path, part: str, way: str, number: int, row_TWC: np.ndarray) -> None:
    """Keep the middle row of every frame as an image."""
    (folder / "slices").mkdir(exist_ok=True)
    Image.fromarray(row_TWC).save(folder / "slices" / f"{part}-{way.replace(' ', '-')}-{number}.png")


def table(items: list[dict], part: str, values: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines: means, and how much more than the reference on the same videos; intervals are of
    95 %.
    """
    names = list(dict.fromkeys(item["way"] for item in items if item["part"] == part))
    by = {n: {i["number"]: i for i in items if i["part"] == part and i["way"] == n} for n in names}
    reference, lines = by.get(REFERENCE[part], {}), []
    for name in names:
        line = [name, str(len(by[name]))]
        for value in values:
            found = {k: {0: item[value]} for k, item in by[name].items() if item[value] is not None}
            base = {k: {0: item[value]} for k, item in reference.items() if item[value] is not None}
            for estimate in (bootstrap({k: [v[0]] for k, v in found.items()}), paired(base, found)):
                line.append("{:.3f} [{:.3f}, {:.3f}]".format(*estimate[:3]))
        lines.append(line)
    return ["way", "videos", *(c for v in values for c in (v, f"{v}, more than {REFERENCE[part]}"))], lines


def write_page(page: Path, items: list[dict], asked: argparse.Namespace) -> None:
    """Write the tables, and slices through time of the first videos."""
    command = (
        f"-o FOLDER --prompts {asked.prompts} --frames {asked.frames} --videos {asked.videos} --page {page}"
    )
    sections = [
        "# The included model as a stock pipeline",
        f"Written by `python -m lab.compare.pipelines {command}`, whose help describes the comparison.",
        "Seam and score: 1.0 where no seam is to be seen. MAWE and colour: lower is better.",
    ]
    (page.parent / "images").mkdir(parents=True, exist_ok=True)
    for part, title, values, starts in (
        ("extend", "Extending", VALUES, range(CHUNK, asked.frames, CHUNK - OVERLAP)),
        ("refine", "Refining", ("score", "worst"), range(12, asked.refined_frames, 12)),
    ):
        image = f"images/pipelines-{part}.png"
        names = dict.fromkeys(item["way"] for item in items if item["part"] == part)
        files = {name: asked.out / "slices" / f"{part}-{name.replace(' ', '-')}-0.png" for name in names}
        tracks = [
            Track(name, row_TWC=np.asarray(Image.open(file)), borders=starts) for name, file in files.items()
        ]
        draw_slices(tracks, page.parent / image)
        sections += [f"## {title}", markdown(*table(items, part, values))]
        sections += ["The middle row of every frame of the first video:", f"![Slices through time]({image})"]
    durable.write_file(page, "\n\n".join(sections).encode() + b"\n")


def main() -> None:
    """Make what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of finished items and slices")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--videos", type=int, default=12, help="clips to refine")
    parser.add_argument(
        "--refined-frames", type=int, default=52, help="of each, windows without a rest: 16 + 12 k"
    )
    parser.add_argument("--page", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / "items.jsonl"
    items = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(item["part"], item["way"], item["number"]) for item in items}
    pipe = LongVideoPipeline.from_pretrained("tiny")
    first, second = stock(pipe)
    with path.open("a") as file:
        for make, network in ((extend_items, first), (refine_items, second)):
            for item in make(pipe, network, asked, done):
                items.append(item)
                print(json.dumps(item), file=file, flush=True)
                print(item, file=sys.stderr, flush=True)
    for part, values in (("extend", VALUES), ("refine", ("score", "worst"))):
        head, lines = table(items, part, values)
        print("\n".join(" | ".join(cells) for cells in (head, *lines)))
    if asked.page is not None:
        write_page(asked.page, items, asked)


if __name__ == "__main__":
    main()
