"""Stages 1 and 2: the first chunk, then chunk after chunk from the two memories, without end (method.md: Chunks, Sampling).

A later chunk is generated with its overlap: its first frames show the memory's window again and are thrown away, the older
chunk's are kept (method.md: Chunks). With a crossfade the last of the older frames turn into the newer ones, see `faded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..backbones.base import Backbone
from ..config import ExtendConfig
from ..samplers.denoise import Step, StepNoise, denoise, final
from ..samplers.noise import mixed_noise
from ..types import TextCond
from ..video.piece import whole
from .memory import StreamMemory


class ExtendStage:
    """Makes chunks with one backbone, scheduler and seed. Nothing is carried from chunk to chunk but the memory given."""

    def __init__(
        self, backbone: Backbone, scheduler: Any, config: ExtendConfig, seed: int, on_step: Callable[[int, int], None] | None = None
    ):
        self.backbone, self.scheduler, self.config, self.seed = backbone, scheduler, config, seed
        self.on_step = on_step

    def first(self, text: TextCond, height: int, width: int, picture_CHW: torch.Tensor | None = None) -> torch.Tensor:
        """Stage 1 by the backbone itself, without memories, from the text or the picture: (T, 3, H, W) in [-1, 1]."""
        condition = self.backbone.condition(text, picture_CHW, self.seed)
        return self._chunk(condition, None, range(self.config.frames), "seed", height, width)

    def next(self, memory: StreamMemory, condition: Any, again: int = 0) -> torch.Tensor:
        """The new frames after `memory` (T - overlap, 3, H, W). `condition`: of the backbone, for the prompt and the memory's anchor.

        With `again`, before them as many of the window's last frames as the chunk shows them again.

        Noise belongs to a frame, so what two neighbouring chunks both show begins in both from the same noise; the published code
        draws every chunk's anew. Its frames are counted from `memory.position`, one overlap late, and so never below 0: a
        memory that began with fewer frames than its window reaches back before frame 0.
        """
        height, width = memory.anchor_CHW.shape[-2:]
        frames = range(memory.position, memory.position + self.config.frames)
        return self._chunk(condition, memory.window_TCHW, frames, "extend", height, width, again)

    def denoise(self, condition: Any, window_TCHW: torch.Tensor | None, noise: StepNoise) -> Iterator[Step]:
        """The denoising of one chunk, step by step. noise: of step -1 is the start, (1, C, T, h, w); of later steps for eta above 0."""
        config = self.config
        guidance = (config.guidance_scale, config.guidance_rescale, config.time_guidance)
        predict = self.backbone.predictor(condition, window_TCHW, *guidance)
        for step in denoise(predict, noise(-1), self.scheduler, config.steps, eta=config.eta, step_noise=noise, sigmas=config.sigmas):
            if self.on_step is not None:
                self.on_step(step.index + 1, step.total)
            yield step

    def _chunk(
        self, condition: Any, window_TCHW: torch.Tensor | None, frames: range, stage: str, height: int, width: int, again: int = 0
    ) -> torch.Tensor:
        """The frames of a chunk that are not in its window already, and the last `again` of those that are."""
        shape = self.backbone.latent_shape(height, width)

        def noise(step: int) -> torch.Tensor:
            noise_TCHW = mixed_noise(self.seed, stage, frames, step, shape, self.config.mixed_noise)
            return noise_TCHW.transpose(0, 1)[None].to(self.backbone.device)

        skipped = 0 if window_TCHW is None else len(window_TCHW) - again
        return whole(self.backbone.decode(final(self.denoise(condition, window_TCHW, noise)), skipped))


def faded(older_TCHW: torch.Tensor, newer_TCHW: torch.Tensor) -> torch.Tensor:
    """One frame sequence turning into another that shows the same: T frames with T even steps between, the first and last not pure.

    A chunk draws small things anew even where it shows its window again. Where it takes over at once they jump, all in the same frame.
    """
    share_T111 = (torch.arange(1, len(older_TCHW) + 1) / (len(older_TCHW) + 1))[:, None, None, None]
    return older_TCHW + share_T111 * (newer_TCHW - older_TCHW)
