"""FreeNoise (Qiu et al., ICLR 2024): one long video at once, from shuffled repeated noise and windowed
temporal attention.

Training-free, no memories. The whole video is denoised together, so memory grows with length, as in the
method itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import nn

from streamingt2v.checkpoints.load import Components
from streamingt2v.config import Request
from streamingt2v.errors import RequestError
from streamingt2v.samplers.denoise import denoise, final
from streamingt2v.samplers.guidance import Guidance
from streamingt2v.samplers.noise import frame_noise, integer
from streamingt2v.video.piece import to_uint8
from streamingt2v.video.reader import Frame

STRIDE = 4
"""Stride of attention windows and length of shuffled noise pieces; the paper's."""


def free_noise(components: Components, request: Request) -> Iterator[Frame]:
    """Yield exactly `request.frames` frames, uint8 (H, W, 3). RequestError for more than one prompt and a
    length.
    """
    total = check_text_alone(request)
    config, backbone, extend = components.config, components.backbone, components.config.extend
    shape = backbone.latent_shape(config.height, config.width)
    condition = backbone.condition(components.text(request.prompt, request.negative_prompt), None)
    scale = extend.guidance_scale if request.guidance_scale is None else request.guidance_scale
    predict = backbone.predictor(condition, None, Guidance(scale, extend.guidance_rescale))

    def noise(step: int) -> torch.Tensor:
        frames = rescheduled(total, extend.frames, request.seed) if step < 0 else range(total)
        return (
            frame_noise(request.seed, "freenoise", frames, step, shape)
            .transpose(0, 1)[None]
            .to(backbone.device)
        )

    with windowed_attention(backbone.parts()["unet"], extend.frames, STRIDE):
        count = request.num_inference_steps or extend.steps
        steps = denoise(predict, noise(-1), components.scheduler, count, eta=extend.eta, step_noise=noise)
        latents_BCTHW = final(steps)
    for start in range(0, total, extend.frames):
        yield from to_uint8(backbone.decode(latents_BCTHW[:, :, start : start + extend.frames]))


def check_text_alone(request: Request) -> int:
    """Return the number of frames; RequestError for request fields that training-free rivals do not
    support.
    """
    for name in ("image", "video", "schedule"):
        if getattr(request, name):
            raise RequestError(
                name, getattr(request, name), "this method makes videos of one prompt alone; leave it out"
            )
    if request.preset != "preview":
        raise RequestError("preset", request.preset, "this method has no refiner; use preview")
    if request.num_frames is None:
        raise RequestError("num_frames", None, "this method needs to know how many frames there will be")
    return request.num_frames


def rescheduled(total: int, chunk: int, seed: int) -> list[int]:
    """Return the frame that each frame's noise is copied from: the first chunk's, each piece of `STRIDE`
    reshuffled.
    """
    indices = list(range(min(chunk, total)))
    pieces = [list(range(start, min(start + STRIDE, chunk))) for start in range(0, chunk, STRIDE)]
    number = 0
    while len(indices) < total:
        indices += _shuffled(pieces[number % len(pieces)], seed, number)
        number += 1
    return indices[:total]


def _shuffled(piece: list[int], seed: int, number: int) -> list[int]:
    """Shuffle by Fisher and Yates with counter-based draws."""
    piece = list(piece)
    for last in range(len(piece) - 1, 0, -1):
        other = integer(seed, "freenoise-shuffle", number, last, last + 1)
        piece[last], piece[other] = piece[other], piece[last]
    return piece


class WindowedAttention:
    """Temporal self-attention in windows of `window` frames, `stride` apart; weights of the average fall
    towards window borders.

    inner: the attention processor of each window. Sequences up to `window` pass through unchanged.
    """

    def __init__(self, inner: Any, window: int, stride: int):
        self.inner, self.window, self.stride = inner, window, stride

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
    ) -> torch.Tensor:
        """Attend within windows: (B, T, C) to (B, T, C)."""
        frames = hidden_states.shape[1]
        if frames <= self.window:
            return self.inner(attn, hidden_states)
        starts = sorted({*range(0, frames - self.window, self.stride), frames - self.window})
        rise = torch.arange(1, self.window + 1, device=hidden_states.device, dtype=hidden_states.dtype)
        weights_T1 = torch.minimum(rise, rise.flip(0))[:, None]
        total, weight = torch.zeros_like(hidden_states), torch.zeros_like(hidden_states[:1, :, :1])
        for start in starts:
            part = slice(start, start + self.window)
            total[:, part] += weights_T1 * self.inner(attn, hidden_states[:, part])
            weight[:, part] += weights_T1
        return total / weight


@contextmanager
def windowed_attention(network: nn.Module, window: int, stride: int) -> Iterator[None]:
    """Use windowed temporal attention inside the context."""
    temporal = [module for module in network.modules() if isinstance(module, TransformerTemporalModel)]
    layers = [
        layer
        for module in temporal
        for block in module.transformer_blocks
        for layer in (block.attn1, block.attn2)
    ]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.processor = WindowedAttention(layer.processor, window, stride)
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor
