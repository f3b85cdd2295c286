"""Decide every option of a request for a model, once, before any weights load.

The command line, the server, batch, plan, resume and bench all call `resolve`. Later code reads the
`ResolvedRequest` only.
"""

from dataclasses import replace
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

from .checkpoints.find import find_model, misused
from .checkpoints.registry import ENHANCERS
from .config import ExtendConfig, ModelConfig, RefineByConfig, RefineConfig, Request, SeedConfig
from .errors import MediaError, MissingExtra, ModelError, RequestError
from .external.abilities import (
    abilities,
    check_refiner,
    checked_seed,
    pipeline_class,
    read_base,
    redraws_from_keyframes,
    seed_abilities,
)
from .external.asked import check_asked_steps, check_size, extended_by, interpolates, sized
from .resolved import ChunkGrid, ResolvedRequest, Start


def resolve(config: ModelConfig, request: Request) -> ResolvedRequest:
    """Return what the model will make. Reads no weights and opens no media.

    RequestError if the request is wrong or the model cannot do it; ModelError if a pipeline of the model
    cannot be used.
    """
    request = _located(request.validate())
    _check_starts(config, request)
    config = replace(config, seed=_first_chunk(config, request))
    _check_base(config, request)
    refine, refine_by = _refining(config, request)
    if config.extend_by is not None:
        config = sized(config, request)
    made = (config.height, config.width)
    height, width = by.size(*made) if (by := refine or refine_by) else made
    if config.extend_by is None:
        check_size(config, request, height, width)
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
        extend_by=extended_by(config, request),
    )
    _check_schedule(resolved)
    return resolved


def _located(request: Request) -> Request:
    """Replace the name or hub id of the request's base by its folder. RequestError if it is not there."""
    if request.base is None:
        return request
    if wrong := misused(request.base, "base"):
        raise RequestError("base", request.base, wrong)
    try:
        return replace(request, base=str(find_model(request.base)))
    except ModelError as error:
        raise RequestError("base", request.base, str(error)) from error


def resolve_for(model: str, request: Request) -> ResolvedRequest:
    """Do `resolve` for a model by its name or folder. RequestError also if it is missing or broken."""
    from .external.as_model import read_model  # imports torch

    try:
        return resolve(read_model(model)[1], request)
    except ModelError as error:
        raise RequestError("model", model, str(error)) from error


def with_media(resolved: ResolvedRequest) -> ResolvedRequest:
    """Complete it from the files that it names: rate and size of a video, number of frames to refine.

    RequestError if a file cannot be decoded, or has fewer frames than were asked for.
    """
    from .video.reader import count_frames, playback_rate, read_image  # slow to import

    request = resolved.request
    for name, path in request.files().items():
        try:
            if name == "image":
                read_image(path, 8, 8)
                continue
            resolved = at_clip_size(resolved)
            fps = request.fps or playback_rate(path) or resolved.config.fps
            resolved = replace(resolved, fps=fps)
            if name == "refine":
                resolved = counted(resolved, count_frames(path))
        except MediaError as error:
            raise RequestError(name, path, str(error).removeprefix(f"{path}: ")) from error
    return resolved


