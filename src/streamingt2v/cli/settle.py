"""Resolve `auto` options before weights load: model files, device, data type and offloading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import EMBEDDED, ModelConfig, read_json
from ..errors import RequestError
from ..estimate.device import choose_device, choose_dtype, free_memory
from .screen import Screen

if TYPE_CHECKING:
    from ..resolve import ResolvedRequest

Options = TypeVar("Options", bound=Any)

TEXT_ENCODERS = ("T5", "UMT5", "Gemma", "Llama", "Qwen", "Mistral")
"""Prefixes of text encoder classes that overflow in float16."""


def settle(
    options: Options, show: Screen, base: str | None = None, *, fetch: str | None = None, yes: bool = False
) -> Options:
    """Return the options with device and dtype resolved, after downloading missing models.

    options: a dataclass with `model` (one or a list), `device`, `dtype`, `offload` and `engine`.
    fetch: the preset to download missing files for, after asking unless `yes`; None: no download.
    RequestError for a missing device, or if the download is declined.
    """
    names = options.model if isinstance(options.model, list) else [options.model or "tiny"]
    auto = options.device == "auto" or options.dtype == "auto"
    device, why = choose_device(
        options.device if options.device != "auto" or options.engine != "openvino" else "cpu"
    )
    if fetch is not None:
        from .weights import check_use, obtain

        check_use(names, base)

        wants_half = options.dtype in ("float16", "bfloat16") or (options.dtype == "auto" and device != "cpu")
        for option, name in [*(("model", name) for name in names), *([("base", base)] if base else [])]:
            obtain({option: name}, show, full=fetch == "full", half=wants_half, yes=yes)
            for part in _parts(name, full=fetch == "full") if option == "model" else ():
                obtain({option: part}, show, full=False, half=wants_half, yes=yes)
    dtype, because = choose_dtype(options.dtype, device, half_of(*names, base))
    if auto:
        show.later(f"on {device} ({why}) in {dtype} ({because})")
    offload = "none" if options.offload == "auto" and device.partition(":")[0] == "cpu" else options.offload
    return replace(options, device=device, dtype=dtype, offload=offload)


def _parts(name: str, full: bool) -> list[str]:
    """List the names and hub ids in a model's settings that are missing; those of stage 3 only if `full`."""
    from ..checkpoints.find import find_model, missing_parts
    from ..errors import ModelError

    try:
        folder = find_model(name)
    except ModelError:  # refused later, with the others
        return []
    if not (folder / "model.json").is_file():
        return []
    config = ModelConfig.load(folder)
    return missing_parts(config if full else replace(config, refine_by=None))


def settle_offload(options: Options, asked: ResolvedRequest, show: Screen) -> Options:
    """Return the options with the fastest offloading that fits the device; RequestError if none fits."""
    if options.offload != "auto":
        return options
    if options.engine != "torch":  # other engines cannot offload
        return replace(options, offload="none")
    from ..checkpoints.find import find_model
    from ..estimate.plan import plan

    found = plan(
        find_model(options.model), _counted(asked), name=options.model, device=options.device,
        dtype=options.dtype, seconds_per_step=1.0, memory=free_memory(options.device),
        savings=replace(options.savings, offload="none"),
    )  # fmt: skip
    level = next((level for level in found.levels if level.fits), None)
    if level is None:
        fix = (
            "does not fit this device at any level of offloading; see `streamingt2v plan` with these options"
        )
        raise RequestError("model", options.model, fix)
    show.later(f"offload: {level.offload} (the fastest that fits the free memory of {options.device})")
    return replace(options, offload=level.offload)


def _counted(asked: ResolvedRequest) -> ResolvedRequest:
    """Return the request with a number of frames; memory does not depend on it."""
    return asked if asked.num_frames is not None else replace(asked, num_frames=240, made_frames=240)


def half_of(*names: str | None) -> str:
    """Return the half-precision type for models used together: bfloat16 if one of them needs it."""
    return "bfloat16" if any(_half_of(name) == "bfloat16" for name in names if name) else "float16"


def _half_of(name: str) -> str:
    """Return the half-precision type that the authors of a local or known model use."""
    if name in EMBEDDED:
        return "float16"
    from ..checkpoints.find import find_model, known_as
    from ..errors import ModelError

    known = known_as(name) if not Path(name).exists() else None
    if known is not None and known[0] is not None:
        return known[0].half
    try:
        index = find_model(name) / "model_index.json"
    except ModelError:
        return "float16"
    if not index.is_file():
        return "float16"
    pairs = (value for value in read_json(index).values() if isinstance(value, list) and len(value) == 2)
    classes = [kind for _, kind in pairs if isinstance(kind, str)]
    return "bfloat16" if any(kind.startswith(TEXT_ENCODERS) for kind in classes) else "float16"


def check_base(asked: ResolvedRequest, model: str, base: str | None) -> list[str]:
    """Return notes on the size of a base's clip; RequestError if the included model would shrink it a lot.

    base: as it was asked for.
    """
    first = asked.first_chunk
    if base is None or first is None or first.pipeline is None:
        return []
    own = _size(Path(first.pipeline), first.height, first.width)
    size = f"{own[1]}x{own[0]}" if own else "its own size"
    if model in EMBEDDED and own and min(own) >= 2 * max(asked.height, asked.width):
        fix = (
            f"makes {size}, but model {model!r} continues at {asked.width}x{asked.height}; choose --model "
            "streaming-t2v (256x256, text), --model streaming-svd (1024x576, image), or the base itself"
        )
        raise RequestError("base", base, fix)
    frames = asked.extend.frames
    fits = own == (asked.height, asked.width)
    cut = "" if fits else f", cropped and scaled to {asked.width}x{asked.height}"
    fps = asked.config.fps
    return [f"the base makes the first {frames} frames at {size}{cut}; {model} continues at {fps} frames/s"]


def _size(pipeline: Path, height: int | None, width: int | None) -> tuple[int, int] | None:
    """Return the (height, width) that a pipeline is asked for, or its own; None if its files do not say."""
    from ..external.abilities import pipeline_class
    from ..external.families import folder_size

    if height is not None and width is not None:
        return height, width
    return folder_size(pipeline, pipeline_class(pipeline))
