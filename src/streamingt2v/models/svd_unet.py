"""Stable Video Diffusion's network, diffusers' `UNetSpatioTemporalConditionModel`, with CAM joined on (method.md: StreamingSVD)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import nn

from . import svd_cam as spatiotemporal
from .cam import CamFeatures
from .merger import SkipMerger

NORM_GROUPS = 32
"""Groups of every norm in diffusers' network, where they are no setting."""


class StreamingUNetSpatioTemporal(UNetSpatioTemporalConditionModel):
    """The base network. Without CAM features it is the stock one and makes the first chunk.

    merger_head_dim: width of the mergers' heads. The defaults are the published sizes. A new merger ends in zeros: no effect.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        merger_head_dim: int = 64,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        self.cross_attention_merger_down_blocks = nn.ModuleList(
            SkipMerger(channels, merger_head_dim, NORM_GROUPS)
            for channels in spatiotemporal.skip_channels(self)
        )
        self.cross_attention_merger_mid_block = SkipMerger(
            block_out_channels[-1], merger_head_dim, NORM_GROUPS
        )

    @classmethod
    def from_base(
        cls, unet: UNetSpatioTemporalConditionModel, merger_head_dim: int = 64
    ) -> StreamingUNetSpatioTemporal:
        """This network with the weights of a stock one; the mergers have no effect yet."""
        names = inspect.signature(UNetSpatioTemporalConditionModel).parameters
        net = cls(**{name: unet.config[name] for name in names}, merger_head_dim=merger_head_dim)
        _, unexpected = net.load_state_dict(unet.state_dict(), strict=False)
        if unexpected:
            raise ValueError(
                f"the base network has unknown weights: {unexpected[:3]}, {len(unexpected)} in all"
            )
        return net

    def forward(
        self,
        sample_BTCHW: torch.Tensor,
        timestep: torch.Tensor | float,
        context_BLD: torch.Tensor,
        added_BN: torch.Tensor,
        cam_features: CamFeatures | None = None,
    ) -> torch.Tensor:
        """Prediction (B, T, C, H, W) for noisy latents beside the latents of the picture, (B, T, 2 C, H, W).

        timestep: a number or a tensor of shape () or (B,). context_BLD: the picture's CLIP embedding as one token. added_BN:
        micro-conditions. cam_features: from `SpatioTemporalCam`, for any number of frames; None skips the mergers.
        """
        num_frames = sample_BTCHW.shape[1]
        conditions = spatiotemporal.embed(self, sample_BTCHW, timestep, context_BLD, added_BN)
        hidden, skips = spatiotemporal.descend(self, self.conv_in(sample_BTCHW.flatten(0, 1)), conditions)
        hidden = spatiotemporal.bottom(self, hidden, conditions)
        if cam_features is not None:
            # as in `unet3d`: only the decoder sees the merged features
            batch, mergers = len(sample_BTCHW), self.cross_attention_merger_down_blocks
            skips = tuple(
                merger(skip, cam, batch)
                for merger, skip, cam in zip(mergers, skips, cam_features.down, strict=True)
            )
            hidden = self.cross_attention_merger_mid_block(hidden, cam_features.mid, batch)
        hidden = self._ascend(hidden, skips, conditions)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, (-1, num_frames))

    def _ascend(
        self, hidden: torch.Tensor, skips: tuple[torch.Tensor, ...], conditions: spatiotemporal.Conditions
    ) -> torch.Tensor:
        """All up blocks; each takes as many of the last skips as it has layers."""
        blocks: Any = self.up_blocks
        for block in blocks:
            skips, taken = skips[: -len(block.resnets)], skips[-len(block.resnets) :]
            # Sizes that do not halve evenly on the way down are met again exactly on the way up.
            size = skips[-1].shape[2:] if skips else None
            hidden = block(
                hidden_states=hidden,
                res_hidden_states_tuple=taken,
                upsample_size=size,
                **conditions.for_block(block),
            )
        return hidden
