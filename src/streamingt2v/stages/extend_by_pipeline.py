"""Stages 1 and 2 by a diffusers pipeline, without training: each clip continues the last frames.

`external.continuing` lists the ways to continue. Randomness is keyed by the request's seed and the position
in the video, so any chunk can be made again from its memory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..config import ExtendConfig
from ..config.external import ExtendByConfig
from ..errors import ModelError
from ..external.calling import (
    call_arguments,
    called,
    covered,
    frames_of_codec,
    mixing,
    own_randomness,
    video_of,
    with_scheduler,
)
from ..external.continuing import (
    WAYS,
    Continuation,
    Window,
    as_sibling,
    sibling,
    unsteered,
    ways,
    window_length,
)
from ..external.latents import Moments, encode
from ..external.steering import OnStep, Watch, steered, watched
from ..types import State
from ..video.piece import to_float, to_uint8
from .protocols import Image as StartImage
from .protocols import Words


@dataclass(frozen=True)
class PipelineMemory:
    """Memory of a video, in 8 bits as pipelines take frames.

    anchor_HWC: the frame that keeps the appearance. window_THWC: the last frames, uint8. position: number of
    frames so far. moments: of the first chunk's latents, None where the way to continue has another long-term
    memory.
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
        """Return it as a flat mapping, without loss."""
        state = {"anchor_HWC": self.anchor_HWC, "window_THWC": self.window_THWC, "position": self.position}
        if self.moments is not None:
            state |= {"moments_mean": self.moments.mean_C, "moments_std": self.moments.std_C}
        return state

    @classmethod
    def from_state(cls, state: State) -> PipelineMemory:
        """Read what `state_dict` returned."""
        moments = Moments(state["moments_mean"], state["moments_std"]) if "moments_mean" in state else None
        return cls(state["anchor_HWC"], state["window_THWC"], int(state["position"]), moments)


@dataclass(frozen=True)
class PipelineExtendStage:
    """Make chunk after chunk with a loaded pipeline; see `protocols.Extender`.

    by: the way to continue, steps and guidance. config: chunk length, overlap and crossfade. size: (height,
    width). fps: rate of the video, for pipelines that take it.
    """

    pipe: Any
    by: ExtendByConfig
    config: ExtendConfig
    size: tuple[int, int]
    fps: float
    seed: int
    on_step: OnStep | None = None

    def first(self, words: Words, image: StartImage | None = None) -> torch.Tensor:
        """See `protocols.FirstChunk`. ModelError if the pipeline returns too few frames."""
        given = {} if image is None else {"image": Image.fromarray(to_uint8(image(*self.size)[None])[0])}
        clip_TCHW = self._clip(self.pipe, words, 0, "first", 0, Continuation(given))
        if len(clip_TCHW) < self.config.frames:
            raise ModelError(
                f"{type(self.pipe).__name__} gave {len(clip_TCHW)} frames of {self.config.frames}"
            )
        return clip_TCHW[: self.config.frames]

    def memory(self, frames_TCHW: torch.Tensor, first_TCHW: torch.Tensor | None = None) -> PipelineMemory:
        """See `protocols.Extender`."""
        anchors_TCHW = frames_TCHW if first_TCHW is None else first_TCHW
        anchor_CHW = anchors_TCHW[min(self.config.anchor, len(anchors_TCHW) - 1)]
        missing = max(0, self.config.overlap - len(frames_TCHW))
        window_TCHW = torch.cat([frames_TCHW[:1].expand(missing, -1, -1, -1), frames_TCHW])[
            -self.config.overlap :
        ]
        frames = [torch.from_numpy(to_uint8(part)) for part in (anchor_CHW[None], window_TCHW)]
        return PipelineMemory(frames[0][0], frames[1], len(frames_TCHW), self._moments(frames_TCHW))

    def restored(self, state: State) -> PipelineMemory:
        """See `protocols.Extender`."""
        return PipelineMemory.from_state(state)

    def next(self, memory: PipelineMemory, words: Words, frame: int, again: int = 0) -> torch.Tensor:
        """See `protocols.Extender`. ModelError if the pipeline returns no new frame."""
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
        """Measure the first chunk's colours, which later ones keep; None for ways with another memory."""
        way = WAYS[self.way]
        if self.by.anchor == 0 or way.remembers or way.name not in ("image", "overlap"):
            return None
        return Moments.of(encode(self.pipe, frames_TCHW[: window_length(self.pipe, len(frames_TCHW))]))

    @property
    def continuing(self) -> type:
        """The class that continues videos: the pipeline's own, or one that shares its networks."""
        own = type(self.pipe)
        return own if self.by.how in ways(own) else sibling(own, self.pipe.scheduler.config)

    @property
    def way(self) -> str:
        """The way to continue: the configured one, else the pipeline's best. ModelError if it has none."""
        has = ways(self.continuing)
        if self.by.how is not None and self.by.how not in has:
            raise ModelError(
                f"extend_by.how={self.by.how!r}: {self.continuing.__name__} has {', '.join(has) or 'none'}"
            )
        if not has:
            fix = "it takes none, and its overlap cannot be held"
            raise ModelError(f"{type(self.pipe).__name__} cannot continue a video: {fix}")
        return self.by.how or has[0]

    def _clip(
        self, pipe: Any, words: Words, frame: int, stage: str, position: int, goes: Continuation
    ) -> torch.Tensor:
        """Call the pipeline for one chunk; return its clip at the stage's size, on the grid of 8 bits."""
        stage, position = ("first", 0) if self.by.noise == "first" else (stage, position)
        if len(shares := words.shares_at(frame)) > 1:
            pipe = mixing(pipe, shares)
        steered_by: AbstractContextManager[None] = nullcontext()
        if not unsteered(type(pipe)):
            steered_by = with_scheduler(pipe, steered(pipe.scheduler, watched(goes.hand, self.on_step)))
        with own_randomness(self.seed, stage, position) as generator, steered_by:
            wanted = call_arguments(
                words.prompt_at(frame),
                words.negative_prompt,
                self.size,
                frames_of_codec(pipe, self.config.frames),
                num_inference_steps=self.by.steps,
                guidance_scale=self.by.guidance_scale,
                frame_rate=self.fps,
                generator=generator,
                callback_on_step_end=self._callback(pipe),
            )
            clip_TCHW = video_of(called(pipe, {**wanted, **goes.arguments}))
        return to_float(to_uint8(covered(clip_TCHW, *self.size)))

    def _callback(self, pipe: Any) -> Any:
        """Return the callback that reports steps, for a pipeline that steps on copies of its scheduler."""
        if self.on_step is None or not unsteered(type(pipe)):
            return None
        watch = Watch(self.on_step)

        def after(pipe: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
            watch.report(step + 1, max(step + 1, int(pipe.num_timesteps)))
            return kept

        return after
