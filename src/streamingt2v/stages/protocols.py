"""Protocols of whoever makes chunks: a network with CAM and APM, or a pipeline of diffusers that continues by its own means."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch

from ..config import ExtendConfig
from ..types import State, TextCond

OnStep = Callable[[int, int], None]
"""Called with (step, steps) after every denoising step of a chunk or window; raising in it cancels."""

PromptAt = Callable[[int], str]
"""Index of a frame -> prompt of the chunk that makes it."""

Image = Callable[[int, int], torch.Tensor]
"""(height, width) -> the image to start from, covering that size: (3, H, W) in [-1, 1]."""


class Words:
    """Prompts of a video by frame, as text and embedded.

    encode: (prompt, negative prompt) -> embeddings; not called for whoever reads the text itself.
    """

    def __init__(self, encode: Callable[[str, str], TextCond], negative_prompt: str, prompt_at: PromptAt):
        self.negative_prompt, self.prompt_at = negative_prompt, prompt_at
        # the windows that are being refined at a time are some chunks behind, and have the prompts of theirs
        self._embedded = lru_cache(maxsize=64)(lambda prompt: encode(prompt, negative_prompt))

    def text_at(self, frame: int) -> TextCond:
        """Embedding of `prompt_at`; the same object for the same prompt."""
        return self._embedded(self.prompt_at(frame))


class Memory(Protocol):
    """Memory of a video; its size does not grow with the length. `stages.memory.StreamMemory` is one."""

    @property
    def window_TCHW(self) -> torch.Tensor:
        """The last frames (T, 3, H, W) in [-1, 1], as many as a chunk overlaps."""

    def advance(self, frames_TCHW: torch.Tensor) -> Any:
        """The memory after these new frames."""

    def state_dict(self) -> State:
        """A flat mapping, without loss."""


class FirstChunk(Protocol):
    """Makes the first chunk."""

    def first(self, words: Words, image: Image | None) -> torch.Tensor:
        """(T, 3, H, W) in [-1, 1]. image: to start from, for one that reads it."""


class Extender(FirstChunk, Protocol):
    """Makes chunk after chunk; nothing is carried between calls but the memory."""

    @property
    def config(self) -> ExtendConfig:
        """Chunk length, overlap and crossfade."""

    def memory(self, frames_TCHW: torch.Tensor, first_TCHW: torch.Tensor | None = None) -> Any:
        """The memory after these frames (T, 3, H, W). first_TCHW: the first frames of an extended video, if the others are its last."""

    def restored(self, state: State) -> Any:
        """The memory of a `state_dict`."""

    def next(self, memory: Any, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """The frames after the memory's, (T, 3, H, W) in [-1, 1]. frame: index of the first, which says the prompt.

        Before them as many of the window's last frames as the chunk shows them `again`.
        """
