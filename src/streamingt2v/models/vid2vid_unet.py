"""MS-Vid2Vid-XL's network: diffusers' `UNet3DConditionModel` with another geometry between levels."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.upsampling import Upsample2D

from .stock import extends


class Vid2VidUNet(UNet3DConditionModel):
    """Pad two rows above and below on each downsampling; crop the first and last row on each upsampling.

    h rows become h / 2 + 1 one level down, so heights must be even at every level (published model: 90 -> 46
    -> 24 -> 13). Widths halve as usual. Defaults: published sizes.
    """

    @register_to_config
    @extends(UNet3DConditionModel)
    def __init__(self, **sizes: Any):
        super().__init__(**sizes)
        pad = self.config["downsample_padding"]
        down_blocks: Any = self.down_blocks
        up_blocks: Any = self.up_blocks
        for sampler in (sampler for block in down_blocks for sampler in block.downsamplers or ()):
            sampler.conv.padding = (pad + 1, pad)
        for block in (block for block in up_blocks if block.upsamplers):
            stock = block.upsamplers[0]
            block.upsamplers[0] = _CroppedUpsample(
                stock.channels, use_conv=True, out_channels=stock.out_channels
            )

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool = True,
    ) -> Any:
        """Predict as diffusers' network, (B, C, T, h, w). ValueError if `check_latent_size` fails."""
        check_latent_size(sample.shape[-2], sample.shape[-1], levels=len(self.config["block_out_channels"]))
        return super().forward(sample, timestep, encoder_hidden_states, return_dict=return_dict)


class _CroppedUpsample(Upsample2D):
    def forward(self, hidden_states: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        """Upsample (N, C, h, w) to (N, C, 2 h - 2, 2 w), the size of its skip; ignore `output_size`."""
        doubled = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        return self.conv(doubled[..., 1:-1, :])


def check_latent_size(height: int, width: int, levels: int) -> None:
    """Raise ValueError with the nearest sizes that fit, unless latents pass through the network."""
    if not passes(height, levels):
        near = [
            next((h for h in way if passes(h, levels)), None)
            for way in (range(height, 0, -1), range(height, 2 * height + 2**levels))
        ]
        fix = " or ".join(str(h) for h in near if h)
        raise ValueError(
            f"latents of {height} rows do not pass through this network, "
            f"whose levels have h / 2 + 1 rows; use {fix}"
        )
    if width % 2 ** (levels - 1):
        fix = f"use a multiple of {2 ** (levels - 1)}"
        raise ValueError(f"latents of {width} columns do not pass through this network; {fix}")


def passes(height: int, levels: int) -> bool:
    """Return whether this many latent rows survive down- and upsampling through `levels` levels."""
    for _ in range(levels - 1):
        if height % 2:
            return False
        height = height // 2 + 1
    return height > 0
