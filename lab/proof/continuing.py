"""Clips for training the memories: a window, its continuation, and an anchor that may show more.

In a third of the clips the subject is out of sight during the window and returns afterwards, while the anchor
shows it. In a tenth the window shows another scene; caption and anchor lead back to an earlier one (there and
back).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from lab.world2 import clip, motion, vocabulary

from .code import PATCH, PatchCode, to_pixels

FRAMES, OVERLAP = 16, 8
HIDDEN, BACK, STILL = 0.33, 0.1, 0.05  # shares of clips


@dataclass
class Continuation:
    """`latents` (C, T, h, w): window and target. `cover` (T, h, w). `anchor` (3, H, W) in [-1, 1]."""

    latents: torch.Tensor
    cover: torch.Tensor
    anchor: torch.Tensor
    spec: clip.ClipSpec


def draw(rng: np.random.Generator, code: PatchCode, with_anchor: bool, size: int = 64) -> Continuation:
    """Draw a clip. For CAM alone (no anchor), omit what only an anchor could know."""
    kind = rng.random()
    if with_anchor and kind < HIDDEN:
        spec, times, anchor = _hidden(rng)
    else:
        spec = clip.sample(int(rng.integers(2**62)))
        start = rng.uniform(4, 12)
        times, anchor = clip.frame_times(FRAMES, start), start - rng.uniform(0.1, 4)
        if kind > 1 - STILL:  # a video that starts from an image: the window repeats one frame
            times = times[OVERLAP - 1] + np.maximum(0, np.arange(FRAMES) - OVERLAP + 1) / clip.FPS
    pixels, mask = clip.render(spec, np.append(times, anchor), size)
    if with_anchor and 1 - STILL - BACK < kind <= 1 - STILL:
        pixels[:OVERLAP], mask[:OVERLAP] = clip.render(elsewhere(spec, rng), times[:OVERLAP], size)
    cover = F.avg_pool2d(torch.from_numpy(mask[:-1])[:, None], PATCH)[:, 0]
    frames = to_pixels(pixels)
    return Continuation(code.encode(frames[:-1]).transpose(0, 1), cover, frames[-1], spec)


def elsewhere(spec: clip.ClipSpec, rng: np.random.Generator) -> clip.ClipSpec:
    """Return the same subject in another scene."""
    scenes = [s.name for s in vocabulary.SCENES if s.name != spec.scene]
    return replace(spec, scene=scenes[rng.integers(len(scenes))], arrangement=int(rng.integers(2**31)))


def _hidden(rng: np.random.Generator) -> tuple[clip.ClipSpec, np.ndarray, float]:
    """Return a clip that hides its subject during the window, its frame times, and an earlier time in full
    sight.
    """
    spec = clip.sample(
        int(rng.integers(2**62)), motion=("hide", "away")[int(rng.integers(2))], told_looks=0.15
    )
    cycle, (gone_from, back_at) = (
        motion.cycle(spec.motion, spec.pose),
        motion.out_of_sight(spec.motion, spec.pose),
    )
    began = (2 - spec.pose.phase) * cycle  # the subject is in sight and about to leave
    window = OVERLAP / clip.FPS
    first = began + rng.uniform(gone_from, max(gone_from, back_at - window))
    return spec, clip.frame_times(FRAMES, first), began + rng.uniform(0, spec.pose.waits[1])
