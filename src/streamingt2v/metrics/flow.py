"""Optical flow, behind one small class: RAFT where torchvision and its weights are on this machine, else OpenCV's DIS.

The estimator's name belongs to every number that comes from it: flows of different estimators are not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import MediaError, MissingExtra, RequestError
from ..video.reader import Frame

SMALLEST = 32
"""Sides that DIS needs: below it the pyramid has no level on which a patch could move."""

RAFT_SMALLEST = 128
"""Sides that RAFT's pyramid of correlations needs; smaller frames are enlarged for it."""


@dataclass(frozen=True)
class Flow:
    """An estimator. name: for people and results. estimate: two frames (H, W, 3) uint8 to the flow (2, H, W) float32, pixels (dx, dy).

    size: frames are scaled to a square of this side before anything is measured; None leaves them as they are.
    """

    name: str
    estimate: Callable[[Frame, Frame], np.ndarray]
    size: int | None = None

    def scaled(self, frame_HWC: Frame) -> Frame:
        """The frame that flow and warp errors are taken on."""
        return frame_HWC if self.size is None else resized(frame_HWC, self.size, self.size)


def best_flow(size: int | None = None) -> Flow:
    """RAFT if it can be had without downloading anything, else DIS; MissingExtra if there is neither."""
    if size is not None and size < SMALLEST:
        raise RequestError("flow_size", size, f"must be {SMALLEST} or more")
    return raft(size) if raft_weights() is not None else dis(size)


def dis(size: int | None = None) -> Flow:
    """Dense inverse search (Kroeger et al. 2016), OpenCV's medium preset with its finest scale at full resolution.

    One thread: OpenCV's results have been the same for every number of threads tried, but nothing promises it.
    """
    cv2 = opencv()
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)

    def estimate(before_HWC: Frame, after_HWC: Frame) -> np.ndarray:
        check_size(before_HWC, SMALLEST)
        gray = [
            cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (before_HWC, after_HWC)
        ]
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return np.moveaxis(estimator.calc(*gray, None), -1, 0)
        finally:
            cv2.setNumThreads(threads)

    return Flow(f"OpenCV {cv2.__version__} DIS", estimate, size)


def raft(size: int | None = None, device: str = "cpu") -> Flow:
    """RAFT-large (Teed and Deng 2020) with torchvision's default weights, the last iterate, as the published MAWE takes it.

    RequestError if torchvision or the weights are missing: nothing is downloaded.
    """
    weights = raft_weights()
    if weights is None:
        raise RequestError(
            "flow",
            "raft",
            "needs torchvision, and its weights of raft_large in torch.hub's folder of checkpoints",
        )
    network = _raft_network(str(weights)).to(device)

    @torch.no_grad()
    def estimate(before_HWC: Frame, after_HWC: Frame) -> np.ndarray:
        height, width = before_HWC.shape[:2]
        sides = [max(RAFT_SMALLEST, -(-side // 8) * 8) for side in (height, width)]
        pair = [to_nchw(resized(frame, *sides)).to(device) / 127.5 - 1 for frame in (before_HWC, after_HWC)]
        flow_N2HW = F.interpolate(network(*pair)[-1], (height, width), mode="bilinear")
        return (
            (flow_N2HW * torch.tensor([width / sides[1], height / sides[0]]).to(flow_N2HW).view(1, 2, 1, 1))[
                0
            ]
            .cpu()
            .numpy()
        )

    return Flow("torchvision RAFT-large", estimate, size)


def raft_weights() -> Path | None:
    """The file of torchvision's default weights of RAFT-large, if both are on this machine."""
    try:
        from torchvision.models.optical_flow import Raft_Large_Weights
    except (ImportError, RuntimeError):  # a torchvision built for another torch fails at runtime
        return None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(Raft_Large_Weights.DEFAULT.url).name
    return path if path.is_file() else None


@lru_cache(maxsize=1)
def _raft_network(weights: str) -> Any:
    from torchvision.models.optical_flow import raft_large

    network = raft_large(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def opencv() -> Any:
    """The module cv2; MissingExtra where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("metrics", "eval") from error
    return cv2


def resized(frame_HWC: Frame, height: int, width: int) -> Frame:
    """Bilinear without antialiasing, back to 8 bits: as the published MAWE scales frames (method.md: MAWE)."""
    if frame_HWC.shape[:2] == (height, width):
        return frame_HWC
    scaled_NCHW = F.interpolate(to_nchw(frame_HWC), (height, width), mode="bilinear")
    return np.ascontiguousarray(scaled_NCHW[0].permute(1, 2, 0).round().to(torch.uint8).numpy())


def to_nchw(frame_HWC: Frame) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W), 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frame_HWC)).permute(2, 0, 1)[None].float()


def check_size(frame_HWC: Frame, smallest: int) -> None:
    """MediaError if a side of the frame is too short for optical flow."""
    height, width = frame_HWC.shape[:2]
    if min(height, width) < smallest:
        raise MediaError(
            f"{width}x{height} is too small for optical flow, which needs {smallest} pixels a side; measure it at --flow-size"
        )
