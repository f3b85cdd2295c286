"""MS-Vid2Vid-XL's network: diffusers' `UNet3DConditionModel` with another geometry between its levels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.upsampling import Upsample2D


class Vid2VidUNet(UNet3DConditionModel):
    """Each downsampling pads two rows above and below, and each upsampling cuts the first and last row off again.

    A side of h rows becomes h / 2 + 1 a level further down, so heights must be even at every level: 90 -> 46 -> 24 -> 13 of the
    published model. Widths halve as usual. The defaults are the published sizes.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "DownBlock3D",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlock3D",
            "CrossAttnUpBlock3D",
            "CrossAttnUpBlock3D",
            "CrossAttnUpBlock3D",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        num_attention_heads: int | None = None,
        time_cond_proj_dim: int | None = None,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        down_blocks: Any = self.down_blocks
        up_blocks: Any = self.up_blocks
        for sampler in (sampler for block in down_blocks for sampler in block.downsamplers or ()):
            sampler.conv.padding = (downsample_padding + 1, downsample_padding)
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
        """Compute like diffusers' own, for latents (B, C, T, h, w). ValueError for h or w that do not pass `check_latent_size`."""
        check_latent_size(sample.shape[-2], sample.shape[-1], levels=len(self.config["block_out_channels"]))
        return super().forward(sample, timestep, encoder_hidden_states, return_dict=return_dict)


class _CroppedUpsample(Upsample2D):
    def forward(self, hidden_states: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        """(N, C, h, w) to (N, C, 2 h - 2, 2 w): the size of the skip it meets, so `output_size` says nothing new."""
        doubled = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        return self.conv(doubled[..., 1:-1, :])


def check_latent_size(height: int, width: int, levels: int) -> None:
    """ValueError, which tells the nearest heights that would do, unless latents of this size come back to their size."""
    if not passes(height, levels):
        near = [
            next((h for h in way if passes(h, levels)), None)
            for way in (range(height, 0, -1), range(height, 2 * height + 2**levels))
        ]
        fix = " or ".join(str(h) for h in near if h)
        raise ValueError(
            f"latents of {height} rows do not pass through this network, whose levels have h / 2 + 1 rows; use {fix}"
        )
    if width % 2 ** (levels - 1):
        raise ValueError(
            f"latents of {width} columns do not pass through this network; use a multiple of {2 ** (levels - 1)}"
        )


def passes(height: int, levels: int) -> bool:
    """Return whether so many rows of latents come back to their number through so many levels."""
    for _ in range(levels - 1):
        if height % 2:
            return False
        height = height // 2 + 1
    return height > 0
