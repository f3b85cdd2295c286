"""A model folder of the real classes at toy size, with random weights: whole videos in less than a second."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from lab.proof.export import build_vocabulary
from lab.proof.sampling import make_scheduler
from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.backbones.text import TextEncoder
from streamingt2v.checkpoints.load import Components, load, save
from streamingt2v.config import ExtendConfig, ModelConfig, RefineConfig
from streamingt2v.models import lowrank
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.train.teacher import student_scheduler
from toy_clip import TEXT_LENGTH, build_clip, build_tokenizer

SIZE = 32
LATENT_CHANNELS = 16


def write_toy_model(folder: Path, refiner: bool = True, channels: tuple[int, ...] = (16, 32)) -> Path:
    """Write a model of 32 x 32 pixels, 16-frame chunks and 2 steps; no weights are zero.

    channels: of the denoising networks' levels.
    """
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    clip = build_clip(tokenizer, 32)
    vision = CLIPVisionModelWithProjection(clip.config.vision_config)
    autoencoder = _vae()
    unet = _awake(StreamingUNet3D.from_base(build_unet(channels), 16, TEXT_LENGTH, 4))
    cam = _awake(ConditionalAttentionModule.from_base(unet, (16, 16, 16, 16)))
    backbone = ModelScopeBackbone(autoencoder, unet, cam, vision, ImageTokens(32, 16, 4, 32))
    extend = ExtendConfig(frames=16, overlap=8, steps=2, guidance_scale=3.0, eta=0.5)
    refine = RefineConfig(frames=16, overlap=4, strength=0.5, steps=2, guidance_scale=2.0)
    config = ModelConfig("toy", SIZE, SIZE, 8, extend, refine if refiner else None)
    enhancer = RefinerBackbone(autoencoder, build_unet(channels)) if refiner else None
    save(
        Components(
            config,
            TextEncoder(tokenizer, clip.text_model, build_vocabulary()),
            backbone,
            make_scheduler(),
            enhancer,
        ),
        folder,
    )
    return folder


def write_distilled_model(folder: Path) -> Path:
    """Write the toy model with other weights and the settings of a distilled one: 2 steps, no guidance."""
    made = load(write_toy_model(folder))
    for network in (made.backbone.unet, made.backbone.cam):
        learned = copy.deepcopy(network)
        lowrank.attach(learned, 2)
        lowrank.merge(network, lowrank.changes(_awake(learned)))
    config = replace(
        made.config, guidance=False, extend=replace(made.config.extend, guidance_scale=1.0, eta=0.0)
    )
    save(replace(made, config=config, scheduler=student_scheduler(made.scheduler)), folder)
    return folder


def build_unet(channels: tuple[int, ...] = (16, 32)) -> UNet3DConditionModel:
    """Build a stock network with attention at all levels but the deepest."""
    inner = len(channels) - 1
    return UNet3DConditionModel(
        sample_size=SIZE // 8, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock3D",) * inner + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * inner, block_out_channels=channels,
        layers_per_block=1, cross_attention_dim=32, attention_head_dim=16, norm_num_groups=16,
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    """Build an autoencoder that divides height and width by 8."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 16, 16), layers_per_block=1, latent_channels=LATENT_CHANNELS,
        norm_num_groups=16, sample_size=SIZE, scaling_factor=1.0,
    )  # fmt: skip


def _awake(module: torch.nn.Module) -> torch.nn.Module:
    """Give parameters that start at zero a small random value, so that every part has an effect."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module


def write_picture(path: Path, colour: tuple[int, int, int]) -> None:
    """Write an image of one colour, darker on the right."""
    pixels = np.full((48, 64, 3), colour, np.uint8)
    pixels[:, 40:] //= 2
    Image.fromarray(pixels).save(path)


def generate_line(model: Path, out: Path, *more: object) -> list[str]:
    """Return the words of a `generate` command."""
    return ["generate", "A cat running on the street", "-o", str(out), "--model", str(model), *map(str, more)]


def collect(chunks) -> np.ndarray:
    """Return the frames of all chunks, (T, H, W, 3)."""
    return np.concatenate([chunk.frames for chunk in chunks])
