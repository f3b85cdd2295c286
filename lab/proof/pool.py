"""Clips for training, each drawn once and used a few times: drawing costs a quarter of a step.

A pool keeps the latest clips as latents; a batch takes some new ones and the rest at random from the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lab.world2 import clip, motion

from .code import PATCH, PatchCode, to_pixels

SHARED = 4  # single pictures of one clip


@dataclass
class Example:
    """`latents` (C, T, h, w) float16; `cover` (T, h, w): how much of a cell is the thing."""

    latents: torch.Tensor
    cover: torch.Tensor
    spec: clip.ClipSpec


def start_of(spec: clip.ClipSpec, rng: np.random.Generator) -> float:
    """A random second to begin at. First chunks of hide and seek mostly begin with the thing in sight."""
    if spec.motion in ("hide", "away") and rng.random() < 0.75:
        cycle = motion.cycle(spec.motion, spec.pose)
        return (1 - spec.pose.phase) * cycle + rng.uniform(-0.6, 0.8) * spec.pose.waits[1]
    return float(rng.uniform(0, 8))


def draw(rng: np.random.Generator, code: PatchCode, frames: int, size: int = 64) -> list[Example]:
    """Draw a clip, or for one frame `SHARED` pictures of a clip: the scenery is most of the cost."""
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
    """`fresh`: share of a batch that is newly drawn."""

    def __init__(self, code: PatchCode, frames: int, size: int, fresh: float, rng: np.random.Generator):
        self.code, self.frames, self.size, self.fresh, self.rng = code, frames, size, fresh, rng
        self.examples: list[Example] = []

    def batch(self, count: int) -> list[Example]:
        new = count if len(self.examples) < 4 * count else int(self.fresh * count + self.rng.random())
        drawn: list[Example] = []
        while len(drawn) < new:
            drawn += draw(self.rng, self.code, self.frames)
        for example in drawn:
            if len(self.examples) < self.size:
                self.examples.append(example)
            else:
                self.examples[int(self.rng.integers(self.size))] = example
        chosen = self.rng.integers(len(self.examples), size=max(0, count - len(drawn)))
        return drawn[:count] + [self.examples[i] for i in chosen]
