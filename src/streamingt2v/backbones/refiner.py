"""The enhancer's network behind pixels: a VAE and a v-predicting `UNet3DConditionModel` at the higher resolution (spec 6)."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel

from streamingt2v.samplers.denoise import Predict
from streamingt2v.samplers.guidance import guide_pair
from streamingt2v.types import TextCond

from .modelscope import decode_frames, encode_frames


class RefinerBackbone:
    """Frames are float32 on the CPU in [-1, 1]."""

    def __init__(self, vae: AutoencoderKL, unet: UNet3DConditionModel):
        self.vae, self.unet = vae, unet

    def encode(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """(T, 3, H, W) to latents (1, C, T, h, w)."""
        return encode_frames(self.vae, frames_TCHW)

    def decode(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """Latents (1, C, T, h, w) to frames (T, 3, H, W), clamped."""
        return decode_frames(self.vae, latents_BCTHW)

    def predictor(self, text: TextCond, scale: float, rescale: float) -> Predict:
        """The guided v-prediction of one window."""
        text_BLD = torch.cat([text.negative_BLD, text.positive_BLD]).to(self.unet.device, self.unet.dtype)

        def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            pair_BCTHW = torch.cat([latents_BCTHW, latents_BCTHW]).to(self.unet.dtype)
            prediction = self.unet(pair_BCTHW, timestep, text_BLD).sample
            return guide_pair(prediction.float(), scale, rescale)

        return predict
