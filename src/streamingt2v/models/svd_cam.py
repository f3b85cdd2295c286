"""CAM for Stable Video Diffusion: as `cam`, on diffusers' spatio-temporal blocks (method.md: StreamingSVD).

A copy of the encoder half reads the noisy latents of the overlap beside the image's latents, the noise level,
the micro-conditions and the image's CLIP token; a small convolutional encoder with norms adds the overlap's
pixels. Frames travel as (B T, C, H, W).
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_3d_blocks import UNetMidBlockSpatioTemporal, get_down_block
from torch import nn

from . import encoder
from .cam import CHANNELS, CamFeatures, EncoderCopy
from .encoder import Conditions


def embed(
    network: Any,
    sample_BTCHW: torch.Tensor,
    timestep: torch.Tensor | float,
    context_BLD: torch.Tensor,
    added_BN: torch.Tensor,
) -> Conditions:
    """Return the blocks' inputs.

    timestep: a number or a tensor of shape () or (B,). context_BLD: of the image. added_BN: micro-conditions.
    """
    batch, num_frames = sample_BTCHW.shape[:2]
    timesteps_B = torch.as_tensor(timestep, device=sample_BTCHW.device).reshape(-1).expand(batch)
    emb_BD = network.time_embedding(network.time_proj(timesteps_B).to(sample_BTCHW.dtype))
    added_BD = network.add_time_proj(added_BN.flatten()).reshape(batch, -1).to(emb_BD.dtype)
    emb_BD = emb_BD + network.add_embedding(added_BD)
    return Conditions(
        emb_BD.repeat_interleave(num_frames, dim=0),
        context_BLD.repeat_interleave(num_frames, dim=0),
        {"image_only_indicator": sample_BTCHW.new_zeros(batch, num_frames)},
    )


class NormedFrameEncoder(ControlNetConditioningEmbedding):
    """Encode pixels (N, 3, H, W) at the latents' size; inner convolutions are normed over channels."""

    def __init__(self, width: int, channels: tuple[int, ...]):
        super().__init__(width, block_out_channels=channels)
        self.norms = nn.ModuleList(nn.LayerNorm(block.out_channels) for block in self.blocks)

    def forward(self, frames_NCHW: torch.Tensor) -> torch.Tensor:
        hidden = F.silu(self.conv_in(frames_NCHW))
        for block, norm in zip(self.blocks, self.norms, strict=True):
            hidden = F.silu(norm(block(hidden).movedim(1, -1)).movedim(-1, 1))
        return self.conv_out(hidden)


class SpatioTemporalCam(EncoderCopy):
    """CAM for SVD's network, by default of published sizes; see `cam.ConditionalAttentionModule`."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 8,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        num_attention_heads: tuple[int, ...] = (5, 10, 20, 20),
        conditioning_channels: tuple[int, ...] = CHANNELS,
    ):
        super().__init__()
        width, time_dim = block_out_channels[0], 4 * block_out_channels[0]
        self.conv_in = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, time_dim)
        self.add_time_proj = Timesteps(addition_time_embed_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.add_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, time_dim)
        shared: dict[str, Any] = {"temb_channels": time_dim, "cross_attention_dim": cross_attention_dim}
        self.down_blocks = nn.ModuleList(
            get_down_block(
                kind,
                num_layers=layers_per_block,
                in_channels=block_out_channels[max(level - 1, 0)],
                out_channels=block_out_channels[level],
                add_downsample=level < len(block_out_channels) - 1,
                num_attention_heads=num_attention_heads[level],
                resnet_eps=1e-5,
                resnet_act_fn="silu",
                **shared,
            )
            for level, kind in enumerate(down_block_types)
        )
        self.mid_block = UNetMidBlockSpatioTemporal(
            block_out_channels[-1], num_attention_heads=num_attention_heads[-1], **shared
        )
        self.controlnet_cond_embedding = NormedFrameEncoder(block_out_channels[0], conditioning_channels)

    def forward(
        self,
        sample_BTCHW: torch.Tensor,
        timestep: torch.Tensor | float,
        context_BLD: torch.Tensor,
        added_BN: torch.Tensor,
        embedding_BTCHW: torch.Tensor,
    ) -> CamFeatures:
        """Return the features for the base network, from its arguments and `encode_frames`' embedding.

        Only the first Tc frames of the sample are read. ValueError if it has fewer.
        """
        num_frames = embedding_BTCHW.shape[1]
        if sample_BTCHW.shape[1] < num_frames:
            raise ValueError(f"{sample_BTCHW.shape[1]} latent frames for {num_frames} conditioning frames")
        sample_BTCHW = sample_BTCHW[:, :num_frames]
        conditions = embed(self, sample_BTCHW, timestep, context_BLD, added_BN)
        embedding = embedding_BTCHW.expand(len(sample_BTCHW), -1, -1, -1, -1).flatten(0, 1)
        hidden, skips = encoder.descend(
            self, self.conv_in(sample_BTCHW.flatten(0, 1)) + embedding, conditions
        )
        return CamFeatures(skips, encoder.bottom(self, hidden, conditions))
