"""Randomized blending of overlapping windows: plan and application (method.md: Randomized blending).

Each overlap has one hard cut that moves randomly from step to step, so the steps average to a soft
transition. The linear cross-fade is there for comparison.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Literal

import torch

Law = Literal["code", "paper"]
"""Distribution of the cut in an overlap of O frames: "code" uniform in 0..O-1 (as published; the last frame
never comes from the left window), "paper" uniform in 0..O (symmetric).
"""

Draw = Callable[[int, int], int]
"""(number of the overlap, from 0; high) -> a uniform integer in [0, high), e.g. from `noise.integer`"""


def window_at(number: int, num_frames: int | None, window: int, overlap: int) -> range | None:
    """Return the frames of window `number` (from 0); None after the last.

    Windows of `window` frames cover 0..num_frames exactly; neighbours share at least `overlap` frames. The
    last window ends at the last frame, so its overlap may be larger; a shorter video gets one window of its
    own length. If overlap exceeds half a window, frames lie in three or more. num_frames None: endless
    windows. ValueError unless 0 <= overlap < window and num_frames >= 1.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap={overlap} must be 0 or more and below window={window}")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be 1 or more")
    start = number * (window - overlap)
    if num_frames is None or start + window <= num_frames:
        return range(start, start + window)
    if number and start + overlap >= num_frames:  # the previous window reached the end
        return None
    return range(max(0, num_frames - window), num_frames)


def windows(num_frames: int | None, window: int, overlap: int) -> Iterator[range]:
    """Yield all windows; see `window_at`."""
    for number in count():
        frames = window_at(number, num_frames, window, overlap)
        if frames is None:
            return
        yield frames


def seam(number: int, left: range, right: range, law: Law, draw: Draw) -> int:
    """Return the first frame taken from the right one of two neighbouring windows."""
    shared = left.stop - right.start
    return right.start + draw(number, shared + 1 if law == "paper" else max(1, shared))


def assemble(
    parts_BCTHW: Sequence[torch.Tensor], plan: Sequence[range], seams: Sequence[int]
) -> torch.Tensor:
    """Join the windows' parts at the seams into one video (B, C, T, H, W)."""
    pieces = []
    stop = plan[-1].stop
    for part_BCTHW, window, seam in reversed(list(zip(parts_BCTHW, plan, seams, strict=True))):
        if seam < stop:
            pieces.append(part_BCTHW[:, :, seam - window.start : stop - window.start])
            stop = seam
    return torch.cat(pieces[::-1], dim=2)


def cross_fade(parts_BCTHW: Sequence[torch.Tensor], plan: Sequence[range], frames: range) -> torch.Tensor:
    """Return `frames` as (B, C, T, H, W); each window fades in linearly over its overlap.

    parts_BCTHW: each window's share of `frames`; the last window must reach their end.
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
