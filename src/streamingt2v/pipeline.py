"""The whole trip: a request becomes a stream of chunks, through seed, extend, refine and interpolate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from .checkpoints.load import Components, load, save
from .config import ModelConfig, Preset, RefineConfig, Request
from .config.runtime import PLAIN, Savings
from .errors import MediaError, RequestError
from .external.bases import opened, redraws_from_keyframes, with_seed
from .external.calling import Open
from .ray_backend import Alone, Crew
from .stages.extend import ExtendStage, faded
from .stages.first_chunk import NetworkSeed, Picture, PipelineSeed, Seed, made_picture
from .stages.interpolate import InterpolateStage
from .stages.memory import StreamMemory
from .stages.refine import RefineStage
from .stages.refine_by_keyframes import KeyframeRefineStage
from .stages.refine_by_pipeline import PipelineRefineStage
from .types import Chunk, State, TextCond
from .video.piece import Piece, to_float, to_uint8
from .video.reader import count_frames, last_frames, read_image, read_video

OnStep = Callable[[int, int], None]
PromptAt = Callable[[int], str]
Encoder = Callable[[str, str], TextCond]


@dataclass(frozen=True)
class PipelineOutput:
    """What calling the pipeline returns. frames: uint8 (T, H, W, 3)."""

    frames: np.ndarray


class LongVideoPipeline:
    """Long video from a text, an image or a video, as a stream. `from_pretrained` makes one.

    refiners: who refines; None for this process alone.
    """

    def __init__(self, components: Components, name: str = "custom", refiners: Crew | None = None):
        self.components, self.name, self.refiners = components, name, refiners
        self.config = components.config

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path = "tiny", device: str = "cpu", dtype: torch.dtype = torch.float32, savings: Savings = PLAIN,
        only: Request | None = None,
    ) -> LongVideoPipeline:  # fmt: skip
        """The embedded model "tiny" or a model folder, on a device, in a dtype. ModelError if it is missing or incomplete.

        only: the request that the pipeline is for; networks that it does not need are left out, for less memory and a sooner start.
        RequestError for savings that the device or the model cannot use.
        """
        return cls(load(name_or_folder, device, dtype, savings, only), str(name_or_folder))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a model folder, weights in `dtype`; those in memory stay as they are. A save that fails leaves nothing."""
        save(self.components, Path(folder), dtype)

    def stream(
        self, request: Request, state: State | None = None, on_step: OnStep | None = None, prompt_at: PromptAt | None = None
    ) -> Iterator[Chunk]:
        """The video, chunk by chunk, exactly `request.num_frames` frames; with `request.video` only the new ones.

        With `request.refine` they are the file's, all of them where `frames` is None; MediaError if it has fewer.

        state: of the last chunk that was kept; the stream goes on after it with the same bytes as if never stopped.
        on_step: called with (step, steps) after every denoising step of a chunk or a window; raising in it cancels. Where a pipeline
        of diffusers does a stage, that is after its work.
        prompt_at: asked, in the place of the request's prompts, for that of the chunk whose first frame it is given. For one frame it
        must always give the same; it is first asked when the chunk begins.
        RequestError for what the model cannot do, at once, before the first chunk is asked for. Memory does not grow with the length.
        """
        config = self._checked(request)
        if request.refine is not None and request.num_frames is None:
            request = replace(request, num_frames=count_frames(request.refine))
        made, factor = config.without_interpolation(request), config.interpolation(request)
        asked = made.prompt_at if prompt_at is None else lambda frame: prompt_at(factor * frame)
        words = _Words(self.components.text, made.negative_prompt, lambda frame: asked(config.chunk_start(made, frame)))
        pieces = self._extend(made, config, words, state, on_step) if request.refine is None else self._read(made, state)
        if request.preset == "full":
            pieces = self._refined(made, config, pieces, words, state, on_step)
        if factor > 1:
            pieces = InterpolateStage(factor, request.num_frames).stream(pieces, state)
        return _chunks(pieces, state)

    def __call__(
        self, prompt: str, num_frames: int = 80, *, image: str | None = None, video: str | None = None, negative_prompt: str = "",
        num_inference_steps: int | None = None, guidance_scale: float | None = None, seed: int = 33, preset: Preset = "preview",
    ) -> PipelineOutput:  # fmt: skip
        """The same stream collected: for videos that fit into memory."""
        request = Request(
            prompt, num_frames, seed, image, video, negative_prompt, preset=preset,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
        )
        return PipelineOutput(np.concatenate([chunk.frames for chunk in self.stream(request)]))

    def check(self, request: Request) -> None:
        """RequestError where the request is wrong or this model, or the base it names, cannot do it."""
        self._checked(request)

    def output_size(self, request: Request) -> tuple[int, int]:
        """(height, width) of the frames that the stream will yield."""
        return self.config.output_size(request)

    def output_fps(self, request: Request) -> int:
        """Frames a second that the video is to be played at."""
        return request.fps or self.config.fps

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Words of a prompt that the model does not know, and the word used instead of each (None: left out)."""
        return self.components.text.unknown_words(prompt)

    def surplus_tokens(self, prompt: str) -> int:
        """How many tokens of a prompt are beyond what the model reads and so have no effect."""
        return self.components.text.surplus_tokens(prompt)

    def extender(self, request: Request, on_step: OnStep | None = None) -> ExtendStage:
        """Who makes the chunks of stages 1 and 2: the network, with the steps and guidance asked for, or its distilled form."""
        made = self.components.distilled if self.config.is_fast(request) else self.components
        assert made is not None, "a configuration with a distilled network comes with it"
        return ExtendStage(made.backbone, made.scheduler, self.config.extending(request), request.seed, on_step)

    def _checked(self, request: Request) -> ModelConfig:
        """The configuration for this request, see `with_seed`."""
        config = with_seed(self.config, request)
        config.check(request)
        self._check_parts(request)
        return config

    def _check_parts(self, request: Request) -> None:
        """RequestError where a network was left out that the request needs, see `from_pretrained`."""
        way_out = "this pipeline was loaded for another request: load it without `only`"
        if request.preset == "full" and self.config.refine is not None and self.components.refiner is None and self.refiners is None:
            raise RequestError("preset", "full", way_out)
        if self.config.fast is None:
            return
        distilled = self.components.distilled
        only_slow, only_fast = distilled is None, distilled is not None and distilled.alone
        if only_slow if self.config.is_fast(request) else only_fast:
            raise RequestError("steps", request.num_inference_steps, way_out)

    def _extend(self, request: Request, config: ModelConfig, words: _Words, state: State | None, on_step: OnStep | None) -> Iterator[Piece]:
        """Stages 1 and 2: the first frames, then the memory goes on until there are enough.

        With a crossfade the last frames of a chunk are held back until the next one has shown them again. They are in the memory's window.
        """
        stage = self.extender(request, on_step)
        total, crossfade = request.num_frames, stage.config.crossfade
        if state is None:
            frames_TCHW, memory, held = self._begin(request, config, stage, words)
            done, held = _kept(0, len(frames_TCHW), held, total)
            if done:
                yield Piece(frames_TCHW[:done], _state(memory, done, held), done == total)
        else:
            memory, done, held = StreamMemory.from_state(state), int(state["extended"]), int(state.get("held", 0))
        text, condition = None, None
        while total is None or done < total:
            if text is not words.text_at(done + held):
                text = words.text_at(done + held)
                condition = stage.backbone.condition(text, memory.anchor_CHW, request.seed)
            again_TCHW, new_TCHW = stage.next(memory, condition, held).tensor_split([held])
            frames_TCHW = torch.cat([faded(memory.window_TCHW[memory.overlap - held :], again_TCHW), new_TCHW]) if held else new_TCHW
            memory = memory.advance(new_TCHW)
            kept, held = _kept(done, len(frames_TCHW), crossfade, total)
            done += kept
            yield Piece(frames_TCHW[:kept], _state(memory, done, held), done == total)

    def _begin(self, request: Request, config: ModelConfig, stage: ExtendStage, words: _Words) -> tuple[torch.Tensor, StreamMemory, int]:
        """First new frames (none when a video is extended), the memory after them, and how many of them may be held back: none of what
        was given.
        """
        height, width, overlap, anchor = config.height, config.width, stage.config.overlap, stage.config.anchor
        if request.video is not None:
            seen_TCHW = to_float(last_frames(request.video, stage.config.frames, height, width))
            # of the video's very first frames, so that a video extended again and again keeps its looks
            *_, anchor_HWC = islice(read_video(request.video, height, width), anchor + 1)
            return seen_TCHW[:0], replace(StreamMemory.start(seen_TCHW, overlap), anchor_CHW=to_float(anchor_HWC[None])[0]), 0
        picture = self._picture(request, config, words)
        if config.begins_with_image(request):
            assert picture is not None, "it has an image"
            frames_TCHW, held = picture(height, width)[None], 0
        else:
            frames_TCHW = self._seed(request, config, stage, words).first(picture)
            held = min(stage.config.crossfade, len(frames_TCHW) - 1)
        return frames_TCHW, StreamMemory.start(frames_TCHW, overlap, min(anchor, len(frames_TCHW) - 1)), held

    def _seed(self, request: Request, config: ModelConfig, stage: ExtendStage, words: _Words) -> Seed:
        """Stage 1: a pipeline of diffusers where the model or the request names one, else the network itself."""
        own = config.seed
        if own is None or own.pipeline is None:
            return NetworkSeed(stage, words.text_at(0), config.height, config.width)
        guidance_scale = own.guidance_scale if request.guidance_scale is None else request.guidance_scale
        seed = replace(own, steps=request.num_inference_steps or own.steps, guidance_scale=guidance_scale)
        return PipelineSeed(
            self._opener(own.pipeline, own.adapter),
            seed,
            words.prompt_at(0),
            request.negative_prompt,
            config.extend.frames,
            config.height,
            config.width,
            request.seed,
        )

    def _picture(self, request: Request, config: ModelConfig, words: _Words) -> Picture | None:
        """What to start from: the request's picture, or one made of its prompt where stage 1 needs one and the model says how."""
        image, seed = request.image, config.seed
        if image is not None:
            return lambda height, width: to_float(read_image(image, height, width)[None])[0]
        if seed is None or seed.picture is None or not config.reads_image:
            return None
        steps = request.num_inference_steps
        return made_picture(self._opener(seed.picture), words.prompt_at(0), request.negative_prompt, request.seed, steps)

    def _opener(self, folder: str, adapter: str | None = None) -> Open:
        backbone, savings = self.components.backbone, self.components.savings
        return lambda: opened(folder, backbone.device, backbone.dtype, adapter, savings)

    def _refined(
        self,
        request: Request,
        config: ModelConfig,
        pieces: Iterator[Piece],
        words: _Words,
        state: State | None,
        on_step: OnStep | None,
    ) -> Iterator[Piece]:
        """Stage 3: by the model's own network, or by a pipeline of diffusers."""
        if config.refine_by is not None:
            opener = self._opener(config.refine_by.pipeline)
            stage: KeyframeRefineStage | PipelineRefineStage
            given = (opener, config.refine_by, request.seed, request.num_frames, self.output_size(request), request.negative_prompt)
            if redraws_from_keyframes(config.refine_by):
                stage = KeyframeRefineStage(*given, self.components.backbone.device)
            else:
                stage = PipelineRefineStage(*given)
            return stage.stream(pieces, words.prompt_at, state)
        return self._refiner(request, on_step).stream(pieces, words.text_at, state)

    def _read(self, request: Request, state: State | None) -> Iterator[Piece]:
        """The frames of the file to refine, one by one, in the size that they are refined to: what is there already is kept."""
        assert request.refine is not None and request.num_frames is not None, "the caller has seen to it"
        height, width = self.output_size(request)
        done = int(state["read"]) if state else 0
        for frame_HWC in islice(read_video(request.refine, height, width), done, request.num_frames):
            done += 1
            yield Piece(to_float(frame_HWC[None]), {"read": done}, done == request.num_frames)
        if done < request.num_frames:
            raise MediaError(f"{request.refine}: has {done} frames, {request.num_frames} were to be refined")

    def _refiner(self, request: Request, on_step: OnStep | None) -> RefineStage:
        assert self.components.refiner is not None, "checked before"
        crew = self.refiners or Alone(self.components.refiner)
        return RefineStage(crew, self._refine_config(request), request.seed, request.num_frames, self.output_size(request), on_step)

    def _refine_config(self, request: Request) -> RefineConfig:
        own = self.config.refine
        assert own is not None, "checked before"
        own = replace(own, form=request.form or own.form, strength=own.strength if request.strength is None else request.strength)
        if request.refine is None:  # then steps and guidance are those of stages 1 and 2
            return own
        guidance_scale = own.guidance_scale if request.guidance_scale is None else request.guidance_scale
        return replace(own, steps=request.num_inference_steps or own.steps, guidance_scale=guidance_scale)


