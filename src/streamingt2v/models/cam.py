"""Conditional attention module: features of the last frames for every skip (method.md: CAM).

A copy of the base network's encoder half reads the noisy latents of the overlap, the timestep and the text; a
small convolutional encoder adds the frames' pixels. `unet3d` merges the features.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_3d_blocks import UNetMidBlock3DCrossAttn, get_down_block
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from . import encoder
from .context import Contexts, install, sites

CHANNELS = (32, 96, 256, 512)
"""Widths of the published frame encoder."""


class CamFeatures(NamedTuple):
    """Features of the Tc overlap frames for each skip and for the middle block, each (B Tc, C, h, w)."""

    down: tuple[torch.Tensor, ...]
    mid: torch.Tensor

    def of_the_last(self, overlap: int, times: int, videos: int = 1) -> CamFeatures:
        """Return features of the last `videos` of the batch (Tc = `overlap`), each repeated `times` times."""

        def shared(x: torch.Tensor) -> torch.Tensor:
            latest = x[-videos * overlap :].unflatten(0, (videos, overlap))
            return latest.repeat_interleave(times, 0).flatten(0, 1)

        return CamFeatures(tuple(shared(x) for x in self.down), shared(self.mid))


class EncoderCopy(ModelMixin, ConfigMixin):  # mixins disagree on the type of `config_name`
    """The part that CAMs of all base networks share: a copied encoder half and an encoder of frames."""

    _skip_layerwise_casting_patterns = ("norm", "time_embedding")  # diffusers declares it as None
    controlnet_cond_embedding: nn.Module

    @classmethod
    def from_base(cls, unet: Any, conditioning_channels: tuple[int, ...] = CHANNELS) -> Self:
        """Copy the weights of a base network's encoder half; the new frame encoder ends in zeros.

        ValueError if the network lacks weights.
        """
        names = inspect.signature(cls).parameters.keys() - {"conditioning_channels"}
        cam: Any = cls(**{n: unet.config[n] for n in names}, conditioning_channels=conditioning_channels)
        own = {name for name in cam.state_dict() if not name.startswith("controlnet_cond_embedding.")}
        theirs = unet.state_dict()
        if left := sorted(own - theirs.keys()):
            raise ValueError(f"the base network lacks {left[:3]}, {len(left)} names in all")
        cam.load_state_dict({name: theirs[name] for name in own}, strict=False)
        return cam

    @apply_forward_hook
    def encode_frames(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Embed overlap frames (B, Tc, 3, H, W) in [-1, 1] as (B, Tc, C, h, w), once per chunk."""
        return self.controlnet_cond_embedding(frames_BTCHW.flatten(0, 1)).unflatten(0, frames_BTCHW.shape[:2])


class ConditionalAttentionModule(EncoderCopy):
    """CAM for ModelScope's network. Defaults: published sizes.

    conditioning_channels: widths of the frame encoder; each entry after the first halves height and width, so
    pixels and latents must differ by that factor.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "DownBlock3D",
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
        conditioning_channels: tuple[int, ...] = CHANNELS,
    ):
        super().__init__()
        width, time_dim = block_out_channels[0], 4 * block_out_channels[0]
        shared: dict[str, Any] = {
            "resnet_eps": norm_eps,
            "resnet_act_fn": act_fn,
            "resnet_groups": norm_num_groups,
            "temb_channels": time_dim,
            "cross_attention_dim": cross_attention_dim,
            "num_attention_heads": attention_head_dim,  # diffusers' 3D blocks mean the width of a head
        }
        self.conv_in = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, time_dim, act_fn=act_fn)
        self.transformer_in = TransformerTemporalModel(
            num_attention_heads=8,
            attention_head_dim=attention_head_dim,
            in_channels=width,
            norm_num_groups=norm_num_groups,
        )
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            width, block_out_channels=conditioning_channels
        )
        self.down_blocks = nn.ModuleList(
            get_down_block(
                kind,
                num_layers=layers_per_block,
                in_channels=block_out_channels[max(level - 1, 0)],
                out_channels=block_out_channels[level],
                add_downsample=level < len(block_out_channels) - 1,
                downsample_padding=downsample_padding,
                **shared,
            )
            for level, kind in enumerate(down_block_types)
        )
        self.mid_block = UNetMidBlock3DCrossAttn(
            in_channels=block_out_channels[-1], output_scale_factor=mid_block_scale_factor, **shared
        )
        install(self)

    @apply_forward_hook
    def contexts(self, text_BLD: torch.Tensor) -> Contexts:
        """Return the keys and values of all cross-attentions, once per video; CAM gets no image tokens."""
        return tuple(layer.context(text_BLD) for layer in sites(self))

    def forward(
        self,
        sample_BCTHW: torch.Tensor,
        timestep: torch.Tensor | float,
        text: torch.Tensor | Contexts,
        embedding_BTCHW: torch.Tensor,
    ) -> CamFeatures:
        """Return the features for the base network.

        sample_BCTHW: noisy latents of the whole chunk; only the first Tc frames are read. text: tokens (B, L,
        D) or `contexts`. embedding_BTCHW: from `encode_frames`. Samples and embeddings have batch B, or 1 to
        share them. ValueError if the sample has fewer frames than the embedding.
        """
        num_frames = embedding_BTCHW.shape[1]
        if sample_BCTHW.shape[2] < num_frames:
            raise ValueError(f"{sample_BCTHW.shape[2]} latent frames for {num_frames} conditioning frames")
        sample_BCTHW = sample_BCTHW[:, :, :num_frames]
        contexts = self.contexts(text) if isinstance(text, torch.Tensor) else text
        conditions, hidden = encoder.begin(self, sample_BCTHW, timestep, contexts)
        hidden = hidden + embedding_BTCHW.expand(len(hidden) // num_frames, -1, -1, -1, -1).flatten(0, 1)
        hidden, skips = encoder.descend(self, hidden, conditions)
        return CamFeatures(skips, encoder.bottom(self, hidden, conditions))
