"""Types that stages exchange.

Suffixes of tensor names tell their shape: B batch, C channels, T frames, H height, W width, L tokens, D width
of a token. Pixels of a `Chunk` are uint8; inside the model, frames are float32 in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

State = dict[str, Any]
"""State of a stage after a chunk: a flat mapping of names to CPU tensors or JSON values."""


@dataclass(frozen=True)
class TextCond:
    """Embedded prompts, each (1, L, D) float."""

    positive_BLD: torch.Tensor
    negative_BLD: torch.Tensor


@dataclass(frozen=True)
class Chunk:
    """Consecutive finished frames.

    frames_THWC: uint8 (T, H, W, 3), T >= 1. start: index of the first frame in the video. final: no chunk
    follows. state: everything needed to continue after this chunk (see `pipeline.LongVideoPipeline.stream`);
    None if it cannot be resumed.
    """

    index: int
    start: int
    frames_THWC: np.ndarray
    final: bool = False
    state: State | None = None

    @property
    def frames(self) -> np.ndarray:
        """Frames, uint8 (T, H, W, 3)."""
        return self.frames_THWC

    @property
    def stop(self) -> int:
        """Index of the frame after the last."""
        return self.start + len(self.frames_THWC)
