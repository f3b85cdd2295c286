"""Conditional attention module: the last frames of the video so far become features for every skip of the base network (method.md: CAM).

A copy of the base network's encoder half that sees the noisy latents of the overlap, the timestep and the text, plus a small
convolutional encoder of the frames' pixels. `backbones.unet3d` merges what comes out.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_3d_blocks import UNetMidBlock3DCrossAttn, get_down_block
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from . import encoder
from .context import Contexts, install, sites


class CamFeatures(NamedTuple):
    """Features of the Tc overlap frames, one for each skip of the base network and one for its middle, each (B Tc, C, h, w)."""

    down: tuple[torch.Tensor, ...]
    mid: torch.Tensor

    def of_the_last(self, overlap: int, times: int, videos: int = 1) -> CamFeatures:
        """Return features of the last `videos` in the batch, whose Tc is `overlap`, repeated for the neighbours that share them."""

        def shared(x: torch.Tensor) -> torch.Tensor:
            return (
                x[-videos * overlap :]
                .unflatten(0, (videos, overlap))
                .repeat_interleave(times, 0)
                .flatten(0, 1)
            )

        return CamFeatures(tuple(shared(x) for x in self.down), shared(self.mid))


class ConditionalAttentionModule(ModelMixin, ConfigMixin):  # both have `config_name`, of different types
    """The defaults are the published sizes. `conditioning_channels`: widths of the frame encoder, which halves the frames'
    height and width once for each entry after the first; pixels and latents must differ by that factor.
    """

    _skip_layerwise_casting_patterns = ("norm", "time_embedding")  # declared as None

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
        conditioning_channels: tuple[int, ...] = (32, 96, 256, 512),
    ):
        super().__init__()
        width, time_dim = block_out_channels[0], 4 * block_out_channels[0]
        shared: dict[str, Any] = {
            "resnet_eps": norm_eps,
            "resnet_act_fn": act_fn,
            "resnet_groups": norm_num_groups,
            "temb_channels": time_dim,
        }
        # diffusers' 3D blocks call the width of a head `num_attention_heads`.
        shared |= {
            "temb_channels": time_dim,
            "cross_attention_dim": cross_attention_dim,
            "num_attention_heads": attention_head_dim,
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

    @classmethod
    def from_base(
        cls, unet: UNet3DConditionModel, conditioning_channels: tuple[int, ...] = (32, 96, 256, 512)
    ) -> ConditionalAttentionModule:
        """A module with the weights of a base network's encoder half; the frame encoder is new and ends in zeros."""
        sizes = {
            name: unet.config[name]
            for name in inspect.signature(cls).parameters
            if name != "conditioning_channels"
        }
        cam = cls(**sizes, conditioning_channels=conditioning_channels)
        own = cam.state_dict()
        copied = {name: tensor for name, tensor in unet.state_dict().items() if name in own}
        left = {
            name for name in own if name not in copied and not name.startswith("controlnet_cond_embedding.")
        }
        if left:
            raise ValueError(f"the base network lacks {sorted(left)[:3]}, {len(left)} names in all")
        cam.load_state_dict(copied, strict=False)
        return cam

    @apply_forward_hook
    def encode_frames(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Overlap frames (B, Tc, 3, H, W) in [-1, 1] to their embedding (B, Tc, C, h, w): once a chunk, for all steps (method.md: CAM)."""
        embedding = self.controlnet_cond_embedding(frames_BTCHW.flatten(0, 1))
        return embedding.unflatten(0, frames_BTCHW.shape[:2])

    @apply_forward_hook
    def contexts(self, text_BLD: torch.Tensor) -> Contexts:
        """Keys and values of all cross-attentions: once a video, for all steps. Image tokens do not enter CAM (method.md: CAM)."""
        return tuple(layer.context(text_BLD) for layer in sites(self))

    def forward(
        self,
        sample_BCTHW: torch.Tensor,
        timestep: torch.Tensor | float,
        text: torch.Tensor | Contexts,
        embedding_BTCHW: torch.Tensor,
    ) -> CamFeatures:
        """Features for the base network.

        sample_BCTHW: the noisy latents of the whole chunk, of which only the first Tc frames, the overlap, are looked at. text: tokens
        (B, L, D) or what `contexts` made of them. embedding_BTCHW: from `encode_frames`. Samples and embeddings have a batch of B, or of
        1 for all: both halves of guidance see the same. Raises ValueError if there are fewer latent frames than embedded ones.
        """
        num_frames = embedding_BTCHW.shape[1]
        if sample_BCTHW.shape[2] < num_frames:
            raise ValueError(f"{sample_BCTHW.shape[2]} latent frames for {num_frames} conditioning frames")
        sample_BCTHW = sample_BCTHW[:, :, :num_frames]
        contexts = self.contexts(text) if isinstance(text, torch.Tensor) else text
        emb, hidden = encoder.begin(self, sample_BCTHW, timestep, contexts)
        hidden = hidden + embedding_BTCHW.expand(len(hidden) // num_frames, -1, -1, -1, -1).flatten(0, 1)
        hidden, skips = encoder.descend(self, hidden, emb, contexts, num_frames)
        return CamFeatures(skips, encoder.bottom(self, hidden, emb, contexts, num_frames))
