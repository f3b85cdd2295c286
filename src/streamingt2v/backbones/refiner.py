"""The enhancer's network behind pixels: a VAE and a v-predicting UNet (method.md: Refining)."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel

from ..samplers.guidance import guide_pair
from ..types import TextCond
from .base import Networks
from .modelscope import decode_frames, encode_frames


class RefinerBackbone(Networks):
    """Stateless; takes and returns float32 CPU tensors, frames in [-1, 1].

    device: where the networks compute; None: where their weights are.
    """

    def __init__(self, vae: AutoencoderKL, unet: UNet3DConditionModel, device: torch.device | None = None):
        self.vae, self.unet, self.works_on = vae, unet, device

    def encode(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """Encode frames (T, 3, H, W) as latents (1, C, T, h, w)."""
        return encode_frames(self.vae, frames_TCHW, self.device).cpu()

    def decode(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """Decode latents (1, C, T, h, w) to clamped frames (T, 3, H, W)."""
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
        """Return the guided v-prediction of windows, each with its own timestep and text."""
        place = {"device": self.device, "dtype": self.unet.dtype}
        text_BLD = torch.cat(
            [*(text.negative_BLD for text in texts), *(text.positive_BLD for text in texts)]
        ).to(**place)
        pair_BCTHW = torch.cat([latents_BCTHW, latents_BCTHW]).to(**place)
        prediction = self.unet(
            pair_BCTHW, torch.tensor([*timesteps, *timesteps], device=self.device), text_BLD
        ).sample
        return guide_pair(prediction.float(), scale, rescale).cpu()
