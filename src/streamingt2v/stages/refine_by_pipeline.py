"""Stage 3 by any video-to-video pipeline of diffusers that starts from a strength: window by window, joined in pixels.

A pipeline denoises a window as a whole, so its steps cannot be blended as `stages.refine` does it. Overlapping windows are finished apart
and joined afterwards: "cut" goes over from one to the other at a frame drawn at random, "fade" is a linear cross-fade. Neither hides
a difference between windows as well as blending at every step does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from PIL import Image

from ..config.refine import RefineByConfig
from ..external.calling import Open, called, covered, frames_of_codec, own_randomness, video_of
from ..samplers.blend import windows
from ..samplers.noise import integer
from ..types import State
from ..video.piece import Piece, to_uint8

PromptAt = Callable[[int], str]


@dataclass(frozen=True)
class Carry:
    """State for the next window: its number and first frame, the unrefined frames from there on, the refined ones that it overlaps."""

    number: int
    start: int
    frames_TCHW: torch.Tensor | None
    refined_TCHW: torch.Tensor | None

    def state_dict(self) -> State:
        """Flat, under names of its own."""
        tensors = {"refine.frames": self.frames_TCHW, "refine.refined": self.refined_TCHW}
        held = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return {"refine.number": self.number, "refine.start": self.start, **held}

    @classmethod
    def from_state(cls, state: State) -> Carry:
        """The carry of `state_dict`."""
        return cls(
            int(state["refine.number"]),
            int(state["refine.start"]),
            state.get("refine.frames"),
            state.get("refine.refined"),
        )

    def fed(self, frames_TCHW: torch.Tensor) -> Carry:
        """With these further unrefined frames."""
        have = frames_TCHW if self.frames_TCHW is None else torch.cat([self.frames_TCHW, frames_TCHW])
        return Carry(self.number, self.start, have, self.refined_TCHW)

    @property
    def stop(self) -> int:
        """The frame after the last unrefined one."""
        return self.start + (0 if self.frames_TCHW is None else len(self.frames_TCHW))


@dataclass(frozen=True)
class PipelineRefineStage:
    """Refines a stream of pieces with one pipeline and seed. total: frames in all, None without end. size: (height, width) of
    what comes out.
    """

    open: Open
    config: RefineByConfig
    seed: int
    total: int | None
    size: tuple[int, int]
    negative_prompt: str = ""

    def stream(
        self, pieces: Iterable[Piece], text_at: PromptAt, state: State | None = None
    ) -> Iterator[Piece]:
        """Refined pieces of the same frames, in order and exactly once.

        A piece's state is that of the last piece taken in together with the carry; see `refine.RefineStage.stream`. text_at: the prompt
        of a frame; a window follows that of the middle of the frames it gives out.
        """
        carry = Carry.from_state(state) if state else Carry(0, 0, None, None)
        upstream: State = state or {}
        source = iter(pieces)
        plan = islice(windows(self.total, self.config.frames, self.config.overlap), carry.number, None)
        window = next(plan, None)
        with ExitStack() as stack:
            pipe: Any = None
            while window is not None:
                while carry.stop < window.stop:
                    piece = next(source)
                    carry, upstream = carry.fed(piece.frames_TCHW), piece.state
                if pipe is None:  # once there is something to do, and with the global generator left alone
                    with own_randomness(self.seed, "refine"):
                        pipe = stack.enter_context(self.open())
                following = next(plan, None)
                ahead = following.start if following else window.stop
                frames_TCHW, carry = self._window(
                    pipe, carry, window, ahead, text_at((window.start + ahead - 1) // 2)
                )
                yield Piece(frames_TCHW, {**upstream, **carry.state_dict()}, following is None)
                window = following

    def _window(
        self, pipe: Any, carry: Carry, window: range, ahead: int, prompt: str
    ) -> tuple[torch.Tensor, Carry]:
        """Refined frames up to `ahead`, where the next window begins, and the carry for it."""
        assert carry.frames_TCHW is not None, "the window was fed"
        refined_TCHW = self._refine(pipe, carry.frames_TCHW[: len(window)], carry.number, prompt)
        if carry.refined_TCHW is not None:
            refined_TCHW = self._joined(carry.refined_TCHW, refined_TCHW, carry.number)
        given = ahead - window.start
        rest_TCHW, kept_TCHW = carry.frames_TCHW[given:], refined_TCHW[given:]
        held = (part.clone() if len(part) else None for part in (rest_TCHW, kept_TCHW))
        return refined_TCHW[:given], Carry(carry.number + 1, ahead, *held)

    def _refine(self, pipe: Any, frames_TCHW: torch.Tensor, number: int, prompt: str) -> torch.Tensor:
        """A window by the pipeline; what its autoencoder cannot pack is filled up with the last frame, and cut off again."""
        height, width = self.size
        count = len(frames_TCHW)
        last_TCHW = frames_TCHW[-1:].expand(frames_of_codec(pipe, count) - count, -1, -1, -1)
        large_TCHW = covered(torch.cat([frames_TCHW, last_TCHW]), height, width)
        with own_randomness(self.seed, "refine", number) as generator:
            wanted = {
                "prompt": prompt,
                "negative_prompt": self.negative_prompt,
                "video": [Image.fromarray(frame) for frame in to_uint8(large_TCHW)],
                "height": height,
                "width": width,
                "strength": self.config.strength,
                "num_inference_steps": self.config.steps,
                "guidance_scale": self.config.guidance_scale,
                "generator": generator,
            }
            return covered(video_of(called(pipe, wanted, self.seed))[:count], height, width)

    def _joined(self, left_TCHW: torch.Tensor, right_TCHW: torch.Tensor, number: int) -> torch.Tensor:
        """The window with its first frames from, or mixed with, the window before."""
        shared = len(left_TCHW)
        if self.config.seam != "fade":
            cut = integer(self.seed, "blend", number, 0, shared + 1)
            return torch.cat([left_TCHW[:cut], right_TCHW[cut:]])
        weight_T111 = (torch.arange(1, shared + 1) / (shared + 1))[:, None, None, None]
        return torch.cat([torch.lerp(left_TCHW, right_TCHW[:shared], weight_T111), right_TCHW[shared:]])
