"""Measure generated videos against the world's ground truth: scroll speed, seams, spans out of sight.

    python -m lab.proof.measures        # accuracy of the measures on true clips

Measure seams with independent noise per chunk and without crossfade; both hide what a memory does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lab.world2 import clip, motion
from streamingt2v.metrics.flow import dis

_BORDER = 0.2  # share of the width on each side where scenery is measured; the subject is in the middle
_UPPER, _LOWER = 0.25, 0.78  # rows that show scenery
_EDGE = 3.0  # least brightness step between pixels (of 255) in the enlarged image


@dataclass(frozen=True)
class Scroll:
    """`speeds` (T - 1,) in image heights per frame, positive to the right; NaN where unmeasurable."""

    speeds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.nanmedian(self.speeds)) if np.isfinite(self.speeds).any() else 0.0

    @property
    def one_way(self) -> float:
        """Return the share of frames that move in the majority's direction."""
        moving = self.speeds[np.abs(self.speeds) > 0.25 / 64]
        return (
            float(max((moving > 0).mean(), (moving < 0).mean())) * len(moving) / len(self.speeds)
            if len(moving)
            else 0.0
        )


def scroll(frames_THWC: np.ndarray) -> Scroll:
    """Measure the speed of near scenery: optical flow of edges at the left and right borders.

    Far scenery moves more slowly, the sky not at all: a frame's speed is the 90th percentile of its edges.
    """
    estimator = dis()
    gray = [_gray(frame) for frame in frames_THWC]
    large = [np.repeat(g[..., None], 3, -1) for g in gray]
    height, width = gray[0].shape
    looked_at = np.zeros((height, width), bool)
    looked_at[round(_UPPER * height) : round(_LOWER * height)] = True
    looked_at[:, round(_BORDER * width) : -round(_BORDER * width)] = False
    speeds = []
    for before, after, picture in zip(large[:-1], large[1:], gray[:-1], strict=True):
        edges = np.abs(np.gradient(picture.astype(np.float32), axis=1)) > _EDGE
        along = -estimator.estimate(before, after)[0][looked_at & edges]
        if len(along) < 10:
            speeds.append(np.nan)
            continue
        way = 1.0 if along.mean() >= 0 else -1.0
        speeds.append(way * np.percentile(way * along, 90) / height)
    return Scroll(np.array(speeds))


def _gray(frame_HWC: np.ndarray) -> np.ndarray:
    """Return brightness, uint8, enlarged three times for subpixel flow."""
    picture = Image.fromarray(frame_HWC).convert("L")
    return np.asarray(picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.BICUBIC))


def true_speed(spec: clip.ClipSpec, frames: int, start: float = 0.0) -> np.ndarray:
    """Return the camera's speed on the ground layer, (T - 1,) in image heights per frame."""
    return np.diff(clip.poses(spec, clip.frame_times(frames, start)).camera)


def seams(frames_THWC: np.ndarray, borders: Sequence[int]) -> float:
    """Return the mean change at chunk borders over the mean change elsewhere; 1: no visible border."""
    change = np.abs(np.diff(frames_THWC.astype(np.float32), axis=0)).mean((1, 2, 3))
    at = np.isin(np.arange(1, len(frames_THWC)), list(borders))
    inside = float(change[~at].mean())
    return float(change[at].mean()) / inside if inside > 0 else float("inf")


def comes_back(before: np.ndarray, after: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Return whether `after` shows the scenery of `before` rather than that of any other video.

    All uint8 (T, H, W, 3) of one scene, time of day and prompt, with a camera that stands. What they have in
    common is subtracted; chance is 1 in len(others) + 1.
    """
    looks = np.stack([_borders(frames) for frames in (before, *others)])
    common = looks.mean(0)
    seen = _borders(after) - common
    likeness = [np.sum(seen * (look - common)) / (np.linalg.norm(look - common) + 1e-9) for look in looks]
    return int(np.argmax(likeness)) == 0


def _borders(frames_THWC: np.ndarray) -> np.ndarray:
    """Return the mean image at half size, left and right borders alone: the subject stands in the middle."""
    mean = frames_THWC.astype(np.float32).mean(0)
    height, width = (side // 2 * 2 for side in mean.shape[:2])
    small = mean[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    edge = max(1, round(_BORDER * small.shape[1]))
    return np.concatenate([small[:, :edge], small[:, -edge:]], 1)


def sharpness(frames_THWC: np.ndarray) -> float:
    """Return the mean squared gradient of a video's pixels in [0, 255]."""
    frames = frames_THWC.astype(np.float32)
    return float(sum((np.diff(frames, axis=axis) ** 2).mean() for axis in (1, 2)))


def hidden_spans(covers_T: np.ndarray, least: int = 9, covered: float = 1.0) -> list[tuple[int, int]]:
    """Return spans (first, end) of at least `least` frames with less than `covered` pixels of the subject."""
    hidden = np.concatenate([[False], covers_T < covered, [False]]).astype(int)
    edges = np.diff(hidden)
    return [
        (int(a), int(b))
        for a, b in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
        if b - a >= least
    ]


def check(clips: int = 24, frames: int = 48) -> dict[str, float]:
    """Return the measures' results on true clips, where they must be right before they count elsewhere."""
    right, one_way = [], []
    for seed in range(clips):
        spec = clip.sample((79, seed), motion="run")
        made = scroll(clip.render(spec, clip.frame_times(frames))[0])
        true = float(np.median(true_speed(spec, frames)))
        right.append(abs(made.median - true) <= 0.25 * abs(true))
        one_way.append(made.one_way >= 0.85)
    still = [
        abs(scroll(clip.render(clip.sample((80, s), motion="jump"), clip.frame_times(16))[0]).median) * 64
        for s in range(8)
    ]
    smooth = [
        seams(clip.render(clip.sample((81, s)), clip.frame_times(frames))[0], range(16, frames, 8))
        for s in range(clips)
    ]
    return {
        "speed within 25 %": float(np.mean(right)),
        "one direction": float(np.mean(one_way)),
        "pixels a frame where nothing goes by": float(np.mean(still)),
        "seam": float(np.mean(smooth)),
        "fastest": motion.FASTEST * 64,
    }


if __name__ == "__main__":
    print(check())
