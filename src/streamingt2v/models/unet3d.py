"""ModelScope's text-to-video network, diffusers' `UNet3DConditionModel`, with CAM and APM joined on (method.md: Base network)."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from . import encoder
from .apm import AppearanceAttention
from .cam import CamFeatures
from .context import Contexts, install, sites
from .merger import SkipMerger


class StreamingUNet3D(UNet3DConditionModel):
    """The base network. Without image tokens and CAM features it is the stock one and makes the first chunk.

    merger_head_dim: width of the mergers' heads. num_text_tokens, num_image_tokens: tokens that APM mixes. The defaults are the
    published sizes. New parts start without effect: mergers end in zeros and every alpha is 0.
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
        merger_head_dim: int = 64,
        num_text_tokens: int = 77,
        num_image_tokens: int = 16,
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
        install(
            self,
            partial(AppearanceAttention, num_text_tokens=num_text_tokens, num_image_tokens=num_image_tokens),
        )
        self.cross_attention_merger_down_blocks = nn.ModuleList(
            SkipMerger(channels, merger_head_dim, norm_num_groups) for channels in encoder.skip_channels(self)
        )
        self.cross_attention_merger_mid_block = SkipMerger(
            block_out_channels[-1], merger_head_dim, norm_num_groups
        )

    @classmethod
    def from_base(
        cls,
        unet: UNet3DConditionModel,
        merger_head_dim: int = 64,
        num_text_tokens: int = 77,
        num_image_tokens: int = 16,
    ) -> StreamingUNet3D:
        """This network with the weights of a stock one; what is new has no effect yet."""
        names = inspect.signature(UNet3DConditionModel).parameters
        net = cls(
            **{name: unet.config[name] for name in names},
            merger_head_dim=merger_head_dim,
            num_text_tokens=num_text_tokens,
            num_image_tokens=num_image_tokens,
        )
        _, unexpected = net.load_state_dict(unet.state_dict(), strict=False)
        if unexpected:
            raise ValueError(
                f"the base network has unknown weights: {unexpected[:3]}, {len(unexpected)} in all"
            )
        return net

    def stock(self) -> UNet3DConditionModel:
        """The base alone, as diffusers' own class: a copy of its weights, without the memories."""
        names = inspect.signature(UNet3DConditionModel).parameters
        net = UNet3DConditionModel(**{name: self.config[name] for name in names})
        own = self.state_dict()
        net.load_state_dict({name: own[name] for name in net.state_dict()})
        return net

    @apply_forward_hook
    def contexts(self, text_BLD: torch.Tensor, image_tokens_BLD: torch.Tensor | None = None) -> Contexts:
        """Keys and values of all cross-attentions, image tokens mixed in where given (method.md: APM).

        They do not depend on the timestep or the latents: make them once a video and give them to `forward` in the place of text.
        """
        if image_tokens_BLD is None:
            return tuple(layer.context(text_BLD) for layer in sites(self))
        counts, own = (
            (text_BLD.shape[1], image_tokens_BLD.shape[1]),
            (self.config["num_text_tokens"], self.config["num_image_tokens"]),
        )
        if counts != own:
            raise ValueError(f"{counts} tokens of text and image were given; this network mixes {own}")
        layers: list[AppearanceAttention] = list(sites(self))  # type: ignore[arg-type]
        return tuple(layer.context(layer.mix(text_BLD, image_tokens_BLD)) for layer in layers)

    def forward(
        self,
        sample_BCTHW: torch.Tensor,
        timestep: torch.Tensor | float,
        text: torch.Tensor | Contexts,
        image_tokens_BLD: torch.Tensor | None = None,
        cam_features: CamFeatures | None = None,
    ) -> torch.Tensor:
        """Prediction (B, C, T, H, W) for noisy latents, or for those of one video, (1, C, T, H, W), under each of B texts.

        timestep: a number or a tensor of shape (), (B,) or (B or 1, T). text: tokens (B, L, D), or the result of `contexts`, which
        already has the image tokens in it. cam_features: from `ConditionalAttentionModule`, for any number of frames; None skips the
        mergers.
        """
        if image_tokens_BLD is not None and not isinstance(text, torch.Tensor):
            raise ValueError("image tokens are given twice: contexts already hold them")
        contexts = self.contexts(text, image_tokens_BLD) if isinstance(text, torch.Tensor) else text
        num_frames = sample_BCTHW.shape[2]
        emb, hidden = encoder.begin(self, sample_BCTHW, timestep, contexts)
        hidden, skips = encoder.descend(self, hidden, emb, contexts, num_frames)
        hidden = encoder.bottom(self, hidden, emb, contexts, num_frames)
        if cam_features is not None:
            # Only the decoder sees the merged features: the middle block above ran on the unmerged ones.
            hidden, skips = self._merge(hidden, skips, cam_features, len(hidden) // num_frames)
        return self.decode(hidden, skips, emb, contexts, num_frames)

    def decode(
        self,
        hidden: torch.Tensor,
        skips: tuple[torch.Tensor, ...],
        emb: torch.Tensor,
        contexts: Contexts,
        num_frames: int,
    ) -> torch.Tensor:
        """The second half: from the middle's output and the skips, each (B T, C, h, w), to the prediction (B, C, T, H, W)."""
        hidden = self._ascend(hidden, skips, emb, contexts, num_frames)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return encoder.unflatten_frames(hidden, num_frames)

    def _merge(
        self, hidden: torch.Tensor, skips: tuple[torch.Tensor, ...], features: CamFeatures, batch: int
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """CAM's features into the middle's output and into every skip."""
        mergers = self.cross_attention_merger_down_blocks
        merged = tuple(
            merger(skip, cam, batch) for merger, skip, cam in zip(mergers, skips, features.down, strict=True)
        )
        return self.cross_attention_merger_mid_block(hidden, features.mid, batch), merged

    def _ascend(
        self,
        hidden: torch.Tensor,
        skips: tuple[torch.Tensor, ...],
        emb: torch.Tensor,
        contexts: Contexts,
        num_frames: int,
    ) -> torch.Tensor:
        """All up blocks; each takes as many of the last skips as it has layers."""
        blocks: Any = self.up_blocks
        for block in blocks:
            skips, taken = skips[: -len(block.resnets)], skips[-len(block.resnets) :]
            conditions = {"encoder_hidden_states": contexts} if encoder.has_cross_attention(block) else {}
            # Sizes that do not halve evenly on the way down are met again exactly on the way up.
            size = skips[-1].shape[2:] if skips else None
            hidden = block(
                hidden_states=hidden,
                temb=emb,
                res_hidden_states_tuple=taken,
                upsample_size=size,
                num_frames=num_frames,
                **conditions,
            )
        return hidden
