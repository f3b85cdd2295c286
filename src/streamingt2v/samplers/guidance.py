"""Classifier-free guidance as functions on predictions."""

from __future__ import annotations

import torch

from .denoise import Predict


def guide(uncond: torch.Tensor, cond: torch.Tensor, scale: float | torch.Tensor, rescale: float = 0.0) -> torch.Tensor:
    """uncond + scale * (cond - uncond). scale: a tensor broadcasts, for instance one value a frame. rescale in [0, 1]: how far the
    spread is pulled back to that of `cond` (spec 6.4)."""
    guided = uncond + scale * (cond - uncond)
    return match_spread(guided, cond, rescale) if rescale else guided


def guide_pair(pair: torch.Tensor, scale: float | torch.Tensor, rescale: float = 0.0) -> torch.Tensor:
    """`guide` for a batch of [all unconditional | all conditional] predictions, (2B, ...) to (B, ...)."""
    uncond, cond = pair.chunk(2)
    return guide(uncond, cond, scale, rescale)


def match_spread(guided: torch.Tensor, cond: torch.Tensor, amount: float) -> torch.Tensor:
    """Scale towards `cond`'s standard deviation, taken over everything but the batch, by `amount` in [0, 1]."""
    dims = tuple(range(1, guided.ndim))
    ratio = cond.std(dims, keepdim=True) / (guided.std(dims, keepdim=True) + 1e-12)
    return guided * (amount * ratio + (1 - amount))


def steadied(whole: Predict, frame_by_frame: Predict, scale: float) -> Predict:
    """whole + scale * (whole - frame_by_frame): away from what the network says of each frame alone, which knows nothing of the others.

    Autoguidance (Karras et al. 2024) whose weak model is the network itself, blind to time: what flickers is what it would add.
    """

    def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        prediction = whole(latents_BCTHW, timestep)
        return prediction + scale * (prediction - frame_by_frame(latents_BCTHW, timestep))

    return predict
