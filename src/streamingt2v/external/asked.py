"""Check what a request asks of the pipelines of diffusers that make its video."""

import dataclasses
from pathlib import Path

from ..config import ModelConfig, Request
from ..config.external import ExtendByConfig
from ..errors import ModelError, RequestError
from .abilities import check_steps, pipeline_class


def sized(config: ModelConfig, request: Request) -> ModelConfig:
    """Return a pipeline's model at the size asked for: any multiple of what its networks need."""
    assert config.extend_by is not None, "a model of a pipeline"
    multiple = config.extend_by.multiple
    if not config.extend_by.free_size:
        check_size(config, request, config.height, config.width)
    for name, asked in (("width", request.width), ("height", request.height)):
        if asked is not None and asked % multiple:
            nearest = f"{max(1, asked // multiple) * multiple} or {-(-asked // multiple) * multiple}"
            raise RequestError(
                name, asked, f"model {config.name!r} makes multiples of {multiple}; set {nearest}"
            )
    return dataclasses.replace(
        config, height=request.height or config.height, width=request.width or config.width
    )


def extended_by(config: ModelConfig, request: Request) -> ExtendByConfig | None:
    """Return the pipeline that makes all chunks, with the request's way to continue, steps and guidance."""
    own = config.extend_by
    if own is None:
        if request.continue_by is not None:
            raise RequestError(
                "continue_by",
                request.continue_by,
                f"model {config.name!r} continues by its own network; leave it out",
            )
        return None
    from .as_model import way_of  # imports torch

    try:
        how = way_of(config, request.continue_by)
    except ModelError as error:
        raise RequestError("continue_by", request.continue_by, str(error)) from error
    asks = request.refine is None
    scale = request.guidance_scale if asks and request.guidance_scale is not None else own.guidance_scale
    steps = (request.num_inference_steps if asks else None) or own.steps
    if asks:
        check_asked_steps(own.pipeline, request.num_inference_steps, steps, fixed=True)
    return dataclasses.replace(own, how=how, steps=steps, guidance_scale=scale)


def check_size(config: ModelConfig, request: Request, height: int, width: int) -> None:
    """Raise RequestError if a request asks for another size than this one."""
    for name, asked, made in (("width", request.width, width), ("height", request.height, height)):
        if asked is not None and asked != made:
            fix = (
                f"model {config.name!r} with preset {request.preset!r} makes {made}; set that or leave it out"
            )
            raise RequestError(name, asked, fix)


def interpolates(config: ModelConfig) -> bool:
    """Tell whether stages 1 and 2 can read a mixture of prompts."""
    if config.extend_by is None:
        return config.reads_text
    return hasattr(pipeline_class(Path(config.extend_by.pipeline)), "encode_prompt")


def check_asked_steps(folder: str, asked: int | None, steps: int | None, fixed: bool = False) -> None:
    """Do `abilities.check_steps` for a request's steps, or a configuration's if `asked` is None.

    RequestError for the request's, ModelError for the configuration's.
    """
    try:
        check_steps(Path(folder), steps, fixed)
    except ModelError as error:
        if asked is None:
            raise
        raise RequestError("num_inference_steps", asked, str(error)) from error
