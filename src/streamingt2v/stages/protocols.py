"""Protocols of makers of chunks: a network with CAM and APM, or a pipeline of diffusers."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch

from ..config import ExtendConfig
from ..types import State, TextCond

Stage = Literal["first_chunk", "extend", "refine"]
OnStageStep = Callable[[int, int, Stage], None]
"""Called with (step, steps, stage) after every denoising step of a chunk or window; raising in it cancels."""

OnStep = Callable[[int, int], None]
"""Called with (step, steps) after every denoising step of a chunk or window; raising in it cancels."""

PromptAt = Callable[[int], str]
"""Return the prompt of the chunk that makes a frame, by the frame's index."""

Image = Callable[[int, int], torch.Tensor]
"""Return the image to start from, cropped and scaled to (height, width): (3, H, W) in [-1, 1]."""


class Words:
    """Prompts of a video by frame, as text and as embeddings.

    encode: (prompt, negative prompt) -> embeddings; called by `text_at` only. latest: frame -> frames whose
    prompts it mixes, its own first: those of the latest chunks while one prompt turns into another.
    """

    def __init__(
        self,
        encode: Callable[[str, str], TextCond],
        negative_prompt: str,
        prompt_at: PromptAt,
        latest: Callable[[int], Sequence[int]] = lambda frame: [frame],
    ):
        self.negative_prompt, self.prompt_at, self._latest = negative_prompt, prompt_at, latest
        # stage 3 lags behind by some chunks and reads earlier prompts
        embedded = lru_cache(maxsize=64)(lambda prompt: encode(prompt, negative_prompt))
        self._mixed = lru_cache(maxsize=64)(lambda shares: _mixed(embedded, shares))

    def shares_at(self, frame: int) -> tuple[tuple[str, float], ...]:
        """Return the prompts that a frame mixes with their shares, its own first."""
        prompts = [self.prompt_at(other) for other in self._latest(frame)]
        return tuple((prompt, prompts.count(prompt) / len(prompts)) for prompt in dict.fromkeys(prompts))

    def text_at(self, frame: int) -> TextCond:
        """Return the embedding of a frame's prompts; the same object for the same prompts."""
        return self._mixed(self.shares_at(frame))


def _mixed(embedded: Callable[[str], TextCond], shares: tuple[tuple[str, float], ...]) -> TextCond:
    texts = [embedded(prompt) for prompt, _ in shares]
    if len(texts) == 1:
        return texts[0]
    parts = [share * text.positive_BLD for text, (_, share) in zip(texts, shares, strict=True)]
    return TextCond(torch.stack(parts).sum(0), texts[0].negative_BLD)


class Memory(Protocol):
    """Memory of a video, of constant size; e.g. `stages.memory.StreamMemory`."""

    @property
    def window_TCHW(self) -> torch.Tensor:
        """Last frames (T, 3, H, W) in [-1, 1], as many as chunks overlap."""

    def advance(self, frames_TCHW: torch.Tensor) -> Any:
        """Return the memory after these new frames."""

    def state_dict(self) -> State:
        """Return it as a flat mapping, without loss."""


class FirstChunk(Protocol):
    """Maker of the first chunk."""

    def first(self, words: Words, image: Image | None) -> torch.Tensor:
        """Return the first chunk, (T, 3, H, W) in [-1, 1]. image: to start from, if the maker reads one."""


class Extender(FirstChunk, Protocol):
    """Maker of chunk after chunk; the memory alone is carried between calls."""

    @property
    def config(self) -> ExtendConfig:
        """Chunk length, overlap and crossfade."""

    def memory(self, frames_TCHW: torch.Tensor, first_TCHW: torch.Tensor | None = None) -> Any:
        """Return the memory after these frames (T, 3, H, W).

        first_TCHW: first frames of a user's video of which these are the last.
        """

    def restored(self, state: State) -> Any:
        """Return the memory of a `state_dict`."""

    def next(self, memory: Any, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """Return the new frames after the memory, (T, 3, H, W) in [-1, 1].

        frame: index whose prompt is used. again: put this many of the window's last frames, as the chunk
        shows them, in front.
        """
