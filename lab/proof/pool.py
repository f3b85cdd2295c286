"""Training clips, each drawn once and used several times, since drawing costs a quarter of a step.

A pool keeps the latest clips as latents; a batch takes some new ones and random older ones.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F

from lab.world2 import clip, motion

from .code import PATCH, PatchCode, to_pixels

SHARED = 4  # images drawn from one clip


@dataclass
class Example:
    """`latents` (C, T, h, w) float16; `cover` (T, h, w): the subject's share of each cell."""

    latents: torch.Tensor
    cover: torch.Tensor
    spec: clip.ClipSpec


def start_of(spec: clip.ClipSpec, rng: np.random.Generator) -> float:
    """Return a random start in seconds; first chunks of hide and seek mostly start with the subject in
    sight.
    """
    if spec.motion in ("hide", "away") and rng.random() < 0.75:
        cycle = motion.cycle(spec.motion, spec.pose)
        return (1 - spec.pose.phase) * cycle + rng.uniform(-0.6, 0.8) * spec.pose.waits[1]
    return float(rng.uniform(0, 8))


def draw(rng: np.random.Generator, code: PatchCode, frames: int, size: int = 64) -> list[Example]:
    """Draw a clip, or for one frame `SHARED` images of a clip: scenery is most of the cost."""
    spec = clip.sample(int(rng.integers(2**62)))
    times = (
        clip.frame_times(frames, start_of(spec, rng))
        if frames > 1
        else start_of(spec, rng) + rng.uniform(0, 4, SHARED)
    )
    pixels, mask = clip.render(spec, times, size)
    cover = F.avg_pool2d(torch.from_numpy(mask)[:, None], PATCH)[:, 0].half()
    latents = code.encode(to_pixels(pixels)).transpose(0, 1).half()
    if frames > 1:
        return [Example(latents, cover, spec)]
    return [Example(latents[:, i : i + 1].clone(), cover[i : i + 1].clone(), spec) for i in range(SHARED)]


class Pool:
    """`fresh`: share of new clips in a batch. `side`: of the images in pixels.

    `workers`: processes that draw continuously, for devices that learn faster than clips are drawn; a batch
    takes what is ready.
    """

    def __init__(
        self,
        code: PatchCode,
        frames: int,
        size: int,
        fresh: float,
        rng: np.random.Generator,
        workers: int = 0,
        side: int = 64,
    ):
        self.code, self.frames, self.size, self.fresh, self.rng = code, frames, size, fresh, rng
        self.side = side
        self.examples: list[Example] = []
        self.pending: list[Future[list[Example]]] = []
        self.workers = ProcessPoolExecutor(workers, get_context("spawn")) if workers else None
        for _ in range(3 * workers):
            self._ask()

    def batch(self, count: int) -> list[Example]:
        drawn = self._drawn_ahead(count) if self.workers else self._drawn_now(count)
        for example in drawn:
            if len(self.examples) < self.size:
                self.examples.append(example)
            else:
                self.examples[int(self.rng.integers(self.size))] = example
        chosen = self.rng.integers(len(self.examples), size=max(0, count - len(drawn)))
        return drawn[:count] + [self.examples[i] for i in chosen]

    def _drawn_now(self, count: int) -> list[Example]:
        new = count if len(self.examples) < 4 * count else int(self.fresh * count + self.rng.random())
        drawn: list[Example] = []
        while len(drawn) < new:
            drawn += draw(self.rng, self.code, self.frames, self.side)
        return drawn

    def _drawn_ahead(self, count: int) -> list[Example]:
        """Return the ready clips; initially wait for a full batch."""
        drawn: list[Example] = []
        while True:
            ready = [f for f in self.pending if f.done()]
            for future in ready:
                drawn += future.result()
                self.pending.remove(future)
                self._ask()
            if len(self.examples) + len(drawn) >= count:
                return drawn
            wait(self.pending, return_when=FIRST_COMPLETED)

    def _ask(self) -> None:
        assert self.workers is not None
        seed = int(self.rng.integers(2**62))
        self.pending.append(self.workers.submit(_draw_some, seed, self.code, self.frames, self.side))


def _draw_some(seed: int, code: PatchCode, frames: int, side: int, clips: int = 8) -> list[Example]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    return [example for _ in range(clips) for example in draw(rng, code, frames, side)]
