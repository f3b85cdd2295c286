"""ModelScope's text-to-video network, `UNet3DConditionModel`, with CAM and APM (method.md: Base network)."""

import inspect
from functools import partial
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.utils.accelerate_utils import apply_forward_hook

from . import encoder, merger
from .apm import AppearanceAttention
from .cam import CamFeatures
from .context import Contexts, install, sites
from .stock import extended, extends


class StreamingUNet3D(UNet3DConditionModel, PeftAdapterMixin):
    """The base network; without image tokens and CAM features it equals the stock one.

    merger_head_dim: width of the mergers' heads. num_text_tokens, num_image_tokens: tokens that APM mixes.
    Defaults: published sizes. New parts have no effect: mergers end in zeros and every alpha is 0.
    """

    @register_to_config
    @extends(UNet3DConditionModel)
    def __init__(
        self, merger_head_dim: int = 64, num_text_tokens: int = 77, num_image_tokens: int = 16, **sizes: Any
    ):
        super().__init__(**sizes)
        tokens = {"num_text_tokens": num_text_tokens, "num_image_tokens": num_image_tokens}
        install(self, partial(AppearanceAttention, **tokens))
        merger.install(self, merger_head_dim, self.config["norm_num_groups"])

    @classmethod
    def from_base(
        cls,
        unet: UNet3DConditionModel,
        merger_head_dim: int = 64,
        num_text_tokens: int = 77,
        num_image_tokens: int = 16,
    ) -> Self:
        """Copy the weights of a stock network; the new parts have no effect."""
        new = {"merger_head_dim": merger_head_dim, "num_text_tokens": num_text_tokens}
        return extended(cls, UNet3DConditionModel, unet, **new, num_image_tokens=num_image_tokens)

    def stock(self) -> UNet3DConditionModel:
        """Return a copy of the base alone as diffusers' own class."""
        names = inspect.signature(UNet3DConditionModel).parameters
        net = UNet3DConditionModel(**{name: self.config[name] for name in names})
        own = self.state_dict()
        net.load_state_dict({name: own[name] for name in net.state_dict()})
        return net

    @apply_forward_hook
    def contexts(self, text_BLD: torch.Tensor, image_tokens_BLD: torch.Tensor | None = None) -> Contexts:
        """Return the keys and values of all cross-attentions, with image tokens mixed in (method.md: APM).

        They depend on neither timestep nor latents: compute them once per video and pass them to `forward` as
        `text`.
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
        """Predict (B, C, T, H, W) for noisy latents of B videos, or of one video under B texts.

        timestep: a number or a tensor of shape (), (B,) or (B or 1, T). text: tokens (B, L, D), or
        `contexts`, which include the image tokens. cam_features: from `ConditionalAttentionModule`, for any
        number of frames; None skips the mergers.
        """
        if image_tokens_BLD is not None and not isinstance(text, torch.Tensor):
            raise ValueError("image tokens are given twice: contexts already hold them")
        contexts = self.contexts(text, image_tokens_BLD) if isinstance(text, torch.Tensor) else text
        conditions, hidden = encoder.begin(self, sample_BCTHW, timestep, contexts)
        hidden, skips = encoder.descend(self, hidden, conditions)
        hidden = encoder.bottom(self, hidden, conditions)
        if cam_features is not None:
            batch = len(hidden) // sample_BCTHW.shape[2]
            hidden, skips = merger.merge(self, hidden, skips, cam_features, batch)
        return self.decode(hidden, skips, conditions)

    def decode(
        self, hidden: torch.Tensor, skips: encoder.Skips, conditions: encoder.Conditions
    ) -> torch.Tensor:
        """Map middle output and skips, each (B T, C, h, w), to the prediction (B, C, T, H, W)."""
        predicted = encoder.ascend(self, hidden, skips, conditions)
        return encoder.unflatten_frames(predicted, conditions.own["num_frames"])
