"""Metrics of appearance: flicker, sharpness, colour, drift from beginning to end, repetition, cuts."""

from collections import deque

import numpy as np

from ..errors import MissingExtra
from .metric import Look, Result, ends, mean, ratio

_LINEAR = np.where(
    np.arange(256) <= 0.04045 * 255,
    np.arange(256) / 255 / 12.92,
    ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4,
)
"""sRGB's 8-bit levels to linear light (IEC 61966-2-1)."""

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


class Flicker:
    """Compute `flicker`: mean absolute second difference of brightness, 8-bit levels; 0 for steady fades."""

    def __init__(self) -> None:
        self.brightness: list[float] = []

    def update(self, look: Look) -> None:
        self.brightness.append(float(look.luma_HW.mean()))

    def result(self) -> Result:
        flicker = mean(np.abs(np.diff(self.brightness, 2)))
        return Result({"flicker": flicker}, {"brightness": np.array(self.brightness)})


class Sharpness:
    """Compute `sharpness`: mean variance of the brightness's Laplacian (Pech-Pacheco et al. 2000)."""

    def __init__(self) -> None:
        self.sharpness: list[float] = []

    def update(self, look: Look) -> None:
        self.sharpness.append(look.sharpness)

    def result(self) -> Result:
        return Result({"sharpness": mean(self.sharpness)}, {"sharpness": np.array(self.sharpness)})


class ColourDrift:
    """Compute CIELAB distances (CIE 1976): `colour_drift`, from beginning to end, and `colour_end`.

    The first is of means, the second the mean distance of the end's frames from the first frame. A frame's
    colour is that of its mean light; beginning and end are `metric.END` of the video.
    """

    def __init__(self) -> None:
        self.lab: list[list[float]] = [[], [], []]

    def update(self, look: Look) -> None:
        for values, value in zip(self.lab, mean_lab(look.frame_HWC), strict=True):
            values.append(float(value))

    def result(self) -> Result:
        means = np.array([[part.mean() for part in ends(values)] for values in self.lab])
        lab = np.array(self.lab)
        away = np.linalg.norm(lab - lab[:, :1], axis=0)
        drift = float(np.linalg.norm(means[:, 1] - means[:, 0]))
        return Result({"colour_drift": drift, "colour_end": mean(ends(away)[1])}, {"colour_distance": away})


def mean_lab(frame_HWC: np.ndarray) -> np.ndarray:
    """Return CIELAB (L, a, b) under D65 of a frame's mean light."""
    light_C = _LINEAR[frame_HWC].mean((0, 1))
    x, y, z = (_TO_XYZ @ light_C) / _TO_XYZ.sum(1)
    fx, fy, fz = (v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


class Drift:
    """Compute `drift_*`: change of brightness, contrast, saturation and sharpness from beginning to end.

    Changes are relative: 0.1 is 10 % more at the end; beginning and end are the means of `metric.END` of the
    frames. Contrast is the standard deviation of the brightness, saturation the mean of largest minus
    smallest colour.
    """

    NAMES = ("brightness", "contrast", "saturation", "sharpness")

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {name: [] for name in self.NAMES}

    def update(self, look: Look) -> None:
        spread_HW = look.frame_HWC.max(-1) - look.frame_HWC.min(-1)
        values = (look.luma_HW.mean(), look.luma_HW.std(), spread_HW.mean(), look.sharpness)
        for name, value in zip(self.NAMES, values, strict=True):
            self.curves[name].append(float(value))

    def result(self) -> Result:
        return Result({f"drift_{name}": _relative(curve) for name, curve in self.curves.items()})


def _relative(curve: list[float]) -> float:
    first, last = (part.mean() for part in ends(curve))
    return 0.0 if first == last else ratio(last, first) - 1


class Repetition:
    """Compute `repetition`, likeness to earlier frames (0: none, 1: an exact loop), and `period`, its lag.

    distance(lag) is the mean absolute difference of frames `lag` apart, as `SIDE` x `SIDE` grey levels;
    repetition = max over lags of 1 - distance(lag) / (largest distance at a shorter lag). Lags go to
    `longest` frames or half the video, so that each has enough pairs.
    """

    SIDE = 8

    def __init__(self, longest: int = 128):
        self.longest = longest
        self.seen: deque[np.ndarray] = deque(maxlen=longest)
        self.sums, self.counts = np.zeros(longest), np.zeros(longest)

    def update(self, look: Look) -> None:
        small = block_means(look.luma_HW, self.SIDE)
        if self.seen:
            distances = np.abs(np.stack(self.seen)[::-1] - small).mean((1, 2))
            self.sums[: len(distances)] += distances
            self.counts[: len(distances)] += 1
        self.seen.append(small)

    def result(self) -> Result:
        frames = int(self.counts[0]) + 1
        lags = min(self.longest, frames // 2)
        distances = self.sums[:lags] / self.counts[:lags]
        peaks = np.maximum.accumulate(distances)
        moves = peaks > 0
        if not moves.any():  # nothing moves, so nothing comes back
            return Result({"repetition": 0.0, "period": float("nan")})
        dips = np.where(moves, 1 - distances / np.where(moves, peaks, 1), 0)
        lag = int(dips.argmax())
        period = float(lag + 1) if dips[lag] > 0 else float("nan")
        return Result({"repetition": float(dips[lag]), "period": period})


def block_means(image_HW: np.ndarray, side: int) -> np.ndarray:
    """Return the means of a grid of (nearly) equal blocks: (side, side)."""
    for axis in (0, 1):
        length = image_HW.shape[axis]
        count = min(side, length)
        starts = np.arange(count) * length // count
        sizes = np.diff([*starts, length])
        image_HW = np.add.reduceat(image_HW, starts, axis) / (sizes[:, None] if axis == 0 else sizes)
    return image_HW


class Cuts:
    """Count `cuts` by PySceneDetect's AdaptiveDetector at its defaults; the event `cuts` has the frames."""

    def __init__(self) -> None:
        from .flow import opencv  # imports torch

        opencv()
        try:
            from scenedetect.detectors import AdaptiveDetector
        except ImportError as error:
            raise MissingExtra("metrics", "eval") from error
        self.detector, self.found = AdaptiveDetector(), list[int]()

    def update(self, look: Look) -> None:
        from scenedetect import FrameTimecode

        time = FrameTimecode(look.index, 25.0)  # the rate does not matter: the detector counts frames
        cuts = self.detector.process_frame(time, np.ascontiguousarray(look.frame_HWC[..., ::-1]))
        self.found += [cut.frame_num for cut in cuts]

    def result(self) -> Result:
        return Result({"cuts": float(len(self.found))}, events={"cuts": list(self.found)})
