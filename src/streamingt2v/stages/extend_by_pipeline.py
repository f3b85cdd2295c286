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

from ..config import ExtendConfig
from ..config.external import ExtendByConfig
from ..errors import ModelError
from ..external.calling import NEEDS_NEGATIVE, covered, own_randomness, takes_of, video_of
from ..external.continuing import (
    UNSTEERED,
    WAYS,
    Continuation,
    Window,
    as_sibling,
    sibling,
    ways,
    window_length,
)
from ..external.families import FRAME_COUNT
from ..external.latents import Moments, encode, temporal_ratio
from ..external.steering import Hand, Hands, OnStep, Watch, steered
from ..types import State
from ..video.piece import to_float, to_uint8
from .protocols import Image as StartImage
from .protocols import Words


@dataclass(frozen=True)
class PipelineMemory:
    """What is kept of a video to go on from, in 8 bits as pipelines take frames.

    anchor_HWC: the frame that looks are kept from. window_THWC: the last frames, uint8. position: number of frames so far. moments:
    of the first chunk's latents, None where the way to go on has another long memory.
    """

    anchor_HWC: torch.Tensor
    window_THWC: torch.Tensor
    position: int
    moments: Moments | None

    @property
    def window_TCHW(self) -> torch.Tensor:
        """The last frames, float (T, 3, H, W) in [-1, 1]."""
        return to_float(self.window_THWC.numpy())

    def advance(self, frames_TCHW: torch.Tensor) -> PipelineMemory:
        """Return the memory after these new frames."""
        new_THWC = torch.from_numpy(to_uint8(frames_TCHW))
        window_THWC = torch.cat([self.window_THWC, new_THWC])[-len(self.window_THWC) :].clone()
        return PipelineMemory(self.anchor_HWC, window_THWC, self.position + len(frames_TCHW), self.moments)

    def state_dict(self) -> State:
        """Flatten, without loss."""
        kept = (
            {}
            if self.moments is None
            else {"moments_mean": self.moments.mean_C, "moments_std": self.moments.std_C}
        )
        return {
            "anchor_HWC": self.anchor_HWC,
            "window_THWC": self.window_THWC,
            "position": self.position,
            **kept,
        }

    @classmethod
    def from_state(cls, state: State) -> PipelineMemory:
        """Read what `state_dict` gives."""
        moments = Moments(state["moments_mean"], state["moments_std"]) if "moments_mean" in state else None
        return cls(state["anchor_HWC"], state["window_THWC"], int(state["position"]), moments)


