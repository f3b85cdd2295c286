"""From a request and a model to what will be made: every option is decided here, once, before any weights load.

The command line, the server, batch, plan, resume and bench call `resolve` at their door. What comes after reads the `ResolvedRequest`
and never asks again what was asked for.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from .checkpoints.find import find_model
from .config import ExtendConfig, ModelConfig, RefineByConfig, RefineConfig, Request, SeedConfig
from .config.external import ExtendByConfig
from .errors import MediaError, MissingExtra, ModelError, RequestError
from .external.abilities import (
    Abilities,
    abilities,
    check_refiner,
    checked_seed,
    pipeline_class,
    read_base,
    redraws_from_keyframes,
    seed_abilities,
)
from .video.rates import Rate

Start = Literal["chunk", "image", "video", "file"]


@dataclass(frozen=True)
class ChunkGrid:
    """Where the chunks of stages 1 and 2 begin: at 0, at `second`, and then every `new` frames.

    given: 1 where frame 0 is an image that no chunk makes, else 0.
    """

    second: int
    new: int
    given: int = 0

    def start(self, frame: int) -> int:
        """First frame of the chunk that makes `frame`; 0 for an image that is frame 0."""
        return self.second + (frame - self.second) // self.new * self.new if frame >= self.second else 0

    def following(self, frame: int) -> int:
        """First frame of the first chunk that begins at `frame` or later."""
        if frame <= 0 and not self.given:
            return 0
        return self.second - (min(0, self.second - frame) // self.new) * self.new

    def count(self, frames: int) -> int:
        """How many chunks make a video of so many frames."""
        first = int(self.second > self.given)
        return first + max(0, -(-(frames - self.second) // self.new))


@dataclass(frozen=True)
class ResolvedRequest:
    """What will be made and how. Made by `resolve` alone.

    request: as asked, checked. config: the model's. start: stage 1 makes the first "chunk"; the "image" is frame 0; the "video" is
    extended; or the frames of a "file" are refined. num_frames: of the output, None without end; made_frames: of stages 1 to 3, of
    which interpolation makes `factor` times as many. height, width: of stages 1 and 2; output_height, output_width: of the output.
    fps: playback rate of the output, None for that of a video whose rate has not been read (see `with_media`).
    extend: stages 1 and 2. first_chunk: the pipeline of diffusers that makes the first chunk, None for the model's own network;
    image_maker: folder of the pipeline that makes the image which stage 1 starts from. refine, refine_by: stage 3, by the model's own
    network or by a pipeline; by_keyframes: that pipeline redraws after keyframes. grid: where chunks begin, in made frames.
    extend_by: the pipeline that makes all chunks, None for the model's own network.
    """

    request: Request
    config: ModelConfig
    start: Start
    num_frames: int | None
    made_frames: int | None
    factor: int
    height: int
    width: int
    output_height: int
    output_width: int
    fps: Rate | None
    extend: ExtendConfig
    first_chunk: SeedConfig | None
    image_maker: str | None
    refine: RefineConfig | None
    refine_by: RefineByConfig | None
    by_keyframes: bool
    grid: ChunkGrid
    extend_by: ExtendByConfig | None = None

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the output's frames."""
        return self.output_height, self.output_width

    @property
    def refines(self) -> bool:
        """Whether stage 3 runs."""
        return self.refine is not None or self.refine_by is not None

    @property
    def unneeded(self) -> frozenset[str]:
        """Folders of the model's networks that have no part in it."""
        return frozenset() if self.refine is not None else frozenset({"refiner", "refiner_vae"})

    @property
    def pipeline_folders(self) -> list[Path]:
        """Folders of others' pipelines and their settings, whose files the video depends on as well."""
        first = self.first_chunk
        folders = [self.image_maker]
        if self.start == "chunk" and first is not None:
            folders = [self.request.base, first.pipeline, first.adapter, first.picture]
        if self.refine_by is not None:
            folders.append(self.refine_by.pipeline)
        return [Path(folder) for folder in dict.fromkeys(folders) if folder is not None]

    def prompt_at(self, frame: int) -> str:
        """Prompt of the chunk that makes a frame, as the request has it; frames as made."""
        return self.request.prompt_at(self.factor * self.grid.start(frame))


