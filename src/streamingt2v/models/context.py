"""Spatial cross-attention with precomputed keys and values, shared by all frames of a video.

Text and image tokens are the same for every frame and timestep, so the keys and values of all layers are
computed once (`contexts`). The tuple travels through the stock blocks as `encoder_hidden_states` and each
layer takes its own entry. Parameter names follow diffusers' `Attention`.

Shapes: B videos, T frames, S pixels per frame, L tokens, D token width, C channels.
"""

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
"""One `LayerContext` per spatial cross-attention, ordered by `ContextAttention.site`."""


def halved(contexts: Contexts) -> Contexts:
    """Return the second half of a [negative | positive] batch."""
    return tuple(LayerContext(*(x[len(x) // 2 :] for x in layer)) for layer in contexts)


class ContextAttention(nn.Module):
    """Attend from pixels to the tokens in `Contexts[site]` (method.md: Base network)."""

    def __init__(self, query_dim: int, context_dim: int, heads: int, head_dim: int, site: int):
        super().__init__()
        self.heads, self.site = heads, site
        self.to_q = nn.Linear(query_dim, heads * head_dim, bias=False)
        self.to_k = nn.Linear(context_dim, heads * head_dim, bias=False)
        self.to_v = nn.Linear(context_dim, heads * head_dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, query_dim)])

    def context(self, tokens_BLD: torch.Tensor) -> LayerContext:
        """Return keys and values of tokens (B, L, D)."""
        return LayerContext(self._split(self.to_k(tokens_BLD)), self._split(self.to_v(tokens_BLD)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Contexts,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map pixels (B T, S, C) to (B T, S, C). Argument names are the stock block's; masks are refused."""
        if attention_mask is not None:
            raise ValueError("ContextAttention takes no attention mask")
        key, value = encoder_hidden_states[self.site]
        # All frames of a video are queries of one attention, so keys need no copies.
        query = self._split(self.to_q(hidden_states).reshape(key.shape[0], -1, self.to_q.out_features))
        out = F.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](out.transpose(1, 2).reshape(*hidden_states.shape[:-1], -1))

    def _split(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


LayerFactory = Callable[[int, int, int, int, int], ContextAttention]
"""(query_dim, context_dim, heads, head_dim, site) -> layer"""


def install(network: nn.Module, layer: LayerFactory = ContextAttention) -> None:
    """Replace `attn2` of every spatial transformer in a network built from diffusers' 3D blocks.

    The new layers are freshly initialised: call it before loading weights.
    """
    modules = (module for module in network.modules() if isinstance(module, Transformer2DModel))
    blocks = [block for module in modules for block in module.transformer_blocks]
    for site, block in enumerate(blocks):
        old = block.attn2
        block.attn2 = layer(
            old.query_dim, old.cross_attention_dim, old.heads, old.inner_dim // old.heads, site
        )


def sites(network: nn.Module) -> Iterator[ContextAttention]:
    """Return the installed layers, ordered by `site`."""
    layers = (module for module in network.modules() if isinstance(module, ContextAttention))
    return iter(sorted(layers, key=lambda layer: layer.site))
