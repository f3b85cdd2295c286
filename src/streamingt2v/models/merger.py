"""Merge CAM's features into the base network by attention across time at each pixel (method.md: Merger)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .cam import CamFeatures
from .encoder import Skips, skip_channels, unflatten_frames


class TemporalCrossAttention(nn.Module):
    """Attend between the frames of one pixel, without positions or mask; names as in `Attention`."""

    def __init__(self, channels: int, head_dim: int):
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"merger_head_dim={head_dim} must divide the {channels} channels of every skip")
        self.heads = channels // head_dim
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, query_NTC: torch.Tensor, source_NTC: torch.Tensor) -> torch.Tensor:
        """Attend from N pixels (N, T, C) to sources (N, Tc, C); return (N, T, C)."""
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.to_q(query_NTC), self.to_k(source_NTC), self.to_v(source_NTC))
        )
        return self.to_out[0](F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _TemporalTransformer(nn.Module):
    """Norm, projection, attention, projection; the last starts at zero, so a new merger has no effect."""

    def __init__(self, channels: int, head_dim: int, norm_num_groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.attention = TemporalCrossAttention(channels, head_dim)
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, skip_BCTHW: torch.Tensor, cam_BCTHW: torch.Tensor) -> torch.Tensor:
        _, _, _, height, width = skip_BCTHW.shape
        query = self.proj_in(_pixels_first(self.norm(skip_BCTHW)))
        out = self.proj_out(self.attention(query, _pixels_first(cam_BCTHW)))
        return out.unflatten(0, (-1, height, width)).permute(0, 4, 3, 1, 2)


class SkipMerger(nn.Module):
    """Return skip + attention(skip -> CAM's feature); keys and values are not normed or projected."""

    def __init__(self, channels: int, head_dim: int, norm_num_groups: int):
        super().__init__()
        self.temporal_transformer = _TemporalTransformer(channels, head_dim, norm_num_groups)

    def forward(self, skip: torch.Tensor, cam: torch.Tensor, batch: int) -> torch.Tensor:
        """Merge cam (B Tc, C, h, w) into skip (B T, C, h, w) for batch B and any T and Tc."""
        skip_BCTHW = unflatten_frames(skip, len(skip) // batch)
        change_BCTHW = self.temporal_transformer(skip_BCTHW, unflatten_frames(cam, len(cam) // batch))
        return skip + change_BCTHW.transpose(1, 2).flatten(0, 1)


def install(network: Any, head_dim: int, norm_num_groups: int) -> None:
    """Add a merger for each skip and for the middle block to a base network."""
    *skips, middle = (
        SkipMerger(channels, head_dim, norm_num_groups)
        for channels in (*skip_channels(network), network.config["block_out_channels"][-1])
    )
    network.cross_attention_merger_down_blocks = nn.ModuleList(skips)
    network.cross_attention_merger_mid_block = middle


def merge(
    network: Any, hidden: torch.Tensor, skips: Skips, features: CamFeatures, batch: int
) -> tuple[torch.Tensor, Skips]:
    """Merge CAM's features into the middle block's output and every skip.

    Only the decoder sees merged features: the middle block has run on the unmerged ones.
    """
    mergers = network.cross_attention_merger_down_blocks
    merged = tuple(
        merger(skip, cam, batch) for merger, skip, cam in zip(mergers, skips, features.down, strict=True)
    )
    return network.cross_attention_merger_mid_block(hidden, features.mid, batch), merged


def _pixels_first(x_BCTHW: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) to (B H W, T, C)."""
    return x_BCTHW.permute(0, 3, 4, 2, 1).flatten(0, 2)
