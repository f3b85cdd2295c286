"""Appearance preservation module: the anchor's tokens in every spatial cross-attention (method.md: APM).

anchor (B, 3, H, W) in [-1, 1] -> `preprocess` -> CLIP image embedding -> `ImageTokens` ->
`AppearanceAttention`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from .context import ContextAttention

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageTokens(ModelMixin, ConfigMixin):  # mixins disagree on the type of `config_name`
    """Map a pooled image embedding to tokens as wide as the text's. Defaults: published sizes."""

    @register_to_config
    def __init__(
        self, embed_dim: int = 1024, hidden_dim: int = 1280, num_tokens: int = 16, token_dim: int = 1024
    ):
        super().__init__()
        self.context_embedding = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, num_tokens * token_dim)
        )

    def forward(self, embed: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, num_tokens, token_dim) of embeddings (B, D), or of the mean of (B, T, D)."""
        embed_BD = embed.mean(dim=1) if embed.ndim == 3 else embed
        return self.context_embedding(embed_BD).unflatten(
            -1, (self.config["num_tokens"], self.config["token_dim"])
        )


class AppearanceAttention(ContextAttention):
    """Cross-attend to text + SiLU(alpha) * LayerNorm(Conv1d([text | image])) (method.md: APM).

    The convolution treats tokens as channels and slides along the feature axis. alpha starts at 0: no effect.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        heads: int,
        head_dim: int,
        site: int,
        num_text_tokens: int = 77,
        num_image_tokens: int = 16,
    ):
        super().__init__(query_dim, context_dim, heads, head_dim, site)
        self.conv = nn.Conv1d(
            num_text_tokens + num_image_tokens, num_text_tokens, kernel_size=3, padding="same"
        )
        self.conv_ln = nn.LayerNorm(context_dim)
        self.alpha = nn.Parameter(torch.zeros(()))

    def mix(self, text_BLD: torch.Tensor, image_BLD: torch.Tensor) -> torch.Tensor:
        """Mix image tokens (B, N, D) into text tokens (B, L, D); return (B, L, D)."""
        mixed_BLD = self.conv_ln(self.conv(torch.cat([text_BLD, image_BLD], dim=1)))
        return text_BLD + F.silu(self.alpha) * mixed_BLD


def preprocess(
    image_BCHW: torch.Tensor,
    size: int = 224,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> torch.Tensor:
    """Resize images in [-1, 1] to a CLIP encoder's input (B, 3, size, size) (method.md: APM).

    Bicubic with aligned corners after an antialiasing blur; no crop, no clamp.
    """
    height, width = image_BCHW.shape[-2:]
    if max(height, width) > size:
        image_BCHW = _antialias(image_BCHW, height / size, width / size)
    resized_BCHW = F.interpolate(image_BCHW, (size, size), mode="bicubic", align_corners=True)
    mean_C11, std_C11 = (
        _of_channels(tuple(values), resized_BCHW.device, resized_BCHW.dtype) for values in (mean, std)
    )
    return ((resized_BCHW + 1) / 2 - mean_C11) / std_C11


@lru_cache
def _of_channels(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the values as (C, 1, 1). Cached: creating them again makes a GPU wait in every training step."""
    return torch.tensor(values).to(device, dtype)[:, None, None]


def anchor_tokens(
    encode: Callable[[torch.Tensor], torch.Tensor],
    tokens: Callable[[torch.Tensor], torch.Tensor],
    anchor_BCHW: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (negative, positive) image tokens for guidance, each (B, N, D).

    encode: frames in [-1, 1] to pooled embeddings. tokens: `ImageTokens`. The negative comes from a mid-grey
    frame (zeros), not from zero tokens (method.md: APM).
    """
    embeds = encode(torch.cat([torch.zeros_like(anchor_BCHW), anchor_BCHW]))
    negative_BLD, positive_BLD = tokens(embeds).chunk(2)
    return negative_BLD, positive_BLD


def _antialias(image_BCHW: torch.Tensor, factor_h: float, factor_w: float) -> torch.Tensor:
    """Blur with sigma (factor - 1) / 2 per axis, cut at two sigmas, reflected borders (as kornia)."""
    kernels = [_gaussian(max((factor - 1) / 2, 0.001)).to(image_BCHW) for factor in (factor_h, factor_w)]
    pad_h, pad_w = (len(kernel) // 2 for kernel in kernels)
    channels = image_BCHW.shape[1]
    padded_BCHW = F.pad(image_BCHW, (pad_w, pad_w, pad_h, pad_h), mode="reflect")
    rows_BCHW = F.conv2d(padded_BCHW, kernels[1].expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows_BCHW, kernels[0][:, None].expand(channels, 1, -1, 1), groups=channels)


def _gaussian(sigma: float) -> torch.Tensor:
    """Return a normalised Gaussian kernel of odd length, at least 3."""
    length = int(max(4 * sigma, 3))
    length += 1 - length % 2
    positions = torch.arange(length, dtype=torch.float32) - length // 2
    weights = torch.exp(-positions.square() / (2 * sigma**2))
    return weights / weights.sum()