def resolve(config: ModelConfig, request: Request) -> ResolvedRequest:
    """What the model will make of the request. Reads no weights and opens no media.

    RequestError where the request is wrong or the model cannot do it; ModelError if a pipeline that the model works with cannot be used.
    """
    request = _located(request.validate())
    _check_starts(config, request)
    config = dataclasses.replace(config, seed=_first_chunk(config, request))
    _check_base(config, request)
    refine, refine_by = _refining(config, request)
    height, width = (refine or refine_by or _Unrefined()).size(config.height, config.width)
    if config.extend_by is None:
        _check_size(config, request, height, width)
    else:
        config = _sized(config, request)
        height, width = (refine or refine_by or _Unrefined()).size(config.height, config.width)
    factor = _factor(config, request)
    frames = request.num_frames if request.num_frames is None else -(-(request.num_frames - 1) // factor) + 1
    start = _start(config, request)
    _check_effects(config, request)
    resolved = ResolvedRequest(
        request=request,
        config=config,
        start=start,
        num_frames=request.num_frames,
        made_frames=frames,
        factor=factor,
        height=config.height,
        width=config.width,
        output_height=height,
        output_width=width,
        fps=request.fps or (config.fps if start in ("chunk", "image") else None),
        extend=_extending(config, request),
        first_chunk=_asked_first_chunk(config, request),
        image_maker=_image_maker(config, request),
        refine=refine,
        refine_by=refine_by,
        by_keyframes=refine_by is not None and redraws_from_keyframes(refine_by),
        grid=_grid(config, start),
        extend_by=_extend_by(config, request),
    )
    _check_schedule(resolved)
    return resolved


def _located(request: Request) -> Request:
    """The request with the folder of its base, which may be a name or an id of the hub. RequestError if it is not here."""
    if request.base is None:
        return request
    try:
        return dataclasses.replace(request, base=str(find_model(request.base)))
    except ModelError as error:
        raise RequestError("base", request.base, str(error)) from error


def resolve_for(model: str, request: Request) -> ResolvedRequest:
    """The same for a model's name or folder; RequestError as well if there is no such model, or it is broken."""
    from .external.as_model import read_model  # imports torch, which a plan does without

    try:
        return resolve(read_model(model)[1], request)
    except ModelError as error:
        raise RequestError("model", model, str(error)) from error


def with_media(resolved: ResolvedRequest) -> ResolvedRequest:
    """The same with what is read from the files that it names: rate of a video, number of frames to refine.

    RequestError if a file cannot be decoded, or has fewer frames than are to be refined.
    """
    from .video.reader import (
        count_frames,
        playback_rate,
        read_image,
    )  # what decodes is imported when it is needed

    request = resolved.request
    for name, path in request.files().items():
        try:
            if name == "image":
                read_image(path, 8, 8)
                continue
            resolved = dataclasses.replace(
                resolved, fps=request.fps or playback_rate(path) or resolved.config.fps
            )
            if name == "refine":
                resolved = counted(resolved, count_frames(path))
        except MediaError as error:
            raise RequestError(name, path, str(error).removeprefix(f"{path}: ")) from error
    return resolved


def counted(resolved: ResolvedRequest, frames: int) -> ResolvedRequest:
    """The same for a file to refine that has so many frames. RequestError if more are asked for."""
    asked = resolved.num_frames
    if asked is not None and asked > frames:
        raise RequestError(
            "num_frames", asked, f"the video has {frames}; ask for that or less, or leave it out for all"
        )
    asked = frames if asked is None else asked
    request = dataclasses.replace(resolved.request, num_frames=asked)
    return dataclasses.replace(resolved, request=request, num_frames=asked, made_frames=asked)


def _start(config: ModelConfig, request: Request) -> Start:
    if request.refine is not None:
        return "file"
    if request.video is not None:
        return "video"
    return "image" if request.image is not None and not config.reads_image else "chunk"


def _grid(config: ModelConfig, start: Start) -> ChunkGrid:
    new = config.extend.frames - config.extend.overlap
    if start == "image":
        return ChunkGrid(1, new, given=1)
    return ChunkGrid(0 if start == "video" else config.extend.frames, new)


def _extending(config: ModelConfig, request: Request) -> ExtendConfig:
    """How the chunks of stages 1 and 2 are made."""
    own = config.extend
    asked = config.guidance and request.guidance_scale is not None and request.refine is None
    scale = request.guidance_scale if asked and request.guidance_scale is not None else own.guidance_scale
    return dataclasses.replace(own, steps=request.num_inference_steps or own.steps, guidance_scale=scale)


def _first_chunk(config: ModelConfig, request: Request) -> SeedConfig | None:
    """Stage 1 by the request's base where it names one, else by the model's; with the facts of the pipeline filled in."""
    if request.base is None:
        return checked_seed(config.seed) if config.seed is not None else None
    try:
        return checked_seed(read_base(Path(request.base)))
    except ModelError as error:
        raise RequestError("base", request.base, str(error)) from error


def _asked_first_chunk(config: ModelConfig, request: Request) -> SeedConfig | None:
    """With steps and guidance as asked for; None where no pipeline makes the first chunk."""
    own = config.seed
    if own is None or own.pipeline is None:
        return None
    scale = own.guidance_scale if request.guidance_scale is None else request.guidance_scale
    return dataclasses.replace(own, steps=request.num_inference_steps or own.steps, guidance_scale=scale)


def _image_maker(config: ModelConfig, request: Request) -> str | None:
    makes = request.image is None and request.video is None and request.refine is None and config.reads_image
    return config.seed.picture if makes and config.seed is not None else None


def _check_starts(config: ModelConfig, request: Request) -> None:
    if request.preset == "full" and config.refine is None and config.refine_by is None:
        raise RequestError("preset", "full", f"model {config.name!r} has no refiner; use preview")


def _check_base(config: ModelConfig, request: Request) -> None:
    """RequestError where what the video starts from and what makes the first chunk do not fit together."""
    if request.base is not None and config.extend_by is not None:
        raise RequestError(
            "base",
            request.base,
            f"model {config.name!r} is a pipeline that makes its own first chunk; leave it out",
        )
    if request.base is not None and request.video is not None:
        raise RequestError("base", request.base, "an extended video needs no first chunk; leave the base out")
    if request.base is not None and request.image is not None and not config.reads_image:
        fix = "makes its chunk from text alone, so the image would be frame 0 and the base without effect; leave one of them out"
        raise RequestError("base", request.base, fix)
    makes_image = config.seed is not None and config.seed.picture is not None
    if request.files() or makes_image or not _needs_image(config):
        return
    raise RequestError("image", None, f"the first chunk of {config.name!r} is made from an image; give one")


def _needs_image(config: ModelConfig) -> bool:
    if config.extend_by is not None:
        return config.extend_by.image == "needed"
    if config.seed is None or config.seed.pipeline is None:
        return config.backbone == "svd"
    return seed_abilities(config.seed).image == "needed"


def _refining(config: ModelConfig, request: Request) -> tuple[RefineConfig | None, RefineByConfig | None]:
    """Stage 3 as asked for. Steps and guidance are its own unless it is all there is to do; else they are those of stages 1 and 2."""
    by = config.refine_by
    if by is not None:
        check_refiner(by)
    if request.preset != "full":
        return None, None
    steps, scale = (
        (request.num_inference_steps, request.guidance_scale) if request.refine is not None else (None, None)
    )
    if by is not None:
        if request.form is not None:
            fix = f"model {config.name!r} refines by a pipeline of diffusers, which has none; leave it out"
            raise RequestError("form", request.form, fix)
        if scale is not None and not _abilities(by).guidance:
            raise RequestError(
                "guidance_scale", scale, f"the pipeline in {by.pipeline} has none; leave it out"
            )
        return None, by.asked(request.strength, steps, scale)
    own = config.refine
    assert own is not None, "checked before"
    strength = own.strength if request.strength is None else request.strength
    scale = own.guidance_scale if scale is None else scale
    changed = dataclasses.replace(
        own, form=request.form or own.form, strength=strength, steps=steps or own.steps, guidance_scale=scale
    )
    return changed, None


def _abilities(refine: RefineByConfig) -> Abilities:
    return abilities(pipeline_class(Path(refine.pipeline)))


class _Unrefined:
    """In the place of stage 3's settings where there is none."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """As they come."""
        return height, width


def _sized(config: ModelConfig, request: Request) -> ModelConfig:
    """The model of a pipeline at the size asked for: any multiple of what its networks pack."""
    assert config.extend_by is not None, "a model of a pipeline"
    multiple = config.extend_by.multiple
    for name, asked in (("width", request.width), ("height", request.height)):
        if asked is not None and asked % multiple:
            nearest = f"{max(1, asked // multiple) * multiple} or {-(-asked // multiple) * multiple}"
            raise RequestError(
                name, asked, f"model {config.name!r} makes multiples of {multiple}; set {nearest}"
            )
    return dataclasses.replace(
        config, height=request.height or config.height, width=request.width or config.width
    )


def _extend_by(config: ModelConfig, request: Request) -> ExtendByConfig | None:
    """The pipeline that makes all chunks, with the way to go on, steps and guidance as asked for."""
    own = config.extend_by
    if own is None:
        if request.continue_by is not None:
            raise RequestError(
                "continue_by",
                request.continue_by,
                f"model {config.name!r} goes on by its own network; leave it out",
            )
        return None
    from .external.as_model import way_of  # imports torch

    try:
        how = way_of(config, request.continue_by)
    except ModelError as error:
        raise RequestError("continue_by", request.continue_by, str(error)) from error
    asks = request.refine is None
    return dataclasses.replace(
        own,
        how=how,
        steps=(request.num_inference_steps if asks else None) or own.steps,
        guidance_scale=request.guidance_scale
        if asks and request.guidance_scale is not None
        else own.guidance_scale,
    )


def _check_size(config: ModelConfig, request: Request, height: int, width: int) -> None:
    for name, asked, made in (("width", request.width, width), ("height", request.height, height)):
        if asked is not None and asked != made:
            fix = (
                f"model {config.name!r} with preset {request.preset!r} makes {made}; set that or leave it out"
            )
            raise RequestError(name, asked, fix)


def _factor(config: ModelConfig, request: Request) -> int:
    """How many times the made frames the output has: above 1 for a playback rate above the model's; 1 for a file to refine.

    RequestError for a rate that is no multiple of the model's, or where nothing can be put between frames.
    """
    if request.refine is not None or request.fps is None or request.fps <= config.fps:
        return 1
    if request.video is not None:
        raise RequestError(
            "fps", request.fps, f"an extended video is not interpolated; set {config.fps} or less"
        )
    if request.fps % config.fps:
        nearest = f"{request.fps // config.fps * config.fps} or {-(-request.fps // config.fps) * config.fps}"
        raise RequestError(
            "fps",
            request.fps,
            f"model {config.name!r} makes {config.fps} frames a second; set {nearest}, or less",
        )
    if find_spec("cv2") is None:
        raise MissingExtra("fps", "interpolate")
    return request.fps // config.fps


def _check_effects(config: ModelConfig, request: Request) -> None:
    """RequestError for guidance, a negative prompt or later prompts that nothing would read."""
    if request.refine is not None:
        return
    by_pipeline = config.seed is not None and request.video is None
    if request.guidance_scale is not None and not config.guidance and not by_pipeline:
        fix = f"model {config.name!r} {_unguided(config)} and takes no other; leave it out"
        raise RequestError("guidance_scale", request.guidance_scale, fix)
    if request.preset == "full":
        return
    if request.negative_prompt.strip() and not config.reads_negative_prompt and not by_pipeline:
        why = _unguided(config) if config.reads_text else "reads images alone"
        raise RequestError(
            "negative_prompt",
            request.negative_prompt,
            f"model {config.name!r} {why} and reads none; leave it out",
        )
    if request.schedule and not config.reads_text:
        raise RequestError(
            "schedule",
            len(request.schedule),
            f"model {config.name!r} goes on from images alone; leave it out",
        )


def _unguided(config: ModelConfig) -> str:
    return (
        "has its guidance in its weights"
        if config.extend_by is not None
        else "was distilled with its guidance"
    )


def _check_schedule(resolved: ResolvedRequest) -> None:
    """RequestError for an entry that no chunk would use."""
    grid, total = resolved.grid, resolved.made_frames
    entries = [-(-frame // resolved.factor) for frame, _ in resolved.request.schedule]
    starts = [grid.following(frame) for frame in entries]
    for frame, start, following in zip_longest(entries, starts, starts[1:]):
        if total is not None and start >= total:
            last = grid.start(total - 1)
            latest = f"; the last begins at {last}" if last or not grid.given else ""
            raise RequestError(
                "schedule",
                frame,
                f"no chunk begins there or later, so this entry would never be used{latest}",
            )
        if start == following:
            before = grid.start(start - 1)
            earlier = f"; the chunk before begins at {before}" if before or not grid.given else ""
            fix = f"the next entry takes over with the same chunk, at {start}, so this one would never be used{earlier}"
            raise RequestError("schedule", frame, fix)
