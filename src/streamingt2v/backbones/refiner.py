"""The enhancer's network behind pixels: a VAE and a v-predicting `UNet3DConditionModel` at the higher resolution (method.md: Refining)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel

from ..samplers.guidance import guide_pair
from ..types import TextCond
from .modelscope import decode_frames, encode_frames


class RefinerBackbone:
    """Takes and gives tensors on the CPU, float32; frames are in [-1, 1]. Keeps nothing from call to call, so many may do its work.

    device: where the networks work, None for where their weights are.
    """

    def __init__(self, vae: AutoencoderKL, unet: UNet3DConditionModel, device: torch.device | None = None):
        self.vae, self.unet, self.works_on = vae, unet, device

    @property
    def device(self) -> torch.device:
        """Return where the networks work."""
        return self.works_on or self.unet.device

    def encode(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """(T, 3, H, W) to latents (1, C, T, h, w)."""
        return encode_frames(self.vae, frames_TCHW, self.device).cpu()

    def decode(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """Latents (1, C, T, h, w) to frames (T, 3, H, W), clamped."""
        return decode_frames(self.vae, latents_BCTHW, self.device)

    @torch.no_grad()
    def velocity(
        self,
        latents_BCTHW: torch.Tensor,
        timesteps: Sequence[int],
        texts: Sequence[TextCond],
        scale: float,
        rescale: float,
    ) -> torch.Tensor:
        """The guided v-prediction of windows, each at a timestep and with a text of its own."""
        place = {"device": self.device, "dtype": self.unet.dtype}
        text_BLD = torch.cat(
            [*(text.negative_BLD for text in texts), *(text.positive_BLD for text in texts)]
        ).to(**place)
        pair_BCTHW = torch.cat([latents_BCTHW, latents_BCTHW]).to(**place)
        prediction = self.unet(
            pair_BCTHW, torch.tensor([*timesteps, *timesteps], device=self.device), text_BLD
        ).sample
        return guide_pair(prediction.float(), scale, rescale).cpu()
