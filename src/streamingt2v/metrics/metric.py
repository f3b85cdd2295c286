"""Metrics on streamed frames: a video is read once, every metric sees each frame once, and nothing is kept of a frame but numbers.

`Look` is a frame and what may be asked of it: gray, change, flow, embedding. Each is computed when the first metric asks and then
shared, so ten metrics on motion cost one optical flow.
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
"""Share of a video that its beginning is, and its end, where the two are compared (as Helios measures drift)."""


@dataclass(frozen=True)
class Tools:
    """Tools for looking at frames; None for those that no metric asks for."""

    flow: Flow | None = None
    eyes: Eyes | None = None


class Look:
    """Frame `index` of a video, uint8 (H, W, 3), with the one `before` it (None for the first)."""

    def __init__(self, index: int, frame_HWC: Frame, before: Look | None, tools: Tools):
        self.index, self.frame_HWC, self.before, self._tools = index, frame_HWC, before, tools

    @cached_property
    def luma_HW(self) -> np.ndarray:
        """Brightness by ITU-R BT.601 in 8-bit levels, float64."""
        return self.frame_HWC @ np.array([0.299, 0.587, 0.114])

    @cached_property
    def change(self) -> float:
        """Mean absolute difference from the frame before, over pixels and colours, in 8-bit levels; NaN for the first frame."""
        if self.before is None:
            return float("nan")
        return float(np.abs(self.frame_HWC.astype(np.int16) - self.before.frame_HWC).mean())

    @cached_property
    def sharpness(self) -> float:
        """Variance of the brightness's Laplacian, over the 4 neighbours and without the border."""
        y = self.luma_HW
        return float(np.var(y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]))

    @cached_property
    def embedding_D(self) -> np.ndarray:
        """Return what the eyes make of the frame: (D,), of length 1."""
        assert self._tools.eyes is not None, "a metric that sees was made without eyes"
        return self._tools.eyes.see(self.frame_HWC)

    @cached_property
    def warp(self) -> tuple[float, float]:
        """(error, motion) from the frame before to this one, see `mawe.pair_error`; NaN for the first frame."""
        if self.before is None:
            return float("nan"), float("nan")
        assert self._tools.flow is not None, "a metric of motion was made without flow"
        flow_2HW = self._tools.flow.estimate(self.before.scaled_HWC, self.scaled_HWC)
        return pair_error(
            self.before.scaled_HWC.transpose(2, 0, 1), self.scaled_HWC.transpose(2, 0, 1), flow_2HW
        )

    @cached_property
    def scaled_HWC(self) -> Frame:
        """The frame at the size that flow is measured at."""
        assert self._tools.flow is not None, "a metric of motion was made without flow"
        return self._tools.flow.scaled(self.frame_HWC)


@dataclass(frozen=True)
class Result:
    """values: numbers by name, NaN where the video does not define them. curves: one number a frame (T,), NaN where there is none.

    events: frame numbers by name.
    """

    values: dict[str, float]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    events: dict[str, list[int]] = field(default_factory=dict)


class Metric(Protocol):
    """Sees every frame of one video in order, then tells its result. Keeps numbers, never frames by their count."""

    def update(self, look: Look) -> None:
        """The next frame."""

    def result(self) -> Result:
        """Return what the frames so far amount to."""


def looks(frames: Iterable[Frame], tools: Tools) -> Iterator[Look]:
    """The frames as `Look`s; only two of them are alive at a time."""
    before = None
    for index, frame_HWC in enumerate(frames):
        look = Look(index, frame_HWC, before, tools)
        yield look
        look.before, before = None, look


def measure(frames: Iterable[Frame], metrics: Sequence[Metric], tools: Tools | None = None) -> Result:
    """All metrics over one pass of the frames, their results together."""
    for look in looks(frames, tools or Tools()):
        for metric in metrics:
            metric.update(look)
    results = [metric.result() for metric in metrics]
    return Result(
        {name: float(value) for result in results for name, value in result.values.items()},
        {name: curve for result in results for name, curve in result.curves.items()},
        {name: frames for result in results for name, frames in result.events.items()},
    )


def ends(curve: ArrayLike, share: float = END) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last `share` of a curve, at least one value each; numbers that are NaN left out."""
    known = np.asarray(curve, np.float64)
    known = known[~np.isnan(known)]
    count = max(1, round(share * len(known)))
    return known[:count], known[len(known) - count :] if len(known) else known


def mean(values: ArrayLike) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def ratio(above: float, below: float) -> float:
    """above / below; NaN where nothing is compared with nothing, infinite where something is."""
    if below == 0:
        return float("inf") if above > 0 else float("nan")
    return above / below
