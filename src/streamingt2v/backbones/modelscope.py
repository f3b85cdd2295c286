"""StreamingT2V on ModelScope's network: VAE, UNet, CAM and APM as one backbone (method.md: Base network)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPVisionModelWithProjection

from ..config.runtime import autoencoder_batch
from ..models.apm import ImageTokens, anchor_tokens, preprocess
from ..models.cam import ConditionalAttentionModule
from ..models.context import Contexts, halved
from ..models.unet3d import StreamingUNet3D
from ..samplers.denoise import Predict
from ..samplers.guidance import Guidance, frames_alone, guide_pair, steadied
from ..types import TextCond
from .base import Backbone, vae_factor


@dataclass(frozen=True)
class Condition:
    """Keys and values of every cross-attention for [negative | positive], of the base network and CAM."""

    base: Contexts
    cam: Contexts

    def positive(self) -> Condition:
        """Return the positive half."""
        return Condition(halved(self.base), halved(self.cam))


class ModelScopeBackbone(Backbone):
    """See `base.Backbone`. device: where the networks compute; None: where their weights are.

    `condition` and `predictor` also take several videos: texts (B, L, D), anchors (B, 3, H, W), windows (B,
    T, 3, H, W), latents (B, C, T, h, w).
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: StreamingUNet3D,
        cam: ConditionalAttentionModule,
        image_encoder: CLIPVisionModelWithProjection,
        image_tokens: ImageTokens,
        device: torch.device | None = None,
    ):
        self.vae, self.unet, self.cam = vae, unet, cam
        self.image_encoder, self.image_tokens = image_encoder, image_tokens
        self.works_on = device

    def parts(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"vae": self.vae, "unet": self.unet, "cam": self.cam}
        return networks | {"image_encoder": self.image_encoder, "image_tokens": self.image_tokens}

    def decode(self, latents_BCTHW: torch.Tensor, skip: int = 0) -> torch.Tensor:
        return decode_frames(self.vae, latents_BCTHW[:, :, skip:], self.device)

    @torch.no_grad()
    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Condition:
        text_BLD = torch.cat([text.negative_BLD, text.positive_BLD]).to(self.device, self.unet.dtype)
        image_BLD = None
        if anchor_CHW is not None:
            anchor_BCHW = _batched(anchor_CHW, 3).to(self.device, self.unet.dtype)
            image_BLD = torch.cat(anchor_tokens(self._embed_image, self.image_tokens, anchor_BCHW))
        return Condition(self.unet.contexts(text_BLD, image_BLD), self.cam.contexts(text_BLD))

    @torch.no_grad()
    def predictor(
        self, condition: Condition, window_TCHW: torch.Tensor | None, guidance: Guidance
    ) -> Predict:
        """Skip the negative half if the guidance scale is 1."""
        embedding = None
        if window_TCHW is not None:
            embedding = self.cam.encode_frames(_batched(window_TCHW, 4).to(self.device, self.unet.dtype))
        positive = condition.positive()
        contexts = condition if guidance.scale != 1 else positive
        dtype = self.unet.dtype  # read once: diffusers searches all parameters for it

        def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            sample_BCTHW = latents_BCTHW.to(dtype)
            videos, frames = len(sample_BCTHW), sample_BCTHW.shape[2]
            halves_BCTHW = _for_each(sample_BCTHW, contexts)
            features = None
            if embedding is not None:
                features = self.cam(halves_BCTHW, timestep, contexts.cam, _for_each(embedding, contexts))
            prediction = self.unet(halves_BCTHW, timestep, contexts.base, cam_features=features).float()
            guided = prediction
            if guidance.scale != 1:
                guided = guide_pair(prediction, guidance.scale, guidance.rescale)
            if not guidance.time:
                return guided
            # Use CAM's features in both predictions: else their difference contains CAM's effect and
            # accumulates over chunks.
            shared = None
            if features and embedding is not None:
                shared = features.of_the_last(embedding.shape[1], frames, videos)
            alone = frames_alone(
                lambda each: self.unet(each, timestep, positive.base, cam_features=shared), sample_BCTHW
            )
            return steadied(guided, alone, guidance.time)

        return predict

    def _embed_image(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        size = self.image_encoder.config.image_size
        return self.image_encoder(pixel_values=preprocess(image_BCHW, size)).image_embeds


def _batched(x: torch.Tensor, ndim: int) -> torch.Tensor:
    """Add a batch axis if there is none."""
    return x[None] if x.ndim == ndim else x


def _for_each(x_B: torch.Tensor, contexts: Condition) -> torch.Tensor:
    """Repeat videos to match the contexts' batch; one shared video stays as it is."""
    return x_B if len(x_B) == 1 else x_B.repeat(len(contexts.base[0].key) // len(x_B), *[1] * (x_B.ndim - 1))


@torch.no_grad()
def decode_frames(vae: AutoencoderKL, latents_BCTHW: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Decode one video's latents (1, C, T, h, w) to clamped float32 CPU frames (T, 3, H, W)."""
    latents_TCHW = latents_BCTHW[0].transpose(0, 1) / vae.config.scaling_factor
    height, width = (vae_factor(vae) * side for side in latents_TCHW.shape[-2:])
    parts = [
        vae.decode(part.to(device, vae.dtype)).sample.float().cpu()
        for part in _few(latents_TCHW, height, width)
    ]
    # Contiguous like a restored state: some kernels sum in an order that depends on the memory layout.
    return torch.cat(parts).clamp(-1, 1).contiguous()


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, frames_TCHW: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Encode frames (T, 3, H, W) in [-1, 1] as latents (1, C, T, h, w): the posterior's mode."""
    height, width = frames_TCHW.shape[-2:]
    parts = [
        vae.encode(part.to(device, vae.dtype)).latent_dist.mode().float()
        for part in _few(frames_TCHW, height, width)
    ]
    return torch.cat(parts).transpose(0, 1)[None] * vae.config.scaling_factor


def _few(frames: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Split into parts of about `autoencoder_batch`, never a single frame: some kernels sum it otherwise."""
    return frames.tensor_split(max(1, len(frames) // autoencoder_batch(height, width)))