@dataclass(frozen=True)
class PipelineExtendStage:
    """Make chunk after chunk with a loaded pipeline; see `protocols.Extender`.

    by: the way to go on, steps and guidance. config: chunk length, overlap, and how much of the overlap is released for a
    crossfade. size: (height, width). fps: of the video, for pipelines that are told.
    """

    pipe: Any
    by: ExtendByConfig
    config: ExtendConfig
    size: tuple[int, int]
    fps: float
    seed: int
    on_step: OnStep | None = None

    def first(self, words: Words, image: StartImage | None = None) -> torch.Tensor:
        """Return the first chunk, (T, 3, H, W) in [-1, 1] on the grid of 8 bits."""
        given = {} if image is None else {"image": Image.fromarray(to_uint8(image(*self.size)[None])[0])}
        clip_TCHW = self._clip(self.pipe, words, 0, "first", 0, Continuation(given))
        if len(clip_TCHW) < self.config.frames:
            raise ModelError(
                f"{type(self.pipe).__name__} gave {len(clip_TCHW)} frames of {self.config.frames}"
            )
        return clip_TCHW[: self.config.frames]

    def memory(self, frames_TCHW: torch.Tensor, first_TCHW: torch.Tensor | None = None) -> PipelineMemory:
        """Return the memory after these frames; `first_TCHW`: the first ones of an extended video."""
        anchors_TCHW = frames_TCHW if first_TCHW is None else first_TCHW
        anchor_CHW = anchors_TCHW[min(self.config.anchor, len(anchors_TCHW) - 1)]
        missing = max(0, self.config.overlap - len(frames_TCHW))
        window_TCHW = torch.cat([frames_TCHW[:1].expand(missing, -1, -1, -1), frames_TCHW])[
            -self.config.overlap :
        ]
        frames = [torch.from_numpy(to_uint8(part)) for part in (anchor_CHW[None], window_TCHW)]
        return PipelineMemory(frames[0][0], frames[1], len(frames_TCHW), self._moments(frames_TCHW))

    def restored(self, state: State) -> PipelineMemory:
        """Return the memory of a `state_dict`."""
        return PipelineMemory.from_state(state)

    def next(self, memory: PipelineMemory, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """Return the frames after `memory`, before them as many of its window's last frames as are shown `again`."""
        pipe, overlap = as_sibling(self.pipe, self.continuing), self.config.overlap
        held = window_length(pipe, max(1, overlap - self.config.crossfade))
        anchor_CHW = to_float(memory.anchor_HWC[None].numpy())[0]
        window = Window(
            memory.window_TCHW[:held], self.config.frames, anchor_CHW, memory.moments, self.by.anchor
        )
        goes = WAYS[self.way].prepare(pipe, window)
        clip_TCHW = self._clip(pipe, words, frame, "extend", memory.position, goes)
        new_TCHW = clip_TCHW[goes.shown + overlap - held - again :][: self.config.frames - overlap + again]
        if len(new_TCHW) <= again:
            raise ModelError(f"{type(pipe).__name__} gave {len(clip_TCHW)} frames, none of them new")
        return new_TCHW

    def _moments(self, frames_TCHW: torch.Tensor) -> Moments | None:
        """Measure the first chunk, for later ones to keep its colours; None where the way to go on has another memory."""
        way = WAYS[self.way]
        if self.by.anchor == 0 or way.remembers or way.name not in ("image", "overlap"):
            return None
        return Moments.of(encode(self.pipe, frames_TCHW[: window_length(self.pipe, len(frames_TCHW))]))

    @property
    def continuing(self) -> type:
        """The class that goes on: the pipeline's own or one that shares its networks, as the way asks for it."""
        own = type(self.pipe)
        return own if self.by.how in ways(own) else sibling(own, self.pipe.scheduler.config)

    @property
    def way(self) -> str:
        """The way to go on: the configured one, else the best that the pipeline has. ModelError if it has none."""
        has = ways(self.continuing)
        if self.by.how is not None and self.by.how not in has:
            raise ModelError(
                f"extend_by.how={self.by.how!r}: {self.continuing.__name__} has {', '.join(has) or 'none'}"
            )
        if not has:
            raise ModelError(
                f"{type(self.pipe).__name__} cannot go on with a video: it takes none, and its steps cannot be held"
            )
        return self.by.how or has[0]

    def _clip(
        self, pipe: Any, words: Words, frame: int, stage: str, position: int, goes: Continuation
    ) -> torch.Tensor:
        takes = takes_of(pipe)
        stage, position = ("first", 0) if self.by.noise == "first" else (stage, position)
        with own_randomness(self.seed, stage, position) as generator:
            arguments = {**self._arguments(words, frame), **goes.arguments, "generator": generator}
            clip_TCHW = self._run(
                pipe, {n: v for n, v in arguments.items() if n in takes and v is not None}, goes.hand
            )
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

    def _arguments(self, words: Words, frame: int) -> dict[str, Any]:
        """Return what every chunk is called with, under all names that pipelines have for it."""
        height, width = self.size
        needs = type(self.pipe).__name__.startswith(NEEDS_NEGATIVE)
        ratio = temporal_ratio(self.pipe)
        count = -(-(self.config.frames - 1) // ratio) * ratio + 1
        return {
            "prompt": words.prompt_at(frame),
            "negative_prompt": words.negative_prompt or ("" if needs else None),
            "height": height,
            "width": width,
            "num_inference_steps": self.by.steps,
            "guidance_scale": self.by.guidance_scale,
            "frame_rate": self.fps,
            "use_resolution_binning": False,  # the size is what was asked for
            "output_type": "np",
            "decode_chunk_size": 8,
            **dict.fromkeys(FRAME_COUNT, count),
        }
