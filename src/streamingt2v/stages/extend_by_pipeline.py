"""Stages 1 and 2 by a pipeline of diffusers: its own clip first, then clip after clip, each going on from the last frames.

No training is needed. How a pipeline goes on is told in `external.continuing`; randomness is keyed by the request's seed and the
position in the video, so that a chunk can be made again alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..config.external import ExtendByConfig
from ..errors import ModelError
from ..external.calling import covered, own_randomness, takes_of, video_of
from ..external.continuing import UNSTEERED, WAYS, Continuation, Window, as_sibling, sibling, ways, window_length
from ..external.latents import Moments, encode, temporal_ratio
from ..external.steering import Hand, Hands, OnStep, Watch, steered
from ..video.piece import to_float, to_uint8
from .memory import StreamMemory

FRAME_COUNT = ("num_frames", "video_length", "frames")
"""What pipelines call the number of frames to make."""
NEEDS_NEGATIVE = ("EasyAnimate",)
"""Families that fail where no negative prompt is given; an empty one does."""


@dataclass(frozen=True)
class PipelineExtender:
    """Make chunks with a loaded pipeline.

    frames: of a chunk. crossfade: how many of a chunk's overlap are released for a crossfade. size: (height, width). fps: of the
    video, for pipelines that are told. steps, guidance_scale: None for the pipeline's own.
    """

    pipe: Any
    config: ExtendByConfig
    frames: int
    crossfade: int
    size: tuple[int, int]
    fps: float
    seed: int
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    on_step: OnStep | None = None

    def first(self, prompt: str, image_CHW: torch.Tensor | None = None) -> torch.Tensor:
        """Return the first chunk, (T, 3, H, W) in [-1, 1] on the grid of 8 bits."""
        image = None if image_CHW is None else Image.fromarray(to_uint8(image_CHW[None])[0])
        extra = {} if image is None else {"image": image}
        return self._clip(self.pipe, prompt, "first", 0, Continuation(extra))[: self.frames]

    def moments(self, frames_TCHW: torch.Tensor) -> Moments | None:
        """Measure the first chunk, for later ones to keep its colours; None where the way to go on has another memory."""
        way = WAYS[self.way]
        if self.config.anchor == 0 or way.remembers or way.name not in ("image", "overlap"):
            return None
        count = window_length(self.pipe, len(frames_TCHW))
        return Moments.of(encode(self.pipe, frames_TCHW[:count]))

    def next(
        self, memory: StreamMemory, prompt: str, again: int = 0, moments: Moments | None = None
    ) -> torch.Tensor:
        """Return the frames after `memory`, before them as many of its window's last frames as are shown `again`."""
        pipe = as_sibling(self.pipe, self.continuing)
        window_TCHW = memory.window_TCHW[: self._held(len(memory.window_TCHW), pipe)]
        released = len(memory.window_TCHW) - len(window_TCHW)
        window = Window(window_TCHW, self.frames, memory.anchor_CHW, moments, self.config.anchor)
        goes = WAYS[self.way].prepare(pipe, window)
        clip_TCHW = self._clip(pipe, prompt, "extend", memory.position, goes)
        new_TCHW = clip_TCHW[goes.shown + released - again :]
        if len(new_TCHW) <= again:
            raise ModelError(f"{type(pipe).__name__} gave {len(clip_TCHW)} frames, none of them new")
        return new_TCHW[: self.frames - len(memory.window_TCHW) + again]

    @property
    def continuing(self) -> type:
        """The class that goes on: the pipeline's own or one that shares its networks, as the way asks for it."""
        own = type(self.pipe)
        return own if self.config.how in ways(own) else sibling(own, self.pipe.scheduler.config)

    @property
    def way(self) -> str:
        """The way to go on: the configured one, else the best that the pipeline has. ModelError if it has none."""
        has = ways(self.continuing)
        if self.config.how is not None and self.config.how not in has:
            raise ModelError(f"extend_by.how={self.config.how!r}: {self.continuing.__name__} has {', '.join(has) or 'none'}")
        if not has:
            raise ModelError(f"{type(self.pipe).__name__} cannot go on with a video: it takes none, and its steps cannot be held")
        return self.config.how or has[0]

    def _held(self, overlap: int, pipe: Any) -> int:
        """Return how many of the overlap's frames are given to the pipeline: the last ones are released for the crossfade."""
        return window_length(pipe, max(1, overlap - self.crossfade))

    def _clip(self, pipe: Any, prompt: str, stage: str, position: int, goes: Continuation) -> torch.Tensor:
        takes = takes_of(pipe)
        key = 0 if self.config.noise == "first" else position
        with own_randomness(self.seed, "extend" if self.config.noise == "first" else stage, key) as generator:
            arguments = {**self._arguments(prompt, takes), **goes.arguments, "generator": generator}
            clip_TCHW = self._run(pipe, {n: v for n, v in arguments.items() if n in takes and v is not None}, goes.hand)
        return to_float(to_uint8(covered(clip_TCHW, *self.size)))

    def _run(self, pipe: Any, arguments: Mapping[str, Any], hand: Hand) -> torch.Tensor:
        watched = type(pipe).__name__.startswith(UNSTEERED)
        if watched:  # it steps on copies of its scheduler, but has a callback
            return video_of(pipe(**arguments, **self._callback()))
        hands = hand if self.on_step is None else Hands((hand, Watch(self.on_step)))
        own = pipe.scheduler
        pipe.scheduler = steered(own, hands)
        try:
            return video_of(pipe(**arguments))
        finally:
            pipe.scheduler = own

    def _callback(self) -> dict[str, Any]:
        if self.on_step is None:
            return {}
        on_step = self.on_step

        def after(pipe: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1, max(step + 1, int(pipe.num_timesteps)))
            return kept

        return {"callback_on_step_end": after}

    def _arguments(self, prompt: str, takes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what every chunk is called with, under all names that pipelines have for it."""
        height, width = self.size
        name = type(self.pipe).__name__
        negative = self.negative_prompt or ("" if name.startswith(NEEDS_NEGATIVE) else None)
        whole = (self.frames - 1) % temporal_ratio(self.pipe) == 0
        count = self.frames if whole else (self.frames - 1) // temporal_ratio(self.pipe) * temporal_ratio(self.pipe) + 1
        return {
            "prompt": prompt,
            "negative_prompt": negative,
            "height": height,
            "width": width,
            "num_inference_steps": self.steps or self.config.steps,
            "guidance_scale": self.config.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            "frame_rate": self.fps,
            "use_resolution_binning": False,  # the size is what was asked for
            "output_type": "np",
            "decode_chunk_size": 8,
            **dict.fromkeys(FRAME_COUNT, count),
        }
