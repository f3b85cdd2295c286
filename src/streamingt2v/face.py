"""What users of a pipeline call: loading, saving, one stream, and the same stream collected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from .checkpoints.load import Components, load, save
from .config import ModelConfig, Request
from .config.runtime import PLAIN, Savings
from .errors import RequestError
from .external.as_model import read_model
from .ray_backend import Crew
from .resolve import ResolvedRequest, counted, resolve
from .stages.protocols import OnStep, PromptAt
from .types import Chunk, State
from .video.reader import count_frames


@dataclass(frozen=True)
class PipelineOutput:
    """What calling the pipeline returns. frames: uint8 (T, H, W, 3)."""

    frames: np.ndarray


class Face(ABC):
    """See `pipeline.LongVideoPipeline`. refiners: who refines; None for this process alone."""

    def __init__(self, components: Components, name: str = "custom", refiners: Crew | None = None):
        self.components, self.name, self.refiners = components, name, refiners
        self.config: ModelConfig = components.config

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path = "tiny", device: str = "cpu", dtype: torch.dtype = torch.float32, savings: Savings = PLAIN,
        refiner: bool = True,
    ) -> Self:  # fmt: skip
        """Load the included model "tiny" or a model folder to a device. ModelError if it is missing or incomplete.

        refiner: False leaves the network of stage 3 out, for less memory and a sooner start. RequestError for savings that the device
        or the model cannot use.
        """
        folder, config = read_model(name_or_folder)
        return cls(load(folder, device, dtype, savings, refiner, config), str(name_or_folder))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a model folder, weights in `dtype`; those in memory stay as they are. A save that fails leaves nothing."""
        save(self.components, Path(folder), dtype)

    def resolve(self, request: Request | ResolvedRequest) -> ResolvedRequest:
        """Decide every option of a request for this model. RequestError where it is wrong or the model cannot do it."""
        asked = resolve(self.config, request) if isinstance(request, Request) else request
        if asked.refine is not None and self.components.refiner is None and self.refiners is None:
            raise RequestError("preset", "full", "this pipeline was loaded without its refiner; load it with refiner=True")
        return asked

    def stream(
        self, request: Request | ResolvedRequest, state: State | None = None, on_step: OnStep | None = None,
        prompt_at: PromptAt | None = None,
    ) -> Iterator[Chunk]:  # fmt: skip
        """Yield the video chunk by chunk, exactly `request.num_frames` frames; with `request.video` only the new ones.

        With `request.refine` they are the file's, all of them where `num_frames` is None; MediaError if it has fewer.

        state: of the last chunk that was kept; the stream goes on after it with the same bytes as if never stopped.
        on_step: called with (step, steps) after every denoising step of a chunk or a window; raising in it cancels. Where a pipeline
        of diffusers does a stage, that is after its work.
        prompt_at: asked, in the place of the request's prompts, for that of the chunk whose first frame it is given. For one frame it
        must always give the same; it is first asked when the chunk begins.
        RequestError for what the model cannot do, at once, before the first chunk is asked for. Memory does not grow with the length.
        """
        asked = self.resolve(request)
        if asked.request.refine is not None and asked.num_frames is None:
            asked = counted(asked, count_frames(asked.request.refine))
        return self.trip(asked, state, on_step, prompt_at)

    def __call__(self, prompt: str, num_frames: int = 80, **options: Any) -> PipelineOutput:
        """Collect the stream of `Request(prompt, num_frames, **options)`: for videos that fit into memory."""
        chunks = self.stream(Request(prompt, num_frames, **options))
        return PipelineOutput(np.concatenate([chunk.frames for chunk in chunks]))

    @abstractmethod
    def trip(
        self, asked: ResolvedRequest, state: State | None = None, on_step: OnStep | None = None, prompt_at: PromptAt | None = None
    ) -> Iterator[Chunk]:
        """Yield the chunks of a resolved request."""

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Words of a prompt that the model does not know, and the word used instead of each (None: left out)."""
        return self.components.text.unknown_words(prompt)

    def surplus_tokens(self, prompt: str) -> int:
        """How many tokens of a prompt are beyond what the model reads and so have no effect."""
        return self.components.text.surplus_tokens(prompt)
