"""What stages ask of networks."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from ..samplers.denoise import Predict
from ..samplers.guidance import Guidance
from ..types import TextCond


class Networks:
    """An autoencoder and a denoiser. works_on: where they compute; None: where their weights are."""

    vae: Any
    unet: Any
    works_on: torch.device | None

    @property
    def device(self) -> torch.device:
        """Return the device that denoises."""
        return self.works_on or self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the denoiser's dtype."""
        return self.unet.dtype

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w) of one frame's latents."""
        factor = vae_factor(self.vae)
        return self.vae.config.latent_channels, height // factor, width // factor


class Backbone(Networks, ABC):
    """A text-to-video network with both memories, behind pixels. Frames: float32 on the CPU in [-1, 1]."""

    @abstractmethod
    def decode(self, latents_BCTHW: torch.Tensor, skip: int = 0) -> torch.Tensor:
        """Decode one video's latents (1, C, T, h, w) to clamped frames (T - skip, 3, H, W)."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """Return the networks under their folder names in a model folder."""

    @abstractmethod
    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Any:
        """Return what text and anchor contribute at every timestep: once per prompt, for every chunk.

        seed: the video's, for networks that condition on noise.
        """

    @abstractmethod
    def predictor(self, condition: Any, window_TCHW: torch.Tensor | None, guidance: Guidance) -> Predict:
        """Return the guided denoiser of one chunk, for latents on `device`.

        window_TCHW: the frames before the chunk, encoded here once; None for the first chunk.
        """


def vae_factor(vae: Any) -> int:
    """Return pixels per latent along one side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)
