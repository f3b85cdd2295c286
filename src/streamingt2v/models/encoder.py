"""Steps that the base networks and the encoder copies in CAM have in common (method.md: Base network, CAM).

Frames are flattened into the batch, (B T, C, H, W), frame index fastest, as diffusers' 3D blocks require.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from .context import Contexts

Skips = tuple[torch.Tensor, ...]


class Conditions(NamedTuple):
    """Inputs of every block besides hidden states: time embedding (B T, D), context, and the family's own."""

    emb: torch.Tensor
    context: Contexts | torch.Tensor
    own: dict[str, Any]

    def for_block(self, block: nn.Module) -> dict[str, Any]:
        """Return the block's arguments under diffusers' names."""
        arguments = {"temb": self.emb, **self.own}
        crosses = getattr(block, "has_cross_attention", False)
        return arguments | {"encoder_hidden_states": self.context} if crosses else arguments


def flatten_frames(x_BCTHW: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) to (B T, C, H, W)."""
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def unflatten_frames(x: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(B T, C, H, W) to (B, C, T, H, W)."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2)


def embed_timestep(network: Any, timestep: torch.Tensor | float, sample_BCTHW: torch.Tensor) -> torch.Tensor:
    """Return the time embedding of each frame, (B T, D).

    timestep: a number or a tensor of shape (), (B,), or (B or 1, T) for one per frame.
    """
    batch, _, num_frames, _, _ = sample_BCTHW.shape
    timesteps = torch.as_tensor(timestep, device=sample_BCTHW.device)
    by_frame = timesteps.ndim == 2
    each = (
        timesteps.expand(batch, num_frames).reshape(-1) if by_frame else timesteps.reshape(-1).expand(batch)
    )
    embedded = network.time_embedding(network.time_proj(each).to(network.conv_in.weight.dtype))
    return embedded if by_frame else embedded.repeat_interleave(num_frames, dim=0)


def enter(network: Any, sample_BCTHW: torch.Tensor) -> torch.Tensor:
    """Apply input convolution and first temporal transformer; return (B T, C, H, W)."""
    hidden = network.conv_in(flatten_frames(sample_BCTHW))
    return network.transformer_in(hidden, num_frames=sample_BCTHW.shape[2], return_dict=False)[0]


def begin(
    network: Any, sample_BCTHW: torch.Tensor, timestep: torch.Tensor | float, contexts: Contexts
) -> tuple[Conditions, torch.Tensor]:
    """Return conditions and hidden state (B T, C, H, W) for B contexts and B samples.

    One sample may serve all contexts: text and image enter at the first cross-attention, so what precedes it
    is computed once. With more samples than contexts, neighbouring samples share a context.
    """
    emb, hidden = embed_timestep(network, timestep, sample_BCTHW), enter(network, sample_BCTHW)
    batch = len(contexts[0].key)
    if len(sample_BCTHW) < batch:
        emb, hidden = (x.expand(batch, *x.shape).flatten(0, 1) for x in (emb, hidden))
    return Conditions(emb, contexts, {"num_frames": sample_BCTHW.shape[2]}), hidden


def descend(network: Any, hidden: torch.Tensor, conditions: Conditions) -> tuple[torch.Tensor, Skips]:
    """Run all down blocks; return the last output and all skips, input first, each (B T, C, h, w)."""
    skips: Skips = (hidden,)
    for block in network.down_blocks:
        hidden, outputs = block(hidden_states=hidden, **conditions.for_block(block))
        skips += outputs
    return hidden, skips


def bottom(network: Any, hidden: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    """Run the middle block."""
    return network.mid_block(hidden_states=hidden, **conditions.for_block(network.mid_block))


def ascend(network: Any, hidden: torch.Tensor, skips: Skips, conditions: Conditions) -> torch.Tensor:
    """Run all up blocks, each with as many of the last skips as it has layers, and the output convolution."""
    for block in network.up_blocks:
        skips, taken = skips[: -len(block.resnets)], skips[-len(block.resnets) :]
        # restores sizes that did not halve evenly
        size = skips[-1].shape[2:] if skips else None
        hidden = block(
            hidden_states=hidden,
            res_hidden_states_tuple=taken,
            upsample_size=size,
            **conditions.for_block(block),
        )
    return network.conv_out(network.conv_act(network.conv_norm_out(hidden)))


def skip_channels(network: Any) -> tuple[int, ...]:
    """Return the channels of each skip, in the order of `descend`."""
    channels = [network.conv_in.out_channels]
    for block in network.down_blocks:
        channels += [getattr(one, "spatial_res_block", one).out_channels for one in block.resnets]
        channels += [sampler.out_channels for sampler in block.downsamplers or ()]
    return tuple(channels)
