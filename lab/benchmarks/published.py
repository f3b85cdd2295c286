"""Published models at full size without weights, and the data that `plan` reads of them.

python -m lab.benchmarks.published > src/streamingt2v/estimate/published.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from streamingt2v.checkpoints.writing import write_part
from streamingt2v.config import EMBEDDED, ModelConfig, find_model
from streamingt2v.convert.kinds import (
    STREAMING_SVD,
    STREAMING_T2V,
    VID2VID_REFINE,
    refined_size,
    save_scheduler,
)
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.svd_cam import SpatioTemporalCam
from streamingt2v.models.svd_unet import StreamingUNetSpatioTemporal
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.models.vid2vid_unet import Vid2VidUNet

NAMES = ("streaming-t2v", "streaming-svd")
"""Registry models whose sizes are known."""

_FOUR: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
_VIT_H = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "patch_size": 14, "image_size": 224, "projection_dim": 1024,
}  # fmt: skip


@contextmanager
def skeleton(name: str, full: bool) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yield a temporary model folder with settings only, and the parameter count of each part.

    full: include MS-Vid2Vid-XL as the third stage of streaming-t2v.
    """
    config = config_of(name, full)
    with torch.device("meta"):
        networks = _networks(config)
    with TemporaryDirectory() as place:
        folder = Path(place)
        config.save(folder)
        for part, network in networks.items():
            if part in ("unet", "cam", "vae", "refiner"):
                network.save_config(folder / part)
        yield (
            folder,
            {part: sum(x.numel() for x in network.parameters()) for part, network in networks.items()},
        )


def facts(name: str, full: bool) -> dict[str, Any]:
    """Return all that a plan needs of a published model as JSON: settings, parameter counts, FLOPs.

    `estimate/published.json` stores it; regenerate with
    `python -m lab.benchmarks.published`.
    """
    from streamingt2v.estimate.flops import decode_flops, encode_flops, refine_step_flops, step_flops

    with skeleton(name, full) as (folder, parts):
        config = ModelConfig.load(folder)
        sizes = {(config.height, config.width)} | (
            {config.refine.size(config.height, config.width)} if config.refine else set()
        )
        return {
            "model": json.loads((folder / "model.json").read_text()),
            "configs": {
                part.name: json.loads((part / "config.json").read_text())
                for part in sorted(folder.iterdir())
                if part.is_dir()
            },
            "parts": dict(sorted(parts.items())),
            "step_flops": {
                str(predictions): step_flops(folder, config, predictions) for predictions in (1, 2, 3)
            },
            "refine_step_flops": refine_step_flops(folder, config),
            "decode_flops": {
                f"{height}x{width}": decode_flops(folder, height, width) for height, width in sorted(sizes)
            },
            "encode_flops": {
                f"{height}x{width}": encode_flops(folder, height, width) for height, width in sorted(sizes)
            },
        }


def config_of(name: str, full: bool) -> ModelConfig:
    """Return a published model's settings. full: streaming-t2v gets MS-Vid2Vid-XL."""
    config = STREAMING_T2V if name == "streaming-t2v" else STREAMING_SVD
    if full and config is STREAMING_T2V:
        height, width = refined_size(config.height, config.width, factor=8, levels=4)
        config = replace(config, refine=replace(VID2VID_REFINE, height=height, width=width))
    return config


def write_random(
    name: str, folder: Path, full: bool, device: str, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a published model at full size with random weights: right in memory and time, noise to look at.

    Networks are built on `device`. The tokenizer is the embedded model's.
    """
    config = config_of(name, full)
    torch.manual_seed(0)
    with torch.device(device):
        networks = _networks(config)
    folder.mkdir(parents=True)
    config.save(folder)
    for part in list(networks):
        write_part(folder / part, networks[part], networks[part].state_dict(), dtype)
        del networks[part]
    save_scheduler(name, folder)
    if name == "streaming-t2v":
        shutil.copytree(find_model(EMBEDDED[0]) / "tokenizer", folder / "tokenizer")
    return folder


def _networks(config: ModelConfig) -> dict[str, Any]:
    """Build all networks on the default device."""
    vision: nn.Module = CLIPVisionModelWithProjection(CLIPVisionConfig(**_VIT_H))
    if config.backbone == "svd":
        unet = StreamingUNetSpatioTemporal(
            num_attention_heads=(5, 10, 20, 20), num_frames=config.extend.frames
        )
        return {
            "unet": unet,
            "cam": SpatioTemporalCam(),
            "image_encoder": vision,
            "vae": AutoencoderKLTemporalDecoder(**_FOUR),
        }
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
    )
    networks = {
        "unet": StreamingUNet3D(),
        "cam": ConditionalAttentionModule(),
        "image_tokens": ImageTokens(),
        "image_encoder": vision,
    }
    networks |= {
        "text_encoder": text,
        "vae": AutoencoderKL(**_FOUR, up_block_types=("UpDecoderBlock2D",) * 4),
    }
    return networks | ({"refiner": Vid2VidUNet()} if config.refine else {})


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "streaming-t2v": facts("streaming-t2v", full=True),
                "streaming-svd": facts("streaming-svd", full=False),
            },
            indent=1,
        )
    )
