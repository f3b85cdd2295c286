"""The arithmetic of one denoising step, counted on the meta device: no weights are read and nothing is computed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from streamingt2v.backbones.unet3d import StreamingUNet3D
from streamingt2v.config import ModelConfig, read_json
from streamingt2v.memory.cam import ConditionalAttentionModule


@lru_cache(maxsize=4)
def step_flops(folder: Path, config: ModelConfig) -> int:
    """Of a guided step of stage 2 with CAM; 0 for a network that is not counted here."""
    sizes = read_json(folder / "unet" / "config.json")
    if sizes.get("_class_name") != StreamingUNet3D.__name__:
        return 0
    height, width = _latents(folder, config.height, config.width)
    net = _on_meta(StreamingUNet3D, folder / "unet")
    cam = _on_meta(ConditionalAttentionModule, folder / "cam")
    latents = torch.empty(2, sizes["in_channels"], config.extend.frames, height, width, device="meta")
    text = torch.empty(2, sizes["num_text_tokens"], sizes["cross_attention_dim"], device="meta")
    embedding = torch.empty(1, config.extend.overlap, sizes["block_out_channels"][0], height, width, device="meta")
    timestep = torch.zeros((), device="meta")
    return _counted(lambda: net(latents, timestep, text, cam_features=cam(latents, timestep, text, embedding)))


@lru_cache(maxsize=4)
def refine_step_flops(folder: Path, config: ModelConfig) -> int:
    """Of a guided step of a window of stage 3; 0 for a model without, or whose network is not counted here."""
    if config.refine is None:
        return 0
    sizes = read_json(folder / "refiner" / "config.json")
    height, width = _latents(folder, *config.refine.size(config.height, config.width))
    net = _on_meta(UNet3DConditionModel, folder / "refiner")
    latents = torch.empty(2, sizes["in_channels"], config.refine.frames, height, width, device="meta")
    text = torch.empty(2, 77, sizes["cross_attention_dim"], device="meta")
    return _counted(lambda: net(latents, torch.zeros((), device="meta"), text))


def _latents(folder: Path, height: int, width: int) -> tuple[int, int]:
    factor = 2 ** (len(read_json(folder / "vae" / "config.json")["block_out_channels"]) - 1)
    return height // factor, width // factor


def _on_meta(cls: Any, part: Path) -> Any:
    with torch.device("meta"):
        return cls.from_config(cls.load_config(part)).eval()


@torch.no_grad()
def _counted(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
