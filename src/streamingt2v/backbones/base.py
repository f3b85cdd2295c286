"""What the stages need of a network, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from streamingt2v.types import TextCond

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents_BCTHW, timestep) -> guided prediction (B, C, T, H, W)."""


class Backbone(Protocol):
    """A text-to-video network with the two memories, behind pixels. Frames are float32 on the CPU in [-1, 1]."""

    @property
    def multiple(self) -> int:
        """Height and width of frames are multiples of this."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of one frame's latents."""

    def decode(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """Latents of one video (1, C, T, h, w) to frames (T, 3, H, W), clamped."""

    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None) -> Any:
        """Everything of text and anchor that no timestep changes: made once a prompt, used in every chunk."""

    def predictor(self, condition: Any, window_TCHW: torch.Tensor | None, scale: float, rescale: float) -> Predict:
        """The guided denoiser of one chunk. `window_TCHW`: the frames before it, encoded here once; None for the first chunk."""
