"""Spatial cross-attention whose context is prepared beforehand and shared by all frames of a video.

Text and image tokens are the same for every frame and every timestep, so the keys and values of a layer are computed
once (`contexts`) and each layer picks its own out of the tuple that travels through the stock blocks in the place of
`encoder_hidden_states`. Parameter names are those of diffusers' `Attention`.

Shapes: B videos, T frames, S pixels of a frame, L tokens, D token width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn


class LayerContext(NamedTuple):
    """Keys and values of one cross-attention layer, each (B, heads, L, head width)."""

    key: torch.Tensor
    value: torch.Tensor


Contexts = tuple[LayerContext, ...]
"""One `LayerContext` for each spatial cross-attention of a network, in the order of `ContextAttention.site`."""


def halved(contexts: Contexts) -> Contexts:
    """The second half of the batch, [negative | positive]: the positive alone."""
    return tuple(LayerContext(*(x[len(x) // 2 :] for x in layer)) for layer in contexts)


class ContextAttention(nn.Module):
    """Multi-head attention from pixels to the tokens of `Contexts[site]` (method.md: Base network)."""

    def __init__(self, query_dim: int, context_dim: int, heads: int, head_dim: int, site: int):
        super().__init__()
        self.heads, self.site = heads, site
        self.to_q = nn.Linear(query_dim, heads * head_dim, bias=False)
        self.to_k = nn.Linear(context_dim, heads * head_dim, bias=False)
        self.to_v = nn.Linear(context_dim, heads * head_dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, query_dim)])

    def context(self, tokens_BLD: torch.Tensor) -> LayerContext:
        """Keys and values of (B, L, D) tokens."""
        return LayerContext(self._split(self.to_k(tokens_BLD)), self._split(self.to_v(tokens_BLD)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Contexts,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B T, S, C) pixels to (B T, S, C). The argument names are those the stock transformer block calls with; masks are refused."""
        if attention_mask is not None:
            raise ValueError("ContextAttention takes no attention mask")
        key, value = encoder_hidden_states[self.site]
        # All frames of a video attend to the same tokens: they are queries of one attention, and keys need no copies.
        query = self._split(self.to_q(hidden_states).reshape(key.shape[0], -1, self.to_q.out_features))
        out = F.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](out.transpose(1, 2).reshape(*hidden_states.shape[:-1], -1))

    def _split(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


LayerFactory = Callable[[int, int, int, int, int], ContextAttention]
"""(query_dim, context_dim, heads, head_dim, site) -> layer."""


def install(network: nn.Module, layer: LayerFactory = ContextAttention) -> None:
    """Put a layer in the place of `attn2` of every spatial transformer of a network built from diffusers' 3D blocks.

    The new layers are freshly initialised: call it while building, before weights are loaded.
    """
    blocks = [
        block
        for module in network.modules()
        if isinstance(module, Transformer2DModel)
        for block in module.transformer_blocks
    ]
    for site, block in enumerate(blocks):
        old = block.attn2
        block.attn2 = layer(
            old.query_dim, old.cross_attention_dim, old.heads, old.inner_dim // old.heads, site
        )


def sites(network: nn.Module) -> Iterator[ContextAttention]:
    """The installed layers in the order of their `site`."""
    return iter(
        sorted(
            (m for m in network.modules() if isinstance(m, ContextAttention)), key=lambda layer: layer.site
        )
    )
