"""SVD's network, `UNetSpatioTemporalConditionModel`, with CAM (method.md: StreamingSVD)."""

from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

from . import encoder, merger
from .cam import CamFeatures
from .stock import extended, extends
from .svd_cam import embed

NORM_GROUPS = 32
"""Groups of every norm in diffusers' network, which has no setting for it."""


class StreamingUNetSpatioTemporal(UNetSpatioTemporalConditionModel):
    """The base network. Without CAM features it equals the stock one and makes the first chunk.

    merger_head_dim: width of the mergers' heads. Defaults: published sizes. New mergers have no effect.
    """

    @register_to_config
    @extends(UNetSpatioTemporalConditionModel)
    def __init__(self, merger_head_dim: int = 64, **sizes: Any):
        super().__init__(**sizes)
        merger.install(self, merger_head_dim, NORM_GROUPS)

    @classmethod
    def from_base(cls, unet: UNetSpatioTemporalConditionModel, merger_head_dim: int = 64) -> Self:
        """Copy the weights of a stock network; the new mergers have no effect."""
        return extended(cls, UNetSpatioTemporalConditionModel, unet, merger_head_dim=merger_head_dim)

    def forward(
        self,
        sample_BTCHW: torch.Tensor,
        timestep: torch.Tensor | float,
        context_BLD: torch.Tensor,
        added_BN: torch.Tensor,
        cam_features: CamFeatures | None = None,
    ) -> torch.Tensor:
        """Predict (B, T, C, H, W) for noisy latents beside the image's latents, (B, T, 2 C, H, W).

        timestep: a number or a tensor of shape () or (B,). context_BLD: the image's CLIP embedding as one
        token. added_BN: micro-conditions. cam_features: from `SpatioTemporalCam`, for any number of frames;
        None skips the mergers.
        """
        conditions = embed(self, sample_BTCHW, timestep, context_BLD, added_BN)
        hidden, skips = encoder.descend(self, self.conv_in(sample_BTCHW.flatten(0, 1)), conditions)
        hidden = encoder.bottom(self, hidden, conditions)
        if cam_features is not None:
            hidden, skips = merger.merge(self, hidden, skips, cam_features, len(sample_BTCHW))
        return encoder.ascend(self, hidden, skips, conditions).unflatten(0, (-1, sample_BTCHW.shape[1]))
