"""Stages 1 and 2 by a network with CAM and APM, chunk after chunk (method.md: Chunks, Sampling).

A later chunk overlaps the one before: its first frames show the memory's window again and are dropped. With a
crossfade the last of the older frames are mixed with them, see `faded`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ..backbones.base import Backbone
from ..config import ExtendConfig
from ..samplers.denoise import Step, StepNoise, denoise, final
from ..samplers.guidance import Guidance
from ..samplers.noise import mixed_noise
from ..types import State, TextCond
from ..video.piece import whole
from .memory import StreamMemory
from .protocols import Image, OnStep, Words


class ExtendStage:
    """Make chunks with one backbone, scheduler and seed; see `protocols.Extender`. size: (height, width)."""

    def __init__(
        self,
        backbone: Backbone,
        scheduler: Any,
        config: ExtendConfig,
        seed: int,
        size: tuple[int, int],
        on_step: OnStep | None = None,
    ):
        self.backbone, self.scheduler, self.config = backbone, scheduler, config
        self.seed, self.size, self.on_step = seed, size, on_step
        self._condition: tuple[TextCond, torch.Tensor, Any] | None = None

    def first(self, words: Words, image: Image | None = None) -> torch.Tensor:
        """See `protocols.FirstChunk`: the backbone without memories, from the text or the image."""
        image_CHW = image(*self.size) if image is not None else None
        condition = self.backbone.condition(words.text_at(0), image_CHW, self.seed)
        return self._chunk(condition, None, range(self.config.frames), "seed")

    def memory(self, frames_TCHW: torch.Tensor, first_TCHW: torch.Tensor | None = None) -> StreamMemory:
        """See `protocols.Extender`."""
        anchor = self.config.anchor
        made = StreamMemory.start(frames_TCHW, self.config.overlap, min(anchor, len(frames_TCHW) - 1))
        if first_TCHW is None:
            return made
        return replace(made, anchor_CHW=first_TCHW[min(anchor, len(first_TCHW) - 1)])

    def restored(self, state: State) -> StreamMemory:
        """See `protocols.Extender`."""
        return StreamMemory.from_state(state)

    def next(self, memory: StreamMemory, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """See `protocols.Extender`.

        Noise belongs to frames, so two chunks start from the same noise where they overlap; the published
        code draws new noise for every chunk. A chunk's frames are counted from `memory.position`, one overlap
        late, so that no index is negative.
        """
        condition = self._conditioned(words.text_at(frame), memory.anchor_CHW)
        frames = range(memory.position, memory.position + self.config.frames)
        return self._chunk(condition, memory.window_TCHW, frames, "extend", again)

    def _conditioned(self, text: TextCond, anchor_CHW: torch.Tensor) -> Any:
        """Return the backbone's condition; it is made again only if text or anchor changed."""
        if self._condition is None or self._condition[0] is not text or self._condition[1] is not anchor_CHW:
            self._condition = text, anchor_CHW, self.backbone.condition(text, anchor_CHW, self.seed)
        return self._condition[2]

    def denoise(self, condition: Any, window_TCHW: torch.Tensor | None, noise: StepNoise) -> Iterator[Step]:
        """Denoise one chunk step by step.

        noise: returns (1, C, T, h, w); step -1 is the start, others are for eta above 0.
        """
        config = self.config
        guidance = Guidance(config.guidance_scale, config.guidance_rescale, config.time_guidance)
        predict = self.backbone.predictor(condition, window_TCHW, guidance)
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
        """Return a chunk's new frames, preceded by the last `again` frames of its window."""
        shape = self.backbone.latent_shape(*self.size)

        def noise(step: int) -> torch.Tensor:
            noise_TCHW = mixed_noise(self.seed, stage, frames, step, shape, self.config.mixed_noise)
            return noise_TCHW.transpose(0, 1)[None].to(self.backbone.device)

        skipped = 0 if window_TCHW is None else len(window_TCHW) - again
        return whole(self.backbone.decode(final(self.denoise(condition, window_TCHW, noise)), skipped))


def faded(older_TCHW: torch.Tensor, newer_TCHW: torch.Tensor) -> torch.Tensor:
    """Cross-fade two sequences of T frames that show the same; no frame is purely one of them.

    A chunk draws details anew where it shows its window again; without the fade all of them would jump in one
    frame.
    """
    share_T111 = (torch.arange(1, len(older_TCHW) + 1) / (len(older_TCHW) + 1))[:, None, None, None]
    return older_TCHW + share_T111 * (newer_TCHW - older_TCHW)
