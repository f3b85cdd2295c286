"""Stages 1 and 2: the first chunk, then chunk after chunk from the two memories, without end (method.md: Chunks, Sampling).

A later chunk is generated with its overlap: its first frames show the memory's window again and are thrown away, the older
chunk's are kept (method.md: Chunks). With a crossfade the last of the older frames turn into the newer ones, see `faded`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ..backbones.base import Backbone
from ..config import ExtendConfig
from ..samplers.denoise import Step, StepNoise, denoise, final
from ..samplers.noise import mixed_noise
from ..types import State, TextCond
from ..video.piece import whole
from .memory import StreamMemory
from .protocols import Image, OnStep, Words


class ExtendStage:
    """Makes chunks with one backbone, scheduler and seed; see `protocols.Extender`. size: (height, width) of frames."""

    def __init__(
        self,
        backbone: Backbone,
        scheduler: Any,
        config: ExtendConfig,
        seed: int,
        size: tuple[int, int],
        on_step: OnStep | None = None,
    ):
        self.backbone, self.scheduler, self.config, self.seed, self.size = (
            backbone,
            scheduler,
            config,
            seed,
            size,
        )
        self.on_step = on_step
        self._condition: tuple[TextCond, torch.Tensor, Any] | None = None

    def first(self, words: Words, image: Image | None = None) -> torch.Tensor:
        """Stage 1 by the backbone itself, without memories, from the text or the image: (T, 3, H, W) in [-1, 1]."""
        image_CHW = image(*self.size) if image is not None else None
        condition = self.backbone.condition(words.text_at(0), image_CHW, self.seed)
        return self._chunk(condition, None, range(self.config.frames), "seed")

    def memory(self, frames_TCHW: torch.Tensor, first_TCHW: torch.Tensor | None = None) -> StreamMemory:
        """The memory after these frames. The anchor is one of them, or of the first frames of the video that they end."""
        anchor = self.config.anchor
        made = StreamMemory.start(frames_TCHW, self.config.overlap, min(anchor, len(frames_TCHW) - 1))
        return (
            made
            if first_TCHW is None
            else replace(made, anchor_CHW=first_TCHW[min(anchor, len(first_TCHW) - 1)])
        )

    def restored(self, state: State) -> StreamMemory:
        """The memory of a `state_dict`."""
        return StreamMemory.from_state(state)

    def next(self, memory: StreamMemory, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """The new frames after `memory` (T - overlap, 3, H, W), with the prompt of `frame`.

        With `again`, before them as many of the window's last frames as the chunk shows them again.

        Noise belongs to a frame, so what two neighbouring chunks both show begins in both from the same noise; the published code
        draws every chunk's anew. Its frames are counted from `memory.position`, one overlap late, and so never below 0: a
        memory that began with fewer frames than its window reaches back before frame 0.
        """
        condition = self._conditioned(words.text_at(frame), memory.anchor_CHW)
        frames = range(memory.position, memory.position + self.config.frames)
        return self._chunk(condition, memory.window_TCHW, frames, "extend", again)

    def _conditioned(self, text: TextCond, anchor_CHW: torch.Tensor) -> Any:
        """The backbone's condition for text and anchor, made once for both."""
        if self._condition is None or self._condition[0] is not text or self._condition[1] is not anchor_CHW:
            self._condition = text, anchor_CHW, self.backbone.condition(text, anchor_CHW, self.seed)
        return self._condition[2]

    def denoise(self, condition: Any, window_TCHW: torch.Tensor | None, noise: StepNoise) -> Iterator[Step]:
        """The denoising of one chunk, step by step. noise: of step -1 is the start, (1, C, T, h, w); of later steps for eta above 0."""
        config = self.config
        guidance = (config.guidance_scale, config.guidance_rescale, config.time_guidance)
        predict = self.backbone.predictor(condition, window_TCHW, *guidance)
        for step in denoise(
            predict,
            noise(-1),
            self.scheduler,
            config.steps,
            eta=config.eta,
            step_noise=noise,
            sigmas=config.sigmas,
        ):
            if self.on_step is not None:
                self.on_step(step.index + 1, step.total)
            yield step

    def _chunk(
        self, condition: Any, window_TCHW: torch.Tensor | None, frames: range, stage: str, again: int = 0
    ) -> torch.Tensor:
        """The frames of a chunk that are not in its window already, and the last `again` of those that are."""
        shape = self.backbone.latent_shape(*self.size)

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
