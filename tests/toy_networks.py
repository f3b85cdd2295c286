"""Networks of the real classes at toy sizes, seeded, without any zero-initialised layer."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet3DConditionModel
from torch import nn

from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D

SIZES: dict[str, Any] = {
    "in_channels": 4,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
BASE = {**SIZES, "out_channels": 4, "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")}
JOINT = {"merger_head_dim": 4, "num_text_tokens": 5, "num_image_tokens": 3}


def stir(network: nn.Module, seed: int = 0) -> nn.Module:
    """Set all parameters to random values, also those that start at zero; set evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim != 1 else 0.1)
            )
        for module in network.modules():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
                module.weight += 1
    return network.eval()


def stock(**changes: Any) -> UNet3DConditionModel:
    """Build diffusers' own network."""
    return stir(UNet3DConditionModel(**{**BASE, **changes}))  # type: ignore[return-value]


def streaming(**changes: Any) -> StreamingUNet3D:
    """Build the base network with CAM and APM; every part has an effect."""
    return stir(StreamingUNet3D(**{**BASE, **JOINT, **changes}))  # type: ignore[return-value]


def cam(**changes: Any) -> ConditionalAttentionModule:
    """Build CAM for an autoencoder of factor 2."""
    return stir(ConditionalAttentionModule(**{**SIZES, "conditioning_channels": (4, 8), **changes}), seed=1)  # type: ignore[return-value]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return seeded normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
