"""CAM for Stable Video Diffusion's network: the same idea as `memory.cam`, on diffusers' spatio-temporal blocks (method.md: StreamingSVD).

A copy of the encoder half that sees the noisy latents of the overlap beside the latents of the picture, the noise level, the
micro-conditions and the picture's CLIP token, and on top the overlap's pixels through a small convolutional encoder with norms.
The functions above the class are the way that the base network and its copy have in common. Frames travel as (B T, C, H, W).
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_3d_blocks import UNetMidBlockSpatioTemporal, get_down_block
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from .cam import CamFeatures


class Conditions(NamedTuple):
    """Inputs of every block: time embedding (B T, D), context (B T, L, D), and for each frame whether it stands alone (B, T)."""

    emb: torch.Tensor
    context: torch.Tensor
    image_only: torch.Tensor

    def for_block(self, block: nn.Module) -> dict[str, torch.Tensor]:
        """The arguments of a block, under diffusers' names."""
        arguments = {"temb": self.emb, "image_only_indicator": self.image_only}
        crosses = getattr(block, "has_cross_attention", False)
        return arguments | {"encoder_hidden_states": self.context} if crosses else arguments


def embed(
    network: Any,
    sample_BTCHW: torch.Tensor,
    timestep: torch.Tensor | float,
    context_BLD: torch.Tensor,
    added_BN: torch.Tensor,
) -> Conditions:
    """timestep: a number or a tensor of shape () or (B,). context_BLD: of the picture. added_BN: the micro-conditions."""
    batch, num_frames = sample_BTCHW.shape[:2]
    timesteps_B = torch.as_tensor(timestep, device=sample_BTCHW.device).reshape(-1).expand(batch)
    emb_BD = network.time_embedding(network.time_proj(timesteps_B).to(sample_BTCHW.dtype))
    added_BD = network.add_time_proj(added_BN.flatten()).reshape(batch, -1).to(emb_BD.dtype)
    emb_BD = emb_BD + network.add_embedding(added_BD)
    return Conditions(
        emb_BD.repeat_interleave(num_frames, dim=0),
        context_BLD.repeat_interleave(num_frames, dim=0),
        sample_BTCHW.new_zeros(batch, num_frames),
    )


def descend(
    network: Any, hidden: torch.Tensor, conditions: Conditions
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """All down blocks. Returns the last output and every skip, the input itself being the first, each (B T, C, h, w)."""
    skips: tuple[torch.Tensor, ...] = (hidden,)
    for block in network.down_blocks:
        hidden, outputs = block(hidden_states=hidden, **conditions.for_block(block))
        skips += outputs
    return hidden, skips


def bottom(network: Any, hidden: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    """The middle block."""
    emb, context, image_only = conditions
    return network.mid_block(
        hidden_states=hidden, temb=emb, encoder_hidden_states=context, image_only_indicator=image_only
    )


def skip_channels(network: Any) -> tuple[int, ...]:
    """Channels of each skip, read from the built blocks, in the order of `descend`."""
    channels = [network.conv_in.out_channels]
    for block in network.down_blocks:
        channels += [resnet.spatial_res_block.out_channels for resnet in block.resnets]
        channels += [sampler.out_channels for sampler in block.downsamplers or ()]
    return tuple(channels)


class NormedFrameEncoder(ControlNetConditioningEmbedding):
    """Pixels (N, 3, H, W) to features of the latents' size; every inner convolution is followed by a LayerNorm over the channels."""

    def __init__(self, width: int, channels: tuple[int, ...]):
        super().__init__(width, block_out_channels=channels)
        self.norms = nn.ModuleList(nn.LayerNorm(block.out_channels) for block in self.blocks)

    def forward(self, frames_NCHW: torch.Tensor) -> torch.Tensor:
        hidden = F.silu(self.conv_in(frames_NCHW))
        for block, norm in zip(self.blocks, self.norms, strict=True):
            hidden = F.silu(norm(block(hidden).movedim(1, -1)).movedim(-1, 1))
        return self.conv_out(hidden)


class SpatioTemporalCam(ModelMixin, ConfigMixin):  # both have `config_name`, of different types
    """The defaults are the published sizes. `conditioning_channels`: widths of the frame encoder, which halves the frames' height and
    width once for each entry after the first.
    """

    _skip_layerwise_casting_patterns = ("norm", "time_embedding")  # declared as None

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
        conditioning_channels: tuple[int, ...] = (32, 96, 256, 512),
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

    @classmethod
    def from_base(
        cls,
        unet: UNetSpatioTemporalConditionModel,
        conditioning_channels: tuple[int, ...] = (32, 96, 256, 512),
    ) -> SpatioTemporalCam:
        """A module with the weights of a base network's encoder half; the frame encoder is new and ends in zeros."""
        sizes = {
            name: unet.config[name]
            for name in inspect.signature(cls).parameters
            if name != "conditioning_channels"
        }
        cam = cls(**sizes, conditioning_channels=conditioning_channels)
        own = {name for name in cam.state_dict() if not name.startswith("controlnet_cond_embedding.")}
        theirs = unet.state_dict()
        if own - theirs.keys():
            raise ValueError(
                f"the base network lacks {sorted(own - theirs.keys())[:3]}, {len(own - theirs.keys())} names in all"
            )
        cam.load_state_dict({name: theirs[name] for name in own}, strict=False)
        return cam

    @apply_forward_hook
    def encode_frames(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Overlap frames (B, Tc, 3, H, W) in [-1, 1] to their embedding (B, Tc, C, h, w): once a chunk, for all steps."""
        return self.controlnet_cond_embedding(frames_BTCHW.flatten(0, 1)).unflatten(0, frames_BTCHW.shape[:2])

    def forward(
        self,
        sample_BTCHW: torch.Tensor,
        timestep: torch.Tensor | float,
        context_BLD: torch.Tensor,
        added_BN: torch.Tensor,
        embedding_BTCHW: torch.Tensor,
    ) -> CamFeatures:
        """Features for the base network; arguments as of its own, and the embedding of `encode_frames`, with a batch of B or 1.

        Only the first Tc frames of the sample, the overlap, are looked at. ValueError if it has fewer.
        """
        num_frames = embedding_BTCHW.shape[1]
        if sample_BTCHW.shape[1] < num_frames:
            raise ValueError(f"{sample_BTCHW.shape[1]} latent frames for {num_frames} conditioning frames")
        sample_BTCHW = sample_BTCHW[:, :num_frames]
        conditions = embed(self, sample_BTCHW, timestep, context_BLD, added_BN)
        embedding = embedding_BTCHW.expand(len(sample_BTCHW), -1, -1, -1, -1).flatten(0, 1)
        hidden, skips = descend(self, self.conv_in(sample_BTCHW.flatten(0, 1)) + embedding, conditions)
        return CamFeatures(skips, bottom(self, hidden, conditions))
