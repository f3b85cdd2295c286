"""Protocol between stages and networks."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from ..samplers.denoise import Predict
from ..types import TextCond


class Backbone(Protocol):
    """A text-to-video network with the two memories, behind pixels. Frames are float32 on the CPU in [-1, 1]."""

    @property
    def device(self) -> torch.device:
        """Return where latents are denoised."""

    @property
    def dtype(self) -> torch.dtype:
        """Return what the network computes in."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of one frame's latents."""

    def decode(self, latents_BCTHW: torch.Tensor, skip: int = 0) -> torch.Tensor:
        """Latents of one video (1, C, T, h, w) to frames (T - skip, 3, H, W), clamped: those after the first `skip`."""

    def parts(self) -> dict[str, nn.Module]:
        """The networks, under the names of their folders in a model folder."""

    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Any:
        """Everything of text and anchor that no timestep changes: made once a prompt, used in every chunk. `seed`: of the video, for a
        network that conditions on noise."""

    def predictor(
        self,
        condition: Any,
        window_TCHW: torch.Tensor | None,
        scale: float,
        rescale: float,
        time_guidance: float = 0.0,
    ) -> Predict:
        """The guided denoiser of one chunk, for latents on `device`. `window_TCHW`: the frames before it, encoded here once; None for the
        first chunk."""
