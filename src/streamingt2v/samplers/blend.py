"""Randomized blending of overlapping windows: a plan, and its application (spec 6.5).

In each overlap there is one hard cut; it moves at random from step to step, and the steps average to a soft transition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch

Law = Literal["code", "paper"]
"""How the cut falls in an overlap of O frames: "code" uniform in 0..O-1 (as published: the last frame is never the left
window's), "paper" uniform in 0..O (symmetric)."""

Draw = Callable[[int, int], int]
"""(number of the overlap, from 0; high) -> a uniform integer in [0, high), for instance from `noise.integer`."""


def plan_windows(num_frames: int, window: int, overlap: int) -> tuple[range, ...]:
    """Windows of `window` frames that cover frames 0..num_frames exactly, neighbours sharing `overlap` frames or more.

    The last one is anchored to the end, so its overlap may be larger; a video that fits into one window gets one of its own length.
    Raises ValueError unless 0 <= overlap < window and num_frames >= 1.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap={overlap} must be 0 or more and below window={window}")
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be 1 or more")
    last = max(0, num_frames - window)
    starts = [*range(0, last, window - overlap), last]
    return tuple(range(start, min(start + window, num_frames)) for start in starts)


def plan_seams(windows: Sequence[range], law: Law, draw: Draw) -> tuple[int, ...]:
    """For each window the first frame that is taken from it; the later window wins from its seam on."""
    seams = [windows[0].start]
    for number, (left, right) in enumerate(pairwise(windows)):
        shared = left.stop - right.start
        choices = shared + 1 if law == "paper" else max(1, shared)
        seams.append(right.start + draw(number, choices))
    return tuple(seams)


def owners(windows: Sequence[range], seams: Sequence[int]) -> tuple[int, ...]:
    """For each frame the number of the window that it is taken from."""
    return tuple(max(k for k, seam in enumerate(seams) if seam <= frame) for frame in range(windows[-1].stop))


def assemble(parts_BCTHW: Sequence[torch.Tensor], windows: Sequence[range], seams: Sequence[int]) -> torch.Tensor:
    """One (B, C, T, H, W) video from each window's part."""
    pieces = []
    stop = windows[-1].stop
    for part_BCTHW, window, seam in reversed(list(zip(parts_BCTHW, windows, seams, strict=True))):
        if seam < stop:
            pieces.append(part_BCTHW[:, :, seam - window.start : stop - window.start])
            stop = seam
    return torch.cat(pieces[::-1], dim=2)
