"""Toys of UNets: ModelScope, AnimateDiff, Stable Video Diffusion."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

import toy_pipelines as parts
from toy_networks import stir
from toy_pipelines import WIDTH


def modelscope() -> Any:
    tokenizer, encoder = parts._clip_text()
    vae = stir(diffusers.AutoencoderKL(**parts.SPATIAL_VAE))
    return diffusers.TextToVideoSDPipeline(
        vae, encoder, tokenizer, parts._unet3d(), diffusers.DDIMScheduler(clip_sample=False)
    )


def modelscope_video() -> Any:
    return diffusers.VideoToVideoSDPipeline(**modelscope().components)


def _animatediff(kind: str, scheduler: Any) -> Any:
    tokenizer, encoder = parts._clip_text()
    unet = diffusers.UNet2DConditionModel(
        sample_size=20, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        motion_mid_block_layers_per_block=1,
    )  # fmt: skip
    vae = stir(diffusers.AutoencoderKL(**parts.SPATIAL_VAE))
    return getattr(diffusers, kind)(vae, encoder, tokenizer, stir(unet), stir(adapter), scheduler)


def animatediff() -> Any:
    return _animatediff("AnimateDiffPipeline", diffusers.DDIMScheduler(clip_sample=False))


def animatediff_dpm() -> Any:
    return _animatediff("AnimateDiffPipeline", diffusers.DPMSolverMultistepScheduler())


def animatediff_video() -> Any:
    return _animatediff("AnimateDiffVideoToVideoPipeline", diffusers.DDIMScheduler(clip_sample=False))


def svd() -> Any:
    vision = parts._clip_vision(image_size=224, patch_size=56)
    unet = stir(diffusers.UNetSpatioTemporalConditionModel(**parts.SVD_UNET))
    extractor = transformers.CLIPImageProcessor(crop_size=224, size=224)
    scheduler = diffusers.EulerDiscreteScheduler(**parts.EDM)
    return diffusers.StableVideoDiffusionPipeline(parts.temporal_vae(), vision, unet, scheduler, extractor)
