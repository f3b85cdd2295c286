"""Frames that pass between the stages, with the state to continue from."""

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ModelError
from ..types import State


@dataclass(frozen=True)
class Piece:
    """New frames in order, (T, 3, H, W) float32 in [-1, 1]. state: what the stages need to continue."""

    frames_TCHW: torch.Tensor
    state: State
    final: bool


def whole(frames_TCHW: torch.Tensor) -> torch.Tensor:
    """Return the frames. ModelError for NaN or infinity: half precision overflows with some weights."""
    if not torch.isfinite(frames_TCHW).all():
        raise ModelError("frames contain NaN or infinity: the dtype overflows; use bfloat16 or float32")
    return frames_TCHW


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """Convert (..., 3, H, W) in [-1, 1] to uint8 (..., H, W, 3), clamped and rounded."""
    levels = ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def to_float(frames_THWC: np.ndarray) -> torch.Tensor:
    """Convert uint8 (T, H, W, 3) to float32 (T, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2).float() / 127.5 - 1
