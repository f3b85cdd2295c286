"""Optical flow: RAFT where torchvision and its weights are on this machine, else OpenCV's DIS.

Results carry the estimator's name: numbers of different estimators are not comparable.
"""

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
"""Smallest side for DIS: below it the pyramid has no level on which a patch could move."""

RAFT_SMALLEST = 128
"""Smallest side for RAFT's correlation pyramid; smaller frames are enlarged."""


@dataclass(frozen=True)
class Flow:
    """A flow estimator. name: for results. estimate: two uint8 (H, W, 3) -> float32 (2, H, W), dx and dy.

    size: side of the square that frames are scaled to before measuring; None: not scaled.
    """

    name: str
    estimate: Callable[[Frame, Frame], np.ndarray]
    size: int | None = None

    def scaled(self, frame_HWC: Frame) -> Frame:
        """Scale a frame to the size for flow and warp errors."""
        return frame_HWC if self.size is None else resized(frame_HWC, self.size, self.size)


def best_flow(size: int | None = None) -> Flow:
    """Return RAFT if nothing must be downloaded for it, else DIS; MissingExtra if there is neither."""
    if size is not None and size < SMALLEST:
        raise RequestError("flow_size", size, f"must be {SMALLEST} or more")
    return raft(size) if raft_weights() is not None else dis(size)


def dis(size: int | None = None) -> Flow:
    """Return dense inverse search (Kroeger et al. 2016): OpenCV's medium preset, finest scale 0.

    It runs on one thread: OpenCV does not promise equal results for other numbers.
    """
    cv2 = opencv()
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)

    def estimate(before_HWC: Frame, after_HWC: Frame) -> np.ndarray:
        check_size(before_HWC, SMALLEST)
        pair = map(np.ascontiguousarray, (before_HWC, after_HWC))
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pair]
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return np.moveaxis(estimator.calc(*gray, None), -1, 0)
        finally:
            cv2.setNumThreads(threads)

    return Flow(f"OpenCV {cv2.__version__} DIS", estimate, size)


def raft(size: int | None = None) -> Flow:
    """Return RAFT-large (Teed and Deng 2020), torchvision's default weights, last iterate, as for MAWE.

    RequestError if torchvision or the weights are missing: nothing is downloaded.
    """
    weights = raft_weights()
    if weights is None:
        fix = "needs torchvision, and its weights of raft_large in torch.hub's folder of checkpoints"
        raise RequestError("flow", "raft", fix)
    network = _raft_network(str(weights))

    @torch.no_grad()
    def estimate(before_HWC: Frame, after_HWC: Frame) -> np.ndarray:
        height, width = before_HWC.shape[:2]
        sides = [max(RAFT_SMALLEST, -(-side // 8) * 8) for side in (height, width)]
        pair = [to_nchw(resized(frame, *sides)) / 127.5 - 1 for frame in (before_HWC, after_HWC)]
        flow_N2HW = F.interpolate(network(*pair)[-1], (height, width), mode="bilinear")
        scale_N2HW = torch.tensor([width / sides[1], height / sides[0]]).to(flow_N2HW).view(1, 2, 1, 1)
        return (flow_N2HW * scale_N2HW)[0].numpy()

    return Flow("torchvision RAFT-large", estimate, size)


def raft_weights() -> Path | None:
    """Return the file of torchvision's default RAFT-large weights, None if either is not on this machine."""
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
    """Import cv2; MissingExtra where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("metrics", "eval") from error
    return cv2


def resized(frame_HWC: Frame, height: int, width: int) -> Frame:
    """Scale bilinearly without antialiasing, rounded to 8 bits, like the published MAWE (method.md: MAWE)."""
    if frame_HWC.shape[:2] == (height, width):
        return frame_HWC
    scaled_NCHW = F.interpolate(to_nchw(frame_HWC), (height, width), mode="bilinear")
    return np.ascontiguousarray(scaled_NCHW[0].permute(1, 2, 0).round().to(torch.uint8).numpy())


def to_nchw(frame_HWC: Frame) -> torch.Tensor:
    """Convert uint8 (H, W, 3) to float32 (1, 3, H, W), 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frame_HWC)).permute(2, 0, 1)[None].float()


def check_size(frame_HWC: Frame, smallest: int) -> None:
    """Raise MediaError if a side of the frame is too short for optical flow."""
    height, width = frame_HWC.shape[:2]
    if min(height, width) < smallest:
        fix = f"which needs {smallest} pixels a side; measure it at --flow-size"
        raise MediaError(f"{width}x{height} is too small for optical flow, {fix}")
