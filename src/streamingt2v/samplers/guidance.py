"""Classifier-free guidance as functions on predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of a network.

    scale: 1 leaves the negative prompt out. rescale: see `guide`. time: scale of `steadied`, 0 for none.
    """

    scale: float
    rescale: float = 0.0
    time: float = 0.0


def guide(
    uncond: torch.Tensor, cond: torch.Tensor, scale: float | torch.Tensor, rescale: float = 0.0
) -> torch.Tensor:
    """Return uncond + scale * (cond - uncond).

    scale: a number or a broadcast tensor, e.g. one value per frame. rescale in [0, 1]: share by which the
    standard deviation is pulled back to that of `cond` (method.md: Refining).
    """
    guided = uncond + scale * (cond - uncond)
    return match_spread(guided, cond, rescale) if rescale else guided


def guide_pair(pair: torch.Tensor, scale: float | torch.Tensor, rescale: float = 0.0) -> torch.Tensor:
    """Apply `guide` to a batch of [unconditional | conditional] predictions: (2B, ...) to (B, ...)."""
    uncond, cond = pair.chunk(2)
    return guide(uncond, cond, scale, rescale)


def match_spread(guided: torch.Tensor, cond: torch.Tensor, amount: float) -> torch.Tensor:
    """Scale `guided` towards `cond`'s standard deviation (per batch item) by `amount` in [0, 1]."""
    dims = tuple(range(1, guided.ndim))
    ratio = cond.std(dims, keepdim=True) / (guided.std(dims, keepdim=True) + 1e-12)
    return guided * (amount * ratio + (1 - amount))


def steadied(whole: torch.Tensor, frames_alone: torch.Tensor, scale: float) -> torch.Tensor:
    """Return whole + scale * (whole - frames_alone), which steers away from flicker.

    Autoguidance (Karras et al. 2024): the weak model is the network itself, seeing each frame alone.
    """
    return whole + scale * (whole - frames_alone)


def frames_alone(network: Callable[[torch.Tensor], torch.Tensor], sample_BCTHW: torch.Tensor) -> torch.Tensor:
    """Predict each frame of B videos (B, C, T, h, w) alone, as B T videos of one frame."""
    alone = network(sample_BCTHW.transpose(1, 2).flatten(0, 1)[:, :, None])[:, :, 0]
    return alone.unflatten(0, (len(sample_BCTHW), -1)).transpose(1, 2).float()