def at_clip_size(resolved: ResolvedRequest) -> ResolvedRequest:
    """Extend a video in its own size, up to the pipeline's own area, if the pipeline makes any size.

    MediaError if the video cannot be read.
    """
    request, by = resolved.request, resolved.config.extend_by
    if request.video is None or by is None or not by.free_size or request.height or request.width:
        return resolved
    from .video.reader import probe_video  # slow to import

    clip = probe_video(request.video)
    scale = min(1, (resolved.height * resolved.width / (clip.height * clip.width)) ** 0.5)
    height, width = (
        max(1, int(scale * side + 1e-6) // by.multiple) * by.multiple for side in (clip.height, clip.width)
    )
    return resolve(resolved.config, replace(request, height=height, width=width))


def counted(resolved: ResolvedRequest, frames: int) -> ResolvedRequest:
    """Complete it for a file to refine of `frames` frames. RequestError if more were asked for."""
    asked = resolved.num_frames
    if asked is not None and asked > frames:
        raise RequestError(
            "num_frames", asked, f"the video has {frames}; ask for that or less, or leave it out for all"
        )
    asked = frames if asked is None else asked
    request = replace(resolved.request, num_frames=asked)
    resolved = replace(resolved, request=request, num_frames=asked, made_frames=asked)
    _check_schedule(resolved)
    return resolved


def _start(config: ModelConfig, request: Request) -> Start:
    if request.refine is not None:
        return "file"
    if request.video is not None:
        return "video"
    return "image" if request.image is not None and not config.reads_image else "chunk"


def _grid(config: ModelConfig, start: Start) -> ChunkGrid:
    new = config.extend.frames - config.extend.overlap
    if start == "file":  # stage 3 asks for the prompt of any frame
        return ChunkGrid(0, 1)
    if start == "image":
        return ChunkGrid(1, new, given=1)
    return ChunkGrid(0 if start == "video" else config.extend.frames, new)


def _extending(config: ModelConfig, request: Request) -> ExtendConfig:
    """Return the settings of stages 1 and 2."""
    own = config.extend
    asked = config.guidance and request.guidance_scale is not None and request.refine is None
    scale = request.guidance_scale if asked and request.guidance_scale is not None else own.guidance_scale
    return replace(own, steps=request.num_inference_steps or own.steps, guidance_scale=scale)


def _first_chunk(config: ModelConfig, request: Request) -> SeedConfig | None:
    """Return the pipeline of stage 1: the request's base, else the model's, checked."""
    if request.base is None:
        return checked_seed(config.seed) if config.seed is not None else None
    try:
        return checked_seed(read_base(Path(request.base)))
    except ModelError as error:
        raise RequestError("base", request.base, str(error)) from error


def _asked_first_chunk(config: ModelConfig, request: Request) -> SeedConfig | None:
    """Return the pipeline of stage 1 with the request's steps and guidance; None if there is none."""
    own = config.seed
    if own is None or own.pipeline is None:
        return None
    scale = own.guidance_scale if request.guidance_scale is None else request.guidance_scale
    steps = request.num_inference_steps or own.steps
    if own.adapter is None and request.video is None and request.refine is None:
        check_asked_steps(own.pipeline, request.num_inference_steps, steps)
    return replace(own, steps=steps, guidance_scale=scale)


def _image_maker(config: ModelConfig, request: Request) -> str | None:
    makes = request.image is None and request.video is None and request.refine is None and config.reads_image
    return config.seed.picture if makes and config.seed is not None else None


def _check_starts(config: ModelConfig, request: Request) -> None:
    if request.preset == "full" and not config.refines:
        get = (
            f"; get it by: streamingt2v get {config.name} --preset full, or"
            if config.name in ENHANCERS
            else ";"
        )
        raise RequestError("preset", "full", f"model {config.name!r} has no refiner{get} use preview")


def _check_base(config: ModelConfig, request: Request) -> None:
    """Raise RequestError if the start of the video and the maker of the first chunk do not fit together."""
    if request.base is not None and config.extend_by is not None:
        fix = f"model {config.name!r} is a pipeline that makes its own first chunk; leave it out"
        raise RequestError("base", request.base, fix)
    if request.base is not None and request.video is not None:
        raise RequestError("base", request.base, "an extended video needs no first chunk; leave the base out")
    if request.base is not None and request.image is not None and not config.reads_image:
        fix = (
            "reads no image, so the image would be frame 0 and the base have no effect; leave one of them out"
        )
        raise RequestError("base", request.base, fix)
    makes_image = config.seed is not None and config.seed.picture is not None
    if request.files() or makes_image or not _needs_image(config):
        return
    what = "the base's clip" if request.base is not None else f"the first chunk of {config.name!r}"
    raise RequestError("image", None, f"{what} is made from an image; give one")


def _needs_image(config: ModelConfig) -> bool:
    if config.extend_by is not None:
        return config.extend_by.image == "needed"
    if config.seed is None or config.seed.pipeline is None:
        return config.backbone == "svd"
    return seed_abilities(config.seed).image == "needed"


def _refining(config: ModelConfig, request: Request) -> tuple[RefineConfig | None, RefineByConfig | None]:
    """Return the settings of stage 3.

    The request's steps and guidance are for it only if the request refines a file.
    """
    by = config.refine_by
    if by is not None and (request.preset == "full" or Path(by.pipeline).exists()):
        check_refiner(by)
    if request.preset != "full":
        return None, None
    steps, scale = None, None
    if request.refine is not None:
        steps, scale = request.num_inference_steps, request.guidance_scale
    if by is not None:
        if request.form is not None:
            fix = f"model {config.name!r} refines by a pipeline of diffusers, which has none; leave it out"
            raise RequestError("form", request.form, fix)
        if scale is not None and not abilities(pipeline_class(Path(by.pipeline))).guidance:
            raise RequestError(
                "guidance_scale", scale, f"the pipeline in {by.pipeline} has none; leave it out"
            )
        asked = by.asked(request.strength, steps, scale)
        check_asked_steps(by.pipeline, steps, asked.steps)
        return None, asked
    own = config.refine
    assert own is not None, "checked before"
    strength = own.strength if request.strength is None else request.strength
    scale = own.guidance_scale if scale is None else scale
    changed = replace(
        own, form=request.form or own.form, strength=strength, steps=steps or own.steps, guidance_scale=scale
    )
    return changed, None


def _factor(config: ModelConfig, request: Request) -> int:
    """Return the interpolation factor: above 1 for a playback rate above the model's.

    RequestError for a rate that is no multiple of the model's, or for a video that cannot be interpolated.
    """
    if request.refine is not None or request.fps is None or request.fps <= config.fps:
        return 1
    if request.video is not None:
        raise RequestError(
            "fps", request.fps, f"an extended video is not interpolated; set {config.fps} or less"
        )
    if request.fps % config.fps:
        nearest = f"{request.fps // config.fps * config.fps} or {-(-request.fps // config.fps) * config.fps}"
        fix = f"model {config.name!r} makes {config.fps} frames a second; set {nearest}, or less"
        raise RequestError("fps", request.fps, fix)
    if find_spec("cv2") is None:
        raise MissingExtra("fps", "interpolate")
    return request.fps // config.fps


def _check_effects(config: ModelConfig, request: Request) -> None:
    """Raise RequestError for guidance, a negative prompt or a schedule that would have no effect."""
    if request.transition_chunks > 1 and not request.schedule:
        fix = "there is no later prompt; give a schedule, or leave it out"
        raise RequestError("transition_chunks", request.transition_chunks, fix)
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
        fix = f"model {config.name!r} {why} and reads none; leave it out"
        raise RequestError("negative_prompt", request.negative_prompt, fix)
    if request.transition_chunks > 1 and not interpolates(config):
        fix = f"model {config.name!r} reads no prompts that can be interpolated; leave it out"
        raise RequestError("transition_chunks", request.transition_chunks, fix)
    if request.schedule and not config.reads_text:
        fix = f"model {config.name!r} continues from images alone; leave it out"
        raise RequestError("schedule", len(request.schedule), fix)


def _unguided(config: ModelConfig) -> str:
    return "has its guidance in its weights" if config.extend_by else "was distilled with its guidance"


def _check_schedule(resolved: ResolvedRequest) -> None:
    """Raise RequestError for a schedule entry that no chunk would use."""
    grid, total = resolved.grid, resolved.made_frames
    entries = [-(-frame // resolved.factor) for frame, _ in resolved.request.schedule]
    starts = [grid.following(frame) for frame in entries]
    for frame, start, following in zip_longest(entries, starts, starts[1:]):
        if total is not None and start >= total:
            last = grid.start(total - 1)
            latest = f"; the last begins at {last}" if last or not grid.given else ""
            fix = f"no chunk begins there or later, so this entry would never be used{latest}"
            raise RequestError("schedule", frame, fix)
        if start == following:
            before = grid.start(start - 1)
            earlier = f"; the chunk before begins at {before}" if before or not grid.given else ""
            fix = f"the next entry starts with the same chunk, at {start}, so it would never be used{earlier}"
            raise RequestError("schedule", frame, fix)
