"""Turn a resolved request into a stream of chunks: first chunk, extend, refine, interpolate."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from .checkpoints.load import Components
from .ray_backend import Crew
from .resolve import ResolvedRequest
from .stages.extend import faded
from .stages.making import extender, first_chunk, frames_to_refine, interpolated, refined, starting_image
from .stages.protocols import Extender, Memory, OnStageStep, OnStep, PromptAt, Stage, Words
from .types import Chunk, State
from .video.piece import Piece, to_float, to_uint8
from .video.reader import last_frames, read_video


def trip(
    parts: Components,
    asked: ResolvedRequest,
    state: State | None,
    on_step: OnStageStep | None,
    prompt_at: PromptAt | None,
    refiners: Crew | None,
) -> Iterator[Chunk]:
    """Yield the chunks of a resolved request; see `pipeline.LongVideoPipeline`, also for the arguments."""
    count, grid = asked.request.transition_chunks, asked.grid
    prompts = _prompts(asked, prompt_at)
    negative = asked.request.negative_prompt
    words = Words(parts.text, negative, prompts, lambda frame: grid.latest(frame, count))
    pieces = (
        frames_to_refine(asked, state)
        if asked.start == "file"
        else _extended(parts, asked, words, state, on_step)
    )
    on_refine = _of_stage(on_step, lambda: "refine")
    pieces = refined(parts, asked, pieces, words, state, refiners, on_refine)
    return _chunks(interpolated(asked, pieces, state), state)


def _extended(
    parts: Components, asked: ResolvedRequest, words: Words, state: State | None, on_step: OnStageStep | None
) -> Iterator[Piece]:
    """Yield the pieces of stages 1 and 2.

    With a crossfade the last frames of a chunk are held back until the next one shows them again. They are in
    the window.
    """
    stage: Stage = "first_chunk" if state is None else "extend"
    maker = extender(parts, asked, _of_stage(on_step, lambda: stage))
    total = asked.made_frames
    if state is None:
        frames_TCHW, memory, held = _begun(parts, asked, words, maker)
        stage = "extend"
        done, held = _kept(0, len(frames_TCHW), held, total)
        if done:
            yield Piece(frames_TCHW[:done], _state(memory, done, held), done == total)
    else:
        memory, done, held = maker.restored(state), int(state["extended"]), int(state.get("held", 0))
    while total is None or done < total:
        again_TCHW, new_TCHW = maker.next(memory, words, done + held, held).tensor_split([held])
        shown_TCHW = memory.window_TCHW[len(memory.window_TCHW) - held :]
        frames_TCHW = torch.cat([faded(shown_TCHW, again_TCHW), new_TCHW]) if held else new_TCHW
        memory = memory.advance(new_TCHW)
        kept, held = _kept(done, len(frames_TCHW), maker.config.crossfade, total)
        done += kept
        yield Piece(frames_TCHW[:kept], _state(memory, done, held), done == total)


def _begun(
    parts: Components, asked: ResolvedRequest, words: Words, maker: Extender
) -> tuple[torch.Tensor, Any, int]:
    """Return the first new frames (none if extending), the memory, and how many may be held back."""
    size = (asked.height, asked.width)
    if asked.start == "video":
        assert asked.request.video is not None
        last_TCHW = to_float(last_frames(asked.request.video, maker.config.frames, *size))
        # from the video's start, so that a video extended repeatedly keeps its appearance
        *_, anchor_HWC = islice(read_video(asked.request.video, *size), maker.config.anchor + 1)
        return last_TCHW[:0], maker.memory(last_TCHW, to_float(anchor_HWC[None])), 0
    image = starting_image(parts, asked, words)
    if asked.start == "image":
        assert image is not None
        frames_TCHW = image(*size)[None]
        return frames_TCHW, maker.memory(frames_TCHW), 0
    frames_TCHW = first_chunk(parts, asked, maker).first(words, image)
    return frames_TCHW, maker.memory(frames_TCHW), min(maker.config.crossfade, len(frames_TCHW) - 1)


def _of_stage(on_step: OnStageStep | None, stage: Callable[[], Stage]) -> OnStep | None:
    """Return the callback for one stage; `stage` is asked at each step."""
    return None if on_step is None else lambda step, steps: on_step(step, steps, stage())


def _prompts(asked: ResolvedRequest, prompt_at: PromptAt | None) -> PromptAt:
    """Return the prompts by made frame. prompt_at: replaces the request's prompts, by frame of the output."""
    if prompt_at is None:
        return asked.prompt_at
    return lambda frame: prompt_at(asked.factor * asked.grid.start(frame))


def _chunks(pieces: Iterator[Piece], state: State | None) -> Iterator[Chunk]:
    """Convert pieces to numbered chunks. state: of the chunk before them."""
    index, start = (int(state["chunk"]), int(state["frame"])) if state else (0, 0)
    for piece in pieces:
        after = start + len(piece.frames_TCHW)
        going_on = {**piece.state, "chunk": index + 1, "frame": after}
        yield Chunk(index, start, to_uint8(piece.frames_TCHW), piece.final, going_on)
        index, start = index + 1, after


def _kept(done: int, made: int, held: int, total: int | None) -> tuple[int, int]:
    """Return how many of `made` frames are finished, and how many are held back."""
    if total is not None and done + made >= total:
        return total - done, 0
    return made - held, held


def _state(memory: Memory, extended: int, held: int) -> State:
    return {**memory.state_dict(), "extended": extended, "held": held}
