"""Metrics on streamed frames: a video is read once, and metrics keep numbers, not frames.

`Look` is a frame with its brightness, change, flow and embedding. Each is computed once, when first used, and
shared by all metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..video.reader import Frame
from .mawe import pair_error

if TYPE_CHECKING:  # both import torch, which most metrics do without
    from .eyes import Eyes
    from .flow import Flow

END = 0.15
"""Share of a video that counts as its beginning, and as its end (like Helios's drift)."""


@dataclass(frozen=True)
class Tools:
    """Flow estimator and encoders; None if no metric needs them."""

    flow: Flow | None = None
    eyes: Eyes | None = None


class Look:
    """Frame `index` of a video, uint8 (H, W, 3), with the one `before` it (None for the first)."""

    def __init__(self, index: int, frame_HWC: Frame, before: Look | None, tools: Tools):
        self.index, self.frame_HWC, self.before, self._tools = index, frame_HWC, before, tools

    @cached_property
    def luma_HW(self) -> np.ndarray:
        """Return the brightness by ITU-R BT.601 in 8-bit levels, float64."""
        return self.frame_HWC @ np.array([0.299, 0.587, 0.114])

    @cached_property
    def change(self) -> float:
        """Return the mean absolute difference from the frame before, 8-bit levels; NaN for the first."""
        if self.before is None:
            return float("nan")
        return float(np.abs(self.frame_HWC.astype(np.int16) - self.before.frame_HWC).mean())

    @cached_property
    def sharpness(self) -> float:
        """Return the variance of the brightness's Laplacian, of 4 neighbours, without the border."""
        y = self.luma_HW
        return float(np.var(y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]))

    @cached_property
    def embedding_D(self) -> np.ndarray:
        """Return the frame's embedding, a unit vector (D,)."""
        assert self._tools.eyes is not None, "a metric that sees was made without eyes"
        return self._tools.eyes.see(self.frame_HWC)

    @cached_property
    def warp(self) -> tuple[float, float]:
        """Return (error, motion) from the frame before, see `mawe.pair_error`; NaN for the first frame."""
        if self.before is None:
            return float("nan"), float("nan")
        assert self._tools.flow is not None, "a metric of motion was made without flow"
        before_HWC, after_HWC = self.before.scaled_HWC, self.scaled_HWC
        flow_2HW = self._tools.flow.estimate(before_HWC, after_HWC)
        return pair_error(before_HWC.transpose(2, 0, 1), after_HWC.transpose(2, 0, 1), flow_2HW)

    @cached_property
    def scaled_HWC(self) -> Frame:
        """Return the frame at the size for flow."""
        assert self._tools.flow is not None, "a metric of motion was made without flow"
        return self._tools.flow.scaled(self.frame_HWC)


@dataclass(frozen=True)
class Result:
    """Results by name. values: NaN if undefined. curves: (T,), NaN for gaps. events: frame numbers."""

    values: dict[str, float]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    events: dict[str, list[int]] = field(default_factory=dict)


class Metric(Protocol):
    """A metric gets every frame of one video in order, keeps numbers, and then gives its result."""

    def update(self, look: Look) -> None:
        """Take the next frame."""

    def result(self) -> Result:
        """Return the result of the frames so far."""


def looks(frames: Iterable[Frame], tools: Tools) -> Iterator[Look]:
    """Yield the frames as `Look`s, keeping only two at a time."""
    before = None
    for index, frame_HWC in enumerate(frames):
        look = Look(index, frame_HWC, before, tools)
        yield look
        look.before, before = None, look


def measure(frames: Iterable[Frame], metrics: Sequence[Metric], tools: Tools | None = None) -> Result:
    """Take all metrics in one pass over the frames; return their results together."""
    for look in looks(frames, tools or Tools()):
        for metric in metrics:
            metric.update(look)
    results = [metric.result() for metric in metrics]
    return Result(
        {name: float(value) for result in results for name, value in result.values.items()},
        {name: curve for result in results for name, curve in result.curves.items()},
        {name: frames for result in results for name, frames in result.events.items()},
    )


def ends(curve: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last `END` of a curve without its NaNs, at least one value each."""
    known = np.asarray(curve, np.float64)
    known = known[~np.isnan(known)]
    count = max(1, round(END * len(known)))
    return known[:count], known[len(known) - count :] if len(known) else known


def mean(values: ArrayLike) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def ratio(above: float, below: float) -> float:
    """Return above / below; NaN for 0 / 0, infinite for other divisions by 0."""
    if below == 0:
        return float("inf") if above > 0 else float("nan")
    return above / below