class _Words:
    """The prompt of the chunk that makes a frame, as text and embedded."""

    def __init__(self, encoder: Encoder, negative_prompt: str, prompt_at: PromptAt):
        self.prompt_at = prompt_at
        # the windows that are being refined at a time are some chunks behind, and have the prompts of theirs
        self._embedded = lru_cache(maxsize=64)(lambda prompt: encoder(prompt, negative_prompt))

    def text_at(self, frame: int) -> TextCond:
        """See `prompt_at`; the same object for the same prompt."""
        return self._embedded(self.prompt_at(frame))


def _chunks(pieces: Iterator[Piece], state: State | None) -> Iterator[Chunk]:
    """Finished pieces as numbered chunks; `state`: of the chunk before them."""
    index, start = (int(state["chunk"]), int(state["frame"])) if state else (0, 0)
    for piece in pieces:
        after = start + len(piece.frames_TCHW)
        going_on = {**piece.state, "chunk": index + 1, "frame": after}
        yield Chunk(index, start, to_uint8(piece.frames_TCHW), piece.final, going_on)
        index, start = index + 1, after


def _kept(done: int, made: int, held: int, total: int | None) -> tuple[int, int]:
    """(how many of `made` frames after `done` are finished, how many of the others wait): none waits where these are enough."""
    if total is not None and done + made >= total:
        return total - done, 0
    return made - held, held


def _state(memory: StreamMemory, extended: int, held: int) -> State:
    return {**memory.state_dict(), "extended": extended, "held": held}
