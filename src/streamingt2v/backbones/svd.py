"""StreamingSVD: SVD's VAE, UNet and CAM as one backbone (method.md: StreamingSVD).

It reads images, no text: a chunk depends on the anchor frame, as CLIP token and as latents beside the noisy
ones, and on the last frames through CAM.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionModelWithProjection

from ..config.external import SvdConfig
from ..models.apm import preprocess
from ..models.svd_cam import SpatioTemporalCam
from ..models.svd_unet import StreamingUNetSpatioTemporal
from ..samplers.denoise import Predict
from ..samplers.guidance import Guidance, guide_pair
from ..samplers.noise import frame_noise
from ..types import TextCond
from .base import Backbone


@dataclass(frozen=True)
class ImageCondition:
    """For [without | with] the image: CLIP token (2, 1, D), latents (2, C, h, w), micro-conditions (2, 3)."""

    context_BLD: torch.Tensor
    latents_BCHW: torch.Tensor
    added_BN: torch.Tensor


class SvdBackbone(Backbone):
    """See `base.Backbone`. device: where the networks compute; None: where their weights are."""

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        unet: StreamingUNetSpatioTemporal,
        cam: SpatioTemporalCam,
        image_encoder: CLIPVisionModelWithProjection,
        config: SvdConfig,
        device: torch.device | None = None,
    ):
        self.vae, self.unet, self.cam, self.image_encoder, self.config = vae, unet, cam, image_encoder, config
        self.works_on = device

    def parts(self) -> dict[str, nn.Module]:
        return {"vae": self.vae, "unet": self.unet, "cam": self.cam, "image_encoder": self.image_encoder}

    @torch.no_grad()
    def decode(self, latents_BCTHW: torch.Tensor, skip: int = 0, batch: int = 8) -> torch.Tensor:
        """Decode `batch` frames at a time, as published: the decoder reads neighbours within a batch."""
        latents_TCHW = (
            latents_BCTHW[0].transpose(0, 1).to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        )
        parts = [
            self.vae.decode(part, num_frames=len(part)).sample.float().cpu()
            for part in latents_TCHW.split(batch)
        ]
        return torch.cat(parts)[skip:].clamp(-1, 1).contiguous()  # contiguous: see `modelscope.decode_frames`

    @torch.no_grad()
    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> ImageCondition:
        """Ignore `text`: this network reads none."""
        if anchor_CHW is None:
            raise ValueError("this network makes a chunk from a picture; give one as anchor")
        clean_BCHW = anchor_CHW[None].to(self.device, self.unet.dtype)
        size = self.image_encoder.config.image_size
        embeds_BD = self.image_encoder(pixel_values=preprocess(clean_BCHW, size)).image_embeds
        noised_BCHW = anchor_CHW[None] + self.config.augmentation * self._augmentation(
            seed, tuple(anchor_CHW.shape)
        )
        # the conditioning latents are not scaled, unlike those of frames
        latents_BCHW = (
            self.vae.encode(noised_BCHW.to(self.device, self.vae.dtype)).latent_dist.mode().to(clean_BCHW)
        )
        added_N = embeds_BD.new_tensor(
            [self.config.fps_id, self.config.motion_bucket, self.config.augmentation]
        )
        return ImageCondition(
            _after_zeros(embeds_BD)[:, None], _after_zeros(latents_BCHW), added_N.expand(2, -1)
        )

    @torch.no_grad()
    def predictor(
        self, condition: ImageCondition, window_TCHW: torch.Tensor | None, guidance: Guidance
    ) -> Predict:
        """Raise the scale linearly from `SvdConfig.first_guidance` at the first frame to its own at the last.

        ValueError for time guidance.
        """
        if guidance.time:
            raise ValueError("time guidance is for ModelScope's backbone; this one has none")
        embedding = None
        if window_TCHW is not None:
            embedding = self.cam.encode_frames(window_TCHW[None].to(self.device, self.unet.dtype))
        context, added = condition.context_BLD, condition.added_BN

        def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            noisy_BTCHW = torch.cat([latents_BCTHW, latents_BCTHW]).transpose(1, 2).to(self.unet.dtype)
            picture_BTCHW = condition.latents_BCHW[:, None].expand(-1, noisy_BTCHW.shape[1], -1, -1, -1)
            sample_BTCHW = torch.cat([noisy_BTCHW, picture_BTCHW], dim=2)
            features = (
                self.cam(sample_BTCHW, timestep, context, added, embedding) if embedding is not None else None
            )
            prediction_BTCHW = self.unet(sample_BTCHW, timestep, context, added, cam_features=features)
            scales_T = torch.linspace(self.config.first_guidance, guidance.scale, latents_BCTHW.shape[2])
            scales_T11 = scales_T[:, None, None].to(latents_BCTHW)
            return guide_pair(prediction_BTCHW.transpose(1, 2).float(), scales_T11, guidance.rescale)

        return predict

    def _augmentation(self, seed: int, shape_CHW: tuple[int, ...]) -> torch.Tensor:
        """Return an image's augmentation noise (1, 3, H, W): standard normal, or uniform as published."""
        noise_BCHW = frame_noise(seed, "augmentation", [0], -1, shape_CHW)
        uniform = self.config.augmentation_kind == "uniform"
        return torch.special.ndtr(noise_BCHW) if uniform else noise_BCHW


def _after_zeros(x: torch.Tensor) -> torch.Tensor:
    """Prepend zeros (no image): (1, ...) to (2, ...)."""
    return torch.cat([torch.zeros_like(x), x])
