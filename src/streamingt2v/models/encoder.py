"""The way through the encoder half that the base network and its copy in CAM have in common (method.md: Base network, CAM).

Frames travel flattened into the batch, (B T, C, H, W), frame index fastest, as diffusers' 3D blocks want them.
"""

from __future__ import annotations

from typing import Any

import torch

from .context import Contexts


def flatten_frames(x_BCTHW: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) to (B T, C, H, W)."""
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def unflatten_frames(x: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(B T, C, H, W) to (B, C, T, H, W)."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2)


def embed_timestep(network: Any, timestep: torch.Tensor | float, sample_BCTHW: torch.Tensor) -> torch.Tensor:
    """Time embedding for each frame, (B T, D). timestep: a number, or a tensor of shape (), (B,), or (B or 1, T) for one a frame."""
    batch, _, num_frames, _, _ = sample_BCTHW.shape
    timesteps = torch.as_tensor(timestep, device=sample_BCTHW.device)
    by_frame = timesteps.ndim == 2
    each = (
        timesteps.expand(batch, num_frames).reshape(-1) if by_frame else timesteps.reshape(-1).expand(batch)
    )
    embedded = network.time_embedding(network.time_proj(each).to(network.conv_in.weight.dtype))
    return embedded if by_frame else embedded.repeat_interleave(num_frames, dim=0)


def enter(network: Any, sample_BCTHW: torch.Tensor) -> torch.Tensor:
    """Input convolution and first temporal transformer: (B T, C, H, W)."""
    hidden = network.conv_in(flatten_frames(sample_BCTHW))
    return network.transformer_in(hidden, num_frames=sample_BCTHW.shape[2], return_dict=False)[0]


def begin(
    network: Any, sample_BCTHW: torch.Tensor, timestep: torch.Tensor | float, contexts: Contexts
) -> tuple[torch.Tensor, torch.Tensor]:
    """Time embedding (B T, D) and hidden state (B T, C, H, W) for B contexts and B samples, or one sample that they share.

    Of more samples than contexts, as many neighbours share each context.

    Text and image enter with the first cross-attention: until there the halves of guidance are one, and what leads there is done once.
    """
    emb, hidden = embed_timestep(network, timestep, sample_BCTHW), enter(network, sample_BCTHW)
    batch = len(contexts[0].key)
    if len(sample_BCTHW) >= batch:
        return emb, hidden
    return emb.expand(batch, *emb.shape).flatten(0, 1), hidden.expand(batch, *hidden.shape).flatten(0, 1)


def descend(
    network: Any, hidden: torch.Tensor, emb: torch.Tensor, contexts: Contexts, num_frames: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """All down blocks. Returns the last output and every skip, the input itself being the first, each (B T, C, h, w)."""
    skips: tuple[torch.Tensor, ...] = (hidden,)
    for block in network.down_blocks:
        conditions = {"encoder_hidden_states": contexts} if has_cross_attention(block) else {}
        hidden, outputs = block(hidden_states=hidden, temb=emb, num_frames=num_frames, **conditions)
        skips += outputs
    return hidden, skips


def bottom(
    network: Any, hidden: torch.Tensor, emb: torch.Tensor, contexts: Contexts, num_frames: int
) -> torch.Tensor:
    """The middle block."""
    return network.mid_block(hidden, emb, encoder_hidden_states=contexts, num_frames=num_frames)


def has_cross_attention(block: Any) -> bool:
    """Return whether a 3D block takes a text context."""
    return bool(getattr(block, "has_cross_attention", False))


def skip_channels(network: Any) -> tuple[int, ...]:
    """Channels of each skip, read from the built blocks, in the order of `descend`."""
    channels = [network.conv_in.out_channels]
    for block in network.down_blocks:
        channels += [resnet.out_channels for resnet in block.resnets]
        channels += [sampler.out_channels for sampler in block.downsamplers or ()]
    return tuple(channels)
