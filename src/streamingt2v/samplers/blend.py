"""Randomized blending of overlapping windows: a plan, and its application (method.md: Randomized blending).

In each overlap there is one hard cut; it moves at random from step to step, and the steps average to a soft transition.
The linear cross-fade is there to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from typing import Literal

import torch

Law = Literal["code", "paper"]
"""Law of the cut in an overlap of O frames: "code" uniform in 0..O-1 (as published: the last frame is never the left
window's), "paper" uniform in 0..O (symmetric)."""

Draw = Callable[[int, int], int]
"""(number of the overlap, from 0; high) -> a uniform integer in [0, high), for instance from `noise.integer`."""


def window_at(number: int, num_frames: int | None, window: int, overlap: int) -> range | None:
    """The frames of a window by its number, from 0; None after the last.

    Windows of `window` frames cover frames 0..num_frames exactly, neighbours sharing `overlap` frames or more. The last one is anchored
    to the end, so its overlap may be larger; a video that fits into one window gets one of its own length. With an overlap of more
    than half a window, a frame is in three or more. num_frames: None for windows without end.
    Raises ValueError unless 0 <= overlap < window and num_frames >= 1.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap={overlap} must be 0 or more and below window={window}")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be 1 or more")
    start = number * (window - overlap)
    if num_frames is None or start + window <= num_frames:
        return range(start, start + window)
    if number and start + overlap >= num_frames:  # the window before reached the end
        return None
    return range(max(0, num_frames - window), num_frames)


def windows(num_frames: int | None, window: int, overlap: int) -> Iterator[range]:
    """All windows, see `window_at`."""
    for number in count():
        frames = window_at(number, num_frames, window, overlap)
        if frames is None:
            return
        yield frames


def seam(number: int, left: range, right: range, law: Law, draw: Draw) -> int:
    """The first frame that is taken from the right one of two neighbouring windows, which share overlap `number`."""
    shared = left.stop - right.start
    return right.start + draw(number, shared + 1 if law == "paper" else max(1, shared))


def plan_seams(plan: Sequence[range], law: Law, draw: Draw) -> tuple[int, ...]:
    """For each window the first frame that is taken from it; the later window wins from its seam on."""
    return (
        plan[0].start,
        *(seam(number, left, right, law, draw) for number, (left, right) in enumerate(pairwise(plan))),
    )


def assemble(
    parts_BCTHW: Sequence[torch.Tensor], plan: Sequence[range], seams: Sequence[int]
) -> torch.Tensor:
    """One (B, C, T, H, W) video from each window's part."""
    pieces = []
    stop = plan[-1].stop
    for part_BCTHW, window, seam in reversed(list(zip(parts_BCTHW, plan, seams, strict=True))):
        if seam < stop:
            pieces.append(part_BCTHW[:, :, seam - window.start : stop - window.start])
            stop = seam
    return torch.cat(pieces[::-1], dim=2)


def cross_fade(parts_BCTHW: Sequence[torch.Tensor], plan: Sequence[range], frames: range) -> torch.Tensor:
    """(B, C, T, H, W) of `frames`: each window fades in linearly over what it shares with the one before.

    parts_BCTHW: of each window its share of `frames`; the last window must reach to their end.
    """
    first = parts_BCTHW[0]
    video_BCTHW = first.new_zeros(*first.shape[:2], len(frames), *first.shape[3:])
    for number, (part_BCTHW, window) in enumerate(zip(parts_BCTHW, plan, strict=True)):
        start = max(window.start, frames.start)
        place = video_BCTHW[:, :, start - frames.start :][:, :, : part_BCTHW.shape[2]]
        shared = plan[number - 1].stop - window.start if number else 0
        risen = torch.arange(start - window.start + 1, start - window.start + 1 + part_BCTHW.shape[2]).to(
            first
        )
        weight = (risen / (shared + 1)).clamp(max=1).view(-1, 1, 1)
        place.copy_(place * (1 - weight) + part_BCTHW * weight)
    return video_BCTHW
