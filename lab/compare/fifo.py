"""FIFO-Diffusion (Kim et al., NeurIPS 2024): a queue of frames at rising noise levels that emits one frame
per step.

Training-free, no memories, constant memory. Each frame of the queue is denoised by one level at its own
timestep; the clean first frame leaves and pure noise joins at the end. With latent partitioning and lookahead
denoising, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from streamingt2v.checkpoints.load import Components
from streamingt2v.config import ExtendConfig, Request
from streamingt2v.samplers.denoise import Predict, final
from streamingt2v.samplers.guidance import Guidance
from streamingt2v.samplers.noise import frame_noise
from streamingt2v.stages.extend import ExtendStage
from streamingt2v.video.piece import to_uint8
from streamingt2v.video.reader import Frame

from .freenoise import check_text_alone

PARTITIONS = 4
"""Queue length in chunks, the paper's: more chunks put the frames of a window closer in noise."""


def fifo_diffusion(components: Components, request: Request, partitions: int = PARTITIONS) -> Iterator[Frame]:
    """Yield exactly `request.frames` frames, uint8 (H, W, 3).

    The queue has one level per frame; `request.steps` is for the first chunk. RequestError for more than one
    prompt and a length.
    """
    total = check_text_alone(request)
    config, backbone, extend = components.config, components.backbone, components.config.extend
    text = components.text(request.prompt, request.negative_prompt)
    condition = backbone.condition(text, None)
    scale = extend.guidance_scale if request.guidance_scale is None else request.guidance_scale
    predict = backbone.predictor(condition, None, Guidance(scale, extend.guidance_rescale))
    shape = backbone.latent_shape(config.height, config.width)

    def noise(*frames: int) -> torch.Tensor:
        return frame_noise(request.seed, "fifo", frames, -1, shape).transpose(0, 1)[None].to(backbone.device)

    chunk_BCTHW = _first_chunk(components, request, condition)
    levels = Levels(components.scheduler, extend.frames * partitions, backbone.device)
    queue = _Queue(predict, levels, extend.frames, chunk_BCTHW, noise(*range(len(levels))))
    copies = len(levels) - extend.frames  # copies of the first frame, which the queue started with
    for number in range(copies + total):
        latents_BCTHW = queue.step(noise(len(levels) + number))
        if number >= copies:
            yield from to_uint8(backbone.decode(latents_BCTHW))


def fifo_calls(config: ExtendConfig, frames: int) -> int:
    """Return the number of network calls on a chunk-long window."""
    return config.steps + 2 * PARTITIONS * (config.frames * (PARTITIONS - 1) + frames)


def _first_chunk(components: Components, request: Request, condition: Any) -> torch.Tensor:
    """Return latents of a first chunk (1, C, F, h, w), as the pipeline makes it."""
    config, backbone = components.config, components.backbone
    stage = ExtendStage(
        backbone, components.scheduler, config.extend, request.seed, (config.height, config.width)
    )
    shape = backbone.latent_shape(config.height, config.width)

    def noise(step: int) -> torch.Tensor:
        return (
            frame_noise(request.seed, "seed", range(config.extend.frames), step, shape)
            .transpose(0, 1)[None]
            .to(backbone.device)
        )

    return final(stage.denoise(condition, None, noise))


class Levels:
    """Noise levels of the queue, cleanest first: timesteps, alphas, and a DDIM step from each."""

    def __init__(self, scheduler: Any, count: int, device: torch.device):
        alphas = scheduler.alphas_cumprod.to(device, torch.float64)
        self.kind = scheduler.config.prediction_type
        if self.kind not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type={self.kind!r} must be epsilon or v_prediction")
        spaced = np.linspace(0, len(alphas), count + 1)[1:].round().astype(int) - 1
        self.timesteps = torch.as_tensor(spaced, device=device)
        self.alphas = alphas[self.timesteps]
        self.cleaner = torch.cat([torch.ones(1, device=device, dtype=torch.float64), self.alphas[:-1]])

    def __len__(self) -> int:
        return len(self.timesteps)

    def noised(self, clean_BCTHW: torch.Tensor, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        """Noise frame i to level i."""
        a = self.alphas.view(1, 1, -1, 1, 1)
        return (a.sqrt() * clean_BCTHW + (1 - a).sqrt() * noise_BCTHW).float()

    def step(
        self, latents_BCTHW: torch.Tensor, prediction_BCTHW: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        """Move each frame from its level (T,) to the next cleaner one, by DDIM without added noise (Song
        et al. 2021).
        """
        a, b = (part[levels].view(1, 1, -1, 1, 1) for part in (self.alphas, self.cleaner))
        x, p = latents_BCTHW.double(), prediction_BCTHW.double()
        if self.kind == "v_prediction":
            clean, noise = a.sqrt() * x - (1 - a).sqrt() * p, a.sqrt() * p + (1 - a).sqrt() * x
        else:
            clean, noise = (x - (1 - a).sqrt() * p) / a.sqrt(), p
        return (b.sqrt() * clean + (1 - b).sqrt() * noise).float()


class _Queue:
    """Latents of all levels, cleanest first, and the last half chunk that left, for lookahead."""

    def __init__(
        self,
        predict: Predict,
        levels: Levels,
        window: int,
        chunk_BCTHW: torch.Tensor,
        noise_BCTHW: torch.Tensor,
    ):
        self.predict, self.levels, self.window = predict, levels, window
        frames = [max(0, i - (len(levels) - window)) for i in range(len(levels))]
        self.latents_BCTHW = levels.noised(chunk_BCTHW[:, :, frames], noise_BCTHW)
        self.left_BCTHW = chunk_BCTHW[:, :, [0] * (window // 2)]

    def step(self, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the clean frame (1, C, 1, h, w) that leaves; `noise_BCTHW`, one frame, joins."""
        half, count = self.window // 2, len(self.levels)
        seen_BCTHW = torch.cat([self.left_BCTHW, self.latents_BCTHW], 2)
        # emitted frames are clean; the cleanest level comes nearest
        levels = torch.cat([torch.zeros(half, dtype=torch.long), torch.arange(count)]).to(
            self.levels.timesteps.device
        )
        parts = []
        for start in range(0, count, self.window - half):  # only the noisier half of each window advances
            window = slice(start, start + self.window)
            prediction_BCTHW = self.predict(
                seen_BCTHW[:, :, window], self.levels.timesteps[levels[window]][None]
            )
            moved_BCTHW = self.levels.step(seen_BCTHW[:, :, window], prediction_BCTHW, levels[window])
            parts.append(moved_BCTHW[:, :, half:])
        moved_BCTHW = torch.cat(parts, 2)
        leaving_BCTHW = moved_BCTHW[:, :, :1]
        self.left_BCTHW = torch.cat([self.left_BCTHW, leaving_BCTHW], 2)[:, :, 1:]
        self.latents_BCTHW = torch.cat([moved_BCTHW[:, :, 1:], noise_BCTHW], 2)
        return leaving_BCTHW
