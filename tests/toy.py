"""A model folder of the real classes at toy size, with random weights: whole videos in less than a second."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet3DConditionModel
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from lab.tiny import assemble, base, data, diffusion, text, vae
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

SIZE = 32


def write_toy_model(folder: Path, refiner: bool = True, channels: tuple[int, ...] = (16, 32)) -> Path:
    """Write a model of 32 x 32 pixels, 16-frame chunks and 2 steps; no weights are zero.

    channels: of the denoising networks' levels.
    """
    torch.manual_seed(0)
    tokenizer = text.build_tokenizer()
    clip = text.build_clip(
        text.TextConfig(width=32, text_layers=1, vision_layers=1, heads=2, image_size=32), tokenizer
    )
    vision = CLIPVisionModelWithProjection(clip.config.vision_config)
    autoencoder = vae.build_vae(vae.VaeConfig(size=SIZE, channels=(16, 16, 16, 16)))
    unet = _awake(StreamingUNet3D.from_base(_unet(channels), 16, text.TEXT_LENGTH, 4))
    cam = _awake(ConditionalAttentionModule.from_base(unet, (16, 16, 16, 16)))
    backbone = ModelScopeBackbone(autoencoder, unet, cam, vision, ImageTokens(32, 16, 4, 32))
    extend = ExtendConfig(frames=16, overlap=8, steps=2, guidance_scale=3.0, eta=0.5)
    refine = RefineConfig(frames=16, overlap=4, strength=0.5, steps=2, guidance_scale=2.0)
    config = ModelConfig("toy", SIZE, SIZE, 8, extend, refine if refiner else None)
    words = assemble.build_vocabulary(data.noun_names(12))
    enhancer = RefinerBackbone(autoencoder, _unet(channels)) if refiner else None
    save(
        Components(
            config,
            TextEncoder(tokenizer, clip.text_model, words),
            backbone,
            diffusion.make_scheduler(),
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


def _unet(channels: tuple[int, ...]) -> UNet3DConditionModel:
    return base.build_unet(channels, SIZE // 8, 32, head_dim=16)


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
