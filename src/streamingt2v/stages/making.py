"""Choose who does each stage of a resolved request: the model's own networks, or pipelines of diffusers."""

from collections.abc import Iterator
from itertools import islice

from ..checkpoints.load import Components
from ..checkpoints.opening import Lora, opened
from ..errors import MediaError
from ..external.calling import Open
from ..ray_backend import Alone, Crew
from ..resolve import ResolvedRequest
from ..types import State
from ..video.piece import Piece, to_float
from ..video.reader import read_image, read_video
from .extend import ExtendStage
from .extend_by_pipeline import PipelineExtendStage
from .first_chunk import PipelineFirstChunk, made_image
from .interpolate import InterpolateStage
from .protocols import Extender, FirstChunk, Image, OnStep, Words
from .refine import RefineStage
from .refine_by_keyframes import KeyframeRefineStage
from .refine_by_pipeline import PipelineRefineStage
from .refine_by_steps import SplicedRefineStage
from .refine_windows import WindowRefineStage


def extender(parts: Components, asked: ResolvedRequest, on_step: OnStep | None = None) -> Extender:
    """Return who makes chunk after chunk."""
    size = (asked.height, asked.width)
    if asked.extend_by is not None:
        by, seed = asked.extend_by, asked.request.seed
        return PipelineExtendStage(parts.pipeline, by, asked.extend, size, asked.config.fps, seed, on_step)
    assert parts.backbone is not None, "a model of networks has them"
    return ExtendStage(parts.backbone, parts.scheduler, asked.extend, asked.request.seed, size, on_step)


def first_chunk(parts: Components, asked: ResolvedRequest, own: Extender) -> FirstChunk:
    """Return who makes the first chunk: a pipeline, or `own`, who makes the others."""
    by = asked.first_chunk
    if by is None or by.pipeline is None:
        return own
    opener = _opener(parts, by.pipeline, by.adapter, "may" if parts.adapted else "must")
    return PipelineFirstChunk(opener, by, asked.extend.frames, asked.height, asked.width, asked.request.seed)


def starting_image(parts: Components, asked: ResolvedRequest, words: Words) -> Image | None:
    """Return the image to start from: the request's, one made from its prompt, or None."""
    image, maker = asked.request.image, asked.image_maker
    if image is not None:
        return lambda height, width: to_float(read_image(image, height, width)[None])[0]
    if maker is None:
        return None
    return made_image(_opener(parts, maker), words, asked.request.seed, asked.request.num_inference_steps)


def frames_to_refine(asked: ResolvedRequest, state: State | None) -> Iterator[Piece]:
    """Yield the frames of the file to refine, scaled to the output's size."""
    path, total = asked.request.refine, asked.num_frames
    assert path is not None and total is not None, "checked by resolve"
    done = int(state["read"]) if state else 0
    for frame_HWC in islice(read_video(path, *asked.output_size), done, total):
        done += 1
        yield Piece(to_float(frame_HWC[None]), {"read": done}, done == total)
    if done < total:
        raise MediaError(f"{path}: has {done} frames, {total} were to be refined")


def refined(
    parts: Components,
    asked: ResolvedRequest,
    pieces: Iterator[Piece],
    words: Words,
    state: State | None,
    crew: Crew | None,
    on_step: OnStep | None,
) -> Iterator[Piece]:
    """Refine pieces where the request asks for it.

    crew: workers with the model's own refiner; None for this process alone.
    """
    total, size, seed = asked.made_frames, asked.output_size, asked.request.seed
    if asked.refine is not None:
        assert crew is not None or parts.refiner is not None, "checked by resolve"
        stage = RefineStage(crew or Alone(parts.refiner), asked.refine, seed, total, size, on_step)
        return stage.stream(pieces, words.text_at, state)
    if asked.refine_by is None:
        return pieces
    opener, by = _opener(parts, asked.refine_by.pipeline), asked.refine_by
    given = (opener, by, seed, total, size, asked.request.negative_prompt, on_step)
    by_stage: WindowRefineStage = (
        KeyframeRefineStage(*given, parts.device)
        if asked.by_keyframes
        else PipelineRefineStage(*given)
        if by.seam in ("cut", "fade")
        else SplicedRefineStage(*given)
    )
    return by_stage.stream(pieces, words.prompt_at, state)


def interpolated(asked: ResolvedRequest, pieces: Iterator[Piece], state: State | None) -> Iterator[Piece]:
    """Insert frames where the request asks for a higher rate."""
    if asked.factor == 1:
        return pieces
    return InterpolateStage(asked.factor, asked.num_frames).stream(pieces, state)


def _opener(parts: Components, folder: str, adapter: str | None = None, lora: Lora = "no") -> Open:
    return lambda: opened(folder, parts.device, parts.dtype, adapter, parts.savings, lora)
