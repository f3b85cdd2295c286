"""Randomized blending of overlapping windows: a plan, and its application (spec 6.5).

In each overlap there is one hard cut; it moves at random from step to step, and the steps average to a soft transition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch

Law = Literal["code", "paper"]
"""How the cut falls in an overlap of O frames: "code" uniform in 0..O-1 (as published: the last frame is never the left
window's), "paper" uniform in 0..O (symmetric)."""

Draw = Callable[[int, int], int]
"""(number of the overlap, from 0; high) -> a uniform integer in [0, high), for instance from `noise.integer`."""


def windows(num_frames: int | None, window: int, overlap: int, start: int = 0) -> Iterator[range]:
    """Windows of `window` frames that cover frames 0..num_frames exactly, neighbours sharing `overlap` frames or more.

    The last one is anchored to the end, so its overlap may be larger; a video that fits into one window gets one of its own length.
    num_frames: None for windows without end. start: first frame of the window to begin with, one that this has given before, or
    `num_frames` for no more. Raises ValueError unless 0 <= overlap < window and num_frames >= 1.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap={overlap} must be 0 or more and below window={window}")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be 1 or more")
    while num_frames is None or start < num_frames:
        stop = start + window if num_frames is None else min(start + window, num_frames)
        yield range(start, stop)
        if stop == num_frames:
            return
        start = stop - overlap if num_frames is None else min(stop - overlap, num_frames - window)


def plan_seams(plan: Sequence[range], law: Law, draw: Draw) -> tuple[int, ...]:
    """For each window the first frame that is taken from it; the later window wins from its seam on."""
    seams = [plan[0].start]
    for number, (left, right) in enumerate(pairwise(plan)):
        shared = left.stop - right.start
        choices = shared + 1 if law == "paper" else max(1, shared)
        seams.append(right.start + draw(number, choices))
    return tuple(seams)


def assemble(parts_BCTHW: Sequence[torch.Tensor], plan: Sequence[range], seams: Sequence[int]) -> torch.Tensor:
    """One (B, C, T, H, W) video from each window's part."""
    pieces = []
    stop = plan[-1].stop
    for part_BCTHW, window, seam in reversed(list(zip(parts_BCTHW, plan, seams, strict=True))):
        if seam < stop:
            pieces.append(part_BCTHW[:, :, seam - window.start : stop - window.start])
            stop = seam
    return torch.cat(pieces[::-1], dim=2)
